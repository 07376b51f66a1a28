"""From scores to events, whole and in blocks, against loops that do the same the slow way."""

from __future__ import annotations

import math
import statistics
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset import Event, LabelSet
from audioset.errors import UsageError
from audioset.labels.events import EventDetector, EventSettings, clip_to_audio, scores_to_events
from audioset.labels.thresholds import read_thresholds

LABELS = LabelSet(("/m/a", "/m/b", "/m/c"), ("A", "B", "C"))
LEVELS = [0.0, 0.2, 0.4, 0.5, 0.7, 1.0]


def times(n_patches: int, hop_s: float = 0.48) -> tuple[np.ndarray, np.ndarray]:
    start_s = np.arange(n_patches) * hop_s
    return start_s, start_s + 0.96


def find(scores: Any, hop_s: float = 0.48, **changes: Any) -> list[Event]:
    scores = np.array(scores, np.float32).reshape(-1, 3)
    return scores_to_events(scores, *times(len(scores), hop_s), LABELS, EventSettings(**changes))


def shape(events: list[Event]) -> list[tuple[str, float, float, float]]:
    return [(event.label, round(event.start_s, 2), round(event.end_s, 2), round(event.score, 2)) for event in events]


def only_a(*scores: float) -> list[list[float]]:
    return [[score, 0, 0] for score in scores]


def naive_filter(column: list[float], width: int) -> list[float]:
    """The median of each patch's neighbourhood; outside the recording, its first and last patch go on."""
    last, half = len(column) - 1, width // 2
    return [
        statistics.median(column[min(last, max(0, near))] for near in range(patch - half, patch + half + 1))
        for patch in range(len(column))
    ]


def naive_events(scores: np.ndarray, hop_s: float, chosen: EventSettings) -> list[Event]:
    """One class at a time, one patch at a time."""
    start_s, end_s = times(len(scores), hop_s)
    highs, lows = chosen.thresholds(LABELS)
    found: list[tuple[float, int, Event]] = []
    for index in range(scores.shape[1]):
        column = naive_filter(scores[:, index].tolist(), chosen.median_patches) if len(scores) else []
        runs: list[list[int]] = []
        is_on = False
        for patch, score in enumerate(column):
            was_on = is_on
            is_on = score >= (lows if was_on else highs)[index]
            if is_on and was_on:
                runs[-1].append(patch)
            elif is_on:
                runs.append([patch])
        joined: list[list[int]] = []
        for run in runs:
            gap_s = start_s[run[0]] - end_s[joined[-1][-1]] if joined else math.inf
            if gap_s < -1e-6 or (chosen.max_gap_s > 0 and gap_s <= chosen.max_gap_s + 1e-6):
                joined[-1] += run
            else:
                joined.append(run)
        for run in joined:
            first_s, last_s = float(start_s[run[0]]), float(end_s[run[-1]])
            if last_s - first_s >= chosen.min_duration_s - 1e-6:
                values = [column[patch] for patch in run]
                mean = math.fsum(values) / len(values)
                event = Event(first_s, last_s, LABELS.ids[index], LABELS.names[index], max(values), mean)
                found.append((first_s, index, event))
    return [event for _, _, event in sorted(found, key=lambda item: item[:2])]


@st.composite
def all_settings(draw: st.DrawFn) -> EventSettings:
    threshold = draw(st.sampled_from(LEVELS))
    low = draw(st.none() | st.sampled_from([level for level in LEVELS if level <= threshold]))
    return EventSettings(
        threshold,
        low,
        draw(st.sampled_from([{}, {"B": 0.4}, {"/m/b": (0.7, 0.2), "c": 1.0}])),
        draw(st.sampled_from([1, 3, 5])),
        draw(st.sampled_from([0.0, 0.24, 0.48, 1.5])),
        draw(st.sampled_from([0.0, 0.96, 1.2, 2.0])),
    )


many_scores = st.lists(st.tuples(*[st.sampled_from(LEVELS)] * 3), max_size=25).map(
    lambda rows: np.array(rows).reshape(-1, 3)
)
hops = st.sampled_from([0.1, 0.24, 0.48, 0.96, 2.0])


def close_to(events: list[Event]) -> list[Any]:
    return [(e.start_s, e.end_s, e.label_id, e.label, e.score, pytest.approx(e.mean, abs=1e-9)) for e in events]


def fields(events: list[Event]) -> list[Any]:
    return [(e.start_s, e.end_s, e.label_id, e.label, e.score, e.mean) for e in events]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], []),
        ([[0, 0, 0]], []),
        ([[1, 0, 0]], [("A", 0, 0.96, 1)]),
        ([[0.5, 0.4, 0]], [("A", 0, 0.96, 0.5)]),
        ([[0, 0.6, 0], [0, 0.9, 0], [0, 0.7, 0]], [("B", 0, 1.92, 0.9)]),
        ([[0.6, 0, 0], [0, 0, 0], [0.7, 0, 0]], [("A", 0, 0.96, 0.6), ("A", 0.96, 1.92, 0.7)]),
        ([[0.6, 0, 0.9], [0, 0.8, 0.9]], [("A", 0, 0.96, 0.6), ("C", 0, 1.44, 0.9), ("B", 0.48, 1.44, 0.8)]),
    ],
)
def test_known_events(scores: list[list[float]], expected: list[Any]) -> None:
    assert shape(find(scores)) == expected


def test_hysteresis_goes_on_above_the_low_threshold_but_does_not_begin_there() -> None:
    scores = only_a(0.4, 0.6, 0.4, 0.3, 0.2, 0.4, 0.4)
    assert shape(find(scores, low_threshold=0.3)) == [("A", 0.48, 2.4, 0.6)]
    assert shape(find(scores)) == [("A", 0.48, 1.44, 0.6)]


def test_gaps_up_to_the_largest_are_bridged_and_do_not_count_in_the_mean() -> None:
    scores = only_a(0.9, 0, 0, 0, 0.5, 0, 0, 0, 0, 0.7)  # gaps of 0.96 s and 1.44 s
    (first, second) = find(scores, max_gap_s=0.96)
    assert shape([first, second]) == [("A", 0, 2.88, 0.9), ("A", 4.32, 5.28, 0.7)]
    assert first.mean == pytest.approx(0.7, abs=1e-7)
    assert len(find(scores, max_gap_s=0.95)) == 3
    assert len(find(scores, max_gap_s=1.44)) == 1


def test_events_of_one_label_that_overlap_are_joined_and_those_that_touch_are_not() -> None:
    scores = only_a(1, 0, 1)
    assert shape(find(scores, hop_s=0.24)) == [("A", 0, 1.44, 1)]
    assert shape(find(scores, hop_s=0.48)) == [("A", 0, 0.96, 1), ("A", 0.96, 1.92, 1)]


def test_gaps_are_bridged_before_short_events_are_left_out() -> None:
    scores = only_a(1, 0, 1, 0, 0, 0, 0, 1)
    assert shape(find(scores, max_gap_s=0.1, min_duration_s=1.92)) == [("A", 0, 1.92, 1)]
    assert find(scores, min_duration_s=0.97) == []


def test_median_filter_drops_a_single_patch_and_fills_a_single_hole() -> None:
    scores = only_a(0, 0, 0.9, 0, 0, 0.8, 0.1, 0.7, 0.6, 0, 0)
    assert shape(find(scores, median_patches=3)) == [("A", 2.88, 4.8, 0.7)]


@pytest.mark.parametrize(("scores", "n_events"), [([0.9], 1), ([0.9, 0, 0], 1), ([0, 0.9, 0], 0), ([0, 0, 0.9], 1)])
def test_median_filter_repeats_the_patches_at_the_edges(scores: list[float], n_events: int) -> None:
    assert len(find(only_a(*scores), median_patches=3)) == n_events


@settings(max_examples=200, deadline=None)
@given(scores=many_scores, hop_s=hops, chosen=all_settings())
def test_events_equal_the_loop(scores: np.ndarray, hop_s: float, chosen: EventSettings) -> None:
    events = scores_to_events(scores, *times(len(scores), hop_s), LABELS, chosen)
    assert fields(events) == close_to(naive_events(scores, hop_s, chosen))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), scores=many_scores, hop_s=hops, chosen=all_settings(), in_order=st.booleans())
def test_blocks_of_any_size_equal_the_whole(
    data: st.DataObject, scores: np.ndarray, hop_s: float, chosen: EventSettings, in_order: bool
) -> None:
    scores = scores.astype(np.float32)
    start_s, end_s = times(len(scores), hop_s)
    whole = scores_to_events(scores, start_s, end_s, LABELS, chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(scores)), max_size=6)))
    detector = EventDetector(LABELS, chosen, in_order=in_order)
    for _ in range(2):  # after finish() it is as new
        events: list[Event] = []
        for first, stop in zip([0, *cuts], [*cuts, len(scores)], strict=True):
            events += detector.push(scores[first:stop], start_s[first:stop], end_s[first:stop])
        events += detector.finish()
        if not in_order:
            events.sort(key=lambda event: (event.start_s, event.label_id))
        assert events == whole


def test_long_arrays_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random((300, 3)).astype(np.float32)
    chosen = EventSettings(0.6, 0.3, median_patches=5, max_gap_s=0.5)
    whole = scores_to_events(scores, *times(300), LABELS, chosen)
    monkeypatch.setattr("audioset.labels.events.BLOCK_PATCHES", 7)
    assert scores_to_events(scores, *times(300), LABELS, chosen) == whole
    assert len(whole) > 20


def pushed_one_by_one(scores: list[list[float]], detector: EventDetector) -> list[list[tuple[str, float]]]:
    start_s, end_s = times(len(scores))
    return [
        [
            (event.label, round(event.start_s, 2))
            for event in detector.push(np.array(scores[i : i + 1]), start_s[i : i + 1], end_s[i : i + 1])
        ]
        for i in range(len(scores))
    ]


@pytest.mark.parametrize(
    ("changes", "patch"),
    [({}, 3), ({"max_gap_s": 0.4}, 4), ({"median_patches": 3}, 4), ({"median_patches": 3, "max_gap_s": 0.4}, 5)],
)
def test_an_event_comes_with_the_first_patch_that_leaves_it_final(changes: dict[str, Any], patch: int) -> None:
    # On in patches 0 and 1, so until 1.44 s: patch 3 begins there, patch 4 begins 0.48 s later.
    given = pushed_one_by_one(only_a(1, 1, 0, 0, 0, 0, 0, 0), EventDetector(LABELS, EventSettings(**changes)))
    assert [len(events) for events in given].index(1) == patch


def test_in_order_an_event_waits_for_those_that_began_before_it() -> None:
    scores = [[1, 0, 0], [1, 0, 1], *[[1, 0, 0]] * 6, *[[0, 0, 0]] * 4]
    in_order = pushed_one_by_one(scores, EventDetector(LABELS))
    at_once = pushed_one_by_one(scores, EventDetector(LABELS, in_order=False))
    assert [events for events in in_order if events] == [[("A", 0), ("C", 0.48)]]
    assert [events for events in at_once if events] == [[("C", 0.48)], [("A", 0)]]


def test_thresholds_are_rounded_as_the_scores_are() -> None:
    assert float(np.float32(0.7)) < 0.7
    assert len(find(only_a(0.7), threshold=0.7)) == 1


def test_integers_are_scores_too() -> None:
    scores = np.array([[0, 1, 0]])
    assert shape(scores_to_events(scores, *times(1), LABELS)) == [("B", 0, 0.96, 1)]


def test_each_label_can_have_thresholds_of_its_own() -> None:
    scores = [[0.6, 0.6, 0.6], [0.3, 0.3, 0.3], [0.2, 0.2, 0.2]]
    events = find(scores, low_threshold=0.3, label_thresholds={"a": 0.7, "/m/b": (0.6, 0.2), "C": 0.25})
    assert shape(events) == [("B", 0, 1.92, 0.6), ("C", 0, 1.44, 0.6)]
    high, low = EventSettings(0.5, 0.3, {"C": 0.25}).thresholds(LABELS)
    assert (high.tolist(), low.tolist()) == ([0.5, 0.5, 0.25], [0.3, 0.3, 0.25])


def test_a_label_can_be_off() -> None:
    chosen = {"threshold": 0.5, "low_threshold": 0.0, "label_thresholds": {"B": None}}
    assert shape(find([[1, 1, 0], [0, 1, 1]], **chosen)) == [("A", 0, 1.44, 1), ("C", 0.48, 1.44, 1)]
    high, low = EventSettings(**chosen).thresholds(LABELS)
    assert (high.tolist(), low.tolist()) == ([0.5, math.inf, 0.5], [0, math.inf, 0])


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.csv", "A,off\nB,0.5\n"), ("t.json", '{"A": null, "B": 0.5}'), ("t.tsv", "A\toff\t\nB\t0.5\n")],
)
def test_a_table_can_turn_labels_off(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_thresholds(tmp_path / name) == {"A": None, "B": 0.5}


def test_events_that_are_still_to_come_are_known_by_their_onset() -> None:
    detector = EventDetector(LABELS)
    scores = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1]], np.float32)
    assert detector.push(scores, *times(5)) == []
    assert detector.pending() == {"/m/a": 0, "/m/b": 0.48, "/m/c": 1.44}  # B is final and waits for A
    assert [event.label for event in detector.finish()] == ["A", "B", "C"]
    assert detector.pending() == {}


def test_an_event_holds_plain_numbers_and_does_not_change() -> None:
    (event,) = find([[1, 0, 0]])
    assert {type(value) for value in (event.start_s, event.end_s, event.score, event.mean)} == {float}
    assert event.duration_s == 0.96
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'score'"):
        event.score = 0.0  # type: ignore[misc]


def test_patches_are_clipped_to_the_audio() -> None:
    scores = np.eye(3)
    clipped, start_s, end_s = clip_to_audio(scores, *times(3, 2.0), 2.5)
    assert (start_s.tolist(), end_s.tolist()) == ([0, 2], [0.96, 2.5])
    np.testing.assert_array_equal(clipped, scores[:2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": -0.1}, r"threshold is -0\.1; expected a score in \[0, 1\]"),
        ({"threshold": 1.1}, r"threshold is 1\.1; expected"),
        ({"threshold": math.nan}, r"threshold is nan; expected"),
        ({"low_threshold": 0.6}, r"low_threshold is 0\.6; expected a score in \[0, 0\.5\]"),
        ({"label_thresholds": {"A": 2}}, r"threshold of A is 2; expected"),
        ({"label_thresholds": {"A": (0.2, 0.3)}}, r"low_threshold of A is 0\.3; expected a score in \[0, 0\.2\]"),
        ({"label_thresholds": {"A": 0.1, "/m/a": 0.2}}, r"'/m/a' and 'A' are the same label"),
        ({"label_thresholds": {"AA": 0.1}}, r"there is no label 'AA' among these 3"),
        ({"median_patches": 2}, r"median_patches is 2; expected an odd number"),
        ({"median_patches": -1}, r"median_patches is -1; expected an odd number"),
        ({"max_gap_s": -1}, r"max_gap_s is -1; expected seconds"),
        ({"max_gap_s": math.inf}, r"max_gap_s is inf; expected seconds"),
        ({"min_duration_s": math.nan}, r"min_duration_s is nan; expected seconds"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find([[1, 0, 0]], **changes)


@pytest.mark.parametrize(
    ("scores", "start_s", "end_s", "message"),
    [
        (np.zeros((2, 4)), [0, 1], [1, 2], r"shape \(2, 4\).*expected \(n_patches, 3\)"),
        (np.zeros(3), [0], [1], r"shape \(3,\)"),
        (np.zeros((2, 3)), [0], [1], r"shape \(2, 3\), their times \(1,\) and \(1,\)"),
        (np.full((1, 3), -2.0), [0], [1], r"scores reach from -2\.0 to -2\.0.*logits"),
        (np.full((1, 3), np.nan), [0], [1], r"scores reach from nan"),
        (np.zeros((2, 3)), [1, 0], [2, 2], r"not in the order of time.*without finish\(\)"),
        (np.zeros((2, 3)), [0, math.nan], [2, 2], r"not in the order of time"),
        (np.zeros((1, 3)), [1], [0.5], r"not in the order of time"),
        (np.zeros((2, 3)), [0, 1], [3, 2], r"not in the order of time"),
    ],
)
def test_bad_arrays(scores: np.ndarray, start_s: list[float], end_s: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scores_to_events(scores, np.array(start_s), np.array(end_s), LABELS)


def test_a_second_recording_without_finish_is_refused() -> None:
    detector = EventDetector(LABELS)
    detector.push(np.zeros((2, 3)), *times(2))
    with pytest.raises(UsageError, match=r"blocks of several recordings without finish"):
        detector.push(np.zeros((2, 3)), *times(2))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'label,threshold,low\n/m/a,0.5\n"Dog, big",0.25,0.125\n'),
        ("t.csv", '/m/a,0.5,\r\n\r\n"Dog, big", 0.25 ,0.125'),
        ("t.csv", '\ufefflabel,Threshold\n/m/a,.5\n"Dog, big",0.25,0.125\n'),
        ("t.TSV", "/m/a\t0.5\nDog, big\t0.25\t0.125\n"),
        ("t.json", '{"/m/a": 0.5, "Dog, big": [0.25, 0.125]}'),
    ],
)
def test_thresholds_are_read_from_tables_and_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read_thresholds(tmp_path / name) == {"/m/a": 0.5, "Dog, big": (0.25, 0.125)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", b"A,0.5\nA,0.6", r"t\.csv: 'A' is there twice"),
        ("t.csv", b"A,O.5", r"line 1 has \['O\.5'\]"),
        ("t.csv", b"A|0.5", r"line 1 has \[\]"),
        ("t.csv", b"A,0.5\nB,0.4,0.3,0.2", r"line 2 has"),
        ("t.csv", b"A,off,0.5", r"line 1 has \['off', '0\.5'\] .* or off"),
        ("t.csv", b"A,1.5", r"threshold of A is 1\.5; expected a score in \[0, 1\]"),
        ("t.csv", b"A,0,5", r"low_threshold of A is 5\.0"),
        ("t.csv", b"A,nan", r"line 1 has \['nan'\]"),
        ("t.csv", b"A,0.5\xff", r"t\.csv: line 1 has \['0\.5\\udcff'\]"),
        ("t.csv", b'"A,0.5', r"t\.csv: unexpected end of data"),
        ("t.json", b'{"A": 0.5, "A": 0.5}', r"'A' is there twice"),
        ("t.json", b'["A", 0.5]', r"no JSON object"),
        ("t.json", b'{"A": 0.5', r"t\.json: Expecting"),
        ("t.json", b'{"A": NaN}', r"A has \[nan\]"),
        ("t.json", b'{"A": true}', r"A has \[True\]"),
        ("t.json", b'{"A": {"threshold": 0.5}}', r"A has "),
    ],
)
def test_bad_threshold_files(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UsageError, match=message):
        read_thresholds(tmp_path / name)


def test_a_threshold_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv cannot be read: No such file"):
        read_thresholds(tmp_path / "none.csv")
