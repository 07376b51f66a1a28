"""Libraries whose threads stay behind when a process forks: a call in the fork would wait for them for ever."""

from __future__ import annotations

import os

from audioset.errors import EngineError

_users: dict[str, int] = {}  # library -> the process that used it first


def check_not_forked(library: str) -> None:
    """Remember that this process uses a library, or refuse it (EngineError ``forked``) in a fork of one that did."""
    if _users.setdefault(library, os.getpid()) != os.getpid():
        raise EngineError(
            f"this process was forked from one that had used {library}, whose threads do not go on in a fork. Next "
            "step: load models after the fork only (in a Pool's initializer, a DataLoader's worker_init_fn, gunicorn "
            "without --preload); or start processes with 'spawn', to which a model can be sent; or load it with "
            'engine="onnxruntime", which goes on in a fork',
            code="forked",
        )
