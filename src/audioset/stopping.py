"""How a process ends that is asked to: by Ctrl-C, by SIGTERM, as clusters send it, or by SIGHUP of a lost terminal."""

from __future__ import annotations

import _thread
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # as Ctrl-C does
_came: list[int] = []  # signals that stop_when_asked has turned into Stopped
AGAIN_S = 0.05  # until a signal is sent again that came at a moment at which it could not end anything


class Stopped(KeyboardInterrupt):
    """The process was asked to end, by the signal ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stopping:
    """Notes the first signal to stop while it is entered, so a run may store where it is; a second one stops it."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # no other may have handlers
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, *ASKING)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_asked(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def stop(self) -> Stopped:
        """What to raise; also where another process of the run was asked."""
        return Stopped(self.number or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise Stopped(number)
        self.number = number


def stop_when_asked() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise Stopped; not where this was started to ignore them, as by nohup."""
    for number in (signal.SIGINT, *ASKING):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
    sys.unraisablehook = partial(_ask_again, sys.unraisablehook)


def signal_of(error: BaseException) -> int | None:
    """Return the number of the signal because of which this came out, or None.

    A library that was just being imported, or cleaning up, may have made another error of ``Stopped``.
    """
    cause = error if isinstance(error, Stopped) else error.__cause__
    if isinstance(cause, Stopped):
        return cause.number
    return _came[-1] if _came else None


def _ask_again(note: Callable[[Any], object], unraisable: Any) -> None:
    """Do not lose a signal that came where Python can raise nothing, as in the callback of a weak reference."""
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        _thread.start_new_thread(_ask_later, (error.number if isinstance(error, Stopped) else signal.SIGINT,))
    else:
        note(unraisable)


def _ask_later(number: int) -> None:
    time.sleep(AGAIN_S)
    os.kill(os.getpid(), number)


def _stop(number: int, frame: FrameType | None) -> None:
    if number == getattr(signal, "SIGHUP", None):
        for output in (1, 2):
            _leave_terminal(output)
    _came.append(number)
    raise Stopped(number)


def _leave_terminal(output: int) -> None:
    """Let an output that is a terminal lead nowhere: it is gone, and every word to it would be an error."""
    with suppress(OSError):
        if stat.S_ISCHR(os.fstat(output).st_mode):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
