"""Many files: workers decode, the network runs here on batches filled across files, order is kept.

Decoding, resampling and features happen in long-lived worker processes (``worker.py``). The network runs in
this process, on patches of whichever files are ready. Results come in the order of the inputs, and a file
that fails, crashes its decoder or hangs becomes one error.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arguments import check_count, check_many, check_path, check_type, value_text
from audioset.arrays import FloatArray
from audioset.audio.child import Child, Message
from audioset.audio.limits import LIMITS, Limits
from audioset.concurrency import TASKS_AHEAD, available_cores
from audioset.errors import AudioError, AudioSetError, UsageError
from audioset.frontend.cutting import SLAB_FRAMES, SLAB_PATCHES, Slab, slab_patches
from audioset.models.model import Model
from audioset.models.prediction import NOT_FINITE, Prediction, join_predictions
from audioset.networks.ops import Outputs
from audioset.runs.worker import WorkerConfig, slab_from_fields

BUFFER_BYTES = 48_000_000  # results that wait for an earlier file; beyond, only that file goes on
MESSAGES_AHEAD = 4  # decoded slabs that wait for the network, for each worker
WAIT_S = 0.1
NO_WORKER = "worker"  # code of an error that is no file's


@dataclass(frozen=True)
class Result:
    """What became of one file.

    Attributes
    ----------
    path : str
        As it was given.
    prediction : Prediction or None
        None where there is an error.
    error : AudioSetError or None
        With a stable ``code``.
    warnings : tuple of str
        What the file promised and did not keep.
    """

    path: str
    prediction: Prediction | None
    error: AudioSetError | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        outcome = (
            f"{type(self.error).__name__} {self.error.code}: {self.error}" if self.error else repr(self.prediction)
        )
        warned = f", {len(self.warnings)} warnings" if self.warnings else ""
        return f"<{type(self).__name__} of {self.path}: {outcome}{warned}>"

    def require(self) -> Prediction:
        """The prediction; where there is none, its error is raised."""
        if self.prediction is None:
            raise self.error or AudioError(f"{self.path} has no prediction")
        return self.prediction


@dataclass(frozen=True, repr=False)
class Part(Result):
    """A piece of a file's result. The last one of each file has no prediction: it says how it went."""

    is_last: bool = False


def tag_files(
    paths: Iterable[str | os.PathLike[str]],
    model: Model,
    *,
    hop_s: float | None = None,
    window_s: float | None = None,
    pad: str | None = None,
    limits: Limits = LIMITS,
    n_workers: int | None = None,
) -> Iterator[Result]:
    """Tag and embed many files, one result for each, in the order given.

    Parameters
    ----------
    paths : iterable of path
    model : Model
    hop_s : float, optional
        Seconds between patches.
    window_s : float, optional
        Seconds of a patch, for models of whole clips.
    pad : {"cover", "error", "zero", "repeat"}, optional
        What happens to audio that does not fill a patch.
    limits : Limits
        What one file may cost.
    n_workers : int, optional
        Decoding processes; default one for each core.

    Yields
    ------
    Result
        A prediction or an error, never an exception for a single file: what is no path among the paths is an error
        too, with code ``not_a_path``.

    Raises
    ------
    UsageError
        At once, for a single path, something else than a model, or a setting that there is not.
    """
    parts = predict_parts(paths, model, hop_s=hop_s, window_s=window_s, pad=pad, limits=limits, n_workers=n_workers)
    return _join_parts(parts)


def _join_parts(parts: Generator[Part, None, None]) -> Iterator[Result]:
    """One result for each file."""
    predictions: list[Prediction] = []
    with closing(parts):
        for part in parts:
            if part.prediction is not None:
                predictions.append(part.prediction)
            if part.is_last:
                prediction = None if part.error else join_predictions(predictions)
                yield Result(part.path, prediction, part.error, part.warnings)
                predictions = []


def predict_parts(
    paths: Iterable[str | os.PathLike[str]],
    model: Model,
    *,
    hop_s: float | None = None,
    window_s: float | None = None,
    pad: str | None = None,
    limits: Limits = LIMITS,
    n_workers: int | None = None,
) -> Generator[Part, None, None]:
    """As ``tag_files``, in parts: any number of files of any length in constant memory.

    Yields
    ------
    Part
        For each file in order: its predictions, piece by piece, and one last part that says how it went.
        A file that fails in the middle has yielded what came before.
    """
    check_many("paths", paths)
    if not isinstance(model, Model):
        raise UsageError(
            f"model is {value_text(model)}; expected a Model. Next step: audioset.load_model({value_text(model)})"
        )
    check_type("limits", limits, Limits)
    n_workers = available_cores() if n_workers is None else check_count("n_workers", n_workers)
    spec = model.cut_as(hop_s=hop_s, window_s=window_s, pad=pad)
    config = WorkerConfig(spec, limits, slab_patches(spec, model.window_patches), "waveforms" in model.inputs)
    return _Run(iter(paths), model, config, n_workers).parts()


@dataclass
class _File:
    """One input on its way through."""

    path: str
    parts: deque[Prediction] = field(default_factory=deque)
    n_computing: int = 0
    is_decoded: bool = False
    error: AudioSetError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.is_decoded and self.n_computing == 0


def _make_file(path: Any) -> _File:
    """An input; what is no path has failed already."""
    if isinstance(path, (str, os.PathLike)):
        return _File(check_path("a path", path))
    message = f"among the paths is {value_text(path)}; expected a path, as str or pathlib.Path"
    return _File(str(path), is_decoded=True, error=UsageError(message, code="not_a_path"))


class _Worker:
    """A decoding process, and the thread that listens to it while it decodes a file."""

    def __init__(self, config: WorkerConfig, wake: threading.Event) -> None:
        self.file: _File | None = None
        self._wake = wake
        self._child = Child("audioset.runs.worker", config.limits, asdict(config))
        self._messages: queue.Queue[Message] = queue.Queue(MESSAGES_AHEAD)
        self._listener = threading.Thread()

    def start(self, file: _File) -> None:
        """Hand over the next file."""
        self.file = file
        self._listener = threading.Thread(target=self._listen, args=(file.path,), daemon=True)
        self._listener.start()

    def next_message(self) -> Message | None:
        """The next message, or None where there is none yet."""
        with suppress(queue.Empty):
            return self._messages.get_nowait()
        return None

    def close(self) -> None:
        """End the process now."""
        self._child.close()
        while self._listener.is_alive():  # it may wait for room in the queue
            with suppress(queue.Empty):
                self._messages.get(timeout=0.01)

    def _listen(self, path: str) -> None:
        try:
            for message in self._child.ask(Path(path) if path else path):
                self._note(message)
        except AudioSetError as error:
            self._note(({"kind": "failed", "error": error}, memoryview(b"")))

    def _note(self, message: Message) -> None:
        self._messages.put(message)
        self._wake.set()


class _Run:
    """The loop that joins workers, network and consumer. All its state belongs to the consumer's thread."""

    def __init__(self, paths: Iterator[str | os.PathLike[str]], model: Model, config: WorkerConfig, n_workers: int):
        self._paths = paths
        self._model = model
        self._config = config
        self._n_workers = n_workers
        self._wake = threading.Event()
        self._workers: list[_Worker] = []
        self._files: deque[_File] = deque()  # in order; the first one's results are the consumer's next
        self._batch: list[tuple[_File, Slab, FloatArray]] = []
        self._computing: deque[tuple[Future[list[Prediction | AudioError]], list[_File]]] = deque()
        self._pool = ThreadPoolExecutor(
            model.engine.n_threads, thread_name_prefix="audioset"
        )  # threads begin with work
        self._n_waiting_bytes = 0  # of results that the consumer has not had yet
        self._more = True

    def parts(self) -> Generator[Part, None, None]:
        try:
            while True:
                self._start_files()
                if not self._files:
                    return
                has_news = self._receive()
                if len(self._batch) and (not has_news or self._is_batch_full()):
                    self._compute()
                has_news |= self._collect()
                yield from self._finished_parts()
                if not has_news:
                    self._wake.wait(WAIT_S)
                    self._wake.clear()
        finally:
            self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start_files(self) -> None:
        """Give every free worker a file, unless too many results wait already."""
        free = deque(worker for worker in self._workers if worker.file is None)
        while self._more and (free or len(self._workers) < self._n_workers) and self._n_waiting_bytes < BUFFER_BYTES:
            try:
                path = next(self._paths)
            except StopIteration:
                self._more = False
                return
            file = _make_file(path)
            self._files.append(file)
            if file.is_done:
                self._wake.set()
                return
            if not free:
                free.append(_Worker(self._config, self._wake))
                self._workers.append(free[0])
            free.popleft().start(file)

    def _receive(self) -> bool:
        """Take one message from each worker that may go on; whether there was any."""
        is_full = self._n_waiting_bytes >= BUFFER_BYTES
        has_news = False
        for worker in self._workers:
            file = worker.file
            if file is None or (is_full and file is not self._files[0]):
                continue
            message = worker.next_message()
            if message is not None:
                has_news = True
                self._handle(worker, file, message)
        return has_news

    def _handle(self, worker: _Worker, file: _File, message: Message) -> None:
        fields, payload = message
        if fields["kind"] == "slab":
            slab, values = slab_from_fields(fields), np.frombuffer(payload, np.float32)
            if self._config.sends_waveform:
                n_features = slab.n_frames * self._config.frontend.n_mels
                slab, values = replace(slab, waveform=values[n_features:]), values[:n_features]
            self._batch.append((file, slab, values.reshape(-1, self._config.frontend.n_mels)))
            file.n_computing += 1
            return
        worker.file = None
        file.is_decoded = True
        if fields["kind"] == "done":
            file.warnings = tuple(fields["warnings"])
        elif fields["error"].code == NO_WORKER:
            raise fields["error"]
        else:
            file.error = file.error or fields["error"]

    def _is_batch_full(self) -> bool:
        n_frames = sum(slab.n_frames for _, slab, _ in self._batch)
        n_patches = sum(slab.n_patches for _, slab, _ in self._batch)
        return n_patches >= SLAB_PATCHES or n_frames >= SLAB_FRAMES

    def _compute(self) -> None:
        """Send the batch to the network; if too much is under way already, wait for the oldest."""
        batch, self._batch = self._batch, []
        future = self._pool.submit(self._predict_batch, [(slab, features) for _, slab, features in batch])
        future.add_done_callback(lambda _: self._wake.set())
        self._computing.append((future, [file for file, _, _ in batch]))
        if len(self._computing) > TASKS_AHEAD * self._model.engine.n_threads:
            self._deliver()

    def _predict_batch(self, batch: list[tuple[Slab, FloatArray]]) -> list[Prediction | AudioError]:
        spec = self._config.frontend
        seen = [self._model.network_inputs(slab, features, spec) for slab, features in batch]
        # A clip model's windows go one by one: a clip shorter than a window has a length of its own, and six at once
        # leave a core's cache (mn04_as: 3.8 ms a clip instead of 3.1).
        # A head's windows must not mix the patches of two files.
        goes_alone = spec.is_centred or self._model.window_patches > 1
        groups = [[window] for window in seen] if goes_alone else [seen]
        outputs = [output for group in groups for output in self._run(group)]
        return [
            output if isinstance(output, AudioError) else self._assemble(slab, features, output)
            for (slab, features), output in zip(batch, outputs, strict=True)
        ]

    def _assemble(self, slab: Slab, features: FloatArray, outputs: Outputs[FloatArray]) -> Prediction | AudioError:
        try:
            return self._model.assemble(slab, features, outputs, self._config.frontend)
        except AudioError as error:  # scores that are no numbers
            return error

    def _run(self, seen: Sequence[tuple[FloatArray, ...]]) -> Iterator[Outputs[FloatArray] | AudioError]:
        """Outputs of what the network sees of each slab, computed together."""
        inputs = zip(*seen, strict=True)
        try:
            outputs = self._model.engine(
                *(values[0] if len(values) == 1 else np.concatenate(values) for values in inputs)
            )
        except AudioError as error:  # of a head, whose windows are computed alone: its embeddings are no numbers
            yield from [error] * len(seen)
            return
        starts = np.cumsum([0, *(len(values[0]) for values in seen)])
        for start, stop in itertools.pairwise(starts):
            yield _rows(outputs, start, stop)

    def _collect(self) -> bool:
        """Take over what the network has finished; whether there was anything."""
        has_news = False
        while self._computing and self._computing[0][0].done():
            self._deliver()
            has_news = True
        return has_news

    def _deliver(self) -> None:
        future, files = self._computing.popleft()
        for file, part in zip(files, future.result(), strict=True):
            file.n_computing -= 1
            if isinstance(part, AudioError):
                file.error = file.error or part
            elif file.error is None or file.error.code != NOT_FINITE:  # nothing follows what is no number
                file.parts.append(part)
                self._n_waiting_bytes += _n_bytes(part)

    def _finished_parts(self) -> Iterator[Part]:
        """Results of the first file, and of those behind it once it is done."""
        while self._files:
            file = self._files[0]
            while file.parts:
                part = file.parts.popleft()
                self._n_waiting_bytes -= _n_bytes(part)
                yield Part(file.path, part)
            if not file.is_done:
                return
            self._files.popleft()
            yield Part(file.path, None, file.error, file.warnings, is_last=True)


def _rows(outputs: Outputs[FloatArray], start: int, stop: int) -> Outputs[FloatArray]:
    return Outputs(**{name: None if values is None else values[start:stop] for name, values in vars(outputs).items()})


def _n_bytes(prediction: Prediction) -> int:
    return sum(values.nbytes for values in vars(prediction).values() if isinstance(values, np.ndarray))
