"""A server that asks for anything: what is no request costs nothing, and no message changes the noise."""

import io
import shutil
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from benchmarks.bench_fuzz import peak_mb
from nerv_fl.client import train_request as request_module
from nerv_fl.client.train_request import read_cohort, read_constants, read_order, read_vector
from nerv_fl.config import Flat
from nerv_fl.errors import ConfigError, PrivacyError, SealError
from nerv_fl.privacy.budget import SpendingLedger
from tests.client.asking import COHORT, answer_of, ask, send
from tests.client.conftest import Field
from tests.federation.tiny_run import num_parameters

HOSTED = COHORT[1::2]
LAWLESS: dict[str, Any] = {
    "sigma": 0.0,
    "clip": 1e9,
    "privacy.sigma": 0.0,
    "privacy.clip": 1e9,
    "privacy.max_epsilon": 1e9,
    "delta": 0.5,
    "training.local_steps": 50,
    "training.learning_rate": 9.0,
    "training.expected_batch": 1,
    "training.codec": "int8",
    "unit": "chain",
    "simulated": True,
    "seed": 1,
    "constants": '{"movement_floor": 0.01, "sigma": 0.0, "privacy.sigma": 0.0}',
}


def npy(array: np.ndarray[Any, Any]) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()


def reason(reply: Message) -> str:
    return str(reply.error.reason)


def spent(field: Field) -> list[Path]:
    return sorted(field.folder.nodes.rglob("spending.json"))


def update(field: Field, reply: Message) -> np.ndarray[Any, Any]:
    answer = answer_of(reply)
    return field.opened(answer.envelopes[0], answer.nodes[0])


def test_settings_in_a_request_are_not_read(field: Field, make_field: Callable[[Flat], Field], tmp_path: Path) -> None:
    """The update of a node that is asked for no noise is the honest one bit for bit; its own settings do count."""
    honest_P = update(field, ask(field))
    written = spent(field)[0].read_text()
    shutil.rmtree(tmp_path / "run")
    asked = make_field({})

    asked_P = update(asked, ask(asked, **LAWLESS))

    assert np.array_equal(asked_P, honest_P)
    assert spent(asked)[0].read_text() == written
    assert '"sigma": 0.5' in written
    shutil.rmtree(tmp_path / "run")
    other = make_field({"training.learning_rate": 0.5})
    assert not np.array_equal(update(other, ask(other)), honest_P)


def bomb() -> bytes:
    """Return 40 KB that an archive reader makes 40 MB of."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", npy(np.zeros(10**7, np.float32)))
    return packed.getvalue()


def claimed(size: int) -> bytes:
    """Return an array that claims more numbers than it brings."""
    changed = npy(np.zeros(9, np.float32)).replace(b"(9,), }" + b" " * 12, f"({size},), }}".encode().ljust(19))
    assert len(changed) == len(npy(np.zeros(9, np.float32)))
    assert str(size).encode() in changed
    return changed


THETA = np.linspace(-1, 1, 64, dtype=np.float32)
NOT_A_MODEL = {
    "nothing": b"",
    "float64": npy(THETA.astype(np.float64)),
    "big-endian": npy(THETA.astype(">f4")),
    "two axes": npy(THETA.reshape(8, 8)),
    "integers": npy(THETA.view(np.int32)),
    "text": npy(np.array(["weights"])),
    "cut": npy(THETA)[:-1],
    "grown": npy(THETA) + b"\x00",
    "padded otherwise": npy(THETA).replace(b" \n", b"\n ", 1),
    "a claim of 4 TB": claimed(10**12),
    "an archive": bomb(),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
}


@pytest.mark.parametrize("name", NOT_A_MODEL)
def test_a_model_that_is_none_is_refused_before_anything_is_spent(name: str, field: Field) -> None:
    read_vector(npy(THETA))
    before_mb = peak_mb()

    reply = ask(field, theta=NOT_A_MODEL[name])

    assert reply.has_error()
    assert reason(reply).startswith("SealError(")
    assert "theta of the request is b" in reason(reply)
    assert peak_mb() - before_mb < 32
    assert spent(field) == []


@pytest.mark.parametrize(
    "theta_P",
    [
        np.zeros(num_parameters() - 1, np.float32),
        np.zeros(0, np.float32),
        np.full(num_parameters(), np.nan, np.float32),
        np.zeros(num_parameters(), np.float32),
    ],
)
def test_a_model_of_another_size_hash_or_without_numbers_is_refused_by_every_node(
    theta_P: np.ndarray[Any, Any], field: Field
) -> None:
    answer = answer_of(ask(field, theta=npy(theta_P)))

    assert (answer.nodes, answer.refusing_nodes) == ([], HOSTED)
    assert spent(field) == []


NO_REQUEST: dict[str, dict[str, Any]] = {
    "round 0": {"round": 0},
    "a negative round": {"round": -1},
    "a round that is text": {"round": "1"},
    "a round that is true": {"round": True},
    "no round": {"round": None},
    "no run": {"run": None},
    "a run that is bytes": {"run": b"run"},
    "no hash": {"base_hash": None},
    "no evidence": {"evidence": None},
    "no cohort": {"cohort": None},
    "a node twice": {"cohort": [3, 3]},
    "a negative node": {"cohort": [-1, 3]},
    "a node beyond the last": {"cohort": [3, 8]},
    "nodes that are text": {"cohort": ["3"]},
    "no rounds heard": {"heard": None},
    "a round heard for one node alone": {"heard": [0]},
    "rounds heard that are text": {"heard": ["1"] * len(COHORT)},
    "a negative round heard": {"heard": [-1] * len(COHORT)},
    "no constants": {"constants": None},
    "constants without end": {"constants": '{"movement_floor":' + "[" * 10**5},
    "constants that are NaN": {"constants": '{"movement_floor": NaN}'},
    "constants of 400 digits": {"constants": '{"movement_floor": 1' + "0" * 400 + "}"},
}


@pytest.mark.parametrize("name", NO_REQUEST)
def test_a_request_that_is_none_is_an_error_reply_and_the_next_is_answered(name: str, field: Field) -> None:
    reply = ask(field, **NO_REQUEST[name])

    assert reply.has_error()
    assert reason(reply).startswith(("SealError(", "ConfigError("))
    assert spent(field) == []
    if name == "a node twice":
        assert answer_of(ask(field)).nodes == HOSTED


def test_constants_that_the_task_does_not_allow_are_refused_by_every_node(field: Field) -> None:
    answer = answer_of(ask(field, constants="{}"))

    assert (answer.nodes, answer.refusing_nodes, answer.charged_nodes) == ([], HOSTED, [])
    assert spent(field) == []
    assert answer_of(ask(field)).nodes == HOSTED


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"round": ConfigRecord({"round": 1})})])
def test_a_message_without_its_parts(content: RecordDict, field: Field) -> None:
    reply = send(field, content)

    assert reason(reply).startswith("SealError('run of" if "round" in content else "SealError('round of")


def test_rounds_that_a_server_makes_up_end_at_the_budget(make_field: Callable[[Flat], Field]) -> None:
    """Sigma 0.5 at q = 1/4: two rounds pass 15, and no numbering of rounds gives a third."""
    field = make_field({"privacy.max_epsilon": 15.0})
    node, order, answered = field.node(3), field.order(), 0

    for round_number in (1, 2, 3, 99, 2**40, 2**64 - 1):
        with suppress(PrivacyError):
            node.answer(field.moved(order, round_number=round_number), trainer=field.trainer, data=field.ledger)
            answered += 1

    ledger = field.node(3)._spending
    assert isinstance(ledger, SpendingLedger)
    assert 1 <= answered == ledger.num_steps < 6
    assert ledger.epsilon <= 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round": 2**64}, "round of the request is 18446744073709551616, expected an integer in [1, 2^64)"),
        ({"run": None}, "run of the request is None, expected text"),
        ({"base_hash": 7}, "base_hash of the request is 7, expected text"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], message: str) -> None:
    fields = {"run": "r", "round": 1, "base_hash": "00", "evidence": "{}"} | changes

    with pytest.raises(SealError) as caught:
        read_order(fields, npy(THETA))

    assert str(caught.value) == message


def test_a_cohort_that_is_none_is_named() -> None:
    for cohort, expected in (([1, 1], "each node once"), ([8], "a list of nodes from 0 to 7"), (3, "a list of nodes")):
        with pytest.raises(SealError, match=rf"^cohort of the request is .*, expected {expected}"):
            read_cohort({"cohort": cohort}, num_nodes=8)


def test_constants_too_long_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_module, "MAX_CONSTANTS_CHARACTERS", 9)

    with pytest.raises(ConfigError, match=r"^constants have 10 characters, expected at most 9$"):
        read_constants("x" * 10)


def test_a_vector_is_read_as_numpy_wrote_it_and_at_once() -> None:
    large_P = np.arange(10**6, dtype=np.float32)
    started = time.process_time()

    read_P = read_vector(npy(large_P))

    assert read_P.tobytes() == large_P.tobytes()
    assert read_P.flags.writeable
    assert time.process_time() - started < 1
