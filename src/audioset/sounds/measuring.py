"""The processes that measure files: one may crash, hang or run out of memory, and costs no more than one file.

The parent writes lines of JSON: first the limits, then a path and the pieces of each file. The child answers each file
with one line, and sends empty lines while it decodes, so that a long file is not taken for a stalled one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from audioset.child import limit_cpu, limit_memory, take_output
from audioset.errors import AudioError, AudioSetError, EngineError
from audioset.limits import LIMITS, Limits
from audioset.sounds.measures import FileMeasures, PieceMeasures, Span, measure_file

Measured = FileMeasures | AudioError
Job = tuple[Path, Sequence[Span]]

SIGN_EVERY_S = 1.0  # of life, while a file is decoded
READY = b'{"ready": true}\n'


def measure_files(
    jobs: Sequence[Job],
    *,
    limits: Limits = LIMITS,
    n_workers: int = 1,
    on_file: Callable[[Path, Measured], None] = lambda path, measured: None,
) -> list[Measured]:
    """Measure many files, each decoded once.

    Parameters
    ----------
    jobs : sequence of (Path, sequence of (float, float or None))
        Files, and the pieces of each in seconds.
    limits : Limits
        What one file may cost.
    n_workers : int
        Processes.
    on_file : callable
        Told of each file when it is done, in any order, by one thread at a time.

    Returns
    -------
    list of FileMeasures or AudioError
        In the order of the jobs.

    Raises
    ------
    EngineError
        With code ``worker``, if the process cannot start.
    """
    found: dict[int, Measured] = {}
    lock = threading.Lock()
    waiting = deque(enumerate(jobs))
    children = [_Child(limits) for _ in range(min(n_workers, len(jobs)))]

    def serve(child: _Child) -> None:
        with suppress(IndexError):  # none left
            while True:
                index, (path, spans) = waiting.popleft()
                measured = child.measure(path, spans)
                with lock:
                    found[index] = measured
                    on_file(path, measured)

    pool = ThreadPoolExecutor(max(1, len(children)), thread_name_prefix="audioset-measure")
    try:
        for future in [pool.submit(serve, child) for child in children]:
            future.result()
    finally:
        waiting.clear()  # an error, or Ctrl-C, ends the others after their file
        for child in children:
            child.close()
        pool.shutdown()
    return [found[index] for index in range(len(jobs))]


class _Child:
    """The parent's side of one process, which starts when it is first needed, and again after a crash."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = self._is_stalled = False

    def measure(self, path: Path, spans: Sequence[Span]) -> Measured:
        process = self._process or self._start()
        answer = self._ask(process, json.dumps([os.fspath(path), list(spans)]))
        if answer is None:
            return self._death(process)
        if "message" in answer:
            return AudioError(answer["message"], code=answer["code"])
        pieces = tuple(PieceMeasures(**piece) for piece in answer.pop("pieces"))
        whole, warnings = PieceMeasures(**answer.pop("whole")), tuple(answer.pop("warnings"))
        return FileMeasures(whole=whole, pieces=pieces, warnings=warnings, **answer)

    def close(self) -> None:
        """End the process now."""
        self._is_closed = True
        self._end()

    def _ask(self, process: subprocess.Popen[bytes], line: str) -> dict[str, Any] | None:
        """The answer to a line, or None if the process is gone."""
        try:
            assert process.stdin is not None
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
            answer = next(filter(bytes.strip, self._lines(process)), b"")
        except (OSError, ValueError):  # it has died, or close() was called
            return None
        decoded: dict[str, Any] | None = json.loads(answer) if answer.endswith(b"\n") else None
        return decoded

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        """What the process says, until it ends; one that says nothing for too long is ended."""
        assert process.stdout is not None
        while True:
            alarm = threading.Timer(self._limits.worker_stall_s + SIGN_EVERY_S, self._stop, [process])
            alarm.start()
            try:
                line = process.stdout.readline()
            finally:
                alarm.cancel()
            if not line:
                return
            yield line

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        self._is_stalled = True
        process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._is_closed:
            raise EngineError("the check was stopped", code="worker")
        process = self._process = subprocess.Popen(
            [sys.executable, "-c", "from audioset.sounds.measuring import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if self._ask(process, json.dumps(asdict(self._limits))) is None:
            status = process.wait()
            self._end()
            raise EngineError(
                f"the decoding process cannot start: {sys.executable} ended with status {status}. "
                "Next step: audioset doctor",
                code="worker",
            )
        return process

    def _death(self, process: subprocess.Popen[bytes]) -> AudioError:
        status = process.wait()
        self._end()
        if self._is_stalled or status == -getattr(signal, "SIGXCPU", 0):
            self._is_stalled = False
            return AudioError(
                f"the decoder delivered nothing for {self._limits.worker_stall_s:g} s and was stopped. Likely cause: a "
                "damaged file that sends the decoder round in circles, or a disk that does not answer",
                code="timeout",
            )
        cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return AudioError(
            f"the decoder ended with {cause}. Likely cause: a damaged file that crashes the decoder", code="worker_died"
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError, ValueError):
                if pipe:
                    pipe.close()


def main() -> None:
    """Serve one parent until it closes the pipe."""
    answers = take_output()
    limits = Limits(**json.loads(sys.stdin.buffer.readline()))
    limit_memory(limits.worker_memory_mb)
    answers.write(READY)
    answers.flush()
    for line in sys.stdin.buffer:
        path, spans = json.loads(line)
        answer = _answer(Path(path), [(start_s, end_s) for start_s, end_s in spans], limits, answers)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _answer(path: Path, spans: Sequence[Span], limits: Limits, answers: IO[bytes]) -> dict[str, Any]:
    try:
        return asdict(measure_file(path, spans, limits, _SignsOfLife(limits, answers)))
    except AudioSetError as error:
        return {"message": str(error), "code": error.code}
    except MemoryError:
        message = (
            f"decoding needs more than the {limits.worker_memory_mb:,} MiB of one worker (--worker-memory-mb). "
            "Likely cause: a damaged header"
        )
        return {"message": message, "code": "out_of_memory"}
    except Exception as error:  # the boundary of the process: whatever a decoder throws becomes an answer
        return {"message": f"the decoder failed with {type(error).__name__}: {error}", "code": "decode_failed"}


class _SignsOfLife:
    """Tells the parent now and then that there is progress, and allows itself more processor time then."""

    def __init__(self, limits: Limits, answers: IO[bytes]) -> None:
        self._stall_s = limits.worker_stall_s
        self._answers = answers
        self._said_at = time.monotonic()
        limit_cpu(self._stall_s)

    def __call__(self) -> None:
        if time.monotonic() - self._said_at > SIGN_EVERY_S:
            self._said_at = time.monotonic()
            limit_cpu(self._stall_s)
            self._answers.write(b"\n")
            self._answers.flush()


if __name__ == "__main__":
    main()
