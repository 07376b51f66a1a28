"""Every sentence that is known to come back from YouTube and yt-dlp, and what it means."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from site_texts import RECORDED

from audioset.dataset.download.failures import BY_STATE, CLASSES, Action, causes_of, classify, classify_error, tidy

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
