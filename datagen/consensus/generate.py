"""From a shape to a consensus file: ledgers of mempools, the races for them, parts of the work, and one file of all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from datagen.consensus.simulate import continued, simulate
from datagen.ledger.generate import draw_blocks
from datagen.ledger.shape import LedgerShape
from datagen.parts import Part, Staging, make_parts
from nerv_fl.data import ChainBlock
from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.consensus_schema import RaceInfo
from nerv_fl.data.consensus_writer import join_races, write_races
from nerv_fl.data.load_writer import draw_split
from nerv_fl.errors import DataError
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, IntArray
from nerv_fl.validation import in_range

GENERATOR: Final = "datagen.consensus/1"
MAX_SHARDS: Final = 10**6
MAX_RACES: Final = 10**4


@dataclass(frozen=True, kw_only=True)
class RaceShape:
    """What the content of a consensus file follows from.

    Attributes:
        shards: Number of shards, at least 1.
        races: Races of each shard, at least 1; each is about the block after the one before.
        accounts: Accounts of a shard, 8 to 65,534.
        max_transactions: Largest mempool, 1 to 128; sizes are uniform from 1.
        seed: Seed of every stream.

    Raises:
        ConfigError: If one is out of range.
    """

    shards: int
    races: int = 64
    accounts: int = 1024
    max_transactions: int = 48
    seed: int = 7

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        in_range("shards", self.shards, low=1, high=MAX_SHARDS)
        in_range("races", self.races, low=1, high=MAX_RACES)
        in_range("max_transactions", self.max_transactions, low=1, high=128)
        in_range("seed", self.seed, low=0, high=2**63 - 1)

    @property
    def ledger(self) -> LedgerShape:
        """The ledger whose batches are the mempools."""
        return LedgerShape(
            chains=self.shards,
            steps=self.races,
            accounts=self.accounts,
            max_transactions=self.max_transactions,
            profile="live",
            seed=int(stream(self.seed, "consensus", "ledger").integers(2**62)),
            heterogeneity=1.0,
        )

    @classmethod
    def of(cls, info: RaceInfo) -> Self:
        """Return the shape of a whole file."""
        return cls(
            shards=info.shards,
            races=info.races,
            accounts=info.accounts,
            max_transactions=info.max_transactions,
            seed=info.seed,
        )

    def about(self, *, shards: int, content_sha256: str = "") -> RaceInfo:
        """Return the description of a file of some of the shards."""
        return RaceInfo(
            shards=shards,
            races=self.races,
            accounts=self.accounts,
            max_transactions=self.max_transactions,
            seed=self.seed,
            generator=GENERATOR,
            content_sha256=content_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class MakeRaces:
    """Writes the file of some shards."""

    shape: RaceShape

    def __call__(self, part: Part) -> None:
        """Write the part."""
        pools = mempools(self.shape, range(part.first, part.last))
        blocks = (simulate(self.shape.seed, shard, pool=pool) for shard, pool in pools)
        split = race_split(self.shape)[part.first : part.last]
        write_races(part.path, blocks, split=split, about=self.shape.about(shards=part.size))


def generate_races(
    path: str | Path,
    shape: RaceShape,
    *,
    workers: int = 1,
    ray: str | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> RaceInfo:
    """Write a file of simulated races.

    Args:
        path: File to write; replaced once the new one is whole.
        shape: What the content follows from.
        workers: Processes that share the work; no byte depends on it.
        ray: Address of a Ray cluster that does the work instead.
        resume: Whether to go on from the parts that a killed run left beside the file.
        progress: Called with the number of shards of each part that is done.

    Returns:
        What the file holds.

    Raises:
        ConfigError: If an argument is out of range, or the run to resume had another shape.
        OSError: If the file cannot be written; finished parts stay for `resume`.

    Guarantees:
        The same shape gives the same bytes (same versions of NumPy, libdeflate and HDF5, same type of CPU).
    """
    target = Path(path)
    size = shape.ledger.chains_per_block
    arguments = {
        "races": shape.races,
        "accounts": shape.accounts,
        "max_transactions": shape.max_transactions,
        "seed": shape.seed,
        "generator": GENERATOR,
    }
    staging = Staging(target, arguments=arguments, total=shape.shards, size=size, resume=resume)
    make_parts(MakeRaces(shape=shape), staging.parts, workers=workers, ray=ray, progress=progress)
    info = join_races(target, [part.path for part in staging.parts], about=shape.about(shards=shape.shards))
    staging.remove()
    return info


def race_split(shape: RaceShape) -> npt.NDArray[np.uint8]:
    """Return the split of each shard, uint8 [shards]."""
    return draw_split(shape.seed, shape.shards, of="consensus")


def mempools(shape: RaceShape, shards: Iterable[int]) -> Iterator[tuple[int, ChainBlock]]:
    """Draw the mempools of some shards: each with its number, a chain whose batches they are.

    Args:
        shape: Of the file.
        shards: Their numbers, rising; the ledger is drawn in whole blocks, each once.
    """
    size, drawn, pools = shape.ledger.chains_per_block, -1, list[ChainBlock]()
    for shard in shards:
        if shard // size != drawn:
            drawn = shard // size
            last = min((drawn + 1) * size, shape.shards)
            (block,) = draw_blocks(shape.ledger, first=drawn * size, last=last)
            pools = list(_chains(block))
        yield shard, pools[shard % size]


def play_on(path: Path, *, rollouts: int) -> Callable[[Sequence[int], Sequence[IntArray]], Iterator[FloatArray]]:
    """Return what plays the races of a file to their end from the hidden state.

    Args:
        path: The file.
        rollouts: Continuations of each race and cut, at least 1.

    Returns:
        Given shards, rising, and votes int64 [R, K] of each (see `continued`), yields chances float64 [R, K, 5] of
        each; a DataError if the shard in the file is not the one that its seed gives here.

    Raises:
        ConfigError: If rollouts is below 1.
    """
    in_range("rollouts", rollouts, low=1, high=10**6)

    def chances(shards: Sequence[int], votes: Sequence[IntArray]) -> Iterator[FloatArray]:
        with RaceFile(path) as file:
            for (shard, pool), cuts in zip(mempools(RaceShape.of(file.info), shards), votes, strict=True):
                block, found = continued(file.info.seed, shard, pool=pool, votes=cuts, rollouts=rollouts)
                if block.digest() != file.array("shard/sha256", shard).tobytes():
                    raise DataError(
                        f"{path}: shard {shard} differs from the simulation of its seed by {GENERATOR}, "
                        f"expected the same races: the hidden state of others is not known"
                    )
                yield found

    return chances


def _chains(block: ChainBlock) -> Iterator[ChainBlock]:
    ends = np.cumsum(block.counts.sum(axis=1))
    for chain, end in enumerate(ends.tolist()):
        batches = slice(end - int(block.counts[chain].sum()), end)
        whole = slice(chain, chain + 1)
        yield ChainBlock(
            balances=block.balances[whole],
            supply_nano=block.supply_nano[whole],
            shard_kind=block.shard_kind[whole],
            kind=block.kind[batches],
            sender=block.sender[batches],
            receiver=block.receiver[batches],
            amount_nano=block.amount_nano[batches],
            counts=block.counts[whole],
        )
