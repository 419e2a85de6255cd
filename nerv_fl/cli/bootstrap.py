"""The commands of `nerv-fl bootstrap`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nerv_fl.cli.completion import complete_setting
from nerv_fl.cli.progress import RunDisplay
from nerv_fl.cli.writing import writes_output
from nerv_fl.privacy.epsilon import format_epsilon

if TYPE_CHECKING:
    from nerv_fl.bootstrap.pretrain import BootstrapResult
    from nerv_fl.bootstrap.sweep import Sweep
    from nerv_fl.config import RunConfig

bootstrap_app = typer.Typer(no_args_is_help=True, help="Pretrain centrally on public data.")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, such as bootstrap.steps=50. Repeatable.",
        autocompletion=complete_setting,
    ),
]
Data = Annotated[Path, typer.Option(help="Ledger file of the genesis profile.")]
Preset = Annotated[str, typer.Option(help="quickstart, small, tee, base or whitepaper.")]


@bootstrap_app.command("encoder")
@writes_output
def encoder(
    data: Data,
    out: Annotated[Path, typer.Option(help="Safetensors file to write.")],
    preset: Preset = "quickstart",
    dp: Annotated[bool, typer.Option("--dp", help="Train by DP-SGD (sigma 0.5) and state epsilon.")] = False,
    start: Annotated[Path | None, typer.Option(help="Weights to begin with, of the same preset.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside the file.")] = False,
    ray: Annotated[str | None, typer.Option(help="Share batches over a Ray cluster: ADDRESS, or `local`.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of the cluster; each batch is shared by all.")] = 2,
    curve: Annotated[Path | None, typer.Option(help="PNG of the held-out measures at each evaluation.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Pretrain the encoder on public data and keep the best weights by held-out loss.

    All that a resume needs lies beside the file until the training ends: after a kill, --resume goes on with the same
    bits. Less memory: --set bootstrap.micro_batch=1 --set bootstrap.checkpointing=true. Large presets are faster with
    --set bootstrap.precision=bfloat16.
    """
    from nerv_fl.bootstrap.pretrain import pretrain  # noqa: PLC0415 (seconds of imports)
    from nerv_fl.bootstrap.resume import checkpoint_path  # noqa: PLC0415
    from nerv_fl.bootstrap.workers import Cluster  # noqa: PLC0415
    from nerv_fl.config import build, parse_overrides  # noqa: PLC0415
    from nerv_fl.errors import CheckpointError  # noqa: PLC0415

    if resume and not out.exists() and not checkpoint_path(out).exists():
        raise CheckpointError(f"{checkpoint_path(out)} does not exist, expected a checkpoint: start without --resume")
    chosen = {"model.preset": preset, "bootstrap.dp": dp, **parse_overrides(overrides or ())}
    config = build(chosen)
    with RunDisplay(Console(stderr=True), config) as display:
        result = pretrain(
            config,
            data,
            out=out,
            progress=lambda step, of, loss: display.stage("bootstrap", step, of, f"held-out loss {loss:.3f}"),
            resume=resume,
            start=start,
            cluster=Cluster(address=ray, workers=workers) if ray else None,
        )
    if curve is not None:
        from nerv_fl.bootstrap.curve import plot_curve  # noqa: PLC0415 (matplotlib)

        plot_curve(curve, result, title=f"{preset}, seed {config.seed}")
    if as_json:
        facts = asdict(result)
        del facts["path"]  # it may be moved, or published
        print(json.dumps(facts))
    else:
        _print_result(result, config)


@bootstrap_app.command("sweep")
def sweep(
    data: Data,
    preset: Preset = "quickstart",
    low: Annotated[float, typer.Option(help="Lowest learning rate.")] = 1e-4,
    high: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-2,
    rates: Annotated[int, typer.Option(help="How many, evenly spaced in their logarithm.")] = 6,
    steps: Annotated[int, typer.Option(help="Steps of each short training.")] = 60,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find the learning rate: short trainings from the same start on the same batches, a table and the pick."""
    from nerv_fl.bootstrap.sweep import sweep_learning_rates  # noqa: PLC0415 (seconds of imports)
    from nerv_fl.config import build, parse_overrides  # noqa: PLC0415

    short = {"bootstrap.steps": steps, "bootstrap.warmup_steps": steps // 10}
    short["bootstrap.evaluate_every"] = max(1, steps // 3)
    config = build({"model.preset": preset, **short, **parse_overrides(overrides or ())})
    with RunDisplay(Console(stderr=True), config) as display:
        found = sweep_learning_rates(
            config,
            data,
            low=low,
            high=high,
            num_rates=rates,
            progress=lambda done, of: display.stage("sweep", done, of, ""),
        )
    if as_json:
        print(json.dumps(asdict(found)))
        return
    _print_sweep(found)


def _print_result(result: "BootstrapResult", config: "RunConfig") -> None:
    measures = result.measures
    print(f"{result.path}: best at step {result.best_step}, held-out loss {measures.loss:.4f}")
    print(
        f"masked cross-entropy {measures.masked_ce:.4f} nats (unigram {result.unigram:.4f}, per account "
        f"{result.per_account:.4f}), relative drift {measures.drift_relative:.3f}"
    )
    if result.epsilon is not None:
        unit = f"delta {config.privacy.delta:g} per step record, Poisson sampling, sigma {config.privacy.sigma}"
        unit = "; ".join(filter(None, (unit, config.privacy.deviation)))
        print(f"epsilon {format_epsilon(result.epsilon)} at {unit}")
    if result.stopped:
        Console(stderr=True, soft_wrap=True).print(f"stopped: {result.stopped}", highlight=False)


def _print_sweep(found: "Sweep") -> None:
    print(f"{'learning rate':>13}  {'loss':>8}  {'masked':>8}  {'rel. drift':>10}")
    for trial in found.trials:
        figures = f"{trial.loss:>8.4f}  {trial.masked_ce:>8.4f}  {trial.drift_relative:>10.3f}"
        marks = ("  stopped" if trial.stopped else "") + ("  <-" if trial.learning_rate == found.pick else "")
        print(f"{trial.learning_rate:>13.2e}  {figures}{marks}")
    print(f"pick {found.pick:.2e}" + (", at the end of the range: widen it" if found.at_the_end else ""))
