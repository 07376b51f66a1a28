"""Heads on the released features."""
