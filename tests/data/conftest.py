"""The small ledger, written anew for each test."""

from pathlib import Path

import pytest

from tests.data.small_ledger import write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "ledger.h5")
    return tmp_path / "ledger.h5"
