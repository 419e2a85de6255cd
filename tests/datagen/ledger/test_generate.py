"""Generated ledgers: reproducible, as unequal as promised, and worth learning from."""

from pathlib import Path

import numpy as np
import pytest

from datagen.ledger import LedgerShape, generate_ledger
from datagen.ledger import shape as shape_module
from datagen.ledger.apply_transactions import settle
from datagen.ledger.intents import Orders
from datagen.ledger.kinds import traits_of
from datagen.ledger.roles import Cast, num_rich, role_starts, solve_scale
from datagen.ledger_checks import LedgerReport, verify_ledger
from nerv_fl.data import LedgerFile
from nerv_fl.errors import ConfigError
from nerv_fl.tokens import BURN, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT, TRANSFER

SMALL = {"chains": 40, "steps": 3, "accounts": 64, "max_transactions": 16, "profile": "live", "seed": 7}


def small(path: Path, **changes: object) -> Path:
    progress = changes.pop("progress", None)
    generate_ledger(path, LedgerShape(**{**SMALL, **changes}), progress=progress)  # type: ignore[arg-type]
    return path


def make_cast(opening: list[int]) -> Cast:
    return Cast(
        position=np.arange(len(opening))[None],
        opening=np.array([opening]),
        supply_nano=np.array([sum(opening)]),
        sends=np.ones((1, 5)),
        receives=np.ones((1, 5)),
        traits=traits_of(np.zeros(1, dtype=np.int64), heterogeneity=0),
    )


def make_orders(*orders: tuple[int, int, int, float]) -> Orders:
    """Return one batch of (kind, actor, receiver, fraction)."""
    kind, actor, receiver, fraction = (np.array(column)[None, :, None] for column in zip(*orders, strict=True))
    return Orders(
        kind=kind.astype(np.uint8),
        actor=actor,
        receiver=receiver,
        fraction=fraction.astype(np.float32),
        counts=np.array([[len(orders)]]),
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LedgerReport]:
    folder = tmp_path_factory.mktemp("profiles")
    return {
        profile: verify_ledger(small(folder / profile, chains=1200, steps=4, profile=profile))
        for profile in ("live", "genesis")
    }


def test_orders_are_carried_out_one_after_another() -> None:
    block = settle(
        make_cast([1000, 40, 0]),
        orders=make_orders((TRANSFER, 0, 1, 0.5), (TRANSFER, 1, 2, 0.25), (MINT, 2, 0, 0.5), (BURN, 0, 1, 0.5)),
    )
    assert block.balances[0].tolist() == [[1000, 40, 0], [250, 405, 202]]
    assert block.amount_nano.tolist() == [500, 135, 67, 250]
    assert block.sender.tolist() == [0, 1, NO_ACCOUNT, 0]
    assert block.receiver.tolist() == [1, 2, 2, NO_ACCOUNT]
    assert block.counts.tolist() == [[4]]


def test_an_actor_without_balance_gives_way_to_the_richest() -> None:
    block = settle(make_cast([0, 9, 90]), orders=make_orders((TRANSFER, 0, 1, 0.5), (TRANSFER, 0, 2, 0.5)))
    assert block.sender.tolist() == [2, 1]
    assert block.amount_nano.tolist() == [45, 27]
    assert block.balances[0, 1].tolist() == [0, 27, 72]


def test_nobody_sends_to_itself() -> None:
    block = settle(make_cast([8, 8]), orders=make_orders((TRANSFER, 1, 1, 0.5)))
    assert (block.sender.tolist(), block.receiver.tolist()) == ([1], [0])


def test_at_least_one_nano_moves() -> None:
    block = settle(make_cast([1, 5]), orders=make_orders((TRANSFER, 0, 1, 0.001)))
    assert block.balances[0, 1].tolist() == [0, 6]


def test_a_mint_above_the_largest_supply_becomes_a_burn() -> None:
    block = settle(make_cast([MAX_SUPPLY_NANO - 10, 10]), orders=make_orders((MINT, 1, 0, 0.5)))
    assert block.kind.tolist() == [BURN]
    assert block.balances[0, 1].tolist() == [MAX_SUPPLY_NANO - 10, 5]


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    first = small(tmp_path / "a").read_bytes()
    assert small(tmp_path / "b").read_bytes() == first
    assert small(tmp_path / "c", seed=8).read_bytes() != first
    assert small(tmp_path / "d", profile="genesis").read_bytes() != first


def test_more_chains_leave_whole_blocks_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_module, "MAX_CHAINS_PER_BLOCK", 10)
    with LedgerFile(small(tmp_path / "a", chains=20)) as few, LedgerFile(small(tmp_path / "b", chains=30)) as many:
        assert (few.read_chains(0, 20).balances == many.read_chains(0, 20).balances).all()
        assert (many.read_chains(0, 10).balances != many.read_chains(10, 20).balances).any()


def test_progress_counts_every_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_module, "MAX_CHAINS_PER_BLOCK", 16)
    monkeypatch.setattr(shape_module, "MAX_PART_VALUES", 1)
    monkeypatch.setattr(shape_module, "chunk_shape", lambda *_, **__: (1,))
    seen: list[int] = []
    small(tmp_path / "a", progress=seen.append)
    assert seen == [16, 16, 8]


def test_blocks_shrink_with_the_size_of_a_chain() -> None:
    assert LedgerShape(chains=1, steps=8, accounts=64, max_transactions=16).chains_per_block == 1024
    assert LedgerShape(chains=1, steps=8, accounts=1024, max_transactions=256).chains_per_block == 240
    assert LedgerShape(chains=1, steps=2**20, accounts=1024, max_transactions=1).chains_per_block == 1


@pytest.mark.parametrize("accounts", [8, 64, 200])
def test_richest_fifth_hold_four_fifths(tmp_path: Path, accounts: int) -> None:
    with LedgerFile(small(tmp_path / "a", accounts=accounts)) as ledger:
        block = ledger.read_chains(0, 40)
    ranked = np.sort(block.balances[:, 0], axis=1)
    share = ranked[:, -num_rich(accounts) :].sum(axis=1) / block.supply_nano
    assert np.abs(share - 0.8).max() < 0.01


def test_scale_by_hand() -> None:
    # Five accounts, the richest one at x = 1, the others at 0: e^s / (e^s + 4) = 0.8 gives s = log 16.
    assert solve_scale(np.array([[0.0, 0.0, 1.0, 0.0, 0.0]])) == pytest.approx([np.log(16)], rel=1e-4)
    # An empty account leaves three: e^s / (e^s + 3) = 0.8 gives s = log 12.
    assert solve_scale(np.array([[0.0, 0.0, 1.0, 0.0, -np.inf]])) == pytest.approx([np.log(12)], rel=1e-4)


def test_every_role_has_an_account() -> None:
    for num_accounts in range(8, 70):
        assert (np.diff(role_starts(num_accounts)) > 0).all()


def test_supplies_lie_in_range(tmp_path: Path) -> None:
    with LedgerFile(small(tmp_path / "a", chains=200, steps=1)) as ledger:
        supply = ledger.read_chains(0, 200).supply_nano
    assert 10**15 <= supply.min() < 2 * 10**15
    assert 8 * 10**15 < supply.max() <= MAX_SUPPLY_NANO


def test_position_tells_in_live_and_not_in_genesis(reports: dict[str, LedgerReport]) -> None:
    live, genesis = reports["live"], reports["genesis"]
    assert live.unigram_ce == pytest.approx(3.7, abs=0.2)
    assert live.account_ce == pytest.approx(3.05, abs=0.2)
    assert genesis.unigram_ce == pytest.approx(live.unigram_ce, abs=0.05)
    assert genesis.account_ce > genesis.unigram_ce - 0.01


@pytest.mark.parametrize("profile", ["live", "genesis"])
def test_batches_matter_but_move_little(reports: dict[str, LedgerReport], profile: str) -> None:
    report = reports[profile]
    assert 0.10 <= report.median_changed <= 0.20
    assert 0.01 <= report.median_moved <= 0.05
    assert 0.01 <= (report.mints + report.burns) / report.transactions <= 0.02
    assert report.transactions / report.samples == pytest.approx(8.5, abs=0.3)


def test_large_shards_change_too(tmp_path: Path) -> None:
    path = small(tmp_path / "a", chains=8, steps=2, accounts=1024, max_transactions=256)
    assert verify_ledger(path).median_changed >= 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chains": 0}, "chains is 0, expected a number in [1, 2147483648]"),
        ({"steps": 0}, "steps is 0, expected a number in [1, 1048576]"),
        ({"accounts": 7}, "accounts is 7, expected a number in [8, 65534]"),
        ({"accounts": 65_535}, "accounts is 65535, expected a number in [8, 65534]"),
        ({"max_transactions": 257}, "max_transactions is 257, expected a number in [1, 256]"),
        ({"profile": "liv"}, "profile is 'liv', expected one of: genesis, live (did you mean 'live'?)"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        small(tmp_path / "a", **changes)
    assert str(error.value) == message
    assert not (tmp_path / "a").exists()
