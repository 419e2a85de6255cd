"""Shards of different kinds differ as documented, and not at all without heterogeneity."""

from pathlib import Path

import numpy as np
import pytest

from datagen.ledger import LedgerShape, generate_ledger
from datagen.ledger.kinds import KINDS, draw_kinds, traits_of
from datagen.ledger.roles import ROLES, role_starts
from datagen.ledger_checks import verify_ledger
from nerv_fl.data import LedgerFile
from nerv_fl.tokens import NO_ACCOUNT, SHARD_KINDS
from nerv_fl.types import FloatArray

ACCOUNTS = 64


def shares(path: Path, *, heterogeneity: float) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Return, by kind of shard, the share of each role among senders, and the mean number of transactions."""
    shape = LedgerShape(chains=400, steps=4, accounts=ACCOUNTS, max_transactions=32, heterogeneity=heterogeneity)
    generate_ledger(path, shape)
    with LedgerFile(path) as ledger:
        block = ledger.read_chains(0, 400)
    chain = np.repeat(np.arange(400), block.counts.sum(axis=1))
    role = np.searchsorted(role_starts(ACCOUNTS), block.sender, side="right") - 1
    senders, sizes = {}, {}
    for kind, name in enumerate(SHARD_KINDS):
        mine = (block.shard_kind[chain] == kind) & (block.sender != NO_ACCOUNT)
        if mine.any():
            senders[name] = np.bincount(role[mine], minlength=len(ROLES)) / mine.sum()
            sizes[name] = float(block.counts[block.shard_kind == kind].mean())
    return senders, sizes


def test_without_heterogeneity_all_shards_are_mixed(tmp_path: Path) -> None:
    senders, _ = shares(tmp_path / "a", heterogeneity=0)
    assert list(senders) == ["mixed"]
    assert traits_of(np.arange(5), heterogeneity=0).levels.tolist() == np.zeros((5, 5)).tolist()


def test_each_kind_is_led_by_its_role(tmp_path: Path) -> None:
    senders, sizes = shares(tmp_path / "a", heterogeneity=1)
    exchange, treasury, _, retail, dormant = range(len(ROLES))
    assert set(senders) == set(SHARD_KINDS) - {"mixed"}
    assert max(senders, key=lambda name: senders[name][exchange]) == "exchange"
    assert max(senders, key=lambda name: senders[name][treasury]) == "payroll"
    assert max(senders, key=lambda name: senders[name][retail]) == "retail"
    assert max(senders, key=lambda name: senders[name][dormant]) == "dormant"
    assert sizes["dormant"] == pytest.approx(16.5 / 4, rel=0.2)
    assert sizes["retail"] == pytest.approx(16.5, rel=0.1)


def test_the_knob_turns_differences_up(tmp_path: Path) -> None:
    def distance(heterogeneity: float) -> float:
        senders, _ = shares(tmp_path / f"{heterogeneity}", heterogeneity=heterogeneity)
        return float(np.abs(senders["payroll"] - senders["retail"]).sum())

    assert distance(0.3) < 0.6 * distance(1.0)


def test_a_heterogeneous_ledger_keeps_every_invariant(tmp_path: Path) -> None:
    shape = LedgerShape(chains=200, steps=4, accounts=200, max_transactions=64, heterogeneity=1.0)
    generate_ledger(tmp_path / "a", shape)
    report = verify_ledger(tmp_path / "a", min_changed=0)
    assert report.rich_share == pytest.approx(0.8, abs=0.01)


def test_kinds_are_uniform_and_follow_from_the_seed() -> None:
    kinds = draw_kinds(7, profile="live", block=0, num_chains=4000, heterogeneity=0.5)
    assert np.bincount(kinds, minlength=len(KINDS))[1:] == pytest.approx(1000, abs=150)
    assert (kinds == draw_kinds(7, profile="live", block=0, num_chains=4000, heterogeneity=1.0)).all()
    assert (kinds != draw_kinds(7, profile="live", block=1, num_chains=4000, heterogeneity=1.0)).any()


def test_a_supply_of_ones_own(tmp_path: Path) -> None:
    generate_ledger(tmp_path / "a", LedgerShape(chains=3, steps=2, accounts=8, supply_nano=10**16))
    with LedgerFile(tmp_path / "a") as ledger:
        assert ledger.read_chains(0, 3).supply_nano.tolist() == [10**16] * 3
