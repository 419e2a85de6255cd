"""What each attack earns, whether it is found, and what it does to the model with and without the gate.

Every kind of adversary alone, at 10 % and 30 % of a cohort that takes part in every round, against the same federation
without one. Columns: mean payout of an identity, and of an operator, over an honest node's; part of its updates that
were detected (recall); precision; the change of the monitored loss over the run with the gate, and at 30 % without it.

    python -m benchmarks.bench_adversaries [--rounds N] [--kinds sybil,scaled] [--folder DIR]
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from nerv_fl.config import AdversariesConfig, RunConfig
from nerv_fl.report.attack_detection import HONEST, KindSummary, precision, summarise_kinds
from nerv_fl.report.load import Run, load_run
from nerv_fl.server.run_folder import RunFolder
from simulations.adversaries import ATTACKS
from simulations.engine import run
from simulations.prepare import begin_or_resume, load_recipe, prepare

NUM_NODES = 40
GROUP_SIZE = 4
FRACTIONS = (0.1, 0.3)
HEADER = ("attack", "fraction", "identity", "operator", "recall", "precision", "false alarm", "loss, gate", "no gate")


def main() -> None:
    """Run every scenario and print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--kinds", default=",".join(ATTACKS))
    parser.add_argument("--folder", type=Path, help="keep the runs here, and use those that are there")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        parent = options.folder or Path(temporary)
        base = _base(options.rounds)
        print(_line(HEADER), flush=True)
        print("|" + " --- |" * len(HEADER), flush=True)
        print(_line(("none", "0", *("",) * 5, *_losses(base, parent, "none"))), flush=True)
        for kind in options.kinds.split(","):
            for fraction in FRACTIONS:
                print(_scenario(base, parent, kind=kind, fraction=fraction), flush=True)


def _base(rounds: int) -> RunConfig:
    settings = [f"federation.{key}={NUM_NODES}" for key in ("num_nodes", "cohort_size")]
    return load_recipe("quickstart", overrides=[*settings, f"federation.num_rounds={rounds}"])


def _scenario(base: RunConfig, parent: Path, *, kind: str, fraction: float) -> str:
    adversaries = replace(AdversariesConfig(group_size=GROUP_SIZE), **{kind: fraction})  # type: ignore[arg-type]
    config = replace(base, adversaries=adversaries)
    name = f"{kind}-{fraction:g}"
    done = _run(config, parent, name)
    kinds = {item.kind: item for item in summarise_kinds(done.rewards, done.roles)}
    attack, honest = kinds.get(kind), kinds[HONEST]
    ungated = ""
    if fraction == max(FRACTIONS):
        ungated = _signed(_change(_run(_without_gate(config), parent, f"{name}-ungated")))
    found = (_share(precision(done.rewards, done.roles)), _share(honest.detected))
    return _line((kind, f"{fraction:g}", *_earned(attack), *found, _signed(_change(done)), ungated))


def _losses(base: RunConfig, parent: Path, name: str) -> tuple[str, str]:
    gated, ungated = _run(base, parent, name), _run(_without_gate(base), parent, f"{name}-ungated")
    return _signed(_change(gated)), _signed(_change(ungated))


def _without_gate(config: RunConfig) -> RunConfig:
    return replace(config, gate=replace(config.gate, enforce=False))


def _run(config: RunConfig, parent: Path, name: str) -> Run:
    """Run a scenario on data and a bootstrap that all of them share, or go on with it, or read it if it is finished."""
    shared = _prepared(config, parent)
    folder = parent / name
    if not _is_finished(folder):
        opened = begin_or_resume(folder, config)
        for path in ("data", "bootstrap.safetensors"):
            if not (folder / path).exists():
                (folder / path).symlink_to(shared.root / path)
        prepare(opened)
        run(opened)
    return load_run(folder)


def _is_finished(folder: Path) -> bool:
    return (folder / "report.html").exists() and load_run(folder).complete


def _prepared(config: RunConfig, parent: Path) -> RunFolder:
    honest = replace(config, adversaries=AdversariesConfig(), gate=replace(config.gate, enforce=True))
    folder = begin_or_resume(parent / "prepared", honest)
    prepare(folder)
    return folder


def _change(done: Run) -> float:
    return done.rounds[-1].loss - done.rounds[0].loss


def _earned(attack: KindSummary | None) -> tuple[str, str, str]:
    if attack is None:
        return "", "", ""
    return _ratio(attack.earned), _ratio(attack.earned_by_operator), _share(attack.detected)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
