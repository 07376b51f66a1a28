"""Write the package's tree into docs/contributing.md: every room, with the first sentence of its docstring.

python tools/tree.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "audioset"
PAGE = ROOT / "docs" / "contributing.md"
BEGIN, END = "<!-- tree -->\n", "<!-- /tree -->\n"


def lines(folder: Path = SOURCE, indent: str = "") -> Iterator[str]:
    """One line for each module and package of a folder, packages with what is in them."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stem):
        if (path / "__init__.py").is_file():
            yield f"{indent}{path.name + '/':<{24 - len(indent)}} {first_sentence(path / '__init__.py')}"
            yield from lines(path, indent + "  ")
        elif path.suffix == ".py" and path.stem != "__init__":
            yield f"{indent}{path.name:<{24 - len(indent)}} {first_sentence(path)}"


def first_sentence(path: Path) -> str:
    """What a module says of itself."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return text.partition(". ")[0].rstrip(".")


def with_tree(page: str) -> str:
    """A page with today's tree between its marks."""
    head, _, rest = page.partition(BEGIN)
    return "".join((head, BEGIN, "```text\n", *(f"{line}\n" for line in lines()), "```\n", END, rest.partition(END)[2]))


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
