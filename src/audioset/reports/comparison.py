"""The report of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audioset.evaluate.comparison import Comparison, Difference
from audioset.evaluate.evaluation import MEASURES as COMPARED
from audioset.reports.document import Block, Document, Heading, Paragraph, Picture, Table
from audioset.reports.evaluation import MEASURES, interval, number
from audioset.reports.figures import Bar, draw_differences, draw_pairs

N_CHANGED = 15


def describe(comparison: Comparison) -> Document:
    """The report, for ``to_markdown`` and ``to_html``."""
    names = " and ".join(system.name for system in comparison.systems)
    blocks = [block for section in SECTIONS for block in section(comparison)]
    subtitle = f"{comparison.n_clips:,} common clips, {comparison.n_classes} common classes; audioset "
    return Document(f"Comparison of {names}", subtitle + comparison.version, blocks)


def summary_lines(comparison: Comparison) -> Iterator[str]:
    """What was left out so that the numbers compare."""
    for system in comparison.systems:
        yield (
            f"{system.name}: {system.n_dropped_clips:,} of {comparison.n_clips + system.n_dropped_clips:,} clips and "
            f"{system.n_dropped_classes} of {comparison.n_classes + system.n_dropped_classes} classes were dropped."
        )
    yield f"SHA-256 of the common clips' names: {comparison.clips_sha256}"


def signed(value: float | None, n_decimals: int = 4) -> str:
    """A difference."""
    return "–" if value is None else f"{value:+.{n_decimals}f}"


def between(difference: Difference, n_decimals: int = 4) -> str:
    """The ends of a difference's interval."""
    return "" if difference.low is None else f"{difference.low:+.{n_decimals}f} to {difference.high:+.{n_decimals}f}"


def _systems(comparison: Comparison) -> Iterator[Block]:
    rows = []
    for system in comparison.systems:
        cells = [system.name]
        for name in COMPARED:
            cells += [number(system.metrics[name], 4), interval(system.intervals[name], 4)]
        rows.append(cells)
    columns = ["system"] + [column for name in COMPARED for column in (f"#{MEASURES[name]}", "#interval")]
    yield Table(columns, rows)
    for text in summary_lines(comparison):
        yield Paragraph(text)


def _differences(comparison: Comparison) -> Iterator[Block]:
    first, *others = comparison.systems
    yield Heading("Differences")
    yield Table(
        ("less " + first.name, "measure", "#difference", "#interval", "#ahead in"),
        [
            (system.name, MEASURES[name], signed(found[name].value), between(found[name]), _share(found[name]))
            for system, found in zip(others, comparison.differences, strict=True)
            for name in COMPARED
        ],
    )
    confidence = comparison.settings.get("confidence", 0.95)
    yield Paragraph(
        f"Intervals of {confidence:.0%} of the difference, by resamples of the clips that are the same for all "
        "systems; the last column is the share of the resamples in which the system is ahead. If an interval leaves "
        "out 0, the choice of clips does not explain the difference. The seed of a training may still do."
    )


def _classes(comparison: Comparison) -> Iterator[Block]:
    first, *others = comparison.systems
    for index, system in enumerate(others):
        rows = [row for row in comparison.classes if row["differences"][index]["value"] is not None]
        rows.sort(key=lambda row: -row["differences"][index]["value"])
        if not rows:
            continue
        yield Heading(f"{system.name} against {first.name}")
        points = [(row["label"], row["n_positives"], row["ap"][0], row["ap"][index + 1]) for row in rows]
        svg = draw_pairs(points, (first.name, system.name))
        if svg is not None:
            yield Picture(svg, "Each point is a class; above the dashed line the second system is better.")
        yield Paragraph(_count_text(rows, index, comparison.settings.get("confidence", 0.95)))
        for caption, chosen in _extremes(rows, index):
            picture = draw_differences([_bar(row, index) for row in chosen], caption)
            columns = ("class", "#clips", f"#{first.name}", f"#{system.name}", "#difference", "#interval")
            cells = [_cells(row, index) for row in chosen]
            yield Picture(picture, f"{caption}, with their intervals.", Table(columns, cells))


def _all_classes(comparison: Comparison) -> Iterator[Block]:
    systems = comparison.systems
    columns = [
        "class",
        "#clips",
        *(f"#{system.name}" for system in systems),
        *("#difference", "#interval") * (len(systems) - 1),
    ]
    rows = []
    for row in sorted(comparison.classes, key=lambda row: _largest(row["differences"][0]["value"])):
        cells = [row["label"], f"{row['n_positives']:,}", *(number(ap) for ap in row["ap"])]
        for found in row["differences"]:
            cells += [signed(found["value"], 3), _ends(found)]
        rows.append(cells)
    yield Heading("Classes")
    yield Table(columns, rows, summary=f"All {len(rows)} classes")


SECTIONS = (_systems, _differences, _classes, _all_classes)


def _extremes(rows: list[dict[str, Any]], index: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    gains = [row for row in rows[:N_CHANGED] if row["differences"][index]["value"] > 0]
    losses = [row for row in rows[: -N_CHANGED - 1 : -1] if row["differences"][index]["value"] < 0]
    if gains:
        yield "The largest gains in AP", gains
    if losses:
        yield "The largest losses in AP", losses


def _bar(row: dict[str, Any], index: int) -> Bar:
    found = row["differences"][index]
    detail = f"{signed(found['value'], 3)}, {row['n_positives']:,} clips"
    return Bar(row["label"], found["value"], detail, found["low"], found["high"])


def _cells(row: dict[str, Any], index: int) -> list[str]:
    found, aps = row["differences"][index], (row["ap"][0], row["ap"][index + 1])
    return [row["label"], f"{row['n_positives']:,}", *map(number, aps), signed(found["value"], 3), _ends(found)]


def _count_text(rows: list[dict[str, Any]], index: int, confidence: float) -> str:
    found = [row["differences"][index] for row in rows]
    n_better = sum(each["value"] > 0 for each in found)
    n_worse = sum(each["value"] < 0 for each in found)
    sure = [each for each in found if each["low"] is not None]
    n_clear = sum(each["low"] > 0 for each in sure), sum(each["high"] < 0 for each in sure)
    return (
        f"Of {len(found)} classes, {n_better} are better and {n_worse} worse; for {n_clear[0]} and {n_clear[1]} of "
        f"them the interval leaves out 0. By chance alone, that would be so for {1 - confidence:.0%} of the classes."
    )


def _largest(value: float | None) -> float:
    return float("inf") if value is None else -value


def _ends(found: dict[str, Any]) -> str:
    return "" if found["low"] is None else f"{found['low']:+.3f} to {found['high']:+.3f}"


def _share(difference: Difference) -> str:
    return "" if difference.share_ahead is None else f"{difference.share_ahead:.1%}"
