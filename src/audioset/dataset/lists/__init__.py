"""Lists of clips as AudioSet publishes them, with and without times."""
