"""Arguments of public functions: what has another type or is out of bounds is refused, and the message says what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sounds import sine, wav_bytes

import audioset
from audioset import Model, load_model
from audioset.audio.limits import Limits
from audioset.frontend.cutting import patches
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import YAMNET
from audioset.labels.events import EventSettings
from audioset.sounds.measuring import measure_files

NO_NUMBERS = ("0.48", None, True, [1])
NO_PATHS = (None, 3, b"x", ["yamnet"])


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(sine(440, 16_000, 1.0)))
    return path


def test_what_is_no_path_among_the_paths_is_an_error_and_the_run_goes_on(model: Model, sound: Path) -> None:
    results = list(audioset.tag_files([sound, None, 7, b"a.wav", [sound], str(sound)], model))
    codes = [result.error and result.error.code for result in results]
    assert codes == [None, "not_a_path", "not_a_path", "not_a_path", "not_a_path", None]
    assert str(results[1].error) == "among the paths is None; expected a path, as str or pathlib.Path"
    assert [type(result.path) for result in results] == [str] * 6


def test_paths_alone_that_are_none_end(model: Model) -> None:
    assert [result.error.code for result in audioset.tag_files([None] * 5, model)] == ["not_a_path"] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": "a.wav"}, r"paths is 'a.wav'; expected several. Next step: put it into a list"),
        ({"paths": Path("a.wav")}, r"paths is .*Path\('a.wav'\); expected several"),
        ({"paths": b"a.wav"}, r"paths is b'a.wav'; expected several"),
        ({"paths": None}, r"paths is None; expected several"),
        ({"model": "yamnet"}, r"model is 'yamnet'; expected a Model. Next step: audioset.load_model\('yamnet'\)"),
        ({"limits": {}}, r"limits is {} \(dict\); expected Limits"),
        *(
            ({"n_workers": value}, "n_workers is .*; expected a whole number, 1 or more")
            for value in (0, -1, 1.5, "2", True)
        ),
        *(
            ({"hop_s": value}, "hop_s is .*; expected")
            for value in ("0.48", True, 1e9, -1.0, float("nan"), float("inf"))
        ),
        ({"window_s": "10"}, r"window_s is '10'; expected seconds, at most 86,400"),
        ({"pad": "none"}, r"pad is 'none'; expected one of"),
        ({"pad": ["zero"]}, r"pad is \['zero'\] \(list\); expected one of"),
        ({"pad": np.zeros(2)}, r"pad is array\(\[0\., 0\.\]\) \(ndarray\); expected one of"),
        ({"paths": np.array("a.wav")}, r"paths is array\('a.wav'.*; expected several"),
    ],
)
def test_settings_of_a_run_are_refused_at_once(model: Model, change: dict[str, Any], message: str) -> None:
    arguments = {"paths": ["a.wav"], "model": model, **change}
    with pytest.raises(audioset.AudioSetError, match=message) as caught:
        audioset.tag_files(arguments.pop("paths"), arguments.pop("model"), **arguments)
    assert caught.value.code == "usage"


@pytest.mark.parametrize("n_workers", [0, -1, True, "2"])
def test_so_many_processes_cannot_measure(sound: Path, n_workers: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"n_workers is .*; expected a whole number, 1 or more"):
        measure_files([(sound, [])], n_workers=n_workers)


@pytest.mark.parametrize("rate", [*NO_NUMBERS, 0, -16_000, 1e9, float("nan")])
def test_what_is_no_rate_is_refused(model: Model, sound: Path, rate: Any) -> None:
    message = "the sample rate is .*; expected a number from 1 to 10,000,000 Hz"
    with pytest.raises(audioset.AudioSetError, match=message):
        model.predict(np.zeros(16_000, np.float32), rate)
    with pytest.raises(audioset.AudioSetError, match=message):
        model.stream(rate)
    if rate is not None:
        with pytest.raises(audioset.AudioSetError, match=message):
            audioset.read_audio(sound, sample_rate=rate)


@pytest.mark.parametrize("value", NO_PATHS)
def test_what_is_no_name_of_a_model_is_refused(value: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"name is .*; expected a path or name"):
        load_model(value)
    with pytest.raises(audioset.AudioSetError, match=r"path is .*; expected a path or name"):
        audioset.Postprocessor.load(value)
    if value is not None:
        with pytest.raises(audioset.AudioSetError, match=r"weights is .*; expected a path or name"):
            load_model("yamnet", weights=value)


@pytest.mark.parametrize("value", [None, "cpu", b"f32", ["f32"], np.zeros(2)])
@pytest.mark.parametrize("name", ["engine", "precision"])
def test_what_is_none_of_the_choices_is_refused(name: str, value: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=f"{name} is .*; expected one of"):
        load_model("yamnet", **{name: value})


@pytest.mark.parametrize("value", NO_PATHS)
def test_what_is_no_place_for_an_export_is_refused(value: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"output is .*; expected a path or name"):
        audioset.export_model("yamnet", value)


@pytest.mark.parametrize("n_threads", [0, -2, 1.5, "2", True])
def test_so_many_threads_cannot_compute(n_threads: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"n_threads is .*; expected a whole number, 1 or more"):
        load_model("yamnet", n_threads=n_threads)


def test_thresholds_and_numbers_of_labels(model: Model) -> None:
    prediction = model.predict(np.zeros(16_000, np.float32), 16_000)
    for n in (-1, "5", None, 2.0):
        with pytest.raises(audioset.AudioSetError, match=r"n is .*; expected a whole number, 0 or more"):
            prediction.top(n)
    for threshold in ("0.5", True, 2, [0.5]):
        with pytest.raises(audioset.AudioSetError, match=r"threshold is .*; expected a score in \[0, 1\]"):
            prediction.events(threshold)
    for name, value in (("max_gap_s", "1"), ("min_duration_s", None), ("median_patches", "3"), ("low_threshold", "0")):
        with pytest.raises(audioset.AudioSetError, match=f"{name} is .*; expected"):
            EventSettings(**{name: value})


@pytest.mark.parametrize("value", ["5", None, True, [1], 0, -1, float("nan")])
def test_limits_are_numbers_above_0(value: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"the limit max_seconds is .*; expected a number above 0"):
        Limits(max_seconds=value)


@pytest.mark.parametrize("value", [None, 3, b"Speech", ["Speech"]])
def test_what_is_no_label_is_refused(value: Any) -> None:
    labels = audioset.LabelSet.load("yamnet-521")
    with pytest.raises(audioset.AudioSetError, match=r"a label is .*; expected an id or a display name"):
        labels.index(value)
    with pytest.raises(audioset.AudioSetError, match=r"a class is .*; expected an id or a display name"):
        audioset.Ontology.load().find(value)
    with pytest.raises(audioset.AudioSetError, match="there is no label set"):
        audioset.LabelSet.load(value)
    for indices in (value, [521], [-1], ["a"]):
        with pytest.raises(audioset.AudioSetError, match=r"(indices|an index) is .*; expected"):
            labels.select(indices if not isinstance(indices, bytes) else None)


NO_WAVES = [None, "a", [0.0], np.zeros((2, 2), np.float32), np.zeros(3, np.int16), np.float32(0)]


@pytest.mark.parametrize("value", NO_WAVES)
def test_what_is_no_waveform_has_no_features(value: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"waveform is .*; expected an array of floats, of 1 axes"):
        log_mel(value, YAMNET)


@pytest.mark.parametrize("hop_frames", [-1, 0, 1.5, "48"])
def test_patches_reach_no_memory_that_is_not_theirs(hop_frames: Any) -> None:
    with pytest.raises(audioset.AudioSetError, match=r"hop_frames is .*; expected a whole number, 1 or more"):
        patches(np.zeros((50, 64), np.float32), YAMNET, hop_frames)
    with pytest.raises(audioset.AudioSetError, match=r"log_mel is float32, \(50,\); expected an array of floats, of 2"):
        patches(np.zeros(50, np.float32), YAMNET)


def test_arguments_of_another_class_are_refused(sound: Path) -> None:
    ontology = audioset.Ontology.load()
    for call, message in (
        (lambda: audioset.read_audio(sound, limits={}), "limits is {}.*; expected Limits"),
        (lambda: log_mel(np.zeros(16_000, np.float32), "yamnet"), "spec is 'yamnet'; expected FrontendSpec"),
        (lambda: ontology.search(None), "text is None; expected str"),
        (lambda: ontology.roll_up(np.zeros(3), ["Speech"]), "labels is .*; expected LabelSet"),
        (lambda: audioset.read_audio(sound, sample_rate=10**400), "the sample rate is a int; expected a number from 1"),
    ):
        with pytest.raises(audioset.AudioSetError, match=message):
            call()
