"""Why a clip could not be had: one table of classes, how to recognise each, and what to do about it.

YouTube says in a sentence why a video does not play, and yt-dlp passes the sentence on. yt-dlp always asks in
English. The order of the table matters: a video that is refused for asking too often begins with "Video
unavailable", and nearly everything that needs an account says "Sign in".
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

MAX_REASON_CHARACTERS = 500
LONGEST_WAIT_S = 6 * 3600.0
LONGEST_PAUSE_S = 24 * 3600.0
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PREFIX = re.compile(r"^(?:ERROR:\s*)+", re.IGNORECASE)
EXTRACTOR_PREFIX = re.compile(r"^\[[\w:+.-]+\] (?:[^\s:]+: )?")


class Action(Enum):
    """What follows from a failure."""

    NEVER = "never"  # final: the clip is asked for again only by hand
    LATER = "later"  # this clip again after a while, each time longer
    PAUSE = "pause"  # nothing at all is asked for a while: it is about the asker, not about the clip
    STOP = "stop"  # this machine cannot go on; the clip is as it was


@dataclass(frozen=True)
class Policy:
    """What to do about a class of failures."""

    action: Action
    wait_s: float = 0.0  # seconds before the next attempt, or of the first pause; doubled each time
    max_attempts: int = 1  # after so many attempts the failure is final


@dataclass(frozen=True)
class FailureClass:
    """One class of failures; its name is the state that the ledger keeps."""

    state: str
    meaning: str  # in one sentence, for reports
    policy: Policy
    # Regular expressions, in any case, with straight quotes, any of which marks the class
    patterns: tuple[str, ...] = ()
    is_suspicious: bool = False  # if many clips in a row fail so, something is wrong here rather than with them


NEVER = Policy(Action.NEVER)
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

CLASSES = (
    FailureClass(
        "rate_limited",
        "YouTube refuses this address for about an hour",
        Policy(Action.PAUSE, HOUR_S, 5),
        (r"This content isn't available, try again later", r"has been rate-limited by YouTube"),
    ),
    FailureClass(
        "http_429",
        "the server asks for fewer requests",
        Policy(Action.PAUSE, 60.0, 10),
        (r"HTTP Error 429", r"Too Many Requests"),
    ),
    FailureClass(
        "bot_check",
        "YouTube wants proof that no program is asking",
        Policy(Action.PAUSE, 6 * HOUR_S, 5),
        (
            r"Sign in to confirm you're not a bot",
            r"requiring a captcha challenge",
            r"Your IP is likely being blocked by Youtube",
            r"This content isn't available(?:\.|$)",
        ),
    ),
    FailureClass(
        "age",
        "only for signed-in adults",
        NEVER,
        (r"Sign in to confirm your age", r"age-restricted", r"inappropriate for some users"),
    ),
    FailureClass("private", "the uploader made it private", NEVER, (r"Private video", r"This video is private")),
    FailureClass(
        "members",
        "only for members of the channel or of a paid service",
        NEVER,
        (
            r"Join this channel",
            r"available to this channel's members",
            r"members-only content",
            r"only available to Music Premium members",
        ),
    ),
    FailureClass(
        "geo",
        "not available in this country",
        NEVER,
        (
            r"not made this video available in your country",
            r"not available from your location due to geo restriction",
            r"blocked it in your country",
            r"HTTP Error 451",
        ),
    ),
    FailureClass(
        "copyright",
        "taken down after a copyright claim",
        NEVER,
        (
            r"due to a copyright claim",
            r"blocked it on copyright grounds",
            r"following a copyright removal request",
        ),
    ),
    FailureClass(
        "terminated",
        "the uploader's account is gone",
        NEVER,
        (r"account associated with this video has been terminated", r"uploader has closed their YouTube account"),
    ),
    FailureClass(
        "removed",
        "the video was removed, or does not exist",
        NEVER,
        (
            r"This video has been removed",
            r"This video isn't available anymore",
            r"This video does not exist",
            r"Unable to download webpage: HTTP Error 4(?:04|10)\b",
        ),
    ),
    FailureClass(
        "live",
        "a live event or premiere that is not over, or was not kept",
        Policy(Action.LATER, 3 * DAY_S, 4),
        (
            r"This live event will begin",
            r"Premieres in",
            r"Premiere will begin",
            r"This live stream recording is not available",
            r"The channel is not currently live",
            r"This live event has not ended",
        ),
    ),
    FailureClass(
        "login",
        "only for signed-in viewers, or for another player",
        Policy(Action.LATER, HOUR_S, 2),
        (
            r"Sign in",
            r"for the authentication",
            r"Login details are needed",
            r"Watch on the latest version of YouTube",
            r"The following content is not available on this app",
            r"HTTP Error 401",
        ),
        is_suspicious=True,
    ),
    FailureClass("drm", "protected against copying", NEVER, (r"DRM protected",)),
    FailureClass(
        "unavailable",
        "unavailable; YouTube does not say why",
        Policy(Action.LATER, DAY_S, 2),
        (r"Video unavailable", r"This video is (?:not available|unavailable)"),
    ),
    FailureClass(
        "http_403",
        "the address of the media had expired, or was refused",
        Policy(Action.LATER, 60.0, 5),
        (r"HTTP Error 403", r"unable to download video data: HTTP Error 4\d\d"),
        is_suspicious=True,
    ),
    FailureClass(
        "format",
        "no format to download; often a missing JavaScript runtime",
        Policy(Action.LATER, 6 * HOUR_S, 3),
        (r"Requested format is not available", r"No video formats found"),
        is_suspicious=True,
    ),
    FailureClass(
        "network",
        "the connection failed",
        Policy(Action.LATER, 30.0, 8),
        (
            r"HTTP Error (?:408|425|5\d\d)",
            r"timed out",
            r"\d+ bytes read",
            r"Did not get any data blocks",
            r"Downloaded \d+ bytes, expected \d+ bytes",
            r"Connection (?:refused|reset|aborted|broken)",
            r"Remote end closed connection",
            r"Name or service not known",
            r"name resolution",
            r"nodename nor servname",
            r"Network is unreachable",
            r"No route to host",
            r"EOF occurred in violation of protocol",
            r"Broken pipe",
            r"Giving up after \d+",
            r"Redirect loop detected",
        ),
        is_suspicious=True,
    ),
    FailureClass(
        "disk",
        "this machine has no space, or lacks a tool",
        Policy(Action.STOP),
        (
            r"\[Errno (?:28|122)\]",
            r"No space left on device",
            r"Disk quota exceeded",
            r"ffmpeg (?:is )?not (?:found|installed)",
            r"Postprocessing: Conversion failed",
        ),
    ),
    FailureClass(
        "extractor",
        "yt-dlp does not understand the page; it may need an update",
        Policy(Action.LATER, DAY_S, 3),
        (
            r"Unable to extract",
            r"Failed to extract any player response",
            r"please report this issue on",
            r"Unsupported URL",
            r"a page instead of media",
        ),
        is_suspicious=True,
    ),
    # What follows is not said by anybody, but found here.
    FailureClass("short", "the video ends before the clip does", NEVER),
    FailureClass("invalid", "what arrived cannot be decoded", Policy(Action.LATER, 300.0, 3), is_suspicious=True),
    FailureClass("unknown", "none of the known reasons", Policy(Action.LATER, HOUR_S, 3), is_suspicious=True),
)
BY_STATE = {failure.state: failure for failure in CLASSES}
PATTERNS = tuple((failure, re.compile("|".join(failure.patterns), re.I)) for failure in CLASSES if failure.patterns)


@dataclass(frozen=True)
class Failure:
    """One failure, recognised."""

    state: str  # A key of ``BY_STATE``
    reason: str  # what was said, tidied, at most 500 characters
    retry_after_s: float | None = None  # how long the server asks to wait

    @property
    def policy(self) -> Policy:
        """What to do about it."""
        return BY_STATE[self.state].policy


def classify(text: str) -> str:
    """State of the first class of the table that ``text`` shows; ``"unknown"`` if none does."""
    return next((failure.state for failure, pattern in PATTERNS if pattern.search(tidy(text))), "unknown")


def classify_error(error: BaseException) -> Failure:
    """Recognise an error of yt-dlp, or one that it passes on.

    The text decides. Where it says nothing known, the errors behind it do: a full disk, a broken connection.
    """
    state = classify(str(error))
    causes = list(causes_of(error))
    if any(isinstance(cause, OSError) and cause.errno in DISK_ERRORS for cause in causes):
        state = "disk"
    elif state == "unknown" and any(_is_network_error(cause) for cause in causes):
        state = "network"
    waits = [wait_s for cause in causes if (wait_s := _retry_after_s(cause)) is not None]
    return Failure(state, tidy(str(error))[:MAX_REASON_CHARACTERS], max(waits, default=None))


def tidy(text: str) -> str:
    """One line without colours, without the prefix of yt-dlp, and with straight quotes."""
    straight = COLOURS.sub("", text).replace("\u2019", "'").replace("\u2018", "'")
    return EXTRACTOR_PREFIX.sub("", PREFIX.sub("", " ".join(straight.split())))


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it came from, each once. yt-dlp keeps causes in three places."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop()
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "cause", None)]
        waiting += [part for part in getattr(cause, "exc_info", None) or () if isinstance(part, BaseException)]


def _is_network_error(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutError", "HTTPException", "SSLError"})


def _retry_after_s(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("Retry-After") if headers is not None else None
    return _seconds_until(value.strip()) if value else None


def _seconds_until(value: str) -> float | None:
    """Seconds of a Retry-After header: a number, or a date."""
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    if value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
