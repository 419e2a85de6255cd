"""A user's modules beside his model break none of ours, whatever they are called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError, SetupError
from nerv_fl.tasks.registry import TASK_FOLDERS, add_task_folder, find_task
from simulations.requirements import require_no_namesake

ROOT = Path(__file__).parents[1]
THEIRS = "raise RuntimeError('not ours')"
IMPORTS = "import nerv_fl, datagen.ledger, simulations.setups.known; print(datagen.__file__, simulations.__file__)"


def write(folder: Path, name: str, *, package: bool = False, text: str = THEIRS) -> Path:
    path = folder / name / "__init__.py" if package else folder / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("package", [False, True])
def test_ours_are_imported_where_theirs_come_first(tmp_path: Path, package: bool) -> None:
    for name in ("datagen", "simulations"):
        write(tmp_path, name, package=package)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / "datagen/__init__.py"), str(ROOT / "simulations/__init__.py")]


def test_who_loaded_his_own_first_is_warned(tmp_path: Path) -> None:
    path = write(tmp_path, "datagen", text="")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    done = subprocess.run(
        [sys.executable, "-c", "import datagen, nerv_fl"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert f"{path} has the name of a package of nerv_fl, which cannot be used: rename it" in done.stderr


def test_a_task_is_found_beside_its_recipe_and_after_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TASK_FOLDERS, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, "json")
    write(tmp_path, "a_task", text="import json\nfrom nerv_fl.tasks.encoder import EncoderTask as Mine")

    add_task_folder(tmp_path)
    add_task_folder(tmp_path)

    assert find_task("a_task:Mine").__name__ == "EncoderTask"
    assert os.environ[TASK_FOLDERS] == sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_task_that_wants_its_own_datagen_says_whose_it_got(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, "datagen", text="def draw_frauds(): pass")
    write(tmp_path, "wants_datagen", text="from datagen import draw_frauds")

    with pytest.raises(ConfigError) as caught:
        find_task("wants_datagen:Mine")

    assert "cannot import name 'draw_frauds' from 'datagen'" in str(caught.value)
    assert str(caught.value).endswith(f"; {path} has the name of a package of nerv_fl: rename it")


@pytest.mark.parametrize("package", [False, True])
def test_our_main_packages_name_in_the_current_folder_is_refused(
    tmp_path: Path, package: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_no_namesake()
    path = write(tmp_path, "nerv_fl", package=package)

    with pytest.raises(SetupError) as caught:
        require_no_namesake()

    assert str(caught.value) == f"{path} has the name of the package nerv_fl: rename it, or start in another folder"
