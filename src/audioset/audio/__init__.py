"""Sound files: what they are, how they are decoded, and the process that does it."""
