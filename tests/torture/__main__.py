"""The long form: ``python tests/torture`` for all, ``python tests/torture kills --seed 17`` for one case again."""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import descriptors
import disks
import hostile
import kills
import mutants
import writers
from sandbox import Finding
from stage import Stage, open_stage
from summary import Summary, write_figures, write_summary

# Cases of a full session; a case of mutants is one mutant.
FULL = {
    "mutants": 52_000,
    "kills": 310,
    "disks": 40,
    "descriptors": 90,
    "writers": 24,
    "hostile": len(hostile.NAMES),
}
BATCHES_FROM_0 = ("descriptors", "hostile")  # their seeds number what there is
PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
DISTURBANCES = {module.KIND: module.run_case for module in (kills, disks, descriptors, writers)}


def main() -> int:
    """Run what was asked for; 1 if there was a finding."""
    options = _options()
    seed = random.SystemRandom().randrange(10**6) * 1_000 if options.seed is None else options.seed
    kinds = options.kinds or list(FULL)
    print(f"torture: seed {seed}, {', '.join(kinds)}", flush=True)
    summary = Summary(seed)
    started = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        with open_stage(root) as stage:
            _run(list(_jobs(kinds, seed, options, stage)), options.workers, summary)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    summary.minutes = (time.monotonic() - started) / 60
    summary.cpu_minutes = sum(sum(resource.getrusage(who)[:2]) for who in PROCESSES) / 60
    print("\n".join(summary.lines()))
    if options.json:
        write_summary(summary, options.json)
    if options.docs:
        write_figures(summary.table())
    return 1 if summary.findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/torture", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[[], *FULL], help="default: all")
    parser.add_argument("--seed", type=int, help="of the first case; with kinds and without --n, of the only one")
    parser.add_argument("--n", type=int, help="cases of each kind")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) + 1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/reliability.md")
    return parser.parse_args()


Job = tuple[str, range, Callable[[], "mutants.Batch | list[Finding]"]]


def _jobs(kinds: Sequence[str], seed: int, options: argparse.Namespace, stage: Stage) -> Iterator[Job]:
    """What is to be done: the kind, the seeds, and a function that does them."""
    is_single = bool(options.kinds) and options.seed is not None
    strace = hostile.find_strace()
    for kind in kinds:
        n = options.n or (1 if is_single else FULL[kind])
        first = 0 if kind in BATCHES_FROM_0 and not is_single else seed
        if kind == mutants.KIND:
            for start in range(first, first + n, mutants.BATCH):
                seeds = range(start, min(start + mutants.BATCH, first + n))
                yield kind, seeds, lambda seeds=seeds: _mutants(seeds, stage.root)
        else:
            for number in range(first, first + n):
                seeds = range(number, number + 1)
                yield kind, seeds, lambda kind=kind, number=number: _case(kind, number, stage, strace)


def _mutants(seeds: range, root: Path) -> mutants.Batch:
    folder = root / f"{mutants.KIND}-{seeds[0]}"
    try:
        return mutants.run_batch(seeds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _case(kind: str, number: int, stage: Stage, strace: str | None) -> list[Finding]:
    try:
        if kind == hostile.KIND:
            return hostile.run_case(number, stage.root, strace)
        return DISTURBANCES[kind](number, stage)
    finally:
        shutil.rmtree(stage.root / f"{kind}-{number}", ignore_errors=True)


def _run(jobs: Sequence[Job], n_workers: int, summary: Summary) -> None:
    """Do all jobs on all cores, and say what comes of each."""
    started = time.monotonic()
    with ThreadPoolExecutor(n_workers) as pool, _cancelling(pool):
        futures = {pool.submit(run): (kind, seeds) for kind, seeds, run in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            kind, seeds = futures[future]
            error = future.exception()
            result = [Finding(kind, seeds[0], f"was not tried: {error!r}")] if error else future.result()
            findings = result if isinstance(result, list) else result.findings
            if isinstance(result, mutants.Batch):
                summary.outcomes += result.outcomes
                summary.max_rss_mib = max(summary.max_rss_mib, result.max_rss_mib)
            summary.n_cases[kind] += len(seeds)
            summary.findings += findings
            for finding in findings:
                print(finding, flush=True)
            if number % 20 == 0:
                print(f"{(time.monotonic() - started) / 60:5.1f} min, {number}/{len(jobs)}", flush=True)


@contextmanager
def _cancelling(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Begin nothing more when the block ends early, as by Ctrl-C."""
    try:
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
