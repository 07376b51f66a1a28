"""``python -m audioset``."""

import os
import sys

# With -m, Python looks for modules in the current folder first, and a folder of recordings may hold a ``signal.py``. If
# this package itself is there, as in a checkout, that folder comes last instead.
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
    here = sys.path.pop(0)
    if __file__.startswith(f"{here}{os.sep}audioset{os.sep}__main__."):
        sys.path.append(here)

from audioset.cli import main

if __name__ == "__main__":
    main()
