"""Runs that are killed, have no room or no terminal, or are two at once: the short form of ``make torture``."""

from __future__ import annotations

import descriptors
import disks
import kills
import pytest
import writers
from sandbox import SEED
from stage import open_stage

# Commands that the short form disturbs; each starts in little more than a second.
QUICK = ("tag to tags.csv", "tag to tags.parquet", "embed to embeddings.npz", "index", "convert to features.parquet")
CASES = [
    pytest.param(module, number, id=f"{module.KIND}-{number}")
    for module, n in ((kills, 6), (disks, 3), (descriptors, 2), (writers, 2))
    for number in range(n)
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with open_stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.mark.parametrize(("module", "number"), CASES)
def test_nothing_is_lost(module, number, stage):
    findings = module.run_case(SEED + number, stage, QUICK)
    assert not findings, "\n".join(map(str, findings))
