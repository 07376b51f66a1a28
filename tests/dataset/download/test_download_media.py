"""From a fetched file to the file of a clip: the right samples, the right form, and nothing but that."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from films import RATE, film
from sounds import av_bytes, noise, sine, wav_bytes

from audioset.audio.reading import read_audio
from audioset.dataset.download.cutter import Cutter
from audioset.dataset.download.media import MediaSettings, check_file, cut_clip, write_clip
from audioset.dataset.download.video import cut_video
from audioset.errors import AudioError, UsageError

SOURCES = {
    "a.webm": ("webm", "libopus"),
    "a.m4a": ("ipod", "aac"),
    "a.mp4": ("mp4", "aac"),
    "a.ts": ("mpegts", "mp2"),
}


def source(folder: Path, name: str, seconds: float = 4.0, rate: int = RATE) -> Path:
    path = folder / name
    samples = noise(round(seconds * rate), 2)
    if name in SOURCES:
        path.write_bytes(av_bytes(samples, rate, *SOURCES[name]))
    else:
        container, subtype = {"mp3": ("MP3", "MPEG_LAYER_III"), "wav": ("WAV", "PCM_16")}[path.suffix[1:]]
        path.write_bytes(wav_bytes(samples, rate, subtype, container))
    return path


@pytest.mark.parametrize("name", [*SOURCES, "a.mp3", "a.wav"])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (1.25, 3.003)])
def test_a_clip_has_the_samples_that_decoding_from_the_start_has(tmp_path, name, start_s, end_s):
    path = source(tmp_path, name)
    whole, rate = read_audio(path)
    made = cut_clip(path, tmp_path / "clip.flac", start_s, end_s, MediaSettings(bit_depth=24))
    clip, clip_rate = read_audio(tmp_path / "clip.flac")
    wanted = whole[round(start_s * rate) : round(end_s * rate)]
    assert (clip_rate, made.sample_rate, made.n_channels, made.codec) == (rate, rate, 2, "FLAC")
    assert made.duration_s == len(wanted) / rate
    assert np.abs(clip - np.clip(wanted, -1, 1 - 2**-23)).max() <= 2**-23


def test_sixteen_bits_come_out_as_they_went_in(tmp_path):
    samples = np.arange(-32_768, 32_768, dtype=np.int16)[:, None]
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(samples, 16_000))
    for name in ("flac", "wav"):
        cut_clip(path, tmp_path / f"clip.{name}", 0.5, 4.0, MediaSettings(format=name))
        written, _ = soundfile.read(tmp_path / f"clip.{name}", dtype="int16")
        np.testing.assert_array_equal(written, samples[8_000:64_000, 0])


@pytest.mark.parametrize("start_s", [0.0, 0.3, 2.0])
def test_a_resampled_clip_is_a_stretch_of_the_resampled_whole(tmp_path, start_s):
    path = source(tmp_path, "a.wav", rate=44_100)
    whole, _ = read_audio(path, sample_rate=16_000)
    cut_clip(path, tmp_path / "c.wav", start_s, start_s + 1, MediaSettings("wav", sample_rate=16_000, bit_depth=32))
    clip, _ = read_audio(tmp_path / "c.wav")
    first = round(start_s * 16_000)
    assert clip.shape == (16_000, 2)
    assert np.abs(clip - whole[first : first + 16_000]).max() < 2e-3


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("n_source", [1, 2])
def test_channels_are_mixed_or_doubled(tmp_path, n_source, n_channels):
    samples = noise(16_000, n_source)
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(samples, 16_000, "FLOAT"))
    cut_clip(path, tmp_path / "c.wav", 0.0, 1.0, MediaSettings("wav", n_channels=n_channels, bit_depth=32))
    clip, _ = read_audio(tmp_path / "c.wav")
    wanted = samples if n_channels == n_source else samples.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(clip, np.broadcast_to(wanted, clip.shape), atol=1e-7)
    assert clip.shape == (16_000, n_channels)


@pytest.mark.parametrize(("rate", "written"), [(44_100, 48_000), (16_000, 16_000), (22_050, 24_000), (96_000, 48_000)])
def test_opus_takes_the_next_rate_that_it_knows_and_keeps_the_length(tmp_path, rate, written):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(sine(440, rate, 3.0)[:, None], rate))
    made = cut_clip(path, tmp_path / "c.opus", 1.0, 2.5, MediaSettings("opus"))
    assert (made.sample_rate, made.codec) == (written, "Ogg Opus")
    assert made.duration_s == pytest.approx(1.5, abs=0.02)


def test_a_clip_that_lacks_a_little_of_its_end_is_kept_with_its_true_length(tmp_path):
    path = source(tmp_path, "a.wav", 3.8)
    made = cut_clip(path, tmp_path / "c.flac", 3.0, 4.0, MediaSettings())
    assert made.duration_s == pytest.approx(0.8)


@pytest.mark.parametrize(("seconds", "start_s"), [(3.4, 3.0), (2.0, 3.0), (3.0, 3.0)])
def test_a_video_that_ends_too_early_is_short(tmp_path, seconds, start_s):
    path = source(tmp_path, "a.wav", seconds)
    with pytest.raises(AudioError, match="--tolerance") as caught:
        cut_clip(path, tmp_path / "c.flac", start_s, 4.0, MediaSettings())
    assert caught.value.code == "short"
    assert not (tmp_path / "c.flac").exists()


def test_a_file_that_is_shorter_than_the_site_says_is_not_whole(tmp_path):
    path = source(tmp_path, "a.wav", 3.0)
    with pytest.raises(AudioError, match=r"ends after 3.0 s of the 60.0 s announced") as caught:
        cut_clip(path, tmp_path / "c.flac", 30.0, 40.0, MediaSettings(), announced_s=60.0)
    assert caught.value.code == "decode_failed"


@pytest.mark.parametrize("name", ["a.webm", "a.m4a", "a.wav"])
def test_a_file_that_was_cut_off_is_no_short_video(tmp_path, name):
    path = source(tmp_path, name, 20.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(AudioError, match=r"not whole|cannot be|damaged|header") as caught:
        cut_clip(path, tmp_path / "c.flac", 15.0, 18.0, MediaSettings())
    assert caught.value.code != "short"


def test_a_file_is_checked_for_length_rate_and_channels(tmp_path):
    path = source(tmp_path, "a.wav", 1.0)
    assert check_file(path, 1.0, 0.0, RATE, 2).duration_s == 1.0
    for wanted, message in (
        ((2.0, 0.5, None, None), "lasts 1.000 s; expected 2.000"),
        ((1.0, 0.5, 44_100, None), "expected 44100 Hz"),
        ((1.0, 0.5, None, 1), "has 2 channels; expected 1"),
    ):
        with pytest.raises(AudioError, match=message):
            check_file(path, *wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "mp3"}, "expected one of flac, wav, opus"),
        ({"bit_depth": 32}, "flac has no bit depth 32; expected 16 or 24"),
        ({"format": "opus", "sample_rate": 44_100}, "Opus has no sample rate of 44100"),
        ({"n_channels": 6}, "expected 1 or 2"),
        ({"sample_rate": 0}, "sample rate is 0"),
        ({"tolerance_s": -1.0}, "expected 0 or more"),
        ({"video": "both"}, "expected with-audio or video-only"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        MediaSettings(**settings)


# The process that decodes


def test_the_child_answers_as_the_functions_do(tmp_path):
    path = source(tmp_path, "a.webm")
    with Cutter() as cutter:
        there = cutter.cut(path, tmp_path / "there.flac", 1.0, 2.0, MediaSettings(), None)
        here = cut_clip(path, tmp_path / "here.flac", 1.0, 2.0, MediaSettings())
        assert there.sha256 == here.sha256
        assert cutter.duration_of(path) == pytest.approx(4.0, abs=0.03)
        with pytest.raises(AudioError, match="--tolerance") as caught:
            cutter.cut(path, tmp_path / "x.flac", 3.0, 9.0, MediaSettings(), None)
        assert caught.value.code == "short"
        with pytest.raises(OSError, match="No such file"):
            cutter.cut(path, tmp_path / "nowhere" / "x.flac", 1.0, 2.0, MediaSettings(), None)


@pytest.mark.parametrize("fault", ["segfault", "abort", "exit", "allocate", "unforeseen", "sleep", "chatter"])
def test_a_decoder_that_crashes_hangs_or_chatters_costs_one_clip(tmp_path, monkeypatch, fault):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "faults"))
    bad, good = tmp_path / f"{fault}.wav", tmp_path / "good.wav"
    for path in (bad, good):
        path.write_bytes(wav_bytes(noise(16_000), 16_000))
    with Cutter(timeout_s=2.0 if fault == "sleep" else 30.0) as cutter:
        assert cutter.duration_of(good) == 1.0
        if fault == "chatter":
            assert cutter.duration_of(bad) == 1.0
        else:
            with pytest.raises(AudioError, match=r"decoder|decoding|codec"):
                cutter.duration_of(bad)
        assert cutter.duration_of(good) == 1.0


# Pictures


@pytest.mark.parametrize("frame_rate", [None, 10])
def test_pictures_are_those_of_their_times_to_the_frame(tmp_path, frame_rate):
    path = film(tmp_path / "film.mp4")
    cut_video(path, None, tmp_path / "clip.mp4", 0.8, 2.0, frame_rate)
    with av.open(str(tmp_path / "clip.mp4")) as clip:
        shown = [picture.to_ndarray(format="gray")[32, 32] for picture in clip.decode(video=0)]
        rate = clip.streams.video[0].average_rate
        assert not clip.streams.audio
    assert rate == (frame_rate or 25)
    assert len(shown) == round(1.2 * rate)
    with av.open(str(path)) as whole:
        source_pictures = [picture.to_ndarray(format="gray")[32, 32] for picture in whole.decode(video=0)]
    wanted = [source_pictures[int(25 * (0.8 + n / rate) + 1e-6)] for n in range(len(shown))]
    np.testing.assert_allclose(np.array(shown, float), np.array(wanted, float), atol=1.5)


def test_pictures_may_have_the_sound_of_the_clip(tmp_path):
    sound = source(tmp_path, "a.wav", 1.2)
    cut_video(film(tmp_path / "film.mp4"), sound, tmp_path / "clip.mp4", 0.8, 2.0)
    waveform, rate = read_audio(tmp_path / "clip.mp4")
    assert (rate, waveform.shape[1]) == (RATE, 2)
    assert len(waveform) / rate == pytest.approx(1.2, abs=0.05)


def test_a_file_without_pictures_is_said(tmp_path):
    with pytest.raises(AudioError, match="no pictures"):
        cut_video(source(tmp_path, "a.webm"), None, tmp_path / "clip.mp4", 0.0, 1.0)


def test_a_clip_behind_the_last_picture_is_said(tmp_path):
    with pytest.raises(AudioError, match="ends before the clip begins"):
        cut_video(film(tmp_path / "film.mp4", 1.0), None, tmp_path / "clip.mp4", 5.0, 6.0)


def test_a_full_disk_is_no_damaged_video_and_a_damaged_video_no_full_disk(tmp_path):
    path = film(tmp_path / "film.mp4")
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space left"):
            cut_video(path, None, Path("/dev/full"), 0.8, 2.0, None)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(AudioError, match=r"cannot be (opened|decoded)"):
        cut_video(path, None, tmp_path / "clip.mp4", 0.8, 2.0, None)


def test_a_format_that_does_not_know_the_rate_is_an_error_of_the_clip(tmp_path):
    with pytest.raises(AudioError, match="at 0 Hz cannot be written as flac"):
        write_clip(tmp_path / "clip.flac", np.zeros((100, 1), np.float32), 0, MediaSettings())
