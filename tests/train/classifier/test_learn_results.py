"""What is measured of a classifier, and what is written."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import zlib
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from tones import write_tone

from audioset.errors import ConflictError, OutputError, UsageError
from audioset.frontend.mel import MEL_SCALES
from audioset.frontend.published import EFFICIENTAT, EFFICIENTAT_2S, PANNS, VGG16, YAMNET
from audioset.reports.document import to_html
from audioset.reports.examples import hear_examples, png, spectrogram_png
from audioset.reports.learned import describe
from audioset.sounds.collection import Clip
from audioset.train.measures import Decision, measure, wilson
from audioset.train.results import BY_FILE, HeldOut, Learned, check_output, write_result


def test_measures_are_those_of_their_definitions():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]], np.float32)
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    found = measure(scores, targets, np.array([0, 0, 1, 1]), ("a", "b"), Decision("softmax"))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    first, second = found["classes"]
    assert (first["precision"], first["recall"]) == (2 / 3, 1.0)
    assert first["f1"] == pytest.approx(0.8)
    assert (second["precision"], second["recall"]) == (1.0, 0.5)
    assert found["confusion"]["counts"] == [[2, 0], [1, 1]]
    assert [fold["accuracy"] for fold in found["folds"]] == [1.0, 0.5]


def test_wilson_intervals():
    """Source: Wilson 1927, as computed by hand: 7 of 10 are within 0.397 and 0.892."""
    assert wilson(7, 10) == pytest.approx([0.3968, 0.8922], abs=1e-4)
    assert wilson(0, 0) == [0, 1]


def test_a_folder_of_others_is_refused(learned, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    with pytest.raises(ConflictError, match=r"holds chapter\.txt, which no training wrote"):
        learned.write(folder)
    assert [path.name for path in folder.iterdir()] == ["chapter.txt"]
    with pytest.raises(UsageError, match="is a file"):
        check_output(folder / "chapter.txt")


def test_a_model_without_results_is_not_overwritten(learned, backbone):
    with pytest.raises(ConflictError, match=r"holds model\.json"):
        learned.write(backbone)


def test_an_earlier_result_is_replaced(learned, tmp_path):
    learned.write(tmp_path / "model")
    record = learned.write(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "results.json").read_text()) == record
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"model.json", "model.safetensors", "results.json", "report.html", "report.md"}


def test_a_full_disk_leaves_the_earlier_result(learned, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    learned.write(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fill(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("audioset.train.results.write_model_folder", fill)
    with pytest.raises(OutputError, match="No space left on device"):
        learned.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_has_no_scripts_and_escapes_what_others_wrote(tmp_path):
    evil = "<script>alert(1)</script>"
    path = write_tone(tmp_path / "x.wav", 440, 0)
    clips = tuple(Clip(path, (name,)) for name in (evil, "b", evil, "b"))
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32)
    held = HeldOut(BY_FILE, np.arange(4), scores, targets, np.array([0, 0, 1, 1]))
    learned = Learned(evil, "yamnet", (evil, "b"), "softmax", clips, (held,), warnings=(evil,))
    record = learned.to_record()
    assert [mistake["said"] for mistake in record["evaluations"][0]["mistakes"]] == [["b"]]
    page = to_html(describe(record, hear_examples(record, EFFICIENTAT)))
    assert "<script" not in page
    assert page.count("<audio") == page.count("<img") == 1
    assert "alt='log-mel spectrogram, 0 to 15,000 Hz'" in page
    assert "img-src data:; media-src data:" in page
    sound = b64decode(re.search(r"data:audio/wav;base64,([^']+)", page)[1])
    assert sound[:4] == b"RIFF"
    assert struct.unpack("<I", sound[24:28]) == (EFFICIENTAT.sample_rate,)


@pytest.mark.parametrize("spec", [YAMNET, EFFICIENTAT_2S, PANNS, VGG16], ids=lambda spec: spec.name)
@pytest.mark.parametrize("duration_s", [0.1, 0.3, 4.0])
def test_pictures_of_a_report_show_what_the_model_saw(spec, duration_s):
    """A tone amid the bands: the lightest row of each picture is its band."""
    samples = np.sin(2 * np.pi * 2000 * np.arange(round(duration_s * spec.sample_rate)) / spec.sample_rate)
    data = spectrogram_png(samples.astype(np.float32), spec)
    width, height = struct.unpack(">II", data[16:24])
    n_hops = round(len(samples) / spec.hop_samples)
    assert n_hops - spec.window_samples / spec.hop_samples <= width <= max(8, n_hops)
    assert height == spec.n_mels
    pixels = np.frombuffer(zlib.decompress(data[41:]), np.uint8).reshape(height, 1 + 3 * width)[:, 1:]
    edges = np.linspace(*MEL_SCALES[spec.mel_formula](np.array([spec.mel_min_hz, spec.mel_max_hz])), spec.n_mels + 2)
    band = np.argmin(np.abs(edges[1:-1] - MEL_SCALES[spec.mel_formula](2000)))
    lightest = spec.n_mels - 1 - np.argmax(pixels.sum(axis=1, dtype=int))
    assert abs(lightest - band) <= 1


def test_a_page_without_sounds_allows_none():
    learned = Learned("tones", "yamnet", ("a", "b"), "softmax", (), ())
    assert "media-src" not in to_html(describe(learned.to_record()))


def test_a_clip_that_is_gone_is_named_without_a_picture():
    mistake = {"path": "gone.wav", "start_s": 0.0, "end_s": None, "labels": ["a"], "said": [], "scores": {"a": 0.1}}
    example = hear_examples({"evaluations": [{"mistakes": [mistake]}]}, YAMNET)[0]
    assert example.title == "a, heard as no class"
    assert (example.picture, example.sound) == ("", "")


def test_a_png_holds_its_pixels():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (3, 2)
    length = struct.unpack(">I", data[33:37])[0]
    rows = zlib.decompress(data[41 : 41 + length])
    assert rows == b"\0" + pixels[0].tobytes() + b"\0" + pixels[1].tobytes()


def test_what_is_not_defined_is_null_in_the_results(learned, tmp_path):
    first = learned.learned.held_out[0]
    empty = replace(learned.learned, held_out=(replace(first, scores=first.scores * 0),))
    record = write_result(tmp_path / "model", empty, learned.card, learned.weights)
    assert record["evaluations"][0]["classes"][2]["precision"] is None
