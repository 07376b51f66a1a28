"""From scores to events, against loops that do the same the slow way."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset import Event, LabelSet
from audioset.errors import UsageError
from audioset.events import scores_to_events

LABELS = LabelSet(("/m/a", "/m/b", "/m/c"), ("A", "B", "C"))


def times(n_patches):
    start_s = np.arange(n_patches) * 0.48
    return start_s, start_s + 0.96


def naive_events(scores, threshold):
    """Walk along each class and open and close events."""
    start_s, end_s = times(len(scores))
    events = []
    for index in range(scores.shape[1]):
        run = []
        for patch in range(len(scores) + 1):
            if patch < len(scores) and scores[patch, index] >= threshold:
                run.append(patch)
            elif run:
                peak = max(float(scores[i, index]) for i in run)
                events.append(Event(start_s[run[0]], end_s[run[-1]], LABELS.ids[index], LABELS.names[index], peak))
                run = []
    return events


def find(scores, threshold=0.5):
    scores = np.array(scores, np.float32).reshape(-1, 3)
    return scores_to_events(scores, *times(len(scores)), LABELS, threshold)


def shape(events):
    return [(event.label, round(event.start_s, 2), round(event.end_s, 2), round(event.score, 2)) for event in events]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], []),
        ([[0, 0, 0]], []),
        ([[1, 0, 0]], [("A", 0, 0.96, 1)]),
        ([[0.5, 0.4, 0]], [("A", 0, 0.96, 0.5)]),
        ([[0, 0.6, 0], [0, 0.9, 0], [0, 0.7, 0]], [("B", 0, 1.92, 0.9)]),
        ([[0.6, 0, 0], [0, 0, 0], [0.7, 0, 0]], [("A", 0, 0.96, 0.6), ("A", 0.96, 1.92, 0.7)]),
        ([[0.6, 0, 0.9], [0, 0.8, 0.9]], [("C", 0, 1.44, 0.9), ("A", 0, 0.96, 0.6), ("B", 0.48, 1.44, 0.8)]),
    ],
)
def test_known_events(scores, expected):
    assert shape(find(scores)) == expected


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])] * 3), max_size=12),
    threshold=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_events_equal_the_loop(scores, threshold):
    scores = np.array(scores).reshape(-1, 3)
    events = scores_to_events(scores, *times(len(scores)), LABELS, threshold)
    order = [(event.start_s, -event.score) for event in events]
    assert order == sorted(order)
    assert set(events) == set(naive_events(scores, threshold))
    assert len(events) == len(set(events))


def test_an_event_holds_plain_numbers_and_does_not_change():
    (event,) = find([[1, 0, 0]])
    assert {type(value) for value in (event.start_s, event.end_s, event.score)} == {float}
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'score'"):
        event.score = 0.0


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_outside_0_and_1(threshold):
    with pytest.raises(UsageError, match=r"threshold is .*; expected a score in \[0, 1\]"):
        find([[1, 0, 0]], threshold)
