"""What a round of three nodes costs on SuperLink and SuperNodes, over the same nodes' work in one process.

    python -m benchmarks.deployed_round

Everything runs on this machine, started by the scripts of `nerv-fl deploy init`. The nodes have little to do: a
tiny model, 32 samples each. Seconds are wall time: on a machine with other work they are longer.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.measure import print_setting, print_table
from nerv_fl.config import Flat
from nerv_fl.deploy.layout import Deployment
from nerv_fl.server.app import serve
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.machines import Machines, deploy, running
from tests.deploy.tiny import NUM_NODES, GridOfMachines

ROUNDS: Final = 4
REPEATS: Final = 5
IMPORT: Final = "import nerv_fl.deploy.node_app"
FLOWER: Final = "import flwr.supernode.cli.flwr_clientapp"


def main() -> None:
    """Measure and print."""
    os.environ["OMP_NUM_THREADS"] = "1"
    print_setting("A deployed round, 3 nodes", packages=["flwr", "torch", "opacus"], threads=f"{os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory(prefix="nerv-fl-bench-") as folder:
        alone = in_one_process(deploy(Path(folder) / "alone", {"federation.num_rounds": ROUNDS}))
        (Path(folder) / "flower").mkdir()
        settings: Flat = {"federation.num_rounds": ROUNDS}
        with running(deploy(Path(folder) / "flower" / "deployment", settings)) as machines:
            machines.start("run")
            machines.finish_run(seconds=1200.0)
            deployed = seconds_of_rounds(machines.run_folder)
            cpu = cpu_of_machines(machines)
    rows = [
        ["from asking to the last answer, deployed", f"{deployed:.2f}", f"{deployed / alone:.0f}"],
        ["the same in one resident process", f"{alone:.2f}", "1"],
        ["CPU: importing Flower's ClientApp process", f"{cpu_of_import(FLOWER):.2f}", ""],
        ["CPU: importing Flower, torch, Opacus and the node", f"{cpu_of_import(IMPORT):.2f}", ""],
        ["CPU: all processes of a node, a round", f"{cpu:.2f}", ""],
    ]
    print_table(["one round, seconds (median)", "s", "ratio"], rows)


def in_one_process(deployment: Deployment) -> float:
    """Return the median seconds of the nodes' work in a round, without Flower's processes."""
    folder = RunFolder(deployment.server.run)
    serve(GridOfMachines(deployment), folder, num_supernodes=NUM_NODES)
    return seconds_of_rounds(folder)


def seconds_of_rounds(folder: RunFolder) -> float:
    """Return the median seconds from asking to the last answer, the first round left out."""
    return statistics.median(record.seconds.train for record in folder.rounds()[2:])


def cpu_of_machines(machines: Machines) -> float:
    """Return the CPU seconds a round of one node: its SuperNode's and those of what it started and waited for."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = sum(machines.cpu_ticks(f"node-{number}") for number in range(NUM_NODES))
    return total / ticks / NUM_NODES / ROUNDS


def cpu_of_import(statement: str) -> float:
    """Return the median CPU seconds of a process that imports something and ends."""
    spent = [_cpu_of_children()]
    for _ in range(REPEATS):
        subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
        spent.append(_cpu_of_children())
    return statistics.median(after - before for before, after in pairwise(spent))


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s in all")
