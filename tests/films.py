"""Files with pictures and sound."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

RATE = 48_000


def film(path: Path, seconds: float = 3.0, sound: np.ndarray | None = None, rate: int = 25) -> Path:
    """Pictures whose brightness is 16 and their number times two; ``sound`` is stereo at 48 kHz."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", 12
        stream.bit_rate = 4_000_000
        track = None if sound is None else output.add_stream("aac", rate=RATE, layout="stereo")
        for n in range(round(seconds * rate)):
            pixels = np.full((96, 64), 128, np.uint8)
            pixels[:64] = 16 + 2 * n
            picture = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            picture.pts = n
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="flt", layout="stereo")
            frame.sample_rate, frame.pts = RATE, 0
            for part in av.AudioResampler(track.format, track.layout, RATE, 1024).resample(frame):
                output.mux(track.encode(part))
            output.mux(track.encode(None))
    return path
