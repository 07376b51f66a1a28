"""What the formats that describe one recording have in common."""

from __future__ import annotations

from audioset.errors import UsageError, one_line


class OneRecording:
    """Refuses a second recording in one file.

    Parameters
    ----------
    format_name : str
        For the message.
    """

    def __init__(self, format_name: str) -> None:
        self._format_name = format_name
        self._path: str | None = None

    def check(self, path: str) -> None:
        """Remember the first recording, and raise UsageError for any other."""
        if self._path not in (None, path):
            raise UsageError(
                f"a second recording, {one_line(path)}, in one {self._format_name} file, which describes one "
                "recording. Next step: give a folder as --output, which gets one file for each recording, or choose "
                "another format, such as csv or dcase"
            )
        self._path = path
