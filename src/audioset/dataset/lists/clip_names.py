"""Names of clips and of their files, as this package and other tools write them: one reader, for every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

VIDEO_ID = r"(?P<video_id>[\w-]{11})"
SECONDS = r"\d+(?:\.\d+)?"
OWN_NAME = re.compile(rf"{VIDEO_ID}_(?P<start_ms>\d+)_(?P<end_ms>\d+)", re.ASCII)  # and audiosetdl's
# How tools name clips. A video's id may hold "_" and begin with "Y", so several may fit.
FORMS = (
    OWN_NAME,
    *(
        re.compile(form, re.ASCII)
        for form in (
            rf"{VIDEO_ID}_(?P<start_s>{SECONDS})-(?P<end_s>{SECONDS})",  # audioset-download
            rf"{VIDEO_ID}_(?P<start_s>{SECONDS})",  # audioset-processing; VGGSound
            rf"{VIDEO_ID}_(?P<start_ms>\d+)",  # ids of the labels with times
            rf"_?Y?{VIDEO_ID}_(?P<start_s>{SECONDS})_(?P<end_s>{SECONDS})",  # DCASE
            rf"_?Y{VIDEO_ID}",  # PANNs
            rf"_?Y{VIDEO_ID}_(?P<start_s>{SECONDS})",
            rf"id_{VIDEO_ID}",  # Fast-Audioset-Download
            VIDEO_ID,
        )
    ),
)
SUFFIXES = re.compile(r"(\.([a-z]\w*|3g[2p]))+$", re.IGNORECASE)  # of files; the dot in "x_30.000" begins none


@dataclass(frozen=True)
class ClipName:
    """What a name may mean: a video, and when in it the clip begins and ends, where the name says so."""

    video_id: str
    start_ms: int | None = None
    end_ms: int | None = None


def clip_names(name: str) -> Iterator[ClipName]:
    """What the name of a clip or of its file may mean, without a folder, in the order of ``FORMS``.

    >>> next(clip_names("Y--4gqARaEJE_0.000_10.000.wav"))
    ClipName(video_id='--4gqARaEJE', start_ms=0, end_ms=10000)
    """
    stem = SUFFIXES.sub("", name)
    for found in filter(None, (form.fullmatch(stem) for form in FORMS)):
        said = found.groupdict()
        yield ClipName(said["video_id"], _ms(said, "start"), _ms(said, "end"))


def _ms(said: dict[str, str], which: str) -> int | None:
    if f"{which}_ms" in said:
        return int(said[f"{which}_ms"])
    return round(float(said[f"{which}_s"]) * 1000) if f"{which}_s" in said else None
