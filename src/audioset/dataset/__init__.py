"""The dataset itself: its lists, its released features, and the audio behind them."""
