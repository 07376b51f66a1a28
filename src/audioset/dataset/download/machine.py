"""Which machine this is, and whether a process on it still lives."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from functools import lru_cache
from pathlib import Path
from uuid import uuid4


@lru_cache(maxsize=1)
def machine_name() -> str:
    """Host name, and a mark that differs between boots and between containers that share a name."""
    host = re.sub(r"[^\w.-]", "-", socket.gethostname()) or "host"
    mark = hashlib.sha256(" ".join(_marks()).encode()).hexdigest()[:8]
    return f"{host}-{mark}"


def new_owner() -> str:
    """A name for this process that no other ever had: machine, number of the process, and chance."""
    return f"{machine_name()}:{os.getpid()}:{uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether a process of this machine is gone. False for other machines: nobody can know."""
    machine, pid, _ = owner.split(":") if owner.count(":") == 2 else ("", "0", "")
    return (
        machine == machine_name() and re.fullmatch(r"\d{1,9}", pid, re.ASCII) is not None and not _is_running(int(pid))
    )


def _marks() -> list[str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return [boot, str(Path("/proc/self/ns/pid").readlink())]
    except OSError:  # not Linux
        return [str(uuid.getnode())]


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
