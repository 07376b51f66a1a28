"""What could be had and what could not: for people, for programs, and for other labs to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from audioset.dataset.download.clips import Clip, names_digest
from audioset.dataset.download.failures import BY_STATE
from audioset.dataset.download.ledger import Ledger
from audioset.files import writing

MEANINGS = {
    "done": "on disk",
    "pending": "not asked for yet",
    "running": "in work",
    **{state: failure.meaning for state, failure in BY_STATE.items()},
}
RATE_OVER_S = 3600.0
LINE_BYTES = 1 << 16  # of a heading, at most
MANIFEST_COLUMNS = (
    "YTID, start_seconds, end_seconds, positive_labels, sha256, duration_seconds, sample_rate, channels, codec, state"
)


@dataclass(frozen=True)
class Subset:
    """How much of a subset there is."""

    name: str
    counts: dict[str, int]  # clips by state, in the order of ``MEANINGS``
    digest: str  # SHA-256 over the sorted names of its done clips, each with a line end

    @property
    def n_clips(self) -> int:
        """All clips."""
        return sum(self.counts.values())

    @property
    def n_done(self) -> int:
        """Those on disk."""
        return self.counts.get("done", 0)


def summarise(ledger: Ledger) -> list[Subset]:
    """Each subset of a ledger, by name."""
    return [
        Subset(
            name,
            of_states,
            names_digest(clip.key.name for clip in ledger.clips("done", name)),
        )
        for name, of_states in _counts(ledger).items()
    ]


def _counts(ledger: Ledger) -> dict[str, dict[str, int]]:
    """Clips of each subset by state, in the order of ``MEANINGS``."""
    counts = ledger.counts()
    names = sorted({name for name, _ in counts})
    return {name: {state: counts[name, state] for state in MEANINGS if (name, state) in counts} for name in names}


def as_status(ledger: Ledger) -> dict[str, Any]:
    """How far a download is, and how fast it goes."""
    n_recent, over_s = ledger.recently_done(RATE_OVER_S)
    per_hour = n_recent * 3600.0 / over_s if over_s > 0 else 0.0
    n_left = ledger.n_due()
    breaker = ledger.breaker()
    return {
        "subsets": _counts(ledger),
        "per_hour": per_hour,
        "n_left": n_left,
        "hours_left": n_left / per_hour if per_hour else None,
        "paused_until": breaker and datetime.fromtimestamp(breaker.until).astimezone().isoformat(timespec="seconds"),
        "pause_reason": breaker and f"{MEANINGS[breaker.state]}: {breaker.reason}",
    }


def missing(ledger: Ledger) -> Iterator[Clip]:
    """Clips that failed, for good or for now."""
    return (clip for clip in ledger.clips() if clip.state in BY_STATE)


def as_json(ledger: Ledger) -> dict[str, Any]:
    """The whole report, for programs."""
    return {
        "subsets": {
            subset.name: {
                "n_clips": subset.n_clips,
                "n_done": subset.n_done,
                "counts": subset.counts,
                "sha256_of_names": subset.digest,
            }
            for subset in summarise(ledger)
        },
        "missing": [
            {
                "name": clip.key.name,
                "subset": clip.subset,
                "state": clip.state,
                "reason": clip.reason,
                "is_final": clip.due_at is None,
                "attempts": clip.attempts,
            }
            for clip in missing(ledger)
        ],
    }


def as_markdown(ledger: Ledger) -> Iterator[str]:
    """The whole report, for people, line by line."""
    yield "# What could be had"
    for subset in summarise(ledger):
        share = f"{subset.n_done / subset.n_clips:.1%}"
        yield f"\n## {subset.name}\n"
        yield f"{subset.n_done:,} of {subset.n_clips:,} clips are on disk ({share}).\n"
        yield f"SHA-256 of their names: `{subset.digest}`\n"
        yield "| state | clips | share | meaning |"
        yield "| --- | ---: | ---: | --- |"
        for state, n in subset.counts.items():
            yield f"| {state} | {n:,} | {n / subset.n_clips:.1%} | {MEANINGS[state]} |"
    yield "\n## Missing clips\n"
    yield "| clip | subset | state | what was said |"
    yield "| --- | --- | --- | --- |"
    for clip in missing(ledger):
        yield f"| {clip.key.name} | {clip.subset} | {clip.state} | {_cell(clip.reason)} |"


def manifest_lines(ledger: Ledger) -> Iterator[str]:
    """All clips in the columns of the published lists, and what is on disk of each."""
    subsets = summarise(ledger)
    yield f"# Manifest of {sum(subset.n_clips for subset in subsets)} clips\n"
    digests = ", ".join(f"{subset.name}={subset.digest}" for subset in subsets)
    yield f"# SHA-256 of the names of clips on disk: {digests}\n"
    yield f"# {MANIFEST_COLUMNS}\n"
    for clip in ledger.clips():
        key, labels = clip.key, ",".join(clip.label_ids)
        found = [
            clip.sha256,
            clip.duration_s and f"{clip.duration_s:.6f}",
            clip.sample_rate,
            clip.n_channels,
            clip.codec,
        ]
        media = ", ".join("" if value is None else str(value) for value in found)
        yield f'{key.video_id}, {key.start_s:.3f}, {key.end_s:.3f}, "{labels}", {media}, {clip.state}\n'


def write_manifest(path: Path, ledger: Ledger) -> None:
    """Write ``manifest_lines`` to a file that appears when it is whole."""
    with writing(path) as file:
        file.writelines(line.encode() for line in manifest_lines(ledger))


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def is_manifest(file: BinaryIO) -> bool:
    """Whether a file begins as ``manifest_lines`` does."""
    lines = [file.readline(LINE_BYTES) for _ in range(3)]
    return lines[0].startswith(b"# Manifest of ") and lines[2] == f"# {MANIFEST_COLUMNS}\n".encode()
