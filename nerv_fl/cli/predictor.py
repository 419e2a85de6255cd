"""`nerv-fl bootstrap predictor`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nerv_fl.cli.writing import writes_output

ROWS = {
    "agreement": "finalised, honest races",
    "confident": "the same, surest 85 %",
    "with_rule": "the same, with the rule once it decides",
    "majority": "rule: most votes",
    "reputation": "rule: most reputation",
    "validity": "validity",
    "balanced": "the same, balanced",
    "always_valid": "rule: all are valid",
    "calibration": "calibration error, outcome",
    "calibration_valid": "calibration error, validity",
}


@writes_output
def predictor(
    data: Annotated[Path, typer.Option(help="Consensus file.")],
    encoder: Annotated[Path, typer.Option(help="Weights of the encoder whose V makes the deltas.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps; each takes two shards.")] = 3000,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    evaluate_every: Annotated[int, typer.Option(help="Steps between looks at the validation shards.")] = 250,
    patience: Annotated[int, typer.Option(help="Evaluations without a better loss before stopping; 0: never.")] = 0,
    max_shards: Annotated[int, typer.Option(help="Train shards used.")] = 100_000,
    test: Annotated[
        Path | None, typer.Option(help="Another consensus file, all of which is scored; else the test shards.")
    ] = None,
    rollouts: Annotated[int, typer.Option(help="Continuations of each race and cut, for soft targets.")] = 16,
    seed: Annotated[int, typer.Option(help="Same seed, same bits.")] = 7,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Distil the consensus predictor from races played on, calibrate it, write its int8 file, and score both."""
    from datagen.consensus.generate import play_on  # noqa: PLC0415 (seconds of imports)
    from nerv_fl.bootstrap.distill import DistillConfig  # noqa: PLC0415
    from nerv_fl.bootstrap.predictor import train_predictor  # noqa: PLC0415

    config = DistillConfig(
        seed=seed,
        steps=steps,
        learning_rate=learning_rate,
        evaluate_every=evaluate_every,
        patience=patience,
        max_shards=max_shards,
        rollouts=rollouts,
    )
    console = Console(stderr=True, soft_wrap=True)
    result = train_predictor(
        config,
        data,
        encoder=encoder,
        out=out,
        play_on=play_on(data, rollouts=rollouts),
        test=test,
        resume=resume,
        told=lambda step, of, loss: console.print(f"step {step:,} of {of:,}: held-out loss {loss:.4f}"),
    )
    if result.standing.stopped:
        console.print(f"stopped: {result.standing.stopped}", highlight=False)
    if as_json:
        print(json.dumps({**asdict(result), "folder": str(result.folder)}))
        return
    for name, scores in (("float32", result.float32), ("int8", result.int8)):
        table = Table(title=f"{name}, unseen races, % right", title_justify="left", box=box.SIMPLE, pad_edge=False)
        table.add_column("votes seen")
        for score in scores:
            table.add_column(f"{100 * score.cut:.0f} %", justify="right")
        for field, label in ROWS.items():
            table.add_row(label, *(f"{100 * getattr(score, field):.1f}" for score in scores))
        Console().print(table)
    print(f"{out}: int8 file {result.int8_bytes:,} bytes, 512 events in {result.p95_ms:.1f} ms (95th percentile)")
