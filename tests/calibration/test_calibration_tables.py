"""Tables of labels, and the events that more specific ones fill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset import LabelSet
from audioset.calibration.clips import Patches, gather_clips, read_label_table
from audioset.errors import UsageError
from audioset.labels.events import Event, EventDetector, EventSettings, scores_to_events
from audioset.labels.leaf_events import LeafEvents, leaf_events

ONTOLOGY_LABELS = LabelSet(
    ("/m/0jbk", "/m/068hy", "/m/0bt9lr", "/m/05tny_", "/m/09x0r"),
    ("Animal", "Domestic animals, pets", "Dog", "Bark", "Speech"),
)

# -- tables of labels


def table_of(tmp_path: Path, text: str, name: str = "labels.csv", labels: LabelSet | None = None) -> Any:
    (tmp_path / name).write_bytes(text.encode())
    return read_label_table(tmp_path / name, labels or LabelSet.load("yamnet-521"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "a.wav,Speech\na.wav,dog\nb.wav,\n"),
        ("l.csv", "path,label\na.wav,/m/09x0r\na.wav,Dog\n\nb.wav\n"),
        ("l.csv", '\ufeffpath,label\r\na.wav,"Speech, Dog"\r\nb.wav,""\r\n'),
        ("l.csv", "Label,who,Path\nDog; Speech;,me,a.wav\n,me,./b.wav\n"),
        ("l.tsv", "path\tlabels\tstart_s\nx/../a.wav\tSpeech,Dog\t\nb.wav\t\t\n"),
        ("l.csv", "path,label,label_id\na.wav,?,/m/09x0r\na.wav,?,/m/0bt9lr\nb.wav,,\n"),
        ("l.csv", "a.wav,Speech\na.wav,Speech\na.wav,Dog;Dog\nb.wav,\n"),
    ],
)
def test_tables_that_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    table = table_of(tmp_path, text, name)
    assert table.labels.names == ("Speech", "Dog")
    assert not table.is_timed
    patch = np.array([0.0]), np.array([0.96])
    assert table.targets("a.wav", *patch).tolist() == [[True, True]]
    assert table.targets("b.wav", *patch).tolist() == [[False, False]]


def test_a_label_may_have_commas_in_its_name(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'a.wav,"Bird vocalization, bird call, bird song"\nb.wav,"Bark;Inside, small room"\n')
    assert table.labels.names == ("Bark", "Bird vocalization, bird call, bird song", "Inside, small room")


def test_a_patch_has_a_sound_that_shares_half_of_the_shorter_one(tmp_path: Path) -> None:
    text = "path,start_s,end_s,label\na.wav,1,2,Dog\na.wav,3.0,3.2,Dog\nb.wav,0,9,Speech\nc.wav,,,\nd.wav,0,0,\n"
    table = table_of(tmp_path, text)
    start_s = np.arange(8) * 0.48
    targets = table.targets("a.wav", start_s, start_s + 0.96)
    shares = [max(0.0, min(start + 0.96, 2) - max(start, 1)) / 0.96 for start in start_s]
    short = [max(0.0, min(start + 0.96, 3.2) - max(start, 3.0)) / 0.2 for start in start_s]
    expected = [share >= 0.5 or other >= 0.5 for share, other in zip(shares, short, strict=True)]
    assert targets[:, 1].tolist() == expected
    assert sum(expected) == 4
    assert not targets[:, 0].any()


def test_recordings_become_one_clip_each_and_patches_with_times_stay(tmp_path: Path) -> None:
    patches = [
        Patches("a.wav", np.array([0, 0.48]), np.array([0.96, 1.44]), np.array([[0.2, 0.4], [0.6, 0.1]], np.float32)),
        Patches("b.wav", np.array([0.0]), np.array([0.96]), np.array([[0.0, 0.5]], np.float32)),
    ]
    table = table_of(tmp_path, "a.wav,Speech\nb.wav,Dog\n")
    clips = gather_clips(table, patches)
    assert clips.scores == pytest.approx(np.array([[0.6, 0.4], [0.0, 0.5]]))
    assert clips.targets.tolist() == [[True, False], [False, True]]
    assert gather_clips(table, patches, "mean").scores[0] == pytest.approx([0.4, 0.25])
    timed = gather_clips(table_of(tmp_path, "a.wav,Speech,1,2\nb.wav,Dog,0,1\n"), patches)
    assert timed.scores.shape == (3, 2)
    assert timed.targets.tolist() == [[False, False], [False, False], [False, True]]
    assert timed.recordings == ["a.wav", "a.wav", "b.wav"]
    with pytest.raises(UsageError, match="none of the labelled recordings has scores"):
        gather_clips(table, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no rows"),
        ("path,label\n", "there are no rows"),
        ("a.wav,\n", "no line has a label"),
        ("a.wav,Speach\n", r"labels\.csv: line 1: there is no label 'Speach' .* did you mean 'Speech'"),
        ("a.wav,Speech\nb.wav,Speech;Dgo\n", r"line 2: there is no label 'Dgo'"),
        ("path,begin\na.wav,1\n", r"line 1: no column label; the columns are path, begin\. Next step"),
        (",Speech\n", "line 1 has no path"),
        ("a.wav\n", r"line 1 has 1 cells; expected path, label, start_s, end_s"),
        ("a.wav,Speech,0,1,2\n", "line 1 has 5 cells"),
        ("a.wav,Speech,1,1\n", "line 1 has the times '1' and '1'"),
        ("a.wav,Speech,-1,1\n", "the times '-1' and '1'"),
        ("a.wav,Speech,0\n", "the times '0' and ''"),
        ("a.wav,Speech,0,inf\n", "the times '0' and 'inf'"),
        ("a.wav,Speech,nan,1\n", "the times 'nan' and '1'"),
        ("a.wav,Speech,0,1\nb.wav,Dog\n", "line 2 has a label without start and end"),
        ('a.wav,"Speech\n', "unexpected end of data"),
        ("a.wav,Speech\udcff\n", "line 1: the label .* is not UTF-8"),
    ],
)
def test_bad_tables_of_labels(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=message):
        read_label_table(tmp_path / "labels.csv", LabelSet.load("yamnet-521"))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_label_table(tmp_path / "none.csv", LabelSet.load("yamnet-521"))


# -- events of specific labels only


def test_events_that_more_specific_ones_fill_by_half_are_left_out() -> None:
    ids = dict(zip(ONTOLOGY_LABELS.names, ONTOLOGY_LABELS.ids, strict=True))

    def event(name: str, start_s: float, end_s: float) -> Event:
        return Event(start_s, end_s, ids[name], name, 0.9, 0.9)

    events = [
        event("Animal", 0, 10),
        event("Dog", 1, 4),
        event("Dog", 3, 6),  # 5 s of 10, counted once where they overlap
        event("Domestic animals, pets", 5, 12),  # one of seven seconds
        event("Bark", 20, 21),
        event("Animal", 20, 24),  # one of four
        event("Speech", 20, 24),
    ]
    left = leaf_events(events, ONTOLOGY_LABELS)
    assert left == [event for event in events if event not in (events[0],)]
    alone = LabelSet(("/m/x",), ("X",))
    assert leaf_events([Event(0, 1, "/m/x", "X", 1, 1)], alone) == [Event(0, 1, "/m/x", "X", 1, 1)]


def naive_leaf_events(events: list[Event]) -> list[Event]:
    """By looking at every hundredth of a second."""
    below = {"Animal": {"Domestic animals, pets", "Dog", "Bark"}, "Domestic animals, pets": {"Dog", "Bark"}}
    below["Dog"] = {"Bark"}
    left = []
    for event in events:
        others = [other for other in events if other.label in below.get(event.label, ())]
        grid = np.arange(round(event.start_s * 100), round(event.end_s * 100)) / 100 + 0.005
        is_filled = np.zeros(len(grid), bool)
        for other in others:
            is_filled |= (grid > other.start_s) & (grid < other.end_s)
        if is_filled.mean() < 0.5 or not is_filled.any():
            left.append(event)
    return left


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=30),
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([{}, {"max_gap_s": 0.5}, {"min_duration_s": 1.5}, {"median_patches": 3, "max_gap_s": 1.0}]),
)
def test_specific_events_of_a_stream_are_those_of_the_whole(
    is_on: list[list[bool]], sizes: list[int], in_order: bool, changes: dict[str, Any]
) -> None:
    scores = np.array(is_on, np.float32)
    start_s = np.arange(len(scores)) * 0.48
    chosen = EventSettings(**changes)
    whole = scores_to_events(scores, start_s, start_s + 0.96, ONTOLOGY_LABELS, chosen)
    detector = EventDetector(ONTOLOGY_LABELS, chosen, in_order=in_order)
    leaves = LeafEvents(ONTOLOGY_LABELS, in_order=in_order)
    found, first = [], 0
    while first < len(scores):
        block = slice(first, first + sizes[first % len(sizes)])
        events = detector.push(scores[block], start_s[block], start_s[block] + 0.96)
        found += leaves.push(events, detector.pending())
        first = block.stop
    found += leaves.push(detector.finish(), detector.pending())
    expected = naive_leaf_events(whole)
    assert (found if in_order else sorted(found, key=whole.index)) == expected
    assert leaf_events(whole, ONTOLOGY_LABELS) == expected
