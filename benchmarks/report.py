"""How the benchmarks print a measurement beside its bound."""

from __future__ import annotations


def print_bound(
    name: str, value: float, *, at_most: float | None = None, at_least: float | None = None, unit: str = ""
) -> None:
    """Print one figure, what it may be, and whether it is."""
    is_met = value <= at_most if at_most is not None else value >= (at_least or 0)
    bound = f"at most {at_most:g}" if at_most is not None else f"at least {at_least:g}"
    print(f"  {name:44s} {value:8.4g} {unit:3s} {bound:14s} {'met' if is_met else 'MISSED'}")
