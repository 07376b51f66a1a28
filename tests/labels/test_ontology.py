"""The ontology: against the published file, and against the plainest code that says the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audioset import LabelSet, Ontology, assets
from audioset.cli import cli
from audioset.errors import AssetError, UsageError
from audioset.labels.labels import NAMES
from audioset.labels.ontology import OntologyClass
from audioset.runs.rows import TagChoice
from audioset.runs.view import View

ONTOLOGY = Ontology.load()
HISS = "/m/07rjwbb"
ELEMENTS = {bool: st.booleans(), np.float32: st.floats(0, 1, width=32)}


# The plainest code -----------------------------------------------------------


def naive_descendants(children, node):
    found = set(children[node])
    for child in children[node]:
        found |= naive_descendants(children, child)
    return found


def naive_paths(children, node):
    above = [parent for parent in children if node in children[parent]]
    return {(*path, node) for parent in above for path in naive_paths(children, parent)} or {(node,)}


def naive_roll_up(children, scores, ids):
    highest = dict(zip(ids, scores, strict=True))
    below = {node: naive_descendants(children, node) if node in children else set() for node in ids}
    return [max(highest[other] for other in {node, *below[node]} if other in highest) for node in ids]


def naive_leaves(children, chosen):
    return {node for node in chosen if not (node in children and naive_descendants(children, node) & chosen)}


def links(ontology):
    return {entry.label_id: entry.child_ids for entry in ontology.classes}


@st.composite
def small_ontologies(draw):
    """Up to nine classes, each above any of those that come later, written in any order."""
    n_classes = draw(st.integers(1, 9))
    ids = [f"/t/{number}" for number in range(n_classes)]
    children = [
        tuple(draw(st.lists(st.sampled_from(ids[number + 1 :]), unique=True))) if number + 1 < n_classes else ()
        for number in range(n_classes)
    ]
    classes = [OntologyClass(*entry) for entry in zip(ids, ids, [()] * n_classes, children, strict=True)]
    return Ontology(tuple(draw(st.permutations(classes))))


@st.composite
def labelled_values(draw, dtype=np.float32):
    """An ontology, labels of which some are not in it, and values for them."""
    ontology = draw(small_ontologies())
    pool = [*links(ontology), "/m/not_in_it"]
    ids = draw(st.lists(st.sampled_from(pool), unique=True, min_size=1).flatmap(st.permutations))
    shape = (draw(st.integers(0, 3)), len(ids))
    values = draw(hnp.arrays(dtype, shape, elements=ELEMENTS[dtype]))
    return ontology, LabelSet(tuple(ids), tuple(ids)), values


# What ships ------------------------------------------------------------------


def test_the_table_equals_the_published_file(assets_folder):
    nodes = json.loads(published_file(assets_folder).read_text(encoding="utf-8"))
    assert [(node["id"], node["name"], tuple(node["restrictions"]), tuple(node["child_ids"])) for node in nodes] == [
        (entry.label_id, entry.label, entry.restrictions, entry.child_ids) for entry in ONTOLOGY.classes
    ]


def test_the_shape_of_the_published_ontology():
    assert len(ONTOLOGY) == 632
    assert [ONTOLOGY.name(root) for root in ONTOLOGY.roots] == [
        *("Human sounds", "Animal", "Music", "Natural sounds", "Sounds of things", "Source-ambiguous sounds"),
        "Channel, environment and background",
    ]
    assert sum(len(ONTOLOGY.parents(entry.label_id)) > 1 for entry in ONTOLOGY.classes) == 38
    assert Counter(entry.restrictions for entry in ONTOLOGY.classes) == {
        (): 543,
        ("blacklist",): 66,
        ("abstract",): 22,
        ("abstract", "blacklist"): 1,
    }


def test_labels_have_the_names_of_the_ontology():
    labels = LabelSet.load("audioset-527")
    assert [ONTOLOGY.name(label_id) for label_id in labels.ids] == list(labels.names)


def test_restrictions_do_not_say_what_is_a_label():
    restricted = {entry.label_id for entry in ONTOLOGY.classes if entry.restrictions}
    labels = set(LabelSet.load("audioset-527").ids)
    assert (len(restricted & labels), len(links(ONTOLOGY).keys() - restricted - labels)) == (12, 28)


def test_the_strong_labels_that_the_ontology_does_not_have():
    assert sum(label_id not in ONTOLOGY for label_id in LabelSet.load("audioset-strong").ids) == 32


def test_the_published_ontology_is_read_once():
    assert Ontology.load() is Ontology.load()


# Relatives -------------------------------------------------------------------


def test_relatives_of_a_class_with_several_parents():
    assert [ONTOLOGY.name(parent) for parent in ONTOLOGY.parents(HISS)] == ["Cat", "Snake", "Steam", "Onomatopoeia"]
    assert len(ONTOLOGY.paths(HISS)) == 4
    assert [ONTOLOGY.name(step) for step in ONTOLOGY.paths(HISS)[0]] == [
        "Animal",
        "Domestic animals, pets",
        "Cat",
        "Hiss",
    ]
    assert ONTOLOGY.children("Dog")[:2] == ("/m/05tny_", "/m/07r_k2n")
    assert "blacklist" in ONTOLOGY.restrictions("Heart murmur")


@pytest.mark.parametrize("entry", ONTOLOGY.classes[::9], ids=lambda entry: entry.label)
def test_published_relatives_equal_the_plainest_code(entry):
    children, label_id = links(ONTOLOGY), entry.label_id
    assert set(ONTOLOGY.descendants(label_id)) == naive_descendants(children, label_id)
    assert set(ONTOLOGY.paths(label_id)) == naive_paths(children, label_id)
    assert set(ONTOLOGY.ancestors(label_id)) == {step for path in naive_paths(children, label_id) for step in path[:-1]}


@given(small_ontologies())
def test_relatives_equal_the_plainest_code(ontology):
    children = links(ontology)
    assert set(ontology.roots) == {node for node in children if not any(node in below for below in children.values())}
    for node in children:
        below = naive_descendants(children, node)
        assert list(ontology.descendants(node)) == [other for other in children if other in below]
        assert list(ontology.ancestors(node)) == [o for o in children if node in naive_descendants(children, o)]
        assert list(ontology.parents(node)) == [other for other in children if node in children[other]]
        assert ontology.children(node) == children[node]
        paths = ontology.paths(node)
        assert len(paths) == len(set(paths))
        assert set(paths) == naive_paths(children, node)


# Names -----------------------------------------------------------------------


def test_classes_are_found_by_id_and_by_name_in_any_case():
    for entry in ONTOLOGY.classes:
        assert ONTOLOGY.find(entry.label_id) == ONTOLOGY.find(entry.label.upper()) == entry.label_id
        assert ONTOLOGY.find(f" {entry.label.lower()} ") == entry.label_id


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Whistlin", "did you mean 'Whistling'"),
        ("airplane", "did you mean 'Fixed-wing aircraft, airplane'"),
        ("airplne", "did you mean 'Fixed-wing aircraft, airplane'"),
        ("qqqq", "in the ontology$"),
        ("", "in the ontology$"),
    ],
)
@pytest.mark.parametrize("method", ["find", "name", "children", "parents", "ancestors", "descendants", "paths"])
def test_a_misspelt_class_is_answered_with_the_nearest(method, text, hint):
    with pytest.raises(UsageError, match=f"there is no class '{text}' .*{hint}"):
        getattr(ONTOLOGY, method)(text)


def test_a_name_of_several_classes_is_refused_with_their_ids():
    twins = Ontology(tuple(OntologyClass(label_id, "Bell", (), ()) for label_id in ("/t/1", "/t/2")))
    assert "bell" in twins
    assert twins.find("/t/2") == "/t/2"
    with pytest.raises(UsageError, match=r"2 classes are named 'bell': /t/1, /t/2\. Next step: give the id of one"):
        twins.find("bell")


def test_an_id_wins_over_a_name():
    ontology = Ontology((OntologyClass("/t/1", "/t/2", (), ()), OntologyClass("/t/2", "other", (), ())))
    assert ontology.find("/t/2") == "/t/2"


def test_search_puts_the_best_first():
    names = [ONTOLOGY.name(label_id) for label_id in ONTOLOGY.search("BELL")]
    assert names[:2] == ["Bell", "Bellow"]
    assert set(names) == {entry.label for entry in ONTOLOGY.classes if "bell" in entry.label.lower()}


def test_search_falls_back_on_similar_names():
    assert ONTOLOGY.name(ONTOLOGY.search("trombne")[0]) == "Trombone"
    assert ONTOLOGY.search("qqqq") == ONTOLOGY.search(" ") == ()


# Scores ----------------------------------------------------------------------


@given(labelled_values())
def test_roll_up_equals_the_plainest_code(case):
    ontology, labels, scores = case
    before = scores.copy()
    rolled = ontology.roll_up(scores, labels)
    assert rolled.tolist() == [naive_roll_up(links(ontology), row, labels.ids) for row in scores.tolist()]
    assert (rolled.dtype, rolled.shape) == (scores.dtype, scores.shape)
    assert np.array_equal(scores, before)


@given(labelled_values())
def test_rolling_up_twice_changes_nothing_more(case):
    ontology, labels, scores = case
    rolled = ontology.roll_up(scores, labels)
    assert np.array_equal(ontology.roll_up(rolled, labels), rolled)


@given(labelled_values(), st.randoms())
def test_the_order_of_the_labels_does_not_matter(case, random):
    ontology, labels, scores = case
    order = random.sample(range(len(labels)), len(labels))
    there = ontology.roll_up(scores[:, order], labels.select(order))
    assert np.array_equal(there, ontology.roll_up(scores, labels)[:, order])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 2**32 - 1))
def test_no_label_scores_less_than_what_is_below_it(name, seed):
    labels = LabelSet.load(name)
    scores = np.random.default_rng(seed).random((2, len(labels)), np.float32)
    rolled = ONTOLOGY.roll_up(scores, labels)
    column = {label_id: index for index, label_id in enumerate(labels.ids)}
    assert (rolled >= scores).all()
    for label_id in ONTOLOGY.subtree(labels, *ONTOLOGY.roots):
        for above in ONTOLOGY.ancestors(labels.ids[label_id]):
            if above in column:
                assert (rolled[:, column[above]] >= rolled[:, label_id]).all()


@pytest.mark.parametrize("name", NAMES)
def test_published_label_sets_equal_the_plainest_code(name):
    labels = LabelSet.load(name)
    scores = np.random.default_rng(1).random(len(labels), np.float32)
    children = links(ONTOLOGY)
    assert ONTOLOGY.roll_up(scores, labels).tolist() == naive_roll_up(children, scores.tolist(), labels.ids)
    is_chosen = scores >= 0.8
    chosen = {labels.ids[index] for index in np.flatnonzero(is_chosen)}
    kept = {labels.ids[index] for index in np.flatnonzero(ONTOLOGY.leaf_only(is_chosen, labels))}
    assert kept == naive_leaves(children, chosen)
    assert 0 < len(kept) < len(chosen)


def test_a_class_without_a_column_hands_scores_on():
    labels = LabelSet(("/m/0jbk", HISS), ("Animal", "Hiss"))  # neither cat nor pet is between them
    assert ONTOLOGY.roll_up(np.array([0.1, 0.9]), labels).tolist() == [0.9, 0.9]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float64])
def test_targets_of_any_dtype_are_rolled_up(dtype):
    labels = LabelSet.load("audioset-527")
    targets = np.zeros((1, 527), dtype)
    targets[0, labels.index("Bark")] = 1
    rolled = ONTOLOGY.roll_up(targets, labels)
    assert rolled.dtype == dtype
    assert [labels.names[index] for index in np.flatnonzero(rolled[0])] == [
        *("Animal", "Domestic animals, pets", "Dog", "Bark")
    ]


def test_nan_goes_up():
    labels = LabelSet(("/m/0jbk", HISS), ("Animal", "Hiss"))
    assert np.isnan(ONTOLOGY.roll_up(np.array([0.1, np.nan]), labels)).all()


@given(labelled_values(bool))
def test_leaf_only_equals_the_plainest_code(case):
    ontology, labels, is_chosen = case
    before = is_chosen.copy()
    is_kept = ontology.leaf_only(is_chosen, labels)
    for row, kept in zip(is_chosen, is_kept, strict=True):
        chosen = {labels.ids[index] for index in np.flatnonzero(row)}
        assert {labels.ids[index] for index in np.flatnonzero(kept)} == naive_leaves(links(ontology), chosen)
    assert np.array_equal(is_chosen, before)
    assert np.array_equal(ontology.leaf_only(is_kept, labels), is_kept)


@given(labelled_values())
def test_rolling_up_does_not_change_the_leaves(case):
    ontology, labels, scores = case
    before, after = (ontology.leaf_only(values >= 0.5, labels) for values in (scores, ontology.roll_up(scores, labels)))
    assert np.array_equal(before, after)


def test_labels_of_a_subtree():
    labels = LabelSet.load("audioset-527")
    children = links(ONTOLOGY)
    wanted = {"/m/0jbk", "/m/04rlf"}
    wanted |= naive_descendants(children, "/m/0jbk") | naive_descendants(children, "/m/04rlf")
    found = ONTOLOGY.subtree(labels, "animal", "/m/04rlf")
    assert found.tolist() == [index for index, label_id in enumerate(labels.ids) if label_id in wanted]
    assert ONTOLOGY.subtree(LabelSet.load("yamnet-521"), "Battle cry").tolist() == []
    assert ONTOLOGY.subtree(labels).tolist() == []


@pytest.mark.parametrize("method", ["roll_up", "leaf_only"])
@pytest.mark.parametrize("shape", [(), (526,), (527, 2), (0,)])
def test_other_numbers_of_columns_are_refused(method, shape):
    with pytest.raises(UsageError, match=r"values have shape .*; expected \(\.\.\., 527\), a column for each label"):
        getattr(ONTOLOGY, method)(np.zeros(shape, bool), LabelSet.load("audioset-527"))


@pytest.mark.parametrize(
    ("method", "dtype", "expected"),
    [("roll_up", "complex64", "real numbers"), ("roll_up", "U1", "real"), ("leaf_only", "float32", "booleans, such")],
)
def test_other_dtypes_are_refused(method, dtype, expected):
    with pytest.raises(UsageError, match=f"values have dtype .*; expected {expected}"):
        getattr(ONTOLOGY, method)(np.zeros(527, dtype), LabelSet.load("audioset-527"))


@pytest.mark.parametrize("method", ["roll_up", "leaf_only"])
def test_labels_without_relatives_stay_as_they_are(method):
    labels = LabelSet(("/m/1", "/m/2"), ("a", "b"))
    values = np.array([[True, False], [True, True]])
    assert np.array_equal(getattr(ONTOLOGY, method)(values, labels), values)
    assert getattr(ONTOLOGY, method)(np.zeros((2, 0), bool), LabelSet((), ())).shape == (2, 0)


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ({"/t/1": ("/t/3",)}, "children that are no classes: /t/3"),
        ({"/t/1": ("/t/1",)}, "classes are above themselves: /t/1 → /t/1"),
        ({"/t/1": ("/t/2",), "/t/2": ("/t/1",)}, "classes are above themselves: /t/. → /t/. → /t/."),
    ],
)
def test_an_ontology_has_whole_links_and_no_circles(children, message):
    with pytest.raises(UsageError, match=message):
        Ontology(tuple(OntologyClass(label_id, label_id, (), below) for label_id, below in children.items()))


def test_an_ontology_has_no_id_twice():
    with pytest.raises(UsageError, match="2 classes have 1 ids; expected no id twice"):
        Ontology((OntologyClass("/t/1", "a", (), ()), OntologyClass("/t/1", "b", (), ())))


# audioset data ontology ------------------------------------------------------


def run(*arguments):
    """Run ``audioset data ontology`` in this process; its standard output."""
    result = CliRunner().invoke(cli, ["data", "ontology", *arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def published_file(folder):
    path = Path(folder) / "ontology.json"
    if not path.is_file():
        pytest.skip(f"no reference data: there is no {path}")
    return path


@pytest.fixture
def published(monkeypatch):
    """The table of assets with a row for the published file, and a function that makes a folder the only one."""
    row = assets.Asset("ontology.json", "https://example.org/ontology.json", "sha256:", None, "CC-BY-SA-4.0")
    monkeypatch.setitem(assets.ASSETS, "ontology.json", row)
    return lambda folder: monkeypatch.setenv("AUDIOSET_ASSETS", str(folder))


def test_the_tree_has_every_class_below_each_of_its_parents():
    lines = run("tree").splitlines()
    assert len(lines) == sum(len(ONTOLOGY.paths(entry.label_id)) for entry in ONTOLOGY.classes)
    assert sum("/m/07rjwbb" in line for line in lines) == 4
    assert lines[0] == "Human sounds  /m/0dgw9r  [abstract]"


def test_the_tree_of_one_class_to_some_depth():
    children = links(ONTOLOGY)
    n_below = [len(naive_descendants(children, child)) for child in children["/m/0jbk"]]
    assert run("tree", "animal", "--depth", "1").splitlines() == [
        "Animal  /m/0jbk",
        f"  Domestic animals, pets  /m/068hy  ({n_below[0]} below)",
        f"  Livestock, farm animals, working animals  /m/0ch8v  ({n_below[1]} below)",
        f"  Wild animals  /m/01280g  ({n_below[2]} below)",
    ]
    (branch,) = json.loads(run("tree", "animal", "--depth", "1", "--json"))
    assert [child["label_id"] for child in branch["children"]] == list(ONTOLOGY.children("Animal"))
    assert [child["children"] for child in branch["children"]] == [[], [], []]
    assert branch["n_descendants"] == len(ONTOLOGY.descendants("Animal"))


def test_search_lists_ids_and_paths():
    assert run("search", "bow-wow") == "/m/07rc7d9    Animal > Domestic animals, pets > Dog > Bow-wow\n"
    assert run("search", "hiss").splitlines()[0].endswith("Cat > Hiss  (and 3 more)")
    found = json.loads(run("search", "bell", "--json"))
    assert [record["label_id"] for record in found] == list(ONTOLOGY.search("bell"))
    assert found[0]["paths"][0][-1] == found[0]["label"] == "Bell"


def test_search_that_finds_nothing_says_so():
    result = CliRunner().invoke(cli, ["data", "ontology", "search", "qqqq"])
    assert (result.stdout, result.stderr) == ("", "audioset: no class has a name like 'qqqq'\n")
    assert json.loads(run("search", "qqqq", "--json")) == []


def test_show_without_the_published_file(published, tmp_path):
    published(tmp_path)
    record = json.loads(run("show", "battle cry", "--json"))
    assert record["label_id"] == "/m/04gy_2"
    assert record["label_index"] == {"audioset-527": 12, "yamnet-521": None, "audioset-strong": 148}
    assert record["description"] is record["examples"] is None
    text = run("show", "battle cry")
    assert "  - in yamnet-521" in text
    assert text.count("not on this machine") == 2
    assert "children       none" in text


def test_show_with_the_published_file(published, assets_folder):
    nodes = {node["id"]: node for node in json.loads(published_file(assets_folder).read_text(encoding="utf-8"))}
    published(assets_folder)
    record = json.loads(run("show", "Hiss", "--json"))
    assert record["description"] == nodes[HISS]["description"]
    assert record["examples"] == nodes[HISS]["positive_examples"] != []
    assert [parent["label"] for parent in record["parents"]] == ["Cat", "Snake", "Steam", "Onomatopoeia"]
    text = run("show", "Hiss")
    assert nodes[HISS]["description"] in text
    assert "Natural sounds > Water > Steam > Hiss" in text


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"[1]", b"\xff", b"[" * 100_000, b'[{"id": "/m/07rjwbb"}]'], ids=repr
)
def test_show_refuses_another_file_of_the_name(published, tmp_path, content):
    (tmp_path / "ontology.json").write_bytes(content)
    published(tmp_path)
    with pytest.raises(AssetError, match=r"ontology.json does not describe /m/07rjwbb \(.*Likely cause: another file"):
        run("show", "Hiss")


def test_a_description_moves_no_cursor(published, tmp_path):
    node = {"id": HISS, "description": "\x1b[2Jgone\n", "positive_examples": ["\x1b[31m"]}
    (tmp_path / "ontology.json").write_text(json.dumps([node]))
    published(tmp_path)
    assert "\x1b" not in run("show", "Hiss")


@pytest.mark.parametrize("command", ["tree", "show"])
def test_a_misspelt_class_ends_the_command(command):
    with pytest.raises(UsageError, match="there is no class 'Dgo' in the ontology; did you mean 'Dog'"):
        run(command, "Dgo")


# audioset tag ----------------------------------------------------------------


def tag(*arguments):
    result = CliRunner().invoke(cli, ["tag", "--quiet", *map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def tags(*arguments):
    (record,) = json.loads(tag("--format", "json", *arguments))
    return {entry["label"]: entry["score"] for entry in record["tags"]}


@pytest.fixture(scope="session")
def dog(assets_folder):
    return assets_folder / "audio" / "dog_975ms.wav"


def test_tag_shows_the_labels_of_some_classes(dog):
    labels = LabelSet.load("yamnet-521")
    every = tags(dog, "--top", "521")
    some = tags(dog, "--top", "521", "--classes", "Canidae, dogs, wolves", "--classes", "/m/0bt9lr")
    wanted = ONTOLOGY.subtree(labels, "Canidae, dogs, wolves", "Dog")
    assert some == {name: every[name] for name in every if labels.index(name) in wanted}


def test_tag_rolls_scores_up(dog, yamnet):
    scores = ONTOLOGY.roll_up(yamnet.predict_file(dog).scores, yamnet.labels).mean(axis=0)
    rolled = tags(dog, "--top", "521", "--roll-up")
    assert list(rolled.values()) == pytest.approx(sorted(scores, reverse=True), abs=2e-6)
    assert rolled["Music"] == pytest.approx(scores[yamnet.labels.index("Music")], abs=2e-6)
    assert tags(dog, "--top", "99", "--roll-up", "--classes", "Dog")["Dog"] == rolled["Dog"]


def test_tag_shows_the_most_specific_labels(dog):
    before, after = tags(dog), tags(dog, "--leaf-only")
    assert list(before) == ["Animal", "Dog", "Domestic animals, pets", "Bow-wow", "Bark"]
    assert after == {name: before[name] for name in ("Bow-wow", "Bark")}
    assert tags(dog, "--leaf-only", "--threshold", "0.5").keys() == {"Dog"}


def test_tag_per_patch_and_plot_use_the_same_labels(dog, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "dog.svg"
    options = ("--classes", "Dog", "--roll-up", "--leaf-only", "--per-patch", "--top", "3")
    assert tags(dog, *options, "--plot", picture).keys() == {"Bow-wow", "Bark"}
    drawn = picture.read_text(encoding="utf-8")
    assert "<!-- Bow-wow -->" in drawn  # as comments beside the outlines of the letters
    assert "<!-- Animal -->" not in drawn


def test_tag_refuses_a_misspelt_class_before_the_model_is_loaded(dog, tmp_path, monkeypatch):
    monkeypatch.setattr("audioset.models.loading.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UsageError, match="there is no class 'Dgo' in the ontology; did you mean 'Dog'"):
        tag(dog, "--classes", "Dgo")


def test_tag_refuses_classes_that_the_model_does_not_know(dog, tmp_path):
    with pytest.raises(UsageError, match="none of the model's 521 labels is Battle cry or Booing, or below"):
        tag(dog, "--classes", "battle cry", "--classes", "booing")


def test_a_view_keeps_everything_but_scores_and_labels(yamnet, dog):
    prediction = yamnet.predict_file(dog)
    view = View(yamnet.labels, ["/m/0bt9lr"], roll_up=False)
    seen = view(prediction)
    assert seen.scores.shape == (len(prediction.scores), len(view.labels))
    assert seen.embeddings is prediction.embeddings
    unchanged = View(yamnet.labels, [], roll_up=False)(prediction)
    assert np.array_equal(unchanged.scores, prediction.scores)


def test_leaves_are_chosen_among_the_top():
    labels = LabelSet(("/m/0jbk", "/m/0bt9lr", "/m/09x0r"), ("Animal", "Dog", "Speech"))
    choose = TagChoice(SimpleNamespace(labels=labels), top=2, threshold=0.2, leaf_only=True)
    shown = [[label.label for label in choose.tags(np.array(row))] for row in ([0.9, 0.8, 0.1], [0.9, 0.3, 0.8])]
    assert shown == [["Dog"], ["Animal", "Speech"]]
