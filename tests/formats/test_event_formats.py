"""Every format of events read back by a small reader of its own: hostile names and labels, failures, no events."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset import Event
from audioset.errors import AudioError, UsageError, plain
from audioset.formats import EVENT_FORMATS, EventRow, make_writer

HOSTILE = 'x/a,"b"\t[bold red]c\x1b[31m\nd\r\u2028 --> e & <f>' + os.fsdecode(b"\xff") + ".wav"
CLEAN = 'x/a,"b"\t[bold red]c\x1b[31m\nd\r\u2028 --> e & <f>\\xff.wav'
ONE_LINE = 'x/a,"b"\\t[bold red]c\\x1b[31m\\nd\\r\\u2028 --> e & <f>\\xff.wav'
ODD_LABEL = 'Dog, "big"\t& <small>\n--> \udcff'
ODD_ONE_LINE = 'Dog, "big"\\t& <small>\\n--> \\xff'
SPEECH = Event(0.0, 1.44, "/m/09x0r", "Speech", 0.987654321, 0.75)
DOG = Event(0.96, 3661.5006, "/m/0bt9lr", "Dog", 0.5, 0.5)
LATER = Event(1.92, 2.88, "/m/09x0r", "Speech", 0.6, 0.6)
ODD = Event(0.48, 1.0000004, "/m/odd", ODD_LABEL, 0.5, 0.4)
DURATION_S = 3700.0
LONG = [
    EventRow("a.wav", (SPEECH, DOG), 2, 3662.0, "yamnet", False),
    EventRow("a.wav", (LATER,), 3, DURATION_S, "yamnet", True),
]
QUIET = [EventRow("quiet.wav", (), 0, 1.5, "yamnet", True, ("the header says 2 s",))]
HOSTILE_ROWS = [EventRow(HOSTILE, (ODD,), 1, 1.2, "yamnet", True)]
BROKEN = [EventRow.failed(HOSTILE, AudioError(f"{HOSTILE} is cut off", code="truncated"), "yamnet")]
HALF = [
    EventRow("half.wav", (SPEECH,), 1, 2.0, "yamnet", False),
    EventRow.failed("half.wav", AudioError("cut off", code="truncated"), "yamnet", 1),
]
ROWS = [*LONG, *BROKEN, *QUIET, *HALF, *HOSTILE_ROWS]


def written(name: str, rows: Iterable[EventRow]) -> bytes:
    stream = io.BytesIO()
    writer = make_writer(name, stream, EVENT_FORMATS)
    for row in rows:
        writer.write(row)
    writer.close()
    return stream.getvalue()


def tab_separated(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter="\t", strict=True))


def strict_json(line: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


# rows


def test_rows_make_their_texts_printable() -> None:
    (row,) = HOSTILE_ROWS
    assert row.path == CLEAN
    assert row.events[0].label == ODD_LABEL.replace("\udcff", "\\xff")
    assert BROKEN[0].error == f"{plain(CLEAN)} is cut off"


@pytest.mark.parametrize("name", EVENT_FORMATS)
def test_every_format_takes_what_comes(name: str) -> None:
    for rows in (LONG, QUIET, BROKEN, HALF, HOSTILE_ROWS, []):
        data = written(name, rows)
        if name == "parquet":
            assert (data[:4], data[-4:]) == (b"PAR1", b"PAR1")
        elif name == "csv":  # has the names as they are
            assert data.decode("utf-8").startswith("path,start_s,end_s,")
        else:
            assert all(character.isprintable() or character in "\t\r\n\u2028" for character in data.decode("utf-8"))


# JSON Lines, CSV, Parquet


def check_flat(lines: list[dict[str, Any]], path: str, label: str) -> None:
    """What the three flat formats say about ``ROWS``."""
    assert [line["path"] for line in lines] == ["a.wav"] * 3 + [path, "quiet.wav", "half.wav", "half.wav", path]
    assert [line["label"] or None for line in lines] == [
        *("Speech", "Dog", "Speech"),
        None,
        None,
        "Speech",
        None,
        label,
    ]
    times = [(float(line["start_s"]), float(line["end_s"])) for line in lines]
    assert times[1] == (0.96, 3661.5006)
    assert times[3:5] == [(0, 0), (0, 1.5)]
    assert float(lines[0]["score"]) == pytest.approx(0.987654, abs=1e-6)
    assert float(lines[0]["mean"]) == 0.75
    assert {line["model"] for line in lines} == {"yamnet"}


def test_json_lines_read_back() -> None:
    records = [strict_json(line) for line in written("jsonl", ROWS).decode("ascii").splitlines()]
    check_flat(records, CLEAN, ODD_LABEL.replace("\udcff", "\\xff"))
    assert records[0] == {
        "path": "a.wav",
        "start_s": 0.0,
        "end_s": 1.44,
        "label_id": "/m/09x0r",
        "label": "Speech",
        "score": 0.987654,
        "mean": 0.75,
        "model": "yamnet",
        "error": None,
    }
    errors = [record["error"] and record["error"]["code"] for record in records]
    assert errors == [None, None, None, "truncated", None, None, "truncated", None]
    assert records[-1]["end_s"] == 1.0


def test_csv_reads_back() -> None:
    text = io.StringIO(written("csv", ROWS).decode(), newline="")
    lines = list(csv.DictReader(text, strict=True))
    check_flat(lines, CLEAN, ODD_LABEL.replace("\udcff", "\\xff"))
    assert [line["error_code"] for line in lines] == ["", "", "", "truncated", "", "", "truncated", ""]
    assert lines[3]["error"] == f"{plain(CLEAN)} is cut off"


def test_parquet_reads_back() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(written("parquet", ROWS)))
    check_flat(table.to_pylist(), CLEAN, ODD_LABEL.replace("\udcff", "\\xff"))
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["start_s"], types["score"], types["mean"], types["label"]) == ("double", "float", "float", "string")
    assert parquet.read_table(io.BytesIO(written("parquet", []))).schema.names == table.schema.names


# Audacity, Raven


def test_audacity_has_a_label_for_each_event() -> None:
    lines = [line.split("\t") for line in written("audacity", [*BROKEN, *LONG]).decode().splitlines()]
    assert lines == [
        ["0.000000", "1.440000", "Speech (0.99)"],
        ["0.960000", "3661.500600", "Dog (0.50)"],
        ["1.920000", "2.880000", "Speech (0.60)"],
    ]
    (line,) = written("audacity", HOSTILE_ROWS).decode().splitlines()
    assert line.split("\t")[2] == f"{ODD_ONE_LINE} (0.50)"


def test_raven_counts_the_whole_length_of_each_recording() -> None:
    header, *lines = [line.split("\t") for line in written("raven", ROWS).decode().removesuffix("\n").split("\n")]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    begins = [float(row["Begin Time (s)"]) for row in rows]
    assert begins == [0.0, 0.96, 1.92, DURATION_S + 1.5, DURATION_S + 1.5 + 2.0 + 0.48]
    assert [float(row["File Offset (s)"]) for row in rows] == [0.0, 0.96, 1.92, 0.0, 0.48]
    assert (rows[-1]["Label"], rows[-1]["Begin Path"]) == (ODD_ONE_LINE, ONE_LINE)
    assert float(rows[1]["End Time (s)"]) == 3661.5006


# tab-separated events


def test_dcase_reads_back_and_keeps_recordings_without_events() -> None:
    lines = tab_separated(written("dcase", ROWS))
    assert lines[:3] == [
        {"filename": "a.wav", "onset": "0", "offset": "1.44", "event_label": "Speech"},
        {"filename": "a.wav", "onset": "0.96", "offset": "3661.5006", "event_label": "Dog"},
        {"filename": "a.wav", "onset": "1.92", "offset": "2.88", "event_label": "Speech"},
    ]
    assert lines[3] == {"filename": "quiet.wav", "onset": "", "offset": "", "event_label": ""}
    assert [line["filename"] for line in lines[4:]] == ["half.wav", ONE_LINE]
    assert lines[-1]["event_label"] == ODD_ONE_LINE


def test_audioset_strong_has_the_clip_and_the_label_id() -> None:
    clip = EventRow("clips/-BPXn_abcde_30000.wav", (SPEECH,), 1, 10.0, "yamnet", True)
    lines = tab_separated(written("audioset-strong", [clip, *ROWS]))
    assert lines[0] == {
        "segment_id": "-BPXn_abcde_30000",
        "start_time_seconds": "0",
        "end_time_seconds": "1.44",
        "label": "/m/09x0r",
    }
    names = [line["segment_id"] for line in lines[1:]]
    assert names == ["a", "a", "a", "half", PurePath(ONE_LINE).stem]


@pytest.mark.parametrize("name", ["dcase", "audioset-strong"])
def test_tab_separated_lines_have_four_cells_even_for_a_naive_reader(name: str) -> None:
    lines = written(name, ROWS).decode().removesuffix("\n").split("\n")
    assert {line.count("\t") for line in lines} == {3}


# TextGrid

Interval = tuple[float, float, str]


def read_textgrid(data: bytes) -> tuple[float, dict[str, list[Interval]]]:
    """End and tiers, from the values in the file alone: all that its reader heeds are numbers, flags and texts."""
    values = re.findall(r'"((?:[^"]|"")*)"|(?<![\[\w])(-?\d[\d.]*)(?![\]\w])|<(\w+)>', data.decode("utf-8"))
    stream = iter(
        [text.replace('""', '"') if not (number or flag) else number or flag for text, number, flag in values]
    )
    assert [next(stream) for _ in range(3)] == ["ooTextFile", "TextGrid", "0"]
    end_s = float(next(stream))
    assert next(stream) == "exists"
    tiers: dict[str, list[Interval]] = {}
    for _ in range(int(next(stream))):
        assert next(stream) == "IntervalTier"
        name = next(stream)
        assert (float(next(stream)), float(next(stream))) == (0, end_s)
        count = int(next(stream))
        tiers[name] = [(float(next(stream)), float(next(stream)), next(stream)) for _ in range(count)]
    assert list(stream) == []
    return end_s, tiers


def check_tiles(end_s: float, intervals: list[Interval]) -> None:
    assert intervals[0][0] == 0
    assert intervals[-1][1] == end_s
    assert all(left[1] == right[0] for left, right in pairwise(intervals))
    assert all(start_s < stop_s for start_s, stop_s, _ in intervals)


def test_textgrid_has_a_tier_for_each_label() -> None:
    end_s, tiers = read_textgrid(written("textgrid", LONG))
    assert end_s == DURATION_S
    assert tiers == {
        "Speech": [
            (0, 1.44, "Speech (0.99)"),
            (1.44, 1.92, ""),
            (1.92, 2.88, "Speech (0.60)"),
            (2.88, DURATION_S, ""),
        ],
        "Dog": [(0, 0.96, ""), (0.96, 3661.5006, "Dog (0.50)"), (3661.5006, DURATION_S, "")],
    }


def test_textgrid_of_odd_labels_and_of_no_events() -> None:
    end_s, tiers = read_textgrid(written("textgrid", HOSTILE_ROWS))
    assert tiers == {ODD_ONE_LINE: [(0, 0.48, ""), (0.48, 1, f"{ODD_ONE_LINE} (0.50)"), (1, 1.2, "")]}
    assert end_s == 1.2
    assert read_textgrid(written("textgrid", QUIET)) == (1.5, {"events": [(0, 1.5, "")]})
    assert written("textgrid", HALF) == written("textgrid", LONG[:1]) == b""


@given(
    edges=st.lists(st.tuples(st.floats(0, 9.9), st.floats(1e-7, 3)), max_size=8),
    duration_s=st.floats(0.01, 10).map(lambda seconds: round(seconds, 7)),
)
def test_textgrid_intervals_tile_the_recording(edges: list[tuple[float, float]], duration_s: float) -> None:
    events = [Event(start_s, start_s + length_s, "/m/1", "A", 0.5, 0.5) for start_s, length_s in sorted(edges)]
    row = EventRow("a.wav", tuple(events), len(events), duration_s, "yamnet", True)
    end_s, tiers = read_textgrid(written("textgrid", [row]))
    assert end_s == pytest.approx(max([duration_s, *(event.end_s for event in events)]), abs=1e-6)
    (intervals,) = tiers.values()
    check_tiles(end_s, intervals)


# WebVTT


def read_webvtt(data: bytes) -> list[tuple[int, int, str]]:
    """Cues as start and end in milliseconds and text."""
    header, *blocks = data.decode("utf-8").removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in blocks:
        timing, text = block.split("\n")
        match = re.fullmatch(r"(\d\d+):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d)\.(\d{3})", timing)
        assert match
        hours, minutes, seconds, ms, *last = map(int, match.groups())
        start_ms = ((hours * 60 + minutes) * 60 + seconds) * 1_000 + ms
        end_ms = ((last[0] * 60 + last[1]) * 60 + last[2]) * 1_000 + last[3]
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)|-->", text)
        cues.append((start_ms, end_ms, html.unescape(text)))
    return cues


def test_webvtt_reads_back() -> None:
    assert read_webvtt(written("webvtt", [*BROKEN, *LONG])) == [
        (0, 1_440, "Speech (0.99)"),
        (960, 3_661_501, "Dog (0.50)"),
        (1_920, 2_880, "Speech (0.60)"),
    ]
    assert read_webvtt(written("webvtt", HOSTILE_ROWS)) == [(480, 1_000, f"{ODD_ONE_LINE} (0.50)")]
    assert read_webvtt(written("webvtt", QUIET)) == []


def test_webvtt_cues_last_and_hours_may_be_many() -> None:
    brief = Event(360_000.0, 360_000.0001, "/m/1", "A", 1.0, 1.0)
    data = written("webvtt", [EventRow("a.wav", (brief,), 1, 400_000.0, "yamnet", True)])
    assert read_webvtt(data) == [(360_000_000, 360_000_001, "A (1.00)")]
    assert b"\n100:00:00.000 --> 100:00:00.001\n" in data


@pytest.mark.parametrize("name", ["audacity", "textgrid", "webvtt"])
def test_a_file_of_one_recording_refuses_a_second(name: str) -> None:
    with pytest.raises(UsageError, match=r"a second recording, quiet\.wav.*folder as --output.*another format"):
        written(name, [*LONG, *QUIET])


# the table


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_table_has_a_line_for_each_event_under_its_recording() -> None:
    lines = written("table", ROWS).decode().splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["a.wav"],
        ["0:00.00–0:01.44", "Speech", "0.99"],
        ["0:00.96–1:01:01.50", "Dog", "0.50"],
        ["0:01.92–0:02.88", "Speech", "0.60"],
    ]
    assert lines[1].index("0.99") == lines[3].index("0.60")
    assert lines[4] == ONE_LINE.removeprefix("x/")
    assert lines[5].startswith("  truncated: x/a,")
    assert lines[6:8] == ["quiet.wav", "  no score reaches the threshold"]
    assert lines[8:11] == ["half.wav", lines[1], "  truncated: cut off"]


def test_no_name_or_label_can_change_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    writer = make_writer("table", stream, EVENT_FORMATS)
    for row in ROWS:
        writer.write(row)
    writer.close()
    text = stream.getvalue().decode()
    assert "\x1b[31m  truncated" in text or "\x1b[31mtruncated" in text
    plain = re.sub("\x1b\\[(0|1|2|31)m", "", text)
    assert all(char.isprintable() or char == "\n" for char in plain)
    assert plain.encode() == written("table", ROWS)
