"""Live audio: the same as the whole waveform, however it is cut, and as early as can be."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import noise, sine

from audioset import AudioSetError, Model
from audioset.errors import AudioError, UsageError
from audioset.frontend.cutting import Cutter, patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import YAMNET
from audioset.frontend.spec import FrontendSpec
from audioset.models.prediction import Prediction, join_predictions
from audioset.models.stream import Stream

# As YAMNet's, with eight frames in a patch: what is cut where does not depend on the size.
SMALL = replace(YAMNET, name="small", patch_frames=8, patch_hop_frames=4)
PADS = ("cover", "error", "zero", "repeat")
PATCH_SAMPLES = 15_600


def blocks_of(waveform: np.ndarray, size: int) -> list[np.ndarray]:
    return [waveform[start : start + size] for start in range(0, len(waveform), size)]


def stream_whole(model: Model, blocks: list[np.ndarray], sample_rate: int = 16_000, **options: object) -> Prediction:
    stream = model.stream(sample_rate, **options)
    parts = [part for block in blocks for part in stream.push(block)]
    return join_predictions([*parts, *stream.finish()])


def assert_same(actual: Prediction, expected: Prediction) -> None:
    np.testing.assert_array_equal(actual.log_mel, expected.log_mel)
    np.testing.assert_array_equal(actual.start_s, expected.start_s)
    np.testing.assert_array_equal(actual.end_s, expected.end_s)
    np.testing.assert_allclose(actual.embeddings, expected.embeddings, rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual.scores, expected.scores, rtol=0, atol=1e-5)


def small_stream(spec: FrontendSpec, hop_frames: int, max_patches: int = 3) -> Stream[tuple]:
    """A stream whose predictions are what the network would see."""

    spec = replace(spec, patch_hop_frames=hop_frames)

    def predict(slab):
        features = log_mel(slab.waveform, spec)
        return slab, features[len(features) - slab.n_frames :], patches(features[slab.n_skipped :], spec)

    return Stream(predict, Cutter(spec, max_patches, live_patches=1), 16_000, 16_000)


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    """Three and a bit seconds of noise that swells, with a tone."""
    n_samples = 52_345
    swell = np.linspace(0.01, 1, n_samples, dtype=np.float32)
    return noise(n_samples, seed=3) * swell + sine(880, 16_000, n_samples / 16_000, 0.1)


@pytest.mark.numerical
@pytest.mark.parametrize("size", [1, 160, 1_000, 100_000])
def test_a_stream_equals_the_whole_waveform_for_blocks_of_any_size(
    model: Model, waveform: np.ndarray, size: int
) -> None:
    assert_same(stream_whole(model, blocks_of(waveform, size)), model.predict(waveform, 16_000))


@pytest.mark.parametrize(("sample_rate", "size"), [(44_100, 1), (44_100, 100_000), (8_000, 160), (48_000, 1_000)])
def test_a_stream_is_resampled_as_the_whole_waveform(
    model: Model, waveform: np.ndarray, sample_rate: int, size: int
) -> None:
    assert_same(
        stream_whole(model, blocks_of(waveform, size), sample_rate),
        model.predict(waveform, sample_rate),
    )


@pytest.mark.numerical
@pytest.mark.parametrize("options", [{"hop_s": 0.05}, {"hop_s": 1.5}, {"pad": "error"}, {"hop_s": 0.48, "pad": "zero"}])
def test_hop_and_padding_mean_the_same_in_a_stream(model: Model, waveform: np.ndarray, options: dict) -> None:
    assert_same(stream_whole(model, blocks_of(waveform, 1_000), **options), model.predict(waveform, 16_000, **options))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_pcm_is_scaled_and_channels_are_averaged(model: Model, waveform: np.ndarray, dtype: type) -> None:
    stereo = np.stack([waveform, waveform[::-1]], axis=1)[:20_000]
    pcm = (stereo / 2 * np.iinfo(dtype).max).astype(dtype)
    assert_same(stream_whole(model, blocks_of(pcm, 777)), model.predict(pcm, 16_000))


def test_a_real_clip_is_tagged_alike(yamnet: Model, reference: dict) -> None:
    clip = reference["speech_whistling2"]
    actual = stream_whole(yamnet, blocks_of(clip["waveform"], 1_600))
    np.testing.assert_allclose(actual.scores, clip["scores"], rtol=0, atol=1e-5)
    assert [name for name, _ in actual.top(3)] == [name for name, _ in yamnet.predict(clip["waveform"], 16_000).top(3)]


@pytest.mark.numerical
@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4_000), max_size=12),
    hop_frames=st.integers(1, 20),
    pad=st.sampled_from(PADS),
    max_patches=st.integers(1, 5),
)
def test_what_the_network_sees_does_not_depend_on_the_blocks(
    sizes: list[int], hop_frames: int, pad: str, max_patches: int
) -> None:
    spec = SMALL.with_pad(pad)
    samples = noise(sum(sizes))
    stream = small_stream(spec, hop_frames, max_patches)
    parts = []
    for block in np.split(samples, np.cumsum(sizes)):
        parts += stream.push(block)
    if len(samples) == 0 or (pad == "error" and len(samples) < spec.min_samples):
        with pytest.raises(AudioError, match=r"ended before its first sample|needs 1,\d+"):
            stream.finish()
        return
    parts += stream.finish()
    cut = replace(spec, patch_hop_frames=hop_frames)
    features = [(slab, log_mel(slab.waveform, spec)) for slab in slabs([samples], cut, 64)]
    expected = np.concatenate([patches(frames[slab.n_skipped :], cut) for slab, frames in features])
    np.testing.assert_array_equal(np.concatenate([seen for _, _, seen in parts]), expected)
    frames = np.concatenate([frames[len(frames) - slab.n_frames :] for slab, frames in features])
    np.testing.assert_array_equal(np.concatenate([frames for _, frames, _ in parts]), frames)
    numbers = [number for slab, _, _ in parts for number in range(slab.first_patch, slab.first_patch + slab.n_patches)]
    assert numbers == list(range(len(expected)))
    assert stream.duration_s == len(samples) / 16_000
    assert all(slab.end_sample <= len(samples) for slab, _, _ in parts)
    assert max(slab.n_patches for slab, _, _ in parts) <= max_patches


@pytest.mark.parametrize("pad", PADS)
def test_a_patch_comes_with_its_last_sample(model: Model, waveform: np.ndarray, pad: str) -> None:
    stream = model.stream(16_000, pad=pad)
    assert stream.push(waveform[: PATCH_SAMPLES - 1]) == []
    (first,) = stream.push(waveform[PATCH_SAMPLES - 1 : PATCH_SAMPLES])
    assert first.start_s.tolist() == [0]
    assert first.duration_s == PATCH_SAMPLES / 16_000
    assert stream.push(waveform[PATCH_SAMPLES : PATCH_SAMPLES + 7_679]) == []
    (second,) = stream.push(waveform[PATCH_SAMPLES + 7_679 : PATCH_SAMPLES + 7_680])
    assert second.start_s.tolist() == [0.48]


@pytest.mark.parametrize(
    ("sample_rate", "delay_s"), [(44_100, 0.041), (48_000, 0.037), (32_000, 0.058), (8_000, 0.116)]
)
def test_resampling_delays_a_patch_by_no_more_than_documented(model: Model, sample_rate: int, delay_s: float) -> None:
    stream = model.stream(sample_rate)
    n_blocks = next(n for n in itertools.count(1) if stream.push(np.zeros(10, np.float32)))
    assert 0 <= n_blocks * 10 / sample_rate - 0.975 <= delay_s


def test_one_large_block_gives_all_its_patches_at_once(model: Model) -> None:
    parts = model.stream(16_000).push(noise(16_000 * 40))
    assert [len(part.start_s) for part in parts] == [64, 18]


def test_a_block_may_be_filled_again_after_the_push(model: Model, waveform: np.ndarray) -> None:
    stream, buffer, parts = model.stream(16_000), np.zeros(1_000, np.float32), []
    for block in blocks_of(waveform[:20_000], 1_000):
        buffer[:] = block
        parts += stream.push(buffer)
        buffer[:] = 7
    assert_same(join_predictions([*parts, *stream.finish()]), model.predict(waveform[:20_000], 16_000))


def test_memory_does_not_grow_with_the_stream() -> None:
    stream = small_stream(SMALL, 4)
    block = noise(16_000)
    sizes = []
    tracemalloc.start()
    try:
        for second in range(60):
            stream.push(block)
            if second in (9, 59):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 200_000  # bytes; the samples between them have 3,200,000


def test_little_is_kept_of_a_large_block() -> None:
    stream = small_stream(SMALL, 4)
    tracemalloc.start()
    try:
        stream.push(noise(16_000 * 20))
        assert tracemalloc.get_traced_memory()[0] < 200_000  # bytes; the block has 1,280,000
    finally:
        tracemalloc.stop()


def test_bad_blocks_are_refused_and_left_out(model: Model, waveform: np.ndarray) -> None:
    stream = model.stream(16_000)
    parts = stream.push(waveform[:20_000])
    for block, message in (
        (np.full(10, np.nan, np.float32), "sample 0 is nan"),
        (np.full(10, np.inf, np.float32), "sample 0 is inf"),
        (np.zeros(10, np.uint8), "dtype uint8"),
        (np.zeros((2, 2, 2), np.float32), "expected .n_samples,. or"),
        (np.zeros((10, 2), np.float32), "2 channels; expected 1, as"),
    ):
        with pytest.raises(AudioError, match=message):
            stream.push(block)
    parts += stream.push(waveform[20_000:])
    assert_same(join_predictions([*parts, *stream.finish()]), model.predict(waveform, 16_000))


def test_one_channel_may_come_with_or_without_an_axis_of_its_own(model: Model) -> None:
    stream = model.stream(16_000)
    assert stream.push(noise(100)) == stream.push(noise(100, 1)) == stream.push(np.zeros((0, 1))) == []
    assert stream.duration_s == 200 / 16_000


def test_a_finished_stream_takes_nothing_more(model: Model) -> None:
    stream = model.stream(16_000)
    stream.push(noise(10))
    (rest,) = stream.finish()
    assert len(rest.start_s) == 1
    assert rest.duration_s == 10 / 16_000
    for use in (lambda: stream.push(noise(10)), stream.finish):
        with pytest.raises(UsageError, match="the stream is finished"):
            use()


def test_a_stream_without_enough_samples_says_so(model: Model) -> None:
    with pytest.raises(AudioError, match="before its first sample") as nothing:
        model.stream(16_000).finish()
    assert nothing.value.code == "no_samples"
    short = model.stream(16_000, pad="error")
    short.push(noise(100))
    with pytest.raises(AudioError, match="the audio has 100 samples") as little:
        short.finish()
    assert little.value.code == "too_short"


def test_settings_that_no_stream_can_have_are_refused(model: Model) -> None:
    for sample_rate, options, message in (
        (0, {}, "sample rate is 0 Hz"),
        (16_000, {"hop_s": 0.005}, "hop_s is 0.005"),
        (16_000, {"pad": "edge"}, "pad is 'edge'"),
    ):
        with pytest.raises(AudioSetError, match=message):
            model.stream(sample_rate, **options)
