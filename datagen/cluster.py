"""Parts made by the machines of a Ray cluster, which must share the folder that the files go to."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

import ray

from datagen.parts import Make, Part

LOCAL: Final = "local"


def make_on_ray(make: Make, parts: Sequence[Part], *, address: str) -> Iterator[Part]:
    """Make parts as Ray tasks of one CPU each; yield each part when it is done.

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
        waiting = {remote.remote(make, part): part for part in parts}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            part = waiting.pop(done[0])
            error = ray.get(done[0])
            if error is not None:
                raise error
            yield part
    finally:
        ray.shutdown()


def _make(make: Make, part: Part) -> Exception | None:
    """Make a part; return what stopped it, since Ray would wrap what is raised."""
    try:
        make(part)
    except (ValueError, RuntimeError, OSError) as error:
        return error
    return None
