"""Frames, patches and slabs: what is cut from a stream does not depend on how the stream arrives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import noise

from audioset.errors import AudioError, UsageError
from audioset.frontend import PADS, VGGISH, YAMNET, hz_to_mel, log_mel, mel_weights, n_patches, patches, slabs

PATCH = 15_600  # samples
SPECS = (YAMNET, VGGISH.with_pad("zero"), VGGISH.with_pad("repeat"))
HOPS = (1, 7, 48, 96, 97, 100, 200)  # frames, from 0.01 s to 2 s; a patch has 96


def naive_n_patches(n_samples, hop_samples=7_680):
    """Count hops until the padded clip holds every sample."""
    count, end = 1, PATCH
    while end < n_samples:
        count, end = count + 1, end + hop_samples
    return count


def naive_n_whole_patches(n_samples, hop_samples=15_360):
    """Count hops as long as the next patch lies inside the clip; the first one always counts."""
    count, end = 1, PATCH
    while end + hop_samples <= n_samples:
        count, end = count + 1, end + hop_samples
    return count


def whole_log_mel(waveform, spec, hop_frames):
    """Features of the whole clip at once, padded or cut to its last patch."""
    if len(waveform) < PATCH and spec.pad == "repeat":
        waveform = np.concatenate([waveform] * (PATCH // len(waveform) + 1))[:PATCH]
    n_frames = (n_patches(len(waveform), spec, hop_frames) - 1) * hop_frames + 96
    return log_mel(np.pad(waveform, (0, spec.samples(n_frames)))[: spec.samples(n_frames)], spec)


def slab_parts(waveform, cuts, spec, hop_frames, slab_patches):
    """Features and patches of the clip's slabs, and the slabs."""
    pieces = list(slabs(np.split(waveform, cuts), spec, hop_frames, slab_patches))
    features = [log_mel(slab.waveform, spec) for slab in pieces]
    examples = [patches(part, spec, hop_frames) for part in features]
    return features, examples, pieces


def check_slabs_equal_whole(waveform, cuts, spec, hop_frames, slab_patches):
    features, examples, pieces = slab_parts(waveform, cuts, spec, hop_frames, slab_patches)
    whole = whole_log_mel(waveform, spec, hop_frames)
    joined = np.concatenate([part[: slab.n_frames] for part, slab in zip(features, pieces, strict=True)])
    np.testing.assert_array_equal(joined, whole)
    np.testing.assert_array_equal(np.concatenate(examples), patches(whole, spec, hop_frames))
    assert [slab.n_patches for slab in pieces] == [len(part) for part in examples]
    assert [slab.first_patch for slab in pieces] == list(range(0, sum(map(len, examples)), slab_patches))
    assert pieces[-1].end_sample == len(waveform)


@pytest.mark.parametrize(
    ("n_samples", "expected"),
    [(1, 1), (15_360, 1), (15_600, 1), (15_601, 2), (23_280, 2), (23_281, 3), (160_000, 20), (16_000 * 3600, 7_499)],
)
def test_n_patches_of_known_lengths(n_samples, expected):
    assert n_patches(n_samples, YAMNET) == expected == naive_n_patches(n_samples)


@settings(max_examples=60, deadline=None)
@given(n_samples=st.integers(0, 300_000), hop_frames=st.sampled_from(HOPS))
def test_n_patches_counts_hops(n_samples, hop_frames):
    assert n_patches(n_samples, YAMNET, hop_frames) == naive_n_patches(n_samples, 160 * hop_frames)


@pytest.mark.parametrize(
    ("n_samples", "expected"), [(1, 1), (15_600, 1), (30_959, 1), (30_960, 2), (31_000, 2), (48_000, 3)]
)
def test_n_whole_patches_of_known_lengths(n_samples, expected):
    assert n_patches(n_samples, VGGISH) == expected == naive_n_whole_patches(n_samples)


@settings(max_examples=60, deadline=None)
@given(n_samples=st.integers(0, 300_000), hop_frames=st.sampled_from(HOPS))
def test_n_whole_patches_counts_hops(n_samples, hop_frames):
    assert n_patches(n_samples, VGGISH, hop_frames) == naive_n_whole_patches(n_samples, 160 * hop_frames)


@pytest.mark.parametrize("n_samples", [0, 1, 399, 400, 559, 560, 15_600, 160 * 1000 + 240])
def test_log_mel_has_whole_frames_only(n_samples):
    features = log_mel(noise(n_samples), YAMNET)
    assert features.shape == (max(0, (n_samples - 240) // 160), 64)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("start_frame", [1, 15, 16, 47, 48, 49, 100])
def test_a_frame_does_not_depend_on_its_place(start_frame):
    waveform = noise(PATCH * 3)
    np.testing.assert_array_equal(
        log_mel(waveform[160 * start_frame :], YAMNET), log_mel(waveform, YAMNET)[start_frame:]
    )


def test_log_mel_of_silence_is_the_offset():
    np.testing.assert_allclose(log_mel(np.zeros(PATCH, np.float32), YAMNET), np.log(0.001), rtol=1e-7)


def test_log_mel_peaks_in_the_band_of_a_tone():
    centres = np.linspace(hz_to_mel(125), hz_to_mel(7500), 66)[1:-1]
    for frequency in (200, 1_000, 5_000):
        tone = np.sin(2 * np.pi * frequency * np.arange(PATCH) / 16_000)
        band = log_mel(tone, YAMNET).mean(axis=0).argmax()
        assert abs(centres[band] - hz_to_mel(frequency)) <= np.diff(centres)[0]


@pytest.mark.parametrize("hop_frames", HOPS)
@pytest.mark.parametrize("n_frames", [0, 95, 96, 97, 144, 500])
def test_patches_equal_a_loop(n_frames, hop_frames):
    features = noise(n_frames, 64)
    expected = [features[start : start + 96] for start in range(0, n_frames - 95, hop_frames)]
    view = patches(features, YAMNET, hop_frames)
    np.testing.assert_array_equal(view, np.array(expected, np.float32).reshape(-1, 96, 64))
    assert not view.flags.writeable


def test_patches_are_a_view_with_the_published_hop():
    features = noise(240, 64)
    view = patches(features, YAMNET)
    assert view.shape == (4, 96, 64)
    assert np.shares_memory(view, features)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.pad)
@pytest.mark.parametrize("slab_patches", [1, 3, 8])
@pytest.mark.parametrize("hop_frames", HOPS)
def test_slabs_at_every_kind_of_end(hop_frames, slab_patches, spec):
    """Clips that end exactly with a patch, with a slab, with a second one, and one sample to either side."""
    last_patch = [YAMNET.samples(patch * hop_frames + 96) for patch in (0, slab_patches - 1, 2 * slab_patches - 1)]
    ends = {*last_patch, YAMNET.samples(slab_patches * hop_frames)}
    waveform = noise(max(ends) + 1)
    for n_samples in {end + one for end in ends for one in (-1, 0, 1)}:
        cuts = [n_samples // 3, n_samples // 2]
        check_slabs_equal_whole(waveform[:n_samples], cuts, spec, hop_frames, slab_patches)


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(1, 120_000),
    cuts=st.lists(st.floats(0, 1), max_size=6),
    hop_frames=st.sampled_from(HOPS[1:]),
    slab_patches=st.integers(1, 5),
    spec=st.sampled_from(SPECS),
)
def test_slabs_do_not_depend_on_the_blocks(n_samples, cuts, hop_frames, slab_patches, spec):
    cuts = sorted(int(cut * n_samples) for cut in cuts)
    check_slabs_equal_whole(noise(n_samples), cuts, spec, hop_frames, slab_patches)


@pytest.mark.parametrize("n_samples", [1, 400, 15_599])
def test_audio_shorter_than_a_patch_is_an_error_where_the_specification_says_so(n_samples):
    with pytest.raises(AudioError, match=r"samples at 16,000 Hz; vggish needs 15,600 \(0\.975 s\)") as caught:
        list(slabs([noise(n_samples)], VGGISH, 96, 64))
    assert caught.value.code == "too_short"


def test_pads_by_name():
    assert YAMNET.with_pad(None) is YAMNET
    assert [YAMNET.with_pad(pad).pad for pad in PADS] == list(PADS)
    with pytest.raises(UsageError, match="pad is 'mirror'; expected one of cover, error, zero, repeat"):
        YAMNET.with_pad("mirror")


def test_slabs_of_an_empty_stream_hold_one_patch_of_padding():
    (slab,) = slabs([], YAMNET, 48, 64)
    assert (slab.n_patches, slab.n_frames, slab.end_sample) == (1, 96, 0)
    assert not slab.waveform.any()


@pytest.mark.parametrize(
    ("hop_s", "expected"), [(None, 48), (0.48, 48), (0.01, 1), (0.07, 7), (0.96, 96), (2, 200), (60, 6_000)]
)
def test_hop_frames(hop_s, expected):
    assert YAMNET.hop_frames(hop_s) == expected


@pytest.mark.parametrize("hop_s", [0, -0.48, 0.005, 0.485, float("nan"), float("inf")])
def test_hop_that_is_no_whole_number_of_frames(hop_s):
    with pytest.raises(UsageError, match="expected a positive multiple of one frame"):
        YAMNET.hop_frames(hop_s)


def test_mel_weights_equal_their_definition():
    weights = mel_weights(YAMNET)
    edges = np.linspace(hz_to_mel(125.0), hz_to_mel(7500.0), 66)
    for bin_index in range(257):
        position = hz_to_mel(bin_index * 31.25)
        triangle = np.interp(position, [edges[20], edges[21], edges[22]], [0, 1, 0])
        assert weights[bin_index, 20] == pytest.approx(triangle, abs=1e-12)
    assert weights.shape == (257, 64)
    assert not weights[0].any()
    assert (weights >= 0).all()
    assert (weights.max(axis=0) > 0).all()


def test_constants_follow_the_specification():
    """Nothing about YAMNet is written into the arithmetic."""
    spec = replace(YAMNET, n_mels=20, mel_min_hz=50.0, log_offset=1.0)
    features = log_mel(np.zeros(PATCH, np.float32), spec)
    assert features.shape == (96, 20)
    assert not features.any()  # log(0 + 1)
