"""The picture of a clip: an MP4 file of H.264, with or without its sound.

The sound is the clip's own, exact to the sample. The picture is exact to the frame: picture ``n`` is the one that the
video shows at ``start_s + n / frame_rate``.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from audioset.audio.decoders import decoding_errors
from audioset.dataset.download.media import open_container
from audioset.errors import AudioError

QUALITY = {"crf": "18", "preset": "medium"}
AUDIO_BITS_PER_S = 192_000
DEFAULT_FRAME_RATE = 30


def cut_video(
    source: Path, audio: Path | None, target: Path, start_s: float, end_s: float, frame_rate: int | None = None
) -> None:
    """Write the pictures from ``start_s`` to ``end_s`` as MP4, with the clip's sound; by default at the mean rate."""
    import av
    import av.error

    with open_container(source) as container:
        if container is None or not container.streams.video:
            raise AudioError("what was fetched has no pictures", code="decode_failed")
        stream = container.streams.video[0]
        rate = Fraction(frame_rate or stream.average_rate or DEFAULT_FRAME_RATE)
        pictures = _decoded(_shown(container, stream, rate, start_s, end_s))
        try:
            # Written by Python, so that a full disk is an OSError of its own and none of FFmpeg's.
            with target.open("wb") as file, av.open(file, "w", format="mp4") as output:
                _write(output, pictures, rate, audio)
        except av.error.FFmpegError as error:
            raise AudioError(f"the pictures cannot be encoded: {error.strerror}", code="decode_failed") from error


def _decoded(pictures: Iterator[Any]) -> Iterator[Any]:
    """The pictures; what the decoder raises is an ``AudioError``."""
    while True:
        with decoding_errors(lambda: "the pictures cannot be decoded"):
            picture = next(pictures, None)
        if picture is None:
            return
        yield picture


def _shown(container: Any, stream: Any, rate: Fraction, start_s: float, end_s: float) -> Iterator[Any]:
    """The picture shown at each time of a regular grid; a gap repeats the one before."""
    n_pictures, n = round((end_s - start_s) * rate), 0
    previous = None
    container.seek(int(start_s / stream.time_base), stream=stream)  # to the key frame before
    for picture in container.decode(stream):
        if picture.time is None:
            continue
        while previous is not None and n < n_pictures and picture.time > start_s + n / rate + 1e-6:
            yield previous
            n += 1
        previous = picture
        if n >= n_pictures:
            return
    last_s = None if previous is None else float(previous.time + 1 / rate)
    while last_s is not None and n < n_pictures and start_s + n / rate < last_s:
        yield previous
        n += 1
    if n == 0:
        raise AudioError("the video ends before the clip begins", code="short")


def _write(output: Any, pictures: Iterator[Any], rate: Fraction, audio: Path | None) -> None:
    first = next(pictures)
    stream = output.add_stream("libx264", rate=rate, options=QUALITY)
    stream.width, stream.height, stream.pix_fmt = first.width // 2 * 2, first.height // 2 * 2, "yuv420p"
    sound = _add_sound(output, audio) if audio else None
    for n, picture in enumerate(chain([first], pictures)):
        converted = picture.reformat(stream.width, stream.height, "yuv420p")
        converted.pts, converted.time_base = n, 1 / rate
        output.mux(stream.encode(converted))
    output.mux(stream.encode(None))
    if sound:
        _write_sound(output, *sound)


def _add_sound(output: Any, audio: Path) -> tuple[Any, Any]:
    from audioset.audio.reading import read_audio

    waveform, sample_rate = read_audio(audio)
    return output.add_stream("aac", rate=sample_rate, layout="mono" if waveform.shape[1] == 1 else "stereo"), waveform


def _write_sound(output: Any, stream: Any, waveform: Any) -> None:
    import av

    stream.bit_rate = AUDIO_BITS_PER_S
    frame = av.AudioFrame.from_ndarray(waveform.reshape(1, -1), format="flt", layout=stream.layout.name)
    frame.sample_rate, frame.time_base, frame.pts = stream.rate, Fraction(1, stream.rate), 0
    resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, stream.frame_size or None)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))
