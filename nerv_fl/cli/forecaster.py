"""The command `nerv-fl bootstrap forecaster`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nerv_fl.cli.writing import writes_output
from nerv_fl.privacy.epsilon import format_epsilon

if TYPE_CHECKING:
    from nerv_fl.bootstrap.forecast_fit import Evaluation


@writes_output
def forecaster(
    data: Annotated[Path, typer.Option(help="Load file, as `nerv-fl datagen sharding` makes it.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, int8 file, measures and figures.")],
    dp: Annotated[bool, typer.Option("--dp", help="Train by DP-SGD (sigma 0.5) and state epsilon.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint; examine a finished one again.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same bits on the same machine.")] = 7,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Expected windows of a batch.")] = 192,
    learning_rate: Annotated[float, typer.Option(help="Highest step size.")] = 2e-3,
    windows: Annotated[int, typer.Option(min=1, help="Windows of each kind that an examination takes.")] = 20_000,
    days: Annotated[int, typer.Option(min=1, help="Shard-days watched minute by minute for false alarms.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the shard-load forecaster, quantise it to int8, and examine it on shards it never saw.

    Interrupt it whenever you like: --resume goes on from the last evaluation to the same bits.
    """
    from nerv_fl.bootstrap.forecast import METRICS_FILE, train_forecaster  # noqa: PLC0415 (seconds of imports)
    from nerv_fl.bootstrap.forecast_fit import ForecastSettings  # noqa: PLC0415
    from nerv_fl.bootstrap.forecast_report import report_lines  # noqa: PLC0415
    from nerv_fl.bootstrap.forecast_windows import Amounts  # noqa: PLC0415

    settings = ForecastSettings(seed=seed, steps=steps, batch_size=batch_size, learning_rate=learning_rate, dp=dp)
    console = Console(stderr=True)

    def told(evaluation: "Evaluation", num_steps: int) -> None:
        console.print(
            f"step {evaluation.step:,} of {num_steps:,}: overload {evaluation.overload:.4f} nats, "
            f"metrics {evaluation.metrics:.3f} of no change",
            highlight=False,
        )

    amounts = Amounts(uniform=windows, clean=windows, days=days)
    result = train_forecaster(data, out=out, settings=settings, amounts=amounts, resume=resume, told=told)
    if as_json:
        print((out / METRICS_FILE).read_text(encoding="utf-8"))
        return
    print(f"{out}: best at step {result.best.step:,} of {result.num_steps:,}")
    print("\n".join(report_lines(result)))
    if result.epsilon is not None:
        mechanism = f"Poisson sampling, sigma {settings.privacy.sigma}"
        spent = f"epsilon {format_epsilon(result.epsilon)} at delta {settings.privacy.delta:g} per window"
        print(f"{spent}, {mechanism}")
