"""``audioset data download`` and the commands that look after what it fetches."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.download_options import FetchOptions, MediaOptions, RateOption, RunOptions
from audioset.cli.echo import echo
from audioset.cli.options import OVERWRITE, JsonOption, files_read, json_flag, option, print_result, takes
from audioset.files import is_file

if TYPE_CHECKING:
    from audioset.dataset.download.clips import Shard
    from audioset.dataset.download.ledger import Ledger
    from audioset.dataset.download.runs import Outcome
    from audioset.dataset.lists.segments import SegmentList


REJECTED_SHOWN = 20


folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@dataclass(frozen=True)
class LedgerOption:
    """Where the account of a folder is."""

    ledger_path: Path | None = option("Default: FOLDER/ledger.sqlite.", "FILE", "--ledger")


@dataclass(frozen=True)
class AccountOptions(LedgerOption):
    """Where the account is, and under what name clips enter it."""

    subset: str | None = option("Name of the subset. Default: by the list's file name.", "NAME")


@click.command()
@folder_argument
@click.argument("lists", nargs=-1)
@takes(pace=RateOption, account=AccountOptions, run=RunOptions, kind=MediaOptions, asking=FetchOptions)
def download(
    folder: Path,
    lists: tuple[str, ...],
    pace: RateOption,
    account: AccountOptions,
    run: RunOptions,
    kind: MediaOptions,
    asking: FetchOptions,
) -> int:
    """Fetch the audio of the clips in LISTS into FOLDER, and keep account of each.

    A list is a file, an address, or eval, balanced_train, unbalanced_train. Without lists, the command goes on with
    all that FOLDER's ledger has. It may be stopped and started at any time, and several may share a folder.

    Exit codes: 0 nothing is left to ask for, 3 something is (a pause, a wait longer than --patience, or clips given up
    for what may lie with this machine, such as a connection that fails), 7 disk.

    \b
    Examples:
      audioset data download audio/ eval
      audioset data download audio/ dogs.csv --sample-rate 32000 --channels 1
      audioset data download audio/ --rate 200/h --cookies cookies.txt
    """
    from audioset.dataset.download.clips import Shard
    from audioset.dataset.download.download import Downloader, find_lost_files
    from audioset.dataset.download.fetch import YtDlpFetch, check_yt_dlp

    check_yt_dlp()
    shard = Shard.parse(run.shard) if run.shard else None
    with _open_ledger(folder, account.ledger_path, is_new=True) as ledger:
        media = kind.settings(ledger)
        _add_lists(ledger, folder, lists, account.subset, shard)
        if not run.no_check:
            ledger.forget_files(find_lost_files(ledger, folder))
        with _Watch(ledger, run.log_path, is_quiet=run.quiet) as watch:
            fetching = replace(asking.settings, video=media.video)
            settings = run.settings(pace.rate, shard, sections=asking.sections)
            outcome = Downloader(ledger, folder, lambda: YtDlpFetch(fetching), media, settings, watch.note).run()
        return _conclude(ledger, outcome, folder, shard, is_quiet=run.quiet)


@dataclass(frozen=True)
class HowOption:
    """What a file that is taken over becomes."""

    how: str = option(choices=("link", "copy", "register"), default="link")


@click.command()
@folder_argument
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("lists", nargs=-1)
@takes(taking=HowOption, account=AccountOptions, form=JsonOption, kind=MediaOptions)
def adopt(
    folder: Path,
    source: Path,
    lists: tuple[str, ...],
    taking: HowOption,
    account: AccountOptions,
    form: JsonOption,
    kind: MediaOptions,
) -> int:
    """Take over audio that is on disk already, in SOURCE: a folder, or an HDF5 file of PANNs.

    Files are recognised by the names that other tools give them, decoded from end to end, and noted as done in FOLDER's
    ledger if they are as long as their clip. Whole videos are cut. --how says whether FOLDER gets a second name for
    the file (link), a copy, or only a note of where it is (register).

    \b
    Examples:
      audioset data adopt audio/ /old/data/eval_segments/audio eval
      audioset data adopt audio/ waveforms/eval.h5 eval
    """
    from audioset.dataset.download.adopt import Adopter

    with _open_ledger(folder, account.ledger_path, is_new=True) as ledger:
        _add_lists(ledger, folder, lists, account.subset, None)
        result = Adopter(ledger, folder, kind.settings(ledger), taking.how).adopt(source)
    if form.as_json:
        echo(json.dumps(asdict(result), indent=2))
        return 0
    echo(f"{result.n_adopted:,} adopted, {result.n_cut:,} of them cut from whole videos")
    echo(f"{result.n_done_before:,} of clips that are done or in work")
    echo(f"{result.n_unknown:,} of no clip that the ledger knows")
    echo(f"{result.n_empty:,} empty rows that stand for missing clips")
    echo(f"{len(result.rejected):,} rejected")
    for name, reason in result.rejected[:REJECTED_SHOWN]:
        echo(f"audioset: {f'{name}: {reason}'}", err=True)
    return 0


@click.command()
@folder_argument
@takes(account=LedgerOption, form=JsonOption)
def status(folder: Path, account: LedgerOption, form: JsonOption) -> None:
    """Say how far the download in FOLDER is, how fast it goes, and whether it is paused."""
    from audioset.dataset.download.report import as_status

    with _open_ledger(folder, account.ledger_path) as ledger:
        found = as_status(ledger)
    print_result(form.as_json, lambda: found, lambda: _status_lines(found))


def _status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    for subset, counts in found["subsets"].items():
        for state, n in counts.items():
            yield f"{subset:20s} {state:14s} {n:>12,}"
    yield f"{'done in an hour':35s} {found['per_hour']:>12,.0f}"
    yield f"{'left':35s} {found['n_left']:>12,}"
    if found["hours_left"] is not None:
        yield f"{'hours left':35s} {found['hours_left']:>12,.1f}"
    if found["paused_until"]:
        yield f"paused until {found['paused_until']}: {found['pause_reason']}"


@click.command()
@folder_argument
@click.option("--state", "states", metavar="STATE", multiple=True, help="Clips that failed so; repeat for several.")
@takes(account=AccountOptions)
def retry(folder: Path, states: tuple[str, ...], account: AccountOptions) -> None:
    """Make clips that failed pending again, and end a pause. The next download asks for them.

    \b
    Examples:
      audioset data retry audio/ --state age --state login
      audioset data retry audio/ --state geo --subset eval
    """
    from audioset.dataset.download.failures import BY_STATE

    if not states or not set(states) <= set(BY_STATE):
        raise click.UsageError(f"say which with --state: {', '.join(BY_STATE)}")
    with _open_ledger(folder, account.ledger_path) as ledger:
        n = ledger.retry(states, account.subset)
        ledger.close_breaker()
    echo(f"audioset: {n:,} clips are pending again", err=True)


@dataclass(frozen=True)
class ReportOptions(LedgerOption):
    """What is written of a download."""

    manifest: Path | None = option("Write a CSV of all clips, too.", "FILE")
    overwrite: bool = option(OVERWRITE)
    as_json: bool = json_flag()


@click.command()
@folder_argument
@takes(wanted=ReportOptions)
def report(folder: Path, wanted: ReportOptions) -> None:
    """Say what could be had and what not, in Markdown: by subset and reason, and each missing clip.

    The hash of a subset is equal if and only if two labs have the same clips of it. The manifest has the columns of the
    published lists, and for each clip the SHA-256 of its file.
    """
    from audioset.dataset.download.report import as_json, as_markdown, is_manifest, write_manifest
    from audioset.formats.output import check_output

    path, overwrites = wanted.manifest, wanted.overwrite
    with _open_ledger(folder, wanted.ledger_path) as ledger:
        if path:
            check_output(path, files_read(ledger.path), is_manifest, overwrites=overwrites, option="--manifest")
            write_manifest(path, ledger)
        print_result(wanted.as_json, lambda: as_json(ledger), lambda: as_markdown(ledger))


@click.command()
@folder_argument
@click.argument("ledgers", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@takes(account=LedgerOption, form=JsonOption)
def merge(folder: Path, ledgers: tuple[Path, ...], account: LedgerOption, form: JsonOption) -> None:
    """Join other LEDGERS into that of FOLDER.

    Of two rows for a clip, done with its file in place wins, then a final failure, then a passing one. The order of the
    ledgers does not matter. A file that is not in FOLDER is looked for beside its ledger, and stays there.
    Names of files elsewhere are not taken over.
    """
    from audioset.dataset.download.ledger_merge import merge as merge_ledgers

    with _open_ledger(folder, account.ledger_path, is_new=True) as ledger:
        result = merge_ledgers(ledger, folder, ledgers)
    if form.as_json:
        echo(json.dumps(asdict(result), indent=2))
        return
    echo(f"{result.n_new:,} new, {result.n_changed:,} changed, {result.n_same:,} as they were")
    if result.n_lost:
        echo(f"audioset: {result.n_lost:,} rows say done, and their files are nowhere: pending again", err=True)
    if result.n_outside:
        echo(
            f"audioset: {result.n_outside:,} rows name files that are neither in {folder} nor beside their ledger: "
            "pending again. Next step: merge the ledger of their folder, or adopt them with --how register",
            err=True,
        )


@dataclass(frozen=True)
class JobOptions:
    """What a job array is like."""

    n_tasks: int = option("Parts.", "N", "--tasks", default=10, at_least=1)
    n_at_once: int = option(None, "M", "--at-once", default=4, at_least=1)
    time: str = option("For each task.", "TIME", default="7-0")
    memory: str = option(None, "SIZE", default="4G")
    n_cores: int = option(None, "N", "--cores", default=2, at_least=1)
    extra: tuple[str, ...] = option("A further #SBATCH line: --partition=cpu.", "OPTION", "--sbatch")


@dataclass(frozen=True)
class ScriptOptions:
    """What the tasks do, and where the script goes."""

    options: str = option('For download: "--format opus --channels 1".', "TEXT", default="")
    output: Path | None = option("Default: standard output.", "FILE", "--output -o")
    overwrite: bool = option(OVERWRITE)


@click.command()
@folder_argument
@click.argument("lists", nargs=-1, required=True)
@takes(job=JobOptions, wanted=ScriptOptions, pace=RateOption)
def slurm(folder: Path, lists: tuple[str, ...], job: JobOptions, wanted: ScriptOptions, pace: RateOption) -> None:
    """Write a job array for SLURM that downloads LISTS into FOLDER.

    \b
    Example:
      audioset data slurm /data/audioset unbalanced_train --tasks 200 --at-once 20 --output job.sh
      sbatch job.sh
    """
    from audioset.dataset.download.slurm import Job, is_job_script, job_script, make_folders
    from audioset.dataset.lists.published import segments_path
    from audioset.files import writing
    from audioset.formats.output import check_output

    paths = [str(segments_path(name)) for name in lists]
    check_output(wanted.output, files_read(*paths), is_job_script, overwrites=wanted.overwrite)
    script = job_script(folder, paths, shlex.split(wanted.options), Job(**vars(job)), pace.rate)
    make_folders(folder)
    if wanted.output is None:
        echo(script, nl=False)
        return
    with writing(wanted.output) as file:
        file.write(script.encode())


@contextmanager
def _open_ledger(folder: Path, path: Path | None, *, is_new: bool = False) -> Iterator[Ledger]:
    """The ledger of a folder; made if ``is_new``."""
    from audioset.dataset.download.ledger import LEDGER_NAME, Ledger
    from audioset.errors import NoInputError, OutputError

    path = path or folder / LEDGER_NAME
    if not is_new and not is_file(path):
        raise NoInputError(f"there is no ledger {path}. Next step: audioset data download {folder} LISTS")
    try:
        for parent in (folder, path.parent):
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}. Next step: choose another folder") from error
    with Ledger(path) as ledger:
        yield ledger


def _add_lists(ledger: Ledger, folder: Path, lists: Sequence[str], subset: str | None, shard: Any) -> None:
    """Add the clips of lists, and claim no others; without lists, all that are there."""
    from audioset.errors import NoInputError

    chosen = [(name, _read_list(name, folder)) for name in lists]
    for name, segments in chosen:
        ledger.add(segments, subset or _subset_name(name), shard)
    if chosen:
        ledger.choose(segment for _, segments in chosen for segment in segments)
    if not ledger.counts() and shard is None:
        raise NoInputError(f"{ledger.path} has no clips. Next step: name a list of them, such as eval")


def _read_list(name: str, folder: Path) -> SegmentList:
    """A list of clips: a file, a published one, or one that is fetched once."""
    from audioset.assets import Asset, fetch
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.segments import read_segments

    if not re.match(r"https?://", name):
        return read_segments(segments_path(name))
    file_name = name.partition("?")[0].rpartition("/")[2]
    path = folder / "lists" / file_name
    return read_segments(path if path.is_file() else fetch(Asset(file_name, name, "", None, ""), path.parent))


def _subset_name(name: str) -> str:
    from audioset.dataset.download.clips import subset_name
    from audioset.dataset.lists.published import SUBSET_FILES

    return subset_name(SUBSET_FILES.get(name, name.partition("?")[0]))


class _Watch:
    """Says how a run goes: now and then on standard error, and of each clip in the log."""

    def __init__(self, ledger: Ledger, log_path: Path | None, *, is_quiet: bool) -> None:
        import threading
        import time

        self._lock = threading.Lock()
        self._clock = time
        self._is_quiet = is_quiet
        self._ledger_path = ledger.path
        self._log_path = log_path
        self._log: Any = None
        self._said_at = time.monotonic()
        self._counts: dict[str, int] = {}

    def __enter__(self) -> _Watch:
        from audioset.errors import OutputError
        from audioset.formats.output import check_output
        from audioset.formats.recognising import has_lines

        is_log = has_lines(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^\t]*\t[^\t]*\t[a-z_]+\t.*")
        if self._log_path:
            check_output(self._log_path, files_read(self._ledger_path), is_log, option="--log")
            try:
                self._log = self._log_path.open("a", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"cannot write {self._log_path}: {error.strerror}") from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._log:
            self._log.close()

    def note(self, report: Any) -> None:
        """One clip; called by workers."""
        with self._lock:
            self._counts[report.state] = self._counts.get(report.state, 0) + 1
            if self._log:
                stamp = self._clock.strftime("%Y-%m-%dT%H:%M:%S%z")
                self._log.write(f"{stamp}\t{report.key.name}\t{report.state}\t{report.reason}\n")
                self._log.flush()
            if not self._is_quiet and self._clock.monotonic() - self._said_at > 10:
                self._said_at = self._clock.monotonic()
                echo(f"audioset: {_in_words(self._counts)}", err=True)


def _conclude(ledger: Ledger, outcome: Outcome, folder: Path, shard: Shard | None, *, is_quiet: bool) -> int:
    """Say what a run came to; the exit code."""
    import time

    from audioset.dataset.download.failures import CLASSES

    if outcome.error:
        raise outcome.error
    counts: dict[str, int] = {}
    for (_, state), n in ledger.counts().items():
        counts[state] = counts.get(state, 0) + n
    if not is_quiet:
        echo(f"audioset: {_in_words(counts)}", err=True)
    if not outcome.reason:
        given_up = ledger.given_up([kind.state for kind in CLASSES if kind.is_suspicious], shard)
        if given_up:
            states = " ".join(f"--state {state}" for state in given_up)
            echo(
                f"audioset: {sum(given_up.values()):,} clips were given up for what may lie with this machine or its "
                f"network ({_in_words(given_up)}). Next step: check the connection and yt-dlp, then "
                f"audioset data retry {folder} {states}",
                err=True,
            )
        return 3 if given_up else 0
    when = (
        ""
        if outcome.next_at is None
        else time.strftime(" Come back after %Y-%m-%d %H:%M.", time.localtime(outcome.next_at))
    )
    echo(f"audioset: stopped: {outcome.reason}.{when}", err=True)
    return 3


def _in_words(counts: dict[str, int]) -> str:
    from audioset.dataset.download.report import MEANINGS

    return " · ".join(f"{counts[state]:,} {state}" for state in MEANINGS if state in counts) or "nothing done"
