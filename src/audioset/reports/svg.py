"""Drawings as SVG: marks with classes of the page's style sheet, so that they are right on light and on dark paper."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from audioset.errors import one_line

Box = tuple[float, float, float, float]  # left, top, right, bottom

CHARACTER_PX = 7.0  # of a text of 12 px, on average
MAX_TICKS = 6
DOT = 3.0  # half of what a dot covers


class Svg:
    """A drawing to put marks on, in the order in which they cover each other."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height = width, height
        self._parts = [
            f'<svg viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{_text(title)}" '
            'xmlns="http://www.w3.org/2000/svg">'
        ]

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line."""
        self._add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(f'<polyline class="{kind}" points="{joined}"/>')

    def area(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """What a line encloses."""
        joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(f'<polygon class="{kind}" points="{joined}"/>')

    def bar(self, x1: float, x2: float, y: float, height: float, kind: str, title: str = "") -> None:
        """A rectangle between two places."""
        self._add("rect", kind, title, x=min(x1, x2), y=y, width=abs(x2 - x1), height=height, rx=1.5)

    def tile(self, x: float, y: float, size: float, kind: str, strength: float, title: str = "") -> None:
        """A square whose colour is as strong as a number in [0, 1] says."""
        places = {"x": x, "y": y, "width": size, "height": size, "fill-opacity": strength}
        self._add("rect", kind, title, **places)

    def dot(self, x: float, y: float, radius: float, kind: str, title: str = "") -> None:
        """A filled circle; its title shows where one points at it."""
        self._add("circle", kind, title, cx=x, cy=y, r=radius)

    def text(self, x: float, y: float, text: str, kind: str = "", turned: float = 0) -> None:
        """Text at a place, turned by degrees around it."""
        turn = f' transform="rotate({_n(turned)} {_n(x)} {_n(y)})"' if turned else ""
        self._parts.append(f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{turn}>{_text(text)}</text>')

    def to_text(self) -> str:
        """The ``<svg>`` element."""
        return "\n".join([*self._parts, "</svg>"])

    def _add(self, name: str, kind: str, title: str = "", **places: float) -> None:
        attributes = " ".join(f'{key}="{_n(value)}"' for key, value in places.items())
        end = f"><title>{_text(title)}</title></{name}>" if title else "/>"
        self._parts.append(f'<{name} class="{kind}" {attributes}{end}')


@dataclass(frozen=True)
class Scale:
    """From values to places."""

    # low, high: values at its ends
    low: float
    high: float
    # start, end: where these are drawn
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is drawn."""
        low, high, value = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the scale."""
        return log_ticks(self.low, self.high) if self.is_log else linear_ticks(self.low, self.high)


@dataclass(frozen=True)
class Panel:
    """A plot: two scales, and what is written at their sides."""

    x: Scale
    y: Scale
    x_name: str
    y_name: str
    show_x: Callable[[float], str]
    show_y: Callable[[float], str]

    def draw(self, svg: Svg, *, has_x: bool = True) -> None:
        """Draw grid, ticks and names."""
        bottom, left, top, right = self.y.start, self.x.start, self.y.end, self.x.end
        for value in self.y.ticks():
            svg.line(left, self.y(value), right, self.y(value), "grid")
            svg.text(left - 8, self.y(value) + 4, self.show_y(value), "quiet end")
        svg.line(left, bottom, right, bottom, "axis")
        for value in self.x.ticks() if has_x else ():
            svg.line(self.x(value), bottom, self.x(value), bottom + 4, "axis")
            svg.text(self.x(value), bottom + 18, self.show_x(value), "quiet middle")
        if has_x:
            svg.text((left + right) / 2, bottom + 38, self.x_name, "middle")
        svg.text(left - 46, (top + bottom) / 2, self.y_name, "middle", turned=-90)


def linear_ticks(low: float, high: float) -> list[float]:
    """At most six round values from ``low`` to ``high``."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / MAX_TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= MAX_TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from ``low`` to ``high``; only the powers if these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 5 else (1,)
    values = (factor * 10.0**power for power in powers for factor in factors)
    return [value for value in values if low <= value <= high]


def shortened(text: str, width: float) -> str:
    """As much of a text as has room, in units of the drawing."""
    n = max(1, int(width / CHARACTER_PX))
    return text if len(text) <= n else f"{text[: n - 1].rstrip()}…"


def place_labels(
    points: Sequence[tuple[float, float, str]], bounds: tuple[float, float], dots: Sequence[tuple[float, float]]
) -> list[tuple[float, float, str, str]]:
    """Where the names of points have room: right or left of them, clear of dots and of names before."""
    boxes = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    placed = []
    for x, y, name in points:
        width = len(name) * CHARACTER_PX * 0.9
        for kind, left in (("halo", x + 7), ("halo end", x - 7 - width)):
            box = (left, y - 7, left + width, y + 7)
            if bounds[0] <= left and box[2] <= bounds[1] and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                placed.append((x + 7 if kind == "halo" else x - 7, y + 4, name, kind))
                break
    return placed


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(text: Any) -> str:
    return html.escape(one_line(str(text)))
