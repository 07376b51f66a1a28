"""Text files that people and spreadsheets write: with or without a byte order mark, and any ends of lines."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path

from audioset.errors import DataError, one_line
from audioset.files import read_input

MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # of Excel and others: ZIP, and what was before
LABEL_SEPARATOR = ";"
LINE_END = re.compile("\r\n?|\n")
NOT_UTF8 = re.compile("[\ud800-\udfff]")
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # with apostrophes of its own before it, so that each is undone once
N_SHOWN = 60  # characters of a line, in messages


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or what its byte order mark says.

    Bytes that are not UTF-8 become lone surrogates, as in names of files: ``has_bytes`` finds them. ``DataError`` if it
    cannot be read, or is no text.
    """
    try:
        data = read_input(path)
        encoding = next((name for mark, name in MARKS if data.startswith(mark)), None)
        text = data.decode(encoding) if encoding else data.decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(
            f"{shown(path)} cannot be read: {error.strerror or error}. Next step: check its name"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(path)} begins as {encoding} and goes on otherwise: {error.reason}. Next step: save it as UTF-8"
        ) from error
    if data.startswith(WORKBOOKS):
        raise DataError(f"{shown(path)} is a workbook or an archive; expected text. Next step: save it as CSV (UTF-8)")
    if "\0" in text:
        raise DataError(
            f"{shown(path)} has NUL characters; expected text. Likely cause: UTF-16 without a byte order mark, or a "
            "binary file. Next step: save it as UTF-8"
        )
    return text


def lines_of(text: str) -> list[str]:
    """Lines, whatever ends them; other than ``splitlines``, nothing but line feeds and carriage returns does."""
    return LINE_END.split(text)


def has_bytes(text: str) -> bool:
    """Whether there were bytes that are not UTF-8."""
    return NOT_UTF8.search(text) is not None


def split_labels(text: str, place: str, separators: str = LABEL_SEPARATOR) -> tuple[str, ...]:
    """Names of classes in a cell with any of ``separators`` between them, each once.

    ``DataError`` if they are not UTF-8; ``place`` is said then.
    """
    if has_bytes(text):
        raise DataError(
            f"{place}: the label {shown(text)} is not UTF-8. Likely cause: a file in Latin-1 or another old encoding. "
            "Next step: save it as UTF-8"
        )
    return tuple(dict.fromkeys(filter(None, map(class_name, re.split(f"[{re.escape(separators)}]", text)))))


def harmless(cell: str) -> str:
    """A cell of CSV that no spreadsheet takes for a formula: those that begin as one get an apostrophe before them.

    Source: OWASP, "CSV Injection".
    """
    return f"'{cell}" if FORMULA.match(cell) else cell


def without_apostrophe(cell: str) -> str:
    """The cell that ``harmless`` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def class_name(text: str) -> str:
    """A name as classes are compared: composed characters (macOS takes names of folders apart), no spaces around."""
    return unicodedata.normalize("NFC", text).strip()


def shown(text: object) -> str:
    """Text for one line of a message: short, and nothing that moves a cursor or cannot be printed."""
    line = one_line(str(text))
    return line if isinstance(text, Path) or len(line) <= N_SHOWN else f"{line[: N_SHOWN - 1]}…"
