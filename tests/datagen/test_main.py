"""The two ways to generate a ledger ask for the same one."""

import inspect
from pathlib import Path

import pytest

from datagen import __main__ as datagen_main
from nerv_fl.cli.main import datagen_ledger


def test_defaults_are_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, object] = {}

    def generate(_path: Path, **settings: object) -> object:
        asked.update(settings)
        raise OSError("nothing is written")

    monkeypatch.setattr(datagen_main, "generate_ledger", generate)
    assert datagen_main.main(["ledger", "--out", str(tmp_path / "a.h5")]) == 1
    parameters = inspect.signature(datagen_ledger).parameters
    assert {name: parameters[name].default for name in asked} == asked
