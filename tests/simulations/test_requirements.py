"""What a setting needs is looked for before a folder is made, or any data."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from nerv_fl.crypto.sealed_storage import MACHINE_VARIABLE
from nerv_fl.errors import ConfigError, NervError, SetupError, TaskError
from nerv_fl.ray_cluster import LOCAL
from simulations.prepare import claimed_folder, open_folder, prepare
from simulations.requirements import require_devices
from tests.federation.tiny_run import tiny_config


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module that raises while it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "broken_task.py"
    path.write_text("import json\n\njson.loads('{')\n")
    return path


def refused(tmp_path: Path, settings: dict[str, object], *, ray: str = LOCAL) -> NervError:
    """Return what refuses these settings; nothing was made."""
    out = tmp_path / "runs" / "run"
    with pytest.raises(NervError) as caught, claimed_folder(out, tiny_config(settings), resume=False, ray=ray):
        pass
    assert not out.parent.exists()
    return caught.value


@pytest.mark.parametrize("setting", ["training.device", "bootstrap.device"])
def test_a_device(tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    error = refused(tmp_path, {setting: "cuda"})
    assert type(error) is SetupError
    assert str(error) == f"{setting} is 'cuda', expected 'cpu': torch finds no such device here"


def test_nodes_of_a_cluster_have_devices_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    require_devices(tiny_config({"training.device": "cuda"}), is_local=False)
    with pytest.raises(SetupError, match=r"^training\.device is 'cuda'"):
        require_devices(tiny_config({"training.device": "cuda"}), is_local=True)


def test_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    error = refused(tmp_path, {"tracking.tensorboard": True})
    assert type(error) is SetupError
    assert str(error).startswith("tracking.tensorboard is true, but tensorboard is not installed: ")


def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=12_345_678))
    error = refused(tmp_path, {})
    assert type(error) is SetupError
    expected = rf"{tmp_path}/runs/run: 12,345,678 bytes are free on its disk, expected at least 20,\d\d\d,\d\d\d"
    assert re.fullmatch(expected, str(error))


def test_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.delenv(MACHINE_VARIABLE, raising=False)
    error = refused(tmp_path, {"enclave.place": "process"})
    assert type(error) is SetupError
    assert re.match(
        r"user \d+ has no home folder, expected the variable HOME, or NERV_FL_MACHINE with a file", str(error)
    )


def test_a_cluster(tmp_path: Path) -> None:
    error = refused(tmp_path, {}, ray="127.0.0.1:1")
    assert type(error) is ConfigError
    assert str(error).startswith("ray is '127.0.0.1:1', expected the address of a running cluster (")


def test_a_task_that_can_be_imported(tmp_path: Path, broken: Path) -> None:
    error = refused(tmp_path, {"task": "broken_task:Task"})
    assert type(error) is TaskError
    assert str(error).startswith(f"{broken}:3, in <module>, raised JSONDecodeError: ")


def test_a_sweep_or_script_that_claims_no_folder_is_told_before_its_data_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = open_folder(tmp_path / "run", tiny_config({"training.device": "cuda"}), resume=False)
    with pytest.raises(SetupError, match=r"^training\.device is 'cuda'"):
        prepare(folder)
    assert not (folder.root / "data").exists()
