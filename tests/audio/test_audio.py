"""Decoding, mixing down and resampling: every format, every limit, and every way in which a file can be bad."""

from __future__ import annotations

import io
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from decoding import check_refused, decode, dominant_hz
from sounds import (
    AV_FORMATS,
    LOSSY_RATE,
    SOUNDFILE_FORMATS,
    av_bytes,
    noise,
    silent_film,
    sine,
    streamed_flac,
    wav_bytes,
    wav_header,
    with_flac_length,
    write_format,
)

from audioset.audio.containers import known_formats
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reading import mono_blocks, open_audio, read_audio, waveform_to_mono
from audioset.audio.resampling import resample_blocks
from audioset.errors import AudioError, UsageError

FORMATS = {name: row[2] for name, row in {**SOUNDFILE_FORMATS, **AV_FORMATS}.items()}
PATH_SOURCE, BYTES_SOURCE, FILE_SOURCE = (
    (lambda path: path),
    Path.read_bytes,
    (lambda path: io.BytesIO(path.read_bytes())),
)
POSIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file names, pipes and permissions")
TONE = sine(440, 16_000, 2.0)


def n_open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- formats


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_its_sound_rate_and_channels(tmp_path, name):
    path = write_format(tmp_path / name)
    waveform, rate = read_audio(path)
    assert (rate, waveform.shape[1], waveform.dtype) == (LOSSY_RATE, 2, np.float32)
    assert -1_024 <= len(waveform) - LOSSY_RATE <= 2_048  # some codecs work in whole frames only
    for channel in waveform.T:
        assert dominant_hz(channel, rate) == pytest.approx(440, abs=2)
        assert np.sqrt(np.mean(channel**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


@pytest.mark.parametrize("name", FORMATS)
def test_container_is_told_by_content_not_by_name(tmp_path, name):
    path = write_format(tmp_path / name).rename(tmp_path / "wrong.xyz")
    with open_audio(path) as reader:
        assert reader.container == FORMATS[name]
    assert FORMATS[name] in known_formats()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("source", [BYTES_SOURCE, FILE_SOURCE, str], ids=["bytes", "file", "str"])
def test_a_source_may_be_a_path_bytes_or_an_open_file(tmp_path, name, source):
    path = write_format(tmp_path / name, seconds=0.3)
    np.testing.assert_array_equal(read_audio(source(path))[0], read_audio(path)[0])


@pytest.mark.parametrize("name", ["pcm16.wav", "phone.m4a"])
def test_an_open_file_is_read_from_its_start_and_left_open(tmp_path, name):
    with write_format(tmp_path / name).open("rb") as file:
        file.seek(100)
        first, second = read_audio(file)[0], read_audio(file)[0]
        assert not file.closed
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_wav_at_its_own_rate(sample_rate):
    waveform, rate = read_audio(wav_bytes(noise(1_000, 3), sample_rate))
    assert (rate, waveform.shape) == (sample_rate, (1_000, 3))


def test_pcm_is_scaled_exactly():
    pcm = np.array([-32_768, -32_767, -1, 0, 1, 2, 32_766, 32_767], np.int16)
    np.testing.assert_array_equal(read_audio(wav_bytes(pcm))[0][:, 0], pcm.astype(np.float64) / 32_768)
    wide = np.array([-(2**31), -(2**24), 0, 2**24, 2**30], np.int32)
    np.testing.assert_array_equal(read_audio(wav_bytes(wide, subtype="PCM_32"))[0][:, 0], wide / 2.0**31)


def test_int16_is_kept_until_it_is_mixed():
    with open_audio(wav_bytes(TONE)) as reader:
        assert {block.dtype for block in reader.blocks()} == {np.dtype(np.int16)}
    with open_audio(wav_bytes(TONE, subtype="PCM_24")) as reader:
        assert {block.dtype for block in reader.blocks()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["layer3.mp3", "free.flac", "radio.aac"])
def test_a_tag_in_front_is_passed_over(tmp_path, name):
    data = write_format(tmp_path / name).read_bytes()
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0x10, 0]) + bytes(0x10 << 7)  # sizes have 7 bits a byte
    samples, warnings = decode(tag + data)
    np.testing.assert_array_equal(samples, decode(data)[0])
    assert warnings == []


def test_flac_from_a_pipe_is_read_to_its_end():
    waveform = noise(50_000, 2)
    streamed, warnings = decode(streamed_flac(waveform))
    np.testing.assert_array_equal(streamed, read_audio(wav_bytes(waveform, 16_000, "PCM_16", "FLAC"))[0])
    assert warnings == []


@pytest.mark.parametrize("loud_first", [True, False])
def test_mp3_without_a_length_is_read_to_its_end(loud_first):
    """Its bit rate changes, so that the first frame says nothing about the length."""
    parts = [noise(44_100 * 2), np.zeros(44_100 * 8, np.float32)]
    samples = np.concatenate(parts if loud_first else parts[::-1])[:, None]
    decoded, warnings = decode(av_bytes(samples, 44_100, "mp3", "libmp3lame", write_xing="0"))
    assert 0 <= len(decoded) - len(samples) <= 3_456
    assert warnings == []


@pytest.mark.parametrize("declared", [0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_0000, 0xFFFF_FFFF])
def test_wav_from_a_pipe_is_not_called_truncated(declared):
    data = wav_header(declared - 36 if declared < 0xFFFF_FFFF else declared - 40)[:40]
    samples, warnings = decode(data + declared.to_bytes(4, "little") + bytes(3_200))
    assert len(samples) == 1_600
    assert warnings == []


@pytest.mark.parametrize(
    "tail",
    [b"LIST\x5c\x00\x00\x00abcd", b"LIST\x04\x00\x00\x00abcd", b"\x00" * 37, b"xyz"],
    ids=["cut chunk", "whole chunk", "zeros", "odd"],
)
def test_wav_with_other_data_behind_the_samples_is_whole(tail):
    header = bytearray(wav_header(3_200))
    header[4:8] = (36 + 3_200 + 100).to_bytes(4, "little")
    samples, warnings = decode(bytes(header) + bytes(3_200) + tail)
    assert len(samples) == 1_600
    assert warnings == []


@POSIX_ONLY
@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"two\nlines.wav", b"\xff\xfe.m4a", b"=cmd|x.wav", "音.wav".encode()])
def test_odd_file_names(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    data = write_format(tmp_path / ("phone.m4a" if name.endswith(b"m4a") else "pcm16.wav")).read_bytes()
    try:
        path.write_bytes(data)
    except OSError as error:
        pytest.skip(f"this file system refuses the name: {error}")
    np.testing.assert_array_equal(read_audio(path)[0], read_audio(data)[0])


# ---- mixing down and resampling


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, np.float16, ">i2", ">f4"])
@pytest.mark.parametrize("n_channels", [1, 2, 3, 6, 64])
def test_mono_is_the_mean_of_the_channels(dtype, n_channels):
    values = noise(500, n_channels).astype(np.float64)
    scale = {2: 2**15, 4: 2**31}[np.dtype(dtype).itemsize] if np.dtype(dtype).kind == "i" else 1
    waveform = (values * scale).astype(dtype)
    mono = waveform_to_mono(waveform)
    assert (mono.dtype, mono.shape) == (np.float32, (500,))
    np.testing.assert_allclose(mono, waveform.astype(np.float64).mean(axis=1) / scale, atol=2e-7)


def test_mono_of_16_bit_stereo_is_exact():
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, (5_000, 2)).astype(np.int16)
    exact = pcm.astype(np.float64).mean(axis=1) / 2**15
    np.testing.assert_array_equal(waveform_to_mono(pcm), exact)
    np.testing.assert_array_equal(read_audio(wav_bytes(pcm), mono=True)[0], exact)


def test_a_mono_waveform_may_have_one_or_two_axes():
    np.testing.assert_array_equal(waveform_to_mono(TONE), TONE)
    np.testing.assert_array_equal(waveform_to_mono(TONE[:, None]), TONE)
    np.testing.assert_array_equal(waveform_to_mono(TONE.tolist()), TONE)


def test_the_callers_samples_are_not_changed():
    waveform = noise(1_000, 3)
    before = waveform.copy()
    waveform_to_mono(waveform)
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize(
    ("waveform", "code", "match"),
    [
        (np.zeros((2, 16_000)), "shape", r"16,000 channels.*pass waveform\.T"),
        (np.zeros((2, 3, 4)), "shape", r"\(2, 3, 4\)"),
        (np.float32(1), "shape", r"shape \(\)"),
        (np.zeros(10, complex), "dtype", "complex128"),
        (np.zeros(10, np.uint8), "dtype", "uint8"),
        (np.zeros(10, np.int64), "dtype", "int64"),
        (np.zeros(10, bool), "dtype", "bool"),
        (np.array(["a"]), "dtype", "<U1"),
        (np.zeros(0), "no_samples", r"shape \(0,\)"),
        (np.zeros((100, 0)), "no_samples", r"shape \(100, 0\)"),
        (np.array([0, 0, np.nan]), "non_finite", "sample 2 is nan"),
        (np.array([[0, 0], [0, -np.inf]]), "non_finite", "sample 1 is -inf"),
        (np.array([0, np.nan], np.float16), "non_finite", "sample 1 is nan"),
        (np.array([1e308]), "out_of_range", r"sample 0 is 1e\+308"),
    ],
)
def test_waveforms_that_cannot_be_used(waveform, code, match):
    with pytest.raises(AudioError, match=match) as caught:
        waveform_to_mono(waveform)
    assert caught.value.code == code


@pytest.mark.parametrize(("rate", "new_rate"), [(44_100, 16_000), (48_000, 16_000), (8_000, 16_000), (22_050, 32_000)])
def test_resampling_has_the_right_length_and_tone(rate, new_rate):
    waveform = sine(440, rate, 3.0)
    (resampled,) = (np.concatenate(list(resample_blocks([waveform], rate, new_rate))),)
    assert resampled.dtype == np.float32
    assert abs(len(resampled) - len(waveform) * new_rate / rate) <= 1
    middle = slice(new_rate // 2, -new_rate // 2)
    np.testing.assert_allclose(resampled[middle], sine(440, new_rate, 3.0)[middle], atol=1e-4)


def test_a_tone_above_the_new_nyquist_frequency_vanishes():
    resampled = np.concatenate(list(resample_blocks([sine(10_000, 44_100, 2.0)], 44_100, 16_000)))
    assert np.abs(resampled[2_000:-2_000]).max() < 1e-5


def test_a_tone_close_below_the_new_nyquist_frequency_stays():
    resampled = np.concatenate(list(resample_blocks([sine(7_200, 44_100, 2.0)], 44_100, 16_000)))
    assert np.abs(resampled[2_000:-2_000]).max() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("n_channels", [None, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_resampling_in_blocks_equals_resampling_at_once(n_channels, seed):
    waveform = noise(60_000, n_channels)
    cuts = np.sort(np.random.default_rng(seed).integers(0, 60_000, 9))
    whole = np.concatenate(list(resample_blocks([waveform], 44_100, 16_000)))
    pieces = np.concatenate(list(resample_blocks(np.split(waveform, cuts), 44_100, 16_000)))
    np.testing.assert_array_equal(pieces, whole)


def test_no_resampling_at_the_same_rate():
    blocks = [noise(10), noise(20)]
    assert [id(block) for block in resample_blocks(blocks, 16_000, 16_000)] == [id(block) for block in blocks]


@pytest.mark.parametrize("rate", [0, -16_000, float("nan"), float("inf"), 0.5, 1e9])
def test_rates_that_are_none(rate):
    with pytest.raises(UsageError, match="expected a number from 1 to 10,000,000 Hz"):
        read_audio(wav_bytes(TONE), sample_rate=rate)


def test_read_audio_in_every_shape():
    stereo = noise(44_100, 2)
    data = wav_bytes(stereo, 44_100, "FLOAT")
    np.testing.assert_array_equal(read_audio(data)[0], stereo)
    mono, rate = read_audio(data, sample_rate=16_000, mono=True)
    assert (mono.shape, mono.dtype, rate) == ((16_000,), np.float32, 16_000)
    wide, _ = read_audio(data, sample_rate=16_000)
    assert wide.shape == (16_000, 2)
    np.testing.assert_allclose(wide.mean(axis=1), mono, atol=1e-6)


def test_mono_blocks_do_not_depend_on_the_block_size(monkeypatch):
    data = wav_bytes(noise(100_000, 2), 44_100)
    results = []
    for block_frames in (1_000, 32_768, 1_000_000):
        monkeypatch.setattr("audioset.audio.decoders.BLOCK_FRAMES", block_frames)
        with open_audio(data) as reader:
            results.append(np.concatenate(list(mono_blocks(reader, 16_000))))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


# ---- limits


@pytest.mark.parametrize(
    ("source", "limits", "code", "match"),
    [
        (wav_bytes(noise(100, 255)), LIMITS, "too_many_channels", r"255 channels; the limit is 64 \(--max-channels\)"),
        (wav_bytes(noise(100, 3)), Limits(max_channels=2), "too_many_channels", "3 channels; the limit is 2"),
        (wav_header(100, 1) + bytes(100), LIMITS, "sample_rate", "rate is 1 Hz; the limits are 1,000 to 768,000 Hz"),
        (wav_header(100, 2_000_000) + bytes(100), LIMITS, "sample_rate", "rate is 2,000,000 Hz.*--max-sample-rate"),
        (wav_bytes(TONE), Limits(min_sample_rate=20_000), "sample_rate", "16,000 Hz; the limits are 20,000"),
        (wav_bytes(TONE), Limits(max_seconds=1.5), "too_long", r"claims 2 s; the limit is 2 s \(--max-seconds\)"),
        (streamed_flac(noise(160_000)), Limits(max_seconds=5), "too_long", r"goes on after 5 s.*\(--max-seconds\)"),
        (
            with_flac_length(wav_bytes(TONE, 16_000, "PCM_16", "FLAC"), 2**36 - 1),
            LIMITS,
            "too_long",
            "claims 4,294,967 s",
        ),
        (wav_bytes(noise(3_000_000)), Limits(max_expansion=1), "expansion", r"6,000,044 bytes.*\(--max-expansion\)"),
    ],
)
def test_limits(source, limits, code, match):
    check_refused(source, code, match, limits)


@pytest.mark.parametrize("rate", [1_000, 768_000])
def test_rates_at_the_limits_are_read(rate):
    assert read_audio(wav_header(100, rate) + bytes(100))[1] == rate


def test_64_channels_are_read():
    assert read_audio(wav_bytes(noise(100, 64)))[0].shape == (100, 64)


def test_decompression_bomb():
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 48_000, 32, format="OGG", subtype="VORBIS") as sound:
        for _ in range(6):
            sound.write(np.zeros((48_000, 32), np.float32))
    check_refused(file.getvalue(), "expansion", r"the limit is\s+2,000 times.*decompression bomb")


def test_silence_in_mono_flac_is_no_bomb():
    silence = np.zeros(16_000 * 300, np.int16)
    assert len(read_audio(wav_bytes(silence, 16_000, "PCM_16", "FLAC"))[0]) == len(silence)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_must_be_positive(value):
    with pytest.raises(UsageError, match=r"the limit max_channels is .*expected a number above 0"):
        Limits(max_channels=value)


# ---- bad files

NOT_AUDIO = {
    "text": b"Dear reader, this is a text.",
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\nhttp://127.0.0.1/a.ts\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    "html": b"<!DOCTYPE html><html>",
    "zeros": bytes(10_000),
    "one byte": b"\xff",
    "half a magic": b"RIFF",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_what_is_no_audio_under_an_audio_name(tmp_path, name):
    path = tmp_path / "song.wav"
    path.write_bytes(NOT_AUDIO[name])
    check_refused(path, "not_audio", r"begins with '.*no audio format known here.*Known: WAV, .*MP3")


@pytest.mark.parametrize(
    ("source", "code", "match"),
    [
        (b"", "empty_file", r"empty \(0 bytes\)"),
        (wav_header(0), "no_samples", "holds no samples"),
        (wav_header(1_000), "no_samples", "holds no samples"),
        (wav_bytes(np.zeros(0)), "no_samples", "holds no samples"),
        (wav_header(1_000)[:30], "decode_failed", "WAV file cannot be decoded.*damaged or cut"),
        (wav_header(100, 0) + bytes(100), "decode_failed", "WAV file cannot be decoded"),
        (wav_header(100, n_channels=0) + bytes(100), "decode_failed", "WAV file cannot be decoded"),
        (b"fLaC" + bytes(20), "decode_failed", "FLAC file cannot be"),
        (b"\x1a\x45\xdf\xa3" + bytes(100), "decode_failed", "WebM file cannot be opened.*damaged or cut"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(100), "decode_failed", "MP4 file cannot be opened"),
        (silent_film(), "no_audio_stream", "MP4 file has no audio stream"),
    ],
)
def test_broken_files(source, code, match):
    check_refused(source, code, match)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [*product(["WAV", "W64"], ["IMA_ADPCM", "MS_ADPCM", "GSM610"]), ("AIFF", "IMA_ADPCM"), ("AIFF", "GSM610")],
)
def test_encodings_whose_decoder_in_libsndfile_has_memory_bugs_are_read_by_ffmpeg(monkeypatch, container, subtype):
    data = wav_bytes(sine(440, 8_000, 1.0), 8_000, subtype, container)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # what opens a file reads its header only
    samples, warnings = decode(data)
    assert len(samples) / 8_000 == pytest.approx(1, abs=0.04)
    assert dominant_hz(samples[:, 0], 8_000) == pytest.approx(440, abs=2)
    assert warnings == []


def test_an_unknown_encoding_is_refused(tmp_path):
    pcm, unknown = (tag + b"\x02\x00" + LOSSY_RATE.to_bytes(4, "little") for tag in (b"\x01\x00", b"\x99\x99"))
    data = write_format(tmp_path / "film.avi").read_bytes()
    assert pcm in data
    check_refused(
        data.replace(pcm, unknown), "unsupported_format", "AVI file's audio has an encoding that is not known"
    )


@pytest.mark.parametrize(
    ("value", "code", "match"),
    [
        (np.nan, "non_finite", r"sample 40,000 \(2\.500 s\) is nan"),
        (np.inf, "non_finite", r"sample 40,000 \(2\.500 s\) is inf"),
        (1e38, "out_of_range", r"sample 40,000 \(2\.500 s\) is 1e\+38"),
    ],
)
def test_samples_that_are_no_sound(value, code, match):
    samples = noise(50_000)
    samples[40_000] = value
    check_refused(wav_bytes(samples, 16_000, "FLOAT"), code, match)


def test_integers_stored_as_floats_are_read():
    samples = (noise(1_000) * 2**31).astype(np.float32)
    np.testing.assert_array_equal(read_audio(wav_bytes(samples, 16_000, "FLOAT"))[0][:, 0], samples)


@pytest.mark.parametrize(
    "name", ["pcm16.wav", "pcm24.wav", "float.wav", "big.rf64", "sony.w64", "apple.aiff", "layer3.mp3"]
)
@pytest.mark.parametrize("source", [PATH_SOURCE, BYTES_SOURCE], ids=["path", "bytes"])
def test_a_cut_file_gives_what_is_there_and_one_warning(tmp_path, name, source):
    path = write_format(tmp_path / name, seconds=5)
    whole = decode(source(path))[0]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    cut, warnings = decode(source(path))
    assert 0.5 < len(cut) / len(whole) < 0.65
    if name != "layer3.mp3":  # whose frames borrow bits from each other
        np.testing.assert_array_equal(cut, whole[: len(cut)])
    assert len(warnings) == 1
    assert warnings[0].startswith("truncated: holds ")


@pytest.mark.parametrize("name", ["radio.aac", "flash.flv"])
def test_a_cut_stream_gives_what_is_there_and_one_warning(tmp_path, name):
    path = write_format(tmp_path / name, seconds=5)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    cut, warnings = decode(path)
    assert 0.5 < len(cut) / (5 * LOSSY_RATE) < 0.65
    assert warnings == [f"truncated: ends in the middle of a packet, after {len(cut) / LOSSY_RATE:.1f} s"]


@pytest.mark.parametrize("source", [PATH_SOURCE, BYTES_SOURCE], ids=["path", "bytes"])
def test_a_cut_flac_gives_what_is_there_and_one_warning(tmp_path, source):
    path = tmp_path / "cut.flac"
    data = wav_bytes(noise(80_000), 16_000, "PCM_16", "FLAC")
    path.write_bytes(data[: len(data) // 2])
    cut, warnings = decode(source(path))
    assert 0.45 < len(cut) / 80_000 < 0.5
    np.testing.assert_array_equal(cut, decode(data)[0][: len(cut)])
    assert warnings == [f"truncated: holds {len(cut) / 16_000:.1f} s of the 5.0 s that its header promises"]


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    check_refused(tmp_path / "folder.wav", "unreadable", "not a regular file")
    check_refused(tmp_path / "missing.wav", "unreadable", "cannot be opened: No such file")
    check_refused("a\0b.wav", "unreadable", "cannot be opened: .*embedded null")
    check_refused("a" * 5_000, "unreadable", "cannot be opened: File name too long")


@POSIX_ONLY
def test_posix_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    check_refused(tmp_path / "pipe.wav", "unreadable", "not a regular file")
    check_refused("/dev/zero", "unreadable", "not a regular file")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    check_refused(tmp_path / "loop.wav", "unreadable", "Too many levels of symbolic links")


@POSIX_ONLY
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(wav_bytes(TONE))
    path.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:  # whom nothing is forbidden
            os.seteuid(65_534)
        check_refused(path, "unreadable", "cannot be opened: Permission denied")
    finally:
        if is_root:
            os.seteuid(0)


def test_sources_that_are_none(tmp_path):
    for source in (None, 3, bytearray(b"RIFF"), [b"RIFF"]):
        with pytest.raises(UsageError, match="expected a path, bytes, or an open binary file"):
            read_audio(source)
    with pytest.raises(UsageError, match="opened as text"):
        read_audio(io.StringIO("RIFF"))
    closed = io.BytesIO(wav_bytes(TONE))
    closed.close()
    check_refused(closed, "unreadable", "cannot be read from its start.*closed file.*pass its contents as bytes")
    with (tmp_path / "out.wav").open("wb") as file:
        file.write(bytes(100))
        check_refused(file, "unreadable", "cannot be read from its start")


@POSIX_ONLY
def test_a_pipe_is_refused_with_a_next_step():
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        check_refused(file, "unreadable", "not seekable.*pass its contents as bytes")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path):
    sources = [write_format(tmp_path / name, seconds=0.1) for name in ("pcm16.wav", "phone.m4a")]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(wav_bytes(noise(100, 255)))
    before = n_open_files()
    for _ in range(5):
        for source in sources:
            read_audio(source)
        check_refused(bad, "too_many_channels", "255 channels")
    assert n_open_files() == before


@pytest.mark.parametrize("name", ["pcm16.wav", "free.flac", "vorbis.ogg", "phone.m4a", "page.webm", "tv.ts"])
def test_damaged_files_give_sound_or_one_kind_of_error(tmp_path, name):
    """Random bytes in random places: samples come out, or an AudioError, and nothing else."""
    original = write_format(tmp_path / name, seconds=0.2 if name != "vorbis.ogg" else 2.0).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        data = bytearray(original)
        for position in rng.integers(0, len(data) if rng.random() < 0.5 else 200, 4):
            data[position] = rng.integers(256)
        try:
            waveform, _ = read_audio(bytes(data))
        except AudioError as error:
            outcomes.add(error.code)
        else:
            assert np.isfinite(waveform).all()
            outcomes.add("sound")
    assert len(outcomes) > 1
