"""``python -m audioset``."""

from audioset.cli import main

if __name__ == "__main__":
    main()
