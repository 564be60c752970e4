"""Faults of every kind, and afterwards a ledger without duplicate or gap, and nothing left behind."""

from __future__ import annotations

import sys

import pytest

from faults.chaos import Report, plan
from faults.kinds import KINDS
from faults.runs import run_all, run_quickly

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: all of 127.0.0.0/8, and socket filters")


def check(report: Report, least: int) -> None:
    print("\n".join(report.table()))
    assert report.complaints == []
    assert report.struck.total() == report.survived.total() >= least
    assert report.verdict.acknowledged > report.survived.total()


def test_quick_faults_lose_and_double_nothing(tmp_path):
    check(run_quickly(tmp_path, seed=1, faults=70, lanes=4), least=70)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_faults_lose_and_double_nothing(tmp_path):
    check(run_all(tmp_path, seed=1, faults=320, lanes=8), least=300)


def test_plan_is_the_seed_s_and_leaves_no_kind_out():
    planned = plan(list(KINDS), faults=320, lanes=8, seed=1)
    assert planned == plan(list(KINDS), faults=320, lanes=8, seed=1) != plan(list(KINDS), 320, 8, seed=2)
    for connection in ("direct", "grpc"):
        shares = [share for each, share in planned if each == connection]
        assert len(shares) == 4
        assert {name for share in shares for name in share} == KINDS.keys()
        assert sum(map(len, shares)) == 160
