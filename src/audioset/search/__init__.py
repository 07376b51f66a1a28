"""Find moments that sound alike: an index of patch embeddings, and searches in it."""
