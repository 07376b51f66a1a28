"""Lists that tests of segments share."""

from __future__ import annotations

from pathlib import Path

DOG, ANIMAL, BARK, SPEECH, MUSIC = "/m/0bt9lr", "/m/0jbk", "/m/05tny_", "/m/09x0r", "/m/04rlf"
HEADER = (
    "# Segments csv created Sun Mar  5 10:54:25 2017",
    "# num_ytids=3, num_segs=3, num_unique_labels=4, num_positive_labels=5",
    "# YTID, start_seconds, end_seconds, positive_labels",
)
ROWS = (
    f'--4gqARaEJE, 0.000, 10.000, "{DOG},{ANIMAL}"',
    f'-_ByPmVMo_A, 20.000, 30.000, "{SPEECH}"',
    f'AE5oZzfu2-E, 239.800, 249.800, "{MUSIC},{SPEECH}"',
)


def write(path: Path, rows: tuple[str, ...] = ROWS, header: tuple[str, ...] = HEADER) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in (*header, *rows)).encode("utf-8", "surrogateescape"))
    return path
