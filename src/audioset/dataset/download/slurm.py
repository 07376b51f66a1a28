"""A job array for SLURM: each task has a part of the videos and a ledger of its own, and goes on where it stopped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from audioset.errors import OutputError, UsageError

HEADING = ("#!/bin/bash", "#SBATCH --job-name=audioset")
LEDGERS_FOLDER = "ledgers"
LOGS_FOLDER = "logs"


@dataclass(frozen=True)
class Job:
    """What the cluster is asked for."""

    n_tasks: int = 10  # parts of the dataset
    n_at_once: int = 4  # how many of them may run
    time: str = "7-0"  # as sbatch reads it: ``7-0`` is seven days
    memory: str = "4G"
    n_cores: int = 2
    extra: tuple[str, ...] = ()  # further options of sbatch, such as ``--partition=cpu``

    def __post_init__(self) -> None:
        if not 1 <= self.n_at_once <= self.n_tasks:
            raise UsageError(f"{self.n_at_once} of {self.n_tasks} tasks are to run at once; expected 1 to all of them")


def make_folders(folder: Path) -> None:
    """Make the folders for logs and ledgers; SLURM drops the output of jobs whose folder for logs is not there."""
    try:
        for name in (LEDGERS_FOLDER, LOGS_FOLDER):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folders in {folder}: {error.strerror}. Next step: choose another") from error


def job_script(folder: Path, segments: Sequence[str], options: Sequence[str], job: Job, rate_per_minute: float) -> str:
    """A script for sbatch.

    The folder is on a disk that all nodes see; ``options`` are further ones of ``audioset data download``. The rate
    is that of all tasks together: they share no ledger, so each gets its part.
    """
    root = folder.absolute()
    rate = "none" if rate_per_minute == float("inf") else f"{rate_per_minute / job.n_at_once:.6g}/min"
    lines = [
        *HEADING,
        f"#SBATCH --array=0-{job.n_tasks - 1}%{job.n_at_once}",
        f"#SBATCH --time={job.time}",
        f"#SBATCH --mem={job.memory}",
        f"#SBATCH --cpus-per-task={job.n_cores}",
        f"#SBATCH --output={root / LOGS_FOLDER}/%A-%a.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        *(f"#SBATCH {option}" for option in job.extra),
        "",
        f"# {job.n_tasks} parts of the videos, by a hash of the id. A task that is run again goes on where it stopped.",
        "# When all are through:",
        f"#   audioset data merge {shlex.quote(str(root))} {shlex.quote(str(root / LEDGERS_FOLDER))}/*.sqlite",
        "",
        "task=$SLURM_ARRAY_TASK_ID",
        "exec audioset data download \\",
        f'  --shard "$task/{job.n_tasks}" --ledger {shlex.quote(str(root / LEDGERS_FOLDER))}/"$task".sqlite \\',
        f"  --rate {rate} \\",
        *([f"  {shlex.join(options)} \\"] if options else []),
        f"  -- {shlex.join([str(root), *(str(Path(name).absolute()) for name in segments)])}",
        "",
    ]
    return "\n".join(lines)


def is_job_script(file: BinaryIO) -> bool:
    """Whether a file begins as ``job_script`` does."""
    heading = "".join(f"{line}\n" for line in HEADING).encode()
    return file.read(len(heading)) == heading
