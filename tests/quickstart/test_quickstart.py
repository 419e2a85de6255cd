"""The quickstart as its user runs it, for three seeds: what a run must show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nerv_fl.config import RunConfig, read_recipe
from nerv_fl.enclave.certificate import verify_certificate
from nerv_fl.enclave.identity import pinned_root, read_vendor_root
from nerv_fl.errors import SealError
from nerv_fl.records import FinalPool, RoundRecord, read_rewards, read_rounds

pytestmark = pytest.mark.slow

SEEDS = (7, 8, 9)


@pytest.fixture(scope="session", params=SEEDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quickstart in a folder of its own, with one seed."""
    out = tmp_path_factory.mktemp("quickstart") / f"seed-{request.param}"
    command = [sys.executable, "-m", "simulations", "quickstart", "--out", str(out), "--set", f"seed={request.param}"]
    subprocess.run(command, check=True, timeout=1800)
    return out


@pytest.fixture
def rounds(run: Path) -> list[RoundRecord]:
    return read_rounds(run / "rounds.jsonl")


def test_folder_is_whole(run: Path, rounds: list[RoundRecord]) -> None:
    names = {"config.toml", "manifest.json", "rounds.jsonl", "rewards.csv", "report.html", "checkpoint", "certificates"}
    assert names <= {path.name for path in run.iterdir()}
    assert [record.round for record in rounds] == list(range(21))
    assert read_recipe(run / "config.toml").privacy.sigma == 0.5


def test_at_least_15_of_20_rounds_are_accepted(rounds: list[RoundRecord]) -> None:
    assert sum(record.accepted for record in rounds[1:]) >= 15


def test_affine_error_keeps_the_bound_on_every_batch(rounds: list[RoundRecord]) -> None:
    for record in rounds:
        assert (record.encoder.homomorphism.n, record.encoder.homomorphism.violations) == (30_000, 0)
        assert record.encoder.homomorphism.max <= record.encoder.homomorphism.bound == 1e-9


def test_final_pool_shows_a_lower_loss(run: Path) -> None:
    final = FinalPool(**json.loads((run / "manifest.json").read_text())["final"])
    assert final.chains == 1024
    assert final.improved
    assert final.ci_high < 0


def test_drift_falls_and_its_companions_hold(run: Path, rounds: list[RoundRecord]) -> None:
    """To at most half in the run that is shipped, the recipe's own seed; by a third with any."""
    first, last = rounds[0], rounds[-1]
    own_seed = read_recipe(run / "config.toml").seed == RunConfig().seed
    assert last.encoder.drift.mean <= (1 / 2 if own_seed else 2 / 3) * first.encoder.drift.mean
    assert last.encoder.drift.relative <= 0.8 * first.encoder.drift.relative
    assert last.encoder.effective_rank >= 0.95 * first.encoder.effective_rank


def test_masked_cross_entropy_falls_and_the_report_places_it(run: Path, rounds: list[RoundRecord]) -> None:
    assert rounds[-1].encoder.masked_ce.value <= rounds[0].encoder.masked_ce.value
    above = rounds[-1].encoder.masked_ce.value >= rounds[-1].encoder.masked_ce.unigram
    assert ("is not below the unigram" in (run / "report.html").read_text()) == above


def test_epsilon_ends_below_8(rounds: list[RoundRecord]) -> None:
    assert rounds[-1].epsilon is not None
    assert rounds[-1].epsilon.max is not None
    assert 0 < rounds[-1].epsilon.max < 8
    assert rounds[-1].epsilon.delta == 1e-5


def test_every_pool_is_paid_or_carried_to_the_last_nano(run: Path, rounds: list[RoundRecord]) -> None:
    rows = read_rewards(run / "rewards.csv")
    carried = 0
    for record in rounds[1:]:
        paid = sum(row.payout_nano for row in rows if row.round == record.round)
        assert record.carried_nano == carried
        carried = record.pool_nano + record.carried_nano - paid
        assert paid in (0, record.pool_nano + record.carried_nano)
        assert record.accepted or paid == 0


def test_certificates_verify_and_fail_after_any_change(run: Path, rounds: list[RoundRecord]) -> None:
    accepted = [record.round for record in rounds[1:] if record.accepted]
    paths = [run / "certificates" / f"round-{number}.json" for number in accepted]
    root = read_vendor_root(pinned_root(paths[0]))
    assert [verify_certificate(path.read_bytes(), vendor_root=root).round_number for path in paths] == accepted
    whole = paths[-1].read_bytes()
    for position in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[position] ^= 1
        with pytest.raises(SealError):
            verify_certificate(bytes(changed), vendor_root=root)
