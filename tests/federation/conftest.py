"""A run that nobody disturbed, and copies of the prepared one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nerv_fl.server.folder import RunFolder
from tests.federation.tiny_run import copy_run, run_rounds

NewRun = Callable[..., RunFolder]


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """Return a function that copies the prepared run under a name, with other settings."""

    def copy(name: str = "run", **overrides: object) -> RunFolder:
        return copy_run(tmp_path / name, **overrides)

    return copy


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of three rounds; read it, never change it."""
    folder = copy_run(tmp_path_factory.mktemp("undisturbed") / "run")
    run_rounds(folder)
    return folder
