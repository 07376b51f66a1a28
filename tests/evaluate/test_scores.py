"""Scores and labels: which clips are compared, and where labels and scores come from."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scored import ALL, FEW, QUICK, clip_names, random_pair

from audioset import LabelSet
from audioset.dataset.download.clips import names_digest
from audioset.dataset.features.reading import ClipArrays, FeatureClip, read_arrays
from audioset.dataset.lists.segments import Segment, read_segments, write_segments
from audioset.errors import AudioError, DataError, NoInputError, UsageError
from audioset.evaluate import (
    Scores,
    Targets,
    evaluate_scores,
    find_audio,
    read_targets,
    score_audio,
    score_features,
)
from audioset.evaluate.clips import NOT_THERE, join
from audioset.evaluate.sources import feature_names, feature_targets, segment_targets
from audioset.reports import evaluation as evaluation_report

# ---- Which clips


@pytest.mark.parametrize(
    ("clip_id", "row"),
    [
        ("--4gqARaEJE_0_10000", 0),
        ("--4gqARaEJE", 0),
        ("--4gqARaEJE_0", 0),
        ("Y--4gqARaEJE", 0),
        ("audio/eval/bd/--4gqARaEJE_0_10000.flac", 0),
        ("Y--4gqARaEJE.wav", 0),
        ("Yab_cdEFGHI", 1),
        ("ab_cdEFGHI1_30.000", 1),
        ("ab_cdEFGHI1_30.000.wav", 1),
        ("ab_cdEFGHI1_30000", 1),
        ("ab_cdEFGHI1_30-40.ogg", 1),
        ("ab_cdEFGHI1_31000", NOT_THERE),
        ("ab_cdEFGHI1_30000_39000", 1),  # as in some released features
        ("ab_cdEFGHI1_31000_40000", NOT_THERE),
        ("AB_cdEFGHI1", NOT_THERE),
        ("", NOT_THERE),
        ("dog.wav", NOT_THERE),
    ],
)
def test_names_that_tools_give_a_clip_mean_it(clip_id, row):
    names = ("--4gqARaEJE_0_10000", "ab_cdEFGHI1_30000_40000")
    if clip_id == "Yab_cdEFGHI":  # an id of its own, of eleven characters, before it is a name of PANNs
        names = (names[0], "Yab_cdEFGHI_0_10000")
    assert Targets(names, FEW, np.zeros((2, 6), bool), "list").find(clip_id) == row


def test_a_video_with_two_clips_is_not_enough_to_name_one():
    targets = Targets(("ab_cdEFGHI1_0_10000", "ab_cdEFGHI1_20000_30000"), FEW, np.zeros((2, 6), bool), "list")
    assert targets.find("ab_cdEFGHI1") == NOT_THERE
    assert targets.find("ab_cdEFGHI1_20000") == 1


def test_paths_of_recordings_are_names_too():
    targets = Targets(("a/x.wav", "b/x.wav"), FEW, np.zeros((2, 6), bool), "table")
    assert [targets.find(name) for name in ("b/x.wav", "./a/x.wav", "x.wav")] == [1, 0, NOT_THERE]


def test_clips_are_joined_by_name_and_sorted():
    scores, targets = random_pair(8)
    order = np.array([5, 0, 7, 2])
    mixed = replace(scores, clip_ids=tuple(scores.clip_ids[i] for i in order), values=scores.values[order])
    clips = join(mixed, targets)
    assert clips.names == tuple(sorted(mixed.clip_ids))
    np.testing.assert_array_equal(clips.scores, scores.values[[0, 2, 5, 7]])
    np.testing.assert_array_equal(clips.targets, targets.values[[0, 2, 5, 7]])
    assert clips.missing == {targets.names[i]: "no_scores" for i in (1, 3, 4, 6)}
    assert clips.n_extra == 0


def test_scores_without_labels_are_extra_and_failures_have_their_reason():
    scores, targets = random_pair(6)
    some = Targets(targets.names[1:5], FEW, targets.values[1:5], "list")
    scores = replace(
        scores, clip_ids=scores.clip_ids[2:], values=scores.values[2:], failures={scores.clip_ids[1]: "truncated"}
    )
    clips = join(scores, some)
    assert (len(clips.names), clips.n_extra, clips.missing) == (3, 1, {targets.names[1]: "truncated"})


def test_classes_are_joined_by_id():
    scores, targets = random_pair(9)
    order = [4, 1, 3]
    other = LabelSet((*FEW.select(order).ids, "/m/none"), (*FEW.select(order).names, "None"))
    values = np.column_stack([scores.values[:, order], np.zeros(9)])
    clips = join(Scores("m", scores.clip_ids, other, values), targets)
    assert clips.labels == FEW.select([1, 3, 4])
    np.testing.assert_array_equal(clips.scores, scores.values[:, [1, 3, 4]])
    assert clips.only_in_scores == ("/m/none",)
    assert clips.only_in_targets == FEW.select([0, 2, 5]).ids


def test_yamnet_is_evaluated_on_the_classes_that_it_has():
    rng = np.random.default_rng(0)
    names = clip_names(12)
    scores = Scores("yamnet", names, LabelSet.load("yamnet-521"), rng.random((12, 521)))
    targets = Targets(names, ALL, rng.random((12, 527)) < 0.1, "list.csv")
    evaluation, clips = evaluate_scores(scores, targets, QUICK)
    assert (evaluation.metrics["n_classes"], len(clips.labels)) == (521, 521)
    assert len(evaluation.classes_left_out["only_in_labels"]) == 6
    assert evaluation.classes_left_out["only_in_model"] == []
    text = " ".join(evaluation_report.summary_lines(evaluation))
    assert "Evaluated on the 521 classes that model and labels share. Left out: 6 only in the labels." in text


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: replace(s, clip_ids=("a", *s.clip_ids[1:])), None, ""),
        (
            lambda s: replace(s, clip_ids=("nothing",) * 4),
            UsageError,
            "none of the 4 clips .* 'nothing'.* another subset",
        ),
        (
            lambda s: replace(s, clip_ids=(s.clip_ids[1], f"x/{s.clip_ids[1]}.wav", *s.clip_ids[2:])),
            DataError,
            r"more than once: as clip0000001_1000_11000 and as x/clip0000001_1000_11000\.wav",
        ),
        (lambda s: replace(s, labels=ALL.select(range(20, 26))), UsageError, "no class is in all of them"),
        (
            lambda s: Scores("m", (), FEW, np.zeros((0, 6)), {"a": "no_file"}),
            UsageError,
            r"no scores at all \(no_file\)",
        ),
    ],
)
def test_what_cannot_be_joined(change, error, message):
    scores, targets = random_pair(4)
    if error is None:
        assert len(join(change(scores), targets).names) == 3
        return
    with pytest.raises(error, match=message):
        join(change(scores), targets)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 6), np.nan), "the clip clip0000000_0_10000 has the score NaN for Speech"),
        (np.zeros((3, 6)), r"shape \(3, 6\) for 4 clips"),
        (np.zeros((4, 5)), "5 classes, and 6 labels"),
        (np.zeros(4), r"shape \(4,\) for 4 clips"),
        (np.zeros((4, 6), complex), "dtype complex128"),
    ],
)
def test_scores_that_are_none(values, message):
    with pytest.raises(DataError, match=message):
        Scores("m", clip_ids=clip_names(4), labels=FEW, values=values)


def test_one_nan_among_infinities_is_found():
    values = np.zeros((4, 6))
    values[1, 2], values[2, 3], values[3, 4] = np.inf, np.nan, -np.inf
    with pytest.raises(DataError, match=f"clip0000002_.* NaN for {FEW.names[3]}"):
        Scores("m", clip_names(4), FEW, values)
    values[2, 3] = 0
    assert Scores("m", clip_names(4), FEW, values).values.dtype == np.float32


def test_targets_with_a_clip_twice():
    with pytest.raises(DataError, match=r"list\.csv: the clip a is there twice"):
        Targets(("a", "b", "a"), FEW, np.zeros((3, 6), bool), "list.csv")


def test_targets_of_another_shape():
    with pytest.raises(UsageError, match=r"3 clips and 6 labels, and targets of shape \(2, 6\)"):
        Targets(("a", "b", "c"), FEW, np.zeros((2, 6), bool), "list.csv")


# ---- Where labels come from


def test_a_published_list_gives_names_and_labels(tmp_path):
    rows = [
        Segment("--4gqARaEJE", 0.0, 10.0, ("/m/068hy", "/m/09x0r")),
        Segment("abcdefghijk", 30.5, 40.0, ("/m/04rlf",)),
    ]
    write_segments(tmp_path / "eval_segments.csv", rows, "today")
    targets = read_targets(tmp_path / "eval_segments.csv", FEW)
    assert targets.names == ("--4gqARaEJE_0_10000", "abcdefghijk_30500_40000")
    assert targets.labels == ALL
    found = [{ALL.ids[index] for index in np.flatnonzero(row)} for row in targets.values]
    assert found == [{"/m/068hy", "/m/09x0r"}, {"/m/04rlf"}]
    assert targets.source == "eval_segments.csv"


def test_a_damaged_list_is_not_taken_for_a_table(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('"# Segments csv created today"\n#NAME?, 0.000, 10.000, "/m/09x0r"\n')
    with pytest.raises(DataError, match=r"list\.csv"):
        read_targets(path, ALL)


def test_a_table_speaks_of_the_labels_that_occur_in_it(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,label\na.wav,Speech;Music\nb.wav,\nc.wav,Male speech\\, man speaking\n".replace("\\,", ","))
    path.write_text('path,label\na.wav,Speech;Music\nb.wav,\nc.wav,"Male speech, man speaking"\n')
    targets = read_targets(path, LabelSet.load("yamnet-521"))  # which has no male speech
    assert targets.names == ("a.wav", "b.wav", "c.wav")
    assert targets.labels.names == ("Speech", "Male speech, man speaking", "Music")
    assert targets.values.tolist() == [[True, False, True], [False] * 3, [False, True, False]]


def test_an_unknown_label_in_a_table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,label\na.wav,Speach\n")
    with pytest.raises(UsageError, match=r"line 2: there is no label 'Speach' .* did you mean 'Speech'"):
        read_targets(path, ALL)


def test_labels_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv cannot be read: No such file"):
        read_targets(tmp_path / "none.csv", ALL)


def feature_clips():
    rng = np.random.default_rng(0)
    clips = [
        FeatureClip(
            f"video{index:06d}", start, start + 10, (index, 137), rng.integers(0, 256, (n, 128), np.uint8), "eval"
        )
        for index, (start, n) in enumerate([(0.0, 10), (239.8, 7), (20_000.8, 1), (30.0, 0)])
    ]
    return ClipArrays.of(clips)


def test_features_name_their_clips_to_the_millisecond():
    names = feature_names(feature_clips())
    assert names[:3] == ("video000000_0_10000", "video000001_239800_249800", "video000002_20000800_20010800")


class FirstByte:
    """Says of each class the first byte of the first embedding, times the class."""

    labels = ALL

    def __init__(self):
        self.seen = []

    def predict_embeddings(self, embeddings, lengths=None):
        self.seen.append(len(embeddings))
        return embeddings[:, 0, :1].astype(np.float32) * np.arange(527, dtype=np.float32)


def test_features_are_scored_in_blocks_and_empty_clips_left_out(monkeypatch):
    monkeypatch.setattr("audioset.evaluate.sources.CLIPS_AT_ONCE", 2)
    clips, model = feature_clips(), FirstByte()
    scores = score_features(model, clips, "head", {"name": "head"})
    assert model.seen == [2, 1]
    np.testing.assert_array_equal(scores.values[:, 3], 3.0 * clips.embeddings[:3, 0, 0])
    evaluation, joined = evaluate_scores(scores, feature_targets(clips, "features"), QUICK)
    assert evaluation.missing["counts"] == {"no_embeddings": 1}
    assert evaluation.model == {"name": "head"}
    assert joined.targets.sum(axis=1).tolist() == [2, 2, 2]


def test_released_features_and_the_published_list_name_the_same_clips(assets_folder):
    archive = assets_folder / "features.tar.gz"
    if not archive.is_file():
        pytest.skip(f"no released features: there is no {archive}")
    clips = read_arrays(archive, "eval")
    listed = segment_targets(read_segments(assets_folder / "eval_segments.csv"), "list")
    own = feature_targets(clips, "features")
    rows = [listed.find(name) for name in own.names]
    assert sorted(rows) == list(range(20_371))
    np.testing.assert_array_equal(own.values, listed.values[rows])
    assert sum(own.names[i] != listed.names[row] for i, row in enumerate(rows)) == 41  # by a second, at their ends
    joined = join(Scores("m", own.names, ALL, clips.targets().astype(np.uint8)), listed)
    assert names_digest(joined.names) == names_digest(listed.names)
    assert joined.missing == {}


def part(path, rows=None, is_last=False, error=None):
    prediction = None if rows is None else SimpleNamespace(require_scores=lambda: np.array(rows, np.float32))
    return SimpleNamespace(path=path, prediction=prediction, is_last=is_last, error=error)


def test_a_recording_scores_the_mean_over_its_patches():
    labels = FEW.select([0, 1])
    parts = [
        part("x", [[0, 1], [1, 1]]),
        part("x", [[0.5, 0]]),
        part("x", is_last=True),
        part("y", [[1, 1]]),
        part("y", is_last=True, error=AudioError("gone", code="truncated")),
        part("z", [[0.25, 0.75]]),
        part("z", is_last=True),
    ]
    told = []
    scores = score_audio(labels, parts, ("a", "b", "c"), "m", missing={"d": "no_file"}, on_part=told.append)
    assert scores.clip_ids == ("a", "c")
    np.testing.assert_allclose(scores.values, [[0.5, 2 / 3], [0.25, 0.75]], rtol=1e-6)
    assert scores.failures == {"d": "no_file", "b": "truncated"}
    assert told == parts


def test_no_recording_at_all_is_no_scores():
    assert score_audio(FEW, [], (), "m").values.shape == (0, 6)


def dataset(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_recordings_are_found_as_the_downloader_leaves_them(tmp_path):
    a, b, c = clip_names(3)
    folder = dataset(
        tmp_path,
        "ledger.sqlite",
        f"audio/eval/bd/{a}.flac",
        f"video/eval/bd/{a}.mp4",
        f"audio/.partial/x/{b}.flac",
        f"audio/eval/00/{c}.flac",
        "audio/eval/00/notes.txt",
    )
    targets = Targets((c, a, b), FEW, np.zeros((3, 6), bool), "list")
    files, missing = find_audio(folder, targets)
    assert files == {c: folder / f"audio/eval/00/{c}.flac", a: folder / f"audio/eval/bd/{a}.flac"}
    assert list(files) == [c, a]
    assert missing == {b: "no_file"}


def test_recordings_of_a_table_are_where_its_paths_say(tmp_path):
    folder = dataset(tmp_path, "a/x.wav", "b/x.wav")
    targets = Targets(("b/x.wav", "c/x.wav"), FEW, np.zeros((2, 6), bool), "table")
    assert find_audio(folder, targets) == ({"b/x.wav": folder / "b/x.wav"}, {"c/x.wav": "no_file"})


def test_two_recordings_of_one_clip_are_refused(tmp_path):
    name = clip_names(1)[0]
    dataset(tmp_path, f"old/{name}.wav", f"new/Y{name[:11]}.flac")
    with pytest.raises(DataError, match="clip0000000_0_10000 has two files"):
        find_audio(tmp_path, Targets((name,), FEW, np.zeros((1, 6), bool), "list"))


@pytest.mark.parametrize(("name", "message"), [("none", "is no folder"), (".", "has none of the 1 clips of list")])
def test_folders_without_recordings(tmp_path, name, message):
    targets = Targets(clip_names(1), FEW, np.zeros((1, 6), bool), "list")
    with pytest.raises(NoInputError, match=message):
        find_audio(tmp_path / name, targets)
