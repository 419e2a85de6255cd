import shutil
from pathlib import Path

import pytest

from datagen.sharding import generate_load

SHARDS, STEPS, SEED = 60, 400, 7


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A load file of three parts."""
    path = tmp_path_factory.mktemp("load") / "load.h5"
    generate_load(path, shards=SHARDS, steps=STEPS, seed=SEED)
    return path


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copy(made, tmp_path / "load.h5"))
