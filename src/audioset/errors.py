"""One family of errors. Every message says what arrived, what was expected, and what to do next."""

from __future__ import annotations

from typing import ClassVar


def plain(text: str) -> str:
    r"""Text that moves no cursor of a terminal: what cannot be printed becomes such as ``\x1b``; ends of lines stay.

    Names of files and tensors, labels and whatever else a file says may hold any characters.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else escaped(char) for char in text)


def one_line(text: str) -> str:
    r"""The same on one line: ends of lines become ``\n``."""
    return text if text.isprintable() else "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    r"""Such as ``\x1b``; ``\xff`` also for a byte that Python smuggles through a name (PEP 383)."""
    byte = ord(char) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode("ascii")


class AudioSetError(Exception):
    """Root of every error that this package raises on purpose. Its message is ``plain``.

    Attributes
    ----------
    code : str
        Stable identifier of the kind of failure, as written in error rows.
    exit_code : int
        What the command line exits with when this error ends a run.
    """

    default_code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(plain(message))
        self.code = code or self.default_code


class UsageError(AudioSetError, ValueError):
    """An argument has a value that the function or command does not accept."""

    default_code = "usage"
    exit_code = 2


class AudioError(AudioSetError, ValueError):
    """Audio that cannot be read or used. ``docs/audio.md`` lists the codes."""

    default_code = "decode_failed"
    exit_code = 3


class AudioWarning(UserWarning):
    """Samples that can be used and hardly mean what they say: of another scale, or with channels that cancel."""


class NoInputError(AudioSetError, ValueError):
    """The inputs name no audio at all."""

    default_code = "no_input"
    exit_code = 4


class AssetError(AudioSetError, OSError):
    """A weight or label file is missing, cannot be fetched, or is not the published one."""

    default_code = "asset"
    exit_code = 5

    def __str__(self) -> str:
        # OSError formats its arguments as errno pairs; the message is the one argument here.
        return str(self.args[0])


class WeightsError(AudioSetError, ValueError):
    """A weight file does not hold the tensors that the network needs."""

    default_code = "weights"
    exit_code = 5


class DataError(AudioSetError, ValueError):
    """A file of the dataset is damaged, or is not what its name promises."""

    default_code = "data"
    exit_code = 3


class ConflictError(AudioSetError, ValueError):
    """What an earlier run left does not fit what this one asks for."""

    default_code = "conflict"
    exit_code = 6


class EngineError(AudioSetError, RuntimeError):
    """An inference engine or a precision is not available on this machine."""

    default_code = "engine"


class ExportError(AudioSetError, RuntimeError):
    """An exported model does not say what its model says, or cannot be loaded again. It was not kept."""

    default_code = "export"


class MissingExtraError(AudioSetError, ImportError):
    """A function needs a package that ``pip install audioset`` leaves out."""

    default_code = "missing_extra"

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        self._parts = purpose, package, extra
        super().__init__(
            f'{purpose} needs the package {package}, which is not installed. Next step: pip install "audioset[{extra}]"'
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return type(self), self._parts


class OutputError(AudioSetError, OSError):
    """Results cannot be written: the disk is full, or the place does not allow it."""

    default_code = "output"
    exit_code = 7

    def __str__(self) -> str:
        return str(self.args[0])
