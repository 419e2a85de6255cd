"""Making a load file: parts of shards, in any number of processes, then joined."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from datagen.parts import Part, Staging, make_parts
from datagen.sharding.kernel import simulate
from nerv_fl.data.load_schema import LoadInfo
from nerv_fl.data.load_writer import draw_split, join_loads, write_load
from nerv_fl.validation import in_range

GENERATOR: Final = "nerv-fl load 1"
PART_SHARDS: Final = 25
MAX_SHARDS: Final = 1_000_000
MAX_STEPS: Final = 10_000_000


@dataclass(frozen=True, kw_only=True)
class MakeShards:
    """Writes a part: the load file of some of the shards of a data set."""

    about: LoadInfo

    def __call__(self, part: Part) -> None:
        """Simulate the shards of a part and write its file."""
        about = self.about
        write_load(
            part.path,
            (
                simulate(about.seed, shard, steps=about.steps, splits=about.splits)
                for shard in range(part.first, part.last)
            ),
            split=draw_split(about.seed, about.shards)[part.first : part.last],
            about=replace(about, shards=part.size),
        )


def generate_load(
    path: str | Path,
    *,
    shards: int,
    steps: int,
    seed: int,
    splits: bool = False,
    workers: int = 1,
    ray: str | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LoadInfo:
    """Simulate shards, and write what monitoring sees of them.

    Args:
        path: File to write or replace.
        shards: Number of shards.
        steps: Minutes of each.
        seed: Seed of everything drawn.
        splits: Whether overload splits a shard, and long low use merges it; otherwise both are only recommended.
        workers: Processes on this machine.
        ray: Address of a Ray cluster that does the work instead.
        resume: Whether to keep the parts that an interrupted run finished.
        progress: Told the number of shards of each part that is done.

    Returns:
        What the file holds.

    Raises:
        ConfigError: If an argument is out of range, or the run to resume had others.
        OSError: If the file cannot be written.

    Guarantees:
        Equal arguments give equal bytes, whatever the number of workers and however often the work was interrupted.
    """
    in_range("shards", shards, low=1, high=MAX_SHARDS)
    in_range("steps", steps, low=1, high=MAX_STEPS)
    in_range("seed", seed, low=0, high=2**63 - 1)
    target = Path(path)
    about = LoadInfo(shards=shards, steps=steps, seed=seed, splits=splits, generator=GENERATOR, content_sha256="")
    arguments = {"steps": steps, "seed": seed, "splits": splits, "generator": GENERATOR}
    staging = Staging(target, arguments=arguments, total=shards, size=PART_SHARDS, resume=resume)
    make_parts(MakeShards(about=about), staging.parts, workers=workers, ray=ray, progress=progress)
    info = join_loads(target, [part.path for part in staging.parts], about=about)
    staging.remove()
    return info
