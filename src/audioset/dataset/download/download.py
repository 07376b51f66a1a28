"""Fetch all clips of a ledger: workers, turns, and a breaker for the day YouTube has had enough.

A file gets its name when it has been decoded and is what it should be, and its clip is done after that. Whatever moment
a run is killed at, the next one finds either of the two missing and completes it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audioset.dataset.download.clips import Clip, Key, file_path
from audioset.dataset.download.failures import BY_STATE
from audioset.dataset.download.fetch import Cancelled, MakeFetch
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.machine import is_dead, new_owner
from audioset.dataset.download.media import MediaSettings
from audioset.dataset.download.runs import Outcome, Report, RunSettings
from audioset.dataset.download.serving import Server
from audioset.errors import AudioSetError, DataError, OutputError

PARTIAL_FOLDER = ".partial"
JOIN_EVERY_S = 0.1
ASK_EVERY_S = 1.0
ASK_AFTER_S = 0.1
GRACE_S = 5.0


class Downloader:
    """One process of a download.

    ``stop`` ends the run when it is set. ``watch`` is told of each clip, in the thread of a worker.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        make_fetch: MakeFetch,
        media: MediaSettings,
        settings: RunSettings,
        watch: Callable[[Report], None] = lambda report: None,
    ) -> None:
        self.ledger = ledger
        self.folder = folder
        self.media = media
        self.settings = settings
        self.owner = new_owner()
        self.stop = threading.Event()
        self.outcome = Outcome()
        self._make_fetch = make_fetch
        self._watch = watch
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._n_videos = 0
        self._n_suspicious = 0

    def run(self) -> Outcome:
        """Fetch until nothing is left, something stops it, or ``stop`` is set.

        Ctrl-C passes through when clips in work are pending again, and nothing half-written is left.
        """
        clean_up(self.ledger, self.folder, self.settings.lease_s)
        workers = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(self.settings.n_workers)]
        heart = threading.Thread(target=self._beat)
        heart.start()
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(JOIN_EVERY_S)  # a join without end would not see Ctrl-C on Windows
        finally:
            self.stop.set()
            self._join(workers)
            self._finished.set()
            heart.join()
            self._leave()
        return self.outcome

    @staticmethod
    def _join(workers: list[threading.Thread]) -> None:
        """Wait for workers to end, but not for one that hangs in a transfer: it loses its lease, and does no harm."""
        deadline = time.monotonic() + GRACE_S
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))

    # For the workers

    def take_turn(self) -> None:
        """Wait for the end of a pause and for the next turn to fetch; ``Cancelled`` if that takes too long."""
        free, least = shutil.disk_usage(self.folder).free, self.settings.min_free_bytes
        if free < least:
            raise OutputError(
                f"the disk of {self.folder} has {free / 1e6:,.0f} MB left, and {least / 1e6:,.0f} MB are to stay free "
                "(--min-free). Next step: free some space, and start it again"
            )
        self._wait_for_breaker()
        if self.settings.interval_s > 0:
            self._pause(self.ledger.reserve_slot(self.settings.interval_s) - time.time())
            self._wait_for_breaker()

    def note(self, report: Report) -> None:
        """Count what became of a clip, and stop if too much goes wrong in a row."""
        with self._lock:
            if report.state == "done":
                self.outcome.n_done += 1
                self._n_suspicious = 0
            else:
                self.outcome.n_failed += 1
                self._n_suspicious = self._n_suspicious + 1 if BY_STATE[report.state].is_suspicious else 0
            is_stuck = self._n_suspicious >= self.settings.same_failures
        self._watch(report)
        if is_stuck:
            self._halt(
                f"{self._n_suspicious} failures in a row, the last one: {report.reason}. Likely cause: the network, or "
                "a yt-dlp that needs an update"
            )

    # One worker

    def _work(self, number: int) -> None:
        try:
            with _scratch_folder(self.folder, self.owner, number) as scratch:
                server = Server(self, self._make_fetch(), scratch)
                with server.cutter:
                    while not self.stop.is_set() and self._work_once(server.serve):
                        pass
        except Cancelled:
            return
        except AudioSetError as error:
            self._halt(str(error), error)
        except OSError as error:
            text = f"cannot write below {self.folder}: {error.strerror or error}"
            self._halt(text, OutputError(f"{text}. Next step: free some space, or check the rights"))
        except BaseException as error:
            if self._finished.is_set():  # nobody waits for this worker any more, and the ledger is closed
                return
            self._halt(f"{type(error).__name__}: {error}")
            raise

    def _work_once(self, serve: Callable[[list[Clip]], None]) -> bool:
        """Serve one video, or wait for one. False when there is no more to do."""
        if self.settings.max_videos is not None and self._n_videos >= self.settings.max_videos:
            return False
        clips = self.ledger.claim(self.owner, self.settings.lease_s, self.settings.shard)
        if not clips:
            return self._wait_for_clips()
        with self._lock:
            self._n_videos += 1
        serve(clips)
        return True

    def _wait_for_clips(self) -> bool:
        """Wait a little for a clip that is due soon. False if none is."""
        due_at = self.ledger.next_due(self.settings.shard)
        if due_at is None:
            return False
        wait_s = due_at - time.time()
        if wait_s > self.settings.patience_s:
            with self._lock:
                self.outcome.next_at = self.outcome.next_at or due_at
                self.outcome.reason = self.outcome.reason or "what is left is due later"
            return False
        self._pause(min(max(wait_s, ASK_AFTER_S), ASK_EVERY_S))
        return True

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise Cancelled

    def _wait_for_breaker(self) -> None:
        while breaker := self.ledger.breaker():
            if breaker.until - time.time() > self.settings.patience_s:
                with self._lock:
                    self.outcome.next_at = breaker.until
                self._halt(f"{BY_STATE[breaker.state].meaning}: {breaker.reason}")
                raise Cancelled
            self._pause(min(ASK_EVERY_S, breaker.until - time.time()))

    def _halt(self, reason: str, error: AudioSetError | None = None) -> None:
        with self._lock:
            if not self.stop.is_set():
                self.outcome.reason, self.outcome.error = reason, error
        self.stop.set()

    # The whole process

    def _beat(self) -> None:
        while not self._finished.wait(self.settings.lease_s / 4):
            with suppress(AudioSetError):  # the next beat comes before the lease runs out
                self.ledger.heartbeat(self.owner, self.settings.lease_s)

    def _leave(self) -> None:
        with suppress(AudioSetError):  # on a full disk the leases run out by themselves
            self.ledger.release(self.owner)
        shutil.rmtree(_scratch_path(self.folder, self.owner), ignore_errors=True)
        with suppress(OSError):
            (self.folder / PARTIAL_FOLDER).rmdir()


def clean_up(ledger: Ledger, folder: Path, lease_s: float) -> None:
    """Take back what processes that have died left: their clips and their half-written files."""
    living = ledger.owners()
    for owner in [owner for owner in living if is_dead(owner)]:
        ledger.release(owner)
        del living[owner]
    with suppress(FileNotFoundError):
        for path in (folder / PARTIAL_FOLDER).iterdir():
            owner = path.name.replace("=", ":")
            if owner not in living and (is_dead(owner) or _age_s(path) > max(lease_s, 3600.0)):
                shutil.rmtree(path, ignore_errors=True)


def find_lost_files(ledger: Ledger, folder: Path) -> list[Key]:
    """Done clips whose file is gone, or has another size."""
    return [clip.key for clip in ledger.clips("done") if not is_in_place(clip, folder)]


def is_in_place(clip: Clip, folder: Path) -> bool:
    """Whether the files of a done clip are there, with the size that the ledger says."""
    try:
        path = clip.path(folder)
        has_video = clip.video_file is None or file_path(folder, clip.video_file).is_file()
        return path is not None and path.stat().st_size == clip.n_bytes and has_video
    except (OSError, DataError):
        return False


def _scratch_path(folder: Path, owner: str) -> Path:
    return folder / PARTIAL_FOLDER / owner.replace(":", "=")


@contextmanager
def _scratch_folder(folder: Path, owner: str, number: int) -> Iterator[Path]:
    """A folder for half-written files, on the disk that the whole ones go to."""
    path = _scratch_path(folder, owner) / str(number)
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
