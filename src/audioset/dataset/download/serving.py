"""From one video to its clips: fetched once, cut, checked, named, and noted in the ledger."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from audioset.dataset.download.clips import Clip, Key, place
from audioset.dataset.download.cutter import Cutter
from audioset.dataset.download.failures import LONGEST_PAUSE_S, LONGEST_WAIT_S, Action, Failure, Policy, classify_error
from audioset.dataset.download.fetch import Cancelled, Fetch, Fetched
from audioset.dataset.download.media import MediaFile
from audioset.dataset.download.runs import Report, Run
from audioset.errors import AudioError, AudioSetError, OutputError
from audioset.files import confined

VIDEO_SUFFIX = ".mp4"


class Server:
    """What one worker does with one video after the other."""

    def __init__(self, run: Run, fetch: Fetch, scratch: Path) -> None:
        self.cutter = Cutter()
        self._run = run
        self._ledger = run.ledger
        self._folder = run.folder
        self._media = run.media
        self._fetch = fetch
        self._scratch = scratch

    def serve(self, clips: list[Clip]) -> None:
        """Make these clips of one video, or note why not."""
        missing = [clip for clip in clips if not self._is_there(clip)]
        groups = [[clip] for clip in missing] if self._run.settings.sections else [missing]
        for group in filter(None, groups):
            with self._scratch_for_video() as scratch:
                self._serve(group, scratch)

    def _serve(self, clips: list[Clip], scratch: Path) -> None:
        self._run.take_turn()
        try:
            fetched = self._fetch(clips[0].key.video_id, scratch, tuple(clip.key for clip in clips), self._run.stop)
        except (Cancelled, AudioSetError):
            raise
        except Exception as error:  # the boundary of yt-dlp: its bugs are failures of a clip too
            failure = classify_error(error)
            for clip in clips:
                self._failed(clip, failure)
            return
        self._ledger.reset_pauses()
        for clip in clips:
            self._make(clip, fetched, scratch)

    def _make(self, clip: Clip, fetched: Fetched, scratch: Path) -> None:
        """Cut one clip, and give its file its name."""
        key = clip.key
        audio, video = (scratch / f"clip{suffix}" for suffix in (self._media.encoding.suffix, VIDEO_SUFFIX))
        start_s, end_s = key.start_s - fetched.offset_s, key.end_s - fetched.offset_s
        try:
            media = self.cutter.cut(fetched.audio, audio, start_s, end_s, self._media, fetched.announced_s)
            if self._media.video and fetched.video:
                sound = audio if self._media.video == "with-audio" else None
                self.cutter.cut_video(fetched.video, sound, video, start_s, end_s, self._media.frame_rate)
        except AudioError as error:
            self._failed(clip, Failure("short" if error.code == "short" else "invalid", str(error)))
            return
        named = {audio: self._place(clip)} | ({video: self._video_place(clip)} if video.exists() else {})

        def put() -> None:
            for scratch_file, name in reversed(named.items()):
                put_file(scratch_file, confined(self._folder, name))

        self._done(clip, replace(media, file=named[audio], source_format=fetched.source_format), put, named.get(video))

    def _is_there(self, clip: Clip) -> bool:
        """Note a clip as done whose file has its name already: a run was killed between the one and the other."""
        path = confined(self._folder, self._place(clip))
        video = confined(self._folder, self._video_place(clip)) if self._media.video else None
        if not path.is_file() or not (video is None or video.is_file()):
            return False
        wanted = (self._media.tolerance_s, self._media.sample_rate, self._media.n_channels)
        try:
            media = self.cutter.check(path, clip.key.duration_s, *wanted)
        except (AudioError, OSError):
            return False
        found = replace(media, file=self._place(clip), source_format=clip.source_format or "")
        self._done(clip, found, lambda: None, self._video_place(clip) if video else None)
        return True

    def _place(self, clip: Clip) -> str:
        return place(clip.key, clip.subset, self._media.encoding.suffix)

    def _video_place(self, clip: Clip) -> str:
        return place(clip.key, clip.subset, VIDEO_SUFFIX, "video")

    # What became of it

    def _done(self, clip: Clip, media: MediaFile, put: Callable[[], None], video_file: str | None) -> None:
        if self._ledger.finish(clip.key, self._run.owner, media, put, video_file):
            self._run.note(Report(clip.key, "done"))

    def _failed(self, clip: Clip, failure: Failure) -> None:
        """Note a clip that could not be had, and do what its class asks for."""
        policy = failure.policy
        if policy.action is Action.STOP:
            raise OutputError(f"{failure.reason}. Next step: free some space, or install what is missing; then go on")
        n_attempts = clip.attempts + 1
        due_at = self._due_at(clip.key, failure, n_attempts)
        most = (policy.action is Action.LATER and self._run.settings.n_attempts) or policy.max_attempts
        if n_attempts >= most:
            due_at = None
        if self._ledger.fail(clip.key, self._run.owner, failure.state, failure.reason, due_at):
            self._run.note(Report(clip.key, failure.state, failure.reason))

    def _due_at(self, key: Key, failure: Failure, n_attempts: int) -> float | None:
        policy, settings = failure.policy, self._run.settings
        if policy.action is Action.PAUSE:

            def pause_s(trips: int) -> float:
                return (failure.retry_after_s or doubled_s(policy, trips, LONGEST_PAUSE_S)) * settings.wait_scale

            return self._ledger.trip(failure.state, failure.reason, pause_s).until
        if policy.action is Action.LATER:
            jitter = random.Random(f"{settings.seed} {key.name} {n_attempts}").uniform(0.5, 1.5)
            wait_s = max(failure.retry_after_s or 0.0, jitter * doubled_s(policy, n_attempts, LONGEST_WAIT_S))
            return time.time() + wait_s * settings.wait_scale
        return None

    @contextmanager
    def _scratch_for_video(self) -> Iterator[Path]:
        """An empty folder, for one video."""
        path = self._scratch / "video"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def doubled_s(policy: Policy, n: int, longest_s: float) -> float:
    """Seconds to wait for the n-th time: twice as long each time, up to a limit."""
    return min(max(longest_s, policy.wait_s), policy.wait_s * 2.0 ** (n - 1))


def put_file(source: Path, target: Path) -> None:
    """Give a file its name, for good: after a power failure too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    if os.name == "nt":
        return
    with suppress(OSError):  # some network disks cannot
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
