"""Embeddings of clips: those of the model, computed once."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from tones import RATE, tones, write_tone

from audioset import load_model
from audioset.cache import check_path
from audioset.errors import NoInputError, UsageError
from audioset.sounds.collection import Clip, Collection
from audioset.train.backbones import find_backbone
from audioset.train.classifier import embeddings as embedding_module
from audioset.train.classifier.embeddings import embed_collection


def test_embeddings_are_those_of_the_model(backbone, tmp_path):
    collection = tones(tmp_path, n=1)
    long = Clip(write_tone(tmp_path / "long.wav", 500, 9, seconds=3), ("low",))
    collection = replace(collection, clips=(*collection.clips, long, replace(long, start_s=0.5, end_s=2.0)))
    found = embed_collection(collection, backbone)
    model = load_model(backbone)
    for row, clip in enumerate(collection.clips[:4]):
        expected = model.predict_file(clip.path).embeddings
        np.testing.assert_allclose(found.means[row], expected.mean(axis=0), atol=1e-5)
        assert found.counts[row] == len(expected)
    waveform, _ = soundfile.read(long.path, dtype="float32")
    expected = model.predict(waveform[RATE // 2 : 2 * RATE], RATE).embeddings
    np.testing.assert_allclose(found.means[4], expected.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.mean_over_patches(found.patches), found.means, atol=1e-5)


def test_embeddings_are_computed_once(backbone, tmp_path, monkeypatch):
    collection = tones(tmp_path, n=2)
    first = embed_collection(collection, backbone)
    monkeypatch.setattr(embedding_module, "Model", None)  # a second run needs no network
    again = embed_collection(collection, backbone)
    assert again.n_computed == 0
    np.testing.assert_array_equal(first.means, again.means)
    moved = tmp_path / "moved.wav"
    moved.write_bytes(collection.clips[0].path.read_bytes())
    other = embed_collection(Collection((Clip(moved, ("low",)),), ("low",)), backbone)
    np.testing.assert_array_equal(other.means[0], first.means[0])


@pytest.mark.parametrize("what", ["embeddings", "checksum"])
def test_embeddings_that_were_damaged_are_computed_again(backbone, tmp_path, monkeypatch, caplog, what):
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    collection = tones(tmp_path, n=2)
    first = embed_collection(collection, backbone)
    (shard,) = (tmp_path / "cache").rglob("*.npz")
    damaged = shard if what == "embeddings" else check_path(shard)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    again = embed_collection(collection, backbone)
    assert again.n_computed == first.n_computed > 0
    np.testing.assert_array_equal(again.patches, first.patches)
    assert f"{shard} is damaged" in caplog.text
    assert {path.name.removesuffix(".crc32c") for path in shard.parent.iterdir()}.isdisjoint({shard.name})


def test_a_bad_clip_costs_one_warning(backbone, tmp_path):
    collection = tones(tmp_path, n=2)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not a sound")
    clips = (*collection.clips, Clip(bad, ("low",)), Clip(tmp_path / "gone.wav", ("low",)))
    found = embed_collection(replace(collection, clips=clips), backbone)
    assert len(found.collection) == 6
    assert len(found.warnings) == 2
    assert "bad.wav" in found.warnings[0]
    assert "gone.wav" in found.warnings[1]


def test_a_full_disk_costs_only_the_next_run(backbone, tmp_path, monkeypatch):
    def fill(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))  # in which nothing is kept of other tests
    monkeypatch.setattr(embedding_module.np, "savez", fill)
    found = embed_collection(tones(tmp_path, n=2, classes=("low", "high")), backbone)
    assert len(found.collection) == 4
    assert len(found.warnings) == 1
    assert "No space left on device" in found.warnings[0]
    assert "AUDIOSET_CACHE" in found.warnings[0]


def test_a_damaged_shard_is_computed_again(backbone, tmp_path, session_cache, caplog):
    collection = tones(tmp_path, n=2, classes=("low", "middle"))
    first = embed_collection(collection, backbone)
    folder = session_cache / "embeddings" / find_backbone(backbone).fingerprint()
    for shard in folder.glob("*.npz"):
        shard.write_bytes(shard.read_bytes()[:200])
    again = embed_collection(collection, backbone)
    assert again.n_computed == 4
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(first.means, again.means)


def test_a_run_that_is_stopped_keeps_what_it_had_done(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    collection = tones(tmp_path, n=4)

    def stop(n_done, _n_all):
        if n_done >= 8:
            raise KeyboardInterrupt("stopped")

    with pytest.raises(KeyboardInterrupt, match="stopped"):
        embed_collection(collection, backbone, on_progress=stop)
    assert 0 < embed_collection(collection, backbone).n_computed <= 4


def test_there_must_be_clips(backbone, tmp_path):
    with pytest.raises(NoInputError, match="has no clips"):
        embed_collection(Collection((), ("a",), "nothing"), backbone)
    with pytest.raises(NoInputError, match="none of the 1 clips can be read"):
        embed_collection(Collection((Clip(tmp_path / "gone.wav", ("a",)),), ("a",)), backbone)


def test_a_head_of_embeddings_is_no_backbone(tmp_path):
    with pytest.raises(UsageError, match="there is no model 'nothing'"):
        find_backbone("nothing")
