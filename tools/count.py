"""How large and how tangled the package is: lines, rooms, long functions, circles of imports, and repeated shapes.

    python tools/count.py [COMMIT]

With COMMIT, lines are also compared with that state. Two places have the same shape where their tokens are equal once
names, strings and numbers are replaced; docstrings, comments, imports and tables do not count.
"""

from __future__ import annotations

import ast
import io
import keyword
import statistics
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "audioset"
MAX_ROOMS = 30
MAX_FOLDER = 20
MAX_MODULE = 450
MAX_FUNCTION = 40
MAX_MEDIAN = 6
MAX_SHAPE = 15  # lines
SMALL_MODULE = 60
ROOT_MODULE = "__init__.py"
FREE_FOLDERS = ("cli",)  # one file for each command


class Function(NamedTuple):
    """A function's place and its lines: signature and body, without the docstring."""

    place: str
    n_lines: int


def main() -> None:
    """Print everything; what is beyond its bound is marked."""
    sources = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    n_lines = sum(text.count("\n") for text in sources.values())
    print(f"{len(sources)} files, {n_lines:,} lines")
    if len(sys.argv) > 1:
        before = lines_at(sys.argv[1])
        print(f"{before:,} lines at {sys.argv[1]}: {n_lines - before:+,}")
    say("rooms at the top", len(rooms(sources)), MAX_ROOMS)
    for folder, n_modules in sorted(folders(sources).items()):
        if n_modules > MAX_FOLDER and folder not in FREE_FOLDERS:
            say(f"modules in {folder}/", n_modules, MAX_FOLDER)
    for name, text in sorted(sources.items()):
        if text.count("\n") > MAX_MODULE:
            say(f"lines of {name}", text.count("\n"), MAX_MODULE)
    trees = {name: ast.parse(text) for name, text in sources.items()}
    functions = [function for name, tree in sorted(trees.items()) for function in functions_of(name, tree)]
    say("median lines of a function", statistics.median(function.n_lines for function in functions), MAX_MEDIAN)
    for function in functions:
        if function.n_lines > MAX_FUNCTION:
            say(f"lines of {function.place}", function.n_lines, MAX_FUNCTION)
    graph = imports(trees)
    for circle in circles(graph):
        print(f"  circle: {' -> '.join(circle)}   BEYOND none")
    for small, importer in lone(graph, sources):
        print(f"  {small} has {sources[small].count(chr(10))} lines, and only {importer} imports it")
    for first, second, length in shapes(sources):
        say(f"lines of one shape in {first} and {second}", length, MAX_SHAPE)


def say(what: str, value: float, bound: float) -> None:
    """One line, marked if the value is beyond its bound."""
    print(f"  {what}: {value:g} of at most {bound}{'   BEYOND' if value > bound else ''}")


def lines_at(commit: str) -> int:
    """Lines of the package in an earlier commit."""
    names = git("ls-tree", "-r", "--name-only", commit, "src/audioset").split()
    return sum(git("show", f"{commit}:{name}").count("\n") for name in names if name.endswith(".py"))


def git(*arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout


def rooms(names: Mapping[str, object]) -> set[str]:
    """Modules and packages right below the package, but for the two that Python asks for."""
    return {name.split("/")[0].removesuffix(".py") for name in names} - {"__init__", "__main__"}


def folders(names: Mapping[str, object]) -> dict[str, int]:
    """How many modules are in each folder."""
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        folder, _, module = name.rpartition("/")
        counts[folder] += module != "__init__.py"
    return counts


def functions_of(name: str, tree: ast.Module) -> Iterator[Function]:
    """Every function of a module, those in classes and functions too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            has_text = ast.get_docstring(node) is not None
            text = node.body[0]
            n_text = (text.end_lineno or text.lineno) - text.lineno + 1 if has_text else 0
            yield Function(f"{name}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1 - n_text)


def imports(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Which modules of the package each one imports, anywhere in it."""
    files = {module_name(name): name for name in trees}
    graph: dict[str, set[str]] = {ROOT_MODULE: set()}  # it names what is public, and holds the version
    for name, tree in trees.items():
        if name == ROOT_MODULE:
            continue
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {member if member in files else node.module for member in members}
        graph[name] = {files[each] for each in found & set(files)} - {name, ROOT_MODULE}
    return graph


def module_name(path: str) -> str:
    """``audioset.formats.rows`` for ``formats/rows.py``."""
    return f"audioset.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


def circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Modules that import themselves through others."""
    finished: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            yield [*trail[trail.index(name) :], name]
        elif name not in finished:
            for other in sorted(graph[name]):
                yield from visit(other, [*trail, name])
            finished.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def lone(graph: Mapping[str, set[str]], sources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Small modules with a single importer."""
    for name in sorted(graph):
        importers = [other for other in graph if name in graph[other]]
        if len(importers) == 1 and sources[name].count("\n") < SMALL_MODULE and not name.startswith(FREE_FOLDERS):
            yield name, importers[0]


class Line(NamedTuple):
    """A line of code by its shape."""

    place: str
    number: int
    shape: str


def shapes(sources: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Pairs of places that share more than ``MAX_SHAPE`` lines, each pair once, by its longest run."""
    lines = [line for name, text in sorted(sources.items()) for line in shape_of(name, text)]
    places = defaultdict(list)
    for index in range(len(lines) - MAX_SHAPE):
        run = lines[index : index + MAX_SHAPE + 1]
        if run[0].place == run[-1].place:
            places[tuple(line.shape for line in run)].append(index)
    seen: set[tuple[int, int]] = set()
    for indices in places.values():
        for first, second in pairwise(indices):
            if second - first > MAX_SHAPE and (first - 1, second - 1) not in seen:
                length = MAX_SHAPE + 1
                while (
                    second + length < len(lines)
                    and lines[first + length].shape == lines[second + length].shape
                    and lines[second + length].place == lines[second].place
                    and lines[first + length].place == lines[first].place
                ):
                    length += 1
                yield (*(f"{lines[index].place}:{lines[index].number}" for index in (first, second)), length)
            seen.add((first, second))


def shape_of(name: str, text: str) -> Iterator[Line]:
    """Lines of code without docstrings, comments, imports and tables, whose rows are alike by nature."""
    tree = ast.parse(text)
    left_out = set()
    for node in ast.walk(tree):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        is_table = isinstance(node, (ast.Assign, ast.AnnAssign)) and node.col_offset == 0
        if is_text or is_table or isinstance(node, (ast.Import, ast.ImportFrom)):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    words: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.start[0] not in left_out and token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            words[token.start[0]].append(word_of(token))
    yield from (Line(name, number, " ".join(words[number])) for number in sorted(words) if any(words[number]))


def word_of(token: tokenize.TokenInfo) -> str:
    """A token without what may differ between two of the same shape."""
    if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
        return "name"
    return {tokenize.STRING: "string", tokenize.NUMBER: "number"}.get(token.type, token.string.strip())


if __name__ == "__main__":
    main()
