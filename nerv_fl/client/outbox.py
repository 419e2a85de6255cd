"""What a node sent last, kept in one file of its folder: whole or untouched, whatever kills the process.

The first line says in JSON what the envelope was for and has its SHA-256; the envelope's bytes follow. A deployed node
reserves the disk space of an envelope before it spends a round: a round that is spent can then also be sent.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nerv_fl.errors import PrivacyError
from nerv_fl.io.atomic import sync, write_atomically

SENT_FILE: Final = "sent.envelope"
RESERVED_FILE: Final = ".sent.envelope.reserved"
"""Holds the disk space of the next envelope, and becomes the sent file."""

_LONGEST_LABEL_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Label:
    """What an envelope answered: the round of a run, and the hash of the encoder it was trained from."""

    run: str
    round_number: int
    base_hash: str


def keep(folder: Path, label: Label, envelope: bytes) -> None:
    """See the envelope to the disk in place of the one before.

    Args:
        folder: The node's own folder.
        label: What it answers.
        envelope: What is about to leave.

    Raises:
        OSError: If it cannot be written; the one before is then untouched.

    Guarantees:
        Where space was reserved and suffices, the file system gives out no new space for the content.
    """
    fields = {
        "run": label.run,
        "round": label.round_number,
        "base_hash": label.base_hash,
        "sha256": hashlib.sha256(envelope).hexdigest(),
    }
    content = json.dumps(fields).encode() + b"\n" + envelope
    if (folder / RESERVED_FILE).exists():
        _write_reserved(folder, content)
    else:
        write_atomically(folder / SENT_FILE, content)


def reserve(folder: Path, size_bytes: int) -> None:
    """Reserve the disk space of an envelope, until `keep` or `release`; what a killed process reserved is used again.

    Args:
        folder: The node's own folder.
        size_bytes: Most bytes that the envelope can have.

    Raises:
        OSError: If the disk has no room for it; nothing is then reserved.

    Source: posix_fallocate(3), which writes zeros on a file system that cannot reserve.
    """
    path, size_bytes = folder / RESERVED_FILE, size_bytes + _LONGEST_LABEL_BYTES
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        release(folder)
        raise OSError(
            error.errno,
            f"{error.strerror}: no room for the envelope of {size_bytes:,} bytes, so the round is not answered and "
            "nothing is spent; make room on this disk",
            str(path),
        ) from error


def release(folder: Path) -> None:
    """Give reserved disk space back; nothing happens if there is none."""
    (folder / RESERVED_FILE).unlink(missing_ok=True)


def _write_reserved(folder: Path, content: bytes) -> None:
    path = folder / RESERVED_FILE
    with path.open("r+b") as file:  # opening it for writing would give the space back
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    path.replace(folder / SENT_FILE)
    sync(folder)


def label_of(folder: Path) -> Label | None:
    """Return what the last envelope answered, or None if none was sent; the envelope itself is not read.

    Raises:
        PrivacyError: If the file is damaged.
    """
    path = folder / SENT_FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        return _label(_fields(file.readline(_LONGEST_LABEL_BYTES), path=path), path=path)


def envelope_of(folder: Path) -> bytes:
    """Return the last envelope.

    Raises:
        PrivacyError: If the file is damaged, or not there.
    """
    path = folder / SENT_FILE
    try:
        line, _, envelope = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise _damaged(path, error) from error
    if hashlib.sha256(envelope).hexdigest() != _fields(line, path=path).get("sha256"):
        raise PrivacyError(f"{path} is damaged: it does not end in the envelope that this node sent")
    return envelope


def _fields(line: bytes, *, path: Path) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(fields, dict):
        raise _damaged(path, "its first line holds no object")
    return fields


def _label(fields: dict[str, object], *, path: Path) -> Label:
    run, round_number, base_hash = fields.get("run"), fields.get("round"), fields.get("base_hash")
    if not (isinstance(run, str) and isinstance(round_number, int) and isinstance(base_hash, str)):
        raise _damaged(path, "its first line lacks run, round or base_hash")
    return Label(run=run, round_number=round_number, base_hash=base_hash)


def _damaged(path: Path, why: object) -> PrivacyError:
    return PrivacyError(f"{path} is damaged ({why}), expected what this node wrote")
