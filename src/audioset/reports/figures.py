"""The pictures of reports: lists and numbers in, drawings out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from audioset.reports.svg import Panel, Scale, Svg, place_labels, shortened

WIDTH = 880.0
LEFT, RIGHT = 64.0, 26.0
ROW = 24.0
NAME_WIDTH = 260.0
PAIR_WIDTH = 350.0
DETAIL_WIDTH = 178.0
N_NAMED = 14  # classes that a cloud of points names
MATRIX_LEFT, MATRIX_TOP = 150.0, 92.0  # room for names beside a matrix
BIN_RATIO = 1.3  # of the numbers of clips that a median is over, highest to lowest
LEAST_IN_BIN = 8  # classes


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart."""

    name: str
    value: float
    detail: str  # what is written at the right
    # low, high: ends of a whisker
    low: float | None = None
    high: float | None = None


def draw_ap_by_count(points: Sequence[tuple[str, int, float]], x_name: str) -> Svg | None:
    """Average precision of each class against its number of clips, on a logarithmic axis.

    Source: after Kong et al. 2020 (arXiv 1912.10211), who draw AP by class in the order of training clips.
    """
    known = sorted((n_clips, ap, label) for label, n_clips, ap in points if n_clips > 0)
    if not known:
        return None
    svg = Svg(WIDTH, 430, f"average precision of each class against its {x_name}")
    low, high = known[0][0], known[-1][0]
    x = Scale(low * 0.85, max(high, low + 1) * 1.18, LEFT, WIDTH - RIGHT, is_log=True)
    y = Scale(0, 1, 370, 16)
    Panel(x, y, x_name, "average precision", _count, _plain).draw(svg)
    for n_clips, ap, label in known:
        svg.dot(x(n_clips), y(ap), 3.6, "dot", f"{label}: AP {ap:.3f}, {n_clips:,} clips")
    svg.path([(x(n_clips), y(ap)) for n_clips, ap in _medians(known)], "other-line")
    dots = [(x(n_clips), y(ap)) for n_clips, ap, _ in known]
    for place in place_labels(_named(known, x, y), (LEFT, WIDTH), dots):
        svg.text(*place)
    return svg


def draw_bars(
    bars: Sequence[Bar], title: str, kind: str = "good", high: float = 1.0, name_width: float = NAME_WIDTH
) -> Svg:
    """Bars from 0, one below the other, with whiskers."""
    svg = Svg(WIDTH, ROW * len(bars) + 6, title)
    x = Scale(0, high, name_width + 12, WIDTH - DETAIL_WIDTH - 12)
    for row, bar in enumerate(bars):
        y = row * ROW + 3
        svg.text(name_width, y + 16, shortened(bar.name, name_width), "end")
        svg.bar(x.start, x.end, y + 3, ROW - 8, "track")
        svg.bar(x.start, x(min(bar.value, high)), y + 3, ROW - 8, kind, f"{bar.name}: {bar.detail}")
        _whisker(svg, x, bar, y)
        svg.text(WIDTH - DETAIL_WIDTH, y + 16, bar.detail, "quiet")
    return svg


def draw_confusions(pairs: Sequence[tuple[str, str, int, float]]) -> Svg:
    """How often one class is heard instead of another: (label, other, clips, share of the label's clips)."""
    half = PAIR_WIDTH / 2 - 14
    bars = [
        Bar(f"{shortened(label, half)} → {shortened(other, half)}", n_clips, f"{n_clips:,} clips, {share:.0%}")
        for label, other, n_clips, share in pairs
    ]
    highest = max(bar.value for bar in bars)
    return draw_bars(bars, "the most frequent confusions", "bad", highest, PAIR_WIDTH)


def draw_differences(bars: Sequence[Bar], title: str) -> Svg:
    """Bars to the left and to the right of 0, one below the other, with whiskers."""
    ends = [abs(end) for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None]
    limit = max([*ends, 1e-6])
    svg = Svg(WIDTH, ROW * len(bars) + 6, title)
    x = Scale(-limit, limit, NAME_WIDTH + 12, WIDTH - DETAIL_WIDTH - 12)
    for row, bar in enumerate(bars):
        y = row * ROW + 3
        svg.text(NAME_WIDTH, y + 16, shortened(bar.name, NAME_WIDTH), "end")
        svg.bar(x(0), x(bar.value), y + 3, ROW - 8, "good" if bar.value >= 0 else "bad", f"{bar.name}: {bar.detail}")
        _whisker(svg, x, bar, y)
        svg.text(WIDTH - DETAIL_WIDTH, y + 16, bar.detail, "quiet")
    svg.line(x(0), 0, x(0), svg.height, "axis")
    return svg


def draw_reliability(reliability: Mapping[str, Any]) -> Svg:
    """Share of pairs with the label against the score, and how many pairs there are of each score."""
    svg = Svg(WIDTH, 500, "share of pairs with the label against their score")
    x, y = Scale(0, 1, LEFT, 620), Scale(0, 1, 340, 16)
    Panel(x, y, "", "share with the label", _plain, _plain).draw(svg, has_x=False)
    svg.line(x(0), y(0), x(1), y(1), "dashed")
    bins = zip(reliability["mean_scores"], reliability["shares"], reliability["n_pairs"], strict=True)
    filled = [(score, share, n) for score, share, n in bins if n]
    svg.path([(x(score), y(share)) for score, share, _ in filled], "line")
    for score, share, n in filled:
        svg.dot(x(score), y(share), 5, "dot", f"score {score:.3f}: {share:.3f} of {n:,} pairs have the label")
    svg.text(632, y(1) + 14, "above the line: scores too low", "quiet")
    svg.text(632, y(0) - 8, "below the line: scores too high", "quiet")
    _draw_histogram(svg, x, reliability["n_pairs"])
    return svg


def draw_curves(curves: Sequence[Mapping[str, Any]]) -> Svg | None:
    """Loss and mAP in the course of a training run; None if there are not two points of either."""
    series = {name: [(p["iteration"], p[name]) for p in curves if name in p] for name in ("loss", "holdout", "eval")}
    losses = {"loss": series.pop("loss")}
    panels = [each for each in (_drawable(losses), _drawable(series)) if each]
    if not panels:
        return None
    svg = Svg(WIDTH, 300, "loss and mean average precision in the course of the training")
    width = (WIDTH - RIGHT - len(panels) * LEFT) / len(panels)
    for index, lines in enumerate(panels):
        left = LEFT + index * (width + LEFT)
        _draw_lines(svg, lines, (left, left + width), "loss" if "loss" in lines else "mAP")
    return svg


def draw_confusion_matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Svg:
    """How many clips of each class (rows) are heard as each class (columns); colours are shares of a row."""
    n = len(names)
    size = min(44.0, (WIDTH - MATRIX_LEFT - RIGHT) / n)
    svg = Svg(WIDTH, MATRIX_TOP + n * size + 30, "clips of each class and what they are heard as")
    svg.text(MATRIX_LEFT - 8, MATRIX_TOP - 10, "has ↓   heard as →", "quiet end")
    for row, name in enumerate(names):
        middle = (row + 0.5) * size
        svg.text(MATRIX_LEFT - 8, MATRIX_TOP + middle + 4, shortened(name, MATRIX_LEFT - 12), "end")
        svg.text(MATRIX_LEFT + middle + 4, MATRIX_TOP - 8, shortened(name, MATRIX_TOP - 14), "", turned=-60)
        for column, count in enumerate(counts[row]):
            _tile(svg, (row, column, size), count, sum(counts[row]), f"{name} heard as {names[column]}")
    return svg


def _tile(svg: Svg, place: tuple[int, int, float], count: int, n_all: int, title: str) -> None:
    row, column, size = place
    x, y = MATRIX_LEFT + column * size, MATRIX_TOP + row * size
    share = count / max(1, n_all)
    svg.tile(x + 0.5, y + 0.5, size - 1, "track", 1)
    if count:
        kind = "cell" if row == column else "cell-wrong"
        svg.tile(x + 0.5, y + 0.5, size - 1, kind, 0.12 + 0.88 * share, f"{title}: {count:,} of {n_all:,}")
    if count and size >= 22:
        svg.text(x + size / 2, y + size / 2 + 4, str(count), "middle on" if share > 0.5 else "middle")


def draw_learning_curve(lines: Mapping[str, Sequence[tuple[float, float]]], y_name: str) -> Svg | None:
    """Accuracy against clips of a class, on a logarithmic axis; None without two points of any line."""
    drawn = {name: points for name, points in lines.items() if len(points) > 1}
    if not drawn:
        return None
    counts = [n for points in drawn.values() for n, _ in points]
    svg = Svg(WIDTH, 330, f"{y_name} against clips of a class")
    x = Scale(min(counts) * 0.9, max(counts) * 1.1, LEFT, WIDTH - RIGHT - 70, is_log=True)
    y = Scale(0, 1, 280, 16)
    Panel(x, y, "clips of a class that were learned from", y_name, _count, _plain).draw(svg)
    for kind, (name, points) in zip(("line", "other-line", "dashed"), drawn.items(), strict=False):
        svg.path([(x(n), y(value)) for n, value in points], kind)
        for n, value in points:
            svg.dot(x(n), y(value), 3.6, "other-dot" if kind == "other-line" else "dot", f"{n:g} clips: {value:.3f}")
        svg.text(x(points[-1][0]) + 10, y(points[-1][1]) + 4, name)
    return svg


def draw_pairs(points: Sequence[tuple[str, int, float, float]], names: tuple[str, str]) -> Svg | None:
    """AP of each class by one system against that by another; None without points."""
    if not points:
        return None
    svg = Svg(WIDTH, 560, f"average precision of each class: {names[1]} against {names[0]}")
    x, y = Scale(0, 1, LEFT, LEFT + 490), Scale(0, 1, 506, 16)
    shown = [shortened(name, 400) for name in names]
    Panel(x, y, f"AP, {shown[0]}", f"AP, {shown[1]}", _plain, _plain).draw(svg)
    svg.line(x(0), y(0), x(1), y(1), "dashed")
    for label, n_clips, first, second in points:
        kind = "dot" if second >= first else "other-dot"
        svg.dot(x(first), y(second), 3.6, kind, f"{label}: {first:.3f} → {second:.3f}, {n_clips:,} clips")
    furthest = sorted(points, key=lambda point: -abs(point[3] - point[2]))[:N_NAMED]
    named = [(x(first), y(second), shortened(label, 150)) for label, _, first, second in furthest]
    dots = [(x(first), y(second)) for _, _, first, second in points]
    for place in place_labels(named, (LEFT, WIDTH), dots):
        svg.text(*place)
    return svg


def _medians(known: Sequence[tuple[int, float, str]]) -> list[tuple[float, float]]:
    """Middle number of clips and middle AP of the classes with about as many clips, where there are enough."""
    bins: dict[int, list[tuple[int, float, str]]] = {}
    for point in known:
        bins.setdefault(int(math.log(point[0] / known[0][0], BIN_RATIO) + 1e-9), []).append(point)
    return [
        (median(n_clips for n_clips, _, _ in each), median(ap for _, ap, _ in each))
        for each in bins.values()
        if len(each) >= LEAST_IN_BIN
    ]


def _named(known: Sequence[tuple[int, float, str]], x: Scale, y: Scale) -> list[tuple[float, float, str]]:
    """Classes to be named: those with the most clips, and the best and worst."""
    by_ap = sorted(known, key=lambda point: point[1])
    third = N_NAMED // 3
    chosen = dict.fromkeys([*known[: -third - 1 : -1], *by_ap[: -third - 1 : -1], *by_ap[:third]])
    return [(x(n_clips), y(ap), shortened(label, 170)) for n_clips, ap, label in chosen]


def _whisker(svg: Svg, x: Scale, bar: Bar, y: float) -> None:
    if bar.low is None or bar.high is None:
        return
    low, high = (x(min(max(end, x.low), x.high)) for end in (bar.low, bar.high))
    middle = y + ROW / 2 - 1
    svg.line(low, middle, high, middle, "whisker")
    for end in (low, high):
        svg.line(end, middle - 4, end, middle + 4, "whisker")


def _draw_histogram(svg: Svg, x: Scale, counts: Sequence[int]) -> None:
    highest = 10 ** math.ceil(math.log10(max(2, *counts)))
    y = Scale(0, math.log10(highest), 450, 372)
    svg.line(LEFT, y.start, x.end, y.start, "axis")
    for power in range(0, int(y.high) + 1, max(1, int(y.high) // 3)):
        svg.text(LEFT - 8, y(power) + 4, _count(10**power), "quiet end")
        svg.line(LEFT, y(power), x.end, y(power), "grid")
    for index, count in enumerate(counts):
        if count:
            left, right = x(index / len(counts)) + 1, x((index + 1) / len(counts)) - 1
            top = y(math.log10(count)) if count > 1 else y.start - 1.5
            svg.bar(left, right, top, y.start - top, "good", f"{count:,} pairs")
    for value in x.ticks():
        svg.text(x(value), y.start + 18, _plain(value), "quiet middle")
    svg.text((x.start + x.end) / 2, y.start + 38, "score", "middle")
    svg.text(LEFT - 46, (y.start + y.end) / 2, "pairs", "middle", turned=-90)


def _drawable(series: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, Sequence[tuple[int, float]]]:
    return {name: points for name, points in series.items() if len(points) > 1}


def _draw_lines(
    svg: Svg, lines: Mapping[str, Sequence[tuple[int, float]]], sides: tuple[float, float], y_name: str
) -> None:
    iterations, values = zip(*(point for points in lines.values() for point in points), strict=True)
    room = (max(values) - min(values) or abs(max(values)) or 1) * 0.08
    x = Scale(min(iterations), max(iterations), *sides)
    y = Scale(min(values) - room, max(values) + room, 240, 16)
    Panel(x, y, "iteration", y_name, _count, _fitting(y)).draw(svg)
    for kind, (name, points) in zip(("line", "other-line"), lines.items(), strict=False):
        svg.path([(x(iteration), y(value)) for iteration, value in points], kind)
        if len(lines) > 1:
            iteration, value = points[-1]
            offset = -8 if value == max(line[-1][1] for line in lines.values()) else 16
            svg.text(x(iteration), y(value) + offset, name, "halo end")


def _fitting(scale: Scale) -> Callable[[float], str]:
    """Writes ticks with as many decimals as tell them apart."""
    ticks = scale.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    n_decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value:.{n_decimals}f}"


def _plain(value: float) -> str:
    return f"{value:.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e4 else f"{value / 1e3:g}k" if value < 1e6 else f"{value / 1e6:g}M"
