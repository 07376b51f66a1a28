"""Readers of published checkpoints, and the model folder that they are converted to."""
