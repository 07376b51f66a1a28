"""Damaged files of every container, through whole runs of the commands."""

from __future__ import annotations

import collections
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import sandbox
from outputs import difference
from sandbox import Finding, Sandbox
from sources import HEADER_BYTES, PROMISING, SECONDS, UNCOMPRESSED, sources
from tiny import write_tiny_model

KIND = "mutants"
BATCH = 1_000  # mutants of one run
N_HEALTHY = 8  # whole files in each run, whose rows must be right
STALL_S = 10
CPU_S = 600  # of one run
MAX_DURATION_S = 3_600.0  # no mutant of half a second holds more; a limit of the run, too
CODES = frozenset(
    re.findall(r"^\| `([a-z_]+)` \|", (Path(__file__).parents[2] / "docs" / "audio.md").read_text(), re.MULTILINE)
)
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
NAMES = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{2}[A-Za-z0-9 ]")

Mutation = Callable[[random.Random, bytearray], bytes]


def flip_bits(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def damage_header(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.choice((1, 2, 4))):
        data[rng.randrange(min(len(data), 256))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def overwrite(rng: random.Random, data: bytearray) -> bytes:
    start, stop = _range(rng, data)
    data[start:stop] = rng.randbytes(stop - start)
    return bytes(data)


def zero(rng: random.Random, data: bytearray) -> bytes:
    start, stop = _range(rng, data)
    data[start:stop] = bytes(stop - start)
    return bytes(data)


def fill(rng: random.Random, data: bytearray) -> bytes:
    start, stop = _range(rng, data)
    data[start:stop] = bytes([rng.choice((0x7F, 0x80, 0xFF))]) * (stop - start)
    return bytes(data)


def cut(rng: random.Random, data: bytearray) -> bytes:
    return bytes(data[: rng.randrange(1, len(data))])


def cut_front(rng: random.Random, data: bytearray) -> bytes:
    return bytes(data[rng.randrange(1, len(data)) :])


def insert(rng: random.Random, data: bytearray) -> bytes:
    at = rng.randrange(len(data))
    return bytes(data[:at]) + rng.randbytes(rng.choice((1, 2, 4, 100, 5_000))) + bytes(data[at:])


def delete(rng: random.Random, data: bytearray) -> bytes:
    start, stop = _range(rng, data)
    return bytes(data[:start] + data[stop:])


def repeat(rng: random.Random, data: bytearray) -> bytes:
    start, stop = _range(rng, data)
    return bytes(data[:stop] + data[start:stop] * rng.choice((1, 2, 20)) + data[stop:])


def swap(rng: random.Random, data: bytearray) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return bytes(data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:])


def splice(rng: random.Random, data: bytearray) -> bytes:
    other = rng.choice(list(sources().values()))
    return bytes(data[: rng.randrange(1, len(data))]) + other[rng.randrange(len(other)) :]


def append(rng: random.Random, data: bytearray) -> bytes:
    return bytes(data) + rng.choice(list(sources().values()))


def set_length(rng: random.Random, data: bytearray) -> bytes:
    """A number beside a chunk's name, or anywhere near the start, becomes one at the edge of what it can be."""
    names = [match.start() for match in NAMES.finditer(bytes(data[:HEADER_BYTES]))]
    at = rng.choice(names) + rng.choice((-4, 4, 4, 8, 12)) if names and rng.random() < 0.7 else rng.randrange(200)
    n_bytes = rng.choice((1, 2, 4, 4, 4, 8))
    at = min(max(at, 0), max(len(data) - n_bytes, 0))
    value = rng.choice((*EDGES, len(data), len(data) + 1, rng.getrandbits(64)))
    sign_extended = value if n_bytes < 8 or value != 0xFFFFFFFF else 2**64 - 1
    data[at : at + n_bytes] = (sign_extended % (1 << 8 * n_bytes)).to_bytes(n_bytes, rng.choice(("little", "big")))
    return bytes(data)


MUTATIONS: dict[Mutation, int] = {  # and how often each is drawn
    flip_bits: 4,
    damage_header: 4,
    overwrite: 2,
    zero: 2,
    fill: 1,
    cut: 2,
    cut_front: 1,
    insert: 1,
    delete: 2,
    repeat: 2,
    swap: 1,
    splice: 2,
    append: 1,
    set_length: 4,
}


def _range(rng: random.Random, data: bytearray) -> tuple[int, int]:
    """Part of the data: a few bytes, a block, or up to a half."""
    n_bytes = min(len(data), rng.choice((1, 2, 4, 16, 256, 2_048, max(1, len(data) // 2))))
    start = rng.randrange(len(data) - n_bytes + 1)
    return start, start + n_bytes


@dataclass(frozen=True)
class Mutant:
    """One damaged file, and how it came about."""

    seed: int
    source: str
    mutations: tuple[str, ...]
    data: bytes

    @property
    def name(self) -> str:
        """Of its file."""
        return f"m{self.seed:010d}{PurePath(self.source).suffix}"

    @property
    def story(self) -> str:
        """For a person who reads a finding."""
        return f"{self.source} by {', '.join(self.mutations)}"


def make_mutant(seed: int) -> Mutant:
    """The same mutant for the same seed."""
    rng = random.Random(seed)
    source = rng.choice(list(sources()))
    data = sources()[source]
    chosen = rng.choices(list(MUTATIONS), list(MUTATIONS.values()), k=rng.choice((1, 1, 1, 2, 3)))
    for mutation in chosen:
        data = mutation(rng, bytearray(data)) if len(data) > 1 else data
    return Mutant(seed, source, tuple(mutation.__name__ for mutation in chosen), data)


# runs ----------------------------------------------------------------------------------------------------------------

# What a run of many files is: arguments, and the file of rows that it writes.
RUNS = {
    "tag": ("tag", "--format", "jsonl", "--top", "8"),
    "events": ("events", "--format", "jsonl", "--threshold", "0.0"),
    "embed": ("embed", "--format", "jsonl"),
}
RUN_WEIGHTS = (8, 1, 1)
LIMITS = (
    *("--worker-stall-s", str(STALL_S), "--worker-memory-mb", "1024", "--max-seconds", str(MAX_DURATION_S)),
    *("--workers", "2", "--quiet", "--threads", "1"),
)


def run_batch(seeds: Sequence[int], folder: Path, command: str | None = None) -> Batch:
    """Send mutants and a few whole files through one run, and judge every row."""
    first = seeds[0]
    rng = random.Random(first ^ 0x5EED)
    command = command or rng.choices(list(RUNS), RUN_WEIGHTS)[0]
    mutants = [make_mutant(seed) for seed in seeds]
    healthy = {f"h{index}_{name}": sources()[name] for index, name in enumerate(rng.sample(HEALTHY, N_HEALTHY))}
    names = [*(mutant.name for mutant in mutants), *healthy]
    rng.shuffle(names)
    case = Sandbox.make(folder)
    write_tiny_model(case.work / "model")
    for name, data in [*((mutant.name, mutant.data) for mutant in mutants), *healthy.items()]:
        (case.work / name).write_bytes(data)
    before = sandbox.snapshot(case.work)
    arguments = [*RUNS[command], *LIMITS, "--model", "model", "-o", "rows.jsonl", "--", *names]
    ended = case.start(arguments, cpu_s=CPU_S).wait()
    found = [Finding(KIND, first, f"{what} [{len(seeds)} mutants, {command}]") for what in ended.faults((0, 3))]
    after = sandbox.snapshot(case.work)
    after.pop(case.work / "rows.jsonl", None)
    found += [Finding(KIND, first, what) for what in (*sandbox.changes(before, after), *case.leftovers())]
    if ended.status in (0, 3):
        rows = _read_rows(case.work / "rows.jsonl")
        expected = _healthy_rows(tuple(sorted(healthy)), folder, command)
        found += list(_judge(command, mutants, rows, expected))
        outcomes = collections.Counter(_outcome(rows.get(mutant.name, [])) for mutant in mutants)
    else:
        outcomes = collections.Counter({"run failed": len(mutants)})
    return Batch(len(mutants), found, outcomes, ended.max_rss_mib, ended.seconds)


@dataclass(frozen=True)
class Batch:
    """What came of one run."""

    n_cases: int
    findings: list[Finding]
    outcomes: collections.Counter[str]
    max_rss_mib: float
    seconds: float


HEALTHY = [
    "pcm16.wav", "stereo.wav", "float.wav", "ulaw.wav", "big.rf64", "sony.w64", "free.flac", "vorbis.ogg", "opus.ogg",
    "layer3.mp3", "apple.aiff", "apple.caf", "phone.m4a", "film.mp4", "radio.aac", "page.webm", "film.mkv", "film.avi",
    "flash.flv", "tv.ts", "disc.mpg", "window.wma",
]  # fmt: skip


def _read_rows(path: Path) -> dict[str, list[dict]]:
    """Rows of each file; strict JSON, in which NaN is no number."""
    rows: dict[str, list[dict]] = collections.defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line, parse_constant=lambda text: f"no JSON: {text}")
        rows[row["path"]].append(row)
    return rows


def _healthy_rows(names: tuple[str, ...], folder: Path, command: str) -> dict[str, list[dict]]:
    """The rows of whole files in a run of their own."""
    case = Sandbox.make(folder / "healthy")
    write_tiny_model(case.work / "model")
    for name in names:
        (case.work / name).write_bytes(sources()[name.partition("_")[2]])
    ended = case.run([*RUNS[command], *LIMITS, "--model", "model", "-o", "rows.jsonl", "--", *names])
    assert ended.status == 0, sandbox.tail(ended.err)
    return _read_rows(case.work / "rows.jsonl")


def _outcome(rows: Sequence[dict]) -> str:
    """What became of one file, in a word."""
    codes = [row["error"]["code"] for row in rows if row.get("error")]
    return codes[0] if codes else "read with a warning" if any(row.get("warnings") for row in rows) else "read"


def _judge(
    command: str, mutants: Iterable[Mutant], rows: dict[str, list[dict]], expected: dict[str, list[dict]]
) -> Iterator[Finding]:
    for mutant in mutants:
        for what in _row_faults(command, mutant, rows.get(mutant.name, [])):
            yield Finding(KIND, mutant.seed, f"{what} [{mutant.story}; {command}]")
    for name, right in expected.items():
        for what in difference(right, rows.get(name, [])):
            yield Finding(KIND, 0, f"the whole file {name}: {what} [{command}, beside {mutants[0].seed}]")
    for name in rows.keys() - expected.keys() - {mutant.name for mutant in mutants}:
        yield Finding(KIND, 0, f"a row for {name!r}, which was not asked for")


def _row_faults(command: str, mutant: Mutant, rows: Sequence[dict]) -> Iterator[str]:
    """What is wrong with what was said of one mutant."""
    if not rows and command != "events":
        yield "no row"
    if command == "tag" and len(rows) > 1:
        yield f"{len(rows)} rows"
    for row in rows:
        if row.get("error") and row["error"]["code"] not in CODES:
            yield f"the undocumented code {row['error']['code']!r}: {row['error']['message']}"
        if not all(math.isfinite(number) for number in _numbers(row)):
            yield f"a number that is none: {json.dumps(row)[:300]}"
        if "no JSON" in json.dumps(row):
            yield f"a row that is no JSON: {json.dumps(row)[:300]}"
    if command == "tag" and rows and not rows[0]["error"]:
        yield from _duration_faults(mutant, rows[0])


def _duration_faults(mutant: Mutant, row: dict) -> Iterator[str]:
    """Durations that cannot be, for what was done to the file."""
    duration_s, suffix, whole = row["duration_s"], PurePath(mutant.source).suffix, len(sources()[mutant.source])
    if not 0 < duration_s <= MAX_DURATION_S or row["end_s"] != duration_s or row["start_s"] != 0:
        yield f"times {row['start_s']} to {row['end_s']} of {duration_s} s"
    if len(row["tags"]) != 8 or not all(0 <= tag["score"] <= 1 for tag in row["tags"]):
        yield f"scores {row['tags']}"
    is_whole_header = mutant.data[:HEADER_BYTES] == sources()[mutant.source][:HEADER_BYTES]
    if mutant.source in UNCOMPRESSED and is_whole_header and len(mutant.data) == whole and duration_s != SECONDS:
        yield f"{duration_s} s, and {SECONDS} s are there"
    is_cut = sources()[mutant.source].startswith(mutant.data) and len(mutant.data) < 0.9 * whole
    is_whole = mutant.data in sources().values()  # of two joined files, the first
    if is_cut and not is_whole and suffix in PROMISING and not row["warnings"]:
        yield f"cut to {len(mutant.data)} of {whole} bytes, {duration_s} s, without a warning"


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, (int, float)):
        yield value
