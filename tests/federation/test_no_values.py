"""Rounds that value nobody: the same encoder, nobody paid, every pool carried over."""

from pathlib import Path

from nerv_fl.records import read_rewards
from tests.federation.tiny_run import copy_run, run_rounds


def test_weights_do_not_depend_on_values_and_nobody_is_paid(tmp_path: Path) -> None:
    valued, without = copy_run(tmp_path / "valued"), copy_run(tmp_path / "none", **{"valuation.method": "none"})
    for folder in (valued, without):
        run_rounds(folder)
    hashes, same = ([item.model_hash for item in folder.rounds()] for folder in (valued, without))
    assert hashes == same
    assert any(item.accepted for item in without.rounds()[1:])
    assert read_rewards(without.rewards_path) == []
    last = without.rounds()[-1]
    assert last.shapley is not None
    assert (last.shapley.method, last.shapley.evaluations, last.shapley.se_max) == ("none", 0, None)
    carried = [item.carried_nano for item in without.rounds()]
    pools = [item.pool_nano for item in without.rounds()]
    assert carried == [sum(pools[:number]) for number in range(len(pools))]
    assert carried[-1] > 0
