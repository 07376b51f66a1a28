"""Hostile files, the short form; ``make torture`` reads all of them."""

from __future__ import annotations

import random

import hostile
import pytest
from hostile_place import HOSTILE
from sandbox import SEED

N_CASES = 8


def test_there_are_hostile_files_for_every_reader():
    readers = {name.partition(":")[0] for name in HOSTILE}
    expected = {"card", "safetensors", "HDF5", "torch", "TensorFlow", "npz", "features", "labels", "settings", "ledger"}
    assert expected | {"index", "recording", "folder", "current folder", "cache", "ontology"} <= readers
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("number", random.Random(SEED).sample(range(len(hostile.NAMES)), N_CASES))
def test_a_hostile_file_is_an_error_and_no_more(number, tmp_path):
    findings = hostile.run_case(number, tmp_path)
    assert not findings, "\n".join(map(str, findings))
