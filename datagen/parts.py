"""Work that is cut into parts: spread over processes or a Ray cluster, and continued after a kill.

A part is a whole data file of some chains or shards. Which chains a part holds follows from the size of the data set
alone, never from the number of workers, so neither do its bytes. Finished parts wait in a staging folder beside the
target; a part appears under its name only when it is whole, so whatever is there need not be made again.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from nerv_fl.errors import ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.processes import worker_pool
from nerv_fl.validation import in_range

PLAN_FILE: Final = "plan.json"
MAX_WORKERS: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """Items ``first`` up to, not including, ``last`` of a data set, and the file that holds them."""

    number: int
    first: int
    last: int
    path: Path

    @property
    def size(self) -> int:
        """Number of items."""
        return self.last - self.first


Make = Callable[[Part], None]
"""Writes a part's file; can be pickled, and leaves the whole file or none."""


def plan_parts(folder: Path, *, total: int, size: int) -> list[Part]:
    """Cut ``total`` items into parts of ``size``, the last one of what is left.

    >>> [(part.first, part.last, part.path.name) for part in plan_parts(Path("a"), total=5, size=3)]
    [(0, 3, 'part-00000.h5'), (3, 5, 'part-00001.h5')]
    """
    return [
        Part(number=number, first=first, last=min(first + size, total), path=folder / f"part-{number:05d}.h5")
        for number, first in enumerate(range(0, total, size))
    ]


class Staging:
    """The folder in which the parts of a target wait until all are there.

    Args:
        target: The file to be made; the folder is ``target.parts`` beside it.
        arguments: What the content depends on; a resumed run must have the same.
        total: Number of items.
        size: Items of a part.
        resume: Whether to keep the parts that an earlier run finished; otherwise they are deleted.

    Raises:
        ConfigError: If the run to resume had other arguments.
    """

    def __init__(self, target: Path, *, arguments: Mapping[str, object], total: int, size: int, resume: bool) -> None:
        self.folder = target.parent / f"{target.name}.parts"
        self._target, self._total, self._size = target, total, size
        if self.folder.exists() and not resume:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._require_same({**arguments, "total": total})

    @cached_property
    def parts(self) -> list[Part]:
        """All parts, in order."""
        return plan_parts(self.folder, total=self._total, size=self._size)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)

    def _require_same(self, arguments: Mapping[str, object]) -> None:
        plan = self.folder / PLAN_FILE
        if not plan.exists():
            write_atomically(plan, json.dumps(arguments, sort_keys=True).encode())
            return
        stored = json.loads(plan.read_bytes())
        for name, value in arguments.items():
            if stored.get(name) != value:
                raise ConfigError(
                    f"{name} is {value!r}, expected {stored.get(name)!r}: {self._target} was begun with it"
                )


def make_parts(
    make: Make,
    parts: Sequence[Part],
    *,
    workers: int = 1,
    ray: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make the files of parts that are not there; see `made_parts`."""
    for part in made_parts(make, parts, workers=workers, ray=ray):
        if progress is not None:
            progress(part.size)


def made_parts(make: Make, parts: Sequence[Part], *, workers: int = 1, ray: str | None = None) -> Iterator[Part]:
    """Make the files of parts that are not there, and yield every part, in order, as soon as it is.

    Args:
        make: Writes one part.
        parts: The parts.
        workers: Processes on this machine; 1 works in this one.
        ray: Address of a Ray cluster that does the work instead; see `datagen.cluster`.

    Raises:
        NervError: What stopped a part; those in progress are finished first.
    """
    in_range("workers", workers, low=1, high=MAX_WORKERS)
    missing = [part for part in parts if not part.path.exists()]
    with _makers(make, missing, workers=workers, ray=ray) as finish:
        for part in parts:
            if part in finish:
                finish[part]()
            yield part


@contextmanager
def _makers(
    make: Make, missing: Sequence[Part], *, workers: int, ray: str | None
) -> Iterator[dict[Part, Callable[[], object]]]:
    """Set the work going; give, for each part, what returns once it is there."""
    if ray is not None and missing:
        from datagen.cluster import on_ray  # noqa: PLC0415 (seconds of imports)

        with on_ray(make, missing, address=ray) as finish:
            yield finish
    elif workers == 1 or len(missing) <= 1:
        yield {part: partial(make, part) for part in missing}
    else:
        # Started afresh: a fork of a process with threads may never get its locks back.
        with worker_pool(min(workers, len(missing))) as pool:
            yield {part: pool.submit(make, part).result for part in missing}
