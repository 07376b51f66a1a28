"""``audioset data download`` and its companions, as people use them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import av
import h5py
import numpy as np
import pytest
import soundfile
from download_server import RATE, Site, media
from downloads import check_agreement, clips_of, expected_samples, files_in, video_ids
from films import film
from sounds import noise

from audioset.cli import cli
from audioset.dataset.download.clips import Key
from audioset.dataset.download.download import PARTIAL_FOLDER
from audioset.dataset.download.fetch import FetchSettings, YtDlpFetch
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.machine import machine_name
from audioset.dataset.lists.segments import write_segments
from audioset.errors import ConflictError, DataError, MissingExtraError, NoInputError, OutputError, UsageError

pytest.importorskip("yt_dlp", reason="needs the extra data")
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

QUICK = ("--rate", "none", "--min-free", "0", "--sleep-requests", "0")


@pytest.fixture
def site():
    with Site() as site:
        yield site


@pytest.fixture
def clip_list(tmp_path):
    path = tmp_path / "eval_segments.csv"
    write_segments(path, clips_of(video_ids(6)), "today")
    return path


def data(*arguments):
    return cli.main(["data", *map(str, arguments)], standalone_mode=False)


def download(site, *arguments):
    return data("download", "--url-template", site.url_template, *QUICK, "--", *arguments)


def as_json(capsys, *arguments):
    capsys.readouterr()
    data(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_a_download_is_begun_continued_and_reported(tmp_path, site, clip_list, capsys):
    folder = tmp_path / "set"
    gone = video_ids(6)[0]
    site.plan[gone] = ["404"]
    assert download(site, folder, clip_list) == 0
    assert capsys.readouterr().out == ""
    check_agreement(folder)
    assert as_json(capsys, "status", folder)["subsets"] == {"eval": {"done": 5, "removed": 1}}
    report = as_json(capsys, "report", folder)
    names = sorted(path.stem for path in files_in(folder))
    digest = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    assert report["subsets"]["eval"]["sha256_of_names"] == digest
    (missing,) = report["missing"]
    assert (missing["name"], missing["state"], missing["is_final"]) == (f"{gone}_500_1500", "removed", True)
    assert "404" in missing["reason"]

    assert data("retry", folder, "--state", "removed") is None
    assert download(site, folder) == 0, "without lists, with what the ledger has"
    assert as_json(capsys, "status", folder)["subsets"] == {"eval": {"done": 6}}
    assert len(site.requests) == 1 + 2 * 6


def test_reports_for_people_say_the_same(tmp_path, site, clip_list, capsys):
    site.plan[video_ids(6)[2]] = ["404"]
    download(site, tmp_path / "set", clip_list)
    data("report", tmp_path / "set")
    text = capsys.readouterr().out
    assert "5 of 6 clips are on disk (83.3%)" in text
    assert "| removed | 1 | 16.7% | the video was removed, or does not exist |" in text
    data("status", tmp_path / "set")
    assert "done in an hour" in capsys.readouterr().out


def test_a_manifest_lists_every_clip_with_the_hash_of_its_file(tmp_path, site, clip_list):
    site.plan[video_ids(6)[2]] = ["404"]
    download(site, tmp_path / "set", clip_list)
    data("report", tmp_path / "set", "--manifest", tmp_path / "manifest.csv")
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    assert lines[2].startswith("# YTID, start_seconds, end_seconds, positive_labels, sha256")
    rows = list(csv.reader(lines[3:], skipinitialspace=True))
    assert len(rows) == 6
    hashes = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in files_in(tmp_path / "set")}
    for video_id, start, end, labels, digest, *_, state in rows:
        assert (start, end, labels) == ("0.500", "1.500", "/m/09x0r")
        assert digest == hashes.get(f"{video_id}_500_1500", "")
        assert state == ("done" if digest else "removed")


def test_a_list_chooses_what_is_fetched(tmp_path, site, clip_list):
    folder = tmp_path / "set"
    some = tmp_path / "dogs.csv"
    write_segments(some, clips_of(video_ids(6)[:2]), "today")
    with_all = tmp_path / "set"
    with_all.mkdir()
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.add(clips_of(video_ids(6)), "eval")
    assert download(site, folder, some) == 0
    assert len(files_in(folder)) == 2


def test_a_list_may_be_at_an_address(tmp_path, site, clip_list):
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/{clip_list.name}?x=1"
            assert download(site, tmp_path / "set", url) == 0
        finally:
            server.shutdown()
    assert len(files_in(tmp_path / "set")) == 6
    with Ledger(tmp_path / "set" / "ledger.sqlite") as ledger:
        assert ledger.counts() == {("eval", "done"): 6}


@pytest.mark.parametrize(
    ("options", "subtype", "rate", "n_channels"),
    [
        (("--format", "wav", "--bit-depth", "24"), "PCM_24", RATE, 1),
        (("--format", "opus", "--sample-rate", "16000"), "OPUS", 16_000, 1),
        (("--sample-rate", "16000", "--channels", "2"), "PCM_16", 16_000, 2),
    ],
)
def test_files_are_of_the_kind_that_is_asked_for(tmp_path, site, clip_list, options, subtype, rate, n_channels):
    data(
        "download",
        *options,
        "--max-videos",
        2,
        "--url-template",
        site.url_template,
        *QUICK,
        tmp_path / "set",
        clip_list,
    )
    data("download", "--max-videos", 1, "--url-template", site.url_template, *QUICK, tmp_path / "set")
    found = {(info.subtype, info.samplerate, info.channels) for info in map(soundfile.info, files_in(tmp_path / "set"))}
    assert found == {(subtype, rate, n_channels)}, "the second run keeps to what the first was told"
    with pytest.raises(ConflictError, match="was begun with bit_depth"):
        data("download", "--bit-depth", "32", *QUICK, tmp_path / "set")


def test_a_log_has_a_line_for_each_clip(tmp_path, site, clip_list):
    log = tmp_path / "log.tsv"
    data("download", "--log", log, "--url-template", site.url_template, *QUICK, tmp_path / "set", clip_list)
    assert sorted(line.split("\t")[1:3] for line in log.read_text().splitlines()) == sorted(
        [f"{video_id}_500_1500", "done"] for video_id in video_ids(6)
    )


def test_a_pause_ends_the_command_with_three_and_says_when_to_come_back(tmp_path, site, clip_list, capsys):
    for video_id in video_ids(6):
        site.plan[video_id] = ["429"] * 9
    site_rate = ("--patience", "0")
    code = data("download", *site_rate, "--url-template", site.url_template, *QUICK, tmp_path / "set", clip_list)
    assert code == 3
    assert "Come back after" in capsys.readouterr().err
    assert as_json(capsys, "status", tmp_path / "set")["paused_until"]
    data("retry", tmp_path / "set", "--state", "http_429")
    assert as_json(capsys, "status", tmp_path / "set")["paused_until"] is None


def test_without_a_network_the_command_ends_with_three_and_names_the_way_on(tmp_path, site, clip_list, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}/{{video_id}}.wav"
        options = ("--url-template", nowhere, "--retries", "1", *QUICK, tmp_path / "set")
        assert data("download", *options, clip_list) == 3
        said = capsys.readouterr().err
        assert "6 clips were given up for what may lie with this machine or its network (6 network)" in said
        assert f"audioset data retry {tmp_path / 'set'} --state network" in said
        assert data("download", *options) == 3  # also of a run that finds nothing to ask for
    data("retry", tmp_path / "set", "--state", "network")
    site.plan[video_ids(6)[0]] = ["404"]
    assert download(site, tmp_path / "set") == 0  # a clip that is gone is gone for everybody
    assert "5 done" in capsys.readouterr().err


def test_a_disk_without_space_ends_the_command_with_seven(tmp_path, site, clip_list):
    with pytest.raises(OutputError, match="--min-free") as caught:
        data("download", "--min-free", "1e12", "--url-template", site.url_template, tmp_path / "set", clip_list)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("download", "{set}"), NoInputError, "name a list of them"),
        (("download", "{set}", "nothing.csv"), DataError, "nothing.csv"),
        (("status", "{set}"), NoInputError, "there is no ledger"),
        (("download", "--shard", "3/3", "{set}", "{list}"), UsageError, "expected i/N"),
        (("download", "--url-template", "http://x/", "{set}", "{list}"), UsageError, "video_id"),
        (("download", "--cookies", "no.txt", "{set}", "{list}"), UsageError, "no file of cookies"),
        (("adopt", "{set}", "{list}", "{list}"), None, None),
    ],
)
def test_mistakes_are_explained(tmp_path, clip_list, arguments, error, message):
    filled = [argument.format(set=tmp_path / "set", list=clip_list) for argument in arguments]
    if error is None:
        assert data(*filled) == 0
        return
    with pytest.raises(error, match=message):
        data(*filled)


@pytest.mark.parametrize("rate", ["0", "-1", "4/fortnight", "fast"])
def test_a_rate_that_is_none_is_refused(tmp_path, rate):
    import click

    with pytest.raises(click.BadParameter, match=r"is no rate; expected such as 4/min"):
        data("download", f"--rate={rate}", tmp_path)


def test_sections_need_ffmpeg(tmp_path, monkeypatch, clip_list):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="needs the program ffmpeg"):
        data("download", "--sections", tmp_path / "set", clip_list)


def test_without_yt_dlp_the_extra_is_named(tmp_path, monkeypatch, clip_list):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(MissingExtraError, match=r'pip install "audioset\[data\]"'):
        data("download", tmp_path / "set", clip_list)


def test_options_reach_yt_dlp_and_cookies_are_read_from_a_copy(tmp_path):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tFALSE\t0\tname\tvalue\n")
    before = cookies.read_bytes()
    settings = FetchSettings(cookies=cookies, proxy="http://127.0.0.1:9", player_client=("tv", "web"), limit_rate=1000)
    options = YtDlpFetch(settings)._options()
    assert options["cookiefile"].read() == before.decode()
    assert (options["proxy"], options["ratelimit"]) == ("http://127.0.0.1:9", 1000)
    assert options["extractor_args"] == {"youtube": {"player_client": ["tv", "web"]}}
    assert options["allowed_extractors"] == ["youtube"]
    browser = YtDlpFetch(FetchSettings(cookies_from_browser="firefox:default"))._options()["cookiesfrombrowser"]
    assert browser == ("firefox", "default", None, None)
    assert settings.url("--4gqARaEJE") == "https://www.youtube.com/watch?v=--4gqARaEJE"
    assert cookies.read_bytes() == before


# Audio that is there already


def write(path, video_id, start_s=0.5, end_s=1.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, expected_samples(Key(video_id, round(start_s * 1000), round(end_s * 1000))), RATE)


LAYOUTS = (
    "{id}_500_1500.flac",
    "Y{id}.wav",
    "_Y{id}.wav",
    "{id}_0.5.wav",
    "{id}_0.500-1.500.wav",
    "{id}.flac",
    "id_{id}.wav",
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["link", "copy", "register"])
def test_files_of_other_tools_are_taken_over(tmp_path, clip_list, capsys, layout, how):
    old, folder = tmp_path / "old" / "data" / "eval_segments" / "audio", tmp_path / "set"
    for video_id in video_ids(6):
        write(old / layout.format(id=video_id), video_id)
    assert as_json(capsys, "adopt", "--how", how, folder, tmp_path / "old", clip_list)["n_adopted"] == 6
    check_agreement(folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        assert ledger.counts() == {("eval", "done"): 6}
        paths = [clip.path(folder) for clip in ledger.clips()]
    assert all(path.is_relative_to(old if how == "register" else folder) for path in paths)
    assert {path.stat().st_nlink for path in paths} == ({2} if how == "link" else {1})
    assert len(files_in(tmp_path, "old")) == 6, "nothing is taken away"
    assert as_json(capsys, "adopt", folder, tmp_path / "old")["n_done_before"] == 6


def test_clips_of_a_killed_adoption_are_taken_over(tmp_path, clip_list, capsys):
    ids, folder = video_ids(6), tmp_path / "set"
    for video_id in ids:
        write(tmp_path / "old" / f"Y{video_id}.wav", video_id)
    assert data("adopt", folder, clip_list, clip_list) == 0
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        owner = f"{machine_name()}:{ended.pid}:00000000"
    with Ledger(folder / "ledger.sqlite") as ledger:
        assert ledger.take(Key(ids[0], 500, 1500), owner, 3600.0)
    (folder / PARTIAL_FOLDER / owner.replace(":", "=")).mkdir(parents=True)
    capsys.readouterr()
    assert as_json(capsys, "adopt", folder, tmp_path / "old")["n_adopted"] == 6
    assert not (folder / PARTIAL_FOLDER).exists()


def test_whole_videos_are_cut(tmp_path, clip_list, capsys):
    (tmp_path / "old").mkdir()
    for video_id in video_ids(6):
        (tmp_path / "old" / f"{video_id}.wav").write_bytes(media(video_id))
    found = as_json(capsys, "adopt", tmp_path / "set", tmp_path / "old", clip_list)
    assert (found["n_adopted"], found["n_cut"]) == (6, 6)
    check_agreement(tmp_path / "set")
    assert {path.suffix for path in files_in(tmp_path / "set")} == {".flac"}


def test_files_that_are_not_what_they_say_are_left_alone(tmp_path, clip_list, capsys):
    ids, old = video_ids(6), tmp_path / "old"
    write(old / f"Y{ids[0]}.wav", ids[0], 0.0, 0.3)
    (old / f"Y{ids[1]}.wav").write_bytes(b"<html>")
    (old / f"Y{ids[2]}.wav").write_bytes(b"")
    write(old / "YAAAAAAAAAAA.wav", ids[3])
    write(old / f"{ids[4]}_9000_10000.wav", ids[4])
    write(old / f"Y{ids[5]}.wav", ids[5])
    (old / "notes.txt").write_text("hello")
    found = as_json(capsys, "adopt", tmp_path / "set", old, clip_list)
    assert (found["n_adopted"], found["n_unknown"]) == (1, 3)
    assert sorted(name for name, _ in found["rejected"]) == sorted(f"Y{video_id}.wav" for video_id in ids[:3])
    assert as_json(capsys, "status", tmp_path / "set")["subsets"] == {"eval": {"done": 1, "pending": 5}}


def write_hdf5(path, ids, missing=()):
    with h5py.File(path, "w") as file:
        names = [b"" if video_id in missing else f"Y{video_id}.wav".encode() for video_id in ids]
        waveform = np.zeros((len(ids), 2 * RATE), np.int16)
        for row, video_id in enumerate(ids):
            if video_id not in missing:
                waveform[row, :RATE] = expected_samples(Key(video_id, 500, 1500))
        file.create_dataset("audio_name", data=np.array(names, "S20"))
        file.create_dataset("waveform", data=waveform)
        file.attrs.create("sample_rate", data=RATE, dtype=np.int32)


def test_rows_of_panns_files_are_unpacked_and_those_of_missing_clips_are_not(tmp_path, clip_list, capsys):
    ids = video_ids(6)
    write_hdf5(tmp_path / "eval.h5", ids, missing=ids[2:4])
    found = as_json(capsys, "adopt", tmp_path / "set", tmp_path / "eval.h5", clip_list)
    assert found["n_adopted"] == 4
    assert found["rejected"] == []
    check_agreement(tmp_path / "set")
    assert as_json(capsys, "status", tmp_path / "set")["subsets"] == {"eval": {"done": 4, "pending": 2}}


def test_a_row_of_silence_stands_for_a_missing_clip(tmp_path, clip_list, capsys):
    ids = video_ids(6)
    write_hdf5(tmp_path / "eval.h5", ids)
    with h5py.File(tmp_path / "eval.h5", "r+") as file:
        file["waveform"][1] = 0
    found = as_json(capsys, "adopt", tmp_path / "set", tmp_path / "eval.h5", clip_list)
    assert (found["n_adopted"], found["n_empty"]) == (5, 1)


def test_an_hdf5_file_that_points_at_another_is_refused(tmp_path, clip_list):
    write_hdf5(tmp_path / "real.h5", video_ids(6))
    with h5py.File(tmp_path / "eval.h5", "w") as file:
        file["audio_name"] = h5py.ExternalLink("real.h5", "audio_name")
        file["waveform"] = h5py.ExternalLink("real.h5", "waveform")
    with pytest.raises(DataError, match="points at another file"):
        data("adopt", tmp_path / "set", tmp_path / "eval.h5", clip_list)


# Several machines


def test_merging_by_hand(tmp_path, site, clip_list, capsys):
    for index in range(2):
        folder = tmp_path / f"machine{index}"
        data("download", "--shard", f"{index}/2", "--url-template", site.url_template, *QUICK, folder, clip_list)
    ledgers = [tmp_path / f"machine{index}" / "ledger.sqlite" for index in range(2)]
    found = as_json(capsys, "merge", tmp_path / "whole", *ledgers)
    assert (found["n_new"], found["n_lost"]) == (6, 0)
    assert as_json(capsys, "status", tmp_path / "whole")["subsets"] == {"eval": {"done": 6}}


@pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")
def test_the_job_array_does_the_whole_and_its_ledgers_can_be_merged(tmp_path, site, clip_list, capsys):
    folder, script = tmp_path / "my set", tmp_path / "job.sh"
    options = f"--url-template {site.url_template} --min-free 0 --sleep-requests 0 --quiet"
    data(
        "slurm",
        "--tasks",
        3,
        "--at-once",
        2,
        "--rate",
        "60/s",
        "--options",
        options,
        "--output",
        script,
        folder,
        clip_list,
    )
    text = script.read_text()
    assert "#SBATCH --array=0-2%2" in text
    assert f"#SBATCH --output={folder}/logs/%A-%a.log" in text
    assert "--rate 1800/min" in text
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "audioset").write_text(f'#!/bin/bash\nexec "{sys.executable}" -m audioset "$@"\n')
    (commands / "audioset").chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    for task in range(3):
        subprocess.run(["bash", script], env={**environment, "SLURM_ARRAY_TASK_ID": str(task)}, check=True, timeout=60)
    ledgers = sorted((folder / "ledgers").glob("*.sqlite"))
    assert [path.name for path in ledgers] == ["0.sqlite", "1.sqlite", "2.sqlite"]
    assert as_json(capsys, "merge", folder, *ledgers)["n_new"] == 6
    assert as_json(capsys, "status", folder)["subsets"] == {"eval": {"done": 6}}
    check_agreement(folder)
    assert len(site.requests) == 2 * 6


def test_a_job_array_may_have_more_than_a_hundred_tasks(tmp_path, clip_list, capsys):
    data("slurm", "--tasks", 400, "--at-once", 30, "--sbatch", "--partition=cpu", tmp_path / "set", clip_list)
    text = capsys.readouterr().out
    assert "#SBATCH --array=0-399%30" in text
    assert "#SBATCH --partition=cpu" in text
    assert (tmp_path / "set" / "logs").is_dir(), "SLURM drops the output of jobs whose folder for logs is not there"


def test_more_tasks_at_once_than_there_are_is_refused(tmp_path, clip_list):
    with pytest.raises(UsageError, match="9 of 4 tasks"):
        data("slurm", "--tasks", 4, "--at-once", 9, tmp_path / "set", clip_list)


@pytest.mark.parametrize("mode", ["with-audio", "video-only"])
def test_pictures_come_beside_the_sound(tmp_path, clip_list, mode):
    pictures = film(tmp_path / "film.mp4", 2.0, noise(2 * 48_000, 2)).read_bytes()
    with Site(make=lambda video_id: pictures, content_type="video/mp4") as site:
        data("download", "--video", mode, "--url-template", site.url_template, *QUICK, tmp_path / "set", clip_list)
    with Ledger(tmp_path / "set" / "ledger.sqlite") as ledger:
        clips = list(ledger.clips("done"))
    assert len(clips) == 6
    for clip in clips:
        assert clip.video_file == clip.file.replace("audio/", "video/").replace(".flac", ".mp4")
        with av.open(str(tmp_path / "set" / clip.video_file)) as file:
            assert file.streams.video[0].frames == 25
            assert len(file.streams.audio) == (mode == "with-audio")


def test_help_names_every_command(capsys):
    data("--help")
    text = capsys.readouterr().out
    for name in ("download", "adopt", "status", "retry", "report", "merge", "slurm"):
        assert name in text
