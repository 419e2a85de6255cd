"""Bundles: everything that is published, under checksums that any machine can check."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.checksums import verify_bundle, walk
from nerv_fl.models.export.export_source import open_source
from nerv_fl.models.export.write import FORMATS, write_export
from nerv_fl.registry import Registry, write_model_bundle


def test_a_training_is_published_with_card_logs_and_licence(registry: Registry, training: Path, tmp_path: Path) -> None:
    entry = registry.add(training)
    log = tmp_path / "console.txt"
    log.write_text("hello")
    out = write_model_bundle(registry, entry, out=tmp_path / "out", logs=[log])
    names = [path.relative_to(out).as_posix() for path in verify_bundle(out)]
    assert names == [
        "LICENSE",
        "README.md",
        "encoder.safetensors",
        "logs/console.txt",
        "manifest.json",
        "metrics.json",
        "training.log",
    ]
    assert json.loads((out / "manifest.json").read_text()) == entry.manifest
    card = (out / "README.md").read_text()
    assert "| masked cross-entropy, nats | 3.2 | unigram 3.7, per account 3.05 |" in card
    assert 'load_file("encoder.safetensors")' in card
    assert "Apache License" in (out / "LICENSE").read_text()


def test_an_export_is_published_as_it_is(registry: Registry, exported: Path, tmp_path: Path) -> None:
    out = write_model_bundle(registry, registry.add(exported), out=tmp_path / "out")
    for path in exported.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_nothing_damaged_is_published(registry: Registry, training: Path, tmp_path: Path) -> None:
    entry = registry.add(training)
    (registry.path_of(entry) / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match=r"metrics\.json has SHA-256 .*: it was changed$"):
        write_model_bundle(registry, entry, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_with_the_name_of_the_bundles_own(registry: Registry, training: Path, tmp_path: Path) -> None:
    (training / "LICENSE").write_text("mine")
    entry = registry.add(training, name="x")
    message = "LICENSE of model 'x' has the name of a bundle's own file, expected another"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        write_model_bundle(registry, entry, out=tmp_path / "out")


def test_logs_that_are_missing_or_share_a_name(registry: Registry, weights: Path, tmp_path: Path) -> None:
    entry = registry.add(weights)
    none = tmp_path / "none.log"
    with pytest.raises(DataError, match=rf"^{none} does not exist, expected a log to publish$"):
        write_model_bundle(registry, entry, out=tmp_path / "out", logs=[none])
    log = weights.with_name("training.log")
    other = tmp_path / "training.log"
    shutil.copy(log, other)
    with pytest.raises(ConfigError, match=r"^log 'training\.log' is given twice, expected names that differ$"):
        write_model_bundle(registry, entry, out=tmp_path / "out", logs=[log, other])


def published(registry: Registry, path: Path, *, out: Path) -> dict[str, bytes]:
    folder = write_model_bundle(registry, registry.add(path), out=out)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in walk(folder)}


@pytest.mark.parametrize("fmt", FORMATS)
def test_no_path_of_this_machine_is_in_a_bundle(registry: Registry, training: Path, tmp_path: Path, fmt: str) -> None:
    exported = tmp_path / "exported"
    write_export(open_source(training / "encoder.safetensors"), exported, fmt=fmt)
    places = (tmp_path, tmp_path.resolve(), Path.home(), Path(__file__).parents[2])
    here = [str(path).encode() for path in places]
    for path in (exported, training, training / "encoder.safetensors"):
        for name, data in published(registry, path, out=tmp_path / "out" / path.name).items():
            assert not [place for place in here if place in data], name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"path": "/home/me/encoder.safetensors"}', "/home/me/encoder.safetensors"),
        ("wrote:/var/tmp/x", "/var/tmp/x"),
        ("C:\\Users\\me", "C:\\Users\\me"),
        ("caf\xe9 (/srv/data)", "/srv/data"),
    ],
)
def test_a_path_of_a_machine_is_not_published(
    registry: Registry, training: Path, tmp_path: Path, text: str, found: str
) -> None:
    (training / "training.log").write_bytes(text.encode("latin-1"))
    message = f"training.log of the bundle names {found}, a path of a machine, expected none in what is published"
    with pytest.raises(DataError, match=f"^{re.escape(message)}: take it out$"):
        write_model_bundle(registry, registry.add(training), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_only_looks_like_a_path_is_published(registry: Registry, training: Path, tmp_path: Path) -> None:
    text = "https://example.org/a/b runs/1/encoder ./a/b ../a/b ~/a/b a / b 1/2/3 </td></tr> /stop p/q"
    (training / "training.log").write_text(text)
    assert published(registry, training, out=tmp_path / "out")["training.log"] == text.encode()
