"""What a node has spent, on its own disk: counted once, kept under the budget, refused when damaged."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerv_fl.config import PrivacyConfig
from nerv_fl.crypto import SigningKey
from nerv_fl.errors import PrivacyError
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.privacy.budget import SpendingLedger
from nerv_fl.privacy.epsilon import format_epsilon

DELTA = 1e-5


def mechanism(rate: float) -> Mechanism:
    return Mechanism(sigma=0.5, sampling_rate=rate)


@dataclass(frozen=True)
class Account:
    """A node's spending file, opened as often as the node restarts."""

    path: Path
    rate: float = 0.01
    max_epsilon: float = 8.0
    key: SigningKey | None = None

    def open(self) -> SpendingLedger:
        privacy = PrivacyConfig(max_epsilon=self.max_epsilon)
        return SpendingLedger(self.path, mechanism=mechanism(self.rate), privacy=privacy, key=self.key)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path / "spending.json")


def test_nothing_spent_costs_nothing_and_writes_nothing(account: Account) -> None:
    ledger = account.open()
    assert (ledger.num_steps, ledger.epsilon) == (0, 0.0)
    assert not account.path.exists()


def test_round_is_counted_once_and_survives_a_restart(account: Account) -> None:
    account.open().spend("demo", 1, num_steps=3)
    ledger = account.open()
    assert ledger.num_steps == 3
    ledger.spend("demo", 1, num_steps=3)
    assert ledger.num_steps == 3
    ledger.spend("demo", 2, num_steps=2)
    ledger.spend("other", 1, num_steps=4)
    assert account.open().num_steps == ledger.num_steps == 9
    assert ledger.epsilon == epsilon_of(mechanism(0.01), 9, delta=DELTA)


def test_spending_is_on_disk_when_the_call_returns(account: Account) -> None:
    account.open().spend("demo", 1, num_steps=3)
    assert json.loads(account.path.read_text())["steps"] == {"demo/1": 3}


def test_round_before_the_latest_is_not_answered_again(account: Account) -> None:
    """Else a server that asks for rounds 1, 2, 1, 2, ... gets updates for ever, and epsilon stands still."""
    ledger = account.open()
    ledger.spend("demo", 1, num_steps=1)
    ledger.spend("demo", 2, num_steps=1)
    message = "round 1 of demo was answered before, expected demo/2 or a new one"
    for again in (ledger, account.open()):
        with pytest.raises(PrivacyError, match=f"^{re.escape(message)}$"):
            again.spend("demo", 1, num_steps=1)


def test_budget_is_kept_and_a_refused_round_leaves_no_trace(account: Account) -> None:
    ledger = account.open()
    ledger.spend("demo", 1, num_steps=200)
    written = account.path.read_bytes()
    message = (
        f"epsilon after round 2 would be {format_epsilon(epsilon_of(mechanism(0.01), 2200, delta=DELTA), digits=3)} "
        "at delta 1e-05 per step record (Poisson sampling at 0.01), expected at most 8"
    )
    with pytest.raises(PrivacyError, match=f"^{re.escape(message)}$"):
        ledger.spend("demo", 2, num_steps=2000)
    assert account.path.read_bytes() == written
    assert ledger.num_steps == account.open().num_steps == 200
    ledger.spend("demo", 2, num_steps=1)
    assert ledger.num_steps == 201


def test_first_round_past_the_budget_writes_no_file(tmp_path: Path) -> None:
    account = Account(tmp_path / "spending.json", rate=0.1, max_epsilon=1.0)
    with pytest.raises(PrivacyError, match=r"^epsilon after round 1 would be "):
        account.open().spend("demo", 1, num_steps=20)
    assert not list(tmp_path.iterdir())


WHOLE = '{"mechanism": {"sigma": 0.5, "sampling_rate": 0.01}, "steps": {"demo/1": 3}}'
DAMAGED = {
    "empty": "",
    "cut": WHOLE[:-5],
    "a list": "[]",
    "null": "null",
    "no steps": '{"mechanism": {"sigma": 0.5, "sampling_rate": 0.01}}',
    "no mechanism": '{"steps": {"demo/1": 3}}',
    "steps are a list": WHOLE.replace('{"demo/1": 3}', "[3]"),
    "count is a word": WHOLE.replace("3}", '"many"}'),
    "count is a fraction": WHOLE.replace("3}", "0.5}"),
    "count is negative": WHOLE.replace("3}", "-3}"),
    "mechanism is foreign": WHOLE.replace("sigma", "noise"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_refused(account: Account, name: str) -> None:
    account.path.write_text(DAMAGED[name])
    expected = rf"^{re.escape(str(account.path))} is not a spending ledger \(.+\), expected the file this node wrote$"
    with pytest.raises(PrivacyError, match=expected):
        account.open()


def test_whole_file_is_read(account: Account) -> None:
    account.path.write_text(WHOLE)
    assert account.open().num_steps == 3


def test_steps_of_another_mechanism_are_not_mixed_in(account: Account, tmp_path: Path) -> None:
    account.open().spend("demo", 1, num_steps=3)
    message = (
        f"{account.path} holds steps of Mechanism(sigma=0.5, sampling_rate=0.01, unit='step record'), "
        "expected Mechanism(sigma=0.5, sampling_rate=0.02, unit='step record'): "
        "epsilon of a mixture is not accounted for"
    )
    with pytest.raises(PrivacyError, match=f"^{re.escape(message)}$"):
        Account(account.path, rate=0.02).open()


def test_without_a_mechanism_rounds_are_listed_and_nothing_is_accounted_for(tmp_path: Path) -> None:
    privacy = PrivacyConfig(protocol=False, mechanism="none", max_epsilon=1e-3)
    path = tmp_path / "spending.json"
    ledger = SpendingLedger(path, mechanism=Mechanism(sigma=0.0, sampling_rate=0.01), privacy=privacy)

    ledger.spend("demo", 1, num_steps=2000)

    assert ledger.epsilon == math.inf
    assert json.loads(path.read_text())["accounted"] == (
        "nothing: there is no privacy mechanism, and epsilon is infinite"
    )
    with pytest.raises(PrivacyError, match=r"holds steps of Mechanism\(sigma=0\.0, .*, expected Mechanism\(sigma=0\.5"):
        SpendingLedger(path, mechanism=mechanism(0.01), privacy=PrivacyConfig())


def test_a_refusal_for_epsilon_names_another_mechanism(tmp_path: Path) -> None:
    privacy = PrivacyConfig(protocol=False, sigma=0.7, max_epsilon=0.1)
    ledger = SpendingLedger(tmp_path / "s.json", mechanism=Mechanism(sigma=0.7, sampling_rate=0.01), privacy=privacy)

    with pytest.raises(PrivacyError, match=r"at most 0\.1; not the protocol's mechanism \(sigma 0\.7, clip 1\.0\)$"):
        ledger.spend("demo", 1, num_steps=20)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=8))
def test_steps_are_the_sum_over_different_rounds(
    tmp_path_factory: pytest.TempPathFactory, spending: list[tuple[int, int]]
) -> None:
    account = Account(tmp_path_factory.mktemp("node") / "spending.json", rate=0.001)
    counted: dict[int, int] = {}
    for turn, num_steps in sorted(spending):
        account.open().spend("demo", turn, num_steps=num_steps)
        counted.setdefault(turn, num_steps)
    assert account.open().num_steps == sum(counted.values())


KEY = SigningKey(b"a node".ljust(32))
STRANGER = SigningKey(b"a stranger".ljust(32))


@pytest.fixture
def signed(account: Account) -> Account:
    """A deployed node's ledger after two rounds."""
    signed = replace(account, key=KEY)
    signed.open().spend("demo", 1, num_steps=3)
    signed.open().spend("demo", 2, num_steps=2)
    return signed


def test_a_signed_ledger_is_read_by_its_own_node(signed: Account) -> None:
    assert signed.open().num_steps == 5
    assert json.loads(signed.path.read_text()).keys() == {"mechanism", "steps", "signature"}


def refuse(signed: Account, key: SigningKey = KEY) -> None:
    message = (
        f"{signed.path} is not signed by this node's key {key.verify_key.fingerprint}, "
        "expected the file that it wrote: it was changed, or is another node's; "
        "restore the newest that it wrote, or retire this node"
    )
    with pytest.raises(PrivacyError, match=f"^{re.escape(message)}$"):
        replace(signed, key=key).open()


def fewer(table: dict[str, Any]) -> None:
    table["steps"]["demo/1"] = 1


def dropped(table: dict[str, Any]) -> None:
    del table["steps"]["demo/2"]


def renamed(table: dict[str, Any]) -> None:
    table["steps"]["demo/3"] = table["steps"].pop("demo/2")


def reordered(table: dict[str, Any]) -> None:
    table["steps"] = dict(reversed(table["steps"].items()))


def resampled(table: dict[str, Any]) -> None:
    table["mechanism"]["sampling_rate"] = 0.001


def unsigned(table: dict[str, Any]) -> None:
    del table["signature"]


def garbled(table: dict[str, Any]) -> None:
    table["signature"] = table["signature"][4:] + table["signature"][:4]


def not_text(table: dict[str, Any]) -> None:
    table["signature"] = ["x"]


@pytest.mark.parametrize(
    "tamper",
    [fewer, dropped, renamed, reordered, resampled, unsigned, garbled, not_text],
    ids=lambda item: item.__name__,
)
def test_a_ledger_that_was_changed_is_refused(signed: Account, tamper: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads(signed.path.read_text())
    tamper(table)
    signed.path.write_text(json.dumps(table))

    refuse(signed)


def test_another_nodes_ledger_is_refused(signed: Account) -> None:
    refuse(signed, STRANGER)


def test_an_unsigned_ledger_does_not_become_a_deployed_nodes(account: Account) -> None:
    account.open().spend("demo", 1, num_steps=3)

    refuse(account)


def test_a_ledger_older_than_what_was_sent_is_refused(signed: Account) -> None:
    ledger = signed.open()
    ledger.require("demo", 2)
    message = (
        f"{signed.path} lacks round 3 of demo, which this node has answered, expected the newest file that it wrote: "
        "restore that one, or retire this node"
    )
    with pytest.raises(PrivacyError, match=f"^{re.escape(message)}$"):
        ledger.require("demo", 3)


def test_a_round_repeated_with_fresh_noise_counts_again(signed: Account) -> None:
    signed.open().spend("demo", 2, num_steps=2)

    assert signed.open().num_steps == 7


def test_fresh_noise_is_limited_by_the_budget_too(signed: Account) -> None:
    small = replace(signed, max_epsilon=signed.open().epsilon)
    with pytest.raises(PrivacyError, match=r"^epsilon after round 2 would be "):
        small.open().spend("demo", 2, num_steps=2)
