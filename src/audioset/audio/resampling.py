"""Convert sample rates, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from audioset.arguments import check_number
from audioset.arrays import FloatArray

RESAMPLER_QUALITY = "HQ"  # soxr's; scores move with the resampler, so it is pinned
RATES_HZ = (1, 10_000_000)  # beyond these the resampler takes all memory, or never ends


def resample_blocks(blocks: Iterable[FloatArray], sample_rate: int, new_sample_rate: int) -> Iterator[FloatArray]:
    """Resample a stream of float32 blocks, (n,) or (n, channels), by soxr at high quality.

    The samples that come out are the same, bit for bit, however the input is cut into blocks. ``UsageError`` if a rate
    is not between 1 Hz and 10 MHz.

    Source: soxr 0.1.3 (libsoxr), quality ``HQ``; the original uses resampy, whose scores differ by the filter.
    """
    check_rates(sample_rate, new_sample_rate)
    if sample_rate == new_sample_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            stream = make_resampler(sample_rate, new_sample_rate, 1 if block.ndim == 1 else block.shape[1])
            empty = block[:0]
        resampled = stream.resample_chunk(block)
        if len(resampled):
            yield resampled
    if stream is not None:
        yield stream.resample_chunk(empty, last=True)


def make_resampler(sample_rate: int, new_sample_rate: int, n_channels: int) -> Any:
    """The soxr stream that everything here resamples with, for two different rates."""
    import soxr

    return soxr.ResampleStream(sample_rate, new_sample_rate, n_channels, dtype="float32", quality=RESAMPLER_QUALITY)


def check_rates(*sample_rates: int) -> None:
    """Refuse rates with which the resampler takes all memory, or never ends."""
    for rate in sample_rates:
        check_number("the sample rate", rate, *RATES_HZ, unit="Hz")
