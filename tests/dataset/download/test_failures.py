"""Every sentence that is known to come back from YouTube and yt-dlp, and what it means."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from audioset.dataset.download.failures import BY_STATE, CLASSES, Action, causes_of, classify, classify_error, tidy

HINT = (
    " Use --cookies-from-browser or --cookies for the authentication. See  "
    "https://github.com/yt-dlp/yt-dlp/wiki/FAQ#how-do-i-pass-cookies-to-yt-dlp  for how to manually pass cookies"
)
BUG = (
    "; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the appropriate issue "
    "template. Confirm you are on the latest version using  yt-dlp -U"
)
RECORDED = {
    "rate_limited": (
        "Video unavailable. This content isn't available, try again later. The current session has been rate-limited "
        "by YouTube for up to an hour. It is recommended to use `-t sleep` to add a delay between video requests",
        "This content isn’t available, try again later",
    ),
    "http_429": (
        "Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429: Too Many Requests>)",
        "unable to download video data: HTTP Error 429: Too Many Requests",
    ),
    "bot_check": (
        f"Sign in to confirm you’re not a bot.{HINT}",
        f"Sign in to confirm you're not a bot.{HINT}",
        "Something. YouTube is requiring a captcha challenge before playback",
        "All player responses are invalid. Your IP is likely being blocked by Youtube",
        "This content isn’t available.",
        "Video unavailable. This content isn't available",
    ),
    "age": (
        f"Sign in to confirm your age. This video may be inappropriate for some users.{HINT}",
        "This video is age-restricted and only available on YouTube",
    ),
    "private": (
        f"Private video. Sign in if you've been granted access to this video.{HINT}",
        "This video is private. If the owner of this video has granted you access, please sign in.",
    ),
    "members": (
        "Join this channel to get access to members-only content like this video, and other exclusive perks.",
        "This video is available to this channel's members on level: Gold (or any higher level). Join this channel to "
        "get access to members-only content and other exclusive perks.",
        "Join this channel from your computer or Android app to get access to members-only content",
        "This video is only available to Music Premium members",
    ),
    "geo": (
        "The uploader has not made this video available in your country\nThis video is available in Germany, France.\n"
        "You might want to use a VPN or a proxy server (with --proxy) to workaround.",
        "This video is not available from your location due to geo restriction",
        "Video unavailable. This video contains content from SME, who has blocked it in your country on copyright "
        "grounds",
        "Video unavailable. The uploader has not made this video available in your country",
    ),
    "copyright": (
        "Video unavailable. This video is no longer available due to a copyright claim by Someone Ltd.",
        "Video unavailable. This video contains content from WMG, who has blocked it on copyright grounds",
        "Video unavailable. This video contains content from A and B, one or more of whom have blocked it on copyright "
        "grounds",
        "Video unavailable. It was removed following a copyright removal request by Someone",
    ),
    "terminated": (
        "Video unavailable. This video is no longer available because the YouTube account associated with this video "
        "has been terminated.",
        "This video is no longer available because the uploader has closed their YouTube account.",
    ),
    "removed": (
        "Video unavailable. This video has been removed by the uploader",
        "This video has been removed for violating YouTube's Terms of Service",
        "This video has been removed for violating YouTube’s Community Guidelines",
        "This video has been removed for violating YouTube's policy on hate speech. Learn more about combating hate "
        "speech in your country.",
        "This video has been removed for violating YouTube's policy on nudity or sexual content.",
        "This video has been removed for violating YouTube's policy on violent or graphic content",
        "This video isn’t available anymore",
        "This video does not exist.",
        "Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
    ),
    "live": (
        "This live event will begin in 3 days.",
        "Premieres in 12 hours",
        "Premiere will begin shortly",
        "This live stream recording is not available.",
        "The channel is not currently live",
        "This live event has not ended",
    ),
    "login": (
        f"Please sign in.{HINT}",
        "Sign in to continue",
        "Login details are needed to download this content",
        "Watch on the latest version of YouTube. The following content is not available on this app.",
    ),
    "drm": ("This video is DRM protected",),
    "unavailable": (
        "Video unavailable",
        "Video unavailable. This video is not available",
        "This video is not available",
        "This video is unavailable",
    ),
    "http_403": (
        "unable to download video data: HTTP Error 403: Forbidden",
        "unable to download video data: HTTP Error 410: Gone",
    ),
    "format": (
        "Requested format is not available. Use --list-formats for a list of available formats",
        f"No video formats found!{BUG}",
    ),
    "network": (
        "unable to download video data: HTTP Error 503: Service Unavailable",
        "Unable to download API page: HTTP Error 500: Internal Server Error (caused by <HTTPError 500>)",
        "unable to download video data: Read timed out",
        "The read operation timed out",
        "1024 bytes read, 2048 more expected",
        "Did not get any data blocks",
        "Downloaded 1024 bytes, expected 4096 bytes",
        "Unable to download webpage: [Errno 111] Connection refused (caused by TransportError('Connection refused'))",
        "Unable to download webpage: Failed to resolve 'x' ([Errno -3] Temporary failure in name resolution)",
        "\r[download] Got error: Connection reset by peer. Giving up after 10 retries",
    ),
    "disk": (
        "unable to write data: [Errno 28] No space left on device",
        "unable to open for writing: [Errno 122] Disk quota exceeded",
        "Postprocessing: ffmpeg not found. Please install or provide the path using --ffmpeg-location",
        "Postprocessing: Conversion failed!",
    ),
    "extractor": (
        f"Unable to extract yt initial data{BUG}",
        f"Failed to extract any player response{BUG}",
        "Unsupported URL: http://127.0.0.1/page",
        "the address led to a page instead of media",
    ),
    "unknown": ("The owl has left the building", ""),
}
TEXTS = [(state, text) for state, texts in RECORDED.items() for text in texts]
FRAMES = ("{}", "ERROR: {}", "ERROR: [youtube] -0abc_DEF-x: {}", "\x1b[0;31mERROR:\x1b[0m [youtube] --0abc_DEFx: {}")


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("state", "text"), TEXTS, ids=[f"{state}-{text[:40]}" for state, text in TEXTS])
def test_recorded_texts_are_recognised_in_every_frame_and_case(state, text, frame):
    assert classify(frame.format(text)) == state
    assert classify(frame.format(text.upper())) == state


def test_every_class_that_texts_can_show_has_a_recorded_text():
    assert {failure.state for failure in CLASSES if failure.patterns} <= set(RECORDED)


def test_curly_and_straight_quotes_are_the_same():
    for _, text in TEXTS:
        assert classify(text.replace("'", "\u2019")) == classify(text.replace("\u2019", "'"))


def test_a_reason_is_one_line_without_colours_prefix_and_id():
    text = (
        "\x1b[0;31mERROR:\x1b[0m [youtube] --4gqARaEJE: Video unavailable.\n  This video isn\u2019t  available anymore"
    )
    assert tidy(text) == "Video unavailable. This video isn't available anymore"


def test_what_is_about_the_asker_pauses_and_what_is_about_the_video_does_not():
    pausing = {failure.state for failure in CLASSES if failure.policy.action is Action.PAUSE}
    assert pausing == {"rate_limited", "http_429", "bot_check"}
    final = {failure.state for failure in CLASSES if failure.policy.action is Action.NEVER}
    assert {"private", "terminated", "removed", "copyright", "members", "geo", "age", "drm", "short"} == final
    assert BY_STATE["rate_limited"].policy.wait_s >= 3600
    assert BY_STATE["unavailable"].policy.max_attempts == 2
    assert BY_STATE["unavailable"].policy.wait_s >= 24 * 3600


def yt_dlp_error(text, cause=None):
    """A DownloadError with an ExtractorError with a cause, as yt-dlp nests them."""
    yt_dlp = pytest.importorskip("yt_dlp")
    inner = yt_dlp.utils.ExtractorError(text, cause=cause, expected=True)
    return yt_dlp.utils.DownloadError(f"ERROR: {text}", (type(inner), inner, None))


def http_error(status, headers):
    from yt_dlp.networking import Response
    from yt_dlp.networking.exceptions import HTTPError

    return HTTPError(Response(None, "http://127.0.0.1/", headers, status=status))


def test_causes_are_found_in_all_places_where_yt_dlp_keeps_them():
    cause = OSError(28, "No space left on device")
    error = yt_dlp_error("something odd", cause)
    assert cause in list(causes_of(error))
    assert classify_error(error).state == "disk"


@pytest.mark.parametrize(("value", "low", "high"), [("17", 17, 17), ("date", 55, 61), ("soon", None, None)])
def test_retry_after_is_read_as_seconds_or_as_a_date(value, low, high):
    pytest.importorskip("yt_dlp")
    value = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60)) if value == "date" else value
    failure = classify_error(yt_dlp_error("HTTP Error 429: Too Many Requests", http_error(429, {"Retry-After": value})))
    assert failure.state == "http_429"
    assert failure.retry_after_s is None if low is None else low <= failure.retry_after_s <= high


def test_an_unknown_text_with_a_broken_connection_behind_it_is_the_network():
    pytest.importorskip("yt_dlp")
    from yt_dlp.networking.exceptions import TransportError

    assert classify_error(yt_dlp_error("odd", TransportError("odd"))).state == "network"
    assert classify_error(ConnectionResetError("odd")).state == "network"
    assert classify_error(ValueError("odd")).state == "unknown"
