"""What is written is read by the programs that it is for, with their own readers, and by the package's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from labelled import write_sound

from audioset import Event
from audioset.calibration.clips import read_label_table
from audioset.cli.data_features import features as features_command
from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.reading import convert, read
from audioset.errors import AudioError, UsageError
from audioset.formats import EMBED_FORMATS, EVENT_FORMATS, TAG_FORMATS, EmbeddingRow, EventRow, Row, Tag, make_writer
from audioset.formats.scores import read_scores
from audioset.labels.labels import LabelSet
from audioset.search.accepted import append_moments
from audioset.search.found import to_csv
from audioset.search.moments import Moment
from audioset.sounds.collection import Clip
from audioset.sounds.reading import read_collection

# Other programs warn of what is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

SPEECH = Event(0.0, 1.44, "/m/09x0r", "Speech", 0.9, 0.8)
ODD = Event(2.0, 3.0, "/m/odd", 'Dog, "big" <loud> & --> far', 0.7, 0.6)
AGAIN = Event(3.0, 3.5, "/m/09x0r", "Speech", 0.25, 0.2)
EVENTS = (SPEECH, ODD, AGAIN)
BACKENDS: list[dict[str, str]] = [{}, {"dtype_backend": "pyarrow"}, {"dtype_backend": "numpy_nullable"}]
FORMULAS = (
    "=1+1.wav",
    "+49.wav",
    "-0RWZT-miFs.wav",
    "@home.wav",
    "\ttab.wav",
    "'=quoted.wav",
    "''-x.wav",
    "'plain.wav",
)


def write(folder: Path, name: str, suffix: str, rows: Iterable[Any], formats: Mapping[str, Callable[..., Any]]) -> Path:
    path = folder / f"x{suffix}"
    with path.open("wb") as file, closing(make_writer(name, file, formats)) as writer:
        for row in rows:
            writer.write(row)
    return path


def events_of(path: str = "x.wav", **changes: Any) -> list[EventRow]:
    return [EventRow(path, EVENTS, len(EVENTS), 4.0, "yamnet", True, **changes)]


# ---- Editors


def test_crowsetta_reads_ravens_table(tmp_path: Path) -> None:
    crowsetta = pytest.importorskip("crowsetta")
    path = write(tmp_path, "raven", ".txt", events_of(high_hz=16_000.0), EVENT_FORMATS)
    table = crowsetta.formats.by_name("raven").from_file(path, annot_col="Label").df
    assert table["begin_time_s"].tolist() == [0.0, 2.0, 3.0]
    assert table["end_time_s"].tolist() == [1.44, 3.0, 3.5]
    assert table["annotation"].tolist() == [event.label for event in EVENTS]
    assert (table["low_freq_hz"].unique().tolist(), table["high_freq_hz"].unique().tolist()) == ([0.0], [16_000.0])


def test_crowsetta_reads_audacitys_labels(tmp_path: Path) -> None:
    crowsetta = pytest.importorskip("crowsetta")
    path = write(tmp_path, "audacity", ".txt", events_of(), EVENT_FORMATS)
    sequence = crowsetta.formats.by_name("aud-seq").from_file(path)
    assert sequence.start_times.tolist() == [0.0, 2.0, 3.0]
    assert sequence.end_times.tolist() == [1.44, 3.0, 3.5]
    assert sequence.labels.tolist() == [f"{event.label} ({event.score:.2f})" for event in EVENTS]


@pytest.mark.parametrize(("rate", "high"), [(16_000, "8000.000000"), (32_000, "16000.000000")])
def test_raven_draws_frames_up_to_what_the_model_hears(tmp_path: Path, rate: int, high: str) -> None:
    rows = [Row("x.wav", 0.0, 1.0, (Tag("/m/0", "Dog", 0.5),), 1.0, "m", high_hz=rate / 2)]
    for name, formats, given in (("raven", TAG_FORMATS, rows), ("raven", EVENT_FORMATS, events_of(high_hz=rate / 2))):
        heading, *lines = write(tmp_path, name, ".txt", given, formats).read_text().splitlines()
        column = heading.split("\t").index("High Freq (Hz)")
        assert {line.split("\t")[column] for line in lines} == {high}


def test_praatio_reads_textgrids(tmp_path: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid")
    path = write(tmp_path, "textgrid", ".TextGrid", events_of(), EVENT_FORMATS)
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("Speech", ODD.label)
    assert [tuple(interval) for interval in grid.getTier("Speech").entries] == [
        (0.0, 1.44, "Speech (0.90)"),
        (1.44, 3.0, ""),
        (3.0, 3.5, "Speech (0.25)"),
        (3.5, 4.0, ""),
    ]


def test_sed_eval_reads_dcases_events_of_every_label(tmp_path: Path) -> None:
    sed_eval = pytest.importorskip("sed_eval")
    labels = LabelSet.load("audioset-527")
    events = tuple(
        Event(float(row), row + 1.5, *names, 0.5, 0.5)
        for row, names in enumerate(zip(labels.ids, labels.names, strict=True))
    )
    quiet = EventRow("quiet.wav", (), 0, 1.5, "yamnet", True)
    rows = [EventRow("a b/x.wav", events, len(events), 600.0, "yamnet", True), quiet]
    found = sed_eval.io.load_event_list(str(write(tmp_path, "dcase", ".tsv", rows, EVENT_FORMATS)))
    heard = [event for event in found if event.event_label]
    assert [(event.filename, event.onset, event.offset, event.event_label) for event in heard] == [
        ("a b/x.wav", event.start_s, event.end_s, event.label) for event in events
    ]
    assert "quiet.wav" in found.unique_files


def test_captions_are_read_by_webvtt(tmp_path: Path) -> None:
    webvtt = pytest.importorskip("webvtt")
    captions = webvtt.read(str(write(tmp_path, "webvtt", ".vtt", events_of(), EVENT_FORMATS)))
    assert [(caption.start, caption.end) for caption in captions][:2] == [
        ("00:00:00.000", "00:00:01.440"),
        ("00:00:02.000", "00:00:03.000"),
    ]
    assert captions[0].text == "Speech (0.90)"


@pytest.mark.parametrize(
    ("name", "suffix"), [("audacity", ".txt"), ("raven", ".txt"), ("dcase", ".tsv"), ("csv", ".csv")]
)
def test_what_events_writes_can_be_learned_from(tmp_path: Path, name: str, suffix: str) -> None:
    path = write_sound(tmp_path / "x.wav", 4)
    table = write(tmp_path, name, suffix, events_of(str(path)), EVENT_FORMATS)
    source = tmp_path if suffix == ".txt" else table
    assert read_collection(source).clips == (
        Clip(path, ("Speech",), 0.0, 1.44),
        Clip(path, (ODD.label,), 2.0, 3.0),
        Clip(path, ("Speech",), 3.0, 3.5),
    )


# ---- pandas


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.get("dtype_backend", "numpy"))
def test_pandas_opens_every_parquet(tmp_path: Path, backend: dict[str, str]) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    failed = AudioError("cut off", code="truncated")
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    embeddings = [EmbeddingRow("x.wav", np.array([0.0, 1.0]), np.array([1.0, 2.0]), vectors, 2.0, "m")]
    clips = [feature_clip("a" * 11, 10), feature_clip("-" * 11, 3)]
    tags = [Row("x.wav", 0.0, 1.0, (Tag("/m/0", "Dog", 0.5),), 1.0, "m"), Row.failed("y.wav", failed, "m")]
    convert(write_parquet(tmp_path / "f.parquet", clips), tmp_path / "again.parquet")
    written = {
        "tags": write(tmp_path, "parquet", ".t.parquet", tags, TAG_FORMATS),
        "events": write(tmp_path, "parquet", ".e.parquet", events_of(), EVENT_FORMATS),
        "embeddings": write(
            tmp_path, "parquet", ".v.parquet", [*embeddings, EmbeddingRow.failed("y.wav", failed, "m")], EMBED_FORMATS
        ),
        "bytes": write(tmp_path, "parquet", ".b.parquet", [quantised()], EMBED_FORMATS),
        "features": tmp_path / "again.parquet",
    }
    tables = {name: pandas.read_parquet(path, **backend) for name, path in written.items()}
    for table in tables.values():
        assert str(table)  # whatever prints it looks into each cell
    assert tables["tags"]["path"].tolist() == ["x.wav", "y.wav"]
    assert tables["events"]["label"].tolist() == [event.label for event in EVENTS]
    np.testing.assert_array_equal(np.stack(tables["embeddings"]["embedding"].iloc[:2].to_list()), vectors)
    np.testing.assert_array_equal(np.stack(tables["bytes"]["embedding"].to_list()), quantised().embeddings)
    for frames, clip in zip(tables["features"]["embeddings"], clips, strict=True):
        assert b"".join(frames) == clip.embeddings.tobytes()
    assert [list(labels) for labels in tables["features"]["labels"]] == [[0, 526], [0, 526]]


def test_pandas_reads_csv_as_it_was_meant(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(write(tmp_path, "csv", ".csv", events_of("a, b.wav"), EVENT_FORMATS))
    assert table["label"].tolist() == [event.label for event in EVENTS]
    assert table["start_s"].tolist() == [0.0, 2.0, 3.0]


def quantised() -> EmbeddingRow:
    values = np.arange(256, dtype=np.uint8).reshape(2, 128)
    return EmbeddingRow("x.wav", np.array([0.0, 1.0]), np.array([1.0, 2.0]), values, 2.0, "vggish")


def feature_clip(video_id: str, n_seconds: int, start_s: float = 30.0) -> FeatureClip:
    values = np.random.default_rng(n_seconds).integers(0, 256, (n_seconds, 128), np.uint8)
    return FeatureClip(video_id, start_s, start_s + n_seconds, (0, 526), values, "eval")


def write_parquet(path: Path, clips: list[FeatureClip]) -> Path:
    from audioset.dataset.features import parquet as feature_parquet

    feature_parquet.write(path, clips)
    return path


# ---- Released features


def kongs(path: Path) -> Path:
    """A file in Kong's layout, which has neither lengths nor times, as his programs would write it."""
    x = np.random.default_rng(0).integers(1, 256, (2, 10, 128), np.uint8)
    x[1, 4:] = 0
    y = np.zeros((2, 527), np.bool_)
    y[:, 5] = True
    with h5py.File(path, "w") as file:
        file["x"], file["y"], file["video_id_list"] = x, y, np.array([b"a" * 11, b"b" * 11])
    return path


@pytest.mark.parametrize("output", ["out.tfrecord", "out.tar.gz", "out.parquet", "out.h5", "out"])
def test_features_without_times_are_converted_and_read_back(tmp_path: Path, output: str) -> None:
    if output.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    before = list(read(kongs(tmp_path / "kong.h5")))
    n_clips, _ = convert(tmp_path / "kong.h5", tmp_path / output, "arrays" if output == "out" else None)
    after = sorted(read(tmp_path / output), key=lambda clip: clip.video_id)
    assert n_clips == len(after) == 2
    for old, new in zip(before, after, strict=True):
        assert (old.video_id, old.labels) == (new.video_id, new.labels)
        np.testing.assert_array_equal(old.embeddings, new.embeddings)
        assert np.isnan([new.start_s, new.end_s]).all()


def test_kongs_programs_read_hdf5(tmp_path: Path) -> None:
    convert(kongs(tmp_path / "kong.h5"), tmp_path / "again.h5")
    with h5py.File(tmp_path / "kong.h5") as old, h5py.File(tmp_path / "again.h5") as new:
        for name in ("x", "y", "video_id_list"):  # all that his load_data asks for
            np.testing.assert_array_equal(old[name][:], new[name][:])
            assert old[name].dtype == new[name].dtype


@pytest.mark.parametrize(
    ("output", "to", "message"),
    [
        (
            "out",
            None,
            r"has a name that says no form\. Next step: a name that ends in \.parquet, \.h5, \.hdf5, \.tfrecord",
        ),
        (
            "out",
            "parquet",
            r"its readers could not tell\. Next step: a name that ends in \.parquet, such as out\.parquet",
        ),
        ("out", "hdf5", r"Next step: a name that ends in \.h5, \.hdf5, such as out\.h5"),
        ("out.parquet", "hdf5", r"--format hdf5 does not fit the name .*out\.parquet"),
        ("out.h5", "tfrecord", r"--format tfrecord does not fit the name"),
        ("out.tfrecord", "arrays", r"Next step: a folder"),
    ],
)
def test_no_output_is_written_that_could_not_be_read(tmp_path: Path, output: str, to: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert(kongs(tmp_path / "kong.h5"), tmp_path / output, to)
    assert not (tmp_path / output).exists()


def test_the_name_says_what_to_convert_to(tmp_path: Path) -> None:
    arguments = ["convert", str(kongs(tmp_path / "kong.h5")), str(tmp_path / "out.tfrecord"), "--json"]
    result = CliRunner().invoke(features_command, arguments)
    assert result.exit_code == 0, result.output
    assert '"to": "tfrecord"' in result.output


# ---- No formulas for spreadsheets


def test_no_cell_of_csv_begins_as_a_formula_and_all_are_read_back(tmp_path: Path) -> None:
    labels = LabelSet(("/m/a",), ("a",))
    rows = [Row(name, 0.0, 1.0, (Tag("/m/a", name, 0.5),), 1.0, name) for name in FORMULAS]
    path = write(tmp_path, "csv", ".csv", rows, TAG_FORMATS)
    lines = path.read_text().splitlines()[1:]
    assert not [
        cell for line in lines for cell in line.split(",") if cell.lstrip('"').startswith(("=", "+", "-", "@", "\t"))
    ]
    found = read_scores(path, labels, set(FORMULAS))
    assert [patches.path for patches in found.recordings] == list(FORMULAS)
    assert [row.path for row in read_label_rows(path)] == list(FORMULAS)
    assert [row.label for row in read_label_rows(path)] == list(FORMULAS)


def read_label_rows(path: Path) -> Any:
    from audioset.labels.tables import read_table

    return read_table(path).rows


def test_moments_of_files_that_begin_as_formulas_are_found_again(tmp_path: Path) -> None:
    moments = [Moment(name, 0.0, 1.0, 0.5) for name in FORMULAS]
    assert '\n1,"\'=1+1.wav",' in to_csv(moments)
    for _ in range(2):
        append_moments(tmp_path / "moments.csv", moments, "-owl")
    rows = read_label_rows(tmp_path / "moments.csv")
    assert [(row.path, row.label) for row in rows] == [(name, "-owl") for name in FORMULAS]


def test_calibration_reads_the_same_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", ".csv", events_of("-x.wav")[:1], EVENT_FORMATS)
    text = path.read_text().replace(ODD.label.replace('"', '""'), "Dog").replace("/m/odd", "/m/0bt9lr")
    path.write_text(text)
    assert list(read_label_table(path, LabelSet.load("yamnet-521")).sounds) == ["-x.wav"]
