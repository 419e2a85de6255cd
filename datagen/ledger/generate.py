"""From a shape to a file: blocks of chains, parts of the work, and the file they are joined to.

Chains are drawn in blocks of a size that the shape alone decides, each block from its own random stream, so the same
shape gives the same file, byte for byte, whoever writes it.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from datagen.ledger.apply_transactions import settle
from datagen.ledger.intents import draw_orders
from datagen.ledger.kinds import draw_kinds, traits_of
from datagen.ledger.roles import draw_cast
from datagen.ledger.shape import GENERATOR, LedgerShape
from datagen.parts import Part, Staging, made_parts, make_parts, plan_parts
from nerv_fl import rng
from nerv_fl.data import (
    ChainBlock,
    Ledger,
    LedgerFile,
    LedgerInfo,
    join_ledgers,
    open_ledger,
    write_index,
    write_ledger,
)
from nerv_fl.errors import DataError
from nerv_fl.validation import in_range

MAX_RAY_PARTS: Final = 10**5


def generate_ledger(
    path: str | Path,
    shape: LedgerShape,
    *,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LedgerInfo:
    """Write a file of synthetic chains.

    Args:
        path: File to write; replaced once the new one is whole.
        shape: What the content follows from.
        workers: Processes that share the work; no byte depends on it.
        resume: Whether to go on from the parts that a killed run left beside the file.
        progress: Called with the number of chains of each part that is done.

    Returns:
        What the file holds.

    Raises:
        ConfigError: If an argument is out of range, or the run to resume had another shape.
        DataError: If a part that was left is damaged.
        OSError: If the file cannot be written, a full disk included; finished parts stay for `resume`.

    Guarantees:
        The same shape gives the same bytes (same versions of NumPy, libdeflate and HDF5, same type of CPU).
    """
    path = Path(path)
    in_range("workers", workers, low=1, high=1024)
    if shape.chains <= shape.chains_per_part:
        write_part(shape, Part(number=0, first=0, last=shape.chains, path=path))
        if progress is not None:
            progress(shape.chains)
    else:
        arguments = {**asdict(shape), "generator": GENERATOR}
        staging = Staging(path, arguments=arguments, total=shape.chains, size=shape.chains_per_part, resume=resume)
        made = made_parts(partial(write_part, shape, staged=True), staging.parts, workers=workers)
        join_ledgers(path, _paths(made, progress=progress), chains=shape.chains)
        staging.remove()
    with open_ledger(path) as ledger:
        return ledger.info


def generate_ledger_parts(
    folder: str | Path, shape: LedgerShape, *, ray: str, progress: Callable[[int], None] | None = None
) -> LedgerInfo:
    """Write a folder of ledger files and the index that makes one data set of them, on a Ray cluster.

    A folder that was begun is continued: parts that are there and whole are kept.

    Args:
        folder: Folder to write, shared by all machines of the cluster.
        shape: What the content follows from.
        ray: Address of the cluster, or ``local`` to start one on this machine.
        progress: Called with the number of chains of each part that is done.

    Returns:
        What the data set holds; its content hash is that of the single file.

    Raises:
        ConfigError: If the shape would need more than 10^5 parts.
        DataError: If a part that was left is damaged or of another shape.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    parts = plan_parts(folder, total=shape.chains, size=shape.chains_per_part)
    in_range("parts", len(parts), low=1, high=MAX_RAY_PARTS)
    for part in parts:
        if part.path.exists():
            with LedgerFile(part.path) as ledger:
                _require(ledger, part, shape=shape)
    make_parts(partial(write_part, shape), parts, ray=ray, progress=progress)
    return write_index(folder, [part.path for part in parts])


def write_part(shape: LedgerShape, part: Part, *, staged: bool = False) -> None:
    """Write the file of some chains of a ledger; they begin with a block. A staged one is soon joined to others."""
    write_ledger(
        part.path,
        draw_blocks(shape, first=part.first, last=part.last),
        chains=part.size,
        steps=shape.steps,
        accounts=shape.accounts,
        seed=shape.seed,
        profile=shape.profile,
        generator=GENERATOR,
        staged=staged,
    )


def draw_blocks(shape: LedgerShape, *, first: int, last: int) -> Iterator[ChainBlock]:
    """Draw chains ``first`` up to ``last``, block after block; ``first`` begins a block."""
    size = shape.chains_per_block
    for start in range(first, last, size):
        number, num_chains = start // size, min(size, last - start)
        kinds = draw_kinds(
            shape.seed,
            profile=shape.profile,
            block=number,
            num_chains=num_chains,
            heterogeneity=shape.heterogeneity,
        )
        stream = rng.stream(shape.seed, "ledger", shape.profile, number)
        cast = draw_cast(
            stream,
            traits=traits_of(kinds, heterogeneity=shape.heterogeneity),
            num_accounts=shape.accounts,
            profile=shape.profile,
            supply_nano=shape.supply_nano,
        )
        yield settle(
            cast, orders=draw_orders(stream, cast=cast, steps=shape.steps, max_transactions=shape.max_transactions)
        )


def _paths(parts: Iterator[Part], *, progress: Callable[[int], None] | None) -> Iterator[Path]:
    for part in parts:
        yield part.path
        if progress is not None:
            progress(part.size)


def _require(ledger: Ledger, part: Part, *, shape: LedgerShape) -> None:
    info = ledger.info
    found = (info.chains, info.steps, info.accounts, info.seed, info.profile, info.generator)
    expected = (part.size, shape.steps, shape.accounts, shape.seed, shape.profile, GENERATOR)
    if found != expected:
        raise DataError(f"{part.path} holds {found}, expected {expected} (chains, steps, accounts, seed, profile)")
