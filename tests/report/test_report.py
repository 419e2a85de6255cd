"""The whole page, from a fake run folder."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from nerv_fl.config import PrivacyConfig
from nerv_fl.report import write_report
from tests.report.fake_run import POOL_NANO, REASONS, FakeRun, make_run


def page_of(run: FakeRun, folder: Path) -> str:
    return write_report(run.write(folder)).read_text(encoding="utf-8")


def words(page: str) -> str:
    """Return what a reader sees, on one line."""
    body = page.partition("<body>")[2].partition("<script>")[0]
    parser = Words()
    parser.feed(body)
    return " ".join("".join(parser.parts).split())


class Words(HTMLParser):
    """Text of a page, blocks kept apart."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append("" if tag in ("b", "span", "tspan") else " ")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(make_run(), tmp_path_factory.mktemp("run"))


def test_the_report_is_written_into_the_run_folder(tmp_path: Path) -> None:
    folder = make_run().write(tmp_path)

    assert write_report(folder) == folder / "report.html"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("outside", ["http:", "https:", "//", "src=", "@import", "url(", "fetch(", "XMLHttpRequest"])
def test_the_page_refers_to_nothing_outside_itself(page: str, outside: str) -> None:
    assert outside not in page.replace("\n//", "")


def test_the_browser_itself_refuses_to_load_anything(page: str) -> None:
    assert "default-src &#x27;none&#x27;" in page


def test_every_value_is_escaped(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    run = make_run(name="<i>a & b", reasons={2: attack})
    run.rewards[0] = replace(run.rewards[0], flag=attack)
    run.rewards[-1] = replace(run.rewards[-1], flag=f'"{attack}')
    run.manifest[attack] = attack

    page = page_of(run, tmp_path)
    assert attack not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<i>" not in page
    assert "&lt;i&gt;a &amp; b" in page


def test_every_drawing_is_well_formed_and_inside_its_frame(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)

    assert len(drawings) == 14
    for drawing in map(ET.fromstring, drawings):
        assert drawing.attrib["aria-label"]
        for element in drawing.iter():
            for key in {"x", "x1", "x2", "cx"} & element.attrib.keys():
                share = element.attrib[key]
                assert math.isfinite(float(share.removesuffix("%")))
                assert not share.endswith("%") or -1e-9 <= float(share[:-1]) <= 100


def test_every_tag_is_closed(page: str) -> None:
    markup = re.sub(r"<(style|script)>.*?</\1>", "", page.removeprefix("<!doctype html>\n"), flags=re.DOTALL)
    closed = re.sub(r"<(meta|link)([^>]*)>", r"<\1\2/>", markup)

    assert ET.fromstring(closed).tag == "html"


def test_no_number_has_more_digits_than_a_reader_wants(page: str) -> None:
    assert not re.findall(r"\d\.\d{6,}", words(page))


def test_the_verdict_says_what_came_out(page: str) -> None:
    text = words(page)

    assert "17 of 20 rounds accepted; loss 3.760 → 3.729; drift 8.8e-4 → 2.9e-4; epsilon max 6.18 at delta 1e-5" in text
    assert "unit: one step record; Poisson sampling, q = 0.0156; sigma 0.5, clip 1" in text
    assert "complete: 20 rounds" in text


def test_the_final_pool_is_reported_with_its_interval(page: str) -> None:
    assert (
        "Held-out loss is lower than the bootstrap's: 3.761 → 3.728 over 1,024 chains that no node and no gate has "
        "seen, a paired difference of −0.0328 nats with the 95 % interval −0.0411 to −0.0246, which excludes 0."
    ) in words(page)


def test_an_inconclusive_final_pool_says_so(tmp_path: Path) -> None:
    run = make_run()
    run.manifest["final"] |= {"ci_high": 0.002}  # type: ignore[operator]

    text = words(page_of(run, tmp_path))
    assert "Held-out loss is not shown to be lower than the bootstrap's" in text
    assert "to +0.002, which includes 0." in text


def test_the_bound_is_said_to_test_no_learning(page: str) -> None:
    sentence = "This bound tests arithmetic, range and finiteness, not learning: random weights pass it too (5.6e-16"
    assert sentence in words(page)


@pytest.mark.parametrize("number", REASONS)
def test_every_rejection_stands_beside_its_round(page: str, number: int) -> None:
    assert f"{number} rejected {REASONS[number]}" in words(page).replace(
        "rejected" + REASONS[number], f"rejected {REASONS[number]}"
    )


def test_a_masked_cross_entropy_below_the_unigram_says_so(page: str) -> None:
    assert (
        "The last masked cross-entropy is below the unigram: 3.718 against 3.725 nats; it is not below the per-account "
        "unigram, 3.051."
    ) in words(page)


@pytest.mark.parametrize("above", [0.0, 0.01])
def test_a_masked_cross_entropy_not_below_the_unigram_says_so(tmp_path: Path, above: float) -> None:
    run = make_run()
    last = run.rounds[-1]
    entropy = replace(last.encoder.masked_ce, value=last.encoder.masked_ce.unigram + above)
    run.rounds[-1] = replace(last, masked_ce=entropy)

    text = words(page_of(run, tmp_path))
    assert "The last masked cross-entropy is not below the unigram" in text
    assert "On masked balances this encoder is no better than counting which are frequent" in text
    assert "The last masked cross-entropy is below the unigram" not in text


def test_the_privacy_unit_is_explained(page: str) -> None:
    text = words(page)

    assert "One state is in two records and an account is in all of them" in text
    assert "this epsilon protects neither a state nor an account" in text
    assert (
        "Noise in a simulation is seeded: its epsilon describes deployment and protects from nobody who knows" in text
    )
    assert "budget 8" in text


def test_a_run_without_a_budget_draws_none(tmp_path: Path) -> None:
    run = make_run(recorded=2)
    unlimited = replace(run.config, privacy=PrivacyConfig(max_epsilon=float("inf")))

    text = words(page_of(replace(run, config=unlimited), tmp_path))
    assert "epsilon max 3.59" in text
    assert "budget inf" not in text


def test_displayed_payouts_are_the_sums_of_the_rows(page: str) -> None:
    run = make_run()
    total = sum(row.payout_nano for row in run.rewards)

    assert total == 20 * POOL_NANO
    assert (
        f"In 17 paying rounds the payouts equal the pool plus what was carried, to the last NANO: {total:,} NANO in all"
        in words(page)
    )
    board = page.partition("Leaderboard of the run")[2]
    shown = [int(amount.replace(",", "")) for amount in re.findall(r'title="([\d,]+) NANO"', board)]
    assert len(shown) == 100
    assert sum(shown) == total
    assert shown == sorted(shown, reverse=True)


def test_payouts_that_do_not_match_the_pool_are_called_out(tmp_path: Path) -> None:
    run = make_run()
    run.rewards[0] = replace(run.rewards[0], payout_nano=run.rewards[0].payout_nano + 1)

    assert "Payouts differ from the pool plus what was carried in round 1." in words(page_of(run, tmp_path))


def test_the_leaderboard_shows_fifteen_and_folds_the_rest(page: str) -> None:
    board = page.partition("Leaderboard of the run")[2]
    first, _, rest = board.partition("<details>")

    assert first.count("<tr>") == 1 + 15
    assert rest.count("<tr>") == 1 + 85
    assert "The other 85 nodes" in rest


def test_every_table_has_headed_columns_and_rows(page: str) -> None:
    for table in re.findall(r"<table.*?</table>", page, flags=re.DOTALL):
        element = ET.fromstring(table)
        columns = element.findall("thead/tr/th")
        assert all(head.attrib["scope"] == "col" for head in columns)
        for row in element.findall("tbody/tr"):
            assert row[0].attrib["scope"] == "row"
            assert len(row) == len(columns)


def test_what_is_mock_and_how_to_repeat_it_are_named(page: str) -> None:
    text = words(page)

    assert "Enclave hardware and its vendor root are software" in text
    assert "the root that signs the evidence was made for this run and vouches for no hardware" in text
    assert "nerv-fl simulate config.toml --out again" in text
    assert text.count("nerv-fl simulate") == 1
    assert "versions.torch 2.13.0" in text
    assert "14" * 32 in text


@pytest.mark.parametrize(
    ("recorded", "status", "verdict"),
    [
        (0, "bootstrap only", "Only the bootstrap is recorded: loss 3.760, drift 8.8e-4. No node has trained yet."),
        (1, "stopped after round 1 of 20", "1 of 1 round accepted;"),
        (7, "stopped after round 7 of 20", "6 of 7 rounds accepted;"),
    ],
)
def test_a_partial_run_is_shown_as_far_as_it_came(recorded: int, status: str, *, verdict: str, tmp_path: Path) -> None:
    text = words(page_of(make_run(recorded=recorded), tmp_path))

    assert status in text
    assert verdict in text
    assert "The final pool stays closed until the last round." in text


def test_a_run_of_rejections_pays_nobody_and_says_so(tmp_path: Path) -> None:
    reasons = {number: f"reason {number}" for number in range(1, 4)}
    text = words(page_of(make_run(num_rounds=3, reasons=reasons), tmp_path))

    assert "0 of 3 rounds accepted" in text
    assert all(reason in text for reason in reasons.values())
    assert "No round has paid; pools carry over to the first one that does." in text
    assert "No round was accepted, so no node was valued and nobody was paid." in text


def test_a_run_without_a_round_says_what_to_do(tmp_path: Path) -> None:
    run = make_run()
    run.rounds.clear()
    run.rewards.clear()
    text = words(page_of(run, tmp_path))

    assert "no round yet" in text
    assert "No round is recorded yet. The bootstrap writes round 0 as soon as it has an encoder" in text


def test_a_manifest_without_references_is_no_error(tmp_path: Path) -> None:
    run = make_run(recorded=1)
    run.manifest.clear()
    text = words(page_of(run, tmp_path))

    assert "random weights pass it too." in text


def test_large_cohorts_show_the_best_and_the_last(tmp_path: Path) -> None:
    text = words(page_of(make_run(num_rounds=1, num_nodes=300, cohort=200), tmp_path))

    assert re.search(r"The best 40 and the last 20 of \d+ nodes\.", text)


def test_nodes_that_were_not_valued_are_named_with_their_flag(page: str) -> None:
    assert re.search(r"Not valued: node \d+ \(clone\)\.", words(page))


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    assert page_of(make_run(recorded=2), tmp_path / "a") == page_of(make_run(recorded=2), tmp_path / "b")


def head_of(page: str) -> str:
    """Return what a reader sees in the head of a page."""
    return words("<body>" + page.partition("<header>")[2].partition("</header>")[0] + "<script>")


def test_rejected_rounds_and_why_stand_before_the_verdict(page: str) -> None:
    head = head_of(page)

    told = (
        "3 of 20 rounds rejected: p-value 0.21 is above 0.05 (round 6); 34 of 50 nodes heard, expected at least 35 "
        "(round 11); masked cross-entropy ratio 1.013 is above 1.01 (round 15)."
    )
    assert 0 < head.find(told) < head.index("17 of 20 rounds accepted")


def test_rejections_that_differ_in_numbers_only_are_counted_together(tmp_path: Path) -> None:
    reasons = {number: f"{number} of 50 nodes were heard, expected at least 70 %" for number in range(1, 8)}
    reasons |= {8 + index: f"reason {word}" for index, word in enumerate("abcd")}

    head = head_of(page_of(make_run(num_rounds=12, reasons=reasons), tmp_path))

    assert "11 of 12 rounds rejected: 1 of 50 nodes were heard, expected at least 70 % (round 1 and 6 more); " in head
    assert "; and 2 other reasons." in head
    assert "complete: 12 rounds" in head


@pytest.mark.parametrize("num_rounds", [1, 3])
def test_a_run_without_an_accepted_round_is_never_shown_as_complete(num_rounds: int, tmp_path: Path) -> None:
    run = make_run(num_rounds=num_rounds, reasons=dict.fromkeys(range(1, num_rounds + 1), "too few"))
    del run.manifest["final"]
    run.manifest["final_closed"] = "no round was accepted"
    page = page_of(run, tmp_path)

    assert "complete" not in head_of(page)
    assert "chip good" not in page.partition("</header>")[0]
    assert f"ended: none of {num_rounds} round" in head_of(page)
    assert "The final pool was not opened: no round was accepted." in head_of(page)


def test_a_run_that_stopped_says_why_first(tmp_path: Path) -> None:
    run = make_run(recorded=2)
    run.manifest["stopped"] = "round 3: 50 of 50 nodes: no <device>"
    page = page_of(run, tmp_path)

    head = head_of(page)
    assert "stopped without updates after round 2 of 20" in head
    assert head.index("The run stopped: round 3: 50 of 50 nodes: no <device>.") < head.index("2 of 2 rounds accepted")
    assert "chip good" not in page.partition("</header>")[0]
    assert "<device>" not in page


def test_failed_nodes_are_listed_by_reason(tmp_path: Path) -> None:
    run = make_run(recorded=7)
    failing = {3: {"node 4 is full": 2}, 6: {"node 9 is full": 40, "no <data>": 7}}
    run.rounds[:] = [replace(record, failures=failing.get(record.round)) for record in run.rounds]
    page = page_of(run, tmp_path)

    text = words(page)
    assert "Failures, by reason" in text
    assert re.search(r"node 4 is full\s*42\s*2\s*3\s*6", text)
    assert re.search(r"no <data>\s*7\s*1\s*6\s*6", text)
    assert "Nodes failed in them, 40 times: node 9 is full; 7 times: no <data>." in head_of(page)
    assert "Failures, by reason" not in words(page_of(make_run(recorded=7), tmp_path / "other"))
