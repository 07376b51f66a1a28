"""The report of a classifier of one's own sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from audioset.reports.document import (
    Block,
    Clips,
    Document,
    Heading,
    Headline,
    Paragraph,
    Picture,
    Table,
    Warnings,
)
from audioset.reports.evaluation import interval, number
from audioset.reports.examples import Example
from audioset.reports.figures import (
    Bar,
    draw_bars,
    draw_confusion_matrix,
    draw_confusions,
    draw_curves,
    draw_learning_curve,
)

Record = Mapping[str, Any]

MOST_IN_MATRIX = 40  # classes
N_CONFUSIONS = 20
HELD_OUT = {
    "by group": "whole groups held out: clips of a voice, site or recording that the model has never heard",
    "by file": "whole files held out: clips of the same voices, sites or devices as those that were learned",
    "given test": "the part that the data call test",
}


def describe(record: Record, examples: Sequence[Example] = ()) -> Document:
    """The report, for ``to_markdown`` and ``to_html``.

    Parameters
    ----------
    record : mapping
        What ``results.json`` says.
    examples : sequence of Example
        The clips that it gets most wrong.
    """
    blocks = [block for section in SECTIONS for block in section(record)]
    if examples:
        at = next((i for i, block in enumerate(blocks) if block == CURVE), len(blocks))
        blocks[at:at] = list(_examples(record, examples))
    background = f" and {record['n_background_clips']:,} of background" if record["n_background_clips"] else ""
    subtitle = (
        f"{record['n_clips']:,} clips of {len(record['n_clips_of_classes'])} classes{background}, learned on "
        f"{record['backbone']}; audioset {record['audioset']}"
    )
    return Document(record["name"], subtitle, blocks)


def _warnings(record: Record) -> Iterator[Block]:
    if record["warnings"]:
        yield Warnings(record["warnings"])


def _headline(record: Record) -> Iterator[Block]:
    evaluations = record["evaluations"]
    if not evaluations:
        yield Paragraph(
            "Nothing could be held out, so nothing is known of how good this model is. Next step: add recordings."
        )
        return
    numbers = []
    for found in evaluations:
        ends = interval(found["balanced_accuracy_interval"])
        numbers.append((f"balanced accuracy, {found['name']}", number(found["balanced_accuracy"]), ends))
    first = evaluations[0]
    numbers.append((f"macro F1, {first['name']}", number(first["macro_f1"]), ""))
    numbers.append((f"mean AP, {first['name']}", number(first["mean_ap"]), ""))
    yield Headline(numbers)
    for found in evaluations:
        share = f"{number(found['accuracy'])} ({interval(found['accuracy_interval'])})"
        yield Paragraph(
            f"{found['name'].capitalize()}: {HELD_OUT[found['name']]}. {share} of {found['n_clips']:,} clips are right."
        )
    yield Paragraph(
        "Balanced accuracy is the mean share of right clips over the classes. Intervals of 95 %, as if clips were "
        "independent: other groups than these may differ by more."
    )


def _groups(record: Record) -> Iterator[Block]:
    found = next((each for each in record["evaluations"] if each["name"] == "by group"), None)
    if found is None:
        return
    yield Heading("Each group, never heard before")
    rows = sorted(found["folds"], key=lambda fold: -(fold["accuracy"] or 0))
    rows = [row for row in rows if row["n_clips"]]
    bars = [
        Bar(
            fold["name"],
            fold["accuracy"],
            f"{fold['accuracy']:.3f}, {fold['n_clips']:,} clips",
            *fold["accuracy_interval"],
        )
        for fold in rows
    ]
    cells = [
        (fold["name"], f"{fold['n_clips']:,}", number(fold["accuracy"]), interval(fold["accuracy_interval"]))
        for fold in rows
    ]
    caption = "Share of right clips of each group, by a model that learned from the others."
    yield Picture(draw_bars(bars, caption), caption, Table(("group", "#clips", "#right", "#interval"), cells))


def _confusion(record: Record) -> Iterator[Block]:
    for found in record["evaluations"][:1]:
        if found["confusion"] is None:
            continue
        names, counts = found["confusion"]["names"], found["confusion"]["counts"]
        yield Heading(f"What is heard as what, {found['name']}")
        pairs = _pairs(names, counts)
        table = Table(
            ("has", "heard as", "#clips", "#share"), [(a, b, f"{n:,}", f"{share:.1%}") for a, b, n, share in pairs]
        )
        if len(names) <= MOST_IN_MATRIX:
            caption = "Rows are what clips have, columns what they are heard as. The darker, the larger share of a row."
            yield Picture(draw_confusion_matrix(names, counts), caption, table if pairs else None)
        elif pairs:
            yield Picture(draw_confusions(pairs), f"The {len(pairs)} most frequent pairs.", table)


def _pairs(names: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions."""
    pairs = [
        (names[row], names[column], count, count / sum(cells))
        for row, cells in enumerate(counts)
        for column, count in enumerate(cells)
        if count and row != column
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[3]))[:N_CONFUSIONS]


def _classes(record: Record) -> Iterator[Block]:
    for found in record["evaluations"]:
        yield Heading(f"Classes, {found['name']}")
        rows = sorted(found["classes"], key=lambda row: (row["f1"] is None, row["f1"] or 0))
        known = [row for row in rows if row["f1"] is not None and row["n_clips"]]
        if known and found is record["evaluations"][0]:
            bars = [
                Bar(
                    row["class"],
                    row["f1"],
                    f"{row['f1']:.3f}, {row['n_clips']:,} clips",
                    *(row["f1_interval"] or (None, None)),
                )
                for row in known
            ]
            yield Picture(draw_bars(bars, "F1 of each class, the lowest first"), "F1 of each class, the lowest first.")
        yield Table(
            ("class", "#clips", "#precision", "#interval", "#recall", "#interval", "#F1", "#interval", "#AP"),
            [_class_cells(row) for row in rows],
            summary="" if found is record["evaluations"][0] else f"All {len(rows)} classes, {found['name']}",
        )


def _class_cells(row: Mapping[str, Any]) -> list[str]:
    cells = [row["class"], f"{row['n_clips']:,}"]
    for name in ("precision", "recall", "f1"):
        is_known = row["n_clips"] and row[name] is not None
        cells += [number(row[name]), interval(row[f"{name}_interval"], 2)] if is_known else ["–", ""]
    return [*cells, number(row["ap"])]


def _examples(record: Record, examples: Sequence[Example]) -> Iterator[Block]:
    yield Heading("What it gets most wrong")
    n_all = len(record["evaluations"][0]["mistakes"])
    yield Paragraph(
        f"{len(examples)} of {n_all:,} clips that get another class than they have, the most certain first. Listen: "
        "the label may be what is wrong."
    )
    yield Clips(examples)


CURVE = Heading("Would more clips help?")


def _curve(record: Record) -> Iterator[Block]:
    lines = {
        name: [(point["n_clips_per_class"], point["balanced_accuracy"]) for point in points]
        for name, points in groupby(record["curve"], lambda point: point["split"])
    }
    svg = draw_learning_curve(lines, "balanced accuracy")
    if svg is not None:
        cells = [(name, f"{n:.0f}", number(value)) for name, points in lines.items() for n, value in points]
        yield CURVE
        caption = "A line that still rises at its end asks for more clips; one that is flat, for other clips."
        yield Picture(svg, caption, Table(("held out", "#clips of a class", "#balanced accuracy"), cells))


def _history(record: Record) -> Iterator[Block]:
    points = [{"iteration": epoch.get("epoch", index), **epoch} for index, epoch in enumerate(record["history"])]
    svg = draw_curves(points)
    if svg is not None:
        yield Heading("Course of the training")
        yield Picture(svg, "Loss on the clips trained on, epoch by epoch.")


def _thresholds(record: Record) -> Iterator[Block]:
    thresholds = record["thresholds"]
    if not thresholds:
        return
    yield Heading("Recommended thresholds")
    yield Paragraph(
        "An event begins where the score of its class reaches this: the highest F1 on held-out clips. The model has "
        "them: audioset events --model uses them unless --threshold says otherwise. Classes that are not listed keep "
        "0.5."
    )
    rows = [(name, "never" if value is None else f"{value:g}") for name, value in thresholds.items()]
    yield Table(("class", "#threshold"), rows)


def _findings(record: Record) -> Iterator[Block]:
    if record["findings"]:
        yield Heading("What the check found")
        rows = [(each["severity"], each["message"], f"{len(each['clips']):,}") for each in record["findings"]]
        yield Table(("severity", "finding", "#clips"), rows)


def _settings(record: Record) -> Iterator[Block]:
    yield Heading("Settings")
    rows = [("audioset", record["audioset"]), ("activation", record["activation"])]
    rows += [(name, _shown(value)) for name, value in record["settings"].items()]
    rows += [(f"seconds: {name}", f"{seconds:.1f}") for name, seconds in record["timings_s"].items()]
    yield Table(("setting", "value"), rows)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    return "yes" if value is True else "no" if value is False else str(value)


SECTIONS = (
    _warnings,
    _headline,
    _groups,
    _confusion,
    _classes,
    _curve,
    _history,
    _thresholds,
    _findings,
    _settings,
)
