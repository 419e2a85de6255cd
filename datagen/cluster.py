"""Parts made by the machines of a Ray cluster, which must share the folder that the files go to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray

from datagen.parts import Make, Part
from nerv_fl.ray_cluster import start_ray


@contextmanager
def on_ray(make: Make, parts: Sequence[Part], *, address: str) -> Iterator[dict[Part, Callable[[], object]]]:
    """Make parts as Ray tasks of one CPU each; give, for each part, what returns once it is there.

    Args:
        make: Writes one part.
        parts: The parts to make; their paths must mean the same folder on every machine.
        address: Of a running cluster, such as ``127.0.0.1:6379`` or ``auto``; ``local`` starts one on this machine.

    Raises:
        NervError: What stopped a part.
        ConfigError: If there is no cluster at the address.
        SetupError: If a local one cannot start.
    """
    start_ray(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=2)(_make)
        yield {part: partial(_finish, remote.remote(make, part)) for part in parts}
    finally:
        ray.shutdown()


def _finish(task: Any) -> None:
    error = ray.get(task)
    if error is not None:
        raise error


def _make(make: Make, part: Part) -> Exception | None:
    """Make a part; return what stopped it, since Ray would wrap what is raised."""
    try:
        make(part)
    except (ValueError, RuntimeError, OSError) as error:
        return error
    return None
