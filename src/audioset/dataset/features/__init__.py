"""The released features: 128 bytes for each second of two million clips."""
