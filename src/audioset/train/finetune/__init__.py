"""A published network, trained further on sounds of one's own."""
