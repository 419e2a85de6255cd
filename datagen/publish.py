"""Bundles: a data set with its card, its licence and its checksums, ready to publish.

    ledger.h5  ledger.h5.card.md  ledger.h5.card/NAME.svg  LICENSE  SHA256SUMS

`sha256sum -c SHA256SUMS` checks one wherever it lands. A folder becomes a bundle of everything in it.
"""

import hashlib
import re
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Final

from datagen.card import card_paths
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.checksums import SUMS_FILE, copy_file, staged_folder, walk, write_sums

LICENCE_FILE: Final = "LICENSE"


def write_bundle(source: Path, out: Path) -> Path:
    """Write the bundle of a data file or folder that has a card.

    Args:
        source: The data.
        out: Folder to make; it must be new or empty.

    Returns:
        The folder.

    Raises:
        ConfigError: If the folder is not empty, or lies in the source.
        DataError: If the data or its card is missing, or a file cannot stand in a bundle: a link, a hidden file, or
            one named like the licence or the checksums.
        OSError: If the bundle cannot be written.

    Guarantees:
        The folder appears under its name only when it is whole; its checksums are written last.
    """
    files = _members(source)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"out is {out}, expected a folder outside the data {source}")
    with staged_folder(out) as folder:
        sums = {name: copy_file(path, folder / name) for name, path in files.items()}
        licence = resources.files("datagen").joinpath("LICENSE-DATA.md").read_bytes()
        (folder / LICENCE_FILE).write_bytes(licence)
        sums[LICENCE_FILE] = hashlib.sha256(licence).hexdigest()
        write_sums(folder, sums)
    return out


def _members(source: Path) -> dict[str, Path]:
    """Return the files of a bundle, the data and its card, by their names in it."""
    if not source.exists():
        raise DataError(f"{source} does not exist, expected the data to publish")
    page, figures = card_paths(source)
    if not page.is_file():
        raise DataError(f"{page} does not exist, expected the card of {source}: data is published with one")
    root = source if source.is_dir() else source.parent
    paths = walk(source) if source.is_dir() else [source, page, *walk(figures)]
    members = {path.relative_to(root).as_posix(): path for path in paths}
    for name, path in members.items():
        if name in {LICENCE_FILE, SUMS_FILE}:
            raise DataError(f"{path} has the name of a bundle's own file, expected another")
        if any(part.startswith(".") for part in PurePosixPath(name).parts) or re.search(r"[\\\r\n]", name):
            raise DataError(f"{path} has the name {name!r}, expected no hidden file, backslash or line break")
    return members
