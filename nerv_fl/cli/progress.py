"""What a run shows while it runs: a bar for each stage, then a line for each round."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from nerv_fl.config import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.failure_reasons import add_counts
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.records import FINAL_CLOSED, RewardRow, RoundRecord, final_measures
from nerv_fl.tokens import NANO_PER_NERV

if TYPE_CHECKING:
    from nerv_fl.cli.round_progress import Glance, RoundWatch, Watching

NODES: Final = "nodes"
ROUNDS: Final = "rounds"
HEADER: Final = (
    f"{'round':>5}  {'loss':>7}  {'drift':>8}  {'masked':>6}  {'verdict':<9}  {'eps':>4}  {'s':>5}  top earner"
)


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
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _TimeLeft(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._has_header = False
        self._watch: RoundWatch | None = None

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display."""
        self._progress.stop()

    @property
    def renderable(self) -> RenderableType:
        """What stands at the bottom of the terminal now."""
        return self._progress.get_renderable()

    def begin(self, folder: Path, *, rounds_done: int) -> None:
        """Say what is about to run."""
        config = self._config
        if config is None:
            return
        federation = config.federation
        self._console.print(
            f"[bold]{escape(config.name)}[/bold]  seed {config.seed}  ->  {escape(str(folder))}", highlight=False
        )
        self._console.print(
            f"{federation.num_nodes} nodes, cohorts of {federation.cohort_size}, {federation.num_rounds} rounds\n"
            + _mechanism(config),
            highlight=False,
            soft_wrap=True,
        )
        if rounds_done:
            self._console.print(f"resuming after round {rounds_done}", highlight=False)

    def stage(self, name: str, done: int, total: int, note: str) -> None:
        """Show how far a stage is."""
        task = self._task(name, total=total)
        self._progress.update(task, completed=done, total=total, note=note, visible=done < total)

    def watching(self, nodes: Path, *, run: str, rounds_done: int) -> "Watching":
        """Return the context in which the running round is shown: its nodes, their rate, actors at work, time left.

        Args:
            nodes: Folder of the nodes' folders.
            run: Name of the run.
            rounds_done: Rounds finished before.
        """
        # torch and Flower come with it: `--help` of every command would wait seconds for them.
        from nerv_fl.cli.round_progress import RoundWatch, Watching  # noqa: PLC0415

        if self._config is None:
            raise ConfigError("the display knows no settings, expected those of the run that is watched")
        self._watch = RoundWatch(nodes, self._config, run=run, rounds_done=rounds_done)
        self._rounds(rounds_done, left_s=None)
        return Watching(self._watch, self.glance)

    def glance(self, seen: "Glance") -> None:
        """Show the running round."""
        config = self._config
        actors = f" of {config.simulation.actors}" if config else ""
        rate = f"{seen.per_second:.1f}/s" if seen.per_second else "-/s"
        note = f"{rate}, {seen.busy}{actors} actors" if seen.trained < seen.cohort else "enclave: open, test, value"
        task = self._task(NODES, total=seen.cohort)
        self._progress.update(
            task, completed=seen.trained, total=seen.cohort, note=note, left_s=seen.round_left_s, visible=True
        )
        self._rounds(seen.round_number - 1, left_s=seen.run_left_s)

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
        note = self._config.privacy.deviation if self._config else ""
        self._console.print(_line(record, rows, note=note), highlight=False, soft_wrap=True)
        if self._watch:
            self._watch.finished(record.round, total_s=record.seconds.total, train_s=record.seconds.train)
        if self._config:
            self.stage(ROUNDS, record.round, self._config.federation.num_rounds, "")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, highlight=False, markup=False)

    def end(self, rounds: Sequence[RoundRecord], manifest: Mapping[str, Any], *, report: Path) -> None:
        """Print what the run came to."""
        federated = [record for record in rounds if record.round > 0]
        accepted = sum(record.accepted for record in federated)
        self._console.print(
            f"\n{accepted} of {len(federated)} rounds accepted in {time.monotonic() - self._began:.0f} s; "
            f"{_change(rounds[0], rounds[-1])}",
            highlight=False,
        )
        for reason, count in add_counts(record.failures or {} for record in federated).items():
            self._console.print(
                f"[yellow]nodes failed {count} times: {escape(reason)}[/yellow]", highlight=False, soft_wrap=True
            )
        if closed := manifest.get(FINAL_CLOSED):
            self._console.print(f"[red]final pool not opened: {escape(closed)}[/red]", highlight=False, soft_wrap=True)
        final = manifest.get("final")
        if final:
            is_last = final_measures(manifest, round_number=rounds[-1].round, model_hash=rounds[-1].model_hash)
            when = "once" if is_last else f"once, after round {manifest['final_round']}; not measured since"
            self._console.print(
                f"final pool ({final['chains']} chains, opened {when}): "
                f"loss {final['loss_before']:.4f} -> {final['loss_after']:.4f}, "
                f"difference {final['difference']:+.4f} ({final['ci_low']:+.4f} to {final['ci_high']:+.4f})",
                highlight=False,
            )
        self._console.print(f"[bold]{escape(str(report))}[/bold]", highlight=False, soft_wrap=True)

    def _task(self, name: str, *, total: int) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note="", left_s=None)
        return self._tasks[name]

    def _rounds(self, done: int, *, left_s: float | None) -> None:
        if self._config:
            total = self._config.federation.num_rounds
            task = self._task(ROUNDS, total=total)
            self._progress.update(task, completed=done, total=total, left_s=left_s, visible=done < total)


class _TimeLeft(TimeRemainingColumn):
    """The time left that a task was told, or what its own speed says."""

    def render(self, task: Task) -> Text:
        """Return it as hours, minutes and seconds."""
        left_s = task.fields.get("left_s")
        if left_s is None:
            return super().render(task)
        minutes, seconds = divmod(round(left_s), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02d}:{seconds:02d}", style="progress.remaining")


def _change(first: RoundRecord, last: RoundRecord) -> str:
    """Return what a run changed: an encoder's drift, another model's loss."""
    if first.drift and last.drift:
        return f"drift {first.drift.mean:.3g} -> {last.drift.mean:.3g}"
    return f"loss {first.loss:.4f} -> {last.loss:.4f}"


def _mechanism(config: RunConfig) -> str:
    """Return the line of what nodes do for privacy, and of what its epsilon is."""
    privacy = config.privacy
    sampling = f"Poisson sampling at q = {config.sampling_rate:.4g}"
    if not privacy.is_private:
        return f"{sampling}; {privacy.deviation}"
    line = (
        f"sigma {privacy.sigma}, clip {privacy.clip}, {sampling}; "
        f"epsilon at delta {privacy.delta:g} per {config.privacy_unit}"
    )
    return "; ".join(filter(None, (line, privacy.deviation)))


def _line(record: RoundRecord, rows: Sequence[RewardRow], *, note: str = "") -> str:
    """Return a round's line of figures in 80 columns, its verdict coloured; a rejection's reason follows below.

    A mechanism that is not the protocol's is named behind the columns, beside the epsilon that is its.
    """
    epsilon = _epsilon(record)
    drift = f"{record.drift.mean:.2e}" if record.drift else "-"
    masked = f"{record.masked_ce.value:.3f}" if record.masked_ce else "-"
    verdict, colour = "bootstrap", "dim"
    if record.round > 0:
        verdict, colour = (f"step {record.step:g}", "green") if record.accepted else ("rejected", "yellow")
    line = (
        f"{record.round:>5}  {record.loss:>7.4f}  {drift:>8}  {masked:>6}  "
        f"[{colour}]{verdict:<9}[/{colour}]  {epsilon:>4}  {record.seconds.total:>5.1f}  {_top_earner(rows)}"
        + (f"  [yellow]{escape(note)}[/yellow]" if note and record.epsilon else "")
    )
    failed = sum((record.failures or {}).values())
    reason = record.reason + (f"; {failed} failed" if failed else "")
    return line if record.accepted else f"{line}\n       [yellow]{escape(reason)}[/yellow]"


def _epsilon(record: RoundRecord) -> str:
    if record.epsilon is None:
        return "-"
    return "none" if record.epsilon.max is None else format_epsilon(record.epsilon.max)


def _top_earner(rows: Sequence[RewardRow]) -> str:
    best = max(rows, key=lambda row: row.payout_nano, default=None)
    if best is None or best.payout_nano == 0:
        return "-"
    return f"node {best.node}, {best.payout_nano / NANO_PER_NERV / 1e6:.1f} M NERV"
