"""What has happened to a copy of a published table, as its first strange line tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audioset.errors import DataError

SPREADSHEET_ROWS = 1_048_576
SHOWN = 80

REPAIR = "Next step: audioset data segments repair FILE OFFICIAL, with the published list, or fetch it again"
FETCH = "Next step: audioset data fetch segments"
SPREADSHEET = "Likely cause: a spreadsheet opened and saved the list"

EXPECTED = '<id of 11 characters>, 30.000, 40.000, "/m/09x0r,/m/05zppz"'
# What is left of the header, however it was quoted, split or cut.
HEADER_WORDS = re.compile(rb"segments csv|num_ytids|num_segs|YTID|positive_labels", re.IGNORECASE)
ROW_BEGINS = re.compile(rb'[\s"]*[\w-]{11}[\s"]*[,;\t]')
PAGE = re.compile(rb"\s*<|.*\b(?:error|denied|not found)\b", re.IGNORECASE | re.DOTALL)
EXPECTED_HEADER = "three lines: when it was created, its counts, and the names of its four columns"


@dataclass(frozen=True)
class Symptom:
    """How a kind of damage looks, and what to say of it."""

    pattern: re.Pattern[bytes]
    what: str
    cause: str
    step: str


@dataclass(frozen=True)
class Damage:
    """A line that is no row."""

    path: Path
    line_number: int  # from 1, the header included
    line: bytes  # without its end
    is_cut: bool = False  # whether the file ends in it, without the end of a line


def _symptom(pattern: bytes, what: str, cause: str, step: str) -> Symptom:
    return Symptom(re.compile(pattern, re.DOTALL), what, cause, step)


@dataclass(frozen=True)
class Form:
    """What a row should look like, what may have happened to it, and what to do if nothing is known to have."""

    expected: str
    symptoms: tuple[Symptom, ...]
    fetch: str


RE_EXPORT = "Likely cause: a spreadsheet or another program wrote the list anew"

# The first that fits is meant.
SYMPTOMS = (
    _symptom(rb"\xff\xfe|\xfe\xff", "the text is UTF-16", SPREADSHEET, REPAIR),
    _symptom(rb"[^\0]*\0", "there is a NUL byte", "Likely cause: a write that was cut short, or UTF-16", FETCH),
    _symptom(
        rb"\xef\xbb\xbf", "there is a byte order mark", "Likely cause: a spreadsheet, or an editor on Windows", REPAIR
    ),
    _symptom(rb"\s*$", "the line is empty", "Likely cause: the list was edited by hand", REPAIR),
    _symptom(rb'"?#(?:NAME|VALUE|REF|N/A|NUM|NULL|DIV)', "the id is a spreadsheet's error", SPREADSHEET, REPAIR),
    _symptom(rb"#", "there is a comment among the rows", "Likely cause: two copies were joined", FETCH),
    _symptom(
        rb'.*"" ?"" ?|.*" *""|.*"""', "quotes are doubled and labels are spread over columns", SPREADSHEET, REPAIR
    ),
    _symptom(
        rb".*\r$",
        "the line ends as on Windows (CR LF)",
        "Likely cause: a spreadsheet, an editor, or git's autocrlf",
        REPAIR,
    ),
    _symptom(rb'[\w-]{11},[^ "]', "there is no blank after the commas", RE_EXPORT, REPAIR),
    _symptom(rb'[\w-]{11}, \d+(?:\.\d+)?, \d+(?:\.\d+)?, [^"]', "the labels are not quoted", RE_EXPORT, REPAIR),
    _symptom(
        rb'[\w-]{11}, \d+(?:\.\d+)?, \d+(?:\.\d+)?, "[^"]*"$', "times lack their three decimals", RE_EXPORT, REPAIR
    ),
    _symptom(rb"(?![\w-]{11},)[^,]*,", "the id is no id of a video", SPREADSHEET, REPAIR),
    _symptom(rb"", "it is no row", "Likely cause: another file, or an edited copy", FETCH),
)


SEGMENTS_FORM = Form(EXPECTED, SYMPTOMS, FETCH)

FETCH_STRONG = "Next step: audioset data fetch strong"
STRONG_SYMPTOMS = (
    *(replace(symptom, step=FETCH_STRONG) for symptom in SYMPTOMS[:5]),
    _symptom(rb".*\r$", "the line ends as on Windows (CR LF)", "Likely cause: an editor", FETCH_STRONG),
    _symptom(rb"[^\t]*$", "there are no tabs", RE_EXPORT, FETCH_STRONG),
    _symptom(rb"[^\t]*_\d+\t", "a time, the label or a column is not as published", RE_EXPORT, FETCH_STRONG),
    _symptom(rb"", "it is no row", "Likely cause: another file, or an edited copy", FETCH_STRONG),
)
STRONG_FORM = Form("<id of 11 characters>_30000, 2.627, 7.237, /m/053hz1, with tabs", STRONG_SYMPTOMS, FETCH_STRONG)
FRAMED_FORM = replace(
    STRONG_FORM, expected="<id of 11 characters>_30000, 0.960, 1.920, /m/053hz1, PRESENT or NOT_PRESENT, with tabs"
)


def explain_row(damage: Damage, form: Form) -> DataError:
    """The error for a line that is no row."""
    where = f"{damage.path}, line {damage.line_number}"
    if damage.is_cut:
        return DataError(
            f"{where}: the file ends within a row, {shown(damage.line)}; expected {form.expected}. "
            f"Likely cause: a download that was cut short, or a full disk. {form.fetch}"
        )
    if not _is_utf8(damage.line) and not damage.line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return DataError(
            f"{where}: there are bytes that are not UTF-8, {shown(damage.line)}; expected {form.expected}. "
            f"Likely cause: damage on the disk or on the way. {form.fetch}"
        )
    symptom = next(symptom for symptom in form.symptoms if symptom.pattern.match(damage.line))
    return DataError(
        f"{where}: {symptom.what}: {shown(damage.line)}; expected {form.expected}. {symptom.cause}. {symptom.step}"
    )


def explain_header(path: Path, lines: Sequence[bytes]) -> DataError:
    """The error for the first three lines, if they are not as published."""
    text = b"".join(lines)
    symptom = next((symptom for symptom in SYMPTOMS[:3] if symptom.pattern.match(text)), None)
    if symptom:
        return DataError(f"{path}, line 1: {symptom.what}; expected {EXPECTED_HEADER}. {symptom.cause}. {symptom.step}")
    if not text:
        return DataError(f"{path} is empty; expected {EXPECTED_HEADER}. Likely cause: a download that failed. {FETCH}")
    cause, step = _header_cause(lines, text)
    number = next((number for number, line in enumerate(lines, 1) if not line.startswith(b"# ")), 1)
    return DataError(
        f"{path}, line {number}: the header is {shown(lines[number - 1])}; expected {EXPECTED_HEADER}. {cause}. {step}"
    )


def _header_cause(lines: Sequence[bytes], text: bytes) -> tuple[str, str]:
    """Why the first lines are not as published, and what to do."""
    if PAGE.match(lines[0]):
        return "Likely cause: another file, such as an error page", FETCH
    if b"\r" in text and not (b",," in text or b";" in text or b"\t" in text):
        return (
            "It has the line ends of Windows (CR LF). Likely cause: a spreadsheet, an editor, or git's autocrlf",
            REPAIR,
        )
    if b",," in text or text.startswith(b'"#') or b";" in text or b"\t" in text:
        return SPREADSHEET, REPAIR
    if HEADER_WORDS.search(text) or ROW_BEGINS.match(lines[0]):
        return RE_EXPORT, REPAIR
    return "Likely cause: another file", FETCH


def explain_count(path: Path, name: str, n_found: int, n_promised: int, n_lines: int) -> DataError:
    """The error for a header that promises something else than the rows hold."""
    what = f"{path}: the rows make {name}={n_found:,}, and the header in line 2 says {n_promised:,}"
    if name in ("num_ytids", "num_segs") and n_found < n_promised and abs(n_lines - SPREADSHEET_ROWS) <= 3:
        return DataError(
            f"{what}. Likely cause: a spreadsheet, which keeps {SPREADSHEET_ROWS:,} lines and drops the rest. {FETCH}"
        )
    if name in ("num_ytids", "num_segs") and n_found < n_promised:
        return DataError(f"{what}. Likely cause: a download that was cut short, or removed rows. {FETCH}")
    return DataError(
        f"{what}. Likely cause: rows were changed by hand. Next step: fetch it again, or let "
        "audioset data segments select write a list of your own, with a header that fits"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def shown(line: bytes) -> str:
    """The beginning of a line, in quotes, so that nothing in it can move a cursor."""
    text = line.removesuffix(b"\n").decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
