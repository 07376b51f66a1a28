"""Labelled sounds of one's own, in every form in which they are read, and their samples."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelled import RATE, names_of, table_of, write_folders, write_sound
from sounds import noise, wav_bytes

from audioset.audio.reading import read_audio
from audioset.dataset.lists.segments import Segment, write_segments
from audioset.errors import AudioError, AudioSetError, DataError, NoInputError, UsageError
from audioset.formats.editors import AudacityWriter, RavenWriter
from audioset.formats.rows import Row, Tag
from audioset.labels.labels import LabelSet
from audioset.sounds.audio import read_clip, read_clips
from audioset.sounds.check import Check, check_collection
from audioset.sounds.collection import Clip, Collection
from audioset.sounds.findings import Finding
from audioset.sounds.reading import read_collection

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ONE = {"n_workers": 1}


def finding_of(check: Check, kind: str) -> Finding:
    return next(finding for finding in check.findings if finding.kind == kind)


# ---- A folder of folders


def test_the_first_folder_is_the_class_whatever_is_below(tmp_path: Path) -> None:
    write_sound(tmp_path / "dog" / "a.wav")
    write_sound(tmp_path / "dog" / "deep" / "er" / "b.WAV")
    write_sound(tmp_path / "cat" / "c.flac")
    write_sound(tmp_path / "cat" / "._c.wav")
    (tmp_path / "cat" / "notes.md").write_text("no sound")
    collection = read_collection(tmp_path)
    assert [(clip.path.relative_to(tmp_path).as_posix(), clip.labels) for clip in collection.clips] == [
        ("cat/c.flac", ("cat",)),
        ("dog/a.wav", ("dog",)),
        ("dog/deep/er/b.WAV", ("dog",)),
    ]
    assert collection.classes == ("cat", "dog")
    assert not collection.is_multi_label


@pytest.mark.parametrize(("folder", "option"), [("background", None), ("_background_noise_", None), ("Rest", "rest")])
def test_a_folder_of_background_has_no_class(tmp_path: Path, folder: str, option: str | None) -> None:
    write_folders(tmp_path, {"dog": 1, folder: 2})
    collection = read_collection(tmp_path, background=option)
    assert collection.classes == ("dog",)
    assert sorted(clip.labels for clip in collection.clips) == [(), (), ("dog",)]


def test_a_background_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, {"dog": 1, "cat": 1})
    with pytest.raises(UsageError, match="there is no 'noise' for --background among cat, dog"):
        read_collection(tmp_path, background="noise")


def test_folders_named_train_and_test_are_the_split(tmp_path: Path) -> None:
    write_folders(tmp_path / "train", {"dog": 2, "cat": 1})
    write_folders(tmp_path / "test", {"dog": 1})
    collection = read_collection(tmp_path)
    assert collection.classes == ("cat", "dog")
    assert Counter(clip.split for clip in collection.clips) == {"train": 3, "test": 1}


def test_a_train_among_other_vehicles_is_a_class(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 1, "bus": 1})
    assert read_collection(tmp_path).classes == ("bus", "train")


def test_a_third_part_is_refused_by_its_name(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_folders(tmp_path / part, {"dog": 1})
    with pytest.raises(UsageError, match=r"the words val \(1\); expected train and test"):
        read_collection(tmp_path)


def test_a_sound_outside_the_class_folders_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, {"dog": 1})
    write_sound(tmp_path / "stray.wav")
    with pytest.raises(DataError, match=r"stray.wav lies in no folder of a class.*Known forms: a folder of folders"):
        read_collection(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_folders(tmp_path / "elsewhere", {"dogs": 2})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere" / "dogs")
    (tmp_path / "elsewhere" / "dogs" / "up").symlink_to(tmp_path / "data")
    assert len(read_collection(tmp_path / "data")) == 2


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    write_sound(tmp_path / "K\u00e4uze" / "a.wav")
    write_sound(tmp_path / "Ka\u0308uze" / "b.wav")
    assert read_collection(tmp_path).classes == ("K\u00e4uze",)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode here")
def test_names_of_files_need_not_be_utf8(tmp_path: Path) -> None:
    write_folders(tmp_path, {"dog": 1, "cat": 1})
    os.rename(os.fsencode(tmp_path / "dog" / "ann_0.wav"), os.fsencode(tmp_path / "dog") + b'/h\xfcnd,\n".wav')  # noqa: PTH104
    check = check_collection(read_collection(tmp_path), **ONE)
    assert len(check.usable) == 2


@pytest.mark.parametrize(("name", "message"), [("nowhere", "there is no file or folder"), ("", "there is no audio in")])
def test_a_source_without_audio_says_what_is_read(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(NoInputError, match=message):
        read_collection(tmp_path / name)


def test_one_sound_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x.wav is one sound; expected a folder of folders"):
        read_collection(write_sound(tmp_path / "x.wav"))


# ---- Groups, splits and classes


def test_a_pattern_is_searched_in_names_before_paths(tmp_path: Path) -> None:
    write_folders(tmp_path / "my_own_data", {"a_dog_barks": 2, "cat": 2})
    collection = read_collection(tmp_path / "my_own_data", group="([a-z]+)_")
    assert {clip.group for clip in collection.clips} == {"ann", "bob"}


def test_a_pattern_may_name_a_folder(tmp_path: Path) -> None:
    for site in ("site1", "site2"):
        write_sound(tmp_path / "dog" / site / "x.wav")
    assert [clip.group for clip in read_collection(tmp_path, group="/(site.)/").clips] == ["site1", "site2"]


def test_files_that_a_pattern_does_not_fit_have_no_group(tmp_path: Path) -> None:
    write_folders(tmp_path, {"dog": 2})
    write_sound(tmp_path / "dog" / "7.wav", seed=9)
    assert [clip.group for clip in read_collection(tmp_path, group="([a-z]+)_").clips] == [None, "ann", "bob"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("speaker", "expected a column, or a regular expression with one group"),
        ("_(a)(b)", "expected a column, or a regular expression with one group"),
        ("([a-z", "is no regular expression"),
        ("(xyz)", "in none of the 2 names, such as 'dog/ann_0.wav'"),
    ],
)
def test_a_group_that_means_nothing_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    write_folders(tmp_path, {"dog": 2})
    with pytest.raises(UsageError, match=message):
        read_collection(tmp_path, group=pattern)


def test_columns_are_groups_and_splits(tmp_path: Path) -> None:
    table = table_of(tmp_path, "speaker,Label,path,Part\nann,dog,a.wav,Train\nbob,cat,b.wav,TEST\n,cat,c.wav,train\n")
    collection = read_collection(table, group="Speaker", split="Part")
    assert [clip.group for clip in collection.clips] == ["ann", "bob", None]
    assert [clip.split for clip in collection.clips] == ["train", "test", "train"]


def test_words_of_a_split_are_train_and_test(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,label,part\na.wav,dog,train\nb.wav,cat,fold3\nc.wav,cat,\n")
    with pytest.raises(UsageError, match=r"the words fold3 \(1\), \(empty\) \(1\); expected train and test"):
        read_collection(table, split="part")


def test_an_unknown_column_is_answered_with_those_there_are(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,label,speaker\na.wav,dog,ann\n")
    with pytest.raises(UsageError, match=r"--group is 'speakr'.*Columns: speaker"):
        read_collection(table, group="speakr")


def test_chosen_classes_have_the_order_in_which_they_are_given(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,labels\na.wav,dog;cat\nb.wav,cat\nc.wav,cow\nd.wav,\n")
    collection = read_collection(table, classes=["dog", "cow"])
    assert collection.classes == ("dog", "cow")
    assert [clip.labels for clip in collection.clips] == [("dog",), ("cow",), ()]
    with pytest.raises(UsageError, match="there is no class 'dgo'; did you mean 'dog'"):
        read_collection(table, classes=["dgo"])


# ---- Tables


def test_a_table_without_a_heading(tmp_path: Path) -> None:
    clips = read_collection(table_of(tmp_path, "a.wav,dog\nsub/b.wav, cat ,1.5,2\n")).clips
    assert clips == (
        Clip(tmp_path / "a.wav", ("dog",)),
        Clip(tmp_path / "sub" / "b.wav", ("cat",), 1.5, 2.0),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"path,label,start_s,end_s\na.wav,dog,1,\n",
        b"\xef\xbb\xbfpath,label,start_s,end_s\r\na.wav,dog,1,\r\n",
        b"path\tlabel\tstart_s\na.wav\tdog\t1\n",
        b"Path;Label;start_s\na.wav;dog;1\n",
        b'\n"path","label","start_s"\n\n"a.wav","dog","1.0"\n',
        "path,label,start_s\na.wav,dog,1\n".encode("utf-16"),
        "path,label,start_s\na.wav,dog,1\n".encode("utf-32"),
        b"path,label,start_s,end_s\ra.wav,dog,1,\r",
        b"label,path,start_s,,\ndog, a.wav,1,,\n",
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path: Path, text: bytes) -> None:
    write_sound(tmp_path / "a.wav")
    assert read_collection(table_of(tmp_path, text)).clips == (Clip(tmp_path / "a.wav", ("dog",), 1.0),)


def test_paths_begin_at_the_table_or_where_audio_says(tmp_path: Path) -> None:
    table = table_of(tmp_path, f"path,label\nx/a.wav,dog\n{tmp_path}/b.wav,cat\n")
    assert [clip.path for clip in read_collection(table).clips] == [tmp_path / "x/a.wav", tmp_path / "b.wav"]
    (tmp_path / "audio").mkdir()
    clips = read_collection(table, audio=tmp_path / "audio").clips
    assert [clip.path for clip in clips] == [tmp_path / "audio/x/a.wav", tmp_path / "b.wav"]
    with pytest.raises(NoInputError, match=r"there is no folder .*missing\. Next step: correct --audio"):
        read_collection(table, audio=tmp_path / "missing")


def test_names_with_commas_quotes_and_ends_of_lines(tmp_path: Path) -> None:
    name = 'a "loud", long\nname.wav'
    quoted = '"' + name.replace('"', '""') + '"'
    (clip,) = read_collection(table_of(tmp_path, f'path,label\n{quoted},"Dog, small"\n')).clips
    assert (clip.path.name, clip.labels) == (name, ("Dog, small",))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode here")
def test_a_table_may_name_files_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/h\xfcnd.wav"
    Path(os.fsdecode(path)).write_bytes(wav_bytes(noise(RATE), RATE))
    (clip,) = read_collection(table_of(tmp_path, b"path,label\nh\xfcnd.wav,dog\n")).clips
    assert clip.path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "clips.csv has no rows"),
        (b"path,label\n", "clips.csv has no rows"),
        (b"path,label\na.wav,h\xfcnd\n", r"line 2: the label h\\xfcnd is not UTF-8"),
        (b"p\0a\0t\0h\0,\0", "has NUL characters.*UTF-16 without a byte order mark"),
        (b"\xff\xfep\0a\0t", "begins as utf-16 and goes on otherwise"),
        (
            b"path,name\na.wav,dog\n",
            "line 1: no column label; the columns are path, name. Next step",
        ),
        (b"path,label,labels\na.wav,dog,dog\n", "expected path and one of label and labels"),
        (b"path,label,a,a\n", "line 1: the heading has a twice"),
        (b"path,label\na.wav,dog\n,cat\n", "line 3 has no path"),
        (b"path,label\na.wav,dog,cat\n", "line 2 has 3 cells; expected path, label"),
        (b"a.wav\n", "line 1 has 1 cells; expected path, label, start_s, end_s"),
        (b"datei,klasse\na.wav,dog\n", "no column path; the columns are datei, klasse. .* known are path, file_path"),
        (b"path,label,start_ms\na.wav,dog,20\n", "the times start_ms are not understood"),
        (b"a.wav,dog,1,2,3\n", "line 1 has 5 cells"),
        (b"path,label,start_s\na.wav,dog,one\n", "line 2 has the times 'one' and ''; expected seconds"),
        (b"path,label,start_s,end_s\na.wav,dog,2,1\n", "line 2 has the times '2' and '1'"),
        (b"path,label,start_s,end_s\na.wav,dog,-1,1\n", "line 2 has the times '-1' and '1'"),
        (b"path,label,start_s,end_s\na.wav,dog,nan,1\n", "line 2 has the times 'nan' and '1'"),
        (b"path,label,start_s,end_s\na.wav,dog,0,inf\n", "line 2 has the times '0' and 'inf'"),
        (b'path,label\na.wav,"dog\n', "line 2: unexpected end of data. Likely cause: a quotation mark"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_collection(table_of(tmp_path, text))


def test_lines_of_a_piece_are_joined_where_clips_have_several_labels(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,labels,start_s,end_s\na.wav,dog,0,1\na.wav,cat;dog,0,1\na.wav,cow,1,2\n")
    assert [clip.labels for clip in read_collection(table).clips] == [("dog", "cat"), ("cow",)]


def test_lines_of_a_piece_contradict_each_other_where_clips_have_one_label(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_sound(tmp_path / f"{name}.wav", seed=ord(name))
    table = table_of(tmp_path, "path,label\na.wav,dog\nb.wav,cat\nc.wav,dog\na.wav,cat\n")
    check = check_collection(read_collection(table), **ONE)
    assert names_of(finding_of(check, "contradiction").clips) == ["a.wav", "a.wav"]
    assert names_of(check.usable.clips) == ["b.wav", "c.wav"]


@QUICK
@given(text=st.binary(max_size=200) | st.text('path,label;"\n\r\t .0123456789-e\\', max_size=120).map(str.encode))
def test_any_text_is_a_table_or_an_error_of_ours(tmp_path: Path, text: bytes) -> None:
    with suppress(AudioSetError):  # and no other
        assert read_collection(table_of(tmp_path, text)).clips


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda name: ";" not in name and name.casefold() not in ("background", "path")
)


@QUICK
@given(
    rows=st.lists(
        st.tuples(
            NAMES.map(lambda name: name.replace("/", "_") + ".wav"), NAMES, st.integers(0, 99), st.integers(0, 99)
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_what_is_written_as_csv_is_what_is_read(tmp_path: Path, rows: list[tuple[str, str, int, int]]) -> None:
    def quoted(cell: object) -> str:
        return '"' + str(cell).replace('"', '""') + '"'

    lines = [",".join(map(quoted, (name, label, start, start + length))) for name, label, start, length in rows]
    collection = read_collection(table_of(tmp_path, "path,label,start_s,end_s\n" + "\n".join(lines)))
    found = [(clip.path.name, clip.start_s, clip.end_s) for clip in collection.clips]
    assert found == [(name, start, start + length) for name, _, start, length in rows]


# ---- Labels beside the audio


class Memory:
    """A stream that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def written_by(writer_class: type, path: str, tags: Sequence[tuple[float, float, str]]) -> bytes:
    stream = Memory()
    writer = writer_class(stream)
    for start_s, end_s, label in tags:
        writer.write(Row(path, start_s, end_s, (Tag("/m/0", label, 0.87),), 4.0, "yamnet"))
    return stream.data


@pytest.mark.parametrize("writer", [AudacityWriter, RavenWriter])
@pytest.mark.parametrize("name", ["x.wav.txt", "x.txt"])
def test_labels_that_the_package_writes_are_read(tmp_path: Path, writer: type, name: str) -> None:
    write_sound(tmp_path / "x.wav", 4)
    tags = [(0.0, 1.44, "Speech"), (1.44, 2.4, "Dog, small"), (1.44, 2.4, "Whistle")]
    (tmp_path / name).write_bytes(written_by(writer, str(tmp_path / "x.wav"), tags))
    assert read_collection(tmp_path).clips == (
        Clip(tmp_path / "x.wav", ("Speech",), 0.0, 1.44),
        Clip(tmp_path / "x.wav", ("Dog, small", "Whistle"), 1.44, 2.4),
    )


RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tSpecies\n"


@pytest.mark.parametrize("name", ["x.Table.1.selections.txt", "x.selections.txt", "x.wav.selections.txt", "x.txt"])
def test_selections_of_raven_are_read_once_for_all_views(tmp_path: Path, name: str) -> None:
    write_sound(tmp_path / "x.wav", 2)
    text = RAVEN + "1\tWaveform 1\t1\t0.5\t1.0\t0\towl\n1\tSpectrogram 1\t1\t0.5\t1.0\t0\towl\n2\tS\t1\t1\t2\t0\ttit\n"
    (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode())
    assert [(clip.labels, clip.start_s, clip.end_s) for clip in read_collection(tmp_path).clips] == [
        (("owl",), 0.5, 1.0),
        (("tit",), 1.0, 2.0),
    ]


def test_tables_of_several_recordings_belong_to_the_one_beside_them(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_sound(tmp_path / f"{name}.wav", 2)
    heading = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tLabel\n"
    text = heading + "1\t0.5\t1.0\tx.wav\t0.5\towl\n2\t2.25\t3.25\ty.wav\t0.25\ttit\n"
    for name in ("x", "y"):
        (tmp_path / f"{name}.selections.txt").write_text(text)
    assert [(clip.path.name, clip.labels, clip.start_s, clip.end_s) for clip in read_collection(tmp_path).clips] == [
        ("x.wav", ("owl",), 0.5, 1.0),
        ("y.wav", ("tit",), 0.25, 1.25),
    ]


def test_two_tables_of_raven_add_up(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", 2)
    for number in (1, 2):
        (tmp_path / f"x.Table.{number}.selections.txt").write_text(RAVEN + f"1\tS\t1\t0\t{number}\t0\towl\n")
    assert [clip.end_s for clip in read_collection(tmp_path).clips] == [1.0, 2.0]


def test_audacity_labels_with_points_ranges_and_several_names(tmp_path: Path) -> None:
    write_sound(tmp_path / "a" / "x.wav", 2)
    (tmp_path / "a" / "x.txt").write_text("0,5\t1,0\tdog; cat\n\\\t100.0\t2000.0\n1.5\t1.5\tclick\n0.1\t0.2\n")
    clips = read_collection(tmp_path).clips
    assert [(clip.labels, clip.start_s, clip.end_s) for clip in clips] == [
        (("dog", "cat"), 0.5, 1.0),
        (("click",), 1.5, 1.5),
        ((), 0.1, 0.2),
    ]
    check = check_collection(Collection(clips, ("cat", "click", "dog")), **ONE)
    assert finding_of(check, "empty").details == ("the label is a point at 1.5 s",)


def test_a_label_may_have_a_line_separator_of_unicode(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", 2)
    (tmp_path / "x.txt").write_bytes("0\t1\tcall\u2028song\r\n1\t2\tsong\r\n".encode())
    assert read_collection(tmp_path).classes == ("call\u2028song", "song")


def test_label_files_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_sound(tmp_path / "audio" / "site" / "x.wav", 2)
    (tmp_path / "labels" / "site").mkdir(parents=True)
    (tmp_path / "labels" / "site" / "x.txt").write_text("0\t1\tdog\n")
    (clip,) = read_collection(tmp_path / "labels", audio=tmp_path / "audio", group="(site)/").clips
    assert (clip.path, clip.group) == (tmp_path / "audio" / "site" / "x.wav", "site")


def test_labels_without_their_recording_are_found_by_the_check(tmp_path: Path) -> None:
    for name in ("x", "gone"):
        (tmp_path / f"{name}.txt").write_text("0\t1\tdog\n1\t2\tcat\n")
    write_sound(tmp_path / "x.wav", 2)
    check = check_collection(read_collection(tmp_path), **ONE)
    missing = finding_of(check, "missing")
    assert (missing.severity, names_of(missing.clips)) == ("error", ["gone.wav", "gone.wav"])
    assert "2 labels of 1 file that is not there" in missing.message
    assert len(check.usable) == 2


def test_folders_with_some_label_files_are_ambiguous(tmp_path: Path) -> None:
    write_folders(tmp_path, {"dog": 2})
    (tmp_path / "dog" / "ann_0.txt").write_text("0\t0.2\tbark\n")
    with pytest.raises(DataError, match=r"could be a folder of folders, or recordings.*1 of 2 sounds.*put an empty"):
        read_collection(tmp_path)
    (tmp_path / "dog" / "bob_1.txt").write_text("")
    assert read_collection(tmp_path).classes == ("bark",)


def test_text_that_is_no_labels_does_not_matter(tmp_path: Path) -> None:
    write_folders(tmp_path, {"dog": 2, "cat": 1})
    (tmp_path / "dog" / "ann_0.txt").write_text("a dog barks at the postman\n")
    (tmp_path / "dog" / "bob_1.txt").write_bytes(b"\0\1\2")
    assert read_collection(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.txt": "0\t1\tdog\n1 to 2 cat\n"}, r"x.txt, line 2: '1 to 2 cat'; expected start, end and label"),
        ({"x.txt": "0\t1\tdog\n2\t1\tcat\n"}, "line 2 has the times '2' and '1'"),
        ({"x.txt": b"0\t1\th\xfcnd\n"}, r"the label h\\xfcnd is not UTF-8"),
        ({"x.txt": ""}, "have no labels; expected a start, an end and a label"),
        ({"x.selections.txt": "hello"}, "expected the heading of a selection table"),
        (
            {"x.selections.txt": RAVEN.replace("Species", "Colour") + "1\tS\t1\t0\t1\t0\towl\n"},
            "heading of a selection table",
        ),
        ({"x.selections.txt": RAVEN + "1\tS\t1\tzero\t1\t0\towl\n"}, "line 2 has the times 'zero' and '1'"),
        ({"x.txt": "0\t1\ta\n", "x.wav.txt": "0\t1\tb\n"}, "x.wav has two label files, x.txt and x.wav.txt"),
        ({"x.txt": "0\t1\ta\n", "x.flac": b"fLaC"}, "may belong to x.flac and x.wav. Next step: name it x.flac.txt"),
    ],
)
def test_damaged_labels_are_refused(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    write_sound(tmp_path / "x.wav", 2)
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_collection(tmp_path)


@QUICK
@given(
    text=st.text("0123456789.,-+e\t\n\r\\ dog;()\ufeff", max_size=80).map(str.encode)
    | st.text("01\t\n aw", max_size=60).map(lambda text: (RAVEN + text).encode())
    | st.binary(max_size=60),
    name=st.sampled_from(["x.txt", "x.wav.txt", "x.selections.txt"]),
)
def test_any_text_beside_the_audio_is_labels_or_an_error_of_ours(tmp_path: Path, text: bytes, name: str) -> None:
    shutil.rmtree(tmp_path)
    write_sound(tmp_path / "x.wav", 0.01)
    (tmp_path / name).write_bytes(text)
    with suppress(AudioSetError):  # and no other
        for clip in read_collection(tmp_path).clips:
            assert clip.end_s is not None
            assert 0 <= clip.start_s <= clip.end_s


# ---- A part of AudioSet


def test_a_list_of_audioset_finds_the_files_of_its_clips(tmp_path: Path) -> None:
    segments = [
        Segment("-abcdefghij", 30.0, 40.0, ("/m/04rlf", "/m/09x0r")),
        Segment("aaaaaaaaaaa", 0.0, 10.0, ("/m/04rlf",)),
        Segment("bbbbbbbbbbb", 5.0, 15.0, ("/m/0bt9lr",)),
        Segment("ccccccccccc", 0.0, 10.0, ("/m/0bt9lr",)),
    ]
    write_segments(tmp_path / "eval_segments.csv", segments, "today")
    audio = tmp_path / "audio"
    for name in ("x/-abcdefghij_30000_40000.flac", "Yaaaaaaaaaaa.wav", "bbbbbbbbbbb_9000_19000.wav", "other.wav"):
        write_sound(audio / name)
    collection = read_collection(tmp_path / "eval_segments.csv", audio=audio)
    assert [(clip.path.relative_to(audio).as_posix(), set(clip.labels)) for clip in collection.clips] == [
        ("x/-abcdefghij_30000_40000.flac", {"Music", "Speech"}),
        ("Yaaaaaaaaaaa.wav", {"Music"}),
        ("bbbbbbbbbbb.wav", {"Dog"}),
        ("ccccccccccc.wav", {"Dog"}),
    ]
    assert collection.classes == ("Speech", "Dog", "Music")  # as models have them
    write_sound(audio / "aaaaaaaaaaa.wav")
    with pytest.raises(DataError, match="the clip aaaaaaaaaaa has two files"):
        read_collection(tmp_path / "eval_segments.csv", audio=audio)


def test_no_label_of_audioset_has_the_separator_of_labels() -> None:
    assert not [name for name in LabelSet.load("audioset-527").names if ";" in name]


# ---- Samples


@pytest.mark.parametrize("rate", [RATE, 16_000, 11_025])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, None), (0.25, 0.75), (7.0, None), (0.0, 20.0), (5.999, 9.1)])
def test_a_clip_is_a_part_of_its_file(tmp_path: Path, rate: int, start_s: float, end_s: float | None) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wav_bytes(noise(10 * RATE, 2), RATE))
    whole, _ = read_audio(path, sample_rate=rate, mono=True)
    stop = None if end_s is None else round(end_s * rate)
    found = read_clip(Clip(path, (), start_s, end_s), rate)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole[round(start_s * rate) : stop])


def test_clips_of_a_file_are_read_together_as_alone(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.wav", 12)
    clips = [Clip(path, (), start_s, start_s + 2) for start_s in (9.5, 0.0, 1.0, 5.5, 5.5)]
    for clip, found in zip(clips, read_clips(clips, 16_000), strict=True):
        np.testing.assert_array_equal(found, read_clip(clip, 16_000))


def test_a_clip_after_the_end_of_its_file_is_an_error(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.wav", 1)
    with pytest.raises(AudioError, match=r"from 3 s to 4 s holds no samples: 1.000 s were decoded") as caught:
        read_clip(Clip(path, (), 3, 4), RATE)
    assert caught.value.code == "no_samples"
    with pytest.raises(AudioError, match="cannot be opened") as caught:
        read_clip(Clip(tmp_path / "gone.wav", ()), RATE)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_the_end_of_a_file_is_not_decoded_for_its_beginning(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, noise(60 * RATE), RATE)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3] + bytes(len(data) // 3))
    whole = noise(60 * RATE)[: 2 * RATE]
    np.testing.assert_allclose(read_clip(Clip(tmp_path / name, (), 0, 2), RATE), whole, atol=1e-4)
