"""The dataset itself: segments, strong labels, released features, and the audio behind them."""
