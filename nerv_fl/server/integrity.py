"""Detection of damage in a run folder: checksums of its records, and of the two files that everything else refers to.

digests.json      by round the size and SHA-256 of the three records up to it, of the last rounds
config.toml       begins with a comment that holds the SHA-256 of what follows
manifest.json     holds the SHA-256 of its other fields
copies/           a second copy of config.toml and manifest.json

What an earlier version wrote has no checksums and is read as it is.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import SUM_KEY, has_sum, with_sum

HEADER: Final = "# sha256 of the lines below: "
NUM_KEPT: Final = 3
"""Rounds whose digests are kept: those of the two checkpoints, and of a round whose checkpoint is being written."""

_PIECE_BYTES: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The first bytes of a file that is appended to: how many, and their SHA-256."""

    size_bytes: int
    sha256: str


def prefix_of(path: Path, *, size_bytes: int | None = None) -> Prefix:
    """Return the digest of a file's first bytes, or of all of it; a file that is missing counts as empty."""
    digest, left = hashlib.sha256(), path.stat().st_size if path.exists() else 0
    left = left if size_bytes is None else min(left, size_bytes)
    size = left
    if size:
        with path.open("rb") as file:
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                digest.update(piece)
                left -= len(piece)
    return Prefix(size_bytes=size, sha256=digest.hexdigest())


def require_prefix(path: Path, expected: Prefix, *, round_number: int) -> None:
    """Refuse a record that does not begin with the bytes that a round left.

    Raises:
        CheckpointError: If it is missing, shorter, or has other bytes.
    """
    if expected.size_bytes and not path.exists():
        raise CheckpointError(f"{path} is missing, expected the records of {round_number} rounds")
    found = prefix_of(path, size_bytes=expected.size_bytes)
    if found.size_bytes != expected.size_bytes:
        raise CheckpointError(
            f"{path} holds {found.size_bytes:,} bytes, expected at least {expected.size_bytes:,} after round "
            f"{round_number}: it was cut short"
        )
    if found.sha256 != expected.sha256:
        raise CheckpointError(
            f"{path} was changed: its first {expected.size_bytes:,} bytes have SHA-256 {found.sha256[:12]}, expected "
            f"{expected.sha256[:12]} after round {round_number}"
        )


def cut_to(path: Path, size_bytes: int) -> None:
    """Cut off what a crash left of a later round."""
    if path.exists() and path.stat().st_size > size_bytes:
        with path.open("r+b") as file:
            file.truncate(size_bytes)
            file.flush()
            os.fsync(file.fileno())


def read_digests(path: Path) -> dict[int, dict[str, Prefix]]:
    """Return the digests by round and file name; none if the file is missing or damaged: records are whole without."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not has_sum(table):
            return {}
        rounds = {name: item for name, item in table.items() if name != SUM_KEY}
        return {int(key): {name: Prefix(**item) for name, item in files.items()} for key, files in rounds.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_digests(path: Path, round_number: int, records: Mapping[str, Path]) -> None:
    """Add a round's digests, and drop those of rounds that cannot be gone back to."""
    earlier = {number: files for number, files in read_digests(path).items() if number < round_number}
    kept = dict(sorted(earlier.items())[-(NUM_KEPT - 1) :])
    kept[round_number] = {name: prefix_of(record) for name, record in records.items()}
    table = {str(number): {name: asdict(item) for name, item in files.items()} for number, files in kept.items()}
    write_atomically(path, json.dumps(with_sum(table), indent=1).encode())


def with_header(text: str) -> str:
    """Return a text below a comment that holds its SHA-256."""
    return f"{HEADER}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def has_header(data: bytes) -> bool:
    """Return whether a file begins with a comment that holds the SHA-256 of the rest.

    >>> has_header(with_header("seed = 7").encode()), has_header(with_header("seed = 7").encode()[:-1])
    (True, False)
    """
    first, _, rest = data.partition(b"\n")
    return first == f"{HEADER}{hashlib.sha256(rest).hexdigest()}".encode()
