"""Published networks, each written once as a function over the primitives of ``ops``."""
