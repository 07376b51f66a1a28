"""From waveform to the log-mel patches that a network sees, exactly as its original computes them."""
