"""Tables of labelled recordings as data sets, spreadsheets and programs write them, wherever a table is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled import table_of, write_folders, write_sound

from audioset.calibration.clips import read_label_table
from audioset.cli.inputs import open_inputs
from audioset.errors import DataError, UsageError
from audioset.evaluate.sources import find_audio, read_targets
from audioset.folders import AUDIO_SUFFIXES, find_files, find_recordings, scan_folder
from audioset.labels.labels import LabelSet
from audioset.labels.tables import TableRow, plain_name, read_table
from audioset.labels.thresholds import read_thresholds
from audioset.sounds.collection import Clip
from audioset.sounds.reading import read_collection

YAMNET = LabelSet.load("yamnet-521")
EXCEL = "path;label;start_s;end_s\r\na.wav;Speech;0,5;1,5\r\n"
# Each says: a.wav has Speech from 0.5 to 1.5 s.
TIMED = {
    "own": ("x.csv", "path,label,start_s,end_s\na.wav,Speech,0.5,1.5\n"),
    "DCASE": ("x.tsv", "filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.5\tSpeech\n"),
    "DCASE by commas": ("x.csv", "filename,onset,offset,event_label\na.wav,0.5,1.5,Speech\n"),
    "DCASE without a heading": ("meta.txt", "a.wav\t0.5\t1.5\tSpeech\n"),
    "AudioSet's strong labels": (
        "x.tsv",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\na\t0.5\t1.5\t/m/09x0r\n",
    ),
    "Excel": ("x.csv", EXCEL),
    "Excel's byte order mark": ("x.csv", "\ufeff" + EXCEL),
    "Excel's order of a separator": ("x.csv", "sep=;\r\n" + EXCEL),
    "Excel's Unicode text": ("x.txt", "Path\tLabel\tStart_s\tEnd_s\r\na.wav\tSpeech\t0,5\t1,5\r\n"),
    "Excel without a heading": ("x.csv", "a.wav;Speech;0,5;1,5\r\n"),
    "BirdNET's table": (
        "BirdNET_SelectionTable.txt",
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCommon Name\t"
        "Species Code\tConfidence\tBegin Path\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t60.5\t61.5\t0\t15000\tSpeech\tx\t0.81\tC:\\rec\\a.wav\t0.5\n",
    ),
    "BirdNET's CSV": (
        "x.csv",
        "Start (s),End (s),Scientific name,Common name,Confidence,File\n0.5,1.5,Homo sapiens,Speech,0.81,/rec/a.wav\n",
    ),
    "BirdNET's CSV for R": (
        "x.r.csv",
        "filepath,start,end,scientific_name,common_name,confidence,lat,lon\na.wav,0.5,1.5,Homo,Speech,0.8,-1,-1\n",
    ),
    "Kaleidoscope": (
        "x.csv",
        "INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name,confidence\n"
        "/rec,,a.wav,0.5,1.0,Homo,Speech,0.8\n",
    ),
    "warbleR": ("x.csv", '"sound.files","selec","start","end","species"\n"a.wav",1,0.5,1.5,"Speech"\n'),
    "in one word": ("x.csv", "fileName,startTime,endTime,eventLabel\na.wav,0.5,1.5,Speech\n"),
    "by hyphens": ("x.csv", "file-name,start-time,end-time,label\na.wav,0.5,1.5,Speech\n"),
    "Raven, each selection in two views": (
        "x.txt",
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tAnnotation\n"
        "1\tWaveform 1\t0.5\t1.5\ta.wav\tSpeech\n1\tSpectrogram 1\t0.5\t1.5\ta.wav\tSpeech\n",
    ),
}
# Each says: a.wav is Speech, b.wav is not.
UNTIMED = {
    "ESC-50": (
        "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\na.wav,1,0,Speech,True,1,A\nb.wav,1,2,Dog,True,1,A\n",
    ),
    "UrbanSound8K": (
        "UrbanSound8K.csv",
        "slice_file_name,fsID,start,end,salience,fold,classID,class\na.wav,1,58.8,62.8,1,5,3,Speech\n"
        "b.wav,2,0,4,1,5,2,Dog\n",
    ),
    "DCASE's scenes": ("meta.csv", "filename\tscene_label\nx/a.wav\tSpeech\nx/b.wav\tDog\n"),
    "FSD50K": ("dev.csv", "fname,labels,mids,split\na,Human_speech,/m/09x0r,train\nb,Dog,/m/0bt9lr,val\n"),
    "Freesound's": ("train.csv", "fname,label,manually_verified\na.wav,Speech,1\nb.wav,Dog,0\n"),
}


def read_wherever(tmp_path: Path, name: str, text: str) -> tuple[Clip, dict[str, Path], Path]:
    """The first clip that training sees, and where calibration and evaluation look for recordings."""
    audio = tmp_path / "audio"
    write_sound(audio / "x" / "a.wav", 2)
    write_sound(audio / "x" / "b.wav", 2, seed=1)
    encoding = "utf-16" if "Unicode" in name else "utf-8"
    table = table_of(tmp_path, text.encode(encoding), name)
    (clip, *_) = read_collection(table, audio=audio).clips
    of_labels = read_label_table(table, YAMNET)
    files, missing = find_audio(audio, read_targets(table, YAMNET))
    assert not missing
    assert files == {path: find_recordings(of_labels.sounds, audio)[path] for path in of_labels.sounds}
    return clip, files, audio


@pytest.mark.parametrize("kind", TIMED)
def test_labels_with_times_are_read_wherever_a_table_is_taken(tmp_path: Path, kind: str) -> None:
    name, text = TIMED[kind]
    clip, files, audio = read_wherever(tmp_path, name, text)
    assert clip.path == audio / "x" / "a.wav"
    assert (clip.labels, clip.start_s, clip.end_s) in [(("Speech",), 0.5, 1.5), (("/m/09x0r",), 0.5, 1.5)]
    assert list(files.values()) == [audio / "x" / "a.wav"]
    table = read_label_table(tmp_path / name, YAMNET)
    (path,) = table.sounds
    starts = np.array([0.0, 0.5, 1.5])
    assert table.targets(path, starts, starts + 0.4).tolist() == [[False], [True], [False]]


@pytest.mark.parametrize("kind", UNTIMED)
def test_labels_of_whole_files_are_read_wherever_a_table_is_taken(tmp_path: Path, kind: str) -> None:
    name, text = UNTIMED[kind]
    clip, files, audio = read_wherever(tmp_path, name, text)
    assert clip.path == audio / "x" / "a.wav"
    assert clip.is_whole_file
    assert [path.name for path in files.values()] == ["a.wav", "b.wav"]
    table = read_label_table(tmp_path / name, YAMNET)
    assert table.labels.names == ("Speech", "Dog")
    assert [[sound.label_id for sound in sounds] for sounds in table.sounds.values()] == [["/m/09x0r"], ["/m/0bt9lr"]]


def test_several_labels_of_freesound_have_commas_between_them(tmp_path: Path) -> None:
    write_sound(tmp_path / "7.wav")
    table = table_of(tmp_path, 'fname,labels,mids,split\n7,"Speech,Dog","/m/09x0r,/m/0bt9lr",train\n')
    assert read_collection(table).clips[0].labels == ("Speech", "Dog")
    assert read_label_table(table, YAMNET).labels.names == ("Speech", "Dog")


def test_further_columns_keep_their_names_for_groups(tmp_path: Path) -> None:
    table = table_of(tmp_path, UNTIMED["ESC-50"][1])
    assert {clip.group for clip in read_collection(table, group="src_file").clips} == {"1"}
    assert read_table(table).rows[0] == TableRow(
        2,
        "a.wav",
        "Speech",
        "",
        None,
        None,
        {"fold": "1", "target": "0", "esc10": "True", "src_file": "1", "take": "A"},
    )


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Begin_Time (s)", "begin time"),
        ("start_time_seconds", "start time"),
        ("End [sec]", "end"),
        ("START_S", "start"),
        ("startTime", "start time"),
        ("start.time", "start time"),
        ("eBird_Code", "ebird code"),
        ("classID", "class id"),
        ("labels", "labels"),
        ("class", "class"),
        ("Tags", "tags"),
        ("s", "s"),
    ],
)
def test_case_underscores_and_units_of_a_heading_do_not_matter(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datei,klasse\na.wav,Dog\n", "no column path; the columns are datei, klasse"),
        ("category,fold\na.wav,Dog\n", "no column path; the columns are category, fold"),
        ("filename,fold\na.wav,1\n", "no column label; the columns are filename, fold"),
        ("filename;onset;offset\na.wav;1;2\n", "no column label; the columns are filename, onset, offset"),
        (
            "filename,label,onset_ms\na.wav,Dog,500\n",
            "the times onset_ms are not understood; expected start_s and end_s, in seconds",
        ),
        (
            "filename,label,clip_begin,clip_end\na.wav,Dog,0.5,1.5\n",
            "the times clip_begin are not understood; expected start_s and end_s, in seconds",
        ),
        ("path,label,start_s,last_end\na.wav,Dog,0.5,1.5\n", "the times last_end are not understood"),
        ("id,label\na,Dog\nb,Cat\n", "no column path; the columns are id, label"),
        ('[{"path": "a.wav", "label": "Dog"}]\n', "is JSON; expected a table"),
        ("PK\x03\x04", "is a workbook or an archive; expected text. Next step: save it as CSV"),
        ("path,label,start_s,end_s\na.wav,Dog,0:01,0:02\n", "line 2 has the times '0:01' and '0:02'; expected seconds"),
        ('path,label,start_s,end_s\na.wav,Dog,"0,5",1\n', "line 2 has the times '0,5' and '1'"),
    ],
)
def test_a_heading_that_is_not_understood_is_called_that(tmp_path: Path, text: str, message: str) -> None:
    table = table_of(tmp_path, text)
    with pytest.raises(DataError, match=message):
        read_collection(table)
    with pytest.raises(UsageError, match=message):
        read_label_table(table, YAMNET)
    with pytest.raises(UsageError, match=message):
        read_targets(table, YAMNET)


@pytest.mark.parametrize(
    ("name", "text"), [("t.csv", "Dog;0,5\n"), ("t.csv", "label;threshold\nDog;0,5\n"), ("t.txt", "\ufeffDog\t0.5\n")]
)
def test_thresholds_may_come_from_a_spreadsheet(tmp_path: Path, name: str, text: str) -> None:
    assert read_thresholds(table_of(tmp_path, text, name)) == {"Dog": 0.5}


# ---- Where recordings are


def test_a_name_alone_is_found_below_the_folder_and_any_other_where_it_says(tmp_path: Path) -> None:
    for name in ("fold1/a.wav", "fold2/b.flac", "fold2/sub/c.wav"):
        write_sound(tmp_path / name)
    found = find_recordings(["a.wav", "b", "fold2/sub/c.wav", "fold1\\a.wav", "fold1/b.flac"], tmp_path)
    places = {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()}
    assert places == {
        "a.wav": "fold1/a.wav",
        "b": "fold2/b.flac",
        "fold2/sub/c.wav": "fold2/sub/c.wav",
        "fold1\\a.wav": "fold1/a.wav",
        "fold1/b.flac": "fold1/b.flac",  # which is not there, and is not the other one
    }


def test_a_name_that_may_mean_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("fold1/a.wav", "fold2/a.wav"):
        write_sound(tmp_path / name)
    with pytest.raises(DataError, match=r"a\.wav may be .*fold1/a\.wav, .*fold2/a\.wav\. Next step: write its folder"):
        find_recordings(["a.wav"], tmp_path)
    with pytest.raises(DataError, match=r"and both may be .*a\.wav"):
        find_recordings(["/sd1/fold1/a.wav", "/sd2/fold1/a.wav"], tmp_path)


# ---- Label files beside recordings


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.txt", "0.5\t1.5\tSpeech\n"),
        ("x.txt", "0.5 1.5 Speech\n"),
        ("x.txt", "0,5\t1,5\tSpeech\t0.8125\n"),
        ("x.txt", "start\tend\tlabel\n0.5\t1.5\tSpeech\n"),
        ("x.txt", "Onset,Offset,Event_label\n0.5,1.5,Speech\n"),
        ("x.csv", "0.5,1.5,Speech\n"),
        ("x.csv", "start;end;label\r\n0,5;1,5;Speech\r\n"),
        ("x.wav.tsv", "onset_s\toffset_s\tlabel\n0.5\t1.5\tSpeech\n"),
        ("x.BirdNET.selection.table.txt", TIMED["BirdNET's table"][1].replace("a.wav", "x.wav")),
        ("x.BirdNET.results.csv", TIMED["BirdNET's CSV"][1].replace("a.wav", "x.wav")),
        ("x.BirdNET.results.r.csv", TIMED["BirdNET's CSV for R"][1].replace("a.wav", "x.wav")),
        ("x.BirdNET.results.kaleidoscope.csv", TIMED["Kaleidoscope"][1].replace("a.wav", "x.wav")),
        ("x.BirdNET.results.txt", "0.5\t1.5\tSpeech\t0.8125\n"),
        ("BirdNET_SelectionTable.txt", TIMED["BirdNET's table"][1].replace("a.wav", "x.wav")),
        ("BirdNET_CombinedTable.csv", TIMED["BirdNET's CSV"][1].replace("a.wav", "x.wav")),
    ],
)
def test_label_files_of_every_kind_are_read(tmp_path: Path, name: str, text: str) -> None:
    path = write_sound(tmp_path / "x.wav", 2)
    (tmp_path / name).write_bytes(text.encode())
    collection = read_collection(tmp_path)
    assert collection.clips == (Clip(path, ("Speech",), 0.5, 1.5),)
    assert collection.notes == ()


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    for seed, name in enumerate(("x", "y", "z")):
        write_sound(tmp_path / f"{name}.wav", 2, seed=seed)
    heading = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tLabel\n"
    (tmp_path / "x.txt").write_text(heading + "1\t0\t1\tx.wav\towl\n2\t0\t1\tgone.wav\towl\n")
    (tmp_path / "x.csv").write_text("peak,rms\n1,2\n")
    (tmp_path / "y.txt").write_text("0\t1\ttit\n")
    for name in ("a.docx", "b.docx", "c.xyz", ".hidden.xyz", "README.md"):
        (tmp_path / name).touch()
    notes = read_collection(tmp_path).notes
    assert [note.replace(str(tmp_path), "") for note in notes] == [
        "skipped: 2 .docx, 1 .xyz (in )",
        "skipped: x.csv beside recordings, not understood as labels",
        "skipped: 1 rows of /x.txt, which are of gone.wav, and no such recording is there",
        "skipped: 1 of 3 recordings, which have no label file: z.wav",
    ]


def test_dates_and_words_are_no_times(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,label,start_date,end_user\na.wav,Dog,2024-05-01,Ann\n")
    assert read_table(table).rows[0].cells == {"start_date": "2024-05-01", "end_user": "Ann"}


@pytest.mark.parametrize("name", ["y.TextGrid", "y.lab", "y.wav.srt", "y.eaf", "y.xlsx"])
def test_labels_of_programs_that_are_not_read_are_named(tmp_path: Path, name: str) -> None:
    for seed, folder in enumerate(("owl", "tit")):
        write_sound(tmp_path / folder / "y.wav", 2, seed=seed)
        (tmp_path / folder / name).write_bytes(b"x")
    not_understood = f"{name}, {name} beside recordings, not understood as labels"
    assert read_collection(tmp_path).notes[-1] == f"skipped: {not_understood}"
    write_sound(tmp_path / "x.wav", 2, seed=2)
    (tmp_path / "x.txt").write_text("0\t1\towl\n")
    with pytest.raises(DataError, match=f"^{not_understood}; expected start, end"):
        read_collection(tmp_path)


def test_a_table_among_recordings_is_named(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.wav", 2)
    (tmp_path / "id.csv").write_text("FOLDER,IN FILE,OFFSET,DURATION,MANUAL ID\n,x.wav,0.5,1.0,owl\n")
    with pytest.raises(DataError, match=r"in no folder of a class below .*\. Next step: name the table, .*id\.csv\."):
        read_collection(tmp_path)
    (tmp_path / "x.txt").write_text("0\t1\towl\n")
    (note,) = read_collection(tmp_path).notes
    assert note.endswith("id.csv, which names recordings: a source of its own")


def test_text_that_may_be_the_labels_of_a_recording_is_refused(tmp_path: Path) -> None:
    for seed, name in enumerate(("x", "y")):
        write_sound(tmp_path / f"{name}.wav", 2, seed=seed)
    (tmp_path / "x.txt").write_text("0\t1\towl\n")
    (tmp_path / "y.txt").write_text("from 0 to 1: tit\n")
    with pytest.raises(DataError, match=r"y\.txt beside recordings, not understood as labels; expected start, end and"):
        read_collection(tmp_path)
    (tmp_path / "y.txt").write_text("Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tLabel\n1\t0\t1\tq.wav\towl\n")
    with pytest.raises(DataError, match=r"y\.txt has no row of y\.wav: its rows are of q\.wav"):
        read_collection(tmp_path)


# ---- Folders


def test_links_are_followed_once_and_loops_are_noticed(tmp_path: Path) -> None:
    write_folders(tmp_path / "store", {"dog": 1})
    write_folders(tmp_path / "project", {"cat": 1})
    links = {"linked": "../store", "again": "../store/dog", "up": "..", "loop": ".", "self": "self"}
    for name, target in links.items():
        (tmp_path / "project" / name).symlink_to(target)
    (tmp_path / "store" / "back").symlink_to("../project")
    (tmp_path / "project" / "one.wav").symlink_to("../store/dog/ann_0.wav")
    scan = scan_folder(tmp_path / "project")
    found = [Path(path).relative_to(tmp_path / "project").as_posix() for path in scan.of(AUDIO_SUFFIXES)]
    assert found == ["again/ann_0.wav", "cat/ann_0.wav", "one.wav"]
    assert sorted(Path(path).name for path in scan.repeats) == ["back", "dog", "loop", "up"]
    assert find_files(tmp_path / "project", AUDIO_SUFFIXES) == [tmp_path / "project" / name for name in found]
    notes = list(scan.notes())
    assert notes[0].startswith("skipped: 1 without an ending (in ")
    assert notes[1].endswith("and 1 more: a link to a folder that is read already, or that lies above")


def test_commands_count_what_is_no_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sound(tmp_path / "a.wav")
    write_sound(tmp_path / "sub" / "b.AU")
    for name in ("x.docx", "sub/y.DOCX", "z.zip", ".hidden.zip", "labels.csv"):
        (tmp_path / name).touch()
    with open_inputs([str(tmp_path)]) as inputs:
        assert [Path(item.path).name for item in inputs] == ["a.wav", "b.AU"]
    assert capsys.readouterr().err == f"audioset: skipped: 2 .docx, 1 .zip (in {tmp_path})\n"
    with open_inputs([str(tmp_path)], is_quiet=True):
        assert capsys.readouterr().err == ""


def test_names_of_published_lists_are_lists(assets_folder: Path) -> None:
    path = assets_folder / "eval_segments.csv"
    by_name, by_path = (read_targets(source, LabelSet.load("audioset-527")) for source in ("eval", path))
    assert (by_name.names, by_name.source) == (by_path.names, "eval_segments.csv")
    with pytest.raises(UsageError, match=r"eval is the name of a published list\. Next step: --audio FOLDER"):
        read_collection("eval")
