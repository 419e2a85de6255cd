"""One entry of the registry: a folder named by the hash of its content.

    STORE/<sha256>/entry.json     what it is, and the hash of each file
    STORE/<sha256>/files/...      the files

An entry of one file is named by that file's SHA-256, one of a folder by that of its list of checksums, as
`sha256sum` writes it, sorted by name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from nerv_fl.errors import DataError
from nerv_fl.io.checksums import sha256_of, walk

ENTRY_FILE: Final = "entry.json"
FILES: Final = "files"
SHORT: Final = 12
"""Digits of a hash that are shown."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the registry knows of an artefact.

    Attributes:
        sha256: Hash of its content: its name on disk.
        name: Its name for people; several may share one.
        kind: encoder, predictor or forecaster.
        form: "weights" for a model file, "training" for a training's folder, else the format of an export.
        preset: Name of its sizes; empty where there is one size only.
        added: When, in UTC, ISO 8601.
        size_bytes: Size of all files.
        headline: Its first measure, beside the trivial models; empty if nothing was measured.
        files: SHA-256 of each file, by its name.
        manifest: Everything else, as an export's manifest has it.
    """

    sha256: str
    name: str
    kind: str
    form: str
    preset: str
    added: str
    size_bytes: int
    headline: str
    files: Mapping[str, str]
    manifest: Mapping[str, Any]

    def to_text(self) -> str:
        """Return the entry as JSON, with a hash of what it says."""
        facts = asdict(self)
        return json.dumps(facts | {"facts_sha256": _digest(facts)}, indent=1) + "\n"


def content_hash(files: Mapping[str, str], *, is_folder: bool) -> str:
    """Return the name of a content: of a folder's list of checksums, or of its one file.

    Args:
        files: SHA-256 of each file, by its name.
        is_folder: Whether the content is a folder.
    """
    if not is_folder:
        (digest,) = files.values()
        return digest
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_entry(folder: Path) -> Entry:
    """Read what the registry knows of an entry, without looking at its files.

    Raises:
        DataError: If it is missing or not as it was written.
    """
    path = folder / ENTRY_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} does not exist, expected what the registry knows of {folder.name[:SHORT]}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}), expected an entry of the registry") from error
    if not isinstance(facts, dict) or facts.pop("facts_sha256", None) != _digest(facts):
        raise DataError(f"{path} does not have the content it was written with")
    try:
        entry = Entry(**facts)
    except TypeError as error:
        raise DataError(f"{path} is of another version ({error}), expected an entry as this one writes them") from error
    if entry.sha256 != folder.name:
        raise DataError(f"{path} is of content {entry.sha256}, expected that of its folder, {folder.name}")
    return entry


def check_files(folder: Path, entry: Entry) -> None:
    """Compare every file of an entry with its hash.

    Raises:
        DataError: If a file is missing, changed, or not listed.
    """
    root = folder / FILES
    found = {path.relative_to(root).as_posix(): path for path in walk(root)}
    for name, expected in entry.files.items():
        if name not in found:
            raise DataError(f"{root / name} does not exist, expected a file of SHA-256 {expected}")
        digest = sha256_of(found[name])
        if digest != expected:
            raise DataError(f"{root / name} has SHA-256 {digest}, expected {expected}: it was changed")
    for name in sorted(found.keys() - entry.files.keys()):
        raise DataError(f"{root / name} is not listed, expected only the {len(entry.files)} files of the entry")


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
