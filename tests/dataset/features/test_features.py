"""The released features: every record read, where they are, and how they are written and checked."""

from __future__ import annotations

import csv
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from feature_clips import CLIPS, clip, key
from feature_files import (
    LENGTHS,
    LISTS,
    OUTPUTS,
    WRITER_OF,
    example,
    needs_extra,
    same,
    written,
)
from reference_data import ASSETS
from tfrecords import parsed, records

from audioset.cli.data_features import features as command
from audioset.dataset.features import examples as feature_examples
from audioset.dataset.features.checks import summarise, verify
from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.examples import clip_to_example, encode_clip, parse_clip
from audioset.dataset.features.framing import frame_record, read_records
from audioset.dataset.features.problems import Problems
from audioset.dataset.features.reading import FORMS, convert, read, read_arrays
from audioset.dataset.features.sequence_example import (
    sequence_example,
    varint,
)
from audioset.errors import AudioSetError, ConflictError, DataError, NoInputError, OutputError, UsageError
from audioset.labels.labels import LabelSet


@pytest.fixture(scope="session")
def archive() -> Path:
    path = ASSETS / "features.tar.gz"
    if not path.is_file():
        pytest.skip(f"no released features: there is no {path}")
    return path


@pytest.fixture(scope="session")
def released(archive: Path) -> list[FeatureClip]:
    """All released clips of the balanced and the evaluation set, read once."""
    return list(read(archive))


# Every released record


def test_all_released_clips_are_there_with_their_lengths(released: list[FeatureClip]) -> None:
    for subset, lengths in LENGTHS.items():
        assert Counter(len(each.embeddings) for each in released if each.subset == subset) == lengths


def test_all_labels_and_starts_equal_the_published_lists(released: list[FeatureClip]) -> None:
    index_of = {label_id: i for i, label_id in enumerate(LabelSet.load("audioset-527").ids)}
    listed = {}
    for subset, name in LISTS.items():
        with (ASSETS / name).open(newline="") as file:
            for video_id, start_s, _, labels in itertools.islice(csv.reader(file, skipinitialspace=True), 3, None):
                labels = tuple(sorted(index_of[label_id] for label_id in labels.split(",")))
                listed[video_id] = (subset, np.float32(start_s), labels)
    assert {each.video_id: (each.subset, each.start_s, each.labels) for each in released} == listed
    assert len(released) == len(listed) == 42_531


def test_a_clip_has_one_embedding_for_each_of_its_seconds(released: list[FeatureClip]) -> None:
    for each in released:
        assert abs(each.end_s - each.start_s - len(each.embeddings)) < 1


def test_both_parsers_read_the_same(archive: Path, released: list[FeatureClip]) -> None:
    with tarfile.open(archive, "r|gz") as shards:
        files = ((member, shards.extractfile(member)) for member in shards if member.isfile())
        payloads = (
            payload
            for member, file in itertools.islice(files, 600)
            for _, _, payload in read_records(file, member.size, "", Problems())
        )
        count = 0
        for payload, expected in zip(payloads, released, strict=False):
            assert same(parse_clip(payload, expected.subset), expected)
            count += 1
    assert count > 2000


def test_nearly_all_records_take_the_short_way(released: list[FeatureClip], archive: Path) -> None:
    n_long = sum(len(encode_labels(each.labels)) > feature_examples.MAX_USUAL_LABEL_BYTES for each in released)
    assert n_long == 5
    assert all(feature_examples._usual_clip(clip_to_example(each), None) for each in released[:500])


def encode_labels(labels: tuple[int, ...]) -> bytes:
    return b"".join(map(varint, labels))


def test_a_naive_reader_agrees(archive: Path, released: list[FeatureClip]) -> None:
    with tarfile.open(archive, "r|gz") as shards:
        member = next(member for member in shards if member.isfile())
        payloads = list(records(shards.extractfile(member).read()))
    for payload, ours in zip(payloads, released, strict=False):
        theirs = parsed(payload)
        context = {name: values for name, (_, values) in theirs["context"].items()}
        assert context["video_id"] == [ours.video_id.encode()]
        assert (context["start_time_seconds"], context["end_time_seconds"]) == ([ours.start_s], [ours.end_s])
        assert tuple(context["labels"]) == ours.labels
        frames = [value for _, (value,) in theirs["lists"]["audio_embedding"]]
        assert b"".join(frames) == ours.embeddings.tobytes()


def test_the_released_features_are_sound(archive: Path) -> None:
    report = verify(archive, [ASSETS / name for name in LISTS.values()])
    assert (report.n_clips, report.n_listed, report.is_sound) == (42_531, 42_531, True)
    assert report.n_short == 79


def test_statistics_of_the_released_features(released: list[FeatureClip]) -> None:
    summary = summarise(released)
    assert summary.n_clips == 42_531
    assert summary.subsets == {"bal_train": 22_160, "eval": 20_371}
    assert summary.n_seconds == sum(n * count for lengths in LENGTHS.values() for n, count in lengths.items())
    everything = np.concatenate([each.embeddings for each in released])
    assert summary.mean == pytest.approx(everything.mean(), abs=1e-9)
    assert summary.sd == pytest.approx(everything.std(), abs=1e-9)
    assert summary.share_0 == pytest.approx((everything == 0).mean())
    assert summary.share_255 == pytest.approx((everything == 255).mean())
    assert len(summary.n_clips_of_class) == 527
    assert min(summary.n_clips_of_class) > 0


@pytest.mark.parametrize("kind", ["parquet", "hdf5", "arrays", "tfrecord"])
def test_all_released_clips_survive_a_round_trip(kind: str, released: list[FeatureClip], tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind].removesuffix(".gz")
    assert FORMS[kind].write(path, released) == 42_531
    again = {each.video_id: key(each) for each in read(path)}
    assert again == {each.video_id: key(each) for each in released}


def test_arrays_of_a_subset(archive: Path, released: list[FeatureClip]) -> None:
    arrays = read_arrays(archive, "eval")
    expected = [each for each in released if each.subset == "eval"]
    assert arrays.embeddings.shape == (20_371, 10, 128)
    assert arrays.lengths.tolist() == [len(each.embeddings) for each in expected]
    assert arrays.video_ids.tolist() == [each.video_id.encode() for each in expected]
    assert arrays.targets().sum() == 51_804
    for i in (0, 4095, 4096, 20_370):
        assert same(arrays.clip(i), expected[i])
        assert not arrays.embeddings[i, arrays.lengths[i] :].any()


# Where they are


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_every_form_is_read_by_the_same_call(kind: str, tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind]
    assert FORMS[WRITER_OF.get(kind, kind)].write(path, CLIPS) == 3
    expected = {each.video_id: each for each in CLIPS}
    for each in read(path):
        subset = None if kind == "file" else expected[each.video_id].subset
        assert key(each)[:-1] == key(expected.pop(each.video_id))[:-1]
        assert each.subset == subset
    assert not expected
    arrays = read_arrays(path)
    assert (len(arrays), arrays.embeddings.dtype, arrays.lengths.sum()) == (3, np.uint8, 14)


@pytest.mark.parametrize("kind", [kind for kind in OUTPUTS if kind != "file"])
@pytest.mark.parametrize("name", ["bal_train", "balanced_train_segments"])
def test_one_subset_of_every_form(kind: str, name: str, tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind]
    FORMS[WRITER_OF.get(kind, kind)].write(path, CLIPS)
    assert [each.video_id for each in read(path, name)] == ["-0abcdefghi", "aBcdefghijk"]
    assert read_arrays(path, name).lengths.tolist() == [3, 1]
    with pytest.raises(NoInputError, match="no clips of unbal_train, only of bal_train, eval"):
        list(read(path, "unbal_train"))


def test_folders_files_and_globs_know_their_subset(tmp_path: Path) -> None:
    folder = written(tmp_path / "shards") / "audioset_v1_embeddings"
    assert {each.subset for each in read(folder / "eval")} == {"eval"}
    assert {each.subset for each in read(folder / "eval" / "--.tfrecord")} == {"eval"}
    assert [each.video_id for each in read(folder / "*" / "a*.tfrecord")] == ["aBcdefghijk"]
    assert len(list(read(folder / "**" / "*.tfrecord"))) == 3


def test_a_file_that_says_no_subset_is_not_taken_for_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord")
    with pytest.raises(UsageError, match=r"a\.tfrecord does not say what subset .* leave the subset out"):
        list(read(path, "eval"))


def test_clips_can_be_read_twice(tmp_path: Path) -> None:
    clips = read(written(tmp_path / "a.tar"))
    assert [key(each) for each in clips] == [key(each) for each in clips] != []


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = written(tmp_path / "shards") / "audioset_v1_embeddings" / "eval"
    (folder / "._--.tfrecord").write_bytes(b"macOS")
    (folder / "readme.txt").write_bytes(b"text")
    assert len(list(read(tmp_path / "shards"))) == 3


@pytest.mark.parametrize("name", ["nothing.tar.gz", "no*.tfrecord", "no/such/folder"])
def test_nothing_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"there is no .*; expected features\.tar\.gz as released"):
        list(read(tmp_path / name))


def test_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="has no clips; expected"):
        list(read(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(NoInputError, match=r"a\.txt has a name that says no format"):
        list(read(tmp_path / "a.txt"))


def test_an_unknown_subset_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="the subset is 'train'; expected one of bal_train, eval, unbal_train"):
        read("features.tar.gz", "train")


# Writing


def failing() -> Iterator[FeatureClip]:
    yield CLIPS[0]
    raise RuntimeError("the source fails")


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_a_failure_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind]
    with pytest.raises(RuntimeError, match="the source fails"):
        FORMS[WRITER_OF.get(kind, kind)].write(path, failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_a_full_disk_is_said_and_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    needs_extra(kind)
    resource = pytest.importorskip("resource", reason="file sizes are limited on POSIX only")
    many = [clip(f"ab{i:09d}", 10, "eval", i) for i in range(600)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*Next step: "):
            FORMS[WRITER_OF.get(kind, kind)].write(tmp_path / OUTPUTS[kind], many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["arrays", "folder"])
def test_a_folder_that_is_there_is_kept(kind: str, tmp_path: Path) -> None:
    path = tmp_path / OUTPUTS[kind]
    path.mkdir()
    FORMS[WRITER_OF.get(kind, kind)].write(path, CLIPS)  # an empty one is filled
    before = sorted(path.rglob("*"))
    with pytest.raises(ConflictError, match=r"is there already\. Next step: choose another name"):
        FORMS[WRITER_OF.get(kind, kind)].write(path, CLIPS[:1])
    assert sorted(path.rglob("*")) == before


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot convert to 'csv'; expected one of parquet, hdf5, arrays, tfrecord"):
        convert("features.tar.gz", "a.csv", "csv")


# Checks


LIST = '# a\n# b\n# c\n--4gqARaEJE, 30.000, 40.000, "{ids}"\n'
IDS = ",".join(LabelSet.load("audioset-527").ids[index] for index in (526, 0, 74))


def faults(clips: list[FeatureClip], rows: str, tmp_path: Path, name: str = "eval_segments.csv") -> dict[str, int]:
    (tmp_path / name).write_text(rows)
    path = tmp_path / "a.tar"
    report = verify(written(path, clips), [tmp_path / name])
    return {kind: count for kind, count in report.faults.items() if count}


def test_a_sound_file_has_no_faults(tmp_path: Path) -> None:
    assert faults([clip()], LIST.format(ids=IDS), tmp_path) == {}


def changed(**changes: Any) -> FeatureClip:
    names = [field.name for field in fields(FeatureClip)]
    return FeatureClip(**{**{name: getattr(clip(), name) for name in names}, **changes})


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ([changed(labels=(0, 74))], {"wrong_labels": 1}),
        ([changed(start_s=31.0)], {"wrong_times": 1, "wrong_length": 1}),
        ([changed(end_s=39.0, embeddings=clip(n_seconds=9).embeddings)], {}),
        ([changed(end_s=39.0)], {"wrong_length": 1}),
        ([changed(embeddings=clip(n_seconds=8).embeddings)], {"wrong_length": 1}),
        ([clip(), clip()], {"duplicate": 1}),
        ([clip(), changed(video_id="--unlisted-")], {"unlisted": 1}),
        ([clip(), changed(video_id="--unlisted-", subset="bal_train")], {}),
        ([changed(video_id="--unlisted-")], {"missing": 1, "unlisted": 1}),
    ],
)
def test_faults_are_counted(clips: list[FeatureClip], expected: dict[str, int], tmp_path: Path) -> None:
    found = faults(clips, LIST.format(ids=IDS), tmp_path)
    assert found == expected


def test_a_clip_in_the_wrong_shard_and_damaged_records_are_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "shards") / "audioset_v1_embeddings"
    (folder / "eval" / "--.tfrecord").rename(folder / "eval" / "zz.tfrecord")
    with (folder / "bal_train" / "aB.tfrecord").open("ab") as file:
        file.write(b"half a record")
    report = verify(tmp_path / "shards")
    assert {kind: n for kind, n in report.faults.items() if n} == {"wrong_shard": 1, "damaged": 1}
    assert "--4gqARaEJE in" in report.examples["wrong_shard"][0]
    assert "record 1 at byte" in report.examples["damaged"][0]


def test_a_changed_value_in_a_folder_of_arrays_is_found(tmp_path: Path) -> None:
    FORMS["arrays"].write(tmp_path / "arrays", CLIPS)
    assert verify(tmp_path / "arrays").is_sound
    embeddings = np.load(tmp_path / "arrays" / "embeddings.npy")
    embeddings[0, 0, 0] ^= 1
    np.save(tmp_path / "arrays" / "embeddings.npy", embeddings)
    report = verify(tmp_path / "arrays")
    assert "embeddings.npy: its values do not have the digest" in report.examples["damaged"][0]


@pytest.mark.parametrize("rows", ["a,b\n", LIST.format(ids="/m/nothing"), LIST.format(ids=IDS).replace("30.000", "x")])
def test_a_list_that_is_none_is_refused(rows: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"eval_segments\.csv, line \d: .*expected id, start, end and label ids"):
        faults([clip()], rows, tmp_path)


def test_a_list_of_another_subset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the list of eval; the subset asked for is bal_train"):
        verify(tmp_path, [tmp_path / "eval_segments.csv"], "bal_train")


# The command


def run(*arguments: object) -> SimpleNamespace:
    result = CliRunner().invoke(command, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, (SystemExit, AudioSetError)):
        raise result.exception
    code = getattr(result.exception, "exit_code", result.exit_code)
    return SimpleNamespace(code=code, out=result.stdout, err=result.stderr)


def test_info_prints_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz")
    result = run("info", path)
    assert result.code == 0
    assert "clips          3\n  bal_train    2\n  eval         1\nseconds        14\n" in result.out
    assert "1 of 10 s, 1 of 3 s, 1 of 1 s" in result.out
    summary = json.loads(run("info", path, "--subset", "eval", "--json").out)
    assert (summary["n_clips"], summary["n_seconds"], summary["lengths"]) == (1, 10, {"10": 1})


def test_verify_says_what_is_wrong_and_exits_with_3(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", [clip()])
    assert run("verify", path).out == "clips          1\nsound\n"
    (tmp_path / "eval_segments.csv").write_text(LIST.format(ids=IDS) + LIST.format(ids=IDS).replace("--4g", "-34g"))
    result = run("verify", path, "--segments", tmp_path / "eval_segments.csv")
    assert result.code == 3
    assert (
        "missing        1 clips of the list that are not there\n               -34gqARaEJE\nnot sound\n" in result.out
    )
    report = json.loads(run("verify", path, "--segments", tmp_path / "eval_segments.csv", "--json").out)
    assert (report["is_sound"], report["faults"]["missing"], report["n_listed"]) == (False, 1, 2)


def test_convert_writes_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz")
    result = run("convert", path, tmp_path / "a.h5", "--format", "hdf5", "--subset", "eval")
    assert (result.code, result.out) == (0, "")
    assert f"audioset: 1 clips in {tmp_path / 'a.h5'}" in result.err
    answer = json.loads(run("convert", path, tmp_path / "b.h5", "--format", "hdf5", "--json").out)
    assert answer == {"output": str(tmp_path / "b.h5"), "to": "hdf5", "n_clips": 3, "n_skipped": 0}


def test_convert_stops_at_damage_unless_told_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame_record(b"?") + frame_record(example()))
    assert run("convert", path, tmp_path / "b.h5", "--format", "hdf5").code == 3
    assert not (tmp_path / "b.h5").exists()
    result = run("convert", path, tmp_path / "b.h5", "--format", "hdf5", "--skip-damaged")
    assert result.code == 3
    assert "left out: " in result.err
    assert "1 clips in" in result.err
    assert len(list(read(tmp_path / "b.h5"))) == 1


def test_a_path_may_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("--.tfrecord"), [clip()])
    assert run("info", "--json", "--", "--.tfrecord").code == 0


def test_sequence_examples_keep_the_order_of_their_names() -> None:
    payload = encode_clip("a", 0.0, 1.0, (5,), [bytes(128)])
    assert list(parsed(payload)["context"]) == ["video_id", "start_time_seconds", "end_time_seconds", "labels"]
    assert parsed(sequence_example({}, {"audio": []})) == {"context": {}, "lists": {"audio": []}}
