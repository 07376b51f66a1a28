"""Evaluations: which clips are compared with which labels, what is found, and how it is reported."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from audioset import LabelSet, metrics
from audioset.calibration.fit import measure
from audioset.dataset.download.clips import names_digest
from audioset.dataset.features.reading import ClipArrays, FeatureClip, read_arrays
from audioset.dataset.lists.segments import Segment, read_segments, write_segments
from audioset.errors import AudioError, DataError, NoInputError, OutputError, UsageError
from audioset.evaluate import (
    Evaluation,
    EvaluationSettings,
    ScoreFile,
    Scores,
    Targets,
    compare,
    evaluate_scores,
    find_audio,
    read_evaluation,
    read_scores,
    read_targets,
    score_audio,
    score_features,
    write_folder,
)
from audioset.evaluate.clips import NOT_THERE, join
from audioset.evaluate.evaluation import with_training_counts
from audioset.evaluate.findings import find_confusions, measure_reliability, read_curves
from audioset.evaluate.sources import count_training_clips, feature_names, feature_targets, segment_targets
from audioset.reports import comparison as comparison_report
from audioset.reports import evaluation as evaluation_report
from audioset.reports.document import (
    Document,
    Heading,
    Paragraph,
    Picture,
    Table,
    escape_markdown,
    to_html,
    to_markdown,
)
from audioset.reports.figures import draw_ap_by_count, draw_curves, draw_reliability
from audioset.reports.svg import Svg, linear_ticks, log_ticks, place_labels, shortened

ALL = LabelSet.load("audioset-527")
FEW = ALL.select(range(6))
QUICK = EvaluationSettings(n_resamples=20)
HOSTILE = "<script>alert('1')</script>|`x`\n# [y](javascript:z) \u202e&amp;"


def clip_names(n, first=0):
    return tuple(f"clip{index:07d}_{index * 1000}_{index * 1000 + 10_000}" for index in range(first, first + n))


def random_pair(n=60, labels=FEW, seed=0, strength=1.5):
    """Targets, and scores that know something of them."""
    rng = np.random.default_rng(seed)
    values = rng.random((n, len(labels))) < 0.3
    logits = rng.normal(size=values.shape) + strength * values - 1
    names = clip_names(n)
    return Scores("model", names, labels, 1 / (1 + np.exp(-logits))), Targets(names, labels, values, "list.csv")


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


# ---- What is found


def test_an_evaluation_has_the_metrics_of_the_joined_clips():
    scores, targets = random_pair()
    evaluation, clips = evaluate_scores(scores, targets, QUICK)
    expected = metrics.evaluate(scores.values, targets.values)
    assert evaluation.metrics == expected.as_dict()
    assert [row["ap"] for row in evaluation.classes] == expected.classes.ap.tolist()
    lines = "".join(f"{name}\n" for name in sorted(targets.names))
    assert evaluation.clips_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert evaluation.n_clips == 60
    assert clips.names == targets.names


def test_the_order_of_the_rows_never_counts():
    scores, targets = random_pair()
    order = np.random.default_rng(1).permutation(60)
    mixed = replace(scores, clip_ids=tuple(scores.clip_ids[i] for i in order), values=scores.values[order])
    assert evaluate_scores(mixed, targets, QUICK)[0] == evaluate_scores(scores, targets, QUICK)[0]


def test_intervals_hold_the_number_and_narrow_with_more_clips():
    widths = []
    for n in (60, 600):
        evaluation, _ = evaluate_scores(*random_pair(n), EvaluationSettings(n_resamples=200))
        for name in ("mean_ap", "mean_auc", "d_prime"):
            low, high = evaluation.intervals[name]
            assert low < evaluation.metrics[name] < high
        for row in evaluation.classes:
            assert row["ap_interval"][0] <= row["ap"] <= row["ap_interval"][1]
        widths.append(np.diff(evaluation.intervals["mean_ap"])[0])
    assert widths[1] < widths[0] / 2


def test_without_resamples_there_are_no_intervals():
    evaluation, _ = evaluate_scores(*random_pair(), EvaluationSettings(n_resamples=0))
    assert evaluation.intervals == {}
    assert {row["ap_interval"] for row in evaluation.classes} == {None}
    assert "Intervals" not in to_html(evaluation_report.describe(evaluation))


@pytest.mark.parametrize("settings", [{"n_resamples": -1}, {"seed": -1}, {"confidence": 0}, {"confidence": 1.0}])
def test_settings_outside_their_range(settings):
    with pytest.raises(UsageError, match="expected 0 or more"):
        EvaluationSettings(**settings)


def test_clips_without_a_shared_label_cannot_be_evaluated():
    scores, targets = random_pair(5)
    with pytest.raises(UsageError, match="none of the 5 clips has a label that model knows"):
        evaluate_scores(scores, replace(targets, values=np.zeros((5, 6), bool)))


def test_records_survive_json_and_hold_no_nan(tmp_path):
    names = clip_names(4)
    targets = np.zeros((4, 6), bool)
    targets[0, 0] = targets[:, 1] = True  # AUC of 1, so d' is infinite; no negatives; no positives
    scores = np.tile(np.arange(6.0) / 6, (4, 1))
    scores[0, 0] = 1
    evaluation, clips = evaluate_scores(Scores("m", names, FEW, scores), Targets(names, FEW, targets, "l"), QUICK)
    write_folder(tmp_path / "out", evaluation.to_record(), clips, {"report.md": "x"})
    assert read_evaluation(tmp_path / "out") == evaluation
    text = (tmp_path / "out" / "evaluation.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["classes"][2]["ap"] is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "evaluation.json: "),
        (b"[]", "no record of an evaluation"),
        (b'{"kind": "audioset evaluation", "format": 2}', "no record of an evaluation in format 1"),
        (b'{"kind": "audioset evaluation", "format": 1, "other": 2}', "no record of an evaluation"),
        (None, "cannot be read"),
    ],
)
def test_records_that_are_none(tmp_path, data, message):
    if data is not None:
        (tmp_path / "evaluation.json").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_evaluation(tmp_path)


def test_confusions_count_the_highest_wrong_class_above_the_label():
    music, dog, bark, animal = (ALL.index(name) for name in ("Music", "Dog", "Bark", "Animal"))
    labels = ALL.select([music, dog, bark, animal])
    scores = np.array(
        [
            [0.9, 0.1, 0.2, 0.3],  # Dog: Music is higher, and the highest of the others
            [0.9, 0.1, 0.8, 0.3],  # Dog, Music: Bark, not Music, which it has; Music itself is higher than Bark
            [0.1, 0.9, 0.2, 0.3],  # Dog: nothing is higher
            [0.2, 0.1, 0.2, 0.3],  # Dog: Animal
            [0.5, 0.5, 0.5, 0.5],  # Dog: a tie is no confusion
        ],
        np.float32,
    )
    targets = np.array([[0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]], bool)
    found = [(c.label, c.other, c.n_clips, c.share, c.relation) for c in find_confusions(scores, targets, labels)]
    assert found == [
        ("Dog", "Music", 1, 0.2, ""),
        ("Dog", "Bark", 1, 0.2, "below"),
        ("Dog", "Animal", 1, 0.2, "above"),
    ]


@pytest.mark.parametrize(("scores", "targets"), [([[0.5]], [[1]]), ([[0.1, 0.2]], [[1, 1]]), ([[0.9, 0.2]], [[1, 0]])])
def test_there_may_be_no_confusion(scores, targets):
    labels = FEW.select(range(len(scores[0])))
    assert find_confusions(np.array(scores, np.float32), np.array(targets, bool), labels) == []


def test_reliability_by_hand():
    scores = np.array([[0.05, 1.0], [0.05, 0.95], [0.15, 0.9], [0.05, 0.0]], np.float32)
    targets = np.array([[0, 1], [1, 1], [0, 0], [0, 0]], bool)
    found = measure_reliability(scores, targets)
    assert found.n_pairs == (4, 1, 0, 0, 0, 0, 0, 0, 0, 3)
    assert found.shares[0] == pytest.approx(1 / 4)
    assert found.shares[9] == pytest.approx(2 / 3)
    assert found.shares[5] is None
    expected = (abs(0.15 - 1) + 0.15 + abs(2.85 - 2)) / 8
    assert found.calibration_error == pytest.approx(expected, rel=1e-6)
    of_classes = [measure(scores[:, i], scores[:, i] > 0.5, targets[:, i]).calibration_error for i in (0, 1)]
    assert found.calibration_error_of_classes == pytest.approx(np.mean(of_classes), rel=1e-5)


def test_logits_have_no_calibration():
    assert measure_reliability(np.array([[-1.0, 0.5]], np.float32), np.array([[0, 1]], bool)) is None


def test_curves_take_what_they_can_read(tmp_path):
    lines = [
        '{"iteration": 10, "elapsed_s": 1, "loss": 0.5, "learning_rate": 0.001}',
        '{"iteration": 20, "holdout": {"mean_ap": 0.1, "d_prime": 1}, "eval": {"mean_ap": 0.2}}',
        '{"iteration": 20, "result": {"eval": {"mean_ap": 0.2}}}',
        '{"iteration": 30, "loss": NaN, "eval": {"mean_ap": null}}',
        '{"iteration": "x"}',
        "[]",
        '{"iteration": 40, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_curves(tmp_path) == [{"iteration": 10, "loss": 0.5}, {"iteration": 20, "holdout": 0.1, "eval": 0.2}]
    assert read_curves(tmp_path / "other") == read_curves(None) == []


def test_training_clips_are_counted_by_class(tmp_path):
    rows = [Segment("aaaaaaaaaaa", 0, 10, ("/m/04rlf", "/m/09x0r")), Segment("bbbbbbbbbbb", 0, 10, ("/m/09x0r",))]
    write_segments(tmp_path / "a.csv", rows, "x")
    counts = count_training_clips([tmp_path / "a.csv", tmp_path / "a.csv"])
    assert (counts["/m/09x0r"], counts["/m/04rlf"], sum(counts.values())) == (4, 2, 6)
    evaluation, _ = evaluate_scores(*random_pair(), QUICK)
    assert with_training_counts(evaluation, counts).classes[0]["n_training_clips"] == 4


# ---- Files of scores


def test_a_folder_without_room_for_all_of_it_gets_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="file sizes are limited on POSIX only")
    evaluation, clips = evaluate_scores(*random_pair(), QUICK)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*report\.md: File too large"):
            write_folder(tmp_path / "out", evaluation.to_record(), clips, {"report.md": "x" * 500_001})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_record_has_its_name_first(tmp_path, monkeypatch):
    evaluation, clips = evaluate_scores(*random_pair(), QUICK)
    named, original = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (named.append(target.name), original(path, target))[1])
    write_folder(tmp_path / "out", evaluation.to_record(), clips, {"report.md": "x"})
    assert named == ["evaluation.json", "report.md", "scores.npz"]


def test_scores_come_back_as_they_were_written(tmp_path):
    scores, targets = random_pair()
    evaluation, clips = evaluate_scores(scores, targets, QUICK)
    for name in ("a", "b"):
        write_folder(tmp_path / name, evaluation.to_record(), clips, {})
    assert (tmp_path / "a/scores.npz").read_bytes() == (tmp_path / "b/scores.npz").read_bytes()
    for path in (tmp_path / "a", tmp_path / "a/scores.npz"):
        file = read_scores(path)
        np.testing.assert_array_equal(file.scores.values, clips.scores)
        np.testing.assert_array_equal(file.targets.values, clips.targets)
        assert file.scores.clip_ids == file.targets.names == clips.names
        assert file.scores.labels == FEW
    again, _ = evaluate_scores(file.scores, file.targets, QUICK)
    assert again.metrics == evaluation.metrics


@pytest.mark.parametrize(("n_classes", "name"), [(527, "audioset-527"), (521, "yamnet-521")])
def test_the_number_of_columns_may_say_what_they_are(tmp_path, n_classes, name):
    np.savez(tmp_path / "s.npz", scores=np.zeros((2, n_classes), np.float16), ids=np.array([b"a", b"b"]))
    file = read_scores(tmp_path / "s.npz")
    assert (file.scores.labels, file.targets, file.scores.clip_ids) == (LabelSet.load(name), None, ("a", "b"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": np.zeros((2, 527))}, r"has scores; expected an \.npz file with scores .* and ids"),
        ({"ids": np.array(["a"])}, "has ids; expected"),
        ({"scores": np.zeros((2, 527)), "ids": np.array(["a", "b", "c"])}, r"shape \(2, 527\) for 3 clips"),
        ({"scores": np.zeros((2, 500)), "ids": np.array(["a", "b"])}, "no label_ids to say what the columns are"),
        ({"scores": np.zeros(2), "ids": np.array(["a", "b"])}, "no label_ids"),
        ({"scores": np.zeros((2, 527)), "ids": np.arange(2)}, "ids has shape .* expected a row of texts"),
        ({"scores": np.full((2, 527), np.nan), "ids": np.array(["a", "b"])}, "the clip a has the score NaN for Speech"),
        ({"scores": np.zeros((1, 2)), "ids": np.array(["a"]), "label_ids": np.array(["x", "x"])}, "is there twice"),
        ({"scores": np.zeros((1, 2)), "ids": np.array(["a"]), "label_ids": np.array(["x"])}, "2 classes, and 1 labels"),
        (
            {"scores": np.zeros((1, 527)), "ids": np.array(["a"]), "targets": np.zeros((1, 527))},
            "targets of shape .* expected booleans",
        ),
    ],
)
def test_files_of_scores_that_are_none(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / "s.npz")


def test_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "s.npz", scores=np.zeros((1, 527)), ids=np.array(["a"], object), allow_pickle=True)
    with pytest.raises(DataError, match="save ids as texts"):
        read_scores(tmp_path / "s.npz")


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_files_that_are_no_archives(tmp_path, data):
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"s\.npz cannot be read"):
        read_scores(tmp_path / "s.npz")


def test_scores_that_are_not_there(tmp_path):
    with pytest.raises(NoInputError, match=r"there is no .*scores\.npz"):
        read_scores(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_folder(tmp_path / "file" / "below", {}, None, {})


# ---- Comparisons


def system(name, scores, targets=None, keep=None):
    rows = np.arange(len(scores.clip_ids)) if keep is None else np.asarray(keep)
    chosen = Scores(name, tuple(scores.clip_ids[i] for i in rows), scores.labels, scores.values[rows])
    own = targets and Targets(chosen.clip_ids, targets.labels, targets.values[rows], name)
    return ScoreFile(chosen, own)


def test_a_system_is_no_better_than_itself():
    scores, targets = random_pair()
    found = compare([system("a", scores, targets), system("b", scores)], settings=QUICK)
    for difference in found.differences[0].values():
        assert (difference.value, difference.low, difference.high, difference.share_ahead) == (0, 0, 0, 0.5)
    assert all(row["differences"] == [{"value": 0, "low": 0, "high": 0}] for row in found.classes)


def test_only_common_clips_and_classes_count():
    scores, targets = random_pair(40)
    fewer = replace(scores, labels=FEW.select([5, 2, 0]), values=scores.values[:, [5, 2, 0]])
    found = compare([system("a", scores, targets, range(30)), system("b", fewer, None, range(10, 40))], settings=QUICK)
    assert (found.n_clips, found.n_classes) == (20, 3)
    assert [(s.n_dropped_clips, s.n_dropped_classes) for s in found.systems] == [(10, 3), (10, 0)]
    expected = metrics.evaluate(scores.values[10:30][:, [0, 2, 5]], targets.values[10:30][:, [0, 2, 5]])
    assert found.systems[0].metrics == found.systems[1].metrics == expected.as_dict()
    assert found.clips_sha256 == names_digest(targets.names[10:30])
    text = " ".join(comparison_report.summary_lines(found))
    assert "a: 10 of 30 clips and 3 of 6 classes were dropped." in text


def test_a_better_system_is_ahead_and_pairing_makes_that_surer():
    scores, targets = random_pair(300, strength=1)
    better = replace(scores, values=scores.values + np.float32(0.1) * targets.values)
    found = compare(
        [system("a", scores, targets), system("b", better), system("c", scores)],
        settings=EvaluationSettings(n_resamples=200),
    )
    difference = found.differences[0]["mean_ap"]
    expected = found.systems[1].metrics["mean_ap"] - found.systems[0].metrics["mean_ap"]
    assert difference.value == pytest.approx(expected)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.share_ahead == 1
    unpaired = np.diff(found.systems[0].intervals["mean_ap"])[0]
    assert difference.high - difference.low < unpaired / 2
    assert found.differences[1]["mean_ap"].value == 0
    for index, row in enumerate(found.classes):
        assert row["differences"][0]["value"] == pytest.approx(row["ap"][1] - row["ap"][0])
        assert row["n_positives"] == targets.values[:, index].sum()


def test_differences_change_their_sign_with_the_order():
    scores, targets = random_pair()
    other = replace(scores, values=np.sqrt(scores.values[::-1]).copy())
    one, two = (
        compare(files, settings=QUICK)
        for files in (
            [system("a", scores, targets), system("b", other)],
            [system("b", other), system("a", scores, targets)],
        )
    )
    first, second = one.differences[0]["mean_auc"], two.differences[0]["mean_auc"]
    assert first.value == pytest.approx(-second.value)
    assert (first.low, first.high) == pytest.approx((-second.high, -second.low))
    assert first.share_ahead == pytest.approx(1 - second.share_ahead)


def test_a_perfect_pair_has_no_difference_of_d_prime():
    names = clip_names(6)
    targets = Targets(names, FEW, np.eye(6, dtype=bool), "list")
    file = ScoreFile(Scores("m", names, FEW, np.eye(6)), targets)
    found = compare([file, file], settings=QUICK)
    assert found.differences[0]["d_prime"].value is None
    json.dumps(found.to_record(), allow_nan=False)
    assert "–" in to_markdown(comparison_report.describe(found))


def test_labels_given_outright_come_before_those_of_the_files():
    scores, targets = random_pair()
    other = replace(targets, values=~targets.values, source="other.csv")
    found = compare([system("a", scores, targets), system("b", scores)], other, QUICK)
    assert found.systems[0].metrics == metrics.evaluate(scores.values, ~targets.values).as_dict()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s, t: [system("a", s, t)], "expected two or more"),
        (lambda s, t: [system("a", s), system("b", s)], "neither a nor another has labels"),
        (
            lambda s, t: [system("a", s, t, range(5)), system("b", s, None, range(5, 9))],
            "none of the 4 clips with scores is among the 5 with labels",
        ),
        (
            lambda s, t: [system("a", s, t), system("b", s, None, range(4)), system("c", s, None, range(5, 9))],
            "no clip has scores of all of a, b, c",
        ),
        (
            lambda s, t: [system("a", s, t), system("b", replace(s, labels=ALL.select(range(10, 16))))],
            "no class is in all of them",
        ),
        (
            lambda s, t: [system("a", s, t), system("b", s, replace(t, values=~t.values))],
            "a and b have different labels for 60 of 60 common clips, such as clip0000000_0_10000",
        ),
        (
            lambda s, t: [system("a", s, replace(t, values=np.zeros_like(t.values))), system("b", s)],
            "none of the 60 common clips has one of the 6 common labels",
        ),
    ],
)
def test_what_cannot_be_compared(make, message):
    with pytest.raises(UsageError, match=message):
        compare(make(*random_pair()), settings=QUICK)


def test_a_comparison_needs_resamples():
    scores, targets = random_pair()
    file = system("a", scores, targets)
    with pytest.raises(UsageError, match="0 resamples; expected 1 or more"):
        compare([file, file], settings=EvaluationSettings(n_resamples=0))


# ---- Reports


class Page(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.attributes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def hostile_evaluation():
    labels = LabelSet(FEW.ids, (HOSTILE, *FEW.names[1:]))
    scores, targets = random_pair(60)
    scores = replace(scores, name=HOSTILE, labels=labels, clip_ids=(HOSTILE, *scores.clip_ids[1:-1], "x"))
    targets = replace(targets, labels=labels, names=(HOSTILE, *targets.names[1:]), source=HOSTILE)
    evaluation, _ = evaluate_scores(
        replace(scores, model={"name": HOSTILE, "card": {"a": {"b": HOSTILE}}}), targets, QUICK
    )
    missing = {"n_clips": 2, "counts": {HOSTILE: 2}, "clips": {HOSTILE: HOSTILE, "x": "no_file"}}
    curves = [{"iteration": i, "loss": 1 / i, "holdout": i / 10, "eval": i / 11} for i in (1, 2, 3)]
    left_out = {"only_in_labels": [HOSTILE], "only_in_model": ["/m/09x0r"]}
    return replace(evaluation, missing=missing, curves=curves, classes_left_out=left_out)


@pytest.fixture(scope="module")
def documents():
    """A report of each kind in which every text is hostile."""
    scores, targets = random_pair()
    labels = LabelSet(FEW.ids, (HOSTILE, *FEW.names[1:]))
    targets, scores = replace(targets, labels=labels), replace(scores, labels=labels)
    other = replace(scores, values=scores.values**2 * np.linspace(0, 1, 6, dtype=np.float32))
    other = replace(other, values=np.roll(other.values, 1, axis=0))
    found = compare([system(HOSTILE, scores, targets), system("b", other), system(HOSTILE, scores)], settings=QUICK)
    return [evaluation_report.describe(hostile_evaluation()), comparison_report.describe(found)]


@pytest.mark.parametrize("index", [0, 1])
def test_a_page_runs_nothing_and_fetches_nothing(documents, index):
    text = to_html(documents[index])
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a", "form", "base", "image", "use"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("style", "src", "href", "xlink:href", "action", "srcset", "data"), (tag, name)
        assert name == "xmlns" or "://" not in (value or "")
    assert "url(" not in text
    assert "@import" not in text
    assert "\u202e" not in text
    assert "<script>alert" not in text
    assert (
        html_policy(page)
        == f"default-src 'none'; style-src '{digest_of_style(text)}'; base-uri 'none'; form-action 'none'"
    )


def html_policy(page):
    contents = [value for tag, name, value in page.attributes if tag == "meta" and name in ("http-equiv", "content")]
    return contents[contents.index("Content-Security-Policy") + 1]


def digest_of_style(text):
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"


@pytest.mark.parametrize("index", [0, 1])
def test_hostile_names_are_shown_as_they_are(documents, index):
    texts = Page(to_html(documents[index])).texts
    shown = HOSTILE.replace("\n", "\\n").replace("\u202e", "\\u202e")
    assert any(shown in text for text in texts)


@pytest.mark.parametrize("index", [0, 1])
def test_every_element_of_a_page_is_closed(documents, index):
    body = re.search(r"<main>.*</main>", to_html(documents[index]), re.DOTALL)[0]
    ElementTree.fromstring(body)  # a page whose body is also XML


@pytest.mark.parametrize("index", [0, 1])
def test_drawings_stay_within_their_frame(documents, index):
    pictures = [block for block in documents[index].blocks if isinstance(block, Picture)]
    assert len(pictures) >= 3
    for picture in pictures:
        root = ElementTree.fromstring(picture.svg.to_text())
        _, _, width, height = map(float, root.get("viewBox").split())
        assert root.get("aria-label")
        for element in root.iter():
            for name, limit in (
                ("x", width),
                ("x1", width),
                ("x2", width),
                ("cx", width),
                ("y", height),
                ("y1", height),
                ("y2", height),
                ("cy", height),
            ):
                if element.get(name) is not None:
                    assert -1 <= float(element.get(name)) <= limit + 1, (picture.caption, name, element.get(name))
            if element.get("points"):
                numbers = [float(number) for number in re.split("[ ,]", element.get("points"))]
                assert all(math.isfinite(number) for number in numbers)


@pytest.mark.parametrize("index", [0, 1])
def test_markdown_has_no_html_and_whole_tables(documents, index):
    text = to_markdown(documents[index])
    assert not re.search(r"(?<!\\)<", text)
    assert "\u202e" not in text
    for block in text.split("\n\n"):
        if block.startswith("| "):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.rstrip().split("\n")}
            assert len(widths) == 1, block
    assert not re.search(r"^## .*\n\n## ", text, re.MULTILINE)  # a heading has something below it


def test_reports_say_what_must_be_said():
    evaluation = hostile_evaluation()
    text = to_markdown(evaluation_report.describe(evaluation))
    assert evaluation.clips_sha256 in text
    assert f"| mAP | {evaluation.metrics['mean_ap']:.4f} | {evaluation.intervals['mean_ap'][0]:.4f} to" in text
    assert "## Missing clips" in text
    assert "The expected calibration error (ECE)" in text
    assert "| n_resamples | 20 |" in text
    assert "| model.card.a.b |" in text
    for row in evaluation.classes[1:]:
        assert f"| {escape_markdown(row['label'])} | {row['label_id']} | {row['n_positives']} | {row['ap']:.3f}" in text


def test_logits_are_reported_as_what_they_are():
    scores, targets = random_pair()
    evaluation, _ = evaluate_scores(replace(scores, values=scores.values * 4 - 2), targets, QUICK)
    assert evaluation.reliability is None
    assert "they are no probabilities" in to_html(evaluation_report.describe(evaluation))


def test_a_long_list_of_missing_clips_is_cut_and_says_so():
    evaluation = hostile_evaluation()
    clips = dict.fromkeys(clip_names(500), "no_scores")
    missing = {"n_clips": 500, "counts": {"no_scores": 500}, "clips": clips}
    text = to_markdown(evaluation_report.describe(replace(evaluation, missing=missing)))
    assert "The first 200 of 500 missing clips" in text
    assert "evaluation.json names all of them." in text


def test_a_table_is_shut_on_a_page_and_open_in_markdown():
    document = Document("t", "s", [Heading("h"), Table(("a", "#b"), [("x|y", "1")], "more"), Paragraph("p")])
    assert "<details><summary>more</summary>" in to_html(document)
    assert to_markdown(document) == "# t\n\ns\n\n## h\n\n### more\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n\np\n"


def test_sections_of_pictures_alone_are_left_out_of_markdown():
    document = Document("t", "s", [Heading("h"), Picture(Svg(1, 1, "x"), "c"), Heading("i"), Paragraph("p")])
    assert "## h" not in to_markdown(document)
    assert "## i" in to_markdown(document)


@pytest.mark.parametrize("text", ["`", "*a*", "_a_", "[x](y)", "<b>", "a|b", "a&b", "\\", "# a", "~a~"])
def test_markdown_of_others_is_only_text(text):
    escaped = escape_markdown(text)
    assert escaped != text
    assert escaped.replace("\\", "") == text.replace("\\", "")


def test_names_of_clips_stay_readable_in_markdown():
    assert escape_markdown("--4gqARaEJE_0_10000") == "--4gqARaEJE_0_10000"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.011, 0.042, [0.02, 0.03, 0.04]),
        (3, 3, [3]),
        (-7, 7, [-6, -4, -2, 0, 2, 4, 6]),
    ],
)
def test_linear_ticks_are_round(low, high, ticks):
    found = linear_ticks(low, high)
    if low == -7:
        assert found == pytest.approx([-5, 0, 5])
    else:
        assert found == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(50, 600, [50, 100, 200, 500]), (1, 1e6, [10**i for i in range(7)])]
)
def test_logarithmic_ticks_are_round(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_names_of_points_cover_neither_dots_nor_each_other():
    points = [(50, 50, "first"), (52, 50, "second"), (300, 50, "third"), (395, 10, "fourth")]
    placed = place_labels(points, (0, 400), [(x, y) for x, y, _ in points] + [(25, 50), (315, 50)])
    assert [(name, kind) for _, _, name, kind in placed] == [
        ("first", "halo"),
        ("third", "halo end"),
        ("fourth", "halo end"),
    ]


def test_long_names_are_cut():
    assert shortened("Speech", 100) == "Speech"
    assert shortened("x" * 100, 70) == "x" * 9 + "…"


@pytest.mark.parametrize("points", [[], [("a", 0, 0.5)]])
def test_a_cloud_of_no_points_is_not_drawn(points):
    assert draw_ap_by_count(points, "clips") is None


@pytest.mark.parametrize(
    ("curves", "n_lines"),
    [
        ([], None),
        ([{"iteration": 1, "loss": 1.0}], None),
        ([{"iteration": 1, "loss": 1.0}, {"iteration": 2, "loss": 1.0}], 1),
        ([{"iteration": i, "eval": 0.1 * i, "holdout": 0.2} for i in range(5)], 2),
    ],
)
def test_curves_are_drawn_where_there_are_two_points(curves, n_lines):
    svg = draw_curves(curves)
    assert (svg and svg.to_text().count("<polyline")) == n_lines


def test_one_class_and_one_clip_can_be_reported():
    labels = FEW.select([0])
    scores = Scores("m", ("a", "b"), labels, np.array([[0.9], [0.1]]))
    targets = Targets(("a", "b"), labels, np.array([[True], [False]]), "t")
    evaluation, _ = evaluate_scores(scores, targets, QUICK)
    assert "1.0000" in to_html(evaluation_report.describe(evaluation))
    assert isinstance(evaluation, Evaluation)
    only = draw_reliability(evaluation.reliability).to_text()
    assert only.count("<circle") == 2


def test_the_style_sheet_ships_with_the_package():
    import audioset.reports

    assert (Path(audioset.reports.__file__).parent / "page.css").read_text().count("prefers-color-scheme: dark") == 1
