"""Downloads from the site on this machine: how tests start them, and what must hold after each."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from download_server import RATE, Site, sound

from audioset.assets import hash_file
from audioset.dataset.download.clips import Key
from audioset.dataset.download.download import PARTIAL_FOLDER, Downloader, find_lost_files
from audioset.dataset.download.fetch import Fetch, Fetched, FetchSettings, YtDlpFetch
from audioset.dataset.download.ledger import LEDGER_NAME, Ledger
from audioset.dataset.download.media import MediaSettings
from audioset.dataset.download.runs import Outcome, RunSettings
from audioset.dataset.lists.segments import Segment

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
START_S, END_S = 0.5, 1.5
QUICK: dict[str, Any] = {
    "interval_s": 0.0,
    "wait_scale": 1e-4,
    "patience_s": 60.0,
    "min_free_bytes": 0,
    "same_failures": 10**9,
    "n_attempts": 99,
}


def video_ids(n: int, seed: int = 0) -> list[str]:
    """Ids of videos; some begin with one dash or two."""
    rng = random.Random(seed)
    found = ["".join(rng.choices(ALPHABET, k=11)) for _ in range(n)]
    return [
        "-" * (1 + index % 2) + name[1 + index % 2 :] if index % 5 == 0 else name for index, name in enumerate(found)
    ]


def clips_of(ids: Iterable[str], start_s: float = START_S, end_s: float = END_S) -> list[Segment]:
    return [Segment(video_id, start_s, end_s, ("/m/09x0r",)) for video_id in ids]


def ask(site: Site, **settings: Any) -> FetchSettings:
    quick = {"sleep_requests_s": 0.0, "n_retries": 0, "socket_timeout_s": 2.0}
    return FetchSettings(url_template=site.url_template, **{**quick, **settings})


def downloader(
    folder: Path,
    make_fetch: Callable[[], Fetch],
    segments: Iterable[Segment] = (),
    media: MediaSettings | None = None,
    **settings: Any,
) -> Downloader:
    ledger = Ledger(folder / settings.pop("ledger", LEDGER_NAME))
    ledger.add(segments, "eval")
    ledger.forget_files(find_lost_files(ledger, folder))
    return Downloader(ledger, folder, make_fetch, media or MediaSettings(), RunSettings(**{**QUICK, **settings}))


def download(
    folder: Path,
    site: Site,
    segments: Iterable[Segment] = (),
    media: MediaSettings | None = None,
    asking: dict[str, Any] | None = None,
    **settings: Any,
) -> Outcome:
    """One run, from the site."""
    fetch_settings = ask(site, **(asking or {}))
    run = downloader(folder, lambda: YtDlpFetch(fetch_settings), segments, media, **settings)
    with run.ledger:
        return run.run()


def download_in_process(folder: str, url_template: str, settings: dict[str, Any]) -> None:
    """The same, as a process of its own."""
    asking = FetchSettings(url_template=url_template, sleep_requests_s=0.0, n_retries=0, socket_timeout_s=2.0)
    run = downloader(Path(folder), lambda: YtDlpFetch(asking), **settings)
    with run.ledger:
        run.run()


class SaysNo:
    """A fetch that fails as YouTube does, in words; ``words`` are said in turn, and then it succeeds."""

    def __init__(self, *words: str, then: Path | None = None) -> None:
        self.words = list(words)
        self.asked: list[str] = []
        self._then = then
        self._lock = threading.Lock()

    def __call__(self, video_id: str, folder: Path, clips: tuple[Key, ...], stop: threading.Event) -> Fetched:
        from yt_dlp.utils import DownloadError

        with self._lock:
            self.asked.append(video_id)
            text = self.words.pop(0) if self.words else None
        if text is not None or self._then is None:
            raise DownloadError(f"ERROR: [youtube] {video_id}: {text or 'Video unavailable'}")
        return Fetched(self._then)


def files_in(folder: Path, kind: str = "audio") -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def expected_samples(key: Key) -> np.ndarray:
    return sound(key.video_id)[round(key.start_s * RATE) : round(key.end_s * RATE)]


def check_agreement(folder: Path, ledger_name: str = LEDGER_NAME) -> None:
    """No file but under its right name; what is done is there; the hash is the file's."""
    for path in files_in(folder):
        video_id, start_ms, end_ms = path.stem[:11], *path.stem[12:].split("_")
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == RATE
        np.testing.assert_array_equal(samples, expected_samples(Key(video_id, int(start_ms), int(end_ms))))
    with Ledger(folder / ledger_name) as ledger:
        for clip in ledger.clips("done"):
            assert f"sha256:{clip.sha256}" == hash_file(clip.path(folder))
            assert Path(clip.file).is_absolute() or clip.path(folder).stem == clip.key.name
            assert clip.duration_s == clip.key.duration_s


def check_all_done(folder: Path, n_clips: int, ledger_name: str = LEDGER_NAME) -> None:
    check_agreement(folder, ledger_name)
    with Ledger(folder / ledger_name) as ledger:
        assert ledger.counts() == {("eval", "done"): n_clips}
        done = [key for _, key, state, _, _ in ledger.history() if state == "done"]
        assert len(done) == len(set(done)) == n_clips, "each was done once"
    assert len(files_in(folder)) == n_clips
    assert not (folder / PARTIAL_FOLDER).exists()
