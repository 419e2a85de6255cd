"""An entry gets another name or goes, at once and for good; whatever stops either, the registry is whole."""

import json
import re
import shutil
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.registry import Registry, store
from nerv_fl.registry.entry import Entry, read_entry


def names(registry: Registry) -> list[str]:
    return sorted(entry.name for entry in registry.entries())


def test_a_renamed_entry_is_the_same_content(registry: Registry, added: Entry) -> None:
    renamed = registry.rename("encoder-quickstart-training", "best")
    assert renamed == registry.find("best") == registry.find(added.sha256)
    assert (renamed.sha256, renamed.files, renamed.added) == (added.sha256, added.files, added.added)
    assert names(registry) == ["best"]
    assert registry.damage() == []
    assert registry.rename("best", "best") == renamed


def test_two_entries_of_one_name_are_told_apart_by_hash(registry: Registry, weights: Path, training: Path) -> None:
    one, two = registry.add(weights, name="mine"), registry.add(training, name="mine")
    assert registry.rename(one.sha256[:10], "yours").sha256 == one.sha256
    assert registry.find("mine") == two
    message = f"name is 'mine', expected another: model {two.sha256[:12]} of {registry.root} has it"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        registry.rename("yours", "mine")
    assert names(registry) == ["mine", "yours"]


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_what_is_not_there_is_neither_renamed_nor_removed(registry: Registry, added: Entry, change: str) -> None:
    arguments = ("best",) if change == "rename" else ()
    for unknown in ("bets", "0" * 64):
        message = f"model '{unknown}' is not in {registry.root}, expected one of: encoder-quickstart-training"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
            getattr(registry, change)(unknown, *arguments)
    assert registry.entries() == [added]


@pytest.mark.parametrize("name", ["", "a b", "../up", "x" * 65])
def test_a_new_name_that_is_none(registry: Registry, added: Entry, name: str) -> None:
    message = f"name is {name!r}, expected 1 to 64 letters, digits, dots, dashes and underscores"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        registry.rename(added.name, name)
    assert registry.entries() == [added]


def test_a_removed_entry_leaves_those_that_hold_the_same_files(
    registry: Registry, weights: Path, training: Path
) -> None:
    one, two = registry.add(weights), registry.add(training)
    file_hash = one.sha256
    assert registry.holding(file_hash) == min((one, two), key=lambda entry: (entry.added, entry.sha256))
    assert registry.remove(one.name) == one.sha256
    assert registry.entries() == [two]
    assert registry.holding(file_hash) == two
    assert registry.damage() == []
    assert [path.name for path in registry.root.iterdir()] == [two.sha256]
    assert registry.add(weights).sha256 == one.sha256


def test_a_damaged_entry_is_removed_by_its_whole_hash(registry: Registry, added: Entry, weights: Path) -> None:
    other = registry.add(weights)
    (registry.root / added.sha256 / "entry.json").write_text("{")
    with pytest.raises(DataError, match=r"is not JSON"):
        registry.remove(other.name)
    assert registry.remove(added.sha256) == added.sha256
    assert registry.entries() == [other]
    assert registry.damage() == []


def test_a_hash_that_is_no_folder_of_the_registry(registry: Registry, added: Entry, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (registry.root / ("a" * 64)).symlink_to(elsewhere)
    with pytest.raises(DataError, match=r"entry\.json does not exist, expected what the registry knows of a{12}$"):
        registry.remove("a" * 64)
    assert elsewhere.is_dir()


# --- Cut short --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing after it runs but what `finally` undoes."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def half_written(path: Path, data: bytes) -> None:
    path.write_bytes(data[: len(data) // 2])
    raise Killed


def half_removed(folder: Path, **_: object) -> None:
    """Remove one file and die; an empty folder, as the first death left one, goes whole."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not files:
        folder.rmdir()
        return
    files[0].unlink()
    raise Killed


def test_a_rename_that_is_cut_short(registry: Registry, added: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (registry.root / added.sha256 / "entry.json").read_bytes()
    monkeypatch.setattr(store, "write_atomically", half_written)
    with pytest.raises(Killed):
        registry.rename(added.name, "best")
    monkeypatch.undo()
    assert (registry.root / added.sha256 / "entry.json").read_bytes() == before
    assert len(list(registry.root.iterdir())) == 2
    assert registry.damage() == []
    assert registry.rename(added.name, "best").name == "best"
    assert [path.name for path in registry.root.iterdir()] == [added.sha256]


def test_a_removal_that_is_cut_short(
    registry: Registry, added: Entry, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = registry.add(weights)
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        registry.remove(added.name)
    monkeypatch.undo()
    assert registry.find(added.name) == added
    assert registry.damage() == []
    monkeypatch.setattr(shutil, "rmtree", half_removed)
    with pytest.raises(Killed):
        registry.remove(added.name)
    monkeypatch.undo()
    assert registry.entries() == [other]
    assert registry.damage() == []
    assert len(list(registry.root.iterdir())) > 1
    registry.remove(other.name)
    assert list(registry.root.iterdir()) == []


def test_what_goes_while_all_is_verified_is_no_damage(
    registry: Registry, added: Entry, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(weights)

    def slow(folder: Path) -> Entry:
        if folder.exists() and folder.name == added.sha256:
            entry = read_entry(folder)
            registry.remove(added.sha256)
            return entry
        return read_entry(folder)

    monkeypatch.setattr(store, "read_entry", slow)
    assert registry.damage() == []
    assert len(registry.entries()) == 1


def test_what_goes_while_all_is_listed_is_not_listed(
    registry: Registry, added: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(folder: Path) -> Entry:
        registry.remove(added.sha256)
        return read_entry(folder)

    monkeypatch.setattr(store, "read_entry", slow)
    assert registry.entries() == []


def test_what_a_rename_writes_is_checked_like_any_entry(registry: Registry, added: Entry) -> None:
    registry.rename(added.name, "best")
    path = registry.root / added.sha256 / "entry.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"name": "worse"}))
    assert registry.damage() == [f"{path} does not have the content it was written with"]
