"""Whole rounds under another mechanism than the protocol's, and under none: who says so, and what still works."""

import io
import json
import re
from dataclasses import asdict
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.cli.progress import RunDisplay
from nerv_fl.config import Flat
from nerv_fl.models.export.card import _privacy
from nerv_fl.records import read_rewards
from nerv_fl.report.load import load_run
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.tracking import scalars
from simulations.prepare import open_folder, prepare
from tests.federation.tiny_run import copy_run, record_of, run_rounds, tiny_config

OWN: Flat = {"privacy.protocol": False, "privacy.sigma": 2.0, "privacy.clip": 3.0}
NONE: Flat = {"privacy.protocol": False, "privacy.mechanism": "none"}
NOTES = {
    "own": "not the protocol's mechanism (sigma 2.0, clip 3.0)",
    "none": "no privacy mechanism: epsilon is infinite",
}


@pytest.fixture(scope="module", params=["own", "none"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A finished run of one round, and what every line with an epsilon must say of it."""
    settings = OWN if request.param == "own" else NONE
    folder = copy_run(tmp_path_factory.mktemp(request.param) / "run", **settings, **{"federation.num_rounds": 1})
    run_rounds(folder)
    return folder, NOTES[request.param]


def test_a_round_works_and_flags_no_honest_node(ran: tuple[RunFolder, str]) -> None:
    record = record_of(ran[0], 1)

    assert record.nodes is not None
    assert (record.nodes.admitted, record.nodes.flagged, record.nodes.clones) == (6, {}, 0)
    assert {row.flag for row in read_rewards(ran[0].rewards_path)} == {""}


def test_the_record_is_json_that_names_the_mechanism(ran: tuple[RunFolder, str]) -> None:
    folder, note = ran
    line = json.loads(folder.rounds_path.read_text().splitlines()[-1], parse_constant=pytest.fail)

    assert line["epsilon"]["mechanism"] == note
    is_infinite = "infinite" in note
    assert all((line["epsilon"][name] is None) == is_infinite for name in ("min", "median", "max"))
    assert ("epsilon/max" in scalars(record_of(folder, 1))) != is_infinite


def test_every_part_of_the_report_with_an_epsilon_says_so(ran: tuple[RunFolder, str]) -> None:
    folder, note = ran
    page = (folder.root / "report.html").read_text(encoding="utf-8")
    words = unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)))
    words = re.sub(r"\s+", " ", words)
    own = note.lower().replace(".0", "")

    tile = words.partition("Epsilon, at most")[2][:140].lower()
    verdict = words[: words.index("Epsilon, at most")].lower()
    assert own in tile.replace(".0", "")
    assert own in verdict.replace(".0", "")
    assert own.partition(" (")[0] in words.partition("Privacy spent")[2].lower()
    assert load_run(folder.root).config.privacy.deviation == note
    if "infinite" in note:
        assert not re.search(r"epsilon[^.;]{0,20}\b(0|inf|nan)\b", words.lower())


def test_every_line_of_the_terminal_with_an_epsilon_says_so(ran: tuple[RunFolder, str]) -> None:
    folder, note = ran
    written = io.StringIO()
    display = RunDisplay(Console(file=written, width=200, no_color=True), folder.config)
    display.begin(folder.root, rounds_done=0)
    display.round(record_of(folder, 1), [])

    lines = [line for line in written.getvalue().splitlines() if "epsilon" in line or re.match(r"\s+1 ", line)]
    assert len(lines) == 2
    assert all(note in line for line in lines)


def test_the_certificate_says_so(ran: tuple[RunFolder, str]) -> None:
    folder, note = ran
    result = CliRunner().invoke(app, ["verify", str(folder.certificate_path(1))], catch_exceptions=False)

    assert note in result.stdout.splitlines()


def test_the_card_of_an_export_says_so(ran: tuple[RunFolder, str]) -> None:
    folder, note = ran
    card = _privacy("encoder", {"metrics": {"round": asdict(record_of(folder, 1))}, "facts": {}})

    assert note in card
    assert "sigma 0.5" not in card


def test_the_spending_of_each_node_says_what_it_counts(ran: tuple[RunFolder, str]) -> None:
    folder, note = ran
    (first, *_) = sorted(folder.root.glob("nodes/*/spending.json"))
    table = json.loads(first.read_text())

    assert table["mechanism"]["sigma"] == (0.0 if "infinite" in note else 2.0)
    assert ("accounted" in table) == ("infinite" in note)


def test_copies_are_found_without_noise(tmp_path: Path) -> None:
    cheating: Flat = {
        **NONE,
        "adversaries.sybil": 0.25,
        "adversaries.group_size": 2,
        "federation.cohort_size": 8,
        "federation.num_rounds": 1,
    }
    folder = copy_run(tmp_path / "run", **cheating)
    prepare(open_folder(folder.root, tiny_config(cheating), resume=True))

    run_rounds(RunFolder(folder.root))

    nodes = record_of(folder, 1).nodes
    assert nodes is not None
    assert nodes.clones == 2
