"""Hostile recordings and folders, and a damaged cache."""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile
from hostile_place import (
    READ_OR_REFUSED,
    TAG_MODEL,
    Place,
    Write,
    hostile,
    tag,
)
from sandbox import Sandbox
from sounds import av_bytes, noise, sine, wav_bytes, wav_header

# recordings ----------------------------------------------------------------------------------------------------------


def _recording(name: str, make: Callable[[Place], bytes]) -> Write:
    def write(place: Place) -> list[str]:
        place.write(name, make(place))
        return tag("a.wav", name)

    return write


def _bomb(container: str, subtype: str, n_channels: int, seconds: float) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 48_000, n_channels, subtype, format=container) as sound:
        for _ in range(int(seconds * 48_000 / 65_536)):
            sound.write(np.zeros((65_536, n_channels), np.int16))
    return file.getvalue()


def _boxes(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = struct.pack(">I", len(data) + 8) + b"moov" + data
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + data


def _dref(place: Place) -> bytes:
    """A film whose samples lie in another file."""
    film = av_bytes(sine(440, 16_000, 0.5)[:, None], 16_000, "mov", "pcm_s16le")
    url = str(place.work.parent / "outside" / "victim.txt").encode() + b"\0"
    return film.replace(b"alis\0\0\0\1", b"url \0\0\0\0" + url[:0]).replace(b"url \0\0\0\1", b"url \0\0\0\0")


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
for _name, _file, _make in (
    ("a playlist of the network", "x.wav", lambda place: PLAYLIST.format("http://127.0.0.1:9/x.ts").encode()),
    ("a playlist of files", "x.mp3", lambda place: PLAYLIST.format("file:///etc/passwd").encode()),
    ("a list to join", "x.wav", lambda place: b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
    ("a session description", "x.wav", lambda place: b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"),
    ("FLAC that swells", "x.flac", lambda place: _bomb("FLAC", "PCM_16", 8, 300)),
    ("Vorbis that swells", "x.ogg", lambda place: _bomb("OGG", "VORBIS", 8, 300)),
    ("Vorbis of 255 channels", "x.ogg", lambda place: _bomb("OGG", "VORBIS", 255, 2)),
    ("MP3 of hours", "x.mp3", lambda place: _bomb("MP3", "MPEG_LAYER_III", 1, 1_200)),
    ("RIFF in RIFF", "x.wav", lambda place: b"".join(b"RIFF\xff\xff\xff\x7fWAVE" for _ in range(100_000))),
    ("chunks of no bytes", "x.wav", lambda place: b"RIFF\xff\xff\xff\x7fWAVE" + b"junk\0\0\0\0" * 500_000),
    ("a chunk of 4 GiB", "x.wav", lambda place: wav_header(2**32 - 40) + bytes(100)),
    ("65,535 channels", "x.wav", lambda place: wav_header(1 << 20, n_channels=65_535, bits=8) + bytes(1 << 20)),
    ("a rate of 0", "x.wav", lambda place: wav_header(1_000, 0) + bytes(1_000)),
    ("a rate of 2^31", "x.wav", lambda place: wav_header(1_000, 2**31 - 1) + bytes(1_000)),
    ("a tag of 256 MiB", "x.mp3", lambda place: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1_000)),
    ("tags in tags", "x.mp3", lambda place: b"ID3\x04\0\0\0\0\0\x0a" * 100_000),
    ("boxes in boxes", "x.mp4", lambda place: _boxes(20_000)),
    ("a film of another file", "x.mov", _dref),
    ("an element without end", "x.webm", lambda place: b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + bytes(10_000)),
    ("elements in elements", "x.mkv", lambda place: b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67\x01" * 50_000),
    (
        "an Ogg page without end",
        "x.ogg",
        lambda place: b"OggS\0\2" + bytes(20) + b"\xff" + b"\xff" * 255 + bytes(9_000),
    ),
):
    hostile(f"recording: {_name}", statuses=READ_OR_REFUSED)(_recording(_file, _make))


@hostile("recording: names for terminals and spreadsheets", statuses=(0,))
def _names(place: Place) -> list[str]:
    names = ["\x1b]0;owned\x07\x1b[31m.wav", "=cmd|' calc'!A1.wav", "line\nbreak.wav", "\udcff\udcfe.wav", "-o.wav"]
    for name in names:
        place.path(f"names/{name}").write_bytes(wav_bytes(noise(8_000), 16_000))
    return ["tag", "names", "--model", "model", "-q", "--format", "jsonl"]  # in CSV for programs, names are exact


@hostile("folder: a pipe, a socket, devices and links to itself", statuses=READ_OR_REFUSED)
def _folder(place: Place) -> list[str]:
    folder = place.path("folder/inner/x").parent.parent
    os.mkfifo(folder / "pipe.wav")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        here = Path.cwd()
        os.chdir(folder)  # names of sockets are short
        listener.bind("socket.wav")
        os.chdir(here)
    (folder / "zero.wav").symlink_to("/dev/zero")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "gone.wav").symlink_to("nowhere.wav")
    (folder / "inner" / "up").symlink_to("..")
    (folder / "folder.wav").mkdir()
    place.write("folder/whole.wav", wav_bytes(noise(16_000), 16_000))
    return tag("folder")


def _modules(arguments: Sequence[str]) -> Write:
    """Modules of the current folder that leave a canary where they are imported."""

    def write(place: Place) -> list[str]:
        for name in (
            "signal",
            "json",
            "queue",
            "numpy",
            "av",
            "soundfile",
            "audioset",
            "usercustomize",
            "struct",
            "ctypes",
        ):
            place.write(f"{name}.py", f"open({place.canary!r} + '-{name}', 'w')\nraise SystemExit(9)\n")
        place.write("birds/owl/a.wav", wav_bytes(noise(16_000), 16_000))
        place.write("birds/fox/b.wav", wav_bytes(noise(16_000, seed=1), 16_000))
        return [*arguments]

    return write


for _name, _arguments in {
    "tag": tag("a.wav"),
    "train check": ["train", "check", "birds"],
    "index": ["index", "a.wav", "--model", "model", "-q", "-o", "index"],
    "models list": ["models", "list"],
}.items():
    hostile(f"current folder: modules, {_name}", statuses=(0, 3), outputs=("index",))(_modules(_arguments))


# the cache -----------------------------------------------------------------------------------------------------------


def _cached(pattern: str, damage: Callable[[bytes], bytes]) -> Write:
    """A cache whose files of one kind are damaged after a run that made them."""

    def write(place: Place) -> list[str]:
        case = Sandbox(place.work.parent)
        case.run(TAG_MODEL, "first")
        for path in case.cache.rglob(pattern):
            path.chmod(0o644)
            path.write_bytes(damage(path.read_bytes()))
        return TAG_MODEL

    return write


def _noise_in(data: bytes) -> bytes:
    damaged = bytearray(data)
    rng = np.random.default_rng(len(data))
    for at in rng.integers(0, len(data), 50):
        damaged[at] = rng.integers(256)
    return bytes(damaged)


for _pattern in ("*.xml", "*.bin", "*.blob", "*.crc32c"):
    for _name, _damage in {
        "half of it": lambda data: data[: len(data) // 2],
        "nothing": lambda data: b"",
        "50 other bytes": _noise_in,
        "zeros": lambda data: bytes(len(data)),
    }.items():
        hostile(f"cache: {_name} in {_pattern}", statuses=(0,))(_cached(_pattern, _damage))
