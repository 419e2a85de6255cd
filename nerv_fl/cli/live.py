"""What a run shows while it runs: a bar for each stage, then a line for each round."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from nerv_fl.config import RunConfig
from nerv_fl.ledger import NANO_PER_NERV
from nerv_fl.records import RewardRow, RoundRecord

HEADER = f"{'round':>5}  {'loss':>7}  {'drift':>8}  {'masked':>6}  {'verdict':<9}  {'eps':>4}  {'s':>5}  top earner"


class RunDisplay:
    """Progress of a run on a terminal, or as plain lines where there is none.

    Args:
        console: Where to write.
        config: The run's settings, if there is a run.
    """

    def __init__(self, console: Console, config: RunConfig | None = None) -> None:
        self._console = console
        self._config = config
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._has_header = False

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display."""
        self._progress.stop()

    def begin(self, folder: Path, *, rounds_done: int) -> None:
        """Say what is about to run."""
        config = self._config
        if config is None:
            return
        federation, privacy = config.federation, config.privacy
        self._console.print(
            f"[bold]{escape(config.name)}[/bold]  seed {config.seed}  ->  {escape(str(folder))}", highlight=False
        )
        self._console.print(
            f"{federation.num_nodes} nodes, cohorts of {federation.cohort_size}, {federation.num_rounds} rounds\n"
            f"sigma {privacy.sigma}, clip {privacy.clip}, Poisson sampling at q = {config.sampling_rate:.4g}; "
            f"epsilon at delta {privacy.delta:g} per {config.privacy_unit}",
            highlight=False,
            soft_wrap=True,
        )
        if rounds_done:
            self._console.print(f"resuming after round {rounds_done}", highlight=False)

    def stage(self, name: str, done: int, total: int, note: str) -> None:
        """Show how far a stage is."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note=note)
        self._progress.update(self._tasks[name], completed=done, total=total, note=note, visible=done < total)

    def counter(self, name: str, total: int) -> Callable[[int], None]:
        """Return a function that advances a stage by what it is told was done."""
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            self.stage(name, done, total, "")

        return advance

    def round(self, record: RoundRecord, rows: Sequence[RewardRow]) -> None:
        """Print a finished round's line."""
        if not self._has_header:
            self._console.print(f"[dim]{HEADER}[/dim]", highlight=False)
            self._has_header = True
        self._console.print(_line(record, rows), highlight=False, soft_wrap=True)
        if self._config:
            self.stage("rounds", record.round, self._config.federation.num_rounds, "")

    def end(self, rounds: Sequence[RoundRecord], manifest: Mapping[str, Any], *, report: Path) -> None:
        """Print what the run came to."""
        federated = [record for record in rounds if record.round > 0]
        accepted = sum(record.accepted for record in federated)
        self._console.print(
            f"\n{accepted} of {len(federated)} rounds accepted in {time.monotonic() - self._began:.0f} s; "
            f"{_change(rounds[0], rounds[-1])}",
            highlight=False,
        )
        final = manifest.get("final")
        if final:
            self._console.print(
                f"final pool ({final['chains']} chains, opened once): "
                f"loss {final['loss_before']:.4f} -> {final['loss_after']:.4f}, "
                f"difference {final['difference']:+.4f} ({final['ci_low']:+.4f} to {final['ci_high']:+.4f})",
                highlight=False,
            )
        self._console.print(f"[bold]{escape(str(report))}[/bold]", highlight=False, soft_wrap=True)


def _change(first: RoundRecord, last: RoundRecord) -> str:
    """Return what a run changed: an encoder's drift, another model's loss."""
    if first.drift and last.drift:
        return f"drift {first.drift.mean:.3g} -> {last.drift.mean:.3g}"
    return f"loss {first.loss:.4f} -> {last.loss:.4f}"


def _line(record: RoundRecord, rows: Sequence[RewardRow]) -> str:
    """Return a round's line of figures in 80 columns, its verdict coloured; a rejection's reason follows below."""
    epsilon = f"{record.epsilon.max:.2f}" if record.epsilon else "-"
    drift = f"{record.drift.mean:.2e}" if record.drift else "-"
    masked = f"{record.masked_ce.value:.3f}" if record.masked_ce else "-"
    verdict, colour = "bootstrap", "dim"
    if record.round > 0:
        verdict, colour = (f"step {record.step:g}", "green") if record.accepted else ("rejected", "yellow")
    line = (
        f"{record.round:>5}  {record.loss:>7.4f}  {drift:>8}  {masked:>6}  "
        f"[{colour}]{verdict:<9}[/{colour}]  {epsilon:>4}  {record.seconds.total:>5.1f}  {_top_earner(rows)}"
    )
    return line if record.accepted else f"{line}\n       [yellow]{escape(record.reason)}[/yellow]"


def _top_earner(rows: Sequence[RewardRow]) -> str:
    best = max(rows, key=lambda row: row.payout_nano, default=None)
    if best is None or best.payout_nano == 0:
        return "-"
    return f"node {best.node}, {best.payout_nano / NANO_PER_NERV / 1e6:.1f} M NERV"
