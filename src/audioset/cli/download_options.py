"""The options of ``audioset data download``, and the settings that they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from audioset.dataset.download.clips import Shard
    from audioset.dataset.download.fetch import FetchSettings
    from audioset.dataset.download.ledger import Ledger
    from audioset.dataset.download.media import MediaSettings
    from audioset.dataset.download.runs import RunSettings

Command = TypeVar("Command", bound=Callable[..., Any])

PER_MINUTE = {None: 1.0, "s": 60.0, "min": 1.0, "h": 1 / 60, "day": 1 / 1440}
BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MB = 1_000_000
FREE_TO_CHANGE = ("tolerance_s",)


def _per_minute(ctx: click.Context, param: click.Parameter, value: str) -> float:
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


rate_option = click.option(
    "--rate",
    callback=_per_minute,
    default="4/min",
    show_default=True,
    help="Fetches of all workers together; none: no limit.",
)
MEDIA_OPTIONS = (
    click.option("--format", "format_name", type=click.Choice(["flac", "wav", "opus"]), help="Default: flac."),
    click.option("--sample-rate", metavar="HZ", type=click.IntRange(1), help="Default: as fetched."),
    click.option("--channels", type=click.Choice(["1", "2"]), help="Mono or stereo. Default: as fetched."),
    click.option(
        "--bit-depth", type=click.Choice(["16", "24", "32"]), help="Default: 16. 32 is floating point, in WAV."
    ),
    click.option("--tolerance", metavar="S", type=float, help="What a clip may lack of its end. Default: 0.5."),
    click.option(
        "--video", type=click.Choice(["with-audio", "video-only"]), help="Write an MP4 file of each clip, too."
    ),
    click.option("--frame-rate", metavar="N", type=click.IntRange(1), help="Of these. Default: as fetched."),
)
FETCH_OPTIONS = (
    click.option(
        "--cookies", metavar="FILE", type=click.Path(path_type=Path), help="Cookies, as browsers export them."
    ),
    click.option("--cookies-from-browser", metavar="NAME[:PROFILE]", help="Cookies of a browser on this machine."),
    click.option("--proxy", metavar="URL", help="Go through a proxy."),
    click.option("--player-client", metavar="NAME", multiple=True, help="Which of YouTube's players to be."),
    click.option("--limit-rate", metavar="BYTES", callback=_n_bytes, help="Per second and worker, such as 500K."),
    click.option(
        "--sleep-requests", metavar="S", type=float, default=0.75, show_default=True, help="Between requests."
    ),
    click.option("--url-template", metavar="URL", help="Another source: an address with {video_id} in it."),
    click.option("--sections", is_flag=True, help="Fetch only the clip's section, by ffmpeg. Slow and less exact."),
)
RUN_OPTIONS = (
    click.option("--workers", "n_workers", metavar="N", type=click.IntRange(1), default=2, show_default=True),
    click.option("--shard", metavar="I/N", help="Only part I of N, from 0, by a hash of the video's id."),
    click.option("--retries", metavar="N", type=click.IntRange(1), help="Attempts for failures that may pass."),
    click.option("--max-videos", metavar="N", type=click.IntRange(1), help="Stop after N videos."),
    click.option(
        "--patience", metavar="MIN", type=float, default=15.0, show_default=True, help="Longest wait, minutes."
    ),
    click.option("--min-free", metavar="MB", type=float, default=200.0, show_default=True, help="Keep so much free."),
    click.option("--lease", metavar="S", type=float, default=120.0, hidden=True),
    click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of the jitter in waits."),
    click.option("--no-check", is_flag=True, help="Do not look first whether all files are still there."),
    click.option("--log", "log_path", metavar="FILE", type=click.Path(path_type=Path), help="A line for each clip."),
    click.option("--quiet", "-q", is_flag=True, help="No progress and no summary."),
)


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Give a command several options."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def fetch_settings(options: Mapping[str, Any]) -> FetchSettings:
    """How to ask, of the options."""
    from audioset.dataset.download.fetch import YOUTUBE, FetchSettings

    return FetchSettings(
        url_template=options["url_template"] or YOUTUBE,
        cookies=options["cookies"],
        cookies_from_browser=options["cookies_from_browser"],
        proxy=options["proxy"],
        player_client=options["player_client"],
        limit_rate=options["limit_rate"],
        sleep_requests_s=options["sleep_requests"],
        sections=options["sections"],
    )


def run_settings(options: Mapping[str, Any], shard: Shard | None) -> RunSettings:
    """How to go about it, of the options."""
    from audioset.dataset.download.runs import RunSettings

    return RunSettings(
        n_workers=options["n_workers"],
        interval_s=60 / options["rate"],
        shard=shard,
        patience_s=60 * options["patience"],
        n_attempts=options["retries"],
        max_videos=options["max_videos"],
        min_free_bytes=int(options["min_free"] * MB),
        lease_s=options["lease"],
        seed=options["seed"],
        sections=options["sections"],
    )


def media_settings(ledger: Ledger, options: dict[str, Any]) -> MediaSettings:
    """What is asked for now, completed by what the folder was begun with, and equal to it.

    Raises
    ------
    ConflictError
        The folder's files are of another kind.
    """
    from audioset.dataset.download.media import MediaSettings
    from audioset.errors import ConflictError

    asked = {
        "format": options["format_name"],
        "sample_rate": options["sample_rate"],
        "n_channels": options["channels"] and int(options["channels"]),
        "bit_depth": options["bit_depth"] and int(options["bit_depth"]),
        "tolerance_s": options["tolerance"],
        "video": options["video"],
        "frame_rate": options["frame_rate"],
    }
    given = {name: value for name, value in asked.items() if value is not None}
    begun: dict[str, Any] = ledger.setting("media", {})
    for name, value in given.items():
        if begun and name not in FREE_TO_CHANGE and begun[name] != value:
            raise ConflictError(
                f"{ledger.path} was begun with {name} {begun[name] or 'as fetched'}, and {value} is asked for. Next "
                "step: choose another folder, or leave the option out"
            )
    settings = MediaSettings(**{**begun, **given})
    ledger.set_setting("media", asdict(settings))
    return settings
