"""Recognise audio files by their contents: which container, who reads it, and where in it another file begins.

libsndfile reads what its flag says, and FFmpeg everything. A container is recognised by its first bytes, never by its
name, and FFmpeg is told which one it is, so a playlist renamed ``.wav`` opens nothing.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal

from audioset.audio.mpeg import find_frames, id3_size
from audioset.errors import AudioError

HEAD_BYTES = 512  # where the marks of every container are
SEARCH_BYTES = 1 << 18  # how far from the start, or from the end of the tags, frames of MPEG audio are looked for
CHUNK_BYTES = 1 << 20
MARK_BYTES = 64  # no mark below is longer


@dataclass(frozen=True)
class Container:
    """A file format: how it begins, and who reads it.

    ``clock`` says where seconds are counted from: ``"zero"`` of the container's own clock; ``"earliest"``, the first
    moment of any of its streams, where the clock begins anywhere; or ``""``, the first sample, where there is no clock.
    """

    name: str
    start: bytes  # a regular expression that its first bytes match
    ffmpeg_format: str  # the demuxer that FFmpeg is pinned to; empty for what nobody here reads
    is_libsndfiles: bool = False  # libsndfile reads it, and FFmpeg what libsndfile cannot
    clock: str = ""


CONTAINERS = (
    Container("WAV", rb"RIF[FX]....WAVE", "wav", True),
    Container("RF64", rb"RF64....WAVE", "wav", True),
    Container("BW64", rb"BW64....WAVE", "wav"),
    Container("W64", rb"riff\x2e\x91\xcf\x11", "w64", True),
    Container("FLAC", rb"fLaC", "flac", True, "earliest"),
    Container("Ogg Vorbis", rb"OggS.{24}\x01vorbis", "ogg", True, "earliest"),
    Container("Ogg Opus", rb"OggS.{24}OpusHead", "ogg", True, "earliest"),
    Container("Ogg FLAC", rb"OggS.{24}\x7fFLAC", "ogg", True, "earliest"),
    Container("AIFF", rb"FORM....AIF[FC]", "aiff", True),
    Container("CAF", rb"caff", "caf", True),
    Container("AU", rb"\.snd", "au", True),
    Container("Ogg", rb"OggS", "ogg", clock="earliest"),
    Container("MP4", rb"....ftyp", "mov", clock="zero"),
    Container("QuickTime", rb"....(?:moov|mdat|wide)", "mov", clock="zero"),
    Container("WebM", rb"\x1a\x45\xdf\xa3", "matroska", clock="zero"),
    Container("AVI", rb"RIFF....AVI ", "avi", clock="zero"),
    Container("FLV", rb"FLV\x01", "flv", clock="earliest"),
    Container("WMA", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", clock="earliest"),
    Container("MPEG-TS", rb"\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47", "mpegts", clock="earliest"),
    Container("MPEG-PS", rb"\x00\x00\x01\xba", "mpeg", clock="earliest"),
    Container("AC-3", rb"\x0b\x77...[\x00-\x57]", "ac3"),
    Container("E-AC-3", rb"\x0b\x77...[\x58-\x87]", "eac3"),
    Container("DTS", rb"\x7f\xfe\x80\x01", "dts"),
    Container("AMR", rb"#!AMR", "amr"),
    Container("WavPack", rb"wvpk", "wv"),
    Container("TTA", rb"TTA1", "tta"),
    Container("Monkey's Audio", rb"MAC ", "ape"),
    Container("Musepack", rb"MPCK", "mpc8"),
    Container("Musepack", rb"MP\+", "mpc"),
    Container("VOC", rb"Creative Voice File", "voc"),
    Container("SPHERE", rb"NIST_1A", "nistsphere"),
    Container("DSF", rb"DSD ", "dsf"),
    Container("DSDIFF", rb"FRM8", "iff"),
    Container("RealMedia", rb"\.ra\xfd|\.RMF", "rm"),
    Container("Shorten", rb"ajkg", "shn"),
    # Audio for which there is no decoder here, or only one with a known fault.
    Container("MIDI", rb"MThd", ""),
    Container("TAK", rb"tBaK", ""),
    Container("OptimFROG", rb"OFR ", ""),
)
MP3 = Container("MP3", b"", "mp3", True)
# Written to a pipe, so without a length. libsndfile cannot read such FLAC; of such MP3 it guesses the length from
# the first frame's bit rate, and stops there.
STREAMED_FLAC = Container("FLAC", b"", "flac", clock="earliest")
STREAMED_MP3 = Container("MP3", b"", "mp3")
AAC = Container("AAC", b"", "aac")
LATM = Container("AAC (LATM)", b"", "loas")

MP3_LENGTH = re.compile(b"Xing|Info|VBRI")
NOT_AUDIO = re.compile(rb"PK|%PDF|\x89PNG|GIF8|\xff\xd8\xff|\x7fELF|\x1f\x8b|.{257}ustar", re.DOTALL)
TAG = re.compile(rb"TAG|ID3|APETAGEX|LYRICSBEGIN")
LONG_TAG = re.compile(rb"ID3[\x02-\x04]\x00.[\x00-\x7f]{4}|APETAGEX.{24}", re.DOTALL)
APE_HEAD_BYTES, APE_IS_HEADER = 32, 1 << 29
ZEROS = re.compile(rb"\x00+")

# How files of those containers begin that people join end to end.
JOINTS = {
    "WAV": re.compile(rb"RIFF....WAVE", re.DOTALL),
    "RF64": re.compile(rb"R(?:F64|IFF)....WAVE", re.DOTALL),
    "AIFF": re.compile(rb"FORM....AIF[FC]", re.DOTALL),
    "FLAC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"),
    "Ogg": re.compile(rb"OggS\x00[\x02\x03\x06\x07]"),  # the first page of a stream
}
MAX_TAG_WINDOWS = 8  # of so many MiB may the pictures be that stand between joined files
MAX_PAGE_BYTES = 27 + 255 + 255 * 255
FLAC_AHEAD_BYTES = 1 << 16  # by how much libFLAC, which reads ahead, may have passed a joint
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Chunks:
    """How a container is made of chunks: where the first begins, how sizes are written, and which hold samples."""

    first: int
    byteorder: Literal["little", "big"]
    size_bytes: int
    samples: bytes


CHUNKS = {  # by the first bytes of a file
    b"RIFF": Chunks(12, "little", 4, rb"data|LIST(?=.{4}movi)"),
    b"RF64": Chunks(12, "little", 4, rb"data"),
    b"RIFX": Chunks(12, "big", 4, rb"data"),
    b"FORM": Chunks(12, "big", 4, rb"SSND"),
    b"caff": Chunks(8, "big", 8, rb"data"),
}
# After a chunk of odd length stands a byte of padding, which some writers forget: then one of these is there instead.
FORGOTTEN_PADDING = re.compile(rb"fmt |data|fact|LIST|bext|COMM|SSND")
CHUNK_NAME = re.compile(rb"[ -~]{4}")
MAX_CHUNKS = 10_000
# Writers that cannot go back to the header put sizes in these ranges there, and mean none.
OPEN_SIZES = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000), range(1 << 62, 1 << 64))


def sniff_container(file: BinaryIO, n_bytes: int) -> Container:
    """Recognise a container by its first bytes; the file is left at its start.

    ``AudioError`` with code ``not_audio``, or ``unsupported_format`` for a kind of audio that nobody here reads.
    """
    start, is_tagged = _skip_tags(file)
    data = read_at(file, start, HEAD_BYTES)
    container = _by_mark(data) or _by_frames(file, start, is_tagged)
    file.seek(0)
    if container is None:
        begin = read_at(file, 0, 24).decode("latin-1").encode("unicode_escape").decode("ascii")
        file.seek(0)
        raise AudioError(
            f"the file ({n_bytes:,} bytes) begins with '{begin}', which is no audio format known here. Likely cause: "
            "text, a playlist or an unfinished download under an audio file's name. Known: "
            f"{', '.join(known_formats())}",
            code="not_audio",
        )
    if not container.ffmpeg_format:
        raise AudioError(
            f"the file is {container.name}, which is not read here. Next step: convert it to WAV or FLAC",
            code="unsupported_format",
        )
    return container


def known_formats() -> list[str]:
    """Names of the containers that can be read."""
    readable = (container.name for container in (*CONTAINERS, MP3, AAC, LATM) if container.ffmpeg_format)
    return list(dict.fromkeys(readable))


def find_joint(file: BinaryIO, container: Container, end: int) -> int | None:
    """Where another file begins behind one that ended at about ``end``; None if there is none."""
    mark = JOINTS.get(container.name.split()[0])
    if mark is None:
        return None
    if container.name.startswith("Ogg"):  # libogg may have read any number of short files behind
        first = _end_of_first_pages(file)
    else:
        first = max(_skip_tags(file)[0] + 4, end - (FLAC_AHEAD_BYTES if container.name == "FLAC" else 0))
    for start, data in _windows(file, first):
        if match := mark.search(data):
            return start + match.start()
    return None


def holds_frames(file: BinaryIO, start: int) -> bool:
    """Whether frames of MPEG audio follow, and not only tags, zeros or noise."""
    return any(find_frames(data) is not None for _, data in islice(_windows(file, start), MAX_TAG_WINDOWS))


def find_tags(file: BinaryIO, start: int, end: int) -> list[range]:
    """Where ID3 and APE tags stand in a part of a file."""
    tags = []
    for window_start, data in _windows(file, start):
        for match in LONG_TAG.finditer(data):
            at, head = window_start + match.start(), match[0]
            if head.startswith(b"ID3"):
                tags.append(range(at, at + 10 + id3_size(head)))
            else:
                n_bytes, flags = (int.from_bytes(head[place : place + 4], "little") for place in (12, 20))
                first = at if flags & APE_IS_HEADER else at - n_bytes
                tags.append(range(first, first + APE_HEAD_BYTES + n_bytes))
        if window_start + len(data) >= end:
            break
    return tags


def n_unexplained_bytes(file: BinaryIO, end: int, n_bytes: int, *, zeros_are_samples: bool) -> int:
    """How many bytes follow the samples of a file of chunks that are no chunks, tags or padding."""
    layout = CHUNKS.get(read_at(file, 0, 4))
    if TAG.match(read_at(file, end, 16)):
        return 0
    # A chunk of odd length has a byte behind it, or should have.
    if layout and any(_is_chunk(file, at, layout, n_bytes) for at in (end, end + 1)):
        return 0
    if not zeros_are_samples and not any(data.strip(b"\x00") for _, data in _windows(file, end)):
        return 0
    return n_bytes - end


def with_open_length(file: BinaryIO) -> BinaryIO:
    """The same file with a head that leaves the length of the samples open, so that they reach to its end."""
    magic = read_at(file, 0, 4)
    if magic == b".snd":
        return io.BufferedReader(FileFrom(file, 12, read_at(file, 0, 8) + b"\xff" * 4))
    if (found := _find_samples(file)) is None:
        return file
    start, _ = found
    n_size_bytes = CHUNKS[magic].size_bytes
    head = read_at(file, 0, start - n_size_bytes) + b"\xff" * n_size_bytes
    return io.BufferedReader(FileFrom(file, start, head.replace(b"RF64", b"RIFF", 1) if magic == b"RF64" else head))


def with_plain_head(file: BinaryIO) -> BinaryIO | None:
    """A WAV file without the chunks before its samples but their format; None if it lacks that, or the samples."""
    magic = read_at(file, 0, 4)
    chunk = next((chunk for chunk in _chunks(file) if chunk[0] == b"fmt "), None)
    found = _find_samples(file)
    if magic not in (b"RIFF", b"RF64") or chunk is None or found is None:
        return None
    (_, format_start, format_bytes), (start, n_bytes) = chunk, found
    sizes = format_bytes.to_bytes(4, "little"), n_bytes.to_bytes(4, "little")
    head = b"RIFF\xff\xff\xff\xffWAVEfmt " + sizes[0] + read_at(file, format_start, format_bytes) + b"data" + sizes[1]
    return io.BufferedReader(FileFrom(file, start, head))


def how_it_is_cut(file: BinaryIO, container: Container, n_bytes: int) -> str:
    """What in a file's own structure says that it was cut; empty if nothing does."""
    if container.name.startswith("Ogg"):
        return "ends in the middle of a page" if _ends_within_page(file, n_bytes) else ""
    if container.name == "MPEG-TS":
        packet_bytes = 188 if read_at(file, 0, 1) == b"\x47" else 192
        return "ends in the middle of a packet" if n_bytes % packet_bytes else ""
    if (found := _find_samples(file)) is None:
        return ""
    start, promised = found
    if start + promised <= n_bytes or any(promised in sizes for sizes in OPEN_SIZES):
        return ""
    return f"holds {n_bytes - start:,} of the {promised:,} bytes of samples that its header promises"


def pages_are_whole(file: BinaryIO) -> bool:
    """Whether the pages of an Ogg file follow one another, each with the checksum that it should have."""
    at = 0
    while (head := read_at(file, at, 27))[:5] == b"OggS\x00" and len(head) == 27:
        sizes = file.read(head[26])
        page = head[:22] + bytes(4) + head[26:] + sizes + file.read(sum(sizes))
        # Ogg's checksum has the bits of each byte the other way round than zlib's, and begins with 0.
        checksum = ~zlib.crc32(page.translate(REVERSED_BITS), 0xFFFF_FFFF) & 0xFFFF_FFFF
        if checksum.to_bytes(4, "big").translate(REVERSED_BITS) != head[22:26]:
            return False
        at += len(page)
    return not any(b"OggS\x00" in data for _, data in _windows(file, at))


def _ends_within_page(file: BinaryIO, n_bytes: int) -> bool:
    start = max(0, n_bytes - MAX_PAGE_BYTES)
    data = read_at(file, start, MAX_PAGE_BYTES)
    at = data.rfind(b"OggS\x00")
    head = data[at : at + 27]
    if at < 0:
        return False
    return len(head) < 27 or at + 27 + head[26] + sum(data[at + 27 : at + 27 + head[26]]) > len(data)


def wav_format_tag(file: BinaryIO) -> str:
    """How a WAV or AVI file calls the encoding of its sound, for messages; empty if it does not."""
    head = read_at(file, 0, 1 << 16)
    at = head.find(b"fmt ")
    return f" (WAV format 0x{int.from_bytes(head[at + 8 : at + 10], 'little'):04x})" if at > 0 else ""


def read_at(file: BinaryIO, start: int, n_bytes: int) -> bytes:
    """Up to so many bytes from a position on."""
    file.seek(start)
    return file.read(n_bytes)


class FileFrom(io.RawIOBase):
    """A file from a position to its end, as a file of its own, perhaps with another head."""

    def __init__(self, file: BinaryIO, start: int, head: bytes = b"") -> None:
        self._file, self._start, self._head, self._at = file, start, head, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; a place before the start is an ``OSError``, as in any file."""
        n_bytes = len(self._head) + self._file.seek(0, os.SEEK_END) - self._start
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: n_bytes}[whence]
        if self._at < 0:
            raise OSError(f"position {self._at} is before the start of the file")
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return how many bytes there were."""
        data = self._head[self._at : self._at + len(buffer)]
        if not data:
            data = read_at(self._file, self._start + self._at - len(self._head), len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _chunk_head(file: BinaryIO, at: int, layout: Chunks) -> tuple[bytes, int]:
    """Name and size of a chunk; no name where there is none."""
    head = read_at(file, at, 4 + layout.size_bytes)
    return head[:4] if len(head) == 4 + layout.size_bytes else b"", int.from_bytes(head[4:], layout.byteorder)


def _is_chunk(file: BinaryIO, at: int, layout: Chunks, n_bytes: int) -> bool:
    name, size = _chunk_head(file, at, layout)
    return bool(CHUNK_NAME.fullmatch(name)) and at + 4 + layout.size_bytes + size <= n_bytes + 1


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk, where its contents begin, and their size; nothing if the file is not made of chunks."""
    layout = CHUNKS.get(read_at(file, 0, 4))
    if layout is None:
        return
    at, n_bytes = layout.first, file.seek(0, os.SEEK_END)
    for _ in range(MAX_CHUNKS):
        name, size = _chunk_head(file, at, layout) if at < n_bytes else (b"", 0)
        if not CHUNK_NAME.fullmatch(name):
            return
        start = at + 4 + layout.size_bytes
        yield name, start, size
        at = start + size
        if layout.size_bytes == 4 and size % 2 and not FORGOTTEN_PADDING.match(read_at(file, at, 4)):
            at += 1


def _find_samples(file: BinaryIO) -> tuple[int, int] | None:
    """Where a file's samples begin, and how many bytes its header promises of them."""
    layout = CHUNKS.get(read_at(file, 0, 4))
    for _, start, size in _chunks(file):
        if layout and re.match(layout.samples, read_at(file, start - 4 - layout.size_bytes, 12), re.DOTALL):
            return start, size
    return None


def _skip_tags(file: BinaryIO) -> tuple[int, bool]:
    """Where the audio begins behind ID3 tags, of which there may be several, and the zeros that follow them."""
    start = 0
    while (head := read_at(file, start, 10))[:3] == b"ID3" and len(head) == 10:
        start += 10 + id3_size(head)
        if zeros := ZEROS.match(read_at(file, start, SEARCH_BYTES)):
            start += zeros.end()
    return start, start > 0


def _by_mark(head: bytes) -> Container | None:
    for container in CONTAINERS:
        if re.match(container.start, head, re.DOTALL):
            return STREAMED_FLAC if container.name == "FLAC" and _flac_length(head) == 0 else container
    return None


def _flac_length(head: bytes) -> int:
    """Samples that a FLAC header promises: 36 bits of STREAMINFO, 0 for unknown."""
    return int.from_bytes(head[21:26], "big") & 0xF_FFFF_FFFF


def _by_frames(file: BinaryIO, start: int, is_tagged: bool) -> Container | None:
    """MPEG audio, which has no header but frames; also behind zeros or the rest of a frame."""
    if not is_tagged and NOT_AUDIO.match(read_at(file, 0, HEAD_BYTES)):
        return None
    data = read_at(file, start, SEARCH_BYTES)
    at = find_frames(data)
    if at is None and is_tagged:  # the tag may lie about its length
        data = read_at(file, 10, SEARCH_BYTES)
        at = find_frames(data)
    if at is None:
        return STREAMED_MP3 if is_tagged else None
    frame = data[at : at + HEAD_BYTES]
    if frame[0] != 0xFF:
        return LATM
    if not frame[1] & 0x06:
        return AAC
    return MP3 if at == 0 and MP3_LENGTH.search(frame) else STREAMED_MP3


def _end_of_first_pages(file: BinaryIO) -> int:
    """Where the pages end that begin the streams of an Ogg file: together they are no joint."""
    at = 0
    while (head := read_at(file, at, 27))[:4] == b"OggS" and len(head) == 27 and head[5] & 2:
        at += 27 + head[26] + sum(read_at(file, at + 27, head[26]))
    return at


def _windows(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """The bytes from a position to the end, in pieces that overlap by a mark's length."""
    while len(data := read_at(file, start, CHUNK_BYTES)) > 0:
        yield start, data
        if len(data) < CHUNK_BYTES:
            return
        start += CHUNK_BYTES - MARK_BYTES
