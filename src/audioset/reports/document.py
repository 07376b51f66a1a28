"""What a report consists of, and its two forms: Markdown, and an HTML page that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, TypeAlias

from audioset.errors import one_line
from audioset.reports.examples import Example
from audioset.reports.svg import Svg

# What Markdown reads as more than text, anywhere in a line. Single "_" between letters is none of it.
MARKDOWN = re.compile(r"[\\`*\[\]<>|&#~]|(?<!\w)_|_(?!\w)")
STYLE_SHEET = "page.css"


@dataclass(frozen=True)
class Heading:
    """Begins a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Headline:
    """Numbers that come first: of each its name, its value, and how sure it is."""

    numbers: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of texts."""

    # Those whose name begins with ``#`` hold numbers, and are set to the right; the mark is not shown
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""  # if there is one, a page shows it in place of the table, until one opens it


@dataclass(frozen=True)
class Picture:
    """A drawing and what it shows; in Markdown, a table of the same, or nothing where another table has it."""

    svg: Svg
    caption: str
    table: Table | None = None


@dataclass(frozen=True)
class Warnings:
    """What must be read before the numbers."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Clips:
    """Sounds to look at and to listen to: of each a picture and a player, and what is said of it."""

    examples: Sequence[Example]


Block: TypeAlias = Heading | Paragraph | Headline | Table | Picture | Warnings | Clips


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    subtitle: str
    blocks: Sequence[Block]


def to_markdown(document: Document) -> str:
    """The report as Markdown, in which no text of others can be more than text."""
    parts = [f"# {escape_markdown(document.title)}", escape_markdown(document.subtitle)]
    heading = ""
    for block in document.blocks:
        if isinstance(block, Heading):
            heading = f"## {escape_markdown(block.text)}"
        elif texts := list(MARKDOWN_FORMS[type(block)](block)):
            parts += [heading, *texts] if heading else texts  # a section of pictures alone has no heading either
            heading = ""
    return "\n\n".join(parts) + "\n"


def to_html(document: Document) -> str:
    """The report as one page: no scripts, nothing to fetch, and a policy that forbids both.

    Texts of others, such as labels and names of files, are escaped. The policy allows the page's own style sheet, by
    its digest, and nothing else; on a page with sounds, also the pictures and sounds that are within it.
    """
    style = _style_sheet()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    body = "\n".join(part for block in document.blocks for part in HTML_FORMS[type(block)](block))
    media = " img-src data:; media-src data:;" if any(isinstance(block, Clips) for block in document.blocks) else ""
    policy = f"default-src 'none'; style-src 'sha256-{digest}';{media} base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape_html(document.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape_html(document.title)}</h1>\n<p class='subtitle'>{escape_html(document.subtitle)}</p>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def escape_html(text: str) -> str:
    """Text that is only text in HTML, in one line."""
    return html.escape(one_line(text))


def escape_markdown(text: str) -> str:
    """Text that is only text in Markdown, in one line."""
    return MARKDOWN.sub(lambda match: f"\\{match[0]}", one_line(text))


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = [escape_markdown(column.removeprefix("#")) for column in columns]
    rules = ["---:" if column.startswith("#") else "---" for column in columns]
    lines = [heads, rules, *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_of_table(table: Table) -> Iterator[str]:
    if table.summary:
        yield f"### {escape_markdown(table.summary)}"
    yield _markdown_table(table.columns, table.rows)


def _markdown_of_picture(picture: Picture) -> Iterator[str]:
    if picture.table is not None:
        yield escape_markdown(picture.caption)
        yield from _markdown_of_table(picture.table)


def _html_of_headline(headline: Headline) -> Iterator[str]:
    yield "<dl class='headline'>"
    for name, value, detail in headline.numbers:
        shown = f"<dd class='detail'>{escape_html(detail)}</dd>" if detail else ""
        yield f"<div><dt>{escape_html(name)}</dt><dd>{escape_html(value)}</dd>{shown}</div>"
    yield "</dl>"


def _html_of_table(table: Table) -> Iterator[str]:
    if table.summary:
        yield f"<details><summary>{escape_html(table.summary)}</summary>"
    kinds = [" class='number'" if column.startswith("#") else "" for column in table.columns]
    heads = "".join(
        f"<th scope='col'{kind}>{escape_html(column.removeprefix('#'))}</th>"
        for kind, column in zip(kinds, table.columns, strict=True)
    )
    yield f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>"
    for row in table.rows:
        cells = zip(kinds, row, strict=True)
        yield "<tr>" + "".join(f"<td{kind}>{escape_html(cell)}</td>" for kind, cell in cells) + "</tr>"
    yield "</tbody></table></div>"
    if table.summary:
        yield "</details>"


def _html_of_warnings(warnings: Warnings) -> Iterator[str]:
    yield "<ul class='warnings' role='note'>"
    yield from (f"<li>{escape_html(text)}</li>" for text in warnings.texts)
    yield "</ul>"


def _html_of_clips(clips: Clips) -> Iterator[str]:
    yield "<div class='clips'>"
    for example in clips.examples:
        picture = (
            f"<img src='{example.picture}' alt='{example.shows}' title='{example.shows}'>" if example.picture else ""
        )
        sound = f"<audio controls preload='none' src='{example.sound}'></audio>" if example.sound else ""
        texts = f"<strong>{escape_html(example.title)}</strong><span>{escape_html(example.detail)}</span>"
        yield f"<div>{picture}{sound}{texts}</div>"
    yield "</div>"


@lru_cache(maxsize=1)
def _style_sheet() -> str:
    return resources.files("audioset.reports").joinpath(STYLE_SHEET).read_text(encoding="utf-8")


Forms: TypeAlias = dict[type, Callable[[Any], Iterator[str]]]

MARKDOWN_FORMS: Forms = {
    Paragraph: lambda block: iter([escape_markdown(block.text)]),
    Headline: lambda block: iter([_markdown_table(("measure", "#value", "interval"), block.numbers)]),
    Table: _markdown_of_table,
    Picture: _markdown_of_picture,
    Warnings: lambda block: iter(f"> **{escape_markdown(text)}**" for text in block.texts),
    Clips: lambda block: iter(
        [_markdown_table(("clip", "of"), [(each.title, each.detail) for each in block.examples])]
    ),
}
HTML_FORMS: Forms = {
    Heading: lambda block: iter([f"<h2>{escape_html(block.text)}</h2>"]),
    Paragraph: lambda block: iter([f"<p>{escape_html(block.text)}</p>"]),
    Headline: _html_of_headline,
    Table: _html_of_table,
    Picture: lambda block: iter(
        [f"<figure>{block.svg.to_text()}<figcaption>{escape_html(block.caption)}</figcaption></figure>"]
    ),
    Warnings: _html_of_warnings,
    Clips: _html_of_clips,
}
