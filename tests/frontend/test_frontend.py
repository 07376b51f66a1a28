"""Frames, patches and slabs: what is cut from a stream does not depend on how the stream arrives."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_data import reference_file
from sounds import noise

from audioset.errors import AudioError, UsageError
from audioset.frontend.cutting import n_patches, patches, slabs
from audioset.frontend.log_mel import constants, log_mel
from audioset.frontend.mel import band_sums, hz_to_mel, hz_to_slaney_mel, mel_weights, slaney_mel_to_hz
from audioset.frontend.published import EFFICIENTAT, EFFICIENTAT_VARIANTS, PANNS, VGG16, VGGISH, YAMNET
from audioset.frontend.spec import PADS

pytestmark = pytest.mark.numerical  # test_kernels runs them under every kernel of BLAS

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
    pieces = list(slabs(np.split(waveform, cuts), replace(spec, patch_hop_frames=hop_frames), slab_patches))
    features = [log_mel(slab.waveform, spec) for slab in pieces]
    examples = [patches(part[slab.n_skipped :], spec, hop_frames) for part, slab in zip(features, pieces, strict=True)]
    return features, examples, pieces


def check_slabs_equal_whole(waveform, cuts, spec, hop_frames, slab_patches):
    features, examples, pieces = slab_parts(waveform, cuts, spec, hop_frames, slab_patches)
    whole = whole_log_mel(waveform, spec, hop_frames)
    joined = np.concatenate([part[len(part) - slab.n_frames :] for part, slab in zip(features, pieces, strict=True)])
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


UNCENTRED = (YAMNET, VGG16, replace(EFFICIENTAT, is_centred=False), replace(PANNS, is_centred=False))


@pytest.mark.parametrize("spec", UNCENTRED, ids=lambda spec: spec.name)
@pytest.mark.parametrize("start_frame", [1, 15, 16, 47, 48, 49, 96, 100])
def test_a_frame_does_not_depend_on_its_place(start_frame, spec):
    waveform = noise(spec.samples(3 * 96))
    whole, rest = log_mel(waveform, spec), log_mel(waveform[spec.hop_samples * start_frame :], spec)
    n_same = len(rest) - int(spec.preemphasis != 0)
    np.testing.assert_array_equal(rest[:n_same], whole[start_frame:][:n_same])


@pytest.mark.parametrize("spec", UNCENTRED, ids=lambda spec: spec.name)
def test_a_frame_does_not_depend_on_its_neighbours(spec):
    waveform = noise(spec.samples(200))
    alone = np.concatenate([log_mel(waveform[spec.hop_samples * i :][: spec.samples(1)], spec) for i in range(200)])
    np.testing.assert_array_equal(alone, log_mel(waveform, spec))


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
        list(slabs([noise(n_samples)], VGGISH, 64))
    assert caught.value.code == "too_short"


def test_pads_by_name():
    assert YAMNET.with_pad(None) is YAMNET
    assert [YAMNET.with_pad(pad).pad for pad in PADS] == list(PADS)
    with pytest.raises(UsageError, match="pad is 'mirror'; expected one of cover, error, zero, repeat"):
        YAMNET.with_pad("mirror")


def test_slabs_of_an_empty_stream_hold_one_patch_of_padding():
    (slab,) = slabs([], YAMNET, 64)
    assert (slab.n_patches, slab.n_frames, slab.end_sample) == (1, 96, 0)
    assert not slab.waveform.any()


@pytest.mark.parametrize(
    ("hop_s", "expected"), [(None, 48), (0.48, 48), (0.01, 1), (0.07, 7), (0.96, 96), (2, 200), (60, 6_000)]
)
def test_hop_frames(hop_s, expected):
    assert YAMNET.hop_frames(hop_s) == expected


@pytest.mark.parametrize("hop_s", [0, -0.48, 0.005, 0.485, float("nan"), float("inf")])
def test_hop_that_is_no_whole_number_of_frames(hop_s):
    with pytest.raises(UsageError, match=r"expected (a positive multiple of one frame|seconds, at most 86,400)"):
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


@pytest.mark.parametrize(
    "spec",
    [YAMNET, EFFICIENTAT, PANNS, *EFFICIENTAT_VARIANTS, replace(YAMNET, n_mels=2048)],
    ids=lambda spec: spec.name,
)
def test_band_sums_leave_nothing_but_zeros_out(spec):
    """Each row of the sums, followed back through the steps, holds each weight of its half of a band once."""
    _, weights, _ = constants(spec, "float64")
    sums = band_sums(weights, 1)
    terms = [[(int(place), weight)] for place, (weight,) in zip(sums.bins, sums.weights, strict=True)]
    for first, count in sums.steps:
        for row in range(count):
            terms[row] += terms[first + row]
    joined = np.zeros_like(weights)
    for rows in sums.rows:
        for band, row in enumerate(rows):
            for place, weight in terms[row]:
                assert weight == 0 or joined[place, band] == 0
                joined[min(place, len(weights) - 1), band] += weight
    np.testing.assert_array_equal(joined, weights)


def test_bands_between_two_bins_hear_nothing():
    spec = replace(YAMNET, n_mels=2048)  # the lowest are far narrower than a bin
    deaf = ~mel_weights(spec).any(axis=0)
    features = log_mel(noise(PATCH), spec)
    assert deaf.any()
    np.testing.assert_allclose(features[:, deaf], np.log(0.001), rtol=1e-7)
    assert (features[:, ~deaf] > np.log(0.001)).all()


def test_a_specification_whose_bands_are_all_between_two_bins():
    spec = replace(YAMNET, n_mels=2, mel_min_hz=1.0, mel_max_hz=30.0)
    np.testing.assert_allclose(log_mel(noise(PATCH), spec), np.full((96, 2), np.log(0.001)), rtol=1e-7)


def test_constants_follow_the_specification():
    """Nothing about YAMNet is written into the arithmetic."""
    spec = replace(YAMNET, n_mels=20, mel_min_hz=50.0, log_offset=1.0)
    features = log_mel(np.zeros(PATCH, np.float32), spec)
    assert features.shape == (96, 20)
    assert not features.any()  # log(0 + 1)


def definition(waveform, spec):
    """A specification evaluated frame by frame in float64, with the Fourier transform as a sum."""
    signal = waveform.astype(np.float64)
    if spec.preemphasis:
        signal = np.array([signal[t] - spec.preemphasis * signal[t - 1] for t in range(1, len(signal))])
    n_window, n_fft = spec.window_samples, spec.fft_size
    steps = np.arange(n_window) / (n_window if spec.is_window_periodic else n_window - 1)
    window = np.sin(np.pi * steps) ** 2
    starts = np.arange(0, len(signal) - n_window + 1, spec.hop_samples)
    if spec.is_centred:
        # torch.stft: the transform is centred on each hop, and the window in the transform
        starts = np.arange(0, len(signal) + 1, spec.hop_samples) - n_fft // 2 + (n_fft - n_window) // 2
    places = np.abs(starts[:, None] + np.arange(n_window))
    places = np.where(places < len(signal), places, 2 * (len(signal) - 1) - places)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(n_window), np.arange(n_fft // 2 + 1)) / n_fft)
    mel = np.abs((signal[places] * window) @ turns) ** spec.power @ mel_weights(spec)
    decibel, natural = 10 * np.log10(np.maximum(mel, spec.log_offset)), np.log(mel + spec.log_offset)
    logs = decibel if spec.log == "decibel" else natural
    return (logs - spec.log_mean) / spec.log_scale


@pytest.mark.parametrize(
    "spec",
    [
        EFFICIENTAT,
        *EFFICIENTAT_VARIANTS,
        replace(EFFICIENTAT, window_samples=801, preemphasis=0.0),
        replace(EFFICIENTAT, is_centred=False),
        replace(YAMNET, is_window_periodic=False, preemphasis=0.5),
        replace(YAMNET, log="decibel", power=2, log_offset=1e-4),
        replace(YAMNET, mel_formula="kaldi", mel_min_hz=0.0, mel_max_hz=8000.0, log_mean=1.0, log_scale=-2.0),
    ],
    ids=lambda spec: spec.name,
)
@pytest.mark.parametrize("n_samples", [1_000, 6_399, 6_400, 6_401])
def test_log_mel_follows_its_definition(spec, n_samples):
    waveform = noise(n_samples)
    expected = definition(waveform, spec)
    assert spec.n_frames(n_samples) == len(expected) > 0
    np.testing.assert_allclose(
        log_mel(waveform.astype(np.float64), spec, dtype=np.float64), expected, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(log_mel(waveform, spec), expected, rtol=1e-6, atol=1e-5)


def log_mel_one_by_one(waveform, spec):
    """What ``log_mel`` computes for YAMNet and VGGish, in the same arithmetic, frame by frame and band by band."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    weights = mel_weights(spec).astype(np.float32)
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        frame = np.zeros(512)
        frame[:400] = waveform[start : start + 400].astype(np.float64) * hann
        magnitude = np.abs(np.fft.rfft(frame).astype(np.complex64))
        rows.append([sum_of_halves(magnitude * weights[:, band], weights[:, band]) for band in range(64)])
    return np.log(np.array(rows, np.float32) + np.float32(spec.log_offset))


def sum_of_halves(products, weights):
    """The products of a band, added from the lowest bin on in two halves."""
    used = np.flatnonzero(weights)
    first, stop = used[0], used[-1] + 1
    halves = products[first : (first + stop) // 2], products[(first + stop) // 2 : stop]
    return np.float32(0) + sum(reduce(np.add, half, np.float32(0)) for half in halves)


@pytest.mark.parametrize("spec", [YAMNET, VGGISH], ids=lambda spec: spec.name)
def test_the_numbers_of_uncentred_frontends_are_the_same_to_the_last_bit(spec, reference):
    for case in ("speech_whistling2", "sine440_3s", "dog_975ms"):
        waveform = reference[case]["waveform"][: spec.samples(100)]
        np.testing.assert_array_equal(log_mel(waveform, spec), log_mel_one_by_one(waveform, spec))


def test_kaldi_bands_have_no_weight_at_half_the_sample_rate():
    spec = replace(EFFICIENTAT, mel_max_hz=17_000.0)
    kaldi, htk = mel_weights(spec), mel_weights(replace(spec, mel_formula="htk"))
    assert htk[-1].any()
    assert not kaldi[-1].any()
    np.testing.assert_array_equal(kaldi[1:-1], htk[1:-1])


def test_slaneys_scale_is_straight_below_1_khz_and_logarithmic_above():
    assert hz_to_slaney_mel([0, 200, 1_000]).tolist() == pytest.approx([0, 3, 15])
    assert hz_to_slaney_mel([6_400, 40_960]).tolist() == pytest.approx([42, 69])
    frequencies_hz = np.linspace(0, 16_000, 999)
    np.testing.assert_allclose(slaney_mel_to_hz(hz_to_slaney_mel(frequencies_hz)), frequencies_hz, atol=1e-9)


@pytest.mark.parametrize("clip", ["speech_whistling2", "dog_975ms"])
@pytest.mark.parametrize(("sample_rate", "mel_max_hz"), [(32_000, 14_000.0), (16_000, 8_000.0)])
def test_decibels_of_slaney_bands_are_those_of_the_panns(sample_rate, mel_max_hz, clip):
    spec = replace(
        EFFICIENTAT,
        sample_rate=sample_rate,
        window_samples=sample_rate * 1024 // 32_000,
        fft_size=sample_rate * 1024 // 32_000,
        hop_samples=sample_rate // 100,
        n_mels=64,
        mel_min_hz=50.0,
        mel_max_hz=mel_max_hz,
        is_window_periodic=True,
        preemphasis=0.0,
        mel_formula="slaney",
        log="decibel",
        log_offset=1e-10,
        log_mean=0.0,
        log_scale=1.0,
    )
    with np.load(reference_file("panns_reference.npz")) as arrays:
        waveform, original = (arrays[f"{kind}/{sample_rate}/{clip}"] for kind in ("waveform", "log_mel"))
    formula = log_mel(waveform.astype(np.float64), spec, dtype=np.float64)
    ours = log_mel(waveform, spec)
    assert ours.shape == original.shape
    assert spec.samples(1_001) == 10 * sample_rate
    is_heard = formula > formula.max() - 90
    assert np.abs(ours - formula).max() <= 2e-5  # float32 has 8e-6 between neighbours here
    assert np.abs(original - formula)[is_heard].max() <= 1e-3
    assert np.abs(ours - formula).max() < np.abs(original - formula).max()


def test_variants_change_only_the_hop_or_the_bands():
    by_name = {spec.name: spec for spec in EFFICIENTAT_VARIANTS}
    assert list(by_name) == [
        *(f"efficientat_hop_{hop}" for hop in (5, 15, 20, 25)),
        *(f"efficientat_mels_{n_mels}" for n_mels in (40, 64, 256)),
    ]
    for hop_ms, n_frames in ((5, 2_000), (15, 667), (20, 500), (25, 400)):
        spec = by_name[f"efficientat_hop_{hop_ms}"]
        assert spec.frame_hop_s == hop_ms / 1000
        assert spec.n_frames(320_000) == n_frames == spec.patch_frames
        published = {"name": "efficientat", "hop_samples": 320, "patch_frames": 1_000, "patch_hop_frames": 1_000}
        assert replace(spec, **published) == EFFICIENTAT
    assert replace(by_name["efficientat_mels_40"], name="efficientat", n_mels=128) == EFFICIENTAT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"power": 3}, "power is 3; expected one of 1, 2"),
        ({"mel_formula": "bark"}, "mel_formula is 'bark'; expected one of htk, kaldi, slaney"),
        ({"log": "binary"}, "log is 'binary'; expected one of natural, decibel"),
    ],
)
def test_a_specification_of_what_there_is_not(change, message):
    with pytest.raises(UsageError, match=message):
        replace(YAMNET, **change)


# ---- Centred frontends: each window has features of its own

SHORT = replace(EFFICIENTAT, patch_frames=20, patch_hop_frames=20)  # 6,400 samples


def windows_by_hand(n_samples, hop, pad):
    """(start, stop) of the windows of a clip of 6,400 samples or more."""
    starts = list(range(0, n_samples - 6_400 + 1, hop))
    if pad == "cover" and starts[-1] + 6_400 < n_samples:
        starts.append(n_samples - 6_400)
    return [(start, start + 6_400) for start in starts]


@pytest.mark.parametrize("n_samples", [514, 515, 3_000, 6_399, 6_400])
def test_a_clip_no_longer_than_the_window_is_one_patch_of_its_own_length(n_samples):
    waveform = noise(n_samples)
    (slab,) = slabs(np.array_split(waveform, 4), SHORT, 64)
    np.testing.assert_array_equal(slab.waveform, waveform)
    features = log_mel(slab.waveform, SHORT)
    assert features.shape == (-(-n_samples // 320), 128) == (slab.n_frames, 128)
    (patch,) = patches(features, SHORT)
    assert np.shares_memory(patch, features)
    assert n_patches(n_samples, SHORT) == slab.n_patches == 1
    assert (slab.first_patch, slab.first_sample, slab.end_sample) == (0, 0, n_samples)


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.integers(6_400, 40_000),
    cuts=st.lists(st.floats(0, 1), max_size=6),
    hop_frames=st.sampled_from((1, 7, 20, 33)),
    pad=st.sampled_from(list(PADS)),
)
def test_windows_of_a_centred_frontend(n_samples, cuts, hop_frames, pad):
    waveform = noise(n_samples)
    pieces = list(
        slabs(
            np.split(waveform, sorted(int(cut * n_samples) for cut in cuts)),
            replace(SHORT, pad=pad, patch_hop_frames=hop_frames),
            8,
        )
    )
    expected = windows_by_hand(n_samples, 320 * hop_frames, pad)
    assert [(slab.first_sample, slab.first_sample + len(slab.waveform)) for slab in pieces] == expected
    assert [slab.first_patch for slab in pieces] == list(range(n_patches(n_samples, SHORT.with_pad(pad), hop_frames)))
    for slab, (start, stop) in zip(pieces, expected, strict=True):
        np.testing.assert_array_equal(slab.waveform, waveform[start:stop])
        assert slab.end_sample >= stop
    assert pieces[-1].end_sample == n_samples


@pytest.mark.parametrize("n_samples", [0, 1, 513])
def test_clips_too_short_to_reflect_are_padded_as_little_as_can_be(n_samples):
    waveform = noise(n_samples)
    (slab,) = slabs([waveform], SHORT, 64)
    np.testing.assert_array_equal(slab.waveform, np.pad(waveform, (0, 514 - n_samples)))
    assert slab.end_sample == n_samples
    with pytest.raises(
        AudioError, match=r"samples at 32,000 Hz; efficientat needs 514 \(0\.0160625 s\) at least"
    ) as caught:
        log_mel(waveform, SHORT)
    assert caught.value.code == "too_short"


def test_a_centred_frontend_fills_a_window_or_refuses_where_it_is_told_to():
    waveform = noise(3_000)
    (zero,) = slabs([waveform], SHORT.with_pad("zero"), 64)
    (repeated,) = slabs([waveform], SHORT.with_pad("repeat"), 64)
    np.testing.assert_array_equal(zero.waveform, np.pad(waveform, (0, 3_400)))
    np.testing.assert_array_equal(repeated.waveform, np.resize(waveform, 6_400))
    with pytest.raises(AudioError, match="3,000 samples at 32,000 Hz; efficientat needs 6,400"):
        list(slabs([waveform], SHORT.with_pad("error"), 64))
