"""Where ``audioset`` and ``python -m audioset`` begin."""

import os
import sys

# With -m, Python looks for modules in the current folder first, and a folder of recordings may hold a ``signal.py``. If
# this package itself is there, as in a checkout, that folder comes last instead.
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
    here = sys.path.pop(0)
    if __file__.startswith(f"{here}{os.sep}audioset{os.sep}__main__."):
        sys.path.append(here)


def main() -> None:
    """Run the command line; Ctrl-C ends it without a word while it is still being imported."""
    import signal

    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from audioset.cli import main as run

    run()


if __name__ == "__main__":
    main()
