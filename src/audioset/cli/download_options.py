"""The options of ``audioset data download``, and the settings that they stand for."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import QUIET, option

if TYPE_CHECKING:
    from audioset.dataset.download.clips import Shard
    from audioset.dataset.download.fetch import FetchSettings
    from audioset.dataset.download.ledger import Ledger
    from audioset.dataset.download.media import MediaSettings
    from audioset.dataset.download.runs import RunSettings

PER_MINUTE = {None: 1.0, "s": 60.0, "min": 1.0, "h": 1 / 60, "day": 1 / 1440}
BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MB = 1_000_000
FREE_TO_CHANGE = ("tolerance_s",)


def per_minute(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Fetches per minute, of ``4/min``, ``200/h`` or ``4``; infinity for ``none``."""
    if value == "none":
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([a-z]+))?", value)
    if not match or match[2] not in PER_MINUTE or not float(match[1]):
        raise click.BadParameter(f"{value!r} is no rate; expected such as 4/min, 200/h or none", ctx, param)
    return float(match[1]) * PER_MINUTE[match[2]]


def _n_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, of ``500K`` or ``2M``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)", value or "0")
    if not match:
        raise click.BadParameter(f"{value!r} is no number of bytes; expected such as 500K or 2M", ctx, param)
    return int(float(match[1]) * BYTES[match[2]]) or None


@dataclass(frozen=True)
class RateOption:
    """How often to ask."""

    rate: float = option(
        "Fetches of all workers together; none: no limit.", type=str, callback=per_minute, default="4/min"
    )


@dataclass(frozen=True)
class MediaOptions:
    """What kind of files clips become; what is not given is as the folder was begun."""

    format: str | None = option("Default: flac.", choices=("flac", "wav", "opus"))
    sample_rate: int | None = option("Default: as fetched.", "HZ", at_least=1)
    n_channels: str | None = option("Mono or stereo. Default: as fetched.", flags="--channels", choices=("1", "2"))
    bit_depth: str | None = option("Default: 16. 32 is floating point, in WAV.", choices=("16", "24", "32"))
    tolerance_s: float | None = option("What a clip may lack of its end. Default: 0.5.", "S", "--tolerance")
    video: str | None = option("Write an MP4 file of each clip, too.", choices=("with-audio", "video-only"))
    frame_rate: int | None = option("Of these. Default: as fetched.", "N", at_least=1)

    def settings(self, ledger: Ledger) -> MediaSettings:
        """What is asked for now, completed by what the folder was begun with, and equal to it.

        ``ConflictError`` if the folder's files are of another kind.
        """
        from audioset.dataset.download.media import MediaSettings
        from audioset.errors import ConflictError

        given = {name: value for name, value in vars(self).items() if value is not None}
        given |= {name: int(given[name]) for name in ("n_channels", "bit_depth") if name in given}
        begun: dict[str, Any] = ledger.setting("media", {})
        for name, value in given.items():
            if begun and name not in FREE_TO_CHANGE and begun[name] != value:
                raise ConflictError(
                    f"{ledger.path} was begun with {name} {begun[name] or 'as fetched'}, and {value} is asked for. "
                    "Next step: choose another folder, or leave the option out"
                )
        settings = MediaSettings(**{**begun, **given})
        ledger.set_setting("media", asdict(settings))
        return settings


@dataclass(frozen=True)
class FetchOptions:
    """How to ask for a video."""

    cookies: Path | None = option("Cookies, as browsers export them.", "FILE")
    cookies_from_browser: str | None = option("Cookies of a browser on this machine.", "NAME[:PROFILE]")
    proxy: str | None = option("Go through a proxy.", "URL")
    player_client: tuple[str, ...] = option("Which of YouTube's players to be.", "NAME")
    limit_rate: int | None = option("Per second and worker, such as 500K.", "BYTES", type=str, callback=_n_bytes)
    sleep_requests_s: float = option("Between requests.", "S", "--sleep-requests", default=0.75)
    url_template: str | None = option("Another source: an address with {video_id} in it.", "URL")
    sections: bool = option("Fetch only the clip's section, by ffmpeg. Slow and less exact.")

    @property
    def settings(self) -> FetchSettings:
        """How to ask, less what the kind of files decides."""
        from audioset.dataset.download.fetch import YOUTUBE, FetchSettings

        return FetchSettings(**{**vars(self), "url_template": self.url_template or YOUTUBE})


@dataclass(frozen=True)
class RunOptions:
    """How to go about it."""

    n_workers: int = option(None, "N", "--workers", default=2, at_least=1)
    shard: str | None = option("Only part I of N, from 0, by a hash of the video's id.", "I/N")
    retries: int | None = option("Attempts for failures that may pass.", "N", at_least=1)
    max_videos: int | None = option("Stop after N videos.", "N", at_least=1)
    patience: float = option("Longest wait, minutes.", "MIN", default=15.0)
    min_free: float = option("Keep so much free.", "MB", default=200.0)
    lease: float = option(None, "S", default=120.0, hidden=True)
    seed: int = option("Of the jitter in waits.", "N", default=0, show_default=True)
    no_check: bool = option("Do not look first whether all files are still there.")
    log_path: Path | None = option("A line for each clip.", "FILE", "--log")
    quiet: bool = option(QUIET, flags="--quiet -q")

    def settings(self, rate: float, shard: Shard | None, *, sections: bool) -> RunSettings:
        """How to go about it, at so many fetches a minute."""
        from audioset.dataset.download.runs import RunSettings

        return RunSettings(
            n_workers=self.n_workers,
            interval_s=60 / rate,
            shard=shard,
            patience_s=60 * self.patience,
            n_attempts=self.retries,
            max_videos=self.max_videos,
            min_free_bytes=int(self.min_free * MB),
            lease_s=self.lease,
            seed=self.seed,
            sections=sections,
        )
