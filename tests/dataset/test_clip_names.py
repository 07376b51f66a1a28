"""Names of clips: what each tool's means, with and without the ending of a file."""

from __future__ import annotations

import pytest

from audioset.dataset.lists.clip_names import ClipName, clip_names

ID = "-_Y4gqARaEJ"  # that holds "_" and "Y"


@pytest.mark.parametrize(
    ("name", "start_ms", "end_ms"),
    [
        (f"{ID}_30000_40000.flac", 30_000, 40_000),
        (f"{ID}_30.0-40.000.m4a", 30_000, 40_000),
        (f"{ID}_30.000_40.000.wav", 30_000, 40_000),
        (f"Y{ID}_30.000_40.000.wav", 30_000, 40_000),
        (f"{ID}_30.000", 30_000, None),
        (f"Y{ID}.wav", None, None),
        (f"_Y{ID}", None, None),
        (f"id_{ID}.mp4", None, None),
        (f"{ID}.info.json", None, None),
        (f"{ID}.3gp", None, None),
    ],
)
def test_the_first_meaning_is_the_tools_own(name: str, start_ms: int | None, end_ms: int | None) -> None:
    assert next(clip_names(name)) == ClipName(ID, start_ms, end_ms)


def test_names_are_read_as_several_things_where_they_may_be() -> None:
    assert list(clip_names("YabcdefghijK")) == [ClipName("abcdefghijK")]
    meanings = [ClipName("--4gqARaEJE", 30_000_000), ClipName("--4gqARaEJE", 30_000)]
    assert list(clip_names("--4gqARaEJE_30000")) == meanings  # seconds, or thousandths of them


@pytest.mark.parametrize("name", ["", "short.wav", "twelve-chars", f"{ID}_x.wav", f"{ID}_30_40_50.wav", "--4gqARaEJé"])
def test_other_names_mean_nothing(name: str) -> None:
    assert list(clip_names(name)) == []
