"""What is found in labelled sounds before anything is learned from them."""

from __future__ import annotations

import itertools
import shutil
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from labelled import RATE, names_of, table_of, write_folders, write_sound
from processes import python_that
from sounds import noise, sine, wav_bytes

from audioset.audio.limits import Limits
from audioset.errors import AudioError, DataError, EngineError, NoInputError, UsageError
from audioset.sounds.check import Check, check_collection
from audioset.sounds.collection import Collection
from audioset.sounds.findings import Finding
from audioset.sounds.measures import FileMeasures, measure_file
from audioset.sounds.measuring import measure_files
from audioset.sounds.reading import read_collection
from audioset.sounds.splits import fold_by_file

FAULTS = Path(__file__).parents[1] / "faults"
ONE = {"n_workers": 1}


def kinds(check: Check) -> list[str]:
    return [finding.kind for finding in check.findings]


def finding_of(check: Check, kind: str) -> Finding:
    return next(finding for finding in check.findings if finding.kind == kind)


# ---- Measures


def test_pieces_are_measured_as_if_they_were_files(tmp_path: Path) -> None:
    samples = noise(20 * RATE)
    path = tmp_path / "whole.wav"
    path.write_bytes(wav_bytes(samples, RATE))
    spans = [(3.0, 15.0), (0.0, None), (0.0, 20.0), (4.0, 4.0), (19.0, 30.0), (25.0, None), (4.0, 12.5)]
    found = measure_file(path, spans)
    for (start_s, end_s), piece in zip(spans, found.pieces, strict=True):
        part = samples[round(start_s * RATE) : None if end_s is None else round(end_s * RATE)]
        assert piece.n_samples == len(part)
        if len(part):
            (tmp_path / "part.wav").write_bytes(wav_bytes(part, RATE))
            assert measure_file(tmp_path / "part.wav").whole == piece
    assert found.whole == found.pieces[1] == found.pieces[2]


def test_the_digest_is_of_what_is_heard(tmp_path: Path) -> None:
    samples = (20_000 * noise(RATE)).astype(np.int16)  # whole numbers: the encoders round others differently
    for name, arguments in {
        "a.wav": {},
        "b.flac": {"container": "FLAC"},
        "stereo.wav": {"samples": np.column_stack([samples, samples])},
        "faster.wav": {"sample_rate": 2 * RATE},
        "other.wav": {"samples": samples[::-1]},
    }.items():
        (tmp_path / name).write_bytes(wav_bytes(**{"samples": samples, "sample_rate": RATE, **arguments}))
    digests = {path.name: measure_file(path).whole.digest for path in tmp_path.iterdir()}
    assert digests["a.wav"] == digests["b.flac"] == digests["stereo.wav"]
    assert len(set(digests.values())) == 3


def test_there_is_one_digest_of_zero(tmp_path: Path) -> None:
    for name, zero in (("a.wav", 0.0), ("b.wav", -0.0)):
        (tmp_path / name).write_bytes(wav_bytes(np.full(99, zero, np.float32), subtype="FLOAT"))
    assert measure_file(tmp_path / "a.wav").whole == measure_file(tmp_path / "b.wav").whole


def test_an_hour_takes_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(noise(60 * RATE))
    tracemalloc.start()
    try:
        found = measure_file(path, [(float(start), start + 5.0) for start in range(0, 3600, 3)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.duration_s == 3600
    assert peak < 10e6  # its samples are 115 MB


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("segfault", "worker_died", "signal SIGSEGV"),
        ("exit", "worker_died", "status 7"),
        ("sleep", "timeout", "delivered nothing for 0.6 s"),
        ("allocate", "out_of_memory", "MiB of one worker"),
        ("unforeseen", "decode_failed", "RuntimeError: a bug in a decoder"),
    ],
)
def test_a_decoder_that_fails_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: str, message: str
) -> None:
    monkeypatch.syspath_prepend(str(FAULTS))
    jobs = [(write_sound(tmp_path / name), [(0.0, None)]) for name in ("a.wav", f"{fault}.wav", "b.wav")]
    first, failed, last = measure_files(jobs, limits=Limits(worker_stall_s=0.6))
    assert first == last
    assert isinstance(failed, AudioError)
    assert failed.code == code
    assert message in str(failed)


def test_a_decoder_that_prints_disturbs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAULTS))
    jobs = [(write_sound(tmp_path / "chatter.wav", 1), [(0.0, None)])] * 3
    assert all(isinstance(found, FileMeasures) for found in measure_files(jobs, n_workers=2))


def test_a_process_that_cannot_start_is_an_error_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, "exit 1"))
    with pytest.raises(EngineError, match=r"the decoding process cannot start: .* ended with status 1"):
        measure_files([(write_sound(tmp_path / "x.wav"), [])])


# ---- The check


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Two classes of six files, with nothing to say against them."""
    return write_folders(tmp_path / "good", {"cat": 6, "dog": 6})


def check_of(source: Path, **options: str) -> Check:
    return check_collection(read_collection(source, **options), **ONE)


def test_nothing_is_found_in_good_data(good: Path) -> None:
    check = check_of(good, group="([a-z]+)_")
    assert check.findings == ()
    assert check.usable == check.collection == check.require()
    np.testing.assert_allclose(check.durations_s, 0.3)
    assert len(set(check.digests)) == 12


def test_corrupt_clips_among_good_ones_are_left_out(good: Path) -> None:
    bad = {
        "junk.wav": b"RIFF\0\0\0\0WAVEjunk",
        "text.wav": b"hello",
        "zero.wav": b"",
        "none.wav": wav_bytes(np.zeros(0, np.float32)),
        "nan.wav": wav_bytes(np.full(99, np.nan, np.float32), subtype="FLOAT"),
    }
    for name, data in bad.items():
        (good / "dog" / name).write_bytes(data)
    (good / "dog" / "folder.wav").mkdir()
    check = check_of(good)
    assert names_of(finding_of(check, "unreadable").clips) == ["junk.wav", "nan.wav", "text.wav"]
    assert names_of(finding_of(check, "empty").clips) == ["none.wav", "zero.wav"]
    assert "begins with 'hello'" in finding_of(check, "unreadable").details[-1]
    assert len(check.usable) == len(check.digests) == len(check.durations_s) == 12


def test_all_clips_silent_is_nothing_to_learn_from(tmp_path: Path) -> None:
    for name, amplitude in itertools.product("ab", (0.0, 0.0009)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{amplitude}.wav").write_bytes(wav_bytes(sine(99, RATE, 1, amplitude), RATE))
    check = check_of(tmp_path)
    assert len(finding_of(check, "silent").clips) == 4
    assert not len(check.usable)
    with pytest.raises(NoInputError, match=r"nothing in .* can be used. 4 clips with nothing above -60 dBFS"):
        check.require()


def test_silence_may_be_background(good: Path) -> None:
    (good / "background").mkdir()
    (good / "background" / "x.wav").write_bytes(wav_bytes(np.zeros(RATE, np.float32), RATE))
    check = check_of(good)
    assert kinds(check) == ["silent_background"]
    assert len(check.usable) == 13


def test_a_tenth_of_a_second_and_an_hour_are_warned_of_and_used(good: Path) -> None:
    write_sound(good / "dog" / "short.wav", 0.1, seed=90)
    soundfile.write(good / "dog" / "hour.flac", np.tile(noise(RATE), 3600), RATE)
    check = check_of(good)
    assert kinds(check) == ["short", "long"]
    assert finding_of(check, "short").details == ("0.100 s",)
    assert finding_of(check, "long").details == ("60 minutes",)
    assert len(check.usable) == 14


def test_the_same_audio_under_two_labels_is_used_under_none(good: Path) -> None:
    shutil.copy(good / "cat" / "ann_0.wav", good / "dog" / "again.wav")
    samples, rate = soundfile.read(good / "cat" / "ann_0.wav", dtype="int16")
    soundfile.write(good / "cat" / "same.flac", samples, rate)
    check = check_of(good)
    found = finding_of(check, "contradiction")
    assert (found.severity, found.is_left_out) == ("error", True)
    assert sorted(names_of(found.clips)) == ["again.wav", "ann_0.wav", "same.flac"]
    assert "'dog', as cat/ann_0.wav" in found.details
    assert len(check.usable) == 11


def test_of_copies_under_one_label_one_is_kept(good: Path) -> None:
    shutil.copy(good / "cat" / "ann_0.wav", good / "cat" / "z.wav")
    check = check_of(good)
    found = finding_of(check, "copy")
    assert (found.severity, names_of(found.clips), found.details) == ("warning", ["z.wav"], ("as cat/ann_0.wav",))
    assert len(check.usable) == 12


def test_a_clip_that_is_there_twice_is_kept_once(good: Path) -> None:
    collection = read_collection(good)
    twice = Collection((*collection.clips, *collection.clips), collection.classes)
    check = check_collection(twice, **ONE)
    assert len(finding_of(check, "copy").clips) == 12
    assert check.usable.clips == collection.clips


def test_pieces_of_one_file_are_no_copies(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", 4)
    (tmp_path / "x.txt").write_text("0\t1\tdog\n1\t2\tcat\n2\t3\tdog\n1.6\t2\tcow\n")
    check = check_of(tmp_path)
    assert "copy" not in kinds(check)
    assert len(set(check.digests)) == 1
    assert len(finding_of(check, "overlap").clips) == 1


def test_labels_that_end_after_the_recording(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", 2)
    (tmp_path / "x.txt").write_text("0\t1\tdog\n1\t3\tcat\n5\t6\tcat\n")
    check = check_of(tmp_path)
    assert finding_of(check, "late_end").details == ("3 s of 2.00 s",)
    assert finding_of(check, "empty").details == ("it begins at 5 s; the recording lasts 2.00 s",)
    np.testing.assert_allclose(check.durations_s, 1)


def test_one_class_only_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    check = check_of(write_folders(tmp_path, {"dog": 6}))
    assert kinds(check) == ["one_class"]
    with pytest.raises(DataError, match=r"there is only one class, 'dog': nothing to tell it from\. Next step: add"):
        check.require()
    write_folders(tmp_path, {"background": 1})
    write_sound(tmp_path / "background" / "ann_0.wav", seed=99)
    assert check_of(tmp_path).require().classes == ("dog",)


def test_two_files_can_be_read_and_not_be_tested(tmp_path: Path) -> None:
    check = check_of(write_folders(tmp_path, {"cat": 1, "dog": 1}))
    assert kinds(check) == ["single"]
    assert "one recording alone of 'cat', 'dog'" in finding_of(check, "single").message
    with pytest.raises(UsageError, match=r"2 different files cannot make 5 folds\. Next step: add recordings"):
        fold_by_file(check.require(), 5)


def test_small_and_unequal_classes(tmp_path: Path) -> None:
    check = check_of(write_folders(tmp_path, {"cat": 42, "cow": 2, "dog": 4}))
    assert kinds(check) == ["few", "imbalance"]
    assert "'cow', 'dog'" in finding_of(check, "few").message
    assert "42 clips of 'cat' and 2 of 'cow'" in finding_of(check, "imbalance").message


def test_names_that_differ_in_case_are_warned_of(tmp_path: Path) -> None:
    check = check_collection(
        read_collection(write_folders(tmp_path, {"cat": 6, "Dog": 6, "dog": 6, "fire-works": 6, "Fire Works": 6})),
        n_workers=2,
    )
    assert kinds(check) == ["similar_names", "similar_names"]
    assert {finding.message.split(" are")[0] for finding in check.findings} == {
        "'Dog', 'dog'",
        "'Fire Works', 'fire-works'",
    }


def test_a_class_of_which_nothing_is_left_is_no_class(good: Path) -> None:
    (good / "cow").mkdir()
    (good / "cow" / "x.wav").write_bytes(b"nothing")
    check = check_of(good)
    assert kinds(check) == ["unreadable", "lost_class"]
    assert check.usable.classes == ("cat", "dog")


def test_clipped_overdriven_and_cut_files_are_used_with_a_warning(good: Path) -> None:
    (good / "cat" / "clipped.wav").write_bytes(wav_bytes(np.clip(10 * noise(RATE), -1, 1), RATE))
    (good / "cat" / "integers.wav").write_bytes(wav_bytes(30_000 * noise(RATE), RATE, "FLOAT"))
    data = wav_bytes(noise(RATE, seed=77), RATE)
    (good / "cat" / "cut.wav").write_bytes(data[: len(data) // 2])
    check = check_of(good)
    assert {kind: names_of(finding_of(check, kind).clips) for kind in kinds(check)} == {
        "truncated": ["cut.wav"],
        "clipped": ["clipped.wav"],
        "too_loud": ["integers.wav"],
    }
    assert len(check.usable) == 15


def test_mixed_formats_are_noted_and_rates_that_tell_classes_apart_are_warned_of(good: Path) -> None:
    (good / "cat" / "x.wav").write_bytes(wav_bytes(noise(RATE, 2), 16_000))
    check = check_of(good)
    assert [(finding.kind, finding.severity) for finding in check.findings] == [
        ("sample_rates", "note"),
        ("channels", "note"),
    ]
    assert "8,000 Hz (12), 16,000 Hz (1)" in check.findings[0].message
    for index in range(6):
        write_sound(good / "cow" / f"{index}.wav", seed=100 + index, rate=44_100)
    (good / "cat" / "x.wav").unlink()
    check = check_of(good)
    assert [(finding.kind, finding.severity) for finding in check.findings] == [("rate_of_class", "warning")]


def test_a_split_that_leaks_a_group_is_an_error(good: Path) -> None:
    lines = [f"{path},{path.parent.name},{path.name[:3]},test" for path in sorted(good.glob("*/*_0.wav"))]
    lines += [f"{path},{path.parent.name},{path.name[:3]},train" for path in sorted(good.glob("*/*_[1-5].wav"))]
    table = table_of(good, "path,label,speaker,part\n" + "\n".join(lines))
    check = check_of(table, group="speaker", split="part")
    found = finding_of(check, "leak")
    assert (found.severity, found.is_left_out, len(found.clips)) == ("error", False, 6)
    assert "1 group in both train and test: 'ann'" in found.message
    assert len(check.usable) == 12


def test_a_split_that_leaks_content_keeps_the_tested_clip(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", {"cat": 6, "dog": 6})
    write_sound(tmp_path / "test" / "dog" / "new.wav", seed=50)
    write_sound(tmp_path / "test" / "cat" / "new.wav", seed=51)
    shutil.copy(tmp_path / "train" / "cat" / "ann_0.wav", tmp_path / "test" / "cat" / "old.wav")
    check = check_of(tmp_path)
    found = finding_of(check, "leak")
    assert (names_of(found.clips), found.details) == (["ann_0.wav"], ("as cat/old.wav",))
    assert Counter(clip.split for clip in check.usable.clips) == {"train": 11, "test": 3}


def test_pieces_of_one_recording_in_both_parts_are_a_leak(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", 4)
    table = table_of(tmp_path, "path,label,start_s,end_s,part\nx.wav,dog,0,1,train\nx.wav,cat,1,2,test\n")
    check = check_of(table, split="part")
    assert "1 recording in both train and test: 'x.wav'" in finding_of(check, "leak").message
    assert kinds(check).count("class_in_one_part") == 2


def test_a_split_needs_both_parts(good: Path) -> None:
    table = table_of(good, "path,label,part\ncat/ann_0.wav,cat,train\ndog/ann_0.wav,dog,train\n")
    assert "no clip is in test" in finding_of(check_of(table, split="part"), "no_part").message


def test_groups_that_cannot_be_left_out_are_warned_of(good: Path) -> None:
    assert "all clips are of one group, 'o'" in finding_of(check_of(good, group="(o)"), "one_group").message
    write_sound(good / "cow" / "ann_1.wav", seed=60)
    write_sound(good / "cow" / "7.wav", seed=61)
    check = check_of(good, group="([a-z]+)_")
    assert names_of(finding_of(check, "no_group").clips) == ["7.wav"]
    assert finding_of(check, "class_in_one_group").message.startswith("'cow' in one group alone")


def test_a_check_is_a_record_that_json_takes(good: Path) -> None:
    (good / "cat" / "x.wav").write_bytes(b"nothing")
    record = check_of(good, group="([a-z]+)_").to_dict()
    assert (record["n_clips"], record["n_usable"], record["groups"]) == (13, 12, {"ann": 6, "bob": 6})
    assert record["classes"][0]["n_clips"] == record["classes"][0]["n_usable"] + 1 == 7
    assert record["durations_s"] == {"min": 0.3, "median": 0.3, "max": 0.3, "total": 3.6}
    assert record["findings"][0]["clips"][0]["path"].endswith("cat/x.wav")


def test_each_file_is_told_of_once(good: Path) -> None:
    seen: list[Path] = []
    collection = read_collection(good)
    check_collection(collection, n_workers=2, on_file=lambda path, measured: seen.append(path))
    assert sorted(seen) == sorted(clip.path for clip in collection.clips)


@pytest.mark.parametrize("error", [IndexError, KeyError, StopIteration])
def test_an_error_of_the_callback_is_raised_and_not_taken_for_the_end(good: Path, error: type[Exception]) -> None:
    def fail(path: Path, measured: object) -> None:
        raise error("of the callback")

    with pytest.raises(error, match="of the callback"):
        measure_files([(path, []) for path in sorted(good.glob("*/*.wav"))[:3]], on_file=fail)
