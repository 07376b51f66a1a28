"""Sound files are read to their real end, on their container's clock, and what was lost is said with its place."""

from __future__ import annotations

import io
import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from decoding import check_refused, decode, dominant_hz
from sounds import (
    AV_FORMATS,
    LOSSY_RATE,
    SOUNDFILE_FORMATS,
    av_bytes,
    noise,
    sine,
    streamed_flac,
    wav_bytes,
    wav_header,
)

from audioset.audio.levels import LevelCheck
from audioset.audio.reading import mono_blocks, open_audio, read_audio, waveform_to_mono
from audioset.errors import AudioError, AudioWarning

RATE = 16_000
ID3 = b"ID3\x04\x00\x00" + bytes([0, 0, 0x10, 0]) + bytes(0x10 << 7)
ID3_V1 = b"TAG" + bytes(125)
APE_TAG = b"APETAGEX" + struct.pack("<4I", 2_000, 32, 0, 0xA000_0000) + bytes(8)
MP3_FRAME_S = 1_152 / 44_100


def tone(seconds=2.0, sample_rate=RATE, n_channels=1):
    samples = sine(440, sample_rate, seconds) + 0.05 * noise(round(seconds * sample_rate))
    return np.repeat(samples[:, None], n_channels, axis=1)


def ogg(seconds=2.0, subtype="VORBIS", sample_rate=RATE, n_channels=1):
    return wav_bytes(tone(seconds, sample_rate, n_channels), sample_rate, subtype, "OGG")


def ogg_flac(seconds=2.0):
    return av_bytes(tone(seconds), RATE, "ogg", "flac")


def flac(seconds=2.0, sample_rate=RATE, n_channels=1):
    return wav_bytes(tone(seconds, sample_rate, n_channels), sample_rate, "PCM_16", "FLAC")


def mp3(seconds=2.0, sample_rate=44_100, n_channels=2, **options):
    return av_bytes(tone(seconds, sample_rate, n_channels), sample_rate, "mp3", "libmp3lame", **options)


def wav(seconds=2.0, subtype="PCM_16", sample_rate=RATE, n_channels=1):
    return wav_bytes(tone(seconds, sample_rate, n_channels), sample_rate, subtype)


def with_data_length(data, n_bytes):
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", n_bytes) + data[at + 4 :]


def chunk(name, contents, padding=b""):
    return name + struct.pack("<I", len(contents)) + contents + padding


def wave(*chunks, magic=b"RIFF"):
    return magic + struct.pack("<I", 0xFFFF_FFFF) + b"WAVE" + b"".join(chunks)


def cover(n_bytes, tag="ID3"):
    """A tag with so many random bytes in it, as of a picture, in which frames seem to begin."""
    picture = np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8).tobytes()
    if tag == "APE":
        head = struct.pack("<3I", 2_000, n_bytes + 32, 1)
        return b"APETAGEX%b\0\0\0\xa0%b%bAPETAGEX%b\0\0\0\x80%b" % (head, bytes(8), picture, head, bytes(8))
    return b"ID3\x03\0\0" + bytes(n_bytes >> shift & 0x7F for shift in (21, 14, 7, 0)) + picture


def seconds_of(data):
    with open_audio(data) as reader:
        n_frames = sum(len(block) for block in reader.blocks())
    return n_frames / reader.sample_rate, reader.warnings


# ---- joined files


@pytest.mark.parametrize(
    ("parts", "seconds"),
    [
        ([ogg(), ogg(1.0), ogg(3.0)], 6.0),
        ([ogg()] * 2, 4.0),
        ([ogg(), ogg(0.1)], 2.1),
        ([ogg(subtype="OPUS", sample_rate=48_000)] * 2, 4.0),
        ([ogg_flac()] * 2, 4.0),
        ([av_bytes(tone(4.0, 48_000), 48_000, "ogg", "libopus")] * 3, 12.0),
        ([flac(), flac(1.0)], 3.0),
        ([ID3 + flac(), ID3 + flac(0.05)], 2.05),
        ([streamed_flac(tone())] * 2, 4.0),
        ([wav(), wav(1.0), wav()], 5.0),
        ([wav_bytes(tone(), RATE, "PCM_16", "AIFF")] * 2, 4.0),
        ([wav(subtype="GSM610", sample_rate=8_000)] * 2, 4.0),
    ],
    ids=[
        "ogg",
        "same ogg",
        "short ogg",
        "opus",
        "ogg flac",
        "long opus",
        "flac",
        "tagged",
        "streamed",
        "wav",
        "aiff",
        "gsm",
    ],
)
def test_joined_files_are_read_to_the_end_of_the_last(parts, seconds):
    got_s, warnings = seconds_of(b"".join(parts))
    assert got_s == pytest.approx(seconds, abs=1e-6)
    assert warnings == []


@pytest.mark.parametrize(
    "parts",
    [
        [mp3(), mp3(1.0)],
        [mp3(bit_rate="64000"), ID3_V1, ID3, mp3(1.0), APE_TAG + bytes(1_968) + APE_TAG + ID3_V1],
        [mp3(), bytes(3_000), mp3(1.0)],
        [mp3(write_xing="0"), mp3(1.0, write_xing="0")],
        [cover(90_000), mp3(), ID3_V1, cover(500_000), mp3(1.0), cover(40_000, "APE"), ID3_V1],
        [mp3(), cover(60_000, "APE"), ID3_V1, cover(30_000), mp3(1.0)],
    ],
    ids=["plain", "tags", "zeros", "no length", "covers", "two covers"],
)
def test_joined_mp3_is_read_to_its_end(parts):
    got_s, warnings = seconds_of(b"".join(parts))
    assert 3.0 <= got_s <= 3.0 + 6 * MP3_FRAME_S  # the delay and the padding of each encoder, and a frame for lengths
    assert warnings == []


def test_joined_files_of_other_kinds_are_converted_with_a_warning():
    data = ogg() + ogg(subtype="OPUS", sample_rate=48_000) + ogg_flac()
    samples, warnings = decode(data)
    assert len(samples) / RATE == pytest.approx(6.0, abs=1e-3)
    for second in range(6):
        assert dominant_hz(samples[second * RATE : (second + 1) * RATE, 0], RATE) == pytest.approx(440, abs=2)
    assert warnings == ["changes from 1 channels at 16000 Hz to 1 at 48000 Hz after 2.0 s; what follows is converted"]


@pytest.mark.parametrize("make", [flac, wav])
def test_another_rate_and_other_channels_behind_a_joint(make):
    samples, warnings = decode(make() + make(2.0, sample_rate=44_100, n_channels=2))
    assert samples.shape == (4 * RATE, 1)
    assert dominant_hz(samples[2 * RATE :, 0], RATE) == pytest.approx(440, abs=2)
    assert warnings == ["changes from 1 channels at 16000 Hz to 2 at 44100 Hz after 2.0 s; what follows is converted"]


def test_mp3_that_changes_its_rate_is_converted():
    samples, warnings = decode(mp3() + mp3(2.0, 22_050, 1))
    assert samples.shape[1] == 2
    assert len(samples) / 44_100 == pytest.approx(4.06, abs=0.05)
    assert dominant_hz(samples[-44_100:, 0], 44_100) == pytest.approx(440, abs=2)
    assert "to 1 at 22050 Hz after 2.0 s" in warnings[-1]


def test_a_joined_file_that_cannot_be_read_leaves_the_first():
    broken = wav_header(1_000, sample_rate=3_000_000) + bytes(1_000)
    got_s, warnings = seconds_of(wav() + broken)
    assert got_s == 2.0
    assert len(warnings) == 1
    assert warnings[0].startswith("what is joined to it at 2.0 s cannot be read: the sample rate is 3,000,000 Hz")


@pytest.mark.parametrize("tail", [ID3_V1, bytes(30_000), APE_TAG + ID3_V1, b"hello world" * 500])
@pytest.mark.parametrize("make", [ogg, flac, mp3, wav], ids=["ogg", "flac", "mp3", "wav"])
def test_what_is_no_sound_behind_a_file_changes_nothing(make, tail):
    whole, _ = decode(make())
    samples, warnings = decode(make() + tail)
    if make is wav and tail.startswith(b"hello"):  # in WAV, any bytes may be samples
        assert len(warnings) == 1
        return
    np.testing.assert_array_equal(samples, whole)
    assert warnings == []


# ---- lengths and starts that are wrong


@pytest.mark.parametrize("n_bytes", [0, 1, 20_000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_a_wav_header_that_promises_too_little_is_not_believed(n_bytes, subtype):
    data = wav(subtype=subtype)
    samples, warnings = decode(with_data_length(data, n_bytes))
    n_spare = len(samples) - 2 * RATE  # a chunk behind the samples, whose place nobody knows
    assert 0 <= n_spare < 100
    expected, got = read_audio(data)[0], read_audio(with_data_length(data, n_bytes))[0]
    np.testing.assert_array_equal(got[: 2 * RATE], expected)
    assert len(warnings) == 1
    assert "2.0 s are there: read to the end of the file. Likely cause: a recorder" in warnings[0]


def test_silence_without_a_length_is_silence():
    assert seconds_of(wav_header(0) + bytes(32_000))[0] == 1.0


FORMAT, SAMPLES = wav()[12:36], wav()[44:]
DS64 = struct.pack("<QQQI", len(SAMPLES) + 72, len(SAMPLES), len(SAMPLES) // 2, 0)
OPEN = b"data\xff\xff\xff\xff" + SAMPLES
ODD_HEADS = {
    "padding forgotten": wave(FORMAT, chunk(b"LIST", bytes(27)), chunk(b"bext", bytes(603)), chunk(b"data", SAMPLES)),
    "padding forgotten, and a chunk behind": wave(
        FORMAT, chunk(b"guan", b"x" * 35), chunk(b"data", SAMPLES), chunk(b"LIST", bytes(26))
    ),
    "rf64 without ds64": wave(FORMAT, OPEN, magic=b"RF64"),
    "rf64 with wild sizes": wave(chunk(b"ds64", b"\xff" * 24 + bytes(4)), FORMAT, OPEN, magic=b"RF64"),
    "bw64": wave(chunk(b"ds64", DS64), FORMAT, OPEN, magic=b"BW64"),
}


@pytest.mark.parametrize("name", ODD_HEADS)
def test_a_wav_file_with_an_odd_head_is_read_exactly(name):
    np.testing.assert_array_equal(read_audio(ODD_HEADS[name])[0], read_audio(wav())[0])
    assert seconds_of(ODD_HEADS[name]) == (2.0, [])


def unfinished(name):
    """Files of recorders that were stopped before they wrote the length."""
    if name == "rf64":
        return wave(chunk(b"ds64", bytes(28)), FORMAT, OPEN, magic=b"RF64")
    data = wav_bytes(tone(), RATE, "PCM_16", name.upper())
    at, size = {
        "au": (8, bytes(4)),
        "caf": (data.find(b"data") + 4, struct.pack(">Q", 4)),  # the count of edits, which stands before the samples
        "aiff": (data.find(b"SSND") + 4, struct.pack(">I", 8)),  # offset and block size
    }[name]
    return data[:at] + size + data[at + len(size) :]


@pytest.mark.parametrize("name", ["rf64", "au", "caf", "aiff"])
def test_a_length_that_was_never_written_is_not_believed(name):
    data = unfinished(name)
    np.testing.assert_array_equal(read_audio(data)[0], read_audio(wav())[0])
    _, warnings = seconds_of(data)
    assert len(warnings) == 1
    assert "the header promises 0.0 s, and 2.0 s are there: read to the end of the file" in warnings[0]


FRONTS = {
    "two tags": ID3 + ID3,
    "two covers": cover(300_000) * 2,
    "tag and zeros": ID3 + bytes(5_000),
    "zeros": bytes(5_000),
    "garbage": b"\x12\x34\x56" * 3_000,
    "a page": b"<br />\n<b>Warning</b>: fopen()\n" * 9,
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_mp3_behind_tags_zeros_and_garbage(front):
    got_s, warnings = seconds_of(front + mp3())
    assert 2.0 <= got_s <= 2.0 + 2 * MP3_FRAME_S
    assert warnings == []


def test_mp3_that_begins_within_a_frame():
    got_s, warnings = seconds_of(mp3()[700:])
    assert got_s == pytest.approx(2.0, abs=2 * MP3_FRAME_S)
    assert warnings == []


def test_an_unfinished_caf_is_read():
    data = wav_bytes(tone(), RATE, "PCM_16", "CAF")
    at = data.index(b"data") + 4
    assert seconds_of(data[:at] + b"\xff" * 8 + data[at + 8 :]) == (2.0, [])


# ---- whole files, and encodings

MORE_FORMATS = {  # container and codec of FFmpeg, rate, and what the package calls it
    "wavpack": ("wv", "wavpack", 44_100, "WavPack"),
    "tta": ("tta", "tta", 44_100, "TTA"),
    "ac3": ("ac3", "ac3", 44_100, "AC-3"),
    "eac3": ("eac3", "eac3", 44_100, "E-AC-3"),
    "au": ("au", "pcm_s16be", 44_100, "AU"),
    "amr": ("amr", "libopencore_amrnb", 8_000, "AMR"),
    "voc": ("voc", "pcm_u8", 8_000, "VOC"),
    "latm": ("latm", "aac", 44_100, "AAC (LATM)"),
    "alac in caf": ("caf", "alac", 44_100, "CAF"),
    "ogg flac": ("ogg", "flac", 44_100, "Ogg FLAC"),
    "g722 in wav": ("wav", "g722", 16_000, "WAV"),
    "g726 in wav": ("wav", "g726", 8_000, "WAV"),
    "mp3 in wav": ("wav", "libmp3lame", 44_100, "WAV"),
    "mp2 in wav": ("wav", "mp2", 44_100, "WAV"),
    "ac3 in wav": ("wav", "ac3", 44_100, "WAV"),
    "adpcm in aiff": ("aiff", "adpcm_ima_qt", 44_100, "AIFF"),
    "floats in aiff": ("aiff", "pcm_f32be", 44_100, "AIFF"),
    "flac in mp4": ("mp4", "flac", 44_100, "MP4"),
    "amr in 3gp": ("3gp", "libopencore_amrnb", 8_000, "MP4"),
    "tta in matroska": ("matroska", "tta", 44_100, "WebM"),
    "mp3 in matroska": ("matroska", "libmp3lame", 44_100, "WebM"),
}


@pytest.mark.parametrize("name", MORE_FORMATS)
def test_less_common_formats_are_read(name):
    container, codec, rate, expected = MORE_FORMATS[name]
    data = av_bytes(tone(1.0, rate), rate, container, codec)
    with open_audio(data) as reader:
        samples = np.concatenate(list(reader.blocks()))
    assert reader.container == expected
    assert len(samples) / reader.sample_rate == pytest.approx(1.0, abs=0.07)  # in whole frames
    assert dominant_hz(samples[:, 0], reader.sample_rate) == pytest.approx(440, abs=3)
    assert reader.warnings == []


@pytest.mark.parametrize("name", [*SOUNDFILE_FORMATS, *AV_FORMATS])
def test_whole_files_have_no_warning(name):
    samples = tone(1.0, LOSSY_RATE, 2)
    if name in SOUNDFILE_FORMATS:
        container, subtype, _ = SOUNDFILE_FORMATS[name]
        data = wav_bytes(samples, LOSSY_RATE, subtype, container)
    else:
        data = av_bytes(samples, LOSSY_RATE, *AV_FORMATS[name][:2])
    with open_audio(data) as reader:
        for _ in mono_blocks(reader, LOSSY_RATE):
            pass
    assert reader.warnings == []


def test_an_encoding_that_nobody_decodes_is_named():
    check_refused(
        wav_header(1_000, tag=0x9999) + bytes(1_000), "unsupported_format", r"encoding that is not known.*format 0x9999"
    )
    aac = av_bytes(tone(1.0, 44_100, 2), 44_100, "wav", "aac")
    check_refused(aac, "unsupported_format", r"holds aac, and none of its \d+ packets can be decoded")
    check_refused(b"MThd" + bytes(100), "unsupported_format", "the file is MIDI, which is not read here")


@pytest.mark.parametrize("head", [b"PK\x03\x04" + bytes(100), bytes(257) + b"ustar" + bytes(250)], ids=["zip", "tar"])
def test_an_archive_of_mp3_is_no_mp3(head):
    check_refused(head + mp3(), "not_audio", "no audio format known here")


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_frame_that_ends_with_the_file(seed):
    data = np.random.default_rng(seed).integers(0, 256, 20_000, np.uint8).tobytes()
    check_refused(b"??" + data, "not_audio", "no audio format known here")


# ---- damage

SECONDS = 4.0


def damaged(data, n_bytes=400, place=0.5):
    at = int(len(data) * place)
    junk = np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8).tobytes()
    return data[:at] + junk + data[at + n_bytes :]


DAMAGED = {
    "mp3": lambda: mp3(SECONDS),
    "mp3 without length": lambda: mp3(SECONDS, write_xing="0"),
    "flac": lambda: flac(SECONDS),
    "vorbis": lambda: ogg(SECONDS),
    "opus": lambda: av_bytes(tone(SECONDS, 48_000), 48_000, "ogg", "libopus"),
    "m4a": lambda: av_bytes(tone(SECONDS, 44_100), 44_100, "ipod", "aac"),
    "aac": lambda: av_bytes(tone(SECONDS, 44_100), 44_100, "adts", "aac"),
    "ts": lambda: av_bytes(tone(SECONDS, 44_100), 44_100, "mpegts", "mp2"),
    "wma": lambda: av_bytes(tone(SECONDS, 44_100), 44_100, "asf", "wmav2"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_in_the_middle_costs_little_and_is_said_with_its_place(name):
    data = DAMAGED[name]()
    got_s, warnings = seconds_of(damaged(data, 2_000))
    assert 0.6 * SECONDS < got_s < SECONDS + 0.1  # an Ogg page, the largest unit here, holds a second
    assert len(warnings) == 1
    kind, lost_s, place_s = warnings[0].split()[0], float(warnings[0].split()[1]), float(warnings[0].split()[8])
    assert kind == "damaged:"
    assert 0 < lost_s < 0.4 * SECONDS
    assert place_s == pytest.approx(SECONDS / 2, abs=1.1)


@pytest.mark.parametrize("name", ["m4a", "ts", "wma"])
def test_behind_damage_a_container_with_a_clock_keeps_its_time(name):
    data = DAMAGED[name]()
    whole, hurt = (read_audio(each, mono=True)[0] for each in (data, damaged(data, 2_000)))
    assert len(hurt) == pytest.approx(len(whole), abs=0.001 * 44_100 + 1)
    tail = slice(-44_100, -2_048)
    lag = len(hurt) - len(whole)
    np.testing.assert_allclose(hurt[tail.start + min(lag, 0) : tail.stop + min(lag, 0)], whole[tail], atol=0.05)


@pytest.mark.parametrize("name", ["opus", "alac"])
def test_damage_that_a_decoder_hides_is_said(name):
    whole = ogg(10.0, "OPUS", 48_000, 2) if name == "opus" else wav_bytes(tone(10.0), RATE, "ALAC_16", "CAF")
    got_s, warnings = seconds_of(damaged(whole, 2_000))
    assert got_s == pytest.approx(10.0, abs=0.01)
    assert len(warnings) == 1
    assert warnings[0].startswith("damaged: ")


CUT = {
    "caf": (wav_bytes(tone(SECONDS), RATE, "PCM_16", "CAF"), r"holds 6\d,\d\d\d of the 128,004 bytes"),
    "au": (wav_bytes(tone(SECONDS), RATE, "PCM_16", "AU"), r"holds 63,\d\d\d of the 128,000 bytes"),
    "avi": (av_bytes(tone(SECONDS), RATE, "avi", "pcm_s16le"), r"holds 6\d,\d\d\d of the 128,\d\d\d bytes"),
    "mp2 in wav": (av_bytes(tone(SECONDS), RATE, "wav", "mp2"), r"holds 3\d,\d\d\d of the 6\d,\d\d\d bytes"),
    "adpcm in wav": (av_bytes(tone(SECONDS), RATE, "wav", "adpcm_ima_wav"), r"holds \d\.\d s of the 4\.\d s"),
    "sphere": (wav_bytes(tone(SECONDS), RATE, "PCM_16", "NIST"), r"holds 2\.0 s of the 4\.0 s"),
    "ts": (av_bytes(tone(SECONDS, 44_100), 44_100, "mpegts", "mp2"), "ends in the middle of a packet"),
}


@pytest.mark.parametrize("name", CUT)
def test_a_cut_file_says_so(name):
    data, message = CUT[name]
    _, warnings = seconds_of(data[: len(data) // 2 - 1])
    assert len(warnings) == 1
    assert re.match(f"truncated: {message}", warnings[0])
    assert seconds_of(data)[1] == []


def test_a_cut_ogg_says_so():
    _, warnings = seconds_of(ogg(SECONDS)[:-3_000])
    assert warnings == ["truncated: ends in the middle of a page"]


def test_whatever_a_library_raises_is_an_audio_error(monkeypatch):
    class Broken(io.BytesIO):
        def seek(self, offset, whence=0):
            if self.tell() > 5_000:
                raise OSError(5, "Input/output error")
            return super().seek(offset, whence)

    for data in (av_bytes(tone(1.0, 44_100), 44_100, "asf", "wmav2"), mp3(), flac()):
        with pytest.raises(AudioError, match=r"Input/output error|cannot be"):
            read_audio(Broken(data + bytes(10_000)))
    phone = av_bytes(tone(0.2, 44_100), 44_100, "ipod", "aac")
    monkeypatch.setattr(av, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    check_refused(phone, "decode_failed", "cannot be opened: No space")


# ---- the container's clock


def film(container, codec, start_s, rate=48_000, *, has_pictures=True, pause_s=0.0):
    """Ten pictures a second from 0 on, and a second of a tone from ``start_s`` on, perhaps with a pause in it."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        packets = []
        if has_pictures:
            video = output.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        audio = output.add_stream(codec, rate=rate, layout="mono")
        if has_pictures:
            for index in range(30):
                picture = av.VideoFrame(32, 32, "yuv420p")
                for plane in picture.planes:
                    plane.update(bytes(plane.buffer_size))
                picture.pts = index
                packets += video.encode(picture)
            packets += video.encode(None)
        frame = av.AudioFrame.from_ndarray(sine(440, rate, 1.0)[None], format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start_s * rate)
        resampler = av.AudioResampler(audio.format, audio.layout, audio.rate, audio.frame_size or None)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            packets += audio.encode(piece)
        packets += audio.encode(None)
        if pause_s:
            for packet in packets[len(packets) // 2 :]:
                packet.pts = packet.dts = packet.pts + round(pause_s / packet.time_base)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            output.mux(packet)
    return file.getvalue()


def onset_s(data):
    waveform, rate = read_audio(data, mono=True)
    return float(np.argmax(np.abs(waveform) > 0.1)) / rate


@pytest.mark.parametrize("start_s", [0.04, 1.5])
@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "aac"),
        ("mov", "aac"),
        ("matroska", "aac"),
        ("matroska", "libopus"),
        ("mpegts", "mp2"),
        ("mpegts", "aac"),
    ],
)
def test_sound_that_begins_late_stands_where_the_player_has_it(container, codec, start_s):
    data = film(container, codec, start_s)
    assert onset_s(data) == pytest.approx(start_s, abs=0.002)  # Matroska has ticks of 1 ms
    assert seconds_of(data)[1] == []


def test_sound_alone_counts_from_zero_where_the_clock_has_one():
    assert onset_s(film("mp4", "aac", 1.5, has_pictures=False)) == pytest.approx(1.5, abs=0.002)
    assert onset_s(film("matroska", "aac", 1.5, has_pictures=False)) == pytest.approx(1.5, abs=0.002)
    assert onset_s(film("mpegts", "mp2", 1.5, has_pictures=False)) < 0.03  # the clock of a broadcast


def test_a_pause_of_the_recorder_is_silence_and_no_damage():
    data = film("matroska", "libopus", 0.0, has_pictures=False, pause_s=2.0)
    got_s, warnings = seconds_of(data)
    assert got_s == pytest.approx(3.0, abs=0.03)
    assert warnings == ["holds no sound for 2.00 s, at 0.5 s; silence stands for it"]


def test_the_clock_of_a_broadcast_is_no_silence():
    assert onset_s(film("matroska", "aac", 3_600.0, has_pictures=False)) < 0.03


def test_sound_before_zero_is_cut_and_not_shifted():
    waveform, rate = read_audio(film("mp4", "aac", -0.5))
    assert len(waveform) / rate == pytest.approx(0.5, abs=0.03)


# ---- samples that are not what they seem

PCM = (0.3 * 2**15 * np.sin(np.arange(20_000) / 7)).astype(np.int16)
ODD = {
    "int16 as float32": (PCM.astype(np.float32), "16-bit integers stored as floats.*divide by 32,768"),
    "quiet int16 as float64": (PCM // 2_000 * 1.0, "16-bit integers stored as floats"),
    "int24 as float": (PCM.astype(np.float32) * 256, r"24-bit integers stored as floats.*8,388,608"),
    "resampled": (PCM.astype(np.float32) * 0.98765, "16-bit integers stored as floats"),
    "int16 values as int32": (PCM.astype(np.int32), "16-bit values in 32-bit integers.*multiply them by 65,536"),
    "inverted": (np.stack([PCM, -PCM], axis=1), "the channels cancel.*one of them is inverted"),
    "inverted and noisy": (
        np.stack([PCM, -PCM], axis=1) / 2**15 + 0.005 * noise(20_000, 2),
        "the channels cancel.*one of them is inverted",
    ),
}
PLAIN = {
    "int16": PCM,
    "too loud": PCM.astype(np.float32) / 2**15 * 10,
    "clipped": np.clip(noise(20_000) * 4, -1, 1),
    "clipped to whole numbers": np.sign(noise(20_000)),
    "quiet": noise(20_000) * np.float32(1e-6),
    "quiet 24 bits": (noise(20_000) * 200).astype(np.int32) << 8,
    "noise of an open input": (noise(20_000) * 200).astype(np.int32),
    "silence": np.zeros((20_000, 2), np.float32),
    "independent channels": noise(20_000, 8),
    "nearly opposite channels": np.stack([noise(20_000), -noise(20_000)], axis=1) + noise(20_000, 2, seed=1) / 2,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_samples_bring_a_warning_with_its_likely_cause(name):
    waveform, message = ODD[name]
    with pytest.warns(AudioWarning, match=message) as caught:
        waveform_to_mono(waveform)
    assert len(caught) == 1


@pytest.mark.parametrize("name", PLAIN)
def test_real_sound_brings_none(name):
    waveform_to_mono(PLAIN[name])  # a warning would be an error here


@pytest.mark.parametrize(
    ("samples", "subtype", "message"),
    [
        (PCM.astype(np.float32), "FLOAT", "16-bit integers stored as floats"),
        (PCM.astype(np.int32), "PCM_32", "16-bit values in 32-bit integers"),
        (np.stack([PCM, -PCM], axis=1), "PCM_16", "channels cancel"),
    ],
)
def test_odd_samples_of_a_file_are_among_its_warnings(samples, subtype, message):
    with open_audio(wav_bytes(samples, RATE, subtype)) as reader:
        for _ in mono_blocks(reader, RATE):
            pass
    assert len(reader.warnings) == 1
    assert message in reader.warnings[0]


def test_one_loud_part_with_fractions_is_no_integer_audio():
    levels = LevelCheck()
    for block in (np.full((1_000, 1), 3.0), np.full((1_000, 1), 2.5)):
        levels.take(block.astype(np.float32))
    assert levels.findings() == []
