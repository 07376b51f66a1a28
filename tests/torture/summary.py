"""What was tried and what was found, as text, as JSON, and as the table in the documentation."""

from __future__ import annotations

import collections
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import Finding
from sources import missing, sources

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
TITLES = {  # of each kind of case, in the order of the table
    "mutants": "damaged recordings",
    "kills": "runs that were killed",
    "disks": "runs on a full disk",
    "descriptors": "runs without standard input, output or error",
    "writers": "pairs of runs with one output",
    "hostile": "hostile files",
}


@dataclass
class Summary:
    """Figures of one session.

    Attributes
    ----------
    seed : int
        Of the first case of each kind.
    n_cases : Counter of str
        Cases of each kind.
    outcomes : Counter of str
        What became of the mutants.
    findings : list of Finding
    minutes, cpu_minutes : float
        On the clock, and of all processors.
    max_rss_mib : float
        Of the largest process of a run with mutants.
    """

    seed: int
    n_cases: collections.Counter[str] = field(default_factory=collections.Counter)
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: list[Finding] = field(default_factory=list)
    minutes: float = 0.0
    cpu_minutes: float = 0.0
    max_rss_mib: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """All figures, and what the machine is."""
        return {
            "seed": self.seed,
            "minutes": round(self.minutes, 1),
            "processor minutes": round(self.cpu_minutes, 1),
            "cases": dict(self.n_cases),
            "findings": [str(finding) for finding in self.findings],
            "mutants": {
                "files they come from": len(sources()),
                "not written here": list(missing()),
                "outcomes": dict(self.outcomes.most_common()),
                "largest process, MiB": round(self.max_rss_mib),
            },
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        }

    def lines(self) -> Iterable[str]:
        """For a person."""
        yield (
            f"torture from seed {self.seed}: {self.minutes:.1f} minutes, {self.cpu_minutes:.1f} of processors, "
            f"{len(self.findings)} findings"
        )
        for kind, n in self.n_cases.items():
            yield f"{n:>9,} {TITLES[kind]}: {self._n_faulty(kind)} with a finding"
        if self.outcomes:
            yield f"mutants of {len(sources())} files: " + ", ".join(
                f"{count:,} {outcome}" for outcome, count in self.outcomes.most_common()
            )
        yield from (f"  {finding}" for finding in self.findings)

    def table(self) -> str:
        """For the documentation."""
        rows = [f"| {title} | {self.n_cases[kind]:,} | {self._n_faulty(kind):,} |" for kind, title in TITLES.items()]
        outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in self.outcomes.most_common())
        return "\n".join(
            [
                "| what was tried | cases | lost, wrong or run |",
                "| --- | ---: | ---: |",
                *rows,
                "",
                f"Seed {self.seed}, {self.minutes:.0f} minutes on {os.cpu_count()} cores. The damaged recordings come "
                f"from {len(sources())} files in as many encodings; what became of them: {outcomes}. The largest "
                f"process took {self.max_rss_mib:,.0f} MiB.",
            ]
        )

    def _n_faulty(self, kind: str) -> int:
        return len({finding.seed for finding in self.findings if finding.kind == kind})


def write_figures(text: str, document: Path = DOCUMENT) -> None:
    """Put a table of figures where the document has its place."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def write_summary(summary: Summary, path: Path) -> None:
    """Keep all figures as JSON."""
    path.write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")
