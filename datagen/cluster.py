"""Parts made by the machines of a Ray cluster, which must share the folder that the files go to."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import ray

from datagen.parts import Make, Part

LOCAL: Final = "local"


@contextmanager
def on_ray(make: Make, parts: Sequence[Part], *, address: str) -> Iterator[dict[Part, Callable[[], object]]]:
    """Make parts as Ray tasks of one CPU each; give, for each part, what returns once it is there.

    Args:
        make: Writes one part.
        parts: The parts to make; their paths must mean the same folder on every machine.
        address: Of a running cluster, such as ``127.0.0.1:6379`` or ``auto``; ``local`` starts one on this machine.

    Raises:
        NervError: What stopped a part.
        ConnectionError: If there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:
        ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=address, log_to_driver=False)
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
