"""Labelled sounds of your own: folders, tables and labels beside the audio, checked and split."""
