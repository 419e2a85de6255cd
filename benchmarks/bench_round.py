"""A whole federated round: CPU time over a plain loop without DP, two actors against one, peers, 1,000 idle nodes.

    python -m benchmarks.bench_round [--quick] [--full] [--nodes 24] [--rounds 3] [--flower] [--pfl-python PYTHON]

Every contender runs in processes of its own, one after another, on the same prepared data. Ours is everything that a
simulation does but the measures on held-out pools, for the step search, the gate, Shapley values and the monitor:
asking, training under DP, accounting, signing, sealing, opening, screening, finding clones, aggregating, checkpoint and
report. Ray's own processes stand in a column of their own. Wall time means something on an idle machine only; CPU time
is what the ratios are of.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import print_setting, print_table

Round = Mapping[str, float]
HOW_TO = (
    "pfl-research is left out. It asks for an older absl-py than our tools do, so it needs an interpreter of its own:\n"
    "python -m venv /tmp/pfl && /tmp/pfl/bin/pip install torch==2.13.0 && /tmp/pfl/bin/pip install . pfl==0.6.0, then\n"
    "--pfl-python /tmp/pfl/bin/python"
)


def main() -> None:
    """Run the contenders and print the tables."""
    options = parse()
    nodes, rounds = options.nodes, options.rounds
    print("Minutes a contender; what each cost follows.", flush=True)
    with tempfile.TemporaryDirectory(prefix="nerv-fl-bench-") as folder:
        root = Path(folder)
        two = ours(root / "two", nodes=nodes, rounds=rounds, actors=2)
        one = ours(root / "one", nodes=nodes, rounds=rounds, actors=1)
        loop = contender("benchmarks.round_loop", root / "two", f"--rounds={rounds}")
        print_setting(
            f"{nodes} nodes, 2 steps of 16 records, 2 layers of width 64, 129 tokens; medians of {rounds - 1} rounds; "
            f"load average {os.getloadavg()[0]:.1f}",
            packages=("torch", "flwr", "ray", "opacus", "numpy", "cryptography"),
            threads=f"{os.cpu_count()} cores, one thread a process",
        )
        work_table(two, one, loop=loop, num_nodes=nodes)
        stages_table(two, num_nodes=nodes)
        sys.stdout.flush()
        peers_table(root / "two", two, num_nodes=nodes, pfl_python=options.pfl_python, flower=options.flower)
        if options.flower:
            tiny_table(root / "tiny", nodes=options.tiny, rounds=rounds)
        if options.many:
            trivial_table(root, many=options.many)


def parse() -> argparse.Namespace:
    """Return the command line's options; --quick and --full stand for several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3, help="of each contender; the first is not counted")
    parser.add_argument("--many", type=int, default=0, help="nodes of trivial work, and a tenth of them; 0 for neither")
    parser.add_argument(
        "--tiny", type=int, default=500, help="nodes with a tiny encoder and 8 records, beside Flower's"
    )
    parser.add_argument("--flower", action="store_true", help="Flower's stock pattern too")
    parser.add_argument("--pfl-python", help="an interpreter that has pfl beside what we need: pfl-research too")
    parser.add_argument("--quick", action="store_true", help="8 nodes, 2 rounds")
    parser.add_argument("--full", action="store_true", help="100 nodes, 1,000 of trivial work, and Flower's pattern")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.rounds = 8, 2
    if options.full:
        options.nodes, options.many, options.flower = 100, 1000, True
    return options


def ours(root: Path, *, nodes: int, rounds: int, actors: int, blocks: int = 10, work: str = "train") -> list[Round]:
    """Return what each counted round of a simulation cost."""
    flags = (f"--nodes={nodes}", f"--rounds={rounds}", f"--actors={actors}", f"--blocks={blocks}", f"--work={work}")
    return contender("benchmarks.round_ours", root, *flags)


def contender(module: str, *arguments: object, python: str = sys.executable) -> list[Round]:
    """Return the rounds that a contender's process prints as JSON in its last line, without the first."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [python, "-m", module, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr[-2000:]}")
    rounds: list[Round] = json.loads(done.stdout.strip().splitlines()[-1])
    return rounds[1:]


def cost(rounds: Sequence[Round]) -> Round:
    """Return the medians of a contender's rounds; `own` is its CPU time without the held-out pools and Ray's own."""
    medians = {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}
    held_out = medians.get("evaluation", 0.0) + medians.get("monitor", 0.0)
    own = medians["driver"] + medians.get("actors", 0.0) - held_out
    return {"actors": 0.0, "ray": 0.0, **medians, "own": own, "held_out": held_out}


def work_table(two: Sequence[Round], one: Sequence[Round], *, loop: Sequence[Round], num_nodes: int) -> None:
    """Print each contender's CPU and wall time over the plain loop's."""
    found = {"plain loop, no DP, one process": cost(loop), "ours, 1 actor": cost(one), "ours, 2 actors": cost(two)}
    plain = cost(loop)
    rows = [
        [
            name,
            f"{item['own']:.2f}",
            f"{item['own'] / plain['own']:.2f}",
            f"{item['ray']:.2f}",
            f"{item['wall'] - item['held_out']:.1f}",
            f"{num_nodes / item['own']:.2f}",
        ]
        for name, item in found.items()
    ]
    print_table(["a round", "CPU, s", "over the loop", "Ray's own CPU, s", "wall, s", "clients a CPU second"], rows)
    best = min(item["wall"] - item["evaluation"] - item["monitor"] for item in one) / min(
        item["wall"] - item["evaluation"] - item["monitor"] for item in two
    )
    print(f"\nTwo actors against one, best rounds: {best:.2f} x in wall time\n")


def stages_table(rounds: Sequence[Round], *, num_nodes: int) -> None:
    """Print where a round's CPU time goes."""
    item = cost(rounds)
    stages = {
        "actors: train, account, sign, seal": item["actors"],
        "driver: ask, open, screen, aggregate, checkpoint, report": item["driver"] - item["held_out"],
        "step search, gate, Shapley (left out)": item["evaluation"],
        "the monitor's measures (left out)": item["monitor"],
        "Ray's own processes (left out)": item["ray"],
    }
    rows = [[name, f"{cpu_s:.2f}", f"{1000 * cpu_s / num_nodes:.1f}"] for name, cpu_s in stages.items()]
    print_table(["stage", "CPU, s", "ms a node"], rows)
    print()


def peers_table(root: Path, two: Sequence[Round], *, num_nodes: int, pfl_python: str | None, flower: bool) -> None:
    """Print how many clients a CPU second our peers serve, and how many times as many we do."""
    rounds = 1 + len(two)
    found = {"ours, 2 actors": cost(two)}
    if pfl_python:
        found["pfl-research, 1 process"] = cost(
            contender("benchmarks.round_pfl", root, f"--rounds={rounds}", python=pfl_python)
        )
    if flower:
        flags = (f"--nodes={num_nodes}", f"--rounds={rounds}", "--actors=2")
        found["Flower, a message a node"] = cost(contender("benchmarks.round_flower", root, *flags))
    mine = found["ours, 2 actors"]["own"]
    rows = [
        [
            name,
            f"{item['own']:.2f}",
            f"{item['ray']:.2f}",
            f"{num_nodes / item['own']:.2f}",
            f"{item['own'] / mine:.2f}",
        ]
        for name, item in found.items()
    ]
    print_table(["the same work", "CPU, s", "Ray's own CPU, s", "clients a CPU second", "ours is faster by"], rows)
    print("" if pfl_python else f"\n{HOW_TO}")
    print("" if flower else "\nFlower's stock pattern is left out: --flower\n")


def tiny_table(root: Path, *, nodes: int, rounds: int) -> None:
    """Print what many tiny nodes cost us and Flower's stock pattern."""
    mine = cost(ours(root, nodes=nodes, rounds=rounds, actors=2, work="tiny"))
    flags = (f"--nodes={nodes}", f"--rounds={rounds}", "--actors=2")
    theirs = cost(contender("benchmarks.round_flower", root, *flags))
    rows = [
        [name, f"{item['own']:.2f}", f"{item['wall']:.1f}", f"{item['own'] / mine['own']:.2f}"]
        for name, item in (("ours, 10 messages", mine), ("Flower, a message a node", theirs))
    ]
    print_table([f"{nodes} tiny nodes", "CPU, s", "wall, s", "ours is faster by"], rows)
    print(flush=True)


def trivial_table(root: Path, *, many: int) -> None:
    """Print what a round of nothing costs, at a tenth of the nodes and at all."""
    rows, per_node = [], {}
    for nodes in (many // 10, many):
        item = cost(ours(root / f"nothing-{nodes}", nodes=nodes, rounds=4, actors=2, work="nothing"))
        per_node[nodes] = item["own"] / nodes
        wall = item["wall"] - item["held_out"]
        rows.append(
            [f"{nodes:,}", f"{wall:.2f}", f"{item['own']:.2f}", f"{item['ray']:.2f}", f"{1000 * per_node[nodes]:.2f}"]
        )
    print_table(["nodes of trivial work", "wall, s", "CPU, s", "Ray's own CPU, s", "CPU ms a node"], rows)
    print(f"\nCPU a node at {many:,} over that at {many // 10:,}: {per_node[many] / per_node[many // 10]:.2f}\n")


if __name__ == "__main__":
    main()
