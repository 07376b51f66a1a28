"""Evaluations: what is found, in which files it lies, and how systems are compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scored import ALL, FEW, QUICK, clip_names, random_pair, system

from audioset import LabelSet, metrics
from audioset.calibration.fit import measure
from audioset.dataset.download.clips import names_digest
from audioset.dataset.lists.segments import Segment, write_segments
from audioset.errors import DataError, NoInputError, OutputError, UsageError
from audioset.evaluate import (
    EvaluationSettings,
    ScoreFile,
    Scores,
    Targets,
    compare,
    evaluate_scores,
    read_evaluation,
    read_scores,
    write_folder,
)
from audioset.evaluate.evaluation import with_training_counts
from audioset.evaluate.findings import find_confusions, measure_reliability, read_curves
from audioset.evaluate.sources import count_training_clips
from audioset.reports import comparison as comparison_report
from audioset.reports import evaluation as evaluation_report
from audioset.reports.document import (
    to_html,
    to_markdown,
)

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
