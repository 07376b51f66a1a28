"""The process that decodes and encodes: it may crash or hang, and costs no more than one clip.

Parent and child talk in lines of JSON. Native libraries print what they like, so the child's standard output and error
go nowhere, and its answers come through a pipe of their own.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from audioset.audio.child import READY, Ending, LineChild, limit_memory, take_output
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
        self._timeout_s = timeout_s
        self._child = LineChild("audioset.dataset.download.cutter", "", timeout_s)

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
        return MediaFile(**self._call("cut", str(source), str(target), start_s, end_s, asdict(settings), announced_s))

    def check(
        self,
        path: Path,
        expected_s: float,
        tolerance_s: float,
        sample_rate: int | None = None,
        n_channels: int | None = None,
    ) -> MediaFile:
        """``check_file``, there."""
        return MediaFile(**self._call("check", str(path), expected_s, tolerance_s, sample_rate, n_channels))

    def duration_of(self, path: Path) -> float:
        """``duration_of``, there."""
        return float(self._call("duration", str(path)))

    def cut_video(
        self, source: Path, audio: Path | None, target: Path, start_s: float, end_s: float, frame_rate: int | None
    ) -> None:
        """``cut_video``, there."""
        self._call("video", str(source), audio and str(audio), str(target), start_s, end_s, frame_rate)

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _call(self, kind: str, *arguments: Any) -> Any:
        answer = self._ask(json.dumps([kind, *arguments]))
        if "value" in answer:
            return answer["value"]
        if answer["errno"]:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        raise AudioError(answer["message"], code=answer["code"])

    def _ask(self, line: str) -> dict[str, Any]:
        answer = self._child.ask(line)
        if not isinstance(answer, Ending):
            decoded: dict[str, Any] = json.loads(answer)
            return decoded
        stopped = f"took more than {self._timeout_s:g} s and was stopped"
        how = stopped if answer.is_stalled else f"ended with {answer.cause}"
        message = f"the decoder {how}. Likely cause: a damaged file"
        return {"message": message, "code": "decoder_crashed", "errno": None}


def main() -> None:
    """Serve one parent until it closes the pipe."""
    answers = take_output()
    limit_memory(MEMORY_MB)
    sys.stdin.buffer.readline()
    answers.write(READY)
    answers.flush()
    for line in sys.stdin.buffer:
        kind, *arguments = json.loads(line)
        _answer(CALLS[kind], arguments, answers)


def _answer(call: Callable[..., Any], arguments: list[Any], answers: IO[bytes]) -> None:
    try:
        answer: dict[str, Any] = {"value": call(*arguments)}
    except AudioSetError as error:
        answer = {"message": str(error), "code": error.code, "errno": None}
    except OSError as error:
        answer = {"message": str(error), "code": "output", "errno": error.errno or errno.EIO}
    except MemoryError:
        message = f"decoding needs more than {MEMORY_MB:,} MiB. Likely cause: a damaged header"
        answer = {"message": message, "code": "out_of_memory", "errno": None}
    except Exception as error:  # the boundary of the process: whatever a codec throws becomes an answer
        message = f"the codec failed with {type(error).__name__}: {error}"
        answer = {"message": message, "code": "decode_failed", "errno": None}
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


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
