"""Labels with times: read, written, mapped to the 527, made into frames, clips and other formats."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from audioset import Event
from audioset.dataset.lists.segments import Segment, SegmentList, read_segments
from audioset.dataset.lists.strong import (
    StrongLabel,
    StrongTable,
    read_display_names,
    read_strong,
    split_segment_id,
    strong_events,
    strong_to_segments,
    write_strong,
)
from audioset.dataset.lists.strong_frames import events_to_frames, frames_to_strong, strong_to_frames
from audioset.dataset.lists.strong_map import map_strong_labels
from audioset.errors import DataError, OutputError, UsageError
from audioset.labels.labels import LabelSet

LABELS = LabelSet.load("audioset-strong")
CHEERING, SPEECH, WASHING, BICYCLE = "/m/053hz1", "/m/09x0r", "/m/0174k2", "/m/0199g"
HEADER = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
ROWS = (
    f"s9d-2nhuJCQ_30000\t2.627\t7.237\t{CHEERING}",
    f"-_b-7bsDz1U_0\t0.000\t10.000\t{WASHING}",
    f"s9d-2nhuJCQ_30000\t0.000\t0.960\t{SPEECH}",
)
FRAMED = (
    f"s9d-2nhuJCQ_30000\t0.000\t0.960\t{CHEERING}\tPRESENT",
    f"s9d-2nhuJCQ_30000\t0.960\t1.920\t{CHEERING}\tPRESENT",
    f"s9d-2nhuJCQ_30000\t2.880\t3.840\t{CHEERING}\tPRESENT",
    f"s9d-2nhuJCQ_30000\t9.600\t10.000\t{SPEECH}\tNOT_PRESENT",
    f"_x_y_z_1234_30000\t0.000\t0.960\t{SPEECH}\tNOT_PRESENT",
)


def write(path: Path, rows: tuple[str, ...] = ROWS, header: str = HEADER) -> Path:
    path.write_text("".join(f"{line}\n" for line in (header, *rows)))
    return path


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    return write(tmp_path / "strong.tsv")


@pytest.fixture
def framed(tmp_path: Path) -> Path:
    return write(tmp_path / "framed.tsv", FRAMED, f"{HEADER}\tpresent")


def random_table(n_clips: int, seed: int = 0) -> StrongTable:
    rng = random.Random(seed)

    def label(clip: int) -> StrongLabel:
        start_ms = rng.randrange(0, 9_900)
        end_ms = rng.randrange(start_ms + 1, 10_001)
        return StrongLabel(f"{clip:011d}_{clip * 1000}", start_ms / 1000, end_ms / 1000, rng.choice(LABELS.ids))

    return StrongTable.of(label(clip) for clip in range(n_clips) for _ in range(rng.randrange(1, 12)))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "audioset", "data", "strong", *map(os.fsencode, arguments)],
        capture_output=True,
        timeout=60,
        check=False,
    )


# ---- reading and writing


def test_rows_are_those_that_a_plain_reader_finds(timed: Path) -> None:
    rows = csv.DictReader(io.StringIO(timed.read_text()), delimiter="\t")
    expected = [
        StrongLabel(row["segment_id"], float(row["start_time_seconds"]), float(row["end_time_seconds"]), row["label"])
        for row in rows
    ]
    assert list(read_strong(timed)) == expected
    assert read_strong(timed).segment_ids == ("s9d-2nhuJCQ_30000", "-_b-7bsDz1U_0")


@pytest.mark.parametrize("name", ["timed", "framed"])
def test_a_table_comes_back_to_the_byte(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    write_strong(tmp_path / "again.tsv", read_strong(path))
    assert (tmp_path / "again.tsv").read_bytes() == path.read_bytes()


def test_tables_of_many_chunks_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(500)
    write_strong(tmp_path / "many.tsv", table)
    monkeypatch.setattr("audioset.dataset.lists.strict_rows.CHUNK_BYTES", 1_000)
    assert list(read_strong(tmp_path / "many.tsv")) == list(table)


def test_a_table_without_rows_is_read(tmp_path: Path) -> None:
    table = read_strong(write(tmp_path / "none.tsv", ()))
    assert (len(table), table.segment_ids, list(strong_events(table))) == (0, (), [])
    assert len(strong_to_segments(table)) == 0


def test_ids_are_split_at_their_last_underscore() -> None:
    assert split_segment_id("_b-7_sDz1U__30000") == ("_b-7_sDz1U_", 30.0)
    assert split_segment_id("--PJHxphWEs_239800") == ("--PJHxphWEs", 239.8)
    for text in ("s9d-2nhuJCQ", "s9d_30000", "s9d-2nhuJCQ_", "s9d-2nhuJCQ_3.5"):
        with pytest.raises(UsageError, match="is no clip's id; expected 11 characters"):
            split_segment_id(text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((ROWS[0].replace("\t", " "),), "line 2: there are no tabs"),
        ((ROWS[0], ROWS[1] + "\r"), "line 3: the line ends as on Windows"),
        ((ROWS[0], "#NAME?\t1\t2\t" + SPEECH), "line 3: the id is a spreadsheet's error"),
        ((ROWS[0].replace("7.237", "soon"),), "line 2: a time, the label or a column is not as published"),
        ((FRAMED[0],), "line 2: a time, the label or a column is not as published"),
        ((ROWS[0].replace("_30000", ""),), "line 2: it is no row"),
        ((ROWS[0], ROWS[1], ROWS[2].replace(SPEECH, "Speech")), "line 4: the label 'Speech' is unknown"),
        ((ROWS[0].replace("7.237", "2.000"),), "line 2: it begins at 2.627 s and ends at 2 s"),
        ((ROWS[0], ""), "line 3: the line is empty"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(rows: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_strong(write(tmp_path / "strong.tsv", rows))


def test_a_table_cut_within_a_row_is_refused(timed: Path) -> None:
    timed.write_bytes(timed.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"line 4: the file ends within a row.*data fetch strong"):
        read_strong(timed)


def test_frames_need_one_of_two_words(framed: Path) -> None:
    framed.write_text(framed.read_text().replace("NOT_PRESENT", "MAYBE"))
    with pytest.raises(DataError, match=r"line 5: .*PRESENT or NOT_PRESENT"):
        read_strong(framed)


@pytest.mark.parametrize("header", ["segment_id\tstart\tend\tlabel", "", HEADER.replace("\t", ","), "\xe9"])
def test_another_header_is_refused(header: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: .*expected 'segment_id"):
        read_strong(write(tmp_path / "strong.tsv", ROWS, header))


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.tsv cannot be read"):
        read_strong(tmp_path / "nothing.tsv")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_strong(tmp_path / "file" / "strong.tsv", random_table(1))


def test_display_names_are_read_as_published(tmp_path: Path) -> None:
    path = tmp_path / "mid_to_display_name.tsv"
    path.write_text("".join(f"{i}\t{name}\n" for i, name in zip(LABELS.ids, LABELS.names, strict=True)))
    assert read_display_names(path) == LABELS
    path.write_text("/m/09x0r\tSpeech\nSpeech\n")
    with pytest.raises(DataError, match="line 2: 'Speech'; expected an id, a tab and a name"):
        read_display_names(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_display_names(tmp_path)


def test_a_clip_is_found_by_its_id(timed: Path) -> None:
    table = read_strong(timed)
    assert list(table.clip("s9d-2nhuJCQ_30000")) == [table[0], table[2]]
    assert table[1:].segment_ids == ("s9d-2nhuJCQ_30000", "-_b-7bsDz1U_0")
    with pytest.raises(UsageError, match="there is no clip 's9d-2nhuJCQ'"):
        table.clip("s9d-2nhuJCQ")


# ---- the labels


def test_the_map_has_the_published_counts() -> None:
    classes = map_strong_labels()
    assert Counter(entry.relation for entry in classes) == {"same": 370, "renamed": 12, "ontology": 42, "none": 32}
    by_id = {entry.label_id: entry for entry in classes}
    assert (by_id[BICYCLE].label, by_id[BICYCLE].other_name) == ("Bicycle, tricycle", "Bicycle")
    assert by_id[WASHING].relation == "none"
    assert by_id[SPEECH].label_index == 0
    brief_tone = next(entry for entry in classes if entry.label == "Brief tone")
    assert brief_tone.relation == "none"  # the ontology's class of this name has another id


def test_labels_of_the_ontology_have_the_nearest_above_them() -> None:
    by_name = {entry.label: entry for entry in map_strong_labels()}
    bird = LabelSet.load("audioset-527").ids[LabelSet.load("audioset-527").index("Bird")]
    assert by_name["Gull, seagull"].above == (bird,)
    assert by_name["Human voice"].above == ()
    known = set(LabelSet.load("audioset-527").ids)
    assert all(known.issuperset(entry.above) for entry in by_name.values())


# ---- frames


def test_an_event_has_each_frame_it_reaches_into() -> None:
    def frames(start_s: float, end_s: float, hop_s: float = 1.0) -> list[int]:
        event = Event(start_s, end_s, SPEECH, "Speech", 1, 1)
        is_heard = events_to_frames([event], LABELS, hop_s=hop_s)
        assert not np.delete(is_heard, LABELS.index(SPEECH), axis=1).any()
        return np.flatnonzero(is_heard[:, LABELS.index(SPEECH)]).tolist()

    assert frames(2.0, 4.0) == [2, 3]
    assert frames(2.5, 4.1) == [2, 3, 4]
    assert frames(9.9, 30) == [9]
    assert frames(-3, 0.5) == [0]
    assert frames(20, 30) == []
    assert frames(3, 3) == []
    assert frames(0.96, 1.92, 0.96) == [1]
    assert frames(0.1 * 3, 0.1 * 6, 0.1) == [3, 4, 5]


def test_frames_agree_with_a_sum_over_milliseconds() -> None:
    table = random_table(20)
    for segment_id in table.segment_ids:
        rows = table.clip(segment_id)
        expected = np.zeros((11, len(LABELS)), bool)
        for row in rows:
            ms = np.arange(round(row.start_s * 1000), round(row.end_s * 1000))
            expected[np.unique(ms // 960), LABELS.index(row.label_id)] = True
        np.testing.assert_array_equal(events_to_frames(rows, LABELS), expected)


def test_events_with_other_labels_have_no_frames() -> None:
    weak = LabelSet.load("audioset-527")
    assert not events_to_frames([Event(0, 10, WASHING, "", 1, 1)], weak).any()


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_frames_without_length_are_refused(value: float) -> None:
    with pytest.raises(UsageError, match=r"hop_s is .*expected seconds above 0"):
        events_to_frames([], LABELS, hop_s=value)
    with pytest.raises(UsageError, match=r"duration_s is .*expected seconds above 0"):
        events_to_frames([], LABELS, duration_s=value)


def test_framed_rows_become_an_array_and_come_back(framed: Path, tmp_path: Path) -> None:
    table = read_strong(framed)
    arrays = {segment_id: strong_to_frames(table, segment_id) for segment_id in table.segment_ids}
    first = arrays["s9d-2nhuJCQ_30000"]
    assert first.shape == (11, 456)
    assert first[:4, LABELS.index(CHEERING)].tolist() == [1, 1, 0, 1]
    assert first[10, LABELS.index(SPEECH)] == -1
    assert np.count_nonzero(first) == 4
    back = frames_to_strong(arrays, LABELS, duration_s=10)
    write_strong(tmp_path / "back.tsv", back)
    assert sorted((tmp_path / "back.tsv").read_text().splitlines()) == sorted(framed.read_text().splitlines())


def test_what_are_no_frames_is_refused(framed: Path, timed: Path) -> None:
    with pytest.raises(UsageError, match="the table has times, not frames"):
        strong_to_frames(read_strong(timed), "s9d-2nhuJCQ_30000")
    with pytest.raises(UsageError, match=r"a row from 0\.96 to 1\.92 s, which is no frame of 0\.5 s"):
        strong_to_frames(read_strong(framed).take([1, 2]), "s9d-2nhuJCQ_30000", hop_s=0.5)
    with pytest.raises(UsageError, match=r"expected \(n_frames, 456\) of -1, 0 and 1"):
        frames_to_strong({"s9d-2nhuJCQ_30000": np.full((2, 456), 2, np.int8)}, LABELS)
    with pytest.raises(UsageError, match=r"have shape \(2, 527\)"):
        frames_to_strong({"s9d-2nhuJCQ_30000": np.zeros((2, 527), np.int8)}, LABELS)


# ---- other forms


def test_events_are_by_onset_and_may_count_from_the_start_of_the_video(timed: Path) -> None:
    table = read_strong(timed)
    relative = dict(strong_events(table))
    assert [event.label for event in relative["s9d-2nhuJCQ_30000"]] == ["Speech", "Cheering"]
    absolute = dict(strong_events(table, is_absolute=True))["s9d-2nhuJCQ_30000"][1]
    assert (absolute.start_s, absolute.end_s) == pytest.approx((32.627, 37.237))


def test_frames_that_touch_become_one_event(framed: Path) -> None:
    events = dict(strong_events(read_strong(framed)))
    assert [(event.start_s, event.end_s) for event in events["s9d-2nhuJCQ_30000"]] == [(0, 1.92), (2.88, 3.84)]
    assert events["_x_y_z_1234_30000"] == ()


def test_clips_get_the_labels_heard_in_them(timed: Path, framed: Path) -> None:
    assert list(strong_to_segments(read_strong(timed))) == [
        Segment("s9d-2nhuJCQ", 30, 40, (CHEERING, SPEECH)),
        Segment("-_b-7bsDz1U", 0, 10, (WASHING,)),
    ]
    ends = SegmentList.of([Segment("s9d-2nhuJCQ", 30, 37.5, (SPEECH,))])
    assert strong_to_segments(read_strong(timed), ends)[0].end_s == 37.5
    assert list(strong_to_segments(read_strong(framed))) == [Segment("s9d-2nhuJCQ", 30, 40, (CHEERING,))]


# ---- the command


def test_stats_count_frames_and_labels(timed: Path, framed: Path) -> None:
    record = json.loads(run("stats", timed, "--json").stdout)
    assert (record["n_clips"], record["n_rows"], record["n_labels"]) == (2, 3, 3)
    assert {row["label_id"]: row["duration_s"] for row in record["labels"]} == {
        CHEERING: 4.61,
        WASHING: 10,
        SPEECH: 0.96,
    }
    text = run("stats", framed).stdout.decode()
    assert "n_present      3" in text
    assert "n_not_present  2" in text


def test_the_map_can_be_printed() -> None:
    lines = run("map").stdout.decode().splitlines()
    assert lines[0] == "370 among the 527, with the same name"
    assert len(lines) == 4 + 12 + 42 + 32
    assert len(json.loads(run("map", "--json").stdout)) == 456


def test_convert_writes_dcase_events(timed: Path, tmp_path: Path) -> None:
    result = run("convert", timed, "--format", "dcase", "--suffix", ".wav", "--output", tmp_path / "out.tsv")
    assert result.returncode == 0, result.stderr.decode()
    assert (tmp_path / "out.tsv").read_text().splitlines() == [
        "filename\tonset\toffset\tevent_label",
        "s9d-2nhuJCQ_30000.wav\t0\t0.96\tSpeech",
        "s9d-2nhuJCQ_30000.wav\t2.627\t7.237\tCheering",
        "-_b-7bsDz1U_0.wav\t0\t10\tWashing machine",
    ]


def test_convert_writes_one_clip_for_audacity(timed: Path) -> None:
    result = run("convert", timed, "--format", "audacity", "--clip=s9d-2nhuJCQ_30000", "--absolute")
    assert result.stdout.decode().splitlines()[1].split("\t")[:2] == ["32.627000", "37.237000"]
    refused = run("convert", timed, "--format", "audacity")
    assert refused.returncode == 2
    assert b"describes one recording, and the table has 2 clips" in refused.stderr


def test_convert_writes_a_list_of_clips_with_the_527(timed: Path, tmp_path: Path) -> None:
    run("convert", timed, "--format", "segments", "--labels", "audioset-527", "--output", tmp_path / "clips.csv")
    assert list(read_segments(tmp_path / "clips.csv")) == [Segment("s9d-2nhuJCQ", 30, 40, (CHEERING, SPEECH))]


def test_convert_to_its_own_format_changes_no_event(timed: Path, tmp_path: Path) -> None:
    run("convert", timed, "--format", "audioset-strong", "--output", tmp_path / "again.tsv")
    again = read_strong(tmp_path / "again.tsv")
    assert {*again} == {*read_strong(timed)}
    picked = run("convert", timed, "--format", "audioset-strong", "--clip", "-_b-7bsDz1U_0")
    assert picked.stdout.decode().count("\n") == 2
