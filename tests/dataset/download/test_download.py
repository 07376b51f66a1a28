"""The downloader against a site that fails in every way: no wrong file, no clip lost, none fetched twice."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter

import pytest
from download_server import FAULTS, Site
from downloads import (
    SaysNo,
    check_agreement,
    check_all_done,
    clips_of,
    download,
    download_in_process,
    downloader,
    files_in,
    video_ids,
)
from site_texts import RECORDED

from audioset.dataset.download.clips import Shard
from audioset.dataset.download.cutter import Cutter
from audioset.dataset.download.download import PARTIAL_FOLDER
from audioset.dataset.download.failures import BY_STATE, Action
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.ledger_merge import merge
from audioset.errors import OutputError

pytest.importorskip("yt_dlp", reason="needs the extra data")
# yt-dlp leaves connections that it does not need any more to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# What a fault of the site looks like from here.
SEEN_AS = {
    "403": "http_403",
    "404": "removed",
    "429": "http_429",
    "500": "network",
    "503": "network",
    "html": "extractor",
    "loop": "network",
    "silent": "network",
    "cut": "network",
    "cut-quietly": "invalid",
    "stall": "network",
    "noise": "invalid",
    "empty": "network",
    "data-403": "http_403",
    "data-503": "network",
    "short": "invalid",
}
PASSING = [fault for fault in FAULTS if fault not in ("404", "stall")]
N_STORM = 460
SCALE = 1e-3


@pytest.fixture
def site():
    with Site() as site:
        yield site


def states(folder):
    with Ledger(folder / "ledger.sqlite") as ledger:
        return Counter(state for (_, state), n in ledger.counts().items() for _ in range(n))


def history(folder):
    with Ledger(folder / "ledger.sqlite") as ledger:
        return [(key, state) for _, key, state, _, _ in ledger.history()]


def test_a_clip_is_the_right_second_of_its_video_to_the_sample(tmp_path, site):
    outcome = download(tmp_path, site, clips_of(video_ids(6)), n_workers=2)
    assert (outcome.n_done, outcome.n_failed, outcome.reason) == (6, 0, "")
    check_all_done(tmp_path, 6)


def test_clips_that_share_a_video_share_its_fetch(tmp_path, site):
    ids = video_ids(2)
    download(tmp_path, site, [*clips_of(ids), *clips_of(ids, 0.0, 1.0), *clips_of(ids, 1.0, 2.0)])
    check_all_done(tmp_path, 6)
    assert [site.n_requests(video_id, part) for video_id in ids for part in ("probe", "data")] == [1] * 4


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_recognised_and_overcome(tmp_path, site, fault):
    (video_id,) = video_ids(1)
    site.plan[video_id] = [fault]
    download(tmp_path, site, clips_of([video_id]), asking={"socket_timeout_s": 0.5 if fault == "stall" else 2.0})
    assert history(tmp_path)[0][1] == SEEN_AS[fault]
    if BY_STATE[SEEN_AS[fault]].policy.action is Action.NEVER:
        assert files_in(tmp_path) == []
    else:
        assert len(history(tmp_path)) == 2
        check_all_done(tmp_path, 1)


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path, site):
    (video_id,) = video_ids(1)
    site.plan[video_id] = ["cut"]
    download(tmp_path, site, clips_of([video_id]), asking={"n_retries": 3})
    check_all_done(tmp_path, 1)
    assert site.n_requests(video_id, "range") == 1
    assert len(history(tmp_path)) == 1


@pytest.mark.parametrize("seed", range(2))
def test_a_storm_of_faults_loses_nothing_and_fetches_nothing_twice(tmp_path, site, seed):
    rng = random.Random(seed)
    ids = video_ids(60, seed)
    for _ in range(N_STORM // 2):
        site.plan[rng.choice(ids)].append(rng.choice(PASSING))
    plan = {video_id: list(faults) for video_id, faults in site.plan.items()}
    download(tmp_path, site, clips_of(ids), n_workers=4, seed=seed)
    check_all_done(tmp_path, len(ids))
    seen = history(tmp_path)
    for video_id in ids:
        # One entry for each fault, in the order of the plan, and one for the success.
        faults = [SEEN_AS[fault] for fault in plan.get(video_id, [])]
        assert [state for key, state in seen if key.video_id == video_id] == [*faults, "done"]
        asked = [part for _, asked_id, part in site.requests if asked_id == video_id]
        assert asked.count("probe") == len(faults) + 1


@pytest.mark.parametrize("state", [state for state in RECORDED if state != "disk"])
def test_what_youtube_says_becomes_the_state_of_the_clip(tmp_path, state):
    text = RECORDED[state][0]
    fetch = SaysNo(*[text] * 9)
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(1)), patience_s=0.0, wait_scale=1.0, n_attempts=None)
    with run.ledger:
        run.run()
        (clip,) = run.ledger.clips()
    policy = BY_STATE[state].policy
    assert clip.state == state
    assert (clip.due_at is None) == (policy.action is Action.NEVER)
    if policy.action is Action.LATER:
        assert 0.5 * policy.wait_s - 5 <= clip.due_at - time.time() <= 1.5 * policy.wait_s


def test_a_failure_that_may_pass_is_final_after_so_many_attempts(tmp_path):
    fetch = SaysNo(*["Read timed out"] * 99)
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(1)), n_attempts=4)
    with run.ledger:
        run.run()
        (clip,) = run.ledger.clips()
    assert (clip.state, clip.attempts, clip.due_at, len(fetch.asked)) == ("network", 4, None, 4)


def test_waits_grow_and_depend_on_the_seed_alone(tmp_path):
    waits = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"{len(waits)}"
        folder.mkdir()
        fetch = SaysNo(*["Read timed out"] * 99)
        run = downloader(
            folder, lambda fetch=fetch: fetch, clips_of(video_ids(1)), n_attempts=5, seed=seed, wait_scale=SCALE
        )
        due = []
        fail = run.ledger.fail

        def note(key, owner, state, reason, due_at, due=due, fail=fail):
            due.append(due_at and (due_at - time.time()) / SCALE)
            return fail(key, owner, state, reason, due_at)

        run.ledger.fail = note
        with run.ledger:
            run.run()
        waits.append(due[:-1])
    assert waits[0] == pytest.approx(waits[1], abs=5.0)
    assert waits[0] != pytest.approx(waits[2], abs=5.0)
    for n, wait_s in enumerate(waits[0]):
        assert 30 * 2**n * 0.5 - 5 <= wait_s <= 30 * 2**n * 1.5


# What stops everything


@pytest.mark.parametrize("state", ["bot_check", "rate_limited"])
def test_a_bot_check_stops_all_workers_and_says_when_to_come_back(tmp_path, state):
    fetch = SaysNo(*[RECORDED[state][0]] * 99)
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(40)), n_workers=3, wait_scale=1.0)
    with run.ledger:
        outcome = run.run()
        breaker = run.ledger.breaker()
    assert len(fetch.asked) <= 3
    assert BY_STATE[state].meaning in outcome.reason
    assert outcome.next_at == breaker.until
    assert breaker.until - time.time() == pytest.approx(BY_STATE[state].policy.wait_s, abs=60)
    found = states(tmp_path)
    assert found[state] == len(fetch.asked)
    assert found["pending"] == 40 - len(fetch.asked)


def test_nobody_asks_while_the_pause_of_another_process_lasts(tmp_path):
    fetch = SaysNo()
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(4)))
    with run.ledger:
        run.ledger.trip("bot_check", "no", lambda trips: 5_000.0)
        outcome = run.run()
    assert fetch.asked == []
    assert outcome.next_at > time.time() + 4_000
    assert states(tmp_path) == {"pending": 4}


def test_many_suspicious_failures_in_a_row_stop_the_run(tmp_path):
    fetch = SaysNo(*["Unable to extract yt initial data"] * 99)
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(40)), same_failures=7, wait_scale=1.0)
    with run.ledger:
        outcome = run.run()
    assert len(fetch.asked) == 7
    assert "7 failures in a row" in outcome.reason


def test_videos_that_are_gone_do_not_look_suspicious(tmp_path):
    fetch = SaysNo(*["Private video"] * 30)
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(30)), same_failures=7)
    with run.ledger:
        assert run.run().reason == ""
    assert states(tmp_path) == {"private": 30}


@pytest.mark.parametrize("text", RECORDED["disk"])
def test_a_full_disk_stops_the_run_and_leaves_clips_pending(tmp_path, text):
    fetch = SaysNo(*[text] * 99)
    run = downloader(tmp_path, lambda: fetch, clips_of(video_ids(5)), n_workers=2)
    with run.ledger:
        outcome = run.run()
    assert isinstance(outcome.error, OutputError)
    assert outcome.error.exit_code == 7
    assert states(tmp_path) == {"pending": 5}
    assert not (tmp_path / PARTIAL_FOLDER).exists()


def test_a_disk_that_fills_while_a_clip_is_written_leaves_nothing(tmp_path, site, monkeypatch):
    def cut(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cutter, "cut", cut)
    outcome = download(tmp_path, site, clips_of(video_ids(3)))
    assert "No space left on device" in str(outcome.error)
    assert states(tmp_path) == {"pending": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.sqlite"]


def test_too_little_space_stops_before_anything_is_asked(tmp_path, site):
    outcome = download(tmp_path, site, clips_of(video_ids(3)), min_free_bytes=2**60)
    assert "--min-free" in str(outcome.error)
    assert site.requests == []
    assert states(tmp_path) == {"pending": 3}


def test_turns_are_kept_by_all_workers(tmp_path, site):
    started = time.time()
    download(tmp_path, site, clips_of(video_ids(5)), n_workers=3, interval_s=0.3)
    probes = sorted(at for at, _, part in site.requests if part == "probe")
    assert time.time() - started >= 4 * 0.3
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(probes))


def test_a_run_stops_after_so_many_videos(tmp_path, site):
    download(tmp_path, site, clips_of(video_ids(9)), max_videos=4)
    assert states(tmp_path) == {"done": 4, "pending": 5}


# Ledger and disk


def test_a_file_that_is_gone_is_fetched_again(tmp_path, site):
    download(tmp_path, site, clips_of(video_ids(4)))
    gone = files_in(tmp_path)[1]
    gone.unlink()
    download(tmp_path, site)
    check_agreement(tmp_path)
    assert Counter(video_id for _, video_id, part in site.requests if part == "data")[gone.stem[:11]] == 2
    assert len(site.requests) == 2 * 5


def test_a_file_that_the_ledger_does_not_know_of_is_not_fetched_again(tmp_path, site):
    download(tmp_path, site, clips_of(video_ids(4)))
    (tmp_path / "ledger.sqlite").unlink()
    outcome = download(tmp_path, site, clips_of(video_ids(4)))
    assert outcome.n_done == 4
    assert len(site.requests) == 2 * 4
    check_all_done(tmp_path, 4)


@pytest.mark.parametrize("damage", [b"", b"<html>", b"cut"])
def test_a_damaged_file_that_the_ledger_does_not_know_of_is_replaced(tmp_path, site, damage):
    download(tmp_path, site, clips_of(video_ids(2)))
    path = files_in(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:1000] if damage == b"cut" else damage)
    (tmp_path / "ledger.sqlite").unlink()
    download(tmp_path, site, clips_of(video_ids(2)))
    check_all_done(tmp_path, 2)
    assert len(site.requests) == 2 * 3


# Processes


def forked():
    """Processes that start at once: forked from one that has imported everything."""
    if sys.platform == "win32":
        pytest.skip("no processes that fork on Windows")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["downloads", "yt_dlp", "yt_dlp.extractor.generic", "audioset.dataset.download.serving"]
    )
    return context


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_is_killed_at_any_moment_is_completed_by_the_next(tmp_path, site, seed):
    context, rng = forked(), random.Random(seed)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(clips_of(video_ids(30, seed)), "eval")
    arguments = (str(tmp_path), site.url_template, {"n_workers": 2})
    for _ in range(5):
        process = context.Process(target=download_in_process, args=arguments)
        process.start()
        process.join(rng.uniform(0.1, 1.2))
        process.kill()
        process.join()
        check_agreement(tmp_path)
    download(tmp_path, site, n_workers=2)
    check_all_done(tmp_path, 30)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        done_at = {key.video_id: at for at, key, state, _, _ in ledger.history() if state == "done"}
    assert all(at <= done_at[video_id] for at, video_id, _ in site.requests), "nothing is asked for once it is done"


def test_two_processes_at_once_share_the_work(tmp_path, site):
    context = forked()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(clips_of(video_ids(24)), "eval")
    arguments = (str(tmp_path), site.url_template, {"n_workers": 2})
    processes = [context.Process(target=download_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    check_all_done(tmp_path, 24)
    assert set(Counter((video_id, part) for _, video_id, part in site.requests).values()) == {1}


def test_two_machines_with_a_shard_each_make_the_whole_after_a_merge(tmp_path, site):
    context = forked()
    folders = [tmp_path / f"machine{index}" for index in range(2)]
    processes = []
    for index, folder in enumerate(folders):
        folder.mkdir()
        shard = Shard(index, 2)
        with Ledger(folder / "ledger.sqlite") as ledger:
            ledger.add(clips_of(video_ids(20)), "eval", shard)
        processes.append(
            context.Process(target=download_in_process, args=(str(folder), site.url_template, {"shard": shard}))
        )
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    whole = tmp_path / "whole"
    for folder in folders:
        shutil.copytree(folder / "audio", whole / "audio", dirs_exist_ok=True)
    with Ledger(whole / "ledger.sqlite") as ledger:
        ledger.add(clips_of(video_ids(20)), "eval")
        merge(ledger, whole, [folder / "ledger.sqlite" for folder in folders])
        assert ledger.counts() == {("eval", "done"): 20}
    check_agreement(whole)
    assert set(Counter((video_id, part) for _, video_id, part in site.requests).values()) == {1}


def test_half_written_files_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path, site):
    partial = tmp_path / PARTIAL_FOLDER
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    dead = downloader(tmp_path, lambda: SaysNo()).owner.replace(str(os.getpid()), str(process.pid)).replace(":", "=")
    for name in (dead, "elsewhere-1=77=x"):
        (partial / name).mkdir(parents=True)
    download(tmp_path, site, clips_of(video_ids(1)))
    assert [path.name for path in partial.iterdir()] == ["elsewhere-1=77=x"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_leaves_clips_pending_and_no_scraps(tmp_path, site, number):
    import subprocess

    ids = video_ids(3)
    for video_id in ids:
        site.plan[video_id] = ["stall"]
    site.stall_s = 30.0
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(clips_of(ids), "eval")
    command = [
        sys.executable,
        "-m",
        "audioset",
        "data",
        "download",
        "--url-template",
        site.url_template,
        "--rate",
        "none",
    ]
    process = subprocess.Popen([*command, "--min-free", "0", "--", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while not any(part == "data" for _, _, part in site.requests):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 128 + number, errors
    assert "stopped" in errors
    assert states(tmp_path) == {"pending": 3}
    assert not (tmp_path / PARTIAL_FOLDER).exists()
