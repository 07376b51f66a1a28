"""Learn your own sounds: a classifier on the embeddings of a published model, or the model trained further."""
