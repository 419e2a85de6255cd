"""How long nodes take to register: a signing key each, in a file each, one after another and as a simulation does it.

Run: python -m benchmarks.registration [--nodes N]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nerv_fl.client.host import node_folder
from nerv_fl.client.node import register
from simulations.prepare import REGISTRATIONS


def main() -> None:
    """Print CPU and wall time a node."""
    parser = argparse.ArgumentParser(description="Time the registration of nodes.")
    parser.add_argument("--nodes", type=int, default=1000)
    num_nodes = parser.parse_args().nodes
    for name, at_once in (("one at a time", 1), (f"{REGISTRATIONS} at a time", REGISTRATIONS)):
        with tempfile.TemporaryDirectory() as folder:
            cpu_ms, wall_ms = timed(partial(register_all, Path(folder), num_nodes, at_once=at_once))
        print(f"{name:<16} {cpu_ms / num_nodes:6.2f} ms CPU {wall_ms / num_nodes:6.2f} ms wall a node")


def register_all(root: Path, num_nodes: int, *, at_once: int) -> None:
    """Register nodes under a folder."""
    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(lambda node: register(node_folder(root, node)), range(num_nodes)))


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return the CPU and the wall time of some work, ms."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    work()
    return 1e3 * (time.process_time() - cpu_s), 1e3 * (time.perf_counter() - wall_s)


if __name__ == "__main__":
    main()
