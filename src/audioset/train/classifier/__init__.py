"""A classifier of one's own sounds, on the embeddings of a published model."""
