"""Lists of segments: read, written, chosen, counted."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from segment_lists import DOG, MUSIC, ROWS, SPEECH, write

from audioset.dataset.lists.quality import read_quality
from audioset.dataset.lists.segments import (
    Segment,
    SegmentList,
    concatenate,
    first_repeat,
    format_segments,
    read_segments,
    write_segments,
)
from audioset.dataset.lists.selection import (
    Selection,
    balanced_rows,
    labels_below,
    random_ranks,
    read_video_ids,
    select,
)
from audioset.dataset.lists.statistics import Closure, count_segments
from audioset.errors import DataError, OutputError, UsageError
from audioset.labels.labels import LabelSet

LABELS = LabelSet.load("audioset-527")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MD5 = {"eval": "85e796902a4e6a0898980a55f86b55f3", "balanced_train": "0ec13c62ec25d1148b9bf3390dee8bd7"}


@pytest.fixture(scope="session")
def published(assets_folder: Path) -> dict[str, SegmentList]:
    return {name: read_segments(assets_folder / f"{name}_segments.csv") for name in MD5}


def random_segments(n_segments: int, seed: int = 0) -> SegmentList:
    rng = random.Random(seed)
    return SegmentList.of(
        Segment(
            "".join(rng.choices(ALPHABET, k=11)),
            (start_ms := rng.randrange(0, 36_000_000)) / 1000,
            (start_ms + rng.randrange(1, 10_001)) / 1000,
            tuple(sorted(rng.sample(LABELS.ids, rng.randrange(1, 6)))),
        )
        for _ in range(n_segments)
    )


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "audioset", "data", "segments", *map(os.fsencode, arguments)],
        capture_output=True,
        timeout=60,
        check=False,
    )


# ---- reading and writing


@pytest.mark.parametrize("name", MD5)
def test_the_published_lists_come_back_to_the_byte(published: dict[str, SegmentList], name: str) -> None:
    assert hashlib.md5(b"".join(format_segments(published[name]))).hexdigest() == MD5[name]


@pytest.mark.parametrize("name", MD5)
def test_clips_are_those_that_a_plain_csv_reader_finds(
    published: dict[str, SegmentList], assets_folder: Path, name: str
) -> None:
    with (assets_folder / f"{name}_segments.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if not row[0].startswith("#")]
    expected = [Segment(row[0], float(row[1]), float(row[2]), tuple(row[3].split(","))) for row in rows]
    assert list(published[name]) == expected


def test_any_list_comes_back_as_it_was(tmp_path: Path) -> None:
    segments = random_segments(2_000)
    write_segments(tmp_path / "list.csv", segments, created="today")
    found = read_segments(tmp_path / "list.csv")
    assert found == segments
    assert found.created == "today"
    assert b"".join(format_segments(found)) == (tmp_path / "list.csv").read_bytes()


def test_lists_longer_than_a_chunk_are_read_alike(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_segments(small)
    for n_bytes in (1, 50, 100, 150):
        monkeypatch.setattr("audioset.dataset.lists.strict_rows.CHUNK_BYTES", n_bytes)
        assert read_segments(small) == whole


def test_an_empty_list_can_be_written_and_read(tmp_path: Path) -> None:
    write_segments(tmp_path / "none.csv", [])
    assert list(read_segments(tmp_path / "none.csv")) == []


def test_a_last_line_without_its_end_counts(small: Path) -> None:
    whole = read_segments(small)
    small.write_bytes(small.read_bytes().removesuffix(b"\n"))
    assert read_segments(small) == whole


def test_a_segment_has_a_name_and_a_duration(small: Path) -> None:
    segment = read_segments(small)[2]
    assert segment.name == "AE5oZzfu2-E_239800"
    assert segment.duration_s == pytest.approx(10)
    assert read_segments(small)[0].name == "--4gqARaEJE_0"


def test_names_are_rounded_not_cut() -> None:
    assert Segment("AE5oZzfu2-E", 4.35, 14.35, (DOG,)).name == "AE5oZzfu2-E_4350"


def test_items_slices_and_masks_are_clips_in_order(small: Path) -> None:
    segments = read_segments(small)
    assert [segment.video_id for segment in segments[1:]] == [segments[1].video_id, segments[-1].video_id]
    assert segments.take(np.array([True, False, True])) == SegmentList.of([segments[0], segments[2]])
    assert segments != segments[:2]
    with pytest.raises(IndexError, match="out of bounds"):
        segments[3]


@pytest.mark.parametrize(
    "segment",
    [
        Segment("#NAME?", 0, 10, (DOG,)),
        Segment("AE5oZzfu2-É", 0, 10, (DOG,)),
        Segment("AE5oZzfu2-E", 10, 10, (DOG,)),
        Segment("AE5oZzfu2-E", float("nan"), 10, (DOG,)),
        Segment("AE5oZzfu2-E", 0, 10, ()),
        Segment("AE5oZzfu2-E", 0, 10, ('/m/"', DOG)),
    ],
)
def test_what_is_no_clip_is_not_written(segment: Segment, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no clip; expected an id of 11"):
        write_segments(tmp_path / "list.csv", [segment])
    assert list(tmp_path.iterdir()) == []


def test_a_second_line_cannot_hide_in_the_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one line of ASCII"):
        write_segments(tmp_path / "list.csv", [], created="today\n#")


def test_a_list_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*list\.csv"):
        write_segments(tmp_path / "file" / "list.csv", [])


def test_repeats_are_found_where_ids_begin_alike() -> None:
    def repeat(*ids: str) -> tuple[int, int] | None:
        return first_repeat(np.array([video_id.encode() for video_id in ids], "S11"))

    assert repeat("aaaaaaaabbb", "aaaaaaaaccc", "aaaaaaaaddd") is None
    assert repeat("aaaaaaaabbb", "zzzzzzzzzzz", "aaaaaaaaccc", "aaaaaaaabbb") == (0, 3)
    assert repeat() is None


# ---- choosing


def test_classes_mean_what_is_below_them_unless_exact(published: dict[str, SegmentList]) -> None:
    evaluation = published["eval"]
    below = {label_id for label_id in LABELS.ids if label_id in labels_below("Dog")}
    expected = [segment for segment in evaluation if below & set(segment.label_ids)]
    assert list(select(evaluation, Selection(any_of=("dog",)))) == expected
    exact = [segment for segment in evaluation if DOG in segment.label_ids]
    assert list(select(evaluation, Selection(any_of=(DOG,), is_exact=True))) == exact
    assert len(exact) < len(expected)


def test_all_of_asks_for_each_class(published: dict[str, SegmentList]) -> None:
    chosen = select(published["eval"], Selection(all_of=("Dog", "Speech"), is_exact=True))
    assert chosen
    assert all({DOG, SPEECH} <= set(segment.label_ids) for segment in chosen)
    either = select(published["eval"], Selection(any_of=("Dog", "Speech"), is_exact=True))
    assert len(either) > len(chosen)


def test_an_unknown_class_is_refused_with_the_nearest(small: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'Dog'"):
        select(read_segments(small), Selection(any_of=("Dogg",)))


def test_ids_choose_and_exclude(small: Path) -> None:
    segments = read_segments(small)
    chosen = select(segments, Selection(video_ids=frozenset(("--4gqARaEJE", "not there!!"))))
    assert [segment.video_id for segment in chosen] == ["--4gqARaEJE"]
    rest = select(segments, Selection(excluded_ids=frozenset(("--4gqARaEJE",))))
    assert list(rest) == list(segments)[1:]


def test_a_random_choice_depends_on_seed_and_ids_alone(published: dict[str, SegmentList]) -> None:
    evaluation = published["eval"]

    def chosen(segments: SegmentList, n: int, seed: int) -> set[str]:
        return {segment.video_id for segment in select(segments, Selection(n_random=n, seed=seed))}

    hundred = chosen(evaluation, 100, 7)
    assert len(hundred) == 100
    assert chosen(evaluation.take(np.arange(len(evaluation))[::-1]), 100, 7) == hundred
    assert hundred < chosen(evaluation, 1_000, 7)
    assert len(hundred & chosen(evaluation, 100, 8)) < 10
    assert len(chosen(evaluation, 10**9, 0)) == len(evaluation)


def test_random_ranks_are_the_documented_hash(small: Path) -> None:
    expected = hashlib.blake2b(b"--4gqARaEJE", digest_size=8, key=b"5").digest()
    assert random_ranks(read_segments(small), 5)[0] == int.from_bytes(expected, "big")


def test_a_balanced_choice_has_enough_of_each_class(published: dict[str, SegmentList]) -> None:
    balanced = published["balanced_train"]
    chosen = select(balanced, Selection(n_per_class=10, seed=3))
    counts = Counter(label for segment in chosen for label in segment.label_ids)
    assert min(counts[label_id] for label_id in LABELS.ids) == 10
    assert len(chosen) < 5_270
    ids = [segment.video_id for segment in chosen]
    order = {segment.video_id: row for row, segment in enumerate(balanced)}
    assert ids == sorted(ids, key=order.__getitem__)


def test_a_balanced_choice_takes_all_of_a_rare_class(small: Path) -> None:
    segments = read_segments(small)
    assert balanced_rows(segments, 5).tolist() == [0, 1, 2]
    assert balanced_rows(segments, 1, label_ids=[MUSIC, SPEECH]).tolist() == [2]  # the rarer class serves both
    assert balanced_rows(segments, 0).tolist() == []


def test_limits_hold_and_two_ways_of_chance_are_refused(small: Path) -> None:
    assert len(select(read_segments(small), Selection(limit=2))) == 2
    assert len(select(read_segments(small), Selection(limit=0))) == 0
    with pytest.raises(UsageError, match="n_random and n_per_class are both given"):
        Selection(n_random=1, n_per_class=1)
    with pytest.raises(UsageError, match="limit is -1"):
        Selection(limit=-1)


def test_names_in_id_files_are_read_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(
        "filename,start\n--4gqARaEJE\n# a comment\n\n-5QrBL6MzLg_60.000_70.000.wav\t60.000\n"
        'Y_B-yPmVMo_A.wav\nYYYYYYYYYYY\n__________A_30000, 3\n"quoted_id-_",1\n'
    )
    assert read_video_ids(path) == {
        "--4gqARaEJE",
        "-5QrBL6MzLg",
        "_B-yPmVMo_A",
        "YYYYYYYYYYY",
        "__________A",
        "quoted_id-_",
    }


@pytest.mark.parametrize("line", ["#NAME?", "short", "has blank", "=-4gqARaEJE"])
def test_a_line_without_an_id_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"--4gqARaEJE\n{line}\n")
    with pytest.raises(DataError, match=r"ids\.txt, line 2: .*has no id of a video"):
        read_video_ids(tmp_path / "ids.txt")


def test_id_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="expected text with an id on each line"):
        read_video_ids(tmp_path / "ids.txt")


def test_lists_are_joined_in_order(published: dict[str, SegmentList]) -> None:
    joined = concatenate(list(published.values()))
    assert list(joined) == [segment for part in published.values() for segment in part]
    with pytest.raises(UsageError, match="--4gqARaEJE is in two of the lists"):
        concatenate([published["eval"], published["eval"]])
    with pytest.raises(UsageError, match="no lists of clips"):
        concatenate([])


# ---- counting


def test_the_published_figures_hold(published: dict[str, SegmentList]) -> None:
    found = {name: count_segments(segments) for name, segments in published.items()}
    figures = {
        name: (entry.n_clips, entry.n_labels, entry.n_short, max(entry.labels_per_clip), entry.n_dash_ids)
        for name, entry in found.items()
    }
    assert figures == {"balanced_train": (22_160, 52_882, 345, 12, 459), "eval": (20_371, 51_804, 361, 11, 392)}
    for entry, most in ((found["balanced_train"], (6_244, 5_735, 860)), (found["eval"], (5_695, 5_324, 780))):
        counts = {count.label_id: count.n_clips for count in entry.classes}
        assert (counts[MUSIC], counts[SPEECH], counts["/m/07yv9"]) == most
        assert min(counts[label_id] for label_id in LABELS.ids) == 59


def test_labels_are_not_closed_under_the_ontology(published: dict[str, SegmentList]) -> None:
    closure = count_segments(concatenate(list(published.values()))).closure
    assert closure == Closure(52_665, 20_818, 26_789)


def test_classes_are_counted_with_those_below(small: Path) -> None:
    counts = {
        count.label: (count.n_clips, count.n_clips_below) for count in count_segments(read_segments(small)).classes
    }
    assert counts["Dog"] == (1, 1)
    assert counts["Animal"] == (1, 1)  # once, though the dog is an animal, too
    assert counts["Speech"] == (2, 2)
    assert counts["Human voice"] == (0, 2)


def test_quality_is_read(tmp_path: Path) -> None:
    path = tmp_path / "qa_true_counts.csv"
    path.write_text("label_id,num_rated,num_true\n/m/09x0r,10,9\n/t/dd00125,0,0\n")
    quality = read_quality(path)
    assert quality[SPEECH].share == 0.9
    assert quality["/t/dd00125"].share is None
    path.write_text("label_id,num_rated,num_true\n/m/09x0r,9,10\n")
    with pytest.raises(DataError, match="line 2: '/m/09x0r,9,10'"):
        read_quality(path)
    path.write_text("")
    with pytest.raises(DataError, match="cannot be read"):
        read_quality(path)


# ---- the command


def test_stats_answer_how_many_dogs_are_animals(assets_folder: Path) -> None:
    result = run("stats", "eval", "--classes", "Animal", "--json")
    assert result.returncode == 0, result.stderr.decode()
    classes = {row["label"]: row for row in json.loads(result.stdout)["classes"]}
    assert (classes["Dog"]["n_clips"], classes["Dog"]["n_clips_below"]) == (230, 320)
    assert (classes["Animal"]["n_clips"], classes["Animal"]["n_clips_below"]) == (698, 2_402)


def test_stats_for_people_have_the_summary(small: Path, tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text("label_id,num_rated,num_true\n/m/09x0r,10,9\n")
    result = run("stats", small, "--qa", tmp_path / "qa.csv", "--top", "1")
    assert result.returncode == 0, result.stderr.decode()
    lines = result.stdout.decode().splitlines()
    assert lines[0].split() == ["clips", "3"]
    assert len(lines) == 11
    assert "90%" in run("stats", small, "--qa", tmp_path / "qa.csv", "--classes", "Speech").stdout.decode()


def test_select_writes_a_list_that_can_be_read_again(small: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("--4gqARaEJE\n-0000000000\n")
    result = run("select", small, "--ids", tmp_path / "ids.txt", "--output", tmp_path / "out.csv")
    assert result.returncode == 0, result.stderr.decode()
    assert b"1 of 2 ids are not in the lists: -0000000000" in result.stderr
    assert b"1 of 3 clips" in result.stderr
    assert list(read_segments(tmp_path / "out.csv")) == [read_segments(small)[0]]
    excluded = run("select", small, "--exclude-ids", tmp_path / "ids.txt", "--created", "today")
    assert excluded.stdout.startswith(b"# Segments csv created today\n# num_ytids=2,")


def test_repair_writes_list_and_report(small: Path, tmp_path: Path) -> None:
    damaged = write(tmp_path / "damaged.csv", ("#NAME?" + ROWS[0][11:], *ROWS[1:]))
    result = run("repair", damaged, small, "--report", tmp_path / "report.json")
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == small.read_bytes()
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["video_id"] == "--4gqARaEJE"
    assert b"mended 1 of 3 rows (1 id, 0 times, 0 labels, 0 form), added 0" in result.stderr


def test_a_damaged_list_ends_the_command_with_code_3(tmp_path: Path) -> None:
    damaged = write(tmp_path / "-damaged.csv", ("#NAME?" + ROWS[0][11:], *ROWS[1:]))
    result = run("stats", "--", damaged)
    assert result.returncode == 3
    assert b"audioset data segments repair" in result.stderr
    assert result.stdout == b""
