"""The account of a download: one row for each clip, whoever asks, and whatever happens meanwhile."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from audioset.dataset.download.clips import Key, Shard, bucket, names_digest, place, subset_name
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.ledger_merge import merge
from audioset.dataset.download.machine import is_dead, machine_name, new_owner
from audioset.dataset.download.media import MediaFile
from audioset.dataset.lists.segments import Segment
from audioset.errors import ConflictError, DataError, OutputError, UsageError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEASE_S = 100.0


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def ids(n, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices(ALPHABET, k=11)) for _ in range(n)]


def segments(n, start_s=0.0, seed=0):
    return [Segment(video_id, start_s, start_s + 10, ("/m/09x0r",)) for video_id in ids(n, seed)]


def media(file="audio/eval/00/x.flac", **values):
    return replace(MediaFile(file, 10, "ab" * 32, 10.0, 48_000, 2, "FLAC"), **values)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    with Ledger(tmp_path / "ledger.sqlite", clock) as ledger:
        yield ledger


def finish(ledger, clip, owner="a:1:x", **values):
    return ledger.finish(clip.key, owner, media(**values), lambda: None)


def test_clips_are_added_once_and_keep_what_became_of_them(ledger):
    assert ledger.add(segments(5), "eval") == 5
    (clip,) = ledger.claim("a:1:x", LEASE_S)
    assert finish(ledger, clip)
    assert ledger.add(segments(7), "other") == 2
    assert ledger.counts() == {("eval", "done"): 1, ("eval", "pending"): 4, ("other", "pending"): 2}


def test_a_row_comes_back_with_all_that_is_known(ledger, clock):
    ledger.add([Segment("--4gqARaEJE", 0.0, 10.0, ("/m/068hy", "/m/0bt9lr"))], "eval")
    (clip,) = ledger.claim("box-1:1:x", LEASE_S)
    finish(ledger, clip, "box-1:1:x", source_format="251 webm opus")
    (done,) = ledger.clips()
    assert done.label_ids == ("/m/068hy", "/m/0bt9lr")
    assert (done.state, done.attempts, done.due_at, done.owner, done.host) == ("done", 1, None, None, "box-1")
    assert (done.codec, done.sample_rate, done.source_format, done.fetched_at) == (
        "FLAC",
        48_000,
        "251 webm opus",
        clock(),
    )


def test_all_due_clips_of_a_video_are_claimed_together_and_by_nobody_else(ledger):
    ledger.add([Segment("-abcdefghij", start, start + 5, ("/m/09x0r",)) for start in (0.0, 5.0, 10.0)], "eval")
    assert [clip.key.start_ms for clip in ledger.claim("a:1:x", LEASE_S)] == [0, 5_000, 10_000]
    assert ledger.claim("b:1:x", LEASE_S) == []


def test_a_video_that_somebody_is_at_is_left_alone_even_if_another_clip_of_it_is_due(ledger, clock):
    ledger.add([Segment("-abcdefghij", start, start + 5, ("/m/09x0r",)) for start in (0.0, 5.0)], "eval")
    first, second = ledger.claim("a:1:x", LEASE_S)
    ledger.fail(second.key, "a:1:x", "network", "reset", clock() + 1)
    clock.now += 2
    assert ledger.claim("b:1:x", LEASE_S) == []
    finish(ledger, first)
    assert [clip.key for clip in ledger.claim("b:1:x", LEASE_S)] == [second.key]


def test_a_lease_that_runs_out_gives_the_clip_to_the_next_and_the_first_can_do_nothing_more(ledger, clock):
    ledger.add(segments(1), "eval")
    (clip,) = ledger.claim("a:1:x", LEASE_S)
    clock.now += LEASE_S - 1
    assert ledger.claim("b:1:x", LEASE_S) == []
    clock.now += 2
    assert len(ledger.claim("b:1:x", LEASE_S)) == 1
    named = []
    assert not ledger.finish(clip.key, "a:1:x", media(), lambda: named.append("a"))
    assert not ledger.fail(clip.key, "a:1:x", "network", "reset", None)
    assert ledger.finish(clip.key, "b:1:x", media(), lambda: named.append("b"))
    assert named == ["b"]


def test_a_heartbeat_keeps_the_lease(ledger, clock):
    ledger.add(segments(1), "eval")
    ledger.claim("a:1:x", LEASE_S)
    for _ in range(5):
        clock.now += LEASE_S - 1
        ledger.heartbeat("a:1:x", LEASE_S)
    assert ledger.claim("b:1:x", LEASE_S) == []


def test_a_clip_whose_file_cannot_be_named_is_not_done(ledger):
    ledger.add(segments(1), "eval")
    (clip,) = ledger.claim("a:1:x", LEASE_S)

    def put():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        ledger.finish(clip.key, "a:1:x", media(), put)
    assert ledger.counts() == {("eval", "running"): 1}
    ledger.release("a:1:x")
    assert ledger.counts() == {("eval", "pending"): 1}


def test_a_failed_clip_is_due_again_after_its_wait_or_never(ledger, clock):
    ledger.add(segments(2), "eval")
    (one,), (two,) = ledger.claim("a:1:x", LEASE_S), ledger.claim("a:1:x", LEASE_S)
    ledger.fail(one.key, "a:1:x", "network", "reset", clock() + 50)
    ledger.fail(two.key, "a:1:x", "private", "Private video", None)
    assert ledger.next_due() == clock() + 50
    assert ledger.claim("a:1:x", LEASE_S) == []
    clock.now += 51
    (again,) = ledger.claim("a:1:x", LEASE_S)
    assert (again.key, again.attempts, again.reason) == (one.key, 1, "reset")
    finish(ledger, again)
    assert ledger.next_due() is None


def test_retry_makes_final_failures_pending_and_counts_anew(ledger):
    ledger.add(segments(2), "eval")
    for state in ("age", "geo"):
        (clip,) = ledger.claim("a:1:x", LEASE_S)
        ledger.fail(clip.key, "a:1:x", state, state, None)
    assert ledger.retry(["age"], "other") == 0
    assert ledger.retry(["age"]) == 1
    (clip,) = ledger.claim("a:1:x", LEASE_S)
    assert clip.attempts == 0
    assert ledger.counts() == {("eval", "geo"): 1, ("eval", "running"): 1}


def test_turns_are_apart_over_all_processes(tmp_path, clock):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, clock) as one, Ledger(path, clock) as two:
        slots = [ledger.reserve_slot(15.0) - clock() for ledger in (one, two, one, one, two)]
        assert slots == [0, 15, 30, 45, 60]
        clock.now += 500
        assert two.reserve_slot(15.0) == clock()


def test_a_pause_holds_for_all_and_grows_until_something_is_fetched(tmp_path, clock):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, clock) as one, Ledger(path, clock) as two:
        assert one.trip("bot_check", "no", lambda n: 100.0 * n).until == clock() + 100
        assert two.breaker().state == "bot_check"
        assert two.trip("rate_limited", "slow", lambda n: 9_999.0) == one.breaker(), "the first pause holds"
        two.reset_pauses()
        clock.now += 101
        assert one.breaker() is None
        assert two.trip("bot_check", "no", lambda n: 100.0 * n).until == clock() + 200
        clock.now += 201
        one.reset_pauses()
        assert one.trip("bot_check", "no", lambda n: 100.0 * n).until == clock() + 100
        two.close_breaker()
        assert one.breaker() is None


def test_a_choice_of_clips_is_claimed_and_no_other(ledger):
    ledger.add(segments(20), "eval")
    chosen = segments(20)[3:6]
    ledger.choose(chosen)
    claimed = {clip.key.video_id for _ in range(20) for clip in ledger.claim("a:1:x", LEASE_S)}
    assert claimed == {segment.video_id for segment in chosen}


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 200])
def test_shards_are_disjoint_and_complete(tmp_path, n):
    clips = segments(400)
    shards = [Shard(index, n) for index in range(n)]
    parts = [[segment for segment in clips if shard.has(segment.video_id)] for shard in shards]
    assert sorted(itertools.chain(*parts), key=repr) == sorted(clips, key=repr)
    if n == 7:
        with Ledger(tmp_path / "one.sqlite") as ledger:
            assert ledger.add(clips, "eval", shards[3]) == len(parts[3])
        with Ledger(tmp_path / "all.sqlite") as ledger:
            ledger.add(clips, "eval")
            claimed = iter(lambda: ledger.claim("a:1:x", LEASE_S, shards[3]), [])
            assert {clip.key.video_id for group in claimed for clip in group} == {clip.video_id for clip in parts[3]}


def test_a_shard_is_the_same_on_every_machine():
    assert [bucket(video_id) % 40 for video_id in ("--4gqARaEJE", "-0abcdefghi", "zzzzzzzzzzz")] == [19, 3, 8]


@pytest.mark.parametrize("text", ["3", "3/", "4/4", "-1/4", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="expected i/N"):
        Shard.parse(text)


def test_places_do_not_collide_where_case_does_not_count():
    names = [place(Key(video_id, 0, 10_000), "eval", ".flac") for video_id in ids(20_000)]
    assert len({name.lower() for name in names}) == len(names)
    assert len({str(Path(name).parent) for name in names}) == 256


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        ("eval_segments.csv", "eval"),
        ("/data/balanced_train_segments.csv.07", "balanced_train"),
        ("dogs.csv", "dogs"),
        ("unbalanced_train_segments.csv", "unbalanced_train"),
    ],
)
def test_a_subset_is_named_after_its_list(name, subset):
    assert subset_name(name) == subset


def test_names_digest_depends_on_the_set_alone():
    assert names_digest(["b", "a"]) == names_digest(["a", "b"]) != names_digest(["ab"])


def _claim_all(path, owner, results):
    with Ledger(Path(path)) as ledger:
        while clips := ledger.claim(owner, 60.0):
            for clip in clips:
                assert ledger.finish(clip.key, owner, media(), lambda: None)
                results.put(clip.key.name)


def test_three_processes_at_once_do_every_clip_exactly_once(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add([*segments(60), *segments(60, 10.0)], "eval")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_claim_all, args=(str(path), f"a:{n}:x", results)) for n in range(3)]
    for worker in workers:
        worker.start()
    names = [results.get(timeout=60) for _ in range(120)]
    for worker in workers:
        worker.join()
    with Ledger(path) as ledger:
        assert sorted(names) == sorted(clip.key.name for clip in ledger.clips("done"))
        assert len(ledger.history()) == 120


def test_threads_may_share_a_ledger(ledger):
    ledger.add(segments(40), "eval")
    names = []

    def work():
        while clips := ledger.claim(f"a:{threading.get_ident()}:x", LEASE_S):
            names.extend(clip.key.name for clip in clips)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == len(set(names)) == 40


def test_rows_come_in_order_and_all_of_them(ledger, monkeypatch):
    monkeypatch.setattr("audioset.dataset.download.ledger.ROWS_AT_ONCE", 7)
    ledger.add(segments(50), "eval")
    names = [clip.key for clip in ledger.clips()]
    assert names == sorted(names)
    assert len(names) == 50


# Files that are no ledgers


def test_a_newer_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(ConflictError, match="has version 2; expected 1"):
        Ledger(path)


def test_another_database_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE cats (name)")
    database.close()
    with pytest.raises(DataError, match="belongs to another program"):
        Ledger(path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"YTID, start_seconds\n" * 100)
    with pytest.raises(DataError, match="cannot be read as a ledger"):
        Ledger(path)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        Ledger(tmp_path / "nowhere" / "ledger.sqlite")


def test_the_ledger_keeps_a_rollback_journal(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.add(segments(3), "eval")
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]


# Owners


def test_a_process_of_this_machine_that_has_ended_is_dead_and_others_are_not():
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert is_dead(f"{machine_name()}:{int(process.stdout)}:x")
    assert not is_dead(new_owner())
    assert not is_dead(f"elsewhere:{int(process.stdout)}:x")
    assert not is_dead("nonsense")


# Merging


def ledger_with(folder, name, rows, files=True):
    """A ledger in which clip ``i`` of ``segments(n)`` became ``rows[i]``."""
    folder.mkdir(exist_ok=True)
    with Ledger(folder / name) as ledger:
        ledger.add(segments(len(rows)), "eval")
        while clips := ledger.claim("a:1:x", LEASE_S):
            (clip,) = clips
            state = rows[[segment.video_id for segment in segments(len(rows))].index(clip.key.video_id)]
            if state == "done":
                file = place(clip.key, "eval", ".flac")
                if files:
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    (folder / file).write_bytes(b"0123456789")
                finish(ledger, clip, file=file)
            elif state == "network":
                ledger.fail(clip.key, "a:1:x", state, "reset", 4e9)
            elif state == "private":
                ledger.fail(clip.key, "a:1:x", state, "Private video", None)
        ledger.release("a:1:x")
    return folder / name


def states(path):
    with Ledger(path) as ledger:
        found = {clip.key.video_id: clip.state for clip in ledger.clips()}
    return [found[segment.video_id] for segment in segments(len(found))]


def test_merging_takes_done_then_final_then_failed_whatever_the_order(tmp_path):
    rows = (
        ["done", "network", "pending", "private", "network"],
        ["private", "private", "network", "pending", "done"],
        ["pending", "pending", "pending", "pending", "private"],
    )
    wanted = ["done", "private", "network", "private", "done"]
    paths = [ledger_with(tmp_path / f"machine{n}", "ledger.sqlite", rows[n]) for n in range(3)]
    for order in itertools.permutations(range(3)):
        folder = tmp_path / "".join(map(str, order))
        folder.mkdir()
        with Ledger(folder / "ledger.sqlite") as target:
            result = merge(target, folder, [paths[n] for n in order])
            again = merge(target, folder, paths)
        assert states(folder / "ledger.sqlite") == wanted
        assert result.n_new == 5
        assert (again.n_new, again.n_changed) == (0, 0)


def test_merging_a_done_row_whose_file_is_nowhere_makes_it_pending(tmp_path):
    other = ledger_with(tmp_path / "other", "ledger.sqlite", ["done", "private"], files=False)
    with Ledger(tmp_path / "ledger.sqlite") as target:
        result = merge(target, tmp_path, [other])
    assert result.n_lost == 1
    assert states(tmp_path / "ledger.sqlite") == ["pending", "private"]


def test_a_file_beside_the_other_ledger_is_found_there(tmp_path):
    other = ledger_with(tmp_path / "other", "ledger.sqlite", ["done"])
    with Ledger(tmp_path / "ledger.sqlite") as target:
        merge(target, tmp_path, [other])
        (clip,) = target.clips("done")
        assert clip.path(tmp_path).is_file()
        assert clip.path(tmp_path).is_relative_to(tmp_path / "other")
