"""Sound while it is heard: from a microphone, or as raw samples from a pipe."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from audioset.errors import AudioError, MissingExtraError
from audioset.stopping import ASKING

if TYPE_CHECKING:
    from audioset.arrays import Array

STDIN, MICROPHONE = "-", "microphone"
READ_BYTES = 65_536
BLOCKS_PER_S = 10


@dataclass(frozen=True)
class LiveAudio:
    """Where samples come from; without a rate, they have the model's."""

    name: str
    sample_rate: int | None
    blocks: Generator[Array, None, None]


def raw_blocks(file: BinaryIO, dtype: str, n_channels: int, say: Callable[[str], None]) -> Generator[Array, None, None]:
    """Read samples (n, n_channels) of raw bytes as they arrive; ``say`` is told of bytes that are left over."""
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)  # does not wait until all are there
    frame_bytes = np.dtype(dtype).itemsize * n_channels
    rest = b""
    while data := read(READ_BYTES):
        data = rest + data
        n_whole = len(data) // frame_bytes * frame_bytes
        rest = data[n_whole:]
        yield np.frombuffer(data[:n_whole], dtype).reshape(-1, n_channels)
    if rest:
        say(
            f"warning: {STDIN}: the stream ends within a sample, whose {len(rest)} bytes of {frame_bytes} are not "
            "used. Likely cause: it was cut, or --encoding or --channels is not what it has"
        )


def open_microphone(
    name: str | None, sample_rate: int | None, n_channels: int, say: Callable[[str], None]
) -> LiveAudio:
    """Open a microphone, by number or part of its name, at its own rate unless another is given."""
    sounddevice = _import_sounddevice()
    device = int(name) if name and name.isdigit() else name
    try:
        found = sounddevice.query_devices(device, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        raise _no_microphone(error) from error
    sample_rate = sample_rate or round(found["default_samplerate"])
    settings = {"device": device, "samplerate": sample_rate, "channels": n_channels, "dtype": "float32"}
    return LiveAudio(MICROPHONE, sample_rate, _microphone_blocks(sounddevice, settings, say))


def _microphone_blocks(
    sounddevice: Any, settings: Mapping[str, Any], say: Callable[[str], None]
) -> Generator[Array, None, None]:
    """Read samples (n, n_channels) as they are recorded, without end."""
    try:
        with sounddevice.InputStream(**settings) as microphone:
            say(f"listening at {settings['samplerate']:,} Hz; Ctrl-C ends")
            while True:
                block, is_overflown = microphone.read(max(1, settings["samplerate"] // BLOCKS_PER_S))
                if is_overflown:
                    say("warning: samples were lost: this machine computes more slowly than it records")
                yield block
    except sounddevice.PortAudioError as error:
        raise _no_microphone(error) from error


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("a microphone", "sounddevice", "listen") from error
    except OSError as error:  # its own library, which pip does not bring on Linux
        raise _no_microphone(error) from error
    return sounddevice


def _no_microphone(error: Exception) -> AudioError:
    return AudioError(
        f"the microphone cannot be used: {error}. Next step: python -m sounddevice lists what there is, for --device; "
        "on Linux, the package libportaudio2 has to be installed",
        code="unreadable",
    )


class Interruption:
    """Ctrl-C, and what acts like it, as a wish to end: it cuts short a wait, never the work. The second one kills."""

    def __init__(self) -> None:
        self.is_asked = False
        self._is_waiting = False

    def __enter__(self) -> Interruption:
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, *ASKING)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        was_asked, self.is_asked = self.is_asked, True
        if was_asked or self._is_waiting:
            raise KeyboardInterrupt

    def until(self, blocks: Iterator[Array]) -> Iterator[Array]:
        """The blocks up to the first Ctrl-C."""
        while not self.is_asked:
            try:
                self._is_waiting = True
                block = next(blocks, None)
                self._is_waiting = False
            except KeyboardInterrupt:
                self._is_waiting = False
                return
            if block is None:
                return
            yield block
