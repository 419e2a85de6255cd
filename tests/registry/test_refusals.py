"""What the registry refuses, or finds: strangers, other versions, other names."""

import hashlib
import json
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.registry import Registry
from nerv_fl.registry.entry import Entry


def test_an_export_holds_what_its_manifest_lists_and_nothing_else(registry: Registry, exported: Path) -> None:
    (exported / ".env").write_text("secret")
    with pytest.raises(DataError, match=r"\.env is not listed, expected only the files of .*manifest\.json$"):
        registry.add(exported)
    (exported / ".env").unlink()
    manifest = json.loads((exported / "manifest.json").read_text())
    outside = exported.parent / "outside"
    outside.write_text("not ours")
    changed = {
        **manifest,
        "files": {**manifest["files"], "../outside": {"sha256": hashlib.sha256(outside.read_bytes()).hexdigest()}},
    }
    (exported / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match=r"outside does not exist, expected a file of the export$"):
        registry.add(exported)
    (exported / "manifest.json").write_text(json.dumps({**manifest, "format": "weights"}))
    with pytest.raises(
        DataError, match=r"has format 'weights', expected one of: safetensors, onnx, torchscript, bincode$"
    ):
        registry.add(exported)
    assert not registry.entries()


def test_an_entry_of_another_version_is_named_and_stops_nothing(registry: Registry, added: Entry) -> None:
    path = registry.root / added.sha256 / "entry.json"
    facts = json.loads(path.read_text())
    facts.pop("facts_sha256")
    facts["later"] = 1
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**facts, "facts_sha256": digest}))
    (registry.root / ("a" * 64)).write_text("a file, no folder")
    found = registry.damage()
    assert len(found) == 2
    assert "is of another version" in found[0] + found[1]
    assert registry.holding("0" * 64) is None


def test_what_is_added_again_is_whole_and_has_its_name(registry: Registry, weights: Path) -> None:
    first = registry.add(weights, name="mine")
    assert registry.add(weights, name="mine") == registry.add(weights) == first
    with pytest.raises(ConfigError, match=r"^name is 'yours', expected 'mine': .* holds this content under it$"):
        registry.add(weights, name="yours")
    file = registry.path_of(first) / weights.name
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"has SHA-256 \w{64}, expected \w{64}: it was changed$"):
        registry.add(weights)


def test_a_stranger_beside_an_entrys_files_is_named(registry: Registry, added: Entry) -> None:
    stranger = registry.root / added.sha256 / "more.txt"
    stranger.write_text("x")
    message = f"{stranger} is no part of an entry, expected entry.json and the folder files"
    assert registry.damage() == [message]
    stranger.unlink()
    files = registry.path_of(added)
    files.rename(registry.root.parent / "elsewhere")
    files.symlink_to(registry.root.parent / "elsewhere")
    assert registry.damage() == [f"{files} is no part of an entry, expected entry.json and the folder files"]
