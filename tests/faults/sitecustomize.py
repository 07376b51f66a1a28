"""Decoders that fail in every way, for files with telling names; workers find this module on their path.

Python imports ``sitecustomize`` at start-up, so what it changes is in place before the worker decodes.
"""

import os
import signal
import time

import numpy as np

import audioset.audio.reading as audio

_AudioReader = audio.AudioReader


def _spin() -> None:
    while True:
        pass


def _chatter() -> None:
    os.write(1, b"Error A : 6E\n" * 100)
    os.write(2, b"Warning: Xing stream size off\n" * 100)


def _unforeseen() -> None:
    raise RuntimeError("a bug in a decoder")


FAULTS = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "sleep": lambda: time.sleep(3600),
    "spin": _spin,
    "allocate": lambda: np.ones(50 * 2**30, np.uint8),
    "chatter": _chatter,
    "unforeseen": _unforeseen,
}


def open_reader(file, *arguments, **options):
    """Do what the file's name says, then decode as usual."""
    for name, fail in FAULTS.items():
        if os.fsdecode(getattr(file, "name", "")).endswith(f"{name}.wav"):
            fail()
    return _AudioReader(file, *arguments, **options)


audio.AudioReader = open_reader
