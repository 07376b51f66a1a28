"""Search: exactness, moments that do not overlap, and an index that survives what happens to it."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import noise, wav_bytes

from audioset import Model
from audioset.errors import (
    AudioError,
    ConflictError,
    DataError,
    MissingExtraError,
    NoInputError,
    OutputError,
    UsageError,
)
from audioset.files import locked_folder
from audioset.search import build, dots, exact
from audioset.search.accepted import append_moments, parse_numbers
from audioset.search.approximate import ApproximateSearch, build_graph
from audioset.search.build import build_index
from audioset.search.exact import ExactSearch, widen
from audioset.search.example import combine_examples, embed_example
from audioset.search.found import write_found
from audioset.search.index import Index
from audioset.search.manifest import Manifest, Settings, read_manifest
from audioset.search.moments import Choice, Moment, Span
from audioset.search.shards import Recording, Shard, read_shard, to_units, write_shard

pytest.importorskip("pyarrow")
RATE = 16_000
ROUNDING = 1e-5


def sound(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes(noise(int(seconds * RATE), seed=seed)))
    return path


def units_of(rng: np.random.Generator, n: int, size: int, kind: str = "gauss") -> np.ndarray:
    """Vectors as models make them: of any sign, or never below zero with most of it in a few numbers, or all alike."""
    vectors = rng.standard_normal((n, size))
    if kind == "relu":
        vectors = np.maximum(vectors, 0) ** 4
    if kind == "alike":
        vectors = 1 + 1e-3 * vectors
    return to_units(vectors.astype(np.float32))[0]


def oracle(units: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return (units.astype(np.float64) @ queries.T.astype(np.float64)).max(axis=1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    size=st.sampled_from([1, 3, 128, 384, 1024]),
    kind=st.sampled_from(["gauss", "relu", "alike"]),
    n_queries=st.integers(1, 3),
    n_wanted=st.integers(1, 400),
)
def test_the_nearest_are_those_of_a_naive_search(
    seed: int, n: int, size: int, kind: str, n_queries: int, n_wanted: int
) -> None:
    rng = np.random.default_rng(seed)
    units = units_of(rng, n, size, kind)
    queries = units_of(rng, n_queries, size, kind).astype(np.float32)
    rows, similarities = ExactSearch(units).scan(queries).nearest(n_wanted)
    expected = oracle(units, queries)
    assert len(set(rows.tolist())) == len(rows) == min(n, n_wanted)
    np.testing.assert_allclose(similarities, expected[rows], atol=ROUNDING)
    np.testing.assert_allclose(similarities, np.sort(expected)[::-1][: len(rows)], atol=ROUNDING)


@pytest.mark.parametrize("kind", ["gauss", "relu", "alike"])
def test_bounds_of_the_scan_hold_the_similarity(kind: str) -> None:
    rng = np.random.default_rng(1)
    units, queries = units_of(rng, 5_000, 256, kind), units_of(rng, 2, 256, kind).astype(np.float32)
    scan = ExactSearch(units).scan(queries)
    expected = oracle(units, queries)
    assert (scan.lower <= expected).all()
    assert (scan.upper >= expected).all()
    assert (scan.upper - scan.lower).max() < 0.1


def test_planted_neighbours_are_found_among_many() -> None:
    rng = np.random.default_rng(2)
    units = units_of(rng, 100_000, 64)
    planted = rng.choice(len(units), 50, replace=False)
    noisy = units[planted].astype(np.float32) + 0.05 * rng.standard_normal((50, 64)).astype(np.float32)
    search = ExactSearch(units)
    assert [search.scan(query[np.newaxis]).nearest(1)[0][0] for query in to_units(noisy)[0].astype(np.float32)] == list(
        planted
    )


def test_equal_vectors_come_in_the_order_of_their_rows() -> None:
    units = np.repeat(units_of(np.random.default_rng(3), 1, 16), 5_000, axis=0)
    rows, _ = ExactSearch(units).scan(units[:1].astype(np.float32)).nearest(3_000)
    assert rows.tolist() == list(range(3_000))


def test_every_finite_half_is_widened_as_it_should() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    np.testing.assert_array_equal(widen(halves).view(np.uint32), halves.astype(np.float32).view(np.uint32))


def test_a_vector_of_zeros_is_like_nothing() -> None:
    units = np.concatenate([np.zeros((1, 8), np.float16), units_of(np.random.default_rng(4), 1, 8)])
    rows, similarities = ExactSearch(units).scan(units[1:].astype(np.float32)).nearest(2)
    assert rows.tolist() == [1, 0]
    assert similarities[1] == 0


@pytest.mark.parametrize("size", [5, 1_024, 2_048])
def test_both_ways_to_multiply_bytes_are_exact(size: int) -> None:
    rng = np.random.default_rng(5)
    rows, vectors = (rng.integers(-127, 128, (n, size)).astype(np.int8) for n in (1_300, 4))
    rows[0], vectors[0] = 127, 127
    expected = rows.astype(np.int64) @ vectors.T.astype(np.int64)
    np.testing.assert_array_equal(dots._blas_dots(vectors)(rows), expected)
    np.testing.assert_array_equal(dots.make_dots(vectors)(rows), expected)


def test_without_numkong_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    units, query = units_of(rng, 3_000, 96), units_of(rng, 1, 96).astype(np.float32)
    with_it = ExactSearch(units).scan(query).nearest(10)
    monkeypatch.setitem(__import__("sys").modules, "numkong", None)
    assert dots._numkong_dots(np.ones((1, 4), np.int8)) is None
    for before, after in zip(with_it, ExactSearch(units).scan(query).nearest(10), strict=True):
        np.testing.assert_array_equal(before, after)


def test_most_vectors_are_never_computed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    units, query = units_of(rng, 50_000, 128), units_of(rng, 1, 128).astype(np.float32)
    scan = ExactSearch(units).scan(query)
    least = np.sort(scan.lower)[-20]
    assert (scan.upper >= least).sum() < 500
    assert exact._is_settled(np.array([0.9, 0.8], np.float32), 2, 0.7)
    assert not exact._is_settled(np.array([0.9, 0.8], np.float32), 2, 0.85)


def test_the_graph_finds_planted_neighbours(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    rng = np.random.default_rng(8)
    units = units_of(rng, 3_000, 64, "relu")
    build_graph(tmp_path / "graph", [units[:1_000], units[1_000:]], 64)
    search = ApproximateSearch.open(tmp_path / "graph", 3_000, 64)
    planted = rng.choice(3_000, 100, replace=False)
    noisy = to_units(units[planted].astype(np.float32) + 0.01 * rng.random((100, 64), np.float32))[0]
    found = [search.scan(query[np.newaxis].astype(np.float32)).nearest(1)[0][0] for query in noisy]
    assert np.mean(found == planted) >= 0.99
    with pytest.raises(DataError, match="has 3,000 vectors of 64; expected 2,999 of 64"):
        ApproximateSearch.open(tmp_path / "graph", 2_999, 64)
    (tmp_path / "graph").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"graph is damaged: .* it is made again"):
        ApproximateSearch.open(tmp_path / "graph", 3_000, 64)


def test_without_usearch_the_graph_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(MissingExtraError, match=r'approximate search needs .* pip install "audioset\[search\]"'):
        build_graph(tmp_path / "graph", [], 8)


def test_the_best_of_overlapping_patches_stands_for_all() -> None:
    moments = [Moment("a", 0.48 * i, 0.48 * i + 0.96, similarity) for i, similarity in enumerate([0.7, 0.9, 0.8, 0.6])]
    choice = Choice()
    choice.offer(sorted(moments, key=lambda moment: -moment.similarity))
    assert [moment.similarity for moment in choice.moments] == [0.9, 0.6]


def test_excluded_stretches_and_full_recordings_are_left_out() -> None:
    choice = Choice(per_file=1, exclude=[Span("a", 0, 2)])
    choice.offer([Moment("a", 1.5, 2.5, 0.9), Moment("b", 0, 1, 0.8), Moment("b", 5, 6, 0.7), Moment("a", 2, 3, 0.6)])
    assert [(moment.path, moment.start_s) for moment in choice.moments] == [("b", 0), ("a", 2)]


def make_index(folder: Path, units: np.ndarray, n_of_path: int, hop_s: float = 0.48) -> None:
    """An index of recordings with so many moments each."""
    recordings = [Recording(f"/r/{i}.wav", 1, 1, n_of_path) for i in range(len(units) // n_of_path)]
    starts = np.tile(np.arange(n_of_path) * hop_s, len(recordings))
    norms = np.ones(len(units), np.float32)
    folder.mkdir(exist_ok=True)
    write_shard(folder / "embeddings-1.parquet", Shard(recordings, starts, starts + 0.96, units, norms))
    Manifest(Settings(), "digest", units.shape[1], {"embeddings-1.parquet": len(units)}).write(folder)


@pytest.mark.parametrize("per_file", [None, 1, 2])
def test_a_search_asks_for_more_until_there_are_enough_moments(tmp_path: Path, per_file: int | None) -> None:
    """One recording has all the nearest: as many of the others must come."""
    rng = np.random.default_rng(9)
    units = units_of(rng, 2_000, 32)
    units[:500] = to_units(units[:1].astype(np.float32) + 0.01 * rng.standard_normal((500, 32)).astype(np.float32))[0]
    make_index(tmp_path, units, 500)
    index = Index.open(tmp_path)
    moments = index.search(units[0].astype(np.float32), 4, per_file=per_file, exclude=[Span("/r/0.wav", 0, 300)])
    assert len(moments) == (3 if per_file == 1 else 4)
    assert all(moment.path != "/r/0.wav" for moment in moments)
    assert [moment.similarity for moment in moments] == sorted((one.similarity for one in moments), reverse=True)
    assert index.search(units[0].astype(np.float32), 4, min_similarity=0.9, exclude=[Span("/r/0.wav", 0, 300)]) == []


def test_of_several_examples_a_moment_is_as_similar_as_with_the_nearest(tmp_path: Path) -> None:
    units = units_of(np.random.default_rng(10), 100, 32)
    make_index(tmp_path, units, 1)
    moments = Index.open(tmp_path).search(units[[7, 70]].astype(np.float32) * 5, 2)
    assert {moment.path for moment in moments} == {"/r/7.wav", "/r/70.wav"}
    assert moments[0].similarity == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (np.ones(31), "expected embeddings of 32 numbers"),
        (np.zeros(32), "it is like nothing. Likely cause: a silent example"),
        (np.full(32, np.nan), "zero or not finite"),
        (np.ones((0, 32)), "expected embeddings of 32 numbers"),
        (np.ones((1, 1, 32)), "expected embeddings of 32 numbers"),
    ],
)
def test_an_example_that_cannot_be_compared_is_refused(tmp_path: Path, embedding: Any, message: str) -> None:
    make_index(tmp_path, units_of(np.random.default_rng(11), 4, 32), 1)
    with pytest.raises(UsageError, match=message):
        Index.open(tmp_path).search(embedding)


@pytest.mark.parametrize("name", ["n", "per_file"])
def test_numbers_below_one_are_refused(tmp_path: Path, name: str) -> None:
    make_index(tmp_path, units_of(np.random.default_rng(11), 4, 32), 1)
    with pytest.raises(UsageError, match=f"{name} is 0; expected 1 or more"):
        Index.open(tmp_path).search(np.ones(32), **{name: 0})


def test_the_graph_of_an_index_is_made_anew_when_the_index_changes(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    units = units_of(np.random.default_rng(12), 400, 32)
    make_index(tmp_path, units, 4)
    exact_ones = Index.open(tmp_path).search(units[5].astype(np.float32), 5)
    made: list[int] = []
    for _ in range(2):
        moments = Index.open(tmp_path, approximate=True, watch=made.append).search(units[5].astype(np.float32), 5)
        assert [replace(one, similarity=0) for one in moments] == [replace(one, similarity=0) for one in exact_ones]
    assert made == [400]
    graphs = list(tmp_path.glob("graph-*.usearch"))
    make_index(tmp_path, units[:200], 4)
    assert len(Index.open(tmp_path, approximate=True)) == 200
    assert len(list(tmp_path.glob("graph-*.usearch"))) == 1
    assert list(tmp_path.glob("graph-*.usearch")) != graphs


@pytest.mark.parametrize("damage", ["bytes", "cut", "no checksum"])
def test_a_damaged_graph_is_made_anew_before_native_code_maps_it(tmp_path: Path, damage: str) -> None:
    pytest.importorskip("usearch")
    units = units_of(np.random.default_rng(12), 400, 32)
    make_index(tmp_path, units, 4)
    expected = Index.open(tmp_path, approximate=True).search(units[5].astype(np.float32), 5)
    (graph,) = tmp_path.glob("graph-*.usearch")
    content = graph.read_bytes()
    if damage == "no checksum":
        graph.with_name(f"{graph.name}.crc32c").unlink()
    else:
        graph.write_bytes(content[:-100] if damage == "cut" else content[:1_000] + b"\xff" * 50 + content[1_050:])
    made: list[int] = []
    assert Index.open(tmp_path, approximate=True, watch=made.append).search(units[5].astype(np.float32), 5) == expected
    assert made == [400]


def test_units_keep_directions_of_any_length() -> None:
    embeddings = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0]], np.float32)
    units, norms = to_units(embeddings)
    np.testing.assert_allclose(units, [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-3)
    np.testing.assert_allclose(norms, [5e30, 5e-30, 0], rtol=1e-6)


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_file_of_embeddings_is_named(tmp_path: Path, damage: str) -> None:
    make_index(tmp_path, units_of(np.random.default_rng(13), 40, 32), 4)
    path = tmp_path / "embeddings-1.parquet"
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    if damage == "other":
        write_shard(path, Shard([], np.zeros(0), np.zeros(0), np.zeros((0, 32), np.float16)))
    with pytest.raises(DataError, match=r"embeddings-1\.parquet is (missing|damaged).* index the recordings again"):
        Index.open(tmp_path)


def test_recordings_with_like_names_get_label_files_of_their_own(tmp_path: Path) -> None:
    moments = [Moment(path, 0.0, 1.0, 0.5) for path in ("/x/a_b/c.wav", "/x/a/b_c.wav", "/x/a/b_c")]
    write_found(moments, str(tmp_path), "audacity")
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"a_b/c.wav.txt", "a/b_c.wav.txt", "a/b_c.txt"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"format": 2}', "has format 2; this version reads 1")],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError, match=rf"index\.json {message}"):
        Index.open(tmp_path)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not an index: index.json cannot be read .* audioset index"):
        Index.open(tmp_path)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number, seconds in enumerate((2.0, 3.3, 0.4)):
        sound(folder / f"{number}.wav", seconds, number)
    return folder


def paths_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


def contents(folder: Path) -> dict[tuple[str, float], np.ndarray]:
    """Every moment's embedding by its recording and start."""
    manifest = read_manifest(folder)
    moments = {}
    for name, n_moments in manifest.shards.items():
        shard = read_shard(folder / name, manifest.embedding_size, n_moments)
        owners = [one.path for one in shard.recordings for _ in range(one.n_moments)]
        moments |= {(path, start): unit for path, start, unit in zip(owners, shard.start_s, shard.units, strict=True)}
    return moments


def test_an_index_holds_the_embeddings_and_their_times(model: Model, recordings: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    report = build_index(paths_in(recordings), model, tmp_path / "index", n_workers=1)
    assert (report.n_added, report.n_recordings, report.failures) == (3, 3, [])
    table = pyarrow.parquet.read_table(next((tmp_path / "index").glob("*.parquet"))).to_pydict()
    row = 0
    for path in paths_in(recordings):
        expected = model.predict_file(path)
        rows = slice(row, row + len(expected.start_s))
        assert set(table["path"][rows]) == {str(path)}
        np.testing.assert_array_equal(table["start_s"][rows], expected.start_s)
        np.testing.assert_array_equal(table["end_s"][rows], np.minimum(expected.end_s, expected.duration_s))
        stored = np.array(table["embedding"][rows], np.float32) * np.array(table["norm"][rows])[:, np.newaxis]
        scale = np.linalg.norm(expected.embeddings, axis=1).max()
        np.testing.assert_allclose(stored, expected.embeddings, atol=scale * 1e-3)
        row = rows.stop
    assert row == len(table["path"]) == report.n_moments


def test_a_patch_of_an_indexed_recording_finds_itself_exactly_when_it_was(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    build_index(paths_in(recordings), model, tmp_path, n_workers=1)
    example = embed_example(model, recordings / "1.wav", at_s=1.5)
    [best] = Index.open(tmp_path).search(example.embedding, 1)
    assert best.similarity == pytest.approx(1, abs=1e-3)
    assert (best.path, best.start_s, best.end_s) == (example.span.path, example.span.start_s, example.span.end_s)
    assert best.start_s <= 1.5 < best.end_s
    others = Index.open(tmp_path).search(example.embedding, 9, exclude=[example.span])
    assert not any(moment.overlaps(example.span) for moment in others)


def test_a_second_run_reads_only_what_is_new_or_has_changed(model: Model, recordings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    for path in paths_in(recordings):
        (folder / path.name).parent.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    index = tmp_path / "index"
    build_index(paths_in(folder), model, index, n_workers=1)
    before = contents(index)
    sound(folder / "1.wav", 1.5, 9)
    sound(folder / "new.wav", 1.0, 4)
    (folder / "0.wav").unlink()
    read: list[str] = []
    report = build_index(
        paths_in(folder), model, index, n_workers=1, watch=lambda part: read.append(Path(part.path).name)
    )
    assert set(read) == {"1.wav", "new.wav"}
    assert (report.n_added, report.n_changed, report.n_unchanged, report.n_dropped) == (1, 1, 1, 0)
    after = contents(index)
    assert {Path(path).name for path, _ in after} == {"0.wav", "1.wav", "2.wav", "new.wav"}
    same = [key for key in before if not key[0].endswith("1.wav")]
    assert all(np.array_equal(before[key], after[key]) for key in same)
    assert build_index(paths_in(folder), model, index, prune=True).n_dropped == 1
    assert {Path(path).name for path, _ in contents(index)} == {"1.wav", "2.wav", "new.wav"}
    assert {path.name for path in index.glob("*.parquet")} == set(read_manifest(index).shards)


def test_a_bad_file_costs_one_report_and_is_tried_again(model: Model, recordings: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    paths = [recordings / "0.wav", bad, tmp_path / "missing.wav", recordings / "2.wav"]
    report = build_index(paths, model, tmp_path / "index", n_workers=1)
    assert (report.n_added, report.n_recordings) == (2, 2)
    assert [Path(path).name for path, _ in report.failures] == ["bad.wav", "missing.wav"]
    sound(bad, 1.0, 3)
    report = build_index(paths, model, tmp_path / "index", n_workers=1)
    assert (report.n_added, report.n_unchanged, report.n_recordings, len(report.failures)) == (1, 2, 3, 1)


def test_a_killed_run_goes_on_where_it_was(
    model: Model, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_MOMENTS", 1)
    whole = tmp_path / "whole"
    build_index(paths_in(recordings), model, whole, n_workers=1)
    write, n_written = build.write_shard, 0

    def write_two_and_die(path: Path, shard: Shard) -> None:
        nonlocal n_written
        write(path, shard)  # the second one has its file, but is not yet in the manifest
        n_written += 1
        if n_written >= 2:
            raise KeyboardInterrupt("killed")

    monkeypatch.setattr(build, "write_shard", write_two_and_die)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt, match="killed"):
        build_index(paths_in(recordings), model, broken, n_workers=1)
    assert read_manifest(broken).n_recordings == 1
    assert len(Index.open(broken)) == read_manifest(broken).n_moments  # what is there can be searched
    monkeypatch.setattr(build, "write_shard", write)
    report = build_index(paths_in(recordings), model, broken, n_workers=1)
    assert (report.n_unchanged, report.n_added) == (1, 2)
    assert {path.name for path in broken.glob("*.parquet")} == set(read_manifest(broken).shards)
    expected, found = contents(whole), contents(broken)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


def test_a_full_disk_loses_nothing_that_was_stored(
    model: Model, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    index = tmp_path / "index"
    build_index([recordings / "0.wav"], model, index, n_workers=1)
    before = contents(index)

    def fill(table: Any, where: Path, **_: Any) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet, "write_table", fill)
        with pytest.raises(OutputError, match=r"No space left on device\. Next step: free some space"):
            build_index(paths_in(recordings), model, index, n_workers=1)
    assert contents(index).keys() == before.keys()
    assert not [path.name for path in index.iterdir() if path.name.startswith(".embeddings")]
    assert build_index(paths_in(recordings), model, index, n_workers=1).n_added == 2


def test_an_index_stays_with_its_model_and_settings(model: Model, recordings: Path, tmp_path: Path) -> None:
    build_index([recordings / "2.wav"], model, tmp_path, n_workers=1)
    with pytest.raises(ConflictError, match=r"hop_s was None and is now 0\.1"):
        build_index([recordings / "2.wav"], model, tmp_path, Settings(hop_s=0.1))
    record = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**record, "model_digest": "other"}))
    with pytest.raises(ConflictError, match="model_digest was other"):
        build_index([recordings / "2.wav"], model, tmp_path)
    with pytest.raises(UsageError, match="this is another model"):
        read_manifest(tmp_path).check_model(model)


def test_another_folder_is_not_taken_for_an_index(model: Model, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ConflictError, match="is not empty, and not an index"):
        build_index([], model, tmp_path)


def test_two_runs_do_not_write_to_one_index(model: Model, recordings: Path, tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(ConflictError, match="another run is writing"):
        build_index([recordings / "0.wav"], model, tmp_path)


def test_an_index_without_moments_says_so(model: Model, tmp_path: Path) -> None:
    build_index([tmp_path / "missing.wav"], model, tmp_path / "index", n_workers=1)
    with pytest.raises(NoInputError, match="has no moments"):
        Index.open(tmp_path / "index")


def test_examples_shorter_than_a_patch_and_seconds_past_the_end(model: Model, recordings: Path) -> None:
    example = embed_example(model, recordings / "2.wav", at_s=0.39)
    assert (example.span.start_s, example.span.end_s) == (0, pytest.approx(0.4))
    assert np.linalg.norm(example.embedding) == pytest.approx(1, abs=1e-3)
    for at_s in (0.4, -1, float("nan")):
        with pytest.raises(UsageError, match=r"is not in .*2\.wav, which lasts 0\.40 s"):
            embed_example(model, recordings / "2.wav", at_s=at_s)


def test_an_example_that_cannot_be_read_is_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"the example .*none\.wav: .*No such file"):
        embed_example(model, tmp_path / "none.wav")


def test_the_mean_of_examples_has_length_one(model: Model, recordings: Path) -> None:
    examples = [embed_example(model, path) for path in paths_in(recordings)]
    mean = combine_examples(examples)
    assert mean.shape == (1, model.embedding_size)
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-5)
    assert combine_examples(examples, "max").shape == (3, model.embedding_size)
    with pytest.raises(UsageError, match="combination is 'median'; expected one of mean, max"):
        combine_examples(examples, "median")


@pytest.mark.parametrize(("text", "numbers"), [("1", [1]), ("1, 3,5-8", [1, 3, 5, 6, 7, 8]), ("2-2,2", [2])])
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text, 9) == numbers


@pytest.mark.parametrize("text", ["", "0", "10", "3-2", "a", "1-", "-1", "1,,2", "²", "9" * 5_000])
def test_other_lists_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--accept has '.*'; expected numbers of"):
        parse_numbers(text, 9)


@settings(max_examples=50, deadline=None)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), label=st.text('ab,";\n é', min_size=1))
def test_accepted_moments_come_back_whatever_their_names(
    tmp_path_factory: pytest.TempPathFactory, name: str, label: str
) -> None:
    if not label.strip():
        return
    table = tmp_path_factory.mktemp("accepted") / "moments.csv"
    moments = [Span(f"/{name}", 0.48, 1.44), Span("/b", 0, 1)]
    assert append_moments(table, moments[:1], label) == 1
    assert append_moments(table, moments, label) == 1
    rows = list(csv.reader(io.StringIO(table.read_bytes().decode(), newline="")))
    assert rows[1:] == [[f"/{name}", label.strip(), "0.48", "1.44"], ["/b", label.strip(), "0", "1"]]


def test_accepted_moments_are_a_collection(tmp_path: Path) -> None:
    from audioset.sounds.reading import read_collection

    append_moments(tmp_path / "moments.csv", [Span("/a b.wav", 0.48, 1.44)], "dog")
    append_moments(tmp_path / "moments.csv", [Span("/c.wav", 0, 0.96)], "cat")
    collection = read_collection(tmp_path / "moments.csv")
    assert collection.classes == ("cat", "dog")
    assert [(str(clip.path), clip.labels, clip.start_s, clip.end_s) for clip in collection.clips] == [
        ("/a b.wav", ("dog",), 0.48, 1.44),
        ("/c.wav", ("cat",), 0, 0.96),
    ]


def test_other_tables_are_not_added_to(tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("name,age\n")
    with pytest.raises(ConflictError, match=r"begins with 'name,age'; expected 'path,label,start_s,end_s'"):
        append_moments(table, [Span("a", 0, 1)], "dog")
    assert table.read_text() == "name,age\n"
    with pytest.raises(UsageError, match="the label is empty"):
        append_moments(table, [Span("a", 0, 1)], " ")
