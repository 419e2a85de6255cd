"""The command `nerv-fl sweep`."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nerv_fl.cli.completion import complete_recipe, complete_setting
from nerv_fl.cli.progress import RunDisplay
from nerv_fl.cli.writing import writes_output
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.validation import in_range

if TYPE_CHECKING:
    from simulations.sweep import Outcome, Sweep


@writes_output
def sweep(
    recipe: Annotated[
        str,
        typer.Argument(help="Name of a shipped recipe, or the path of a TOML file.", autocompletion=complete_recipe),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the sweep.")],
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Values to try, such as training.local_steps=1,2,4. Repeatable.",
            autocompletion=complete_setting,
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every combination.")] = "7,8",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of the recipe. Repeatable.",
            autocompletion=complete_setting,
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="One more point beside the combinations, such as privacy.mechanism=none. Repeatable.",
            autocompletion=complete_setting,
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="What no point should exceed; what the recipe spends if left out.")
    ] = None,
    central: Annotated[bool, typer.Option(help="Compare with central training on as many samples.")] = True,
    values: Annotated[bool, typer.Option("--values", help="Value and pay the nodes too, as the recipe says.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a recipe over settings and seeds, and say what each setting is worth, with 95 % intervals over seeds.

    A point that would spend more epsilon than the recipe gets more data for each node, so that its batches are drawn at
    a smaller rate; not so where --over or --also names privacy.sigma, privacy.mechanism or privacy.delta, whose points
    are to differ in epsilon (with --set privacy.protocol=false). Data and bootstrap are made once for all points that
    share them. Nobody is valued (valuation.method "none") without --values: weights do not depend on it. Writes
    sweep.csv, sweep.json, sweep.md and sweep.png.
    """
    from nerv_fl.config import parse_overrides  # noqa: PLC0415 (seconds of imports)
    from nerv_fl.errors import ConfigError  # noqa: PLC0415
    from simulations.prepare import load_recipe  # noqa: PLC0415
    from simulations.sweep import parse_axes, run_sweep  # noqa: PLC0415
    from simulations.sweep.sweep import without_values  # noqa: PLC0415

    if epsilon is not None:
        in_range("--epsilon", epsilon, low=0, high=math.inf, open_low=True)
    axes = parse_axes(over or ())
    base = load_recipe(recipe, overrides=overrides or ())
    if not values and "valuation.method" not in axes:
        base = without_values(base)
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds is {seeds!r}, expected numbers between commas, such as 7,8") from error
    console = Console(stderr=True)
    with RunDisplay(console) as display:
        found = run_sweep(
            base,
            axes,
            seeds=numbers,
            root=out,
            resume=resume,
            epsilon=epsilon,
            also=[parse_overrides(text.split(",")) for text in also or ()],
            with_central=central,
            progress=display.stage,
            on_outcome=lambda outcome: console.print(_line(outcome), highlight=False, soft_wrap=True),
        )
    if as_json:
        print(json.dumps({"folder": str(found.root), "settings": [asdict(item) for item in found.settings]}))
        return
    _print(found)


def _line(outcome: "Outcome") -> str:
    """Return a finished run in one line."""
    return (
        f"{outcome.label}, seed {outcome.seed}: {outcome.accepted} of {outcome.rounds} rounds accepted, "
        f"{_measured(outcome)}, {_epsilon(outcome)}"
    )


def _measured(outcome: "Outcome") -> str:
    """Return what the task is measured by after the last round."""
    if outcome.masked_ce is not None and outcome.gap_closed is not None:
        return f"masked cross-entropy {outcome.masked_ce:.4f}, {100 * outcome.gap_closed:.1f} % of the gap closed"
    return ", ".join([f"loss {outcome.loss:.4f}", *(f"{name} {value:.4f}" for name, value in outcome.measures.items())])


def _epsilon(outcome: "Outcome") -> str:
    """Return the epsilon, with the mechanism where it is not the protocol's."""
    if outcome.epsilon is None:
        return outcome.mechanism
    text = f"epsilon {format_epsilon(outcome.epsilon)}"
    return f"{text} ({outcome.mechanism})" if outcome.mechanism else text


def _print(found: "Sweep") -> None:
    from simulations.sweep.tables import MECHANISM, columns_of, rows_of  # noqa: PLC0415

    heads = [head for head in columns_of(found.settings) if head != MECHANISM]  # whose cells are a line each, below
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, no_wrap=head == heads[0])
    for row in rows_of(found.settings):
        table.add_row(*row[: len(heads)])
    console = Console()
    console.print(table)
    for setting in found.settings:
        if setting.mechanism:
            console.print(f"{setting.label}: {setting.mechanism}", markup=False, highlight=False, soft_wrap=True)
    first = found.outcomes[0]
    limit = "" if found.epsilon is None else f"; '!': above {format_epsilon(found.epsilon)}"
    print(f"epsilon at delta {first.delta:g} per {first.unit}, Poisson sampling{limit}\n{found.root / 'sweep.md'}")
