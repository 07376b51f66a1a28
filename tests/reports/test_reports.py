"""Reports of evaluations and comparisons: whole, safe and within their frames."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scored import FEW, HOSTILE, QUICK, clip_names, random_pair, system

from audioset import LabelSet
from audioset.evaluate import (
    Evaluation,
    Scores,
    Targets,
    compare,
    evaluate_scores,
)
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
    main = ElementTree.fromstring(body)  # a page whose body is also XML
    assert main.tag == "main"
    n_pictures = sum(isinstance(block, Picture) for block in documents[index].blocks)
    assert len([element for element in main.iter() if element.tag.rpartition("}")[2] == "svg"]) == n_pictures


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
