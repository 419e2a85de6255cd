"""Folders that appear whole or not at all, and the checksums that travel with them.

`sha256sum -c SHA256SUMS` checks such a folder wherever it lands.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import sync

SUMS_FILE: Final = "SHA256SUMS"
SUM_KEY: Final = "sha256"
"""Field of a JSON object that holds the SHA-256 of its other fields."""
SUMS_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes another one once it is whole.

    Args:
        out: Folder to make; it must be new or empty.

    Raises:
        ConfigError: If it is neither.
        OSError: If it cannot be written.

    Guarantees:
        Whatever stops the writer, the path is as it was or holds the whole folder, on the disk.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"out is {out}, a file or a link, expected a new or empty folder")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out is {out}, which holds {len(list(out.iterdir()))} files, expected a new or empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield staged
        staged.chmod(0o755)
        for path in (*staged.rglob("*"), staged):
            sync(path)
        staged.replace(out)
        sync(out.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def walk(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted; a link is an error, since it may lead anywhere.

    Raises:
        DataError: If there is a link or a device.
    """
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError(f"{path} is a link or a device, expected plain files and folders")
    return [path for path in paths if path.is_file()]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path) -> str:
    """Copy a file to a folder that is made if need be, and return the SHA-256 of what was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(2**20):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write the checksums of a folder's files, by their names in it."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    (folder / SUMS_FILE).write_bytes("".join(lines).encode())


def with_sum(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the SHA-256 of its other fields."""
    fields = {key: value for key, value in table.items() if key != SUM_KEY}
    return fields | {SUM_KEY: _sum_of(fields)}


def has_sum(table: Mapping[str, Any]) -> bool:
    """Return whether a JSON object holds the SHA-256 of its other fields.

    >>> has_sum(with_sum({"run": "a"})), has_sum({"run": "a"}), has_sum(with_sum({"run": "a"}) | {"run": "b"})
    (True, False, False)
    """
    return table.get(SUM_KEY) == _sum_of({key: value for key, value in table.items() if key != SUM_KEY})


def _sum_of(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def verify_bundle(folder: Path) -> tuple[Path, ...]:
    """Check that a bundle holds exactly the files it lists, unchanged.

    Args:
        folder: The bundle.

    Returns:
        The files it lists, in that order.

    Raises:
        DataError: If the list is missing or damaged or leads out of the folder, or a file is missing, changed, a link,
            or not listed.
    """
    listed = _listed(folder / SUMS_FILE)
    found = {path.relative_to(folder).as_posix(): path for path in walk(folder)}
    for name, expected in listed.items():
        path = folder / name
        if name not in found:
            raise DataError(f"{path} does not exist, expected a file of SHA-256 {expected} ({folder / SUMS_FILE})")
        digest = sha256_of(path)
        if digest != expected:
            raise DataError(f"{path}: its SHA-256 is {digest}, expected {expected} ({folder / SUMS_FILE})")
    for name in sorted(found.keys() - listed.keys() - {SUMS_FILE}):
        raise DataError(f"{folder / name} is not listed, expected only the {len(listed)} files of {folder / SUMS_FILE}")
    return tuple(folder / name for name in listed)


def _listed(path: Path) -> dict[str, str]:
    """Return the hash that a list of checksums gives each file."""
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected the checksums of a bundle: they are written last")
    listed: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = SUMS_LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: {line!r}, expected a SHA-256, two spaces and a file")
        digest, name = match.groups()
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or plain.as_posix() != name or name == SUMS_FILE:
            raise DataError(f"{path}, line {number}: file {name!r}, expected one below the bundle's folder")
        if name in listed:
            raise DataError(f"{path}, line {number}: file {name!r} is listed twice, expected once")
        listed[name] = digest
    if not listed:
        raise DataError(f"{path} lists no file, expected at least one")
    return listed
