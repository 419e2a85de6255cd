"""What a node sent last, kept in one file of its folder: whole or untouched, whatever kills the process.

The first line says in JSON what the envelope was for and has its SHA-256; the envelope's bytes follow.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nerv_fl.errors import PrivacyError
from nerv_fl.files import write_atomically

SENT_FILE: Final = "sent.envelope"

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
    """
    fields = {
        "run": label.run,
        "round": label.round_number,
        "base_hash": label.base_hash,
        "sha256": hashlib.sha256(envelope).hexdigest(),
    }
    write_atomically(folder / SENT_FILE, json.dumps(fields).encode() + b"\n" + envelope)


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
