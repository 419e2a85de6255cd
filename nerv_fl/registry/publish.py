"""A publishable bundle of one entry: model, manifest, card, logs, licence and checksums.

    <the entry's files>  manifest.json  README.md  logs/NAME  LICENSE  SHA256SUMS

`sha256sum -c SHA256SUMS` and `nerv_fl.io.checksums.verify_bundle` check one wherever it lands.
"""

import re
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.checksums import SUMS_FILE, copy_file, sha256_of, staged_folder, walk, write_sums
from nerv_fl.models.export.card import CARD_FILE, write_card
from nerv_fl.models.export.manifest import MANIFEST_FILE, write_manifest
from nerv_fl.registry.entry import Entry
from nerv_fl.registry.store import Registry

LICENCE_FILE: Final = "LICENSE"
LOGS: Final = "logs"
ABSOLUTE: Final = re.compile(r"(?<![\w./<>~-])/[\w.~-]+(?:/[\w.~-]+)+|(?<!\w)[A-Za-z]:\\[\w.\\-]+")
"""An absolute path of two parts or more, or one of Windows; not the rest of an address or of a relative path."""
TEXT: Final = 8192
"""Bytes without a zero among them make a text."""


def write_model_bundle(registry: Registry, entry: Entry, *, out: Path, logs: Sequence[Path] = ()) -> Path:
    """Write the bundle of an entry.

    Args:
        registry: Where it lies.
        entry: What to publish.
        out: Folder to make; it must be new or empty.
        logs: Files of its training to publish with it.

    Returns:
        The folder.

    Raises:
        ConfigError: If the folder is not empty, or two logs share a name.
        DataError: If a file of the entry was changed, a log is missing, a name is the bundle's own, or a text names a
            path of the machine that it was written on.
        OSError: If the bundle cannot be written.

    Guarantees:
        The folder appears under its name only when it is whole; its checksums are written last.
    """
    registry.check(entry)
    _check_names(entry, logs)
    root = registry.path_of(entry)
    with staged_folder(out) as folder:
        for name in entry.files:
            copy_file(root / name, folder / name)
        if MANIFEST_FILE not in entry.files:
            write_manifest(folder, entry.manifest)
            write_card(folder, entry.manifest)
        for log in logs:
            copy_file(log, folder / LOGS / log.name)
        (folder / LICENCE_FILE).write_text(_licence(), encoding="utf-8")
        _check_paths(folder)
        write_sums(folder, {path.relative_to(folder).as_posix(): sha256_of(path) for path in walk(folder)})
    return out


def _check_names(entry: Entry, logs: Sequence[Path]) -> None:
    own = {LICENCE_FILE, SUMS_FILE} | (set() if MANIFEST_FILE in entry.files else {CARD_FILE})
    for name in sorted(own & entry.files.keys()):
        raise DataError(f"{name} of model {entry.name!r} has the name of a bundle's own file, expected another")
    names = [log.name for log in logs]
    for log in logs:
        if not log.is_file():
            raise DataError(f"{log} does not exist, expected a log to publish")
        if names.count(log.name) > 1:
            raise ConfigError(f"log {log.name!r} is given twice, expected names that differ")


def _check_paths(folder: Path) -> None:
    """Refuse texts that name absolute paths: user names and folders of a machine are nobody else's business."""
    for path in walk(folder):
        data = path.read_bytes()
        found = None if b"\0" in data[:TEXT] else ABSOLUTE.search(data.decode("utf-8", errors="replace"))
        if found:
            raise DataError(
                f"{path.relative_to(folder)} of the bundle names {found[0]}, a path of a machine, expected none in "
                "what is published: take it out"
            )


def _licence() -> str:
    text = distribution("nerv-fl").read_text("licenses/LICENSE")
    if text is None:
        raise DataError("the installed nerv-fl holds no licenses/LICENSE, expected the licence of the models")
    return text
