from pathlib import Path

import pytest

from datagen.consensus.generate import RaceShape, generate_races

SHAPE = RaceShape(shards=70, races=64, accounts=1024, max_transactions=12, seed=3)
"""Two parts: a block of the ledger holds fewer shards."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("consensus") / "races.h5"
    generate_races(path, SHAPE)
    return path
