"""Fetch the sound of one video, by yt-dlp's Python interface.

The whole audio track is fetched and cut here. Asking for a section only, yt-dlp hands the address to ffmpeg, which
YouTube slows down to a crawl and which cuts at the packet before.
"""

from __future__ import annotations

import io
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from audioset.cache import cache_folder
from audioset.dataset.download.clips import Key
from audioset.dataset.download.failures import causes_of
from audioset.errors import MissingExtraError, UsageError
from audioset.files import is_file

logger = logging.getLogger(__name__)

YOUTUBE = "https://www.youtube.com/watch?v={video_id}"
AUDIO_FORMAT = "bestaudio/best"
VIDEO_FORMATS = {
    # The two tracks by themselves: yt-dlp could join them with ffmpeg only. Where there are none, both in one.
    "with-audio": "bestvideo,bestaudio/best",
    "video-only": "bestvideo,bestaudio/best",
}
CLIENT_SERVES = 100  # videos
SOCKET_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class FetchSettings:
    """How to ask."""

    # Address of a video, with ``{video_id}``. Another one than YouTube's must lead to a media file.
    url_template: str = YOUTUBE
    cookies: Path | None = None  # A file of cookies in Netscape's format. It is never written to.
    cookies_from_browser: str | None = None  # ``browser``, or ``browser:profile``
    proxy: str | None = None
    player_client: tuple[str, ...] = ()  # which of YouTube's players to pretend to be; yt-dlp's choice where empty
    limit_rate: int | None = None  # bytes per second, for each worker
    sleep_requests_s: float = 0.75  # seconds between the requests for one video
    n_retries: int = 3  # how often a broken transfer goes on within one attempt
    sections: bool = False  # fetch only the section of the clip. Needs ffmpeg.
    video: str | None = None  # as in ``MediaSettings``
    timeout_s: float = 1800.0  # seconds that one fetch may take
    socket_timeout_s: float = SOCKET_TIMEOUT_S  # seconds without an answer

    def __post_init__(self) -> None:
        if "{video_id}" not in self.url_template:
            raise UsageError(f"the URL template is {self.url_template!r}; expected an address with {{video_id}} in it")
        if not self.url_template.lower().startswith(("http://", "https://")):
            raise UsageError(f"the URL template is {self.url_template!r}; expected one that begins with http or https")
        if self.cookies is not None and not is_file(self.cookies):
            raise UsageError(f"there is no file of cookies {self.cookies}")
        if self.sections and not shutil.which("ffmpeg"):
            raise UsageError(
                "--sections needs the program ffmpeg, which is not on the PATH. Next step: leave the option out; whole "
                "tracks are fetched and cut without it"
            )

    @property
    def is_youtube(self) -> bool:
        """Whether the address is YouTube's own."""
        return self.url_template == YOUTUBE

    def url(self, video_id: str) -> str:
        """Address of a video."""
        return self.url_template.replace("{video_id}", quote(video_id, safe=""))


@dataclass(frozen=True)
class Fetched:
    """What arrived."""

    audio: Path  # A file with the sound
    video: Path | None = None  # A file with the picture, if it was asked for
    source_format: str = ""  # what the site calls it
    announced_s: float | None = None  # how long the site says it is
    offset_s: float = 0.0  # where in the video the file begins


class FetchError(Exception):
    """A video that could not be had, in words that ``classify`` knows."""


class Cancelled(Exception):  # noqa: N818 - nothing went wrong
    """The user wants to stop."""


class Fetch(Protocol):
    """Anything that brings the sound of a video into an empty folder."""

    def __call__(self, video_id: str, folder: Path, clips: tuple[Key, ...], stop: threading.Event) -> Fetched:
        """Fetch a video, or raise what ``classify_error`` understands, or ``Cancelled``."""
        ...


class YtDlpFetch:
    """Fetches with yt-dlp. Not safe for several threads; each has its own."""

    def __init__(self, settings: FetchSettings) -> None:
        check_yt_dlp()
        self._settings = settings
        self._log = _Log()
        self._guard = _Guard()
        self._client: Any = None
        self._n_served = 0

    def __call__(self, video_id: str, folder: Path, clips: tuple[Key, ...], stop: threading.Event) -> Fetched:
        """Fetch a video into an empty folder."""
        import yt_dlp

        self._log.warnings.clear()
        self._guard.begin(stop, self._settings.timeout_s)
        client = self._client_for(folder, clips)
        try:
            info = client.extract_info(self._settings.url(video_id), download=False)
            self._check(info, video_id)
            if stop.is_set():
                raise Cancelled
            info = client.process_ie_result(info, download=True)
        except (yt_dlp.utils.YoutubeDLError, FetchError) as error:
            self._client = None  # the next one does not inherit what may be wrong with this one
            for cause in causes_of(error):
                if response := getattr(cause, "response", None):
                    response.close()  # errors of yt-dlp keep connections open
            self._guard.explain(error)
            raise self._with_warnings(error) from error
        return self._fetched(info, clips, folder)

    def _client_for(self, folder: Path, clips: tuple[Key, ...]) -> Any:
        """A client that has worked, with its connections, or a new one now and then: they collect things."""
        import yt_dlp

        if self._client is None or self._n_served >= CLIENT_SERVES:
            self._client, self._n_served = yt_dlp.YoutubeDL(self._options()), 0
        self._n_served += 1
        self._client.params["outtmpl"]["default"] = str(folder).replace("%", "%%") + "/media.%(format_id)s.%(ext)s"
        if self._settings.sections:
            stretch = [(clips[0].start_s, clips[0].end_s)]
            self._client.params["download_ranges"] = yt_dlp.utils.download_range_func(None, stretch)
        return self._client

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "format": VIDEO_FORMATS[settings.video] if settings.video else AUDIO_FORMAT,
            "allowed_extractors": ["youtube" if settings.is_youtube else "generic"],
            "logger": self._log,
            "progress_hooks": [self._guard],
            "quiet": True,
            "noprogress": True,
            "color": "never",
            "noplaylist": True,
            "fixup": "never",
            "overwrites": True,
            "updatetime": False,
            "cachedir": str(cache_folder() / "yt-dlp"),
            "retries": settings.n_retries,
            "fragment_retries": settings.n_retries,
            "extractor_retries": 1,
            "retry_sleep_functions": dict.fromkeys(
                ("http", "fragment", "extractor"), lambda n: min(10.0, 0.5 * 2.0**n)
            ),
            "socket_timeout": settings.socket_timeout_s,
            "sleep_interval_requests": settings.sleep_requests_s,
            "ratelimit": settings.limit_rate,
            "proxy": settings.proxy,
            "force_keyframes_at_cuts": settings.sections,
        }
        if settings.cookies:
            # A copy in memory: yt-dlp writes to the file that it is given, and several workers would do so at once.
            options["cookiefile"] = io.StringIO(settings.cookies.read_text(encoding="utf-8"))
        if settings.cookies_from_browser:
            browser, _, profile = settings.cookies_from_browser.partition(":")
            options["cookiesfrombrowser"] = (browser, profile or None, None, None)
        if settings.player_client:
            options["extractor_args"] = {"youtube": {"player_client": list(settings.player_client)}}
        return options

    def _check(self, info: Any, video_id: str) -> None:
        """Refuse what is not the video that was asked for, before anything is fetched."""
        if not isinstance(info, Mapping) or info.get("_type", "video") != "video":
            raise FetchError("the address led to a page instead of media: a list of several videos")
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
            raise FetchError("This live event has not ended")
        if self._settings.is_youtube and info.get("id") != video_id:
            raise FetchError(f"the address led to a page instead of media: another video, {info.get('id')}")
        if not self._settings.is_youtube and not info.get("direct"):
            raise FetchError("the address led to a page instead of media")

    def _fetched(self, info: Mapping[str, Any], clips: tuple[Key, ...], folder: Path) -> Fetched:
        parts = info.get("requested_downloads") or ()
        if not all(Path(part["filepath"]).resolve().is_relative_to(folder.resolve()) for part in parts):
            raise FetchError("yt-dlp wrote outside of the folder that it was given")
        files = [part for part in parts if Path(part["filepath"]).is_file()]
        if not files:
            raise FetchError(f"yt-dlp reported success and left no file{self._log.last_warning()}")
        announced_s = info.get("duration")
        return Fetched(
            audio=Path(files[-1]["filepath"]),
            video=Path(files[0]["filepath"]) if self._settings.video else None,
            source_format=_describe({**info, **files[-1]}),
            announced_s=None if self._settings.sections or announced_s is None else float(announced_s),
            offset_s=clips[0].start_s if self._settings.sections else 0.0,
        )

    def _with_warnings(self, error: Exception) -> Exception:
        """The error, with the warning that often explains it."""
        if warning := self._log.last_warning():
            error.args = (f"{error}{warning}", *error.args[1:])
            with suppress(AttributeError):
                error.msg = error.args[0]  # type: ignore[attr-defined]
        return error


def check_yt_dlp() -> None:
    """Refuse to go on without yt-dlp."""
    try:
        import yt_dlp  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("fetching audio", "yt-dlp", "data") from error


class _Guard:
    """Ends a transfer that the user does not want any more, or that takes too long; yt-dlp calls it for each block."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._deadline = 0.0

    def begin(self, stop: threading.Event, timeout_s: float) -> None:
        """Guard another transfer."""
        self._stop, self._deadline = stop, time.monotonic() + timeout_s

    def __call__(self, progress: Mapping[str, Any]) -> None:
        from yt_dlp.utils import DownloadCancelled

        if self._stop.is_set() or (progress.get("status") == "downloading" and time.monotonic() > self._deadline):
            raise DownloadCancelled

    def explain(self, error: Exception) -> None:
        """Say which of the two it was, if it was one of them."""
        from yt_dlp.utils import DownloadCancelled

        if self._stop.is_set():
            raise Cancelled from error
        if isinstance(error, DownloadCancelled):
            raise FetchError("the transfer timed out") from error


class _Log:
    """Takes what yt-dlp would print. Warnings are kept: they often hold the reason."""

    EXPLAINING = ("JavaScript runtime", "challenge solving failed", "missing a URL", "PO Token")
    _shown: set[str] = set()  # noqa: RUF012 - shared, so that each is shown once

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        """Nothing: the ledger tells what happened."""

    def warning(self, message: str) -> None:
        """Keep a warning that may explain a failure later, and show each kind once."""
        kind = next((kind for kind in self.EXPLAINING if kind in message), None)
        if kind is None:
            return
        self.warnings.append(message)
        if kind not in self._shown:
            self._shown.add(kind)
            logger.warning("yt-dlp: %s", message)

    def error(self, message: str) -> None:
        """Nothing: it comes as an exception too."""

    def last_warning(self) -> str:
        """The last of them, to be put behind a reason."""
        return f" (yt-dlp warned: {self.warnings[-1]})" if self.warnings else ""


def _describe(part: Mapping[str, Any]) -> str:
    """What the site calls a format: number, container, codec and rate."""
    codec = next((part[key] for key in ("acodec", "vcodec") if part.get(key) not in (None, "none", "unknown")), None)
    rate = part.get("asr")
    words = (part.get("format_id"), part.get("ext"), codec, f"{rate} Hz" if rate else None)
    return " ".join(str(word) for word in words if word)


MakeFetch = Callable[[], Fetch]
