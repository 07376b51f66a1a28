"""Damaged recordings, the short form; ``make torture`` is the long one."""

from __future__ import annotations

import mutants
import pytest
from sandbox import SEED
from sources import missing, sources

N_MUTANTS = 500


def test_a_seed_makes_the_same_mutant_again():
    assert mutants.make_mutant(17) == mutants.make_mutant(17)
    assert mutants.make_mutant(17).data != sources()[mutants.make_mutant(17).source]


def test_every_container_that_the_libraries_here_write_is_among_the_sources():
    assert len(sources()) > 60, missing()
    assert set(mutants.HEALTHY) <= sources().keys()


@pytest.mark.parametrize("command", mutants.RUNS)
def test_damaged_recordings_cost_a_row_each_and_nothing_else(command, tmp_path):
    n = N_MUTANTS if command == "tag" else N_MUTANTS // 5
    batch = mutants.run_batch(range(SEED, SEED + n), tmp_path, command)
    assert not batch.findings, "\n".join(map(str, batch.findings))
    assert sum(batch.outcomes.values()) == n
