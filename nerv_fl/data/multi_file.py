"""Several ledger files that are one data set: an index, written last, that names them in order.

    index.json  {"schema_version", "content_sha256", "parts": [{"file", "chains", "content_sha256"}]}

The content hash is that of one file with the same chains.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from nerv_fl.data.file import LedgerFile
from nerv_fl.data.samples import Batches, ChainBlock, ContentDigest, Samples, join_batches
from nerv_fl.data.schema import SCHEMA_VERSION, LedgerInfo
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.types import IntArray

INDEX_FILE: Final = "index.json"


class Ledger(Protocol):
    """A ledger, open for reading, in one file or several; see `LedgerFile`."""

    path: Path
    info: LedgerInfo

    def __enter__(self) -> Self:
        """Return the ledger."""

    def __exit__(self, *_: object) -> None:
        """Close it."""

    def close(self) -> None:
        """Close it in this process; the next read opens it again."""

    @property
    def num_transactions(self) -> int:
        """Number of transactions of all batches."""

    def require_accounts(self, num_accounts: int) -> None:
        """Raise DataError unless the ledger has as many accounts as the model."""

    def read(self, sample_ids: IntArray | Sequence[int], *, with_batches: bool = False) -> Samples:
        """Read samples, in the order given."""

    def read_chains(self, start: int, stop: int) -> ChainBlock:
        """Read whole chains."""

    def shard_kinds(self) -> npt.NDArray[np.uint8]:
        """Return the kind of each chain's shard."""

    def chain_digests(self) -> npt.NDArray[np.uint8]:
        """Return the recorded hash of each chain."""


def open_ledger(path: str | Path) -> Ledger:
    """Open a ledger file, a folder of parts, or the index of one.

    Raises:
        DataError: If there is none, or it is not whole.
    """
    path = Path(path)
    if path.is_dir() or path.name == INDEX_FILE:
        return LedgerParts(path if path.is_dir() else path.parent)
    return LedgerFile(path)


def chain_blocks(ledger: Ledger, *, max_values: int) -> Iterator[tuple[int, ChainBlock]]:
    """Read a ledger chain after chain: yield the number of a block's first chain, and the block.

    Args:
        ledger: The ledger.
        max_values: Balances of a block, unless one chain has more.
    """
    size = max(1, max_values // (ledger.info.accounts * (ledger.info.steps + 1)))
    for first in range(0, ledger.info.chains, size):
        yield first, ledger.read_chains(first, min(first + size, ledger.info.chains))


def write_index(folder: Path, parts: Sequence[Path]) -> LedgerInfo:
    """Write the index of a folder, once all its parts are there.

    Args:
        folder: Where the index goes.
        parts: Ledger files in the folder, in the order of their chains.

    Returns:
        What the data set holds.

    Raises:
        DataError: If a part is damaged, or differs from the first in steps, accounts, seed, profile or generator.
    """
    digest, entries = ContentDigest(), []
    for part in parts:
        with LedgerFile(part) as ledger:
            digest.update(ledger.chain_digests())
            info = ledger.info
            entries.append({"file": part.name, "chains": info.chains, "content_sha256": info.content_sha256})
    index = {"schema_version": SCHEMA_VERSION, "content_sha256": digest.hexdigest(), "parts": entries}
    write_atomically(folder / INDEX_FILE, json.dumps(index, indent=1).encode())
    return LedgerParts(folder).info


class LedgerParts:
    """Ledger files that an index makes one data set, open for reading.

    Args:
        folder: Folder of the index.

    Raises:
        DataError: If the index is missing or damaged, or a part is not the one it names.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        content, entries = _read_index(folder / INDEX_FILE)
        self._parts = [LedgerFile(folder / str(entry["file"])) for entry in entries]
        for part, entry in zip(self._parts, entries, strict=True):
            if part.info.content_sha256 != entry["content_sha256"]:
                raise DataError(
                    f"{part.path}: its content hashes to {part.info.content_sha256}, "
                    f"expected {entry['content_sha256']} ({folder / INDEX_FILE})"
                )
            part.require_like(self._parts[0])
        self._starts = np.cumsum([0, *(part.info.chains for part in self._parts)])
        first = self._parts[0].info
        self.info = LedgerInfo(
            chains=int(self._starts[-1]),
            steps=first.steps,
            accounts=first.accounts,
            seed=first.seed,
            profile=first.profile,
            generator=first.generator,
            content_sha256=content,
        )

    def __enter__(self) -> Self:
        """Return the data set."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files that this process has open."""
        for part in self._parts:
            part.close()

    @property
    def num_transactions(self) -> int:
        """Number of transactions of all batches."""
        return sum(part.num_transactions for part in self._parts)

    def require_accounts(self, num_accounts: int) -> None:
        """Raise DataError unless the ledger has as many accounts as the model."""
        self._parts[0].require_accounts(num_accounts)

    def read(self, sample_ids: IntArray | Sequence[int], *, with_batches: bool = False) -> Samples:
        """Read samples; see `LedgerFile.read`."""
        ids = np.asarray(sample_ids, dtype=np.int64)
        for wrong in ids[(ids < 0) | (ids >= self.info.num_samples)][:1]:
            raise ConfigError(f"sample is {wrong}, expected 0 to {self.info.num_samples - 1} (of {self.path})")
        starts = self._starts * self.info.steps
        owner = np.searchsorted(starts, ids, side="right") - 1
        groups = [np.flatnonzero(owner == part) for part in np.unique(owner)]
        found = [
            self._parts[owner[group[0]]].read(ids[group] - starts[owner[group[0]]], with_batches=with_batches)
            for group in groups
        ]
        place = np.argsort(np.concatenate([np.empty(0, dtype=np.int64), *groups]))
        empty = np.empty((0, self.info.accounts), dtype=np.int64)
        chain, step = np.divmod(ids, self.info.steps)
        return Samples(
            before=np.concatenate([empty, *(part.before for part in found)])[place],
            after=np.concatenate([empty, *(part.after for part in found)])[place],
            supply_nano=np.concatenate([empty[:, 0], *(part.supply_nano for part in found)])[place],
            chain=chain,
            step=step,
            batches=_join(groups, [part.batches for part in found if part.batches]) if with_batches else None,
        )

    def read_chains(self, start: int, stop: int) -> ChainBlock:
        """Read whole chains; see `LedgerFile.read_chains`."""
        if not 0 <= start < stop <= self.info.chains:
            raise ConfigError(f"chains are {start} to {stop}, expected a range within 0 to {self.info.chains}")
        blocks = [
            part.read_chains(max(start - first, 0), min(stop - first, part.info.chains))
            for part, first in zip(self._parts, self._starts.tolist(), strict=False)
            if start < first + part.info.chains and first < stop
        ]
        return ChainBlock(**{name: np.concatenate([vars(block)[name] for block in blocks]) for name in vars(blocks[0])})

    def shard_kinds(self) -> npt.NDArray[np.uint8]:
        """Return the kind of each chain's shard; see `LedgerFile.shard_kinds`."""
        return np.concatenate([part.shard_kinds() for part in self._parts])

    def chain_digests(self) -> npt.NDArray[np.uint8]:
        """Return the recorded hash of each chain; see `LedgerFile.chain_digests`."""
        return np.concatenate([part.chain_digests() for part in self._parts])


def _join(groups: Sequence[IntArray], parts: Sequence[Batches]) -> Batches:
    columns = [
        (np.arange(len(part.offset) - 1), part.offset, (part.kind, part.sender, part.receiver, part.amount_nano))
        for part in parts
    ]
    return join_batches(groups, parts=columns)


def _read_index(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the content hash and the entries of an index."""
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected the index of a ledger's parts: it is written last")
    try:
        index = json.loads(path.read_bytes())
        version, content, entries = index["schema_version"], str(index["content_sha256"]), list(index["parts"])
        names = [str(entry["file"]) for entry in entries]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}), expected the index of a ledger's parts") from error
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{path}: part {name!r} lies elsewhere, expected a file of the same folder")
    if not entries:
        raise DataError(f"{path} names no part, expected at least one")
    return content, entries
