"""The published models: which there are, how one is loaded, and what it predicts."""
