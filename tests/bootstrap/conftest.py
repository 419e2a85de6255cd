"""A public ledger of 8 accounts, and the preset that fits it."""

from pathlib import Path

import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap import pretrain as pretrain_module
from nerv_fl.bootstrap import sweep, workers
from tests.bootstrap.tiny import CHAINS, STEPS, TINY


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pretrain_module, workers, sweep):
        monkeypatch.setattr(module, "get_preset", lambda name: TINY)


@pytest.fixture(scope="session")
def ledger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("public") / "ledger.h5"
    generate_ledger(
        path, LedgerShape(chains=CHAINS, steps=STEPS, accounts=8, max_transactions=6, profile="genesis", seed=5)
    )
    return path
