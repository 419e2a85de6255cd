"""What is added comes back, once; what was changed is found and named."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from nerv_fl.errors import CheckpointError, ConfigError, DataError
from nerv_fl.io.checksums import copy_file
from nerv_fl.registry import Registry, open_registry, store
from nerv_fl.registry.entry import Entry
from nerv_fl.registry.inspect import Content
from nerv_fl.registry.store import _write


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_file_is_named_by_its_own_hash(registry: Registry, weights: Path) -> None:
    entry = registry.add(weights)
    assert entry.sha256 == sha256(weights)
    assert (registry.path_of(entry) / "encoder.safetensors").read_bytes() == weights.read_bytes()
    assert (entry.name, entry.kind, entry.form, entry.preset) == (
        "encoder-quickstart",
        "encoder",
        "weights",
        "quickstart",
    )
    assert entry.size_bytes == weights.stat().st_size
    assert entry.headline == "masked cross-entropy, nats 3.2 (unigram 3.7, per account 3.05)"
    assert entry.manifest["facts"] == {"movement_floor": 0.25, "epsilon": None}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry.added)
    assert registry.entries() == [entry]


def test_a_trainings_folder_is_named_by_its_list_of_checksums(registry: Registry, training: Path) -> None:
    entry = registry.add(training)
    names = ["encoder.safetensors", "metrics.json", "training.log"]
    assert list(entry.files) == names
    lines = "".join(f"{sha256(training / name)}  {name}\n" for name in names)
    assert entry.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert (entry.name, entry.form) == ("encoder-quickstart-training", "training")
    assert list(entry.manifest["files"]) == names


def test_an_export_keeps_its_manifest(registry: Registry, exported: Path) -> None:
    entry = registry.add(exported, name="rust")
    assert (entry.name, entry.form) == ("rust", "bincode")
    assert entry.manifest == json.loads((exported / "manifest.json").read_text())
    assert sorted(entry.files) == ["README.md", "encoder.bin", "manifest.json"]


def test_the_same_content_twice_is_one_entry(registry: Registry, training: Path, tmp_path: Path) -> None:
    first = registry.add(training, name="first")
    again = tmp_path / "elsewhere"
    shutil.copytree(training, again)
    assert registry.add(again) == first
    assert registry.entries() == [first]
    (again / "training.log").write_text("another log")
    assert registry.add(again).sha256 != first.sha256
    assert len(registry.entries()) == 2


def test_entries_are_found_by_name_and_by_the_first_digits(registry: Registry, weights: Path, exported: Path) -> None:
    entry = registry.add(weights, name="mine")
    other = registry.add(exported)
    assert registry.find("mine") == registry.find(entry.sha256) == registry.find(entry.sha256[:6]) == entry
    assert registry.find("encoder-quickstart-bincode") == other
    assert registry.holding(sha256(weights)) == entry
    assert registry.holding("0" * 64) is None


def refused(registry: Registry, reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        registry.find(reference)


def test_unknown_and_ambiguous_names(registry: Registry, weights: Path, training: Path) -> None:
    root = registry.root
    refused(registry, "mine", f"model 'mine' is not in {root}, expected something in it: it is empty")
    one, two = registry.add(weights, name="mine"), registry.add(training, name="mine")
    hashes = ", ".join(entry.sha256[:12] for entry in sorted((one, two), key=lambda entry: (entry.added, entry.sha256)))
    refused(registry, "mine", f"model 'mine' is 2 entries of {root}, expected one of: {hashes}")
    refused(registry, "mime", f"model 'mime' is not in {root}, expected one of: mine (did you mean 'mine'?)")
    refused(registry, one.sha256[:5], f"model {one.sha256[:5]!r} is not in {root}, expected one of: mine")


@pytest.mark.parametrize("name", ["a b", "../up", "x" * 65, "-x"])
def test_a_name_that_is_none(registry: Registry, weights: Path, name: str) -> None:
    message = f"name is {name!r}, expected 1 to 64 letters, digits, dots, dashes and underscores"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        registry.add(weights, name=name)
    assert not registry.root.exists()


# --- Damage -----------------------------------------------------------------------------------------------------------


def damaged(registry: Registry, entry: Entry, message: str) -> None:
    assert registry.damage() == [message]
    if "entry.json" not in message:
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            registry.check(entry)


def test_a_whole_registry_has_no_damage(registry: Registry, added: Entry, weights: Path, exported: Path) -> None:
    registry.add(weights)
    registry.add(exported)
    assert registry.damage() == []
    assert Registry(registry.root / "none").damage() == []


def test_a_changed_file_is_named(registry: Registry, added: Entry) -> None:
    path = registry.path_of(added) / "training.log"
    path.write_text("step 1: loss 3\n")
    damaged(
        registry, added, f"{path} has SHA-256 {sha256(path)}, expected {added.files['training.log']}: it was changed"
    )


def test_a_missing_file_is_named(registry: Registry, added: Entry) -> None:
    path = registry.path_of(added) / "metrics.json"
    path.unlink()
    damaged(registry, added, f"{path} does not exist, expected a file of SHA-256 {added.files['metrics.json']}")


def test_a_stranger_is_named(registry: Registry, added: Entry) -> None:
    path = registry.path_of(added) / "extra"
    path.write_text("x")
    damaged(registry, added, f"{path} is not listed, expected only the 3 files of the entry")
    path.unlink()
    (registry.root / "thesis.tex").write_text("precious")
    assert registry.damage() == [
        f"{registry.root / 'thesis.tex'} is no entry, expected folders named by a SHA-256",
    ]


def test_an_entry_that_was_edited_is_named(registry: Registry, added: Entry) -> None:
    path = registry.root / added.sha256 / "entry.json"
    text = path.read_text()
    path.write_text(text.replace('"kind": "encoder"', '"kind": "forecaster"', 1))
    damaged(registry, added, f"{path} does not have the content it was written with")
    with pytest.raises(DataError, match=r"does not have the content it was written with$"):
        registry.entries()
    assert registry.holding(added.files["metrics.json"]) is None
    path.write_text(text[:40])
    with pytest.raises(DataError, match=rf"^{path} is not JSON \(.*\), expected an entry of the registry$"):
        registry.entries()
    path.unlink()
    damaged(registry, added, f"{path} does not exist, expected what the registry knows of {added.sha256[:12]}")


def test_an_entry_in_the_place_of_another_is_named(registry: Registry, added: Entry) -> None:
    other = "0" * 64
    shutil.copytree(registry.root / added.sha256, registry.root / other)
    path = registry.root / other / "entry.json"
    assert registry.damage() == [f"{path} is of content {added.sha256}, expected that of its folder, {other}"]


# --- What cannot be added ---------------------------------------------------------------------------------------------


def test_an_export_that_was_changed_is_refused(registry: Registry, exported: Path) -> None:
    path = exported / "encoder.bin"
    before = sha256(path)
    path.write_bytes(path.read_bytes() + b"\n")
    message = f"{path} has SHA-256 {sha256(path)}, expected {before} ({exported / 'manifest.json'})"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        registry.add(exported)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"manifest\.json is not JSON \(.*\), expected the manifest of an export$"),
        ('{"schema": "other"}', r"manifest\.json has schema 'other', expected 'nerv-fl export 1'$"),
        ("[]", r"manifest\.json has schema 'list', expected 'nerv-fl export 1'$"),
        (
            '{"schema": "nerv-fl export 1", "kind": "encoder", "preset": "tee", "format": 3, "files": {}}',
            r"manifest\.json lacks format, licence, facts, metrics, expected the manifest of an export$",
        ),
    ],
)
def test_a_foreign_manifest_is_refused(registry: Registry, exported: Path, text: str, message: str) -> None:
    (exported / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        registry.add(exported)


def test_a_folder_with_two_models_is_refused(registry: Registry, training: Path) -> None:
    shutil.copy(training / "encoder.safetensors", training / "predictor.safetensors")
    message = f"{training} holds 2 models, expected one: add each of its files"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        registry.add(training)


def test_a_run_is_exported_first(registry: Registry, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    message = f"{run} holds a run, expected a model or an export of it: `nerv-fl export` writes one"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        registry.add(run)


def test_a_damaged_model_is_refused(registry: Registry, weights: Path) -> None:
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + b"\x00\x00\xc0\x7f")
    with pytest.raises(
        CheckpointError, match=r"holds NaN or infinite numbers in positions\.weight, expected finite ones$"
    ):
        registry.add(weights)


def test_no_disk_leaves_nothing(registry: Registry, training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> str:
        if target.name == "training.log":
            raise OSError(28, "No space left on device", str(target))
        return copy_file(source, target)

    monkeypatch.setattr(store, "copy_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        registry.add(training)
    assert list(registry.root.iterdir()) == []


def test_a_file_that_changes_while_it_is_read(
    registry: Registry, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "copy_file", lambda source, target: "0" * 64)
    message = r"encoder\.safetensors has SHA-256 0{64}, expected [0-9a-f]{64}: it changed meanwhile$"
    with pytest.raises(DataError, match=message):
        registry.add(training)
    assert registry.entries() == []


def test_two_who_add_the_same_at_once_have_one_entry(
    registry: Registry, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(entry: Entry, content: Content, folder: Path) -> None:
        monkeypatch.setattr(store, "_write", _write)
        registry.add(training, name="faster")
        _write(entry, content, folder)

    monkeypatch.setattr(store, "_write", slow)
    assert registry.add(training, name="slower").name == "faster"
    assert [entry.name for entry in registry.entries()] == ["faster"]


def test_the_folder_is_the_one_given_or_the_environments_or_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERV_FL_MODELS", str(tmp_path / "theirs"))
    assert open_registry(tmp_path / "mine").root == tmp_path / "mine"
    assert open_registry().root == tmp_path / "theirs"
    monkeypatch.delenv("NERV_FL_MODELS")
    assert open_registry().root == Path("models")
