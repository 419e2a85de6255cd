"""The registry: a folder of entries, each added whole or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import sync, write_atomically
from nerv_fl.io.checksums import copy_file, sha256_of, staged_folder
from nerv_fl.models.export.measures import pick_measures
from nerv_fl.registry.entry import ENTRY_FILE, FILES, SHORT, Entry, check_files, content_hash, read_entry
from nerv_fl.registry.inspect import Content, read_content
from nerv_fl.validation import nearest

VARIABLE: Final = "NERV_FL_MODELS"
DEFAULT: Final = "models"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HASH: Final = re.compile(r"[0-9a-f]{64}")
REMOVED: Final = ".removed-"
PART_OF_HASH: Final = re.compile(r"[0-9a-f]{6,64}")


def open_registry(store: Path | None = None) -> "Registry":
    """Return the registry in a folder: the one given, that of `NERV_FL_MODELS`, or `models`.

    The folder need not exist: then it holds nothing yet.
    """
    return Registry(store or Path(os.environ.get(VARIABLE) or DEFAULT))


@dataclass(frozen=True)
class Registry:
    """A registry.

    Attributes:
        root: Its folder.
    """

    root: Path

    def add(self, path: Path, *, name: str = "") -> Entry:
        """Add a model file, a training's folder or an export, and return its entry.

        The same content twice is one entry: the first stays as it is, if it is still whole.

        Args:
            path: What to add.
            name: Its name for people; what it is, if left out.

        Raises:
            ConfigError: If the name is no name, or the content is there under another.
            DataError: If there is nothing to add, it is damaged, or it changes while it is read; or if it is in the
                registry, but damaged there.
            OSError: If the registry cannot be written.

        Guarantees:
            Whatever stops it, the registry holds the whole entry or nothing of it.
        """
        content = read_content(path)
        digests = {member: sha256_of(file) for member, file in sorted(content.paths.items())}
        folder = self.root / content_hash(digests, is_folder=content.form != "weights")
        if folder.exists():
            return self._kept(read_entry(folder), name=name)
        entry = _entry_of(content, digests, name=name)
        try:
            _write(entry, content, folder)
        except (ConfigError, OSError):
            if folder.exists():  # somebody else added it meanwhile
                return read_entry(folder)
            raise
        return entry

    def _kept(self, entry: Entry, *, name: str) -> Entry:
        """Return an entry that is there, if it is whole and no other name is asked for."""
        if name and name != entry.name:
            raise ConfigError(f"name is {name!r}, expected {entry.name!r}: {self.root} holds this content under it")
        self.check(entry)
        return entry

    def rename(self, reference: str, name: str) -> Entry:
        """Give an entry another name for people, and return it as it is then.

        Args:
            reference: As `find` takes it.
            name: Its new name.

        Raises:
            ConfigError: If there is no such entry, the name is no name, or another entry has it.
            DataError: If an entry is not as it was written.
            OSError: If the entry cannot be written.

        Guarantees:
            Whatever stops it, the entry has the old name or the new one; its content stays where it is.
        """
        entry = self.find(reference)
        _check_name(name)
        for other in self.entries():
            if other.name == name and other.sha256 != entry.sha256:
                raise ConfigError(
                    f"name is {name!r}, expected another: model {other.sha256[:SHORT]} of {self.root} has it"
                )
        renamed = replace(entry, name=name)
        # Staged outside of the entry, which holds nothing else even if this is cut short.
        staged, folder = self.root / f".{entry.sha256}.renamed", self.root / entry.sha256
        write_atomically(staged, renamed.to_text().encode())
        staged.replace(folder / ENTRY_FILE)
        sync(folder)
        return renamed

    def remove(self, reference: str) -> str:
        """Take an entry out with all its files, and return its hash.

        Args:
            reference: As `find` takes it; a whole hash names an entry that is damaged, too.

        Raises:
            ConfigError: If there is no such entry.
            DataError: If an entry is not as it was written, and no whole hash is given.
            OSError: If it cannot be removed.

        Guarantees:
            Whatever stops it, the entry is there whole, or gone; every other entry stays, also if it holds the same
            files. What is left of a removal that was cut short goes with the next one.
        """
        folder = self.root / reference
        if not (HASH.fullmatch(reference) and folder.is_dir() and not folder.is_symlink()):
            folder = self.root / self.find(reference).sha256
        removed = Path(tempfile.mkdtemp(dir=self.root, prefix=REMOVED))
        folder.replace(removed)
        sync(self.root)
        for left in self.root.glob(f"{REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
        return folder.name

    def entries(self) -> list[Entry]:
        """Return all entries, the oldest first.

        Raises:
            DataError: If one is not as it was written.
        """
        entries = list(self._entries())
        return sorted(entries, key=lambda entry: (entry.added, entry.sha256))

    def find(self, reference: str) -> Entry:
        """Return the entry of a name, or of the first digits of a hash.

        Raises:
            ConfigError: If there is none, naming the nearest, or more than one.
            DataError: If an entry is not as it was written.
        """
        entries = self.entries()
        found = [entry for entry in entries if entry.name == reference]
        if not found and PART_OF_HASH.fullmatch(reference):
            found = [entry for entry in entries if entry.sha256.startswith(reference)]
        if len(found) == 1:
            return found[0]
        if found:
            hashes = ", ".join(entry.sha256[:SHORT] for entry in found)
            raise ConfigError(f"model {reference!r} is {len(found)} entries of {self.root}, expected one of: {hashes}")
        names = sorted({entry.name for entry in entries})
        known = f"one of: {', '.join(names)}" if names else "something in it: it is empty"
        raise ConfigError(
            f"model {reference!r} is not in {self.root}, expected {known}{nearest(reference, choices=names)}"
        )

    def holding(self, sha256: str) -> Entry | None:
        """Return the oldest entry that holds a file of this hash, or None; a damaged entry holds nothing."""
        found = [entry for entry in self._whole_entries() if sha256 in entry.files.values()]
        return min(found, key=lambda entry: (entry.added, entry.sha256), default=None)

    def path_of(self, entry: Entry) -> Path:
        """Return the folder of an entry's files."""
        return self.root / entry.sha256 / FILES

    def check(self, entry: Entry) -> None:
        """Compare an entry's files with their hashes.

        Raises:
            DataError: If a file is missing, changed, or not listed.
        """
        folder = self.root / entry.sha256
        for path in sorted(folder.iterdir()):
            if path.name not in {ENTRY_FILE, FILES} or path.is_symlink():
                raise DataError(f"{path} is no part of an entry, expected {ENTRY_FILE} and the folder {FILES}")
        check_files(folder, entry)
        if content_hash(entry.files, is_folder=entry.form != "weights") != entry.sha256:
            raise DataError(f"{folder} lists files of another content, expected those of {entry.sha256}")

    def damage(self) -> list[str]:
        """Return what is wrong with the registry, one line each; empty if every byte is as it was added."""
        found = []
        for folder in self._folders():
            try:
                self.check(read_entry(folder))
            except (DataError, FileNotFoundError) as error:
                if folder.exists():  # else somebody removed it meanwhile
                    found.append(str(error))
        strangers = sorted(path for path in self._children() if not HASH.fullmatch(path.name))
        return found + [f"{path} is no entry, expected folders named by a SHA-256" for path in strangers]

    def _children(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if not path.name.startswith("."))

    def _folders(self) -> list[Path]:
        return [path for path in self._children() if HASH.fullmatch(path.name)]

    def _entries(self) -> Iterable[Entry]:
        for folder in self._folders():
            try:
                yield read_entry(folder)
            except DataError:
                if folder.exists():  # else somebody removed it meanwhile
                    raise

    def _whole_entries(self) -> Iterable[Entry]:
        for folder in self._folders():
            try:
                yield read_entry(folder)
            except DataError:
                continue


def _write(entry: Entry, content: Content, folder: Path) -> None:
    with staged_folder(folder) as staged:
        for member, file in content.paths.items():
            digest, expected = copy_file(file, staged / FILES / member), entry.files[member]
            if digest != expected:
                raise DataError(f"{file} has SHA-256 {digest}, expected {expected}: it changed meanwhile")
        (staged / ENTRY_FILE).write_text(entry.to_text(), encoding="utf-8")


def _entry_of(content: Content, digests: dict[str, str], *, name: str) -> Entry:
    manifest = content.manifest
    words = [manifest["kind"], manifest["preset"], "" if content.form == "weights" else content.form]
    name = name or "-".join(word for word in words if word)
    _check_name(name)
    measures = pick_measures(manifest["kind"], manifest["metrics"])
    return Entry(
        sha256=content_hash(digests, is_folder=content.form != "weights"),
        name=name,
        kind=manifest["kind"],
        form=content.form,
        preset=manifest["preset"],
        added=datetime.now(UTC).isoformat(timespec="seconds"),
        size_bytes=sum(file.stat().st_size for file in content.paths.values()),
        headline=measures[0].text() if measures else "",
        files=digests,
        manifest=manifest,
    )


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"name is {name!r}, expected 1 to 64 letters, digits, dots, dashes and underscores")
