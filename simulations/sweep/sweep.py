"""All points of a sweep, one after another, and its tables after each: a kill loses at most the point it fell into.

Rounds value nobody unless the sweep is over `valuation.method` or `with_values` says so: values decide who is paid and
nothing that is measured here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from nerv_fl.config import PROTOCOL_SIGMA, Flat, RunConfig, as_table, build, flatten
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import Progress, silent
from simulations.sweep.centralized_baseline import Central, central_reference, samples_of
from simulations.sweep.grid import Axes, Point, limit_of, plan
from simulations.sweep.plot import plot_sweep
from simulations.sweep.results import Outcome, Setting, outcome_of, settings_of
from simulations.sweep.runs import is_finished, point_folder, run_point, share_data
from simulations.sweep.tables import to_csv, to_json, to_markdown

PLAN: Final = "sweep.plan.json"

OnOutcome: TypeAlias = Callable[[Outcome], None]


def ignore_outcome(_outcome: Outcome) -> None:
    """Show nothing."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A finished sweep: its folder, the epsilon no point should exceed (None: no limit), its runs and its settings."""

    root: Path
    epsilon: float | None
    outcomes: tuple[Outcome, ...]
    settings: tuple[Setting, ...]


def without_values(base: RunConfig) -> RunConfig:
    """Return the same settings with nobody valued."""
    return build(flatten(as_table(base)) | {"valuation.method": "none"})


def run_sweep(
    base: RunConfig,
    axes: Axes,
    *,
    seeds: Sequence[int],
    root: Path,
    resume: bool,
    epsilon: float | None = None,
    also: Sequence[Flat] = (),
    with_central: bool = True,
    progress: Progress = silent,
    on_outcome: OnOutcome = ignore_outcome,
) -> Sweep:
    """Run every point that is not finished, and write the tables and the picture.

    Args:
        base: The recipe.
        axes: Values to try of each key.
        seeds: Seeds of every combination.
        root: Folder of the sweep.
        resume: Whether to go on with the sweep in the folder.
        epsilon: What no point should exceed; if None what the base spends, or nothing where the sweep varies the
            mechanism.
        also: Settings of further points, outside of the combinations of the axes.
        with_central: Whether to train centrally for comparison, once for each seed and number of samples.
        progress: Told of each stage.
        on_outcome: Told of each finished run.

    Raises:
        CheckpointError: If the folder holds a sweep and `resume` is false, none and `resume` is true, or something
            else, or a run fails.
        ConfigError: If the sweep in the folder is another, or a setting is wrong.
    """
    varied = [*axes, *(key for extra in also for key in extra)]
    limit = epsilon if epsilon is not None else limit_of(base, varied, seeds=seeds)
    points = plan(base, axes, seeds=seeds, epsilon=limit, also=also)
    _claim(root, points, resume=resume)
    outcomes: list[Outcome] = []
    for done, point in enumerate(points):
        progress("sweep", done, len(points), f"{point.label}, seed {point.config.seed}")
        outcomes.append(_outcome(root, point, with_central=with_central, progress=progress))
        on_outcome(outcomes[-1])
        _write(root, outcomes, limit=limit, base=base)
    progress("sweep", len(points), len(points), "")
    settings = settings_of(outcomes, epsilon=limit)
    return Sweep(root=root, epsilon=limit, outcomes=tuple(outcomes), settings=tuple(settings))


def _outcome(root: Path, point: Point, *, with_central: bool, progress: Progress) -> Outcome:
    shared, folder = share_data(root, point, progress=progress), point_folder(root, point)
    if not is_finished(folder):
        folder = run_point(root, point, shared=shared)
    central = _central(shared, point, progress=progress) if with_central else None
    return outcome_of(point, folder, central=central)


def _central(shared: RunFolder, point: Point, *, progress: Progress) -> Central:
    return central_reference(
        shared,
        num_samples=samples_of(point.config),
        progress=lambda step, of: progress("central", step, of, f"seed {point.config.seed}"),
    )


def _claim(root: Path, points: Sequence[Point], *, resume: bool) -> None:
    """Begin a sweep in a new folder, or require that the folder holds the same one."""
    plan_text = json.dumps([[point.folder_name, as_table(point.config)] for point in points], sort_keys=True)
    path = root / PLAN
    if not path.exists():
        if root.exists() and any(root.iterdir()):
            raise CheckpointError(f"{root} is not empty and holds no sweep, expected an empty or a new folder")
        if resume:
            raise CheckpointError(f"{root} holds no sweep, expected one to resume: start it without --resume")
        root.mkdir(parents=True, exist_ok=True)
        write_atomically(path, plan_text.encode())
    elif not resume:
        raise CheckpointError(f"{root} holds a sweep, expected a new folder, or --resume to go on with it")
    elif _normalised(path) != plan_text:
        raise ConfigError(f"the sweep in {root} has other points, expected the recipe, axes and seeds it began with")


def _normalised(path: Path) -> str:
    """Return a plan as it would be written now: a setting that is newer than the plan has its default."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps([[name, as_table(build(flatten(table)))] for name, table in stored], sort_keys=True)


def _write(root: Path, outcomes: Sequence[Outcome], *, limit: float | None, base: RunConfig) -> None:
    settings = settings_of(outcomes, epsilon=limit)
    title = (
        f"{base.name}: {base.federation.num_rounds} rounds, {_epsilon_words(outcomes, limit=limit)} at delta "
        f"{base.privacy.delta:g} per {base.privacy_unit}, Poisson sampling; valuation {base.valuation.method}"
    )
    facts: dict[str, object] = {"epsilon": limit, "base": as_table(base)}
    write_atomically(root / "sweep.csv", to_csv(outcomes).encode())
    write_atomically(root / "sweep.json", to_json(outcomes, settings, facts=facts).encode())
    write_atomically(root / "sweep.md", to_markdown(settings, note=title).encode())
    plot_sweep(root / "sweep.png", settings, outcomes=outcomes, title=title)


def _epsilon_words(outcomes: Sequence[Outcome], *, limit: float | None) -> str:
    """Return what limits epsilon, with sigma if all runs have the protocol's mechanism."""
    bound = "epsilon by setting" if limit is None else f"epsilon <= {format_epsilon(limit)}"
    if any(outcome.mechanism for outcome in outcomes):
        return f"{bound}, not all of the protocol's mechanism,"
    return f"{bound}, sigma {PROTOCOL_SIGMA},"
