"""``load_model``, ``Model`` and ``Prediction``: what users may rely on."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sounds import noise, sine, wav_bytes, write_format

from audioset import LabelSet, Limits, Model, load_model, read_audio
from audioset.audio.reading import mono_blocks
from audioset.cache import Graph
from audioset.concurrency import map_in_order
from audioset.errors import AudioError, EngineError, MissingExtraError, UsageError, WeightsError
from audioset.frontend.cutting import SLAB_PATCHES, slab_patches
from audioset.frontend.published import YAMNET
from audioset.models.engines import ENGINES
from audioset.models.prediction import join_predictions, top_indices

RATE = 16_000
LONG = noise(RATE * 100)  # four slabs, the last of them short


def check_equal(one, other):
    """Two predictions that are the same in every bit."""
    for name in ("scores", "embeddings", "log_mel", "start_s", "end_s"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.duration_s, one.labels) == (other.duration_s, other.labels)


@pytest.fixture(scope="module")
def long_prediction(model):
    return model.predict(LONG, RATE)


# ---- the contract of a prediction


@pytest.mark.parametrize(
    ("n_samples", "n_patches"), [(1, 1), (15_600, 1), (15_601, 2), (48_000, 6), (499_440, 64), (499_441, 65)]
)
def test_shapes_dtypes_and_times(model, n_samples, n_patches):
    prediction = model.predict(noise(n_samples), RATE)
    assert prediction.scores.shape == (n_patches, 521)
    assert prediction.embeddings.shape == (n_patches, 1024)
    assert prediction.log_mel.shape == ((n_patches - 1) * 48 + 96, 64)
    assert {prediction.scores.dtype, prediction.embeddings.dtype, prediction.log_mel.dtype} == {np.dtype(np.float32)}
    assert (prediction.scores >= 0).all()
    assert (prediction.scores <= 1).all()
    assert prediction.start_s.tolist() == [round(0.48 * i, 2) for i in range(n_patches)]
    assert prediction.end_s.tolist() == [round(0.48 * i + 0.96, 2) for i in range(n_patches)]
    assert prediction.duration_s == n_samples / RATE
    assert prediction.labels == LabelSet.load("yamnet-521")


def test_the_log_mel_of_the_last_patch_is_kept(model):
    """Also where the audio ends exactly with a slab."""
    n_samples = model.frontend.samples((SLAB_PATCHES - 1) * 48 + 96)
    waveform = noise(n_samples)
    whole = model.predict(waveform, RATE)
    longer = model.predict(np.append(waveform, np.float32(0)), RATE)
    np.testing.assert_array_equal(whole.log_mel, longer.log_mel[: len(whole.log_mel)])
    assert len(whole.log_mel) == (SLAB_PATCHES - 1) * 48 + 96


def test_top(long_prediction):
    means = long_prediction.scores.mean(axis=0, dtype=np.float64)
    top = long_prediction.top(3)
    assert [score for _, score in top] == sorted(means, reverse=True)[:3]
    assert [means[long_prediction.labels.index(name)] for name, _ in top] == [score for _, score in top]
    assert len(long_prediction.top()) == 5
    assert long_prediction.top(0) == []
    assert len(long_prediction.top(1_000)) == 521


def test_equal_scores_keep_the_order_of_the_labels():
    assert top_indices(np.array([0.1, 0.7, 0.2, 0.7, 0.7]), 4) == [1, 3, 4, 2]


def test_events_are_stretches_above_the_threshold(long_prediction):
    events = long_prediction.events(0.5)
    assert events
    assert events == sorted(events, key=lambda event: (event.start_s, -event.score))
    for event in events[:50]:
        column = long_prediction.scores[:, long_prediction.labels.index(event.label_id)]
        inside = (long_prediction.start_s >= event.start_s) & (long_prediction.end_s <= event.end_s + 0.96)
        assert column[inside].max() >= np.float32(event.score) >= 0.5
        assert event.end_s <= long_prediction.duration_s


@pytest.mark.parametrize(("n_samples", "hop_s"), [(16_000, None), (15_601, 2), (16_001, 1), (31_999, 2)])
def test_no_event_reaches_into_the_padding(model, n_samples, hop_s):
    prediction = model.predict(noise(n_samples), RATE, hop_s=hop_s)
    assert prediction.end_s[-1] > prediction.duration_s
    assert len(prediction.events(0)) == 521
    for threshold in (0, 0.3, 0.5, 0.7):
        events = prediction.events(threshold)
        assert all(0 <= event.start_s < event.end_s <= prediction.duration_s for event in events)


def test_thresholds_outside_0_and_1(long_prediction):
    with pytest.raises(UsageError, match=r"threshold is 50; expected a score in \[0, 1\]"):
        long_prediction.events(50)


def test_a_model_that_only_embeds(long_prediction):
    embeddings_only = replace(long_prediction, scores=None)
    assert join_predictions([embeddings_only, embeddings_only]).scores is None
    for ask in (embeddings_only.top, embeddings_only.events):
        with pytest.raises(UsageError, match=r"only embeds: it has no scores.*choose a tagger"):
            ask()


# ---- waveforms


@pytest.mark.parametrize(("dtype", "scale"), [(np.int16, 2**15), (np.int32, 2**31)])
def test_integers_are_scaled(model, dtype, scale):
    pcm = (noise(RATE) * 2**15).astype(np.int16).astype(dtype) * dtype(scale // 2**15)
    check_equal(model.predict(pcm, RATE), model.predict((pcm / scale).astype(np.float32), RATE))


@pytest.mark.parametrize("dtype", [np.float64, ">f4"])
def test_floats_of_other_kinds(model, dtype):
    check_equal(model.predict(noise(RATE).astype(dtype), RATE), model.predict(noise(RATE), RATE))


def test_memory_layout_does_not_matter(model):
    stereo = noise(RATE, 2)
    expected = model.predict(stereo, RATE)
    check_equal(model.predict(np.asfortranarray(stereo), RATE), expected)
    check_equal(model.predict(np.repeat(stereo, 2, axis=0)[::2], RATE), expected)
    check_equal(model.predict(stereo[:, 0][:, None], RATE), model.predict(stereo[:, 0], RATE))


def test_stereo_is_the_mean_of_its_channels(model):
    stereo = noise(RATE, 2)
    check_equal(model.predict(stereo, RATE), model.predict(stereo.mean(axis=1), RATE))


def test_other_rates_are_resampled(model):
    tone = model.predict(sine(440, 44_100, 3.0), 44_100)
    direct = model.predict(sine(440, RATE, 3.0), RATE)
    assert tone.duration_s == pytest.approx(3, abs=1 / RATE)
    np.testing.assert_allclose(tone.log_mel[10:-60], direct.log_mel[10:-60], atol=0.02)


@pytest.mark.parametrize(("hop_s", "n_patches"), [(0.01, 204), (0.24, 10), (0.96, 4), (1.0, 4), (2, 3), (10, 2)])
def test_hops(model, hop_s, n_patches):
    waveform = noise(RATE * 3)
    prediction = model.predict(waveform, RATE, hop_s=hop_s)
    assert len(prediction.scores) == n_patches
    np.testing.assert_allclose(prediction.start_s, hop_s * np.arange(n_patches), atol=1e-12)
    for patch in (0, 1):
        start = round(prediction.start_s[patch] * RATE)
        alone = model.predict(np.append(waveform, np.zeros(RATE * 10, np.float32))[start : start + 15_600], RATE)
        np.testing.assert_allclose(prediction.scores[patch], alone.scores[0], atol=1e-6)


@pytest.mark.parametrize("hop_s", [0, 0.005, -1, float("nan")])
def test_hops_that_are_none(model, hop_s):
    with pytest.raises(UsageError, match=r"expected a positive multiple of one frame, 0\.01 s"):
        model.predict(LONG, RATE, hop_s=hop_s)


@pytest.mark.parametrize("sample_rate", [0, -RATE, float("nan"), 1e12])
def test_sample_rates_that_are_none(model, sample_rate):
    with pytest.raises(UsageError, match="expected a number from 1 to 10,000,000 Hz"):
        model.predict(LONG, sample_rate)


def test_samples_that_cannot_be_used(model):
    with pytest.raises(AudioError, match="sample 5 is nan") as caught:
        model.predict(np.where(np.arange(RATE) == 5, np.nan, 0.0), RATE)
    assert caught.value.code == "non_finite"
    with pytest.raises(AudioError, match="holds no samples"):
        model.predict(np.zeros(0), RATE)


@pytest.mark.parametrize("first", [0, 3, 150])
def test_a_patch_does_not_depend_on_its_neighbours(model, long_prediction, first):
    part = model.predict(LONG[first * 7_680 :][:31_000], RATE)
    np.testing.assert_allclose(part.scores[:3], long_prediction.scores[first : first + 3], atol=1e-6)


@pytest.mark.parametrize("n_patches", [1, 2, 63, 64, 65])
def test_the_size_of_a_batch_does_not_matter(model, n_patches):
    examples = noise(65 * 96, 64).reshape(65, 96, 64)
    whole, part = model.engine(examples), model.engine(examples[:n_patches])
    np.testing.assert_allclose(part.scores, whole.scores[:n_patches], atol=1e-6)
    assert np.abs(part.embeddings - whole.embeddings[:n_patches]).max() <= 1e-6 * np.abs(whole.embeddings).max()


def test_the_same_again_and_on_one_thread(model, long_prediction, random_checkpoint):
    check_equal(model.predict(LONG, RATE), long_prediction)
    check_equal(load_model("yamnet", weights=random_checkpoint, n_threads=1).predict(LONG, RATE), long_prediction)


def test_threads_may_share_a_model(model):
    waveforms = [noise(RATE * 20, seed=seed) for seed in range(4)]
    expected = [model.predict(waveform, RATE) for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda waveform: model.predict(waveform, RATE), waveforms * 2))
    for one, other in zip(together, expected * 2, strict=True):
        check_equal(one, other)


def test_the_engine_is_set_up_in_one_thread(model):
    """Threads that set it up together could wait for each other for ever."""
    callers = []
    Model(model.card, model.folder, lambda patches: callers.append((threading.get_ident(), patches.shape))).ready()
    assert callers == [(threading.get_ident(), (1, 96, 64))]


class Spy:
    """Notes the functions of this package that are under way when it is called, and the thread."""

    def __init__(self, function):
        self._function, self.calls = function, []
        self.name, self.n_threads = "spy", 2

    def __call__(self, *args, **kwargs):
        frames = [frame for frame, _ in traceback.walk_stack(sys._getframe(1))]
        ours = [frame.f_code.co_name for frame in frames if frame.f_globals["__name__"].startswith("audioset.")]
        self.calls.append((ours, threading.get_ident()))
        return self._function(*args, **kwargs)


def test_four_calls_lead_from_a_file_to_the_transform_and_to_the_network(model, monkeypatch):
    """In this thread, where one piece is enough; that of ``predict_file`` itself is not counted."""
    transform, network = Spy(np.fft.rfft), Spy(model.engine)
    monkeypatch.setattr(np.fft, "rfft", transform)
    monkeypatch.setattr(model, "engine", network)
    model.predict_file(wav_bytes(noise(RATE * 10)))
    for spy in (transform, network):
        assert {thread for _, thread in spy.calls} == {threading.get_ident()}
        for functions, _ in spy.calls:
            assert functions[-1] == "predict_file"
            assert len(functions[:-1]) <= 4
    n_threads = len({thread for _, thread in network.calls})
    model.predict_file(wav_bytes(LONG))
    assert len({thread for _, thread in network.calls}) > n_threads  # of several pieces, threads share the work
    assert max(len(functions) for functions, _ in transform.calls + network.calls) <= 5


# ---- files


@pytest.mark.parametrize("sample_rate", [RATE, 44_100, 8_000])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_file_gives_what_its_samples_give(model, tmp_path, sample_rate, n_channels):
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_bytes(noise(sample_rate * 5, n_channels), sample_rate))
    expected = model.predict(*read_audio(path))
    check_equal(model.predict_file(path), expected)
    check_equal(model.predict_file(path.read_bytes()), expected)
    with path.open("rb") as file:
        check_equal(model.predict_file(file), expected)


@pytest.mark.parametrize("name", ["free.flac", "vorbis.ogg", "layer3.mp3", "phone.m4a", "page.webm"])
def test_compressed_files_give_what_their_samples_give(model, tmp_path, name):
    path = write_format(tmp_path / name)
    check_equal(model.predict_file(path), model.predict(*read_audio(path)))


@pytest.mark.parametrize("hop_s", [None, 2])
def test_parts_join_to_the_whole(model, hop_s):
    data = wav_bytes(LONG, subtype="FLOAT")
    parts = list(model.predict_blocks(data, hop_s=hop_s))
    whole = model.predict(LONG, RATE, hop_s=hop_s)
    n_patches, n_slab = (
        (208, SLAB_PATCHES) if hop_s is None else (51, slab_patches(replace(YAMNET, patch_hop_frames=200)))
    )
    assert [len(part.scores) for part in parts[:-1]] == [n_slab] * (n_patches // n_slab)
    assert len(parts[-1].scores) == n_patches % n_slab
    assert parts[-1].duration_s == 100
    check_equal(join_predictions(parts), whole)
    check_equal(model.predict_file(data, hop_s=hop_s), whole)


def test_parts_come_while_the_file_is_read(model, monkeypatch):
    """A recording of any length is never in memory as a whole."""
    ahead = []

    def count_blocks(reader, rate):
        for block in mono_blocks(reader, rate):
            ahead.append(len(block))
            yield block

    monkeypatch.setattr("audioset.models.model.mono_blocks", count_blocks)
    parts = model.predict_blocks(wav_bytes(np.tile(LONG, 10)))
    next(parts)
    assert 0 < sum(ahead) < 0.6 * len(LONG) * 10
    parts.close()


def test_limits_reach_the_decoder(model):
    with pytest.raises(AudioError, match=r"claims 100 s; the limit is 5 s") as caught:
        model.predict_file(wav_bytes(LONG), limits=Limits(max_seconds=5))
    assert caught.value.code == "too_long"


def test_a_cut_file_is_told(model, tmp_path, caplog):
    path = tmp_path / "cut.wav"
    path.write_bytes(wav_bytes(LONG)[:100_000])
    with caplog.at_level(logging.WARNING):
        prediction = model.predict_file(path)
    assert prediction.duration_s == pytest.approx(3.12, abs=0.01)
    assert f"{path}: truncated: holds " in caplog.text


# ---- load_model


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("yamnett", r"there is no model 'yamnett' \(did you mean 'yamnet'\?\); expected"),
        ("whisper", r"there is no model 'whisper'; expected a name that 'audioset models list' shows, or a folder"),
        ("/no/such/folder", r"there is no model '/no/such/folder'; expected"),
        ("", r"there is no model ''; expected"),
    ],
)
def test_unknown_models(name, match):
    with pytest.raises(UsageError, match=match):
        load_model(name)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"engine": "tensorrt"}, "engine is 'tensorrt'; expected one of openvino, onnxruntime"),
        ({"precision": "int8"}, "precision is 'int8'; expected one of f32, bf16"),
        ({"n_threads": 0}, "n_threads is 0; expected a whole number, 1 or more"),
        ({"n_threads": -2}, "n_threads is -2; expected a whole number, 1 or more"),
    ],
)
def test_unknown_options(options, match):
    with pytest.raises(UsageError, match=match):
        load_model("yamnet", **options)


def test_without_onnxruntime(random_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingExtraError, match=r'needs the package onnxruntime.*pip install "audioset\[onnxruntime\]"'
    ):
        load_model("yamnet", weights=random_checkpoint, engine="onnxruntime")


def test_onnxruntime_has_no_bf16(random_checkpoint):
    pytest.importorskip("onnxruntime")
    with pytest.raises(EngineError, match=r'runs in f32 only; bf16 is asked for. Next step: engine="openvino"'):
        load_model("yamnet", weights=random_checkpoint, engine="onnxruntime", precision="bf16")


def test_onnxruntime_refuses_a_damaged_graph():
    pytest.importorskip("onnxruntime")
    with pytest.raises(EngineError, match="ONNX Runtime cannot load some/graph"):
        ENGINES["onnxruntime"](Graph("some/graph", lambda: b"no graph"), "f32", 1)


def test_a_processor_without_bf16(random_checkpoint, monkeypatch):
    class OldCore:
        def get_property(self, device, name):
            return ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else "Pentium"

    monkeypatch.setattr("audioset.executors.openvino.openvino_core", OldCore)
    with pytest.raises(EngineError, match=r'this processor \(Pentium\) has no bfloat16.*precision="f32"') as caught:
        load_model("yamnet", weights=random_checkpoint, precision="bf16")
    assert caught.value.code == "precision"


def test_one_exit_code_for_each_kind_of_error():
    codes = {error: error.exit_code for error in (UsageError, AudioError, WeightsError, EngineError)}
    assert codes == {UsageError: 2, AudioError: 3, WeightsError: 5, EngineError: 1}


@pytest.mark.parametrize(("hop_frames", "n_patches"), [(1, 64), (48, 64), (96, 64), (200, 30), (100_000, 1)])
def test_a_slab_is_bounded_in_patches_and_in_time(hop_frames, n_patches):
    assert slab_patches(replace(YAMNET, patch_hop_frames=hop_frames)) == n_patches


# ---- map_in_order


def test_results_come_in_the_order_of_the_tasks():
    def slow_at_first(number):
        time.sleep(0.02 if number < 3 else 0)
        return number * number

    assert list(map_in_order(slow_at_first, range(20), 4)) == [number * number for number in range(20)]
    assert list(map_in_order(slow_at_first, [], 4)) == []


def test_tasks_are_made_a_few_ahead_only():
    made = []
    results = map_in_order(lambda number: number, (made.append(number) or number for number in range(1_000)), 2)
    assert next(results) == 0
    assert len(made) <= 10
    results.close()


def test_the_threads_take_turns_at_making_tasks():
    makers, runners, making = set(), set(), threading.Lock()

    def make():
        for _ in range(40):
            assert making.acquire(blocking=False)  # never two at once
            makers.add(threading.get_ident())
            time.sleep(0.001)
            making.release()
            yield None

    list(map_in_order(lambda _: (runners.add(threading.get_ident()), time.sleep(0.001)), make(), 2))
    assert makers == runners
    assert threading.get_ident() not in makers


def test_a_consumer_that_stops_early_leaves_no_threads():
    before = threading.active_count()
    results = map_in_order(lambda number: number, range(1_000_000), 3)
    assert [next(results) for _ in range(5)] == list(range(5))
    results.close()
    assert threading.active_count() == before


def test_an_error_in_a_task_comes_in_its_place():
    results = map_in_order(lambda number: 1 // (3 - number), range(100), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError, match="by zero"):
        next(results)


def test_an_error_in_making_a_task_reaches_the_caller_and_stops_the_threads():
    def make():
        yield 1
        raise AudioError("no more")

    before = threading.active_count()
    with pytest.raises(AudioError, match="no more"):
        list(map_in_order(lambda number: number, make(), 2))
    assert threading.active_count() == before
