"""A round that is watched: counts, rates and times against a clock that the test holds."""

import threading
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from nerv_fl.cli.progress import RunDisplay
from nerv_fl.cli.round_progress import Glance, RoundWatch, Watching
from nerv_fl.client.active_workers import present
from nerv_fl.client.host import node_folder
from nerv_fl.client.outbox import Label, keep
from nerv_fl.config import RunConfig, build
from nerv_fl.strategy.client_sampling import draw_cohort

CONFIG = build({"federation.num_nodes": 12, "federation.cohort_size": 8, "federation.num_rounds": 5})


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def answer(nodes: Path, *, round_number: int, how_many: int, run: str = "mine") -> None:
    """Have the first nodes of a cohort store what they sent."""
    for node in draw_cohort(CONFIG, round_number)[:how_many]:
        folder = node_folder(nodes, node)
        folder.mkdir(parents=True, exist_ok=True)
        keep(folder, Label(run=run, round_number=round_number, base_hash=""), b"sealed")


def make_watch(nodes: Path, clock: Clock, *, rounds_done: int = 0) -> RoundWatch:
    return RoundWatch(nodes, CONFIG, run="mine", rounds_done=rounds_done, clock=clock)


def seen(watch: RoundWatch) -> Glance:
    found = watch.look()
    assert found is not None
    return found


def test_nodes_are_counted_whose_answer_is_of_this_run_and_round(tmp_path: Path) -> None:
    watch = make_watch(tmp_path, Clock(), rounds_done=1)
    answer(tmp_path, round_number=1, how_many=8)
    assert seen(watch).trained == 0
    answer(tmp_path, round_number=2, how_many=3, run="another")
    assert seen(watch).trained == 0
    answer(tmp_path, round_number=2, how_many=3)
    found = seen(watch)
    assert (found.round_number, found.trained, found.cohort) == (2, 3, 8)


def test_rate_and_time_left_of_the_first_round(tmp_path: Path) -> None:
    """From 2 to 6 nodes in 4 s is one a second: 2 s are left of the round, and 4 more rounds like it."""
    clock = Clock()
    watch = make_watch(tmp_path, clock)
    assert (seen(watch).per_second, seen(watch).round_left_s, seen(watch).run_left_s) == (0.0, None, None)
    answer(tmp_path, round_number=1, how_many=2)
    watch = make_watch(tmp_path, clock)
    seen(watch)
    clock.now += 4.0
    answer(tmp_path, round_number=1, how_many=6)
    found = seen(watch)
    assert (found.per_second, found.round_left_s) == (1.0, 2.0)
    assert found.run_left_s == 2.0 + 4 * (4.0 + 2.0)


def test_later_rounds_reckon_with_the_enclaves_time(tmp_path: Path) -> None:
    clock = Clock()
    watch = make_watch(tmp_path, clock)
    watch.finished(0, total_s=3.0, train_s=0.0)
    watch.finished(1, total_s=10.0, train_s=6.0)
    assert seen(watch).round_left_s == 10.0
    clock.now += 2.0
    answer(tmp_path, round_number=2, how_many=4)
    found = seen(watch)
    assert (found.round_number, found.per_second) == (2, 2.0)
    assert (found.round_left_s, found.run_left_s) == (2.0 + 4.0, 6.0 + 3 * 10.0)
    answer(tmp_path, round_number=2, how_many=8)
    clock.now += 1.0
    assert seen(watch).round_left_s == 10.0 - 3.0


def test_after_the_last_round_there_is_nothing_to_see(tmp_path: Path) -> None:
    watch = make_watch(tmp_path, Clock(), rounds_done=4)
    assert seen(watch).round_number == 5
    watch.finished(5, total_s=1.0, train_s=0.5)
    assert watch.look() is None


def test_the_thread_shows_and_ends(tmp_path: Path) -> None:
    shown, enough = [], threading.Event()

    def show(glance: Glance) -> None:
        shown.append(glance.busy)
        enough.set()

    with present(tmp_path), Watching(make_watch(tmp_path, Clock()), show, period_s=0.01):
        assert enough.wait(20)
    count = len(shown)
    assert set(shown) == {1}
    assert threading.Event().wait(0.05) is False
    assert len(shown) == count


@pytest.mark.parametrize("width", [80, 120])
def test_the_display_fits_a_terminal(width: int) -> None:
    text = StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    display = RunDisplay(console, RunConfig())
    glance = Glance(
        round_number=3, trained=17, cohort=50, per_second=12.34, busy=2, round_left_s=65.4, run_left_s=3725.0
    )
    display.glance(glance)
    console.print(display.renderable)
    lines = [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert "17/50" in lines[0]
    assert "0:01:05 12.3/s, 2 of 2 actors" in lines[0]
    assert "2/20 1:02:05" in lines[1]
