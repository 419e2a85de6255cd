import json
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from nerv_fl.errors import DataError
from nerv_fl.rewards.ledger import (
    Entry,
    Head,
    Movement,
    balances,
    check_chain,
    extend,
    paid_by_round,
    read_entries,
    to_line,
)

RUN = "a-run"
MOVED = [
    Movement(round=1, kind="emission", source="emission", target="pool/gradient", amount_nano=100),
    Movement(round=1, kind="payout", source="pool/gradient", target="node/3", amount_nano=70),
    Movement(round=1, kind="payout", source="pool/gradient", target="node/4", amount_nano=20),
    Movement(round=2, kind="slash", source="node/3", target="pool/public_goods", amount_nano=7),
]


def chain(*movements: Movement) -> list[Entry]:
    return extend(Head.of_run(RUN), movements or MOVED)[0]


def text_of(entries: list[Entry]) -> str:
    return "".join(to_line(entry) for entry in entries)


def test_what_is_written_is_read_back_and_holds() -> None:
    entries, head = extend(Head.of_run(RUN), MOVED)
    assert read_entries(text_of(entries), source="ledger") == entries
    assert check_chain(entries, run=RUN, source="ledger") == head
    assert head.num_entries == 4
    assert balances(entries) == {
        "emission": -100,
        "pool/gradient": 10,
        "node/3": 63,
        "node/4": 20,
        "pool/public_goods": 7,
    }
    assert paid_by_round(entries) == {(1, "node/3"): 70, (1, "node/4"): 20}


def test_a_line_holds_integers_and_text_alone() -> None:
    for line in text_of(chain()).splitlines():
        assert all(type(value) in {int, str} for value in json.loads(line).values())


def test_extending_in_two_parts_is_extending_once() -> None:
    first, head = extend(Head.of_run(RUN), MOVED[:2])
    second, last = extend(head, MOVED[2:])
    assert [*first, *second] == chain()
    assert last.hash == chain()[-1].hash


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (
            lambda e: [e[0], replace(e[1], amount_nano=71), *e[2:]],
            r"line 2 has the hash \w+, expected \w+ of its",
        ),
        (lambda e: [e[0], replace(e[1], target="node/9"), *e[2:]], r"line 2 has the hash"),
        (lambda e: [e[0], e[2], e[3]], r"line 2 follows entry 1 with hash \w{12}, expected entry 0 with hash"),
        (lambda e: [e[0], e[2], e[1], e[3]], r"line 2 follows entry 1"),
        (lambda e: [*e, e[3]], r"line 5 follows entry 2 with hash"),
        (lambda e: extend(Head.of_run("another"), MOVED)[0], r"line 1 follows entry -1"),
        (
            lambda e: chain(*MOVED[:3], replace(MOVED[3], amount_nano=71)),
            r"line 4 takes 71 NANO from node/3, which",
        ),
        (lambda e: chain(*MOVED[1:]), r"line 1 takes 70 NANO from pool/gradient, which holds 0"),
        (lambda e: chain(MOVED[0], replace(MOVED[1], amount_nano=-5)), r"line 2 moves -5 NANO, expected a positive"),
        (
            lambda e: chain(replace(MOVED[0], kind="gift")),
            r"line 1 is a 'gift' from 'emission', expected",
        ),
        (lambda e: chain(MOVED[0], replace(MOVED[1], source="node/1")), r"line 2 is a 'payout' from 'node/1'"),
    ],
)
def test_every_tampering_is_found(tamper: Callable[[list[Entry]], list[Entry]], message: str) -> None:
    with pytest.raises(DataError, match=rf"^ledger {message}"):
        check_chain(tamper(chain()), run=RUN, source="ledger")


def test_a_tail_that_was_written_again_has_another_head() -> None:
    honest = check_chain(chain(), run=RUN, source="ledger")
    forged = chain(*MOVED[:2], replace(MOVED[2], target="node/5"), MOVED[3])
    assert check_chain(forged, run=RUN, source="ledger") != honest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"^ledger line 1 is not an entry of a rewards ledger: "),
        ('{"seq":1}', r"^ledger line 1 is not an entry of a rewards ledger: "),
        (
            json.dumps(asdict(chain()[0]) | {"amount_nano": 1.5}),
            r"^ledger line 1: amount_nano is 1\.5, expected",
        ),
    ],
)
def test_what_is_no_entry_is_refused(line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_entries(line, source="ledger")
