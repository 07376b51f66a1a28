"""The process that decodes and encodes: it may crash or hang, and costs no more than one clip."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audioset.audio.answering import Send, serve
from audioset.audio.child import Child, Ending
from audioset.audio.limits import Limits
from audioset.dataset.download.media import MediaFile, MediaSettings, check_file, cut_clip, duration_of
from audioset.errors import AudioError, AudioSetError

CALL_TIMEOUT_S = 900.0
MEMORY_MB = 4_096


class Cutter:
    """The parent's side: a child that starts when it is first needed, and again after a crash.

    Not safe for several threads; each has its own.

    Parameters
    ----------
    timeout_s : float
        A call that takes longer ends with the child.
    """

    def __init__(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        limits = Limits(worker_memory_mb=MEMORY_MB, worker_stall_s=timeout_s)
        self._child = Child("audioset.dataset.download.cutter", limits, explain=_crash)

    def cut(
        self,
        source: Path,
        target: Path,
        start_s: float,
        end_s: float,
        settings: MediaSettings,
        announced_s: float | None,
    ) -> MediaFile:
        """``cut_clip``, there."""
        return MediaFile(**self._call("cut", source, target, start_s, end_s, asdict(settings), announced_s))

    def check(
        self,
        path: Path,
        expected_s: float,
        tolerance_s: float,
        sample_rate: int | None = None,
        n_channels: int | None = None,
    ) -> MediaFile:
        """``check_file``, there."""
        return MediaFile(**self._call("check", path, expected_s, tolerance_s, sample_rate, n_channels))

    def duration_of(self, path: Path) -> float:
        """``duration_of``, there."""
        return float(self._call("duration", path))

    def cut_video(
        self, source: Path, audio: Path | None, target: Path, start_s: float, end_s: float, frame_rate: int | None
    ) -> None:
        """``cut_video``, there."""
        self._call("video", source, audio, target, start_s, end_s, frame_rate)

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _call(self, *job: Any) -> Any:
        ((answer, _),) = self._child.ask(*job)
        if answer["errno"]:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer["value"]


def _crash(ending: Ending, limits: Limits) -> AudioError:
    stopped = f"took more than {limits.worker_stall_s:g} s and was stopped"
    how = stopped if ending.is_stalled else f"ended with {ending.cause}"
    return AudioError(f"the decoder {how}. Likely cause: a damaged file", code="decoder_crashed")


def main() -> None:
    """Serve one parent until it closes the pipe."""
    serve(_answer)


def _answer(limits: Limits, send: Send, kind: str, *arguments: Any) -> dict[str, Any]:
    try:
        return {"value": CALLS[kind](*arguments), "errno": None}
    except MemoryError as error:
        message = f"decoding needs more than {limits.worker_memory_mb:,} MiB. Likely cause: a damaged header"
        raise AudioError(message, code="out_of_memory") from error
    except OSError as error:
        if isinstance(error, AudioSetError):
            raise
        return {"errno": error.errno or errno.EIO}


def _cut(
    source: str, target: str, start_s: float, end_s: float, settings: dict[str, Any], announced_s: float | None
) -> Any:
    return vars(cut_clip(Path(source), Path(target), start_s, end_s, MediaSettings(**settings), announced_s))


def _check(path: str, *expected: Any) -> Any:
    return vars(check_file(Path(path), *expected))


def _duration(path: str) -> float:
    return duration_of(Path(path))


def _video(source: str, audio: str | None, target: str, start_s: float, end_s: float, frame_rate: int | None) -> None:
    from audioset.dataset.download.video import cut_video

    cut_video(Path(source), Path(audio) if audio else None, Path(target), start_s, end_s, frame_rate)


CALLS: dict[str, Callable[..., Any]] = {"cut": _cut, "check": _check, "duration": _duration, "video": _video}
