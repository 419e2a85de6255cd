"""The commands of `nerv-fl datagen`."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from nerv_fl.cli.writing import writes_output
from nerv_fl.validation import one_of

datagen_app = typer.Typer(no_args_is_help=True, help="Generate data sets, prove their invariants, publish them.")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Preset = Annotated[str, typer.Option(help="sample (seconds), standard (minutes) or full; options below override it.")]
Seed = Annotated[int, typer.Option(help="Same seed, same bytes.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the work; no byte depends on it.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from what a killed run left beside the file.")]
MIN_SCORED_MINUTES = 1_000_000
"""Below this, too few overloads begin for baselines to be fitted and compared."""
MIN_SCORED_RACES = 5_000
"""Below this, too few candidates are invalid for baselines to be fitted and compared."""

Data = Annotated[Path, typer.Argument(help="Data file, folder of parts, or bundle.")]


@datagen_app.command("ledger")
@writes_output
def ledger(
    out: Annotated[Path, typer.Option(help="HDF5 file to write; with --ray, the folder of parts.")],
    preset: Annotated[
        str, typer.Option(help="quickstart, sample (seconds), standard (minutes) or full; options below override it.")
    ] = "quickstart",
    chains: Annotated[int | None, typer.Option(help="Number of chains, each a shard's history.")] = None,
    steps: Annotated[int | None, typer.Option(help="Batches of each chain.")] = None,
    accounts: Annotated[int | None, typer.Option(help="Accounts of a shard.")] = None,
    max_transactions: Annotated[int | None, typer.Option(help="Batches hold 1 to this many transactions.")] = None,
    profile: Annotated[str, typer.Option(help="live: roles in registry order; genesis: shuffled, public.")] = "live",
    heterogeneity: Annotated[
        float | None, typer.Option(help="How far apart the kinds of shard are, 0 (alike) to 1.")
    ] = None,
    supply_nano: Annotated[
        int | None, typer.Option(help="Supply of every shard in NANO, to 10^16; 0 draws it from 10^15 up.")
    ] = None,
    seed: Seed = 7,
    workers: Workers = 2,
    ray: Annotated[str | None, typer.Option(help="Spread the parts over a Ray cluster: ADDRESS, or `local`.")] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Generate a ledger: chains of states with the batches between them, and its card."""
    from datagen.card import write_card  # noqa: PLC0415 (seconds of imports)
    from datagen.ledger import generate_ledger, generate_ledger_parts  # noqa: PLC0415
    from datagen.ledger_card import ledger_card  # noqa: PLC0415
    from datagen.ledger_checks import verify_ledger  # noqa: PLC0415
    from datagen.presets import LEDGER_PRESETS  # noqa: PLC0415

    one_of("--preset", preset, choices=LEDGER_PRESETS)
    asked: dict[str, Any] = {
        "chains": chains,
        "steps": steps,
        "accounts": accounts,
        "max_transactions": max_transactions,
        "heterogeneity": heterogeneity,
        "supply_nano": supply_nano,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    shape = replace(LEDGER_PRESETS[preset], profile=profile, seed=seed, **given)
    with _bar("samples", shape.chains * shape.steps) as advance:
        told = _times(advance, shape.steps)
        if ray is not None:
            info = generate_ledger_parts(out, shape, ray=ray, progress=told)
        else:
            info = generate_ledger(out, shape, workers=workers, resume=resume, progress=told)
    with _bar("verified", info.num_samples) as advance:
        report = verify_ledger(out, min_changed=0, progress=_times(advance, shape.steps))
    card = write_card(out, ledger_card(out, report, command=_command()))
    _print(asdict(info), as_json=as_json, text=f"{out}: {info.num_samples:,} samples, sha256 {info.content_sha256}")
    if not as_json:
        print(card)


@datagen_app.command("sharding")
@writes_output
def sharding(
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    preset: Preset = "sample",
    shards: Annotated[int | None, typer.Option(help="Number of shards.")] = None,
    steps: Annotated[int | None, typer.Option(help="Minutes of each shard.")] = None,
    splits: Annotated[bool, typer.Option("--splits", help="Overload splits a shard, long low use merges it.")] = False,
    seed: Seed = 7,
    workers: Workers = 2,
    ray: Annotated[str | None, typer.Option(help="Spread the work over a Ray cluster: ADDRESS, or `local`.")] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Generate shard load: what a monitor sees, minute by minute, and when the shard is overloaded; and its card."""
    from datagen.card import write_card  # noqa: PLC0415 (seconds of imports)
    from datagen.load_card import load_card  # noqa: PLC0415
    from datagen.presets import SHARDING_PRESETS  # noqa: PLC0415
    from datagen.sharding.generate import generate_load  # noqa: PLC0415
    from datagen.sharding.score import score_load  # noqa: PLC0415
    from datagen.sharding.verify import verify_load  # noqa: PLC0415

    one_of("--preset", preset, choices=SHARDING_PRESETS)
    size = {**SHARDING_PRESETS[preset], **{k: v for k, v in (("shards", shards), ("steps", steps)) if v is not None}}
    with _bar("shards", size["shards"]) as advance:
        info = generate_load(
            out, **size, seed=seed, splits=splits, workers=workers, ray=ray, resume=resume, progress=advance
        )
    scores = score_load(out) if size["shards"] * size["steps"] >= MIN_SCORED_MINUTES else None
    card = write_card(out, load_card(out, verify_load(out), scores=scores, command=_command()))
    _print(asdict(info), as_json=as_json, text=f"{out}: {info.shards:,} shards, sha256 {info.content_sha256}")
    if not as_json:
        print(card)


@datagen_app.command("consensus")
@writes_output
def consensus(
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")],
    preset: Preset = "sample",
    shards: Annotated[int | None, typer.Option(help="Number of shards.")] = None,
    races: Annotated[int, typer.Option(help="Races of each shard, one block after another.")] = 64,
    accounts: Annotated[int, typer.Option(help="Accounts of a shard.")] = 1024,
    max_transactions: Annotated[int, typer.Option(help="Mempools hold 1 to this many transactions.")] = 48,
    encoder: Annotated[
        Path | None, typer.Option(help="Weights of an encoder: the card then scores rules that see deltas, too.")
    ] = None,
    seed: Seed = 7,
    workers: Workers = 2,
    ray: Annotated[str | None, typer.Option(help="Spread the work over a Ray cluster: ADDRESS, or `local`.")] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Generate consensus races: candidate blocks, votes, disputes, timeouts, and who was finalised; and its card."""
    from datagen.card import write_card  # noqa: PLC0415 (seconds of imports)
    from datagen.consensus.generate import RaceShape, generate_races  # noqa: PLC0415
    from datagen.consensus.score import score_races  # noqa: PLC0415
    from datagen.consensus.verify import verify_races  # noqa: PLC0415
    from datagen.consensus_card import race_card  # noqa: PLC0415
    from datagen.presets import CONSENSUS_PRESETS  # noqa: PLC0415
    from nerv_fl.models.weights import read_table  # noqa: PLC0415

    one_of("--preset", preset, choices=CONSENSUS_PRESETS)
    shape = RaceShape(
        shards=CONSENSUS_PRESETS[preset] if shards is None else shards,
        races=races,
        accounts=accounts,
        max_transactions=max_transactions,
        seed=seed,
    )
    table = None if encoder is None else read_table(encoder, num_accounts=accounts)
    with _bar("shards", shape.shards) as advance:
        info = generate_races(out, shape, workers=workers, ray=ray, resume=resume, progress=advance)
    scores = score_races(out, table_AD=table) if shape.shards * races >= MIN_SCORED_RACES else ()
    card = write_card(out, race_card(out, verify_races(out), scores=scores, command=_command()))
    _print(asdict(info), as_json=as_json, text=f"{out}: {shape.shards * races:,} races, sha256 {info.content_sha256}")
    if not as_json:
        print(card)


@datagen_app.command("verify")
def verify(path: Data, as_json: Json = False) -> None:
    """Prove a data set's invariants by replaying it; of a bundle, its files' hashes first."""
    from datagen.datasets import verify_any  # noqa: PLC0415

    with _bar("verified", None) as advance:
        found = verify_any(path, progress=advance)
    _print(found, as_json=as_json, text="\n".join(f"{name:>18}  {value}" for name, value in found.items()))


@datagen_app.command("inspect")
def inspect(path: Data, as_json: Json = False) -> None:
    """Say what a data set holds, without reading all of it."""
    from datagen.datasets import inspect_any  # noqa: PLC0415

    found = inspect_any(path)
    _print(found, as_json=as_json, text="\n".join(f"{name:>18}  {value}" for name, value in found.items()))


@datagen_app.command("export")
@writes_output
def export(
    path: Data,
    out: Annotated[Path, typer.Option(help="HDF5 file (seed) or folder (parquet) to write.")],
    to: Annotated[str, typer.Option("--format", help="seed: one HDF5 group a sample; parquet: tables.")] = "parquet",
) -> None:
    """Write a data set in another layout."""
    from datagen.datasets import export_any  # noqa: PLC0415

    print(export_any(path, out, to=to))


@datagen_app.command("bundle")
@writes_output
def bundle(path: Data, out: Annotated[Path, typer.Option(help="Folder to write; new or empty.")]) -> None:
    """Make a folder to publish: data, card, licence and hashes, which `verify` checks on any machine."""
    from datagen.publish import write_bundle  # noqa: PLC0415

    print(write_bundle(path, out))


class _Rate(ProgressColumn):
    """Items a second, so far."""

    def render(self, task: Task) -> Text:
        """Return the rate."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left; give the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"))
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(
        *columns, _Rate(), TimeRemainingColumn(), console=console, transient=True, disable=hidden
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)


def _times(advance: Callable[[int], None], factor: int) -> Callable[[int], None]:
    return lambda more: advance(more * factor)


def _command() -> str:
    return shlex.join(["nerv-fl", *sys.argv[1:]])


def _print(found: dict[str, Any], *, as_json: bool, text: str) -> None:
    print(json.dumps(found) if as_json else text)
