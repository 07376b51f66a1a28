"""Options as fields of classes: what click makes of them, and names of earlier versions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from audioset.audio.limits import LIMITS, Limits
from audioset.cli import cli
from audioset.cli.options import option, takes

RENAMED = [
    ("--backbone", "--model", ["train", "classifier", "sounds", "-o", "out"]),
    ("--backbone", "--model", ["finetune", "sounds", "-o", "out"]),
    ("--n-threads", "--threads", ["finetune", "sounds", "-o", "out"]),
    ("--to", "--format", ["export", "nothing", "-o", "out"]),
    ("--to", "--format", ["data", "features", "convert", "nothing", "out"]),
    ("--to", "--format", ["data", "strong", "convert", "nothing"]),
    ("--to", "--output", ["search", "nothing", "--like", "a.wav", "--accept", "1", "--label", "a"]),
]


@dataclass(frozen=True)
class Several:
    """One option of each kind."""

    n: int = option("How many.", "N", "--n -n", default=2, at_least=1)
    share: float | None = option("How much.", above=0, below=1)
    names: tuple[str, ...] = option("Which.", "NAME", "--name")
    place: Path | None = option("Where.", "FILE", old="--to")
    form: str = option(choices=("a", "b"), default="a", flags="--format")
    is_loud: bool = option("Loud.", flags="--loud")


@click.command()
@click.argument("source")
@takes(several=Several, limits=Limits)
@click.option("--last", type=int, default=0)
def command(source: str, several: Several, limits: Limits, last: int) -> None:
    """Show what came."""
    click.echo(f"{source} {vars(several)} {limits == LIMITS} {last}")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_groups_come_as_instances_with_their_defaults() -> None:
    none = {"n": 2, "share": None, "names": (), "place": None, "form": "a", "is_loud": False}
    assert run("x").output == f"x {none} True 0\n"
    given = {"n": 3, "share": 0.5, "names": ("b", "a"), "place": Path("p"), "form": "b", "is_loud": True}
    arguments = "x -n 3 --share 0.5 --name b --name a --place p --format b --loud --last 1 --max-channels 2"
    assert run(*arguments.split()).output == f"x {given} False 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n 0", "0 is not in the range x>=1"),
        ("--share 0", "0.0 is not in the range 0<x<1"),
        ("--share 1", "1.0 is not in the range 0<x<1"),
        ("--format c", "'c' is not one of 'a', 'b'"),
    ],
)
def test_values_are_checked(arguments: str, message: str) -> None:
    result = run("x", *arguments.split())
    assert result.exit_code == 2
    assert message in result.output


def test_an_old_name_is_taken_with_a_warning_and_the_new_one_wins() -> None:
    result = run("x", "--to", "p")
    assert result.stderr == "audioset: --to is called --place now, and goes with the next version\n"
    assert f"'place': {Path('p')!r}" in result.stdout
    assert f"'place': {Path('q')!r}" in run("x", "--to", "p", "--place", "q").stdout
    assert "--to" not in run("--help").stdout
    assert run("x", "--place", "p").stderr == ""


@pytest.mark.parametrize(("old", "new", "arguments"), RENAMED)
def test_old_names_of_commands_still_work(
    old: str, new: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = {"--n-threads": "1", "--to": "segments" if "strong" in arguments else "parquet"}.get(old, "yamnet")
    before = CliRunner().invoke(cli, [*arguments, new, value])
    now = CliRunner().invoke(cli, [*arguments, old, value])
    warning = f"audioset: {old} is called {new} now, and goes with the next version\n"
    assert now.stderr == warning + before.stderr
    assert str(now.exception) == str(before.exception)
    assert now.exit_code == before.exit_code != 2
