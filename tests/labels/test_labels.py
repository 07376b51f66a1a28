"""The label sets that ship with the package."""

from __future__ import annotations

import csv
import re

import pytest

from audioset import LabelSet
from audioset.errors import UsageError
from audioset.labels.labels import NAMES, NOT_IN_YAMNET


@pytest.fixture(params=NAMES)
def labels(request):
    return LabelSet.load(request.param)


@pytest.mark.parametrize(("name", "n_labels"), [("audioset-527", 527), ("yamnet-521", 521), ("audioset-strong", 456)])
def test_sizes(name, n_labels):
    labels = LabelSet.load(name)
    assert len(labels) == len(labels.ids) == len(labels.names) == n_labels
    assert len(set(labels.ids)) == len(set(labels.names)) == n_labels


def test_ids_and_names_are_well_formed(labels):
    for label_id, name in zip(labels.ids, labels.names, strict=True):
        assert re.fullmatch(r"/[mgt]/[0-9a-z_]+", label_id)
        assert name == name.strip() != ""


def test_yamnet_leaves_six_out_and_keeps_the_order():
    everything, yamnet = LabelSet.load("audioset-527"), LabelSet.load("yamnet-521")
    assert set(everything.ids) - set(yamnet.ids) == NOT_IN_YAMNET
    assert yamnet.ids == tuple(label_id for label_id in everything.ids if label_id not in NOT_IN_YAMNET)


@pytest.mark.parametrize(
    ("name", "file_name"), [("audioset-527", "class_labels_indices.csv"), ("yamnet-521", "yamnet_class_map.csv")]
)
def test_labels_equal_the_published_files(assets_folder, name, file_name):
    with (assets_folder / file_name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = LabelSet.load(name)
    assert [int(row["index"]) for row in rows] == list(range(len(labels)))
    assert tuple(row["mid"] for row in rows) == labels.ids
    assert tuple(row["display_name"] for row in rows) == labels.names


def test_strong_labels_are_in_the_order_of_their_ids_and_share_382_with_the_others():
    strong, everything = LabelSet.load("audioset-strong"), LabelSet.load("audioset-527")
    shared = set(strong.ids) & set(everything.ids)
    assert list(strong.ids) == sorted(strong.ids)
    assert len(shared) == 382
    assert {strong.names[strong.index(label_id)] for label_id in shared} - set(everything.names) == {
        *("Bicycle, tricycle", "Canidae, wild dogs, wolves", "Blender, food processor", "Unmodified field recording"),
        *("Glass chink, clink", "Glass shatter", "Gurgling, bubbling", "Vehicle horn, car horn, honking, toot"),
        *("Ducks, geese, waterfowl", "White noise, pink noise", "Tire squeal, skidding", "Stream, river"),
    }


def test_index_by_id_and_by_name(labels):
    for index, (label_id, name) in enumerate(zip(labels.ids, labels.names, strict=True)):
        assert labels.index(label_id) == labels.index(name) == index
        assert labels.index(name.upper()) == labels.index(name.lower()) == index


@pytest.mark.parametrize("name", ["audioset-527", "yamnet-521"])
def test_speech_comes_first(name):
    labels = LabelSet.load(name)
    assert (labels.ids[0], labels.names[0]) == ("/m/09x0r", "Speech")


def test_an_id_wins_over_a_name():
    labels = LabelSet(("/m/1", "/m/2"), ("/M/2", "other"))
    assert labels.index("/m/2") == 1


def test_of_equal_names_the_first_counts():
    assert LabelSet(("/m/1", "/m/2"), ("Dog", "dog")).index("DOG") == 0


def test_a_misspelt_label_is_answered_with_the_nearest(labels):
    with pytest.raises(
        UsageError, match=rf"there is no label 'Whistlin' among these {len(labels)}; did you mean 'Whistl"
    ):
        labels.index("Whistlin")
    with pytest.raises(UsageError, match=r"there is no label 'qqqq' among these \d+$"):
        labels.index("qqqq")


def test_a_part_of_a_name_is_enough_for_a_hint():
    with pytest.raises(UsageError, match="did you mean 'Fixed-wing aircraft, airplane'"):
        LabelSet.load("audioset-527").index("AIRPLNE")


def test_selected_labels_are_in_the_order_of_the_indices(labels):
    chosen = labels.select(range(len(labels) - 1, -1, -5))
    assert chosen.ids == labels.ids[::-5]
    assert chosen.names == labels.names[::-5]
    with pytest.raises(UsageError, match="no id twice"):
        labels.select([1, 2, 1])


@pytest.mark.parametrize("name", ["audioset", "yamnet", ""])
def test_unknown_sets(name):
    with pytest.raises(
        UsageError, match=f"there is no label set '{name}'; expected one of audioset-527, yamnet-521, audioset-strong"
    ):
        LabelSet.load(name)


@pytest.mark.parametrize(("ids", "names"), [(("/m/1",), ()), (("/m/1", "/m/1"), ("a", "b"))])
def test_ids_and_names_must_pair(ids, names):
    with pytest.raises(UsageError, match="expected as many names as ids, and no id twice"):
        LabelSet(ids, names)
