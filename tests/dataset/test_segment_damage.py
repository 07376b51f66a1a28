"""Damaged lists of segments: refused by line and cause, and mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from segment_lists import ANIMAL, DOG, HEADER, MUSIC, ROWS, write

from audioset.dataset.lists import damage
from audioset.dataset.lists.repair import repair_segments
from audioset.dataset.lists.segments import (
    Segment,
    format_segments,
    read_segments,
    write_segments,
)
from audioset.errors import DataError
from audioset.labels.labels import LabelSet

# ---- damaged copies

DAMAGES = {
    "spreadsheet id": (
        (ROWS[0].replace("--4gqARaEJE", "#NAME?"), *ROWS[1:]),
        "line 4: the id is a spreadsheet's error",
    ),
    "spreadsheet columns": ((ROWS[0], '-_ByPmVMo_A, 20, 30," ""/m/068hy",/m/07q6cd_"'), "line 5: quotes are doubled"),
    "another program": ((ROWS[0], f"-_ByPmVMo_A,30,40,{DOG}"), "line 5: there is no blank after the commas"),
    "unquoted": ((f"-_ByPmVMo_A, 30.000, 40.000, {DOG}",), "line 4: the labels are not quoted"),
    "short times": ((f'-_ByPmVMo_A, 30, 40, "{DOG}"',), "line 4: times lack their three decimals"),
    "no id": ((f'ByPmVMo_A, 30.000, 40.000, "{DOG}"',), "line 4: the id is no id of a video"),
    "cr lf": ((ROWS[0] + "\r",), r"line 4: the line ends as on Windows"),
    "empty line": ((ROWS[0], "", ROWS[2]), "line 5: the line is empty"),
    "comment": ((ROWS[0], HEADER[2], ROWS[2]), "line 5: there is a comment among the rows"),
    "nul": ((ROWS[0][:20] + "\0" + ROWS[0][21:],), "line 4: there is a NUL byte"),
    "bad utf-8": ((ROWS[0].replace("gq", "\udcff\udcfe"),), "line 4: there are bytes that are not UTF-8"),
    "unknown label": ((ROWS[0], ROWS[1], ROWS[2].replace(MUSIC, "/m/000")), "line 6: the label '/m/000' is unknown"),
    "label name": ((ROWS[0].replace(DOG, "Dog"),), "line 4: the label 'Dog' is unknown"),
    "label twice": ((ROWS[0].replace(DOG, ANIMAL),), "line 4: the label /m/0jbk is there twice"),
    "end before start": (
        (ROWS[0], ROWS[1].replace("30.000", "20.000")),
        "line 5: the clip begins at 20.000 s and ends",
    ),
    "id twice": ((ROWS[0], ROWS[1], ROWS[0]), "line 6: the id --4gqARaEJE is in line 4, too"),
    "rows lost": (ROWS[:2], "the rows make num_ytids=2, and the header in line 2 says 3. Likely cause: a download"),
    "rows added": ((*ROWS, ROWS[0].replace("--", "AB")), "num_ytids=4, and the header in line 2 says 3.*by hand"),
    "labels lost": (
        (*ROWS[:2], ROWS[2].replace(f"{MUSIC},", "")),
        "num_unique_labels=3, and the header in line 2 says 4",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_copy_is_refused_with_line_and_cause(name: str, tmp_path: Path) -> None:
    rows, message = DAMAGES[name]
    with pytest.raises(DataError, match=message) as caught:
        read_segments(write(tmp_path / "list.csv", rows))
    assert "xpected" in str(caught.value) or "says" in str(caught.value)
    assert "ikely cause" in str(caught.value)


def test_what_is_shown_of_a_line_cannot_move_the_cursor(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it is no row|no id of a video") as caught:
        read_segments(write(tmp_path / "list.csv", ("\x1b[2J" * 100,)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_file_that_ends_within_a_row_is_cut(small: Path) -> None:
    small.write_bytes(small.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"line 6: the file ends within a row.*audioset data fetch segments"):
        read_segments(small)


def test_every_cut_of_a_list_is_refused(small: Path) -> None:
    data = small.read_bytes()
    for n_bytes in range(len(data) - 1):
        small.write_bytes(data[:n_bytes])
        with pytest.raises(DataError, match=r"small\.csv"):
            read_segments(small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: b"\xef\xbb\xbf" + data, "line 1: there is a byte order mark"),
        (lambda data: data.decode().encode("utf-16"), "line 1: the text is UTF-16"),
        (lambda data: data.replace(b"\n", b"\r\n"), "line 1: .*line ends of Windows"),
        (lambda data: data.split(b"\n", 1)[1], "line 3: the header is .*another program wrote the list anew"),
        (lambda data: data.replace(b"labels\n", b"labels,,,\n"), "a spreadsheet opened and saved the list"),
        (lambda data: b"<!DOCTYPE html>\n" + data, "line 1: the header is '<!DOCTYPE html>'.*error page"),
        (lambda data: data.replace(b"created", b"cr\xe9ated"), "line 1: the header is"),
    ],
)
def test_another_header_is_refused(change, message: str, small: Path) -> None:  # type: ignore[no-untyped-def]
    small.write_bytes(change(small.read_bytes()))
    with pytest.raises(DataError, match=message):
        read_segments(small)


def test_a_list_cut_by_a_spreadsheet_is_recognised(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "SPREADSHEET_ROWS", 5)
    write(small, ROWS[:2])
    with pytest.raises(DataError, match="a spreadsheet, which keeps 5 lines and drops the rest"):
        read_segments(small)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.csv cannot be read: No such file"):
        read_segments(tmp_path / "nothing.csv")


def test_labels_of_another_set_are_read_with_it(tmp_path: Path) -> None:
    segments = [Segment("AE5oZzfu2-E", 0, 10, ("/m/0174k2",))]
    write_segments(tmp_path / "list.csv", segments)
    assert list(read_segments(tmp_path / "list.csv", LabelSet.load("audioset-strong"))) == segments
    with pytest.raises(DataError, match="'/m/0174k2' is unknown; expected ids of these 527 labels"):
        read_segments(tmp_path / "list.csv")


# ---- mending


def spreadsheet(path: Path, official: Path, n_names: int) -> Path:
    """What a spreadsheet makes of a list: the first ids with a dash are errors, labels are columns."""
    lines = official.read_text().splitlines()
    out = [f"{line},,,".replace("# num", '"# num') for line in lines[:3]]
    for line in lines[3:]:
        video_id, start, end, labels = line.split(", ")
        if video_id.startswith("-") and n_names:
            video_id, n_names = "#NAME?", n_names - 1
        first, *others = labels.strip('"').split(",")
        cells = [video_id, f"{float(start):g}", f"{float(end):g}", f'" ""{first}"', *others]
        out.append(",".join(cells))
    path.write_text("\r\n".join(out) + "\r\n")
    return path


def test_a_list_from_a_spreadsheet_is_mended_to_the_byte(assets_folder: Path, tmp_path: Path) -> None:
    official = assets_folder / "eval_segments.csv"
    damaged = spreadsheet(tmp_path / "excel.csv", official, 310)
    with pytest.raises(DataError, match="spreadsheet"):
        read_segments(damaged)
    repair = repair_segments(damaged, official)
    assert b"".join(format_segments(repair.segments)) == official.read_bytes()
    assert repair.counts == {"id": 310, "times": 0, "labels": 0, "form": 20_371 - 310}
    assert (repair.n_rows, repair.n_added) == (20_371, 0)
    report = repair.report()
    assert report["n_id"] == 310
    assert report["rows"][0] == {"line": 4, "found": "#NAME?", "video_id": "--4gqARaEJE", "mended": ["id"]}


# What spreadsheets save of a line of a list.

SAVED = {
    "semicolons": (lambda cells: ";".join(cells).replace(".", ","), "\r\n", "utf-8-sig"),
    "tabs": ("\t".join, "\r\n", "utf-16"),
    "no blanks": (lambda cells: ",".join([*cells[:3], *(f'"{cell}"' for cell in cells[3:])]), "\n", "utf-8"),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("n_header_lines", [0, 3])
def test_what_spreadsheets_save_is_called_that_and_mended(
    name: str, n_header_lines: int, small: Path, tmp_path: Path
) -> None:
    save, end, encoding = SAVED[name]
    lines = small.read_text().splitlines()[3 - n_header_lines :]
    cells = [[cell.strip(' "') for cell in line.split(", ", 3)] for line in lines]
    saved = tmp_path / "saved.csv"
    saved.write_bytes((end.join(map(save, cells)) + end).encode(encoding))
    with pytest.raises(DataError, match=r"[Ll]ikely cause: .*spreadsheet.* data segments repair FILE OFFICIAL"):
        read_segments(saved)
    repair = repair_segments(saved, small)
    assert (repair.n_rows, repair.counts) == (3, {"id": 0, "times": 0, "labels": 0, "form": 3})
    assert list(repair.segments) == list(read_segments(small))


def test_a_sound_list_needs_no_mending(small: Path) -> None:
    repair = repair_segments(small, small)
    assert repair.mends == ()
    assert repair.n_rows == 3


def test_a_cut_list_gets_the_rows_it_lacks(small: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.csv"
    cut.write_bytes(small.read_bytes()[:-12])
    repair = repair_segments(cut, small)
    assert (repair.mends, repair.n_rows, repair.n_added) == ((), 2, 1)
    assert list(repair.segments) == list(read_segments(small))


def test_labels_that_were_lost_are_mended(small: Path, tmp_path: Path) -> None:
    damaged = write(tmp_path / "damaged.csv", (ROWS[0].replace(f"{DOG},", ""), *ROWS[1:]))
    assert [mend.parts for mend in repair_segments(damaged, small).mends] == [("labels",)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_other_encodings_are_mended(encoding: str, small: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes(small.read_text().replace("20.000", "###").encode(encoding))
    repair = repair_segments(other, small)
    assert [(mend.line_number, mend.parts) for mend in repair.mends] == [(5, ("times",))]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((ROWS[1], ROWS[0], ROWS[2]), "line 4: .*the published row there is of --4gqARaEJE"),
        ((ROWS[0].replace("10.000", "9.000"), *ROWS[1:]), "the published row there is from 0 to 10 s"),
        ((ROWS[0].replace(DOG, MUSIC), *ROWS[1:]), "line 4: .*does not have the label /m/04rlf"),
        ((*ROWS, ROWS[0]), "line 7: .*the published list ends after 3 rows"),
        (("#NAME?" + ROWS[1][11:], *ROWS[1:]), "line 4: .*does not correspond"),
    ],
)
def test_lists_that_do_not_correspond_are_not_mended(
    rows: tuple[str, ...], message: str, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        repair_segments(write(tmp_path / "other.csv", rows), small)


def test_a_file_without_rows_is_not_mended(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows to mend"):
        repair_segments(write(tmp_path / "none.csv", ()), small)
