"""Whether a data file still holds the values that its writer hashed, and which items two files have in common.

A ledger's items are chains, a load file's are shards. Each has a SHA-256 in the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.data.file import LedgerFile
from nerv_fl.data.identify import LEDGER, SHARD_LOAD, kind_of
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_writer import content_digest
from nerv_fl.data.samples import ContentDigest, chain_digests
from nerv_fl.errors import DataError

CHAINS_AT_ONCE: Final = 64
"""Chains that are read together: 64 of the largest preset take about 40 MB."""


def item_digests(path: Path) -> list[bytes]:
    """Return the hash of each chain or shard of a file, as its writer recorded it.

    Raises:
        DataError: If the file is missing, damaged, or neither a ledger nor a load file.
    """
    kind = kind_of(path)
    if kind == LEDGER:
        with LedgerFile(path) as ledger:
            return [digest.tobytes() for digest in ledger.chain_digests()]
    if kind == SHARD_LOAD:
        with LoadFile(path) as file:
            return [digest.tobytes() for digest in file.array("shard/sha256")]
    raise DataError(f"{path} is a {kind} file, expected a ledger or a load file")


def verify_content(path: Path) -> str:
    """Read every value of a file, and return the hash of its content.

    Raises:
        DataError: If a value is not the one that was written, naming the first chain or shard that has such a value.
    """
    recorded, kind = item_digests(path), kind_of(path)
    found = _ledger_digests(path) if kind == LEDGER else _load_digests(path)
    item = "chain" if kind == LEDGER else "shard"
    for number, (digest, expected) in enumerate(zip(found, recorded, strict=True)):
        if digest != expected:
            raise DataError(
                f"{path}: {item} {number} has values of SHA-256 {digest.hex()[:12]}, expected {expected.hex()[:12]}, "
                "which was recorded when the file was written"
            )
    return _require_whole(path, recorded, kind=kind)


def _require_whole(path: Path, digests: list[bytes], *, kind: str) -> str:
    """Compare the hash of all items with the one in the file's attributes."""
    if kind == LEDGER:
        whole = ContentDigest()
        whole.update(np.frombuffer(b"".join(digests), dtype=np.uint8))
        found = whole.hexdigest()
        with LedgerFile(path) as ledger:
            expected = ledger.info.content_sha256
    else:
        found = content_digest(np.frombuffer(b"".join(digests), dtype=np.uint8))
        with LoadFile(path) as file:
            expected = file.info.content_sha256
    if found != expected:
        raise DataError(f"{path} has content of SHA-256 {found[:12]}, expected {expected[:12]}, which it names itself")
    return found


def _ledger_digests(path: Path) -> Iterator[bytes]:
    with LedgerFile(path) as ledger:
        for first in range(0, ledger.info.chains, CHAINS_AT_ONCE):
            block = ledger.read_chains(first, min(first + CHAINS_AT_ONCE, ledger.info.chains))
            yield from (digest.tobytes() for digest in chain_digests(block))


def _load_digests(path: Path) -> Iterator[bytes]:
    with LoadFile(path) as file:
        for number in range(file.info.shards):
            yield file.shard(number).digest()
