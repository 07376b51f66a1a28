"""Every format reads back what was written."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_rows import (
    BROKEN,
    DOG,
    HOSTILE,
    ROWS,
    SPEECH,
    embedding_rows,
    quantised_rows,
    strict_json,
    tsv_dicts,
    written,
)
from hypothesis import given
from hypothesis import strategies as st

from audioset.errors import AudioError, MissingExtraError, OutputError, UsageError, plain
from audioset.formats import (
    EMBED_FORMATS,
    TAG_FORMATS,
    Row,
    Tag,
    make_writer,
    open_output,
    parquet,
    printable,
)
from audioset.formats.table import clock
from audioset.text import without_apostrophe

CLEAN = 'x/a,"b"\t[bold red]c\x1b[31m\x9b31m\nd\r\u202e\\xff.wav'
CUT_OFF = plain(f"{CLEAN} is cut off")


def csv_dicts(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))


def read_parquet(data: bytes) -> Any:
    return pytest.importorskip("pyarrow.parquet").read_table(io.BytesIO(data))


# rows


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("plain é.wav", "plain é.wav"),
        (os.fsdecode(b"a\xff\x80.wav"), "a\\xff\\x80.wav"),
        ("lone \ud800.wav", "lone \\ud800.wav"),
        (Path("folder") / "tab\t.wav", str(Path("folder") / "tab\t.wav")),
    ],
)
def test_printable_escapes_only_what_is_not_text(path: str | Path, expected: str) -> None:
    assert printable(path) == expected
    assert printable(printable(path)) == expected


def test_rows_make_their_texts_printable() -> None:
    row = Row(HOSTILE, 0.0, 1.0, (), 1.0, "yamnet", (HOSTILE,))
    assert (row.path, row.warnings) == (CLEAN, (CLEAN,))
    assert (BROKEN.path, BROKEN.error) == (CLEAN, f"{plain(CLEAN)} is cut off")
    assert embedding_rows()[2].path == CLEAN


# JSON, JSON Lines


def test_json_lines_read_back() -> None:
    lines = written("jsonl", ROWS).decode("ascii").splitlines()
    first, broken, quiet, last = map(strict_json, lines)
    assert first == {
        "path": "a.wav",
        "start_s": 0.0,
        "end_s": 4.92,
        "duration_s": 4.92,
        "model": "yamnet",
        "tags": [
            {"label_id": "/m/09x0r", "label": "Speech", "score": 0.987654},
            {"label_id": "/m/0bt9lr", "label": "Dog", "score": 0.25},
        ],
        "warnings": [],
        "error": None,
    }
    assert broken["path"] == CLEAN
    assert broken["error"] == {"code": "truncated", "message": f"{plain(CLEAN)} is cut off"}
    assert (broken["tags"], broken["duration_s"]) == ([], None)
    assert (quiet["tags"], quiet["warnings"]) == ([], ["the header says 2 s"])
    assert last["path"] == "z é.wav"


@pytest.mark.parametrize("n_rows", range(len(ROWS) + 1))
def test_json_is_an_array_of_the_same_records_wherever_it_ends(n_rows: int) -> None:
    records = [strict_json(line) for line in written("jsonl", ROWS[:n_rows]).splitlines()]
    assert strict_json(written("json", ROWS[:n_rows])) == records


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(score: float) -> None:
    row = Row("a.wav", 0.0, 1.0, (Tag("/m/1", "Odd", score),), 1.0, "yamnet")
    with pytest.raises(ValueError, match="not JSON compliant"):
        written("jsonl", [row])


# CSV


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_csv_moves_no_cursor_of_a_terminal() -> None:
    stream = Terminal()
    writer = make_writer("csv", stream, TAG_FORMATS)
    writer.write(Row("a\x1b[31m\x9b2J.wav", 0.0, 1.0, (), 1.0, "yamnet"))
    writer.close()
    assert stream.getvalue().splitlines()[1] == b"a\\x1b[31m\\x9b2J.wav,0,1,,,,,yamnet,,"


def test_csv_reads_back() -> None:
    data = written("csv", ROWS)
    lines = csv_dicts(data)
    assert [(line["path"], line["rank"], line["label"], line["score"]) for line in lines] == [
        ("a.wav", "1", "Speech", "0.987654"),
        ("a.wav", "2", "Dog", "0.25"),
        (CLEAN, "", "", ""),
        ("quiet.wav", "", "", ""),
        ("z é.wav", "1", "Dog", "0.25"),
    ]
    assert lines[0] | {"rank": "", "score": ""} == {
        "path": "a.wav",
        "start_s": "0",
        "end_s": "4.92",
        "rank": "",
        "label_id": "/m/09x0r",
        "label": "Speech",
        "score": "",
        "model": "yamnet",
        "error_code": "",
        "error": "",
    }
    assert (lines[2]["error_code"], lines[2]["error"]) == ("truncated", f"{plain(CLEAN)} is cut off")
    assert b"\r\n" not in data


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_name_survives_csv_and_json_lines(path: str) -> None:
    row = Row(path, 0.0, 1.0, (Tag("/m/1", path, 0.5),), 1.0, "yamnet", error=path, error_code="x")
    (line,) = csv_dicts(written("csv", [row]))
    assert [without_apostrophe(line[name]) for name in ("path", "label", "error")] == [printable(path)] * 3
    assert not line["path"].startswith(("=", "+", "-", "@", "\t", "\r"))
    (record,) = map(strict_json, written("jsonl", [row]).splitlines())
    assert record["path"] == printable(path)


# Parquet


def test_parquet_reads_back_with_types() -> None:
    table = read_parquet(written("parquet", ROWS))
    assert {field.name: str(field.type) for field in table.schema} == {
        "path": "string",
        "start_s": "double",
        "end_s": "double",
        "rank": "int32",
        "label_id": "string",
        "label": "string",
        "score": "float",
        "model": "string",
        "error_code": "string",
        "error": "string",
        "duration_s": "double",
    }
    first, _, broken, quiet, _ = lines = table.to_pylist()
    assert [line["path"] for line in lines] == ["a.wav", "a.wav", CLEAN, "quiet.wav", "z é.wav"]
    assert (first["rank"], first["label_id"], first["duration_s"]) == (1, "/m/09x0r", 4.92)
    assert first["score"] == pytest.approx(SPEECH.score, abs=1e-7)
    assert (broken["label"], broken["score"], broken["error_code"]) == (None, None, "truncated")
    assert (quiet["label"], quiet["error"], quiet["duration_s"]) == (None, None, 1.5)


def test_parquet_has_row_groups_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow_parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "LINES_PER_GROUP", 4)
    metadata = pyarrow_parquet.ParquetFile(io.BytesIO(written("parquet", ROWS * 3))).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [4, 4, 4, 3]


@pytest.mark.parametrize("formats", [TAG_FORMATS, EMBED_FORMATS], ids=["tag", "embed"])
def test_parquet_without_rows_is_a_table_without_rows(formats: Mapping[str, Any]) -> None:
    table = read_parquet(written("parquet", [], formats))
    assert (table.num_rows, table.schema.names[0]) == (0, "path")


@pytest.mark.parametrize("formats", [TAG_FORMATS, EMBED_FORMATS], ids=["tag", "embed"])
def test_parquet_without_pyarrow_says_what_to_install(
    formats: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "audioset\[data\]"'):
        make_writer("parquet", io.BytesIO(), formats)


# Audacity, Raven


def test_audacity_labels_read_back() -> None:
    odd = Tag("/m/1", "tab\there\nand there", 0.5)
    rows = [
        Row("a.wav", 0.0, 0.96, (SPEECH, DOG), 1.2, "yamnet"),
        BROKEN,
        Row("a.wav", 0.48, 1.44, (odd,), 1.2, "yamnet"),
        Row("a.wav", 1.5, 2.46, (DOG,), 1.2, "yamnet"),  # a patch of padding alone
    ]
    lines = [line.split("\t") for line in written("audacity", rows).decode().splitlines()]
    assert lines == [
        ["0.000000", "0.960000", "Speech (0.99)"],
        ["0.000000", "0.960000", "Dog (0.25)"],
        ["0.480000", "1.200000", "tab\\there\\nand there (0.50)"],
        ["1.500000", "1.500000", "Dog (0.25)"],
    ]


def test_audacity_refuses_a_second_recording() -> None:
    with pytest.raises(UsageError, match=r"belong to one recording.*folder as --output.*or choose another format"):
        written("audacity", ROWS)


def test_raven_counts_time_through_all_recordings() -> None:
    rows = [
        Row("a.wav", 0.0, 0.96, (SPEECH, DOG), 30.0, "yamnet"),  # parts know the duration so far
        Row("a.wav", 30.72, 31.68, (DOG,), 31.5, "yamnet"),
        BROKEN,
        Row("quiet.wav", 0.0, 0.96, (), 10.0, "yamnet"),
        Row(HOSTILE, 0.48, 1.44, (DOG,), 1.2, "yamnet"),
    ]
    lines = tsv_dicts(written("raven", rows))
    times = [(float(line["Begin Time (s)"]), float(line["End Time (s)"])) for line in lines]
    assert times == [(0.0, 0.96), (0.0, 0.96), (30.72, 31.5), (41.98, 42.7)]
    assert [line["File Offset (s)"] for line in lines] == ["0.000000", "0.000000", "30.720000", "0.480000"]
    assert [line["Selection"] for line in lines] == ["1", "2", "3", "4"]
    assert lines[0] == {
        "Selection": "1",
        "View": "Spectrogram 1",
        "Channel": "1",
        "Begin Time (s)": "0.000000",
        "End Time (s)": "0.960000",
        "Low Freq (Hz)": "0.000000",
        "High Freq (Hz)": "8000.000000",
        "Begin Path": "a.wav",
        "File Offset (s)": "0.000000",
        "Label": "Speech",
        "Label ID": "/m/09x0r",
        "Confidence": "0.987654",
        "Model": "yamnet",
    }
    assert lines[3]["Begin Path"] == CLEAN.encode("ascii", "backslashreplace").decode().translate(
        {9: "\\t", 10: "\\n", 13: "\\r", 27: "\\x1b"}
    )


# embeddings


def test_npz_reads_back_without_pickle() -> None:
    rows = embedding_rows()
    with np.load(io.BytesIO(written("npz", rows, EMBED_FORMATS)), allow_pickle=False) as arrays:
        assert arrays["paths"].tolist() == ["a.wav", CLEAN, "b.wav"]
        assert arrays["errors"].tolist() == ["", "truncated: cut off", ""]
        assert arrays["model"] == "yamnet"
        np.testing.assert_array_equal(arrays["embeddings"], np.concatenate([rows[i].embeddings for i in (0, 1, 3)]))
        np.testing.assert_array_equal(arrays["start_s"], np.arange(6) * 0.48)
        np.testing.assert_array_equal(arrays["end_s"], np.arange(6) * 0.48 + 0.96)
        np.testing.assert_array_equal(arrays["recording"], [0, 0, 0, 0, 0, 2])
        assert {name: arrays[name].dtype.name for name in ("embeddings", "start_s", "recording")} == {
            "embeddings": "float32",
            "start_s": "float64",
            "recording": "int32",
        }


@pytest.mark.parametrize("n_rows", [0, 1])
def test_npz_without_embeddings_has_empty_arrays(n_rows: int) -> None:
    failed = embedding_rows()[2:3][:n_rows]
    with np.load(io.BytesIO(written("npz", failed, EMBED_FORMATS)), allow_pickle=False) as arrays:
        assert arrays["embeddings"].shape == (0, 0)
        assert (len(arrays["start_s"]), len(arrays["paths"]), len(arrays["errors"])) == (0, n_rows, n_rows)


def test_npz_of_the_same_rows_has_the_same_bytes() -> None:
    assert written("npz", embedding_rows(), EMBED_FORMATS) == written("npz", embedding_rows(), EMBED_FORMATS)


def test_npz_waits_on_the_disk_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/there/is/no/such/folder")
    with open_output(tmp_path / "e.npz") as stream:
        make_writer("npz", stream, EMBED_FORMATS).close()
    assert [path.name for path in tmp_path.iterdir()] == ["e.npz"]


def test_npz_says_when_its_temporary_files_have_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match=r"temporary files for the output: No space left.*Next step: free some space"):
        make_writer("npz", io.BytesIO(), EMBED_FORMATS)


def test_embedding_json_lines_read_back_exactly() -> None:
    rows = embedding_rows()
    records = [strict_json(line) for line in written("jsonl", rows, EMBED_FORMATS).decode("ascii").splitlines()]
    assert [record["path"] for record in records] == ["a.wav"] * 5 + [CLEAN, "b.wav"]
    broken = records.pop(5)
    assert (broken["embedding"], broken["error"]) == (None, {"code": "truncated", "message": "cut off"})
    values = np.array([record["embedding"] for record in records], np.float32)
    np.testing.assert_array_equal(values, np.concatenate([rows[i].embeddings for i in (0, 1, 3)]))
    assert [record["start_s"] for record in records] == [0.0, 0.48, 0.96, 1.44, 1.92, 2.4]
    assert (records[0]["end_s"], records[0]["duration_s"], records[0]["error"]) == (0.96, 3.0, None)


@pytest.mark.parametrize("patches_per_group", [2, 100])
def test_embedding_parquet_reads_back(patches_per_group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PATCHES_PER_GROUP", patches_per_group)
    broken, *rest = reordered = [embedding_rows()[index] for index in (2, 0, 1, 3)]
    table = read_parquet(written("parquet", reordered, EMBED_FORMATS))
    assert table.schema.names == ["path", "start_s", "end_s", "embedding", "model", "error_code", "error"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<")
    lines = table.to_pylist()
    assert [line["path"] for line in lines] == [broken.path, *["a.wav"] * 5, "b.wav"]
    assert (lines[0]["error_code"], np.isnan(lines[0]["embedding"]).all()) == ("truncated", True)
    values = np.array([line["embedding"] for line in lines[1:]], np.float32)
    np.testing.assert_array_equal(values, np.concatenate([row.embeddings for row in rest]))
    assert [line["start_s"] for line in lines[1:]] == (np.arange(6) * 0.48).tolist()


def test_embedding_parquet_of_failures_alone() -> None:
    (line,) = read_parquet(written("parquet", embedding_rows()[2:3], EMBED_FORMATS)).to_pylist()
    assert (line["embedding"], line["error"]) == ([], "cut off")


def test_only_bytes_are_quantised() -> None:
    assert [row.is_quantised for row in embedding_rows()] == [False] * 4
    assert [row.is_quantised for row in quantised_rows()] == [True, True, False, True]


def test_npz_keeps_quantised_embeddings_as_bytes() -> None:
    rows = quantised_rows()
    data = written("npz", rows, EMBED_FORMATS)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert arrays["embeddings"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["embeddings"], np.concatenate([rows[i].embeddings for i in (0, 1, 3)]))
        np.testing.assert_array_equal(arrays["recording"], [0, 0, 0, 0, 0, 2])
        assert arrays["errors"].tolist() == ["", "truncated: cut off", ""]


def test_json_lines_have_quantised_embeddings_as_integers() -> None:
    rows = quantised_rows()
    lines = written("jsonl", rows, EMBED_FORMATS).decode("ascii").splitlines()
    assert '"embedding": [0, 127, 128, 255, ' in lines[0]
    records = [strict_json(line) for line in lines]
    assert records.pop(5)["embedding"] is None
    values = [record["embedding"] for record in records]
    assert values == np.concatenate([rows[i].embeddings for i in (0, 1, 3)]).tolist()


@pytest.mark.parametrize("patches_per_group", [1, 2, 100])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 1, 3), (0, 1, 3, 2)])
def test_parquet_keeps_quantised_embeddings_as_bytes(
    patches_per_group: int, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PATCHES_PER_GROUP", patches_per_group)
    rows = [quantised_rows()[index] for index in order]
    table = read_parquet(written("parquet", rows, EMBED_FORMATS))
    embedding = table.schema.field("embedding").type
    assert (str(embedding.value_type), embedding.list_size) == ("uint8", 128)
    lines = table.to_pylist()
    (broken,) = (line for line in lines if line["error_code"])
    assert (broken["error_code"], broken["embedding"]) == ("truncated", [0] * 128)
    values = [line["embedding"] for line in lines if not line["error_code"]]
    assert values == np.concatenate([row.embeddings for row in rows if not row.error_code]).tolist()


# the table

OWN_STYLES = re.compile("\x1b\\[(0|1|2|31|36)m")


@pytest.fixture
def _colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown_in_terminal(rows: Iterable[Row]) -> str:
    terminal = Terminal()
    writer = make_writer("table", terminal, TAG_FORMATS)
    for row in rows:
        writer.write(row)
    writer.close()
    return terminal.getvalue().decode()


@pytest.mark.usefixtures("_colourful")
def test_table_of_one_recording_has_bars() -> None:
    heading, speech, dog = written("table", ROWS[:1]).decode().splitlines()
    assert heading == "a.wav  4.92 s"
    assert speech.split() == ["Speech", "█" * 39 + "▌", "0.988"]
    assert dog.split() == ["Dog", "█" * 10, "0.250"]
    assert speech.index("0.988") == dog.index("0.250")


@pytest.mark.usefixtures("_colourful")
def test_table_of_many_recordings_has_a_line_for_each_and_is_plain_in_a_pipe() -> None:
    text = written("table", ROWS[:3] * 2).decode()
    first, broken, quiet, *_ = lines = text.splitlines()
    assert len(lines) == 6
    assert first.split() == ["a.wav", "4.92", "s", "Speech", "0.99", "Dog", "0.25"]
    assert "truncated: " in broken
    assert quiet.endswith("no label reaches the threshold")
    assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.usefixtures("_colourful")
def test_table_shows_parts_with_their_times() -> None:
    starts = [0.0, 0.48, 3599.5]
    rows = [Row("a.wav", start_s, start_s + 0.96, (DOG,), 3600.0, "yamnet") for start_s in starts]
    assert written("table", rows).decode().splitlines() == [
        "a.wav",
        "  0:00.00–0:00.96    Dog 0.25",
        "  0:00.48–0:01.44    Dog 0.25",
        "  59:59.50–1:00:00.00  Dog 0.25",
    ]


@pytest.mark.parametrize("n_rows", [1, 4])
@pytest.mark.usefixtures("_colourful")
def test_no_name_can_change_the_terminal(n_rows: int) -> None:
    row = Row(HOSTILE.replace("x/", "") + "\x07", 0.0, 1.0, (Tag("/m/1", HOSTILE, 0.5),), 1.0, "yamnet")
    broken = Row.failed(HOSTILE, AudioError(HOSTILE), "yamnet")
    for rows in ([row] * n_rows, [broken] * n_rows):
        text = written("table", rows).decode()
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "[bold red]c\\x1b[31m\\x9b31m\\nd\\r\\u202e\\xff" in text
        coloured = shown_in_terminal(rows)
        assert all(char.isprintable() or char == "\n" for char in OWN_STYLES.sub("", coloured))
        assert coloured.count("\n") == text.count("\n")


@pytest.mark.usefixtures("_colourful")
def test_colour_is_for_terminals_and_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[36m" in shown_in_terminal(ROWS[:1])
    assert "\x1b[31m" in shown_in_terminal([BROKEN])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in shown_in_terminal(ROWS[:1])


@pytest.mark.usefixtures("_colourful")
def test_terminal_lines_are_cropped_to_its_width_and_pipes_get_all() -> None:
    name, tags = "n" * 100 + ".wav", tuple(Tag(f"/m/{i}", f"Label number {i}", 0.5) for i in range(9))
    rows = [Row(name, 0.0, 1.0, tags, 1.0, "yamnet")] * 3
    monochrome = OWN_STYLES.sub("", shown_in_terminal(rows))
    assert max(map(len, monochrome.splitlines())) <= 60
    assert "nnn…" in monochrome
    piped = written("table", rows).decode()
    assert name in piped
    assert "Label number 8" in piped


def test_table_for_an_old_encoding_has_no_accidents() -> None:
    stream = Terminal()
    stream.encoding = "ascii"  # type: ignore[attr-defined]
    writer = make_writer("table", stream, TAG_FORMATS)
    writer.write(ROWS[3])
    writer.close()
    assert b"z ?.wav" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "decimals", "expected"),
    [(0.48, 2, "0:00.48"), (59.999, 2, "1:00.00"), (754, 0, "12:34"), (3723.5, 2, "1:02:03.50"), (5, 0, "0:05")],
)
def test_clock(seconds: float, decimals: int, expected: str) -> None:
    assert clock(seconds, decimals) == expected
