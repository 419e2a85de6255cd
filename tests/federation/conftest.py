"""A run that nobody disturbed, and copies of the prepared one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nerv_fl.crypto.sealed_storage import MACHINE_VARIABLE
from nerv_fl.enclave.create_identity import prepare_identity
from nerv_fl.server.run_folder import RunFolder
from tests.federation.tiny_run import copy_run, run_rounds

NewRun = Callable[..., RunFolder]


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """Return a function that copies the prepared run under a name, with other settings."""

    def copy(name: str = "run", **overrides: object) -> RunFolder:
        return copy_run(tmp_path / name, **overrides)

    return copy


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's machine keeps its secret."""
    path = tmp_path / "machine.secret"
    monkeypatch.setenv(MACHINE_VARIABLE, str(path))
    return path


@pytest.fixture
def new_apart(new_run: NewRun, machine: Path) -> NewRun:
    """Return a function that copies the prepared run, with an enclave in a process of its own that holds new keys."""

    def copy(name: str = "run", **overrides: object) -> RunFolder:
        folder = new_run(name, **{"enclave.place": "process"} | overrides)
        shutil.rmtree(folder.enclave)
        prepare_identity(folder.enclave, run=str(folder.read_manifest()["run"]), place="process")
        assert machine.exists()
        return folder

    return copy


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of three rounds; read it, never change it."""
    folder = copy_run(tmp_path_factory.mktemp("undisturbed") / "run")
    run_rounds(folder)
    return folder
