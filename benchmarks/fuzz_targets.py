"""Everything of the project that reads what others wrote, each with hostile inputs and what must hold of the answer.

An input is refused with the documented error, or accepted if it is one of the real inputs that this reader expects.
Anything else raises: an error that is not documented as it is, an accepted forgery as `Broken`.
"""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.fuzz_cast import CODE, CODEC_NAMES, MAX_NORM, NODE, NUM_PARAMETERS, OTHER, RUN, Cast, statement
from benchmarks.mutate import canonical, hostile, mutate, mutate_json
from nerv_fl.client.train_request import read_cohort, read_constants, read_heard, read_order
from nerv_fl.config import RunConfig
from nerv_fl.crypto import EnvelopeRefused, Header, check_evidence, decode_update, open_envelope, read_envelope
from nerv_fl.enclave.admission import AdmissionLog, open_round
from nerv_fl.enclave.certificate import check_statement, verify_certificate
from nerv_fl.enclave.screening import examiner
from nerv_fl.errors import ConfigError, SealError
from nerv_fl.failure_reasons import MAX_REASON_LENGTH
from nerv_fl.strategy.nerv import read_messages

Target = Callable[[np.random.Generator], str]
"""Draws one hostile input, has it read, and returns what came of it: "accepted", or why it was refused."""

ACCEPTED: Final = "accepted"
MAX_ENVELOPE_BYTES: Final = 16_384
OURS: Final = Cast()
PARTS: Final = ("run", "round", "base_hash", "evidence", "constants", "cohort", "heard")


class Broken(AssertionError):  # noqa: N818 (a finding, not an error of the project)
    """Something altered was accepted, or a refusal said what it may not say."""


def require(holds: bool, what: str, data: object = b"") -> None:
    """Raise unless it holds, with the input that broke it."""
    if not holds:
        raise Broken(f"{what}: {data!r:.2000}")


def envelope(draws: np.random.Generator) -> str:
    """Any bytes are an envelope of this node, round, model and enclave, or refused, and blame nobody."""
    data = _restated(draws) if draws.random() < 0.3 else mutate(OURS.envelopes, draws)
    try:
        payload = open_envelope(
            data,
            expected=OURS.context,
            roster=OURS.roster,
            opening_key=OURS.opening_key,
            max_size_bytes=MAX_ENVELOPE_BYTES,
        )
    except EnvelopeRefused as refusal:
        require(not refusal.attributable, "a node was blamed for what others altered", data)
        return refusal.reason
    require(data == OURS.envelopes[0] and payload == OURS.payload(), "a forgery opened", data)
    return ACCEPTED


def _restated(draws: np.random.Generator) -> bytes:
    """Return the node's envelope with another header and its lengths put right: the signature alone can refuse it."""
    real = OURS.envelopes[0]
    read = read_envelope(real)
    header = canonical(mutate_json(json.loads(read.header.to_bytes()), draws))
    return real[:8] + len(header).to_bytes(4, "big") + header + read.signature + bytes(read.ciphertext)


def header(draws: np.random.Generator) -> str:
    """Any bytes are a header in canonical form, or refused."""
    real = read_envelope(OURS.envelopes[0]).header.to_bytes()
    data = canonical(mutate_json(json.loads(real), draws)) if draws.random() < 0.7 else mutate([real], draws)
    try:
        read = Header.from_bytes(data)
    except SealError:
        return "not a header"
    require(read.to_bytes() == data, "a header has two forms", data)
    return ACCEPTED


def payload(draws: np.random.Generator) -> str:
    """Any payload that a node sealed is an update of this model, or refused and blamed on its node."""
    codec = CODEC_NAMES[int(draws.integers(len(CODEC_NAMES)))]
    real = [OURS.payload(name) for name in (codec, *CODEC_NAMES)]
    data = mutate(real, draws)
    try:
        update_P = decode_update(data, num_parameters=NUM_PARAMETERS, codec=codec)
    except EnvelopeRefused as refusal:
        require((refusal.reason, refusal.attributable) == ("bad-payload", True), "another refusal", data)
        return refusal.reason
    require(update_P.shape == (NUM_PARAMETERS,) and update_P.dtype == np.float32, "another update", data)
    require(len(data) == len(real[0]), "an update of another length", data)
    return ACCEPTED


def evidence(draws: np.random.Generator) -> str:
    """Any text is the pinned vendor's evidence for this run and code, or refused."""
    real = OURS.evidences
    data = canonical(mutate_json(json.loads(real[0]), draws)) if draws.random() < 0.4 else mutate(real, draws)
    try:
        check_evidence(data.decode("utf-8", "surrogateescape"), vendor_root=OURS.root, run=RUN, code_hash=CODE)
    except SealError as refusal:
        return _named(refusal)
    require(data == real[0], "forged evidence was believed", data)
    return ACCEPTED


def certificate(draws: np.random.Generator) -> str:
    """Any text is a certificate as the pinned enclave signed it, or refused."""
    real = OURS.certificates
    structural = draws.random() < 0.4
    data = canonical(mutate_json(json.loads(real[0]), draws), indent=1) if structural else mutate(real, draws)
    try:
        verify_certificate(data, vendor_root=OURS.root, run=RUN)
    except SealError as refusal:
        return _named(refusal)
    require(data == real[0], "a forged certificate was believed", data)
    return ACCEPTED


def signed_statement(draws: np.random.Generator) -> str:
    """Any body, even one that an enclave signed, supports its verdict or is refused."""
    body = mutate_json(mutate_json(statement(), draws), draws)
    if not isinstance(body, dict):
        return "not a body"
    try:
        check_statement(body)
    except SealError as refusal:
        return _named(refusal)
    require(body["p_value"] <= 0.5 and body["homomorphism"]["violations"] == 0, "it does not follow", body)
    return ACCEPTED


def request(draws: np.random.Generator) -> str:
    """Any message of a server is one that could be a request, or refused before anything is spent."""
    fields = _request()
    for _ in range(int(draws.integers(3))):
        name = PARTS[int(draws.integers(len(PARTS)))]
        fields[name] = mutate_json(fields[name], draws)
    theta = mutate([_npy(OURS.theta), _npy(OURS.theta.astype(np.float64)), _npy(OURS.theta[None])], draws)
    try:
        order = read_order(fields, theta)
        cohort = read_cohort(fields, num_nodes=8)
        heard = read_heard(fields, cohort)
        read_constants(str(fields["constants"]))
    except (SealError, ConfigError) as refusal:
        return _named(refusal)
    require(len(theta) == 128 + 4 * len(order.theta_P), "bytes were left over, or made up", theta)
    require(set(heard) == set(cohort) and min(heard.values(), default=0) >= 0, "a round that is none", heard)
    require(len(set(cohort)) == len(cohort) and set(cohort) <= set(range(8)), "a node that is none", cohort)
    return ACCEPTED


def _request() -> dict[str, Any]:
    return {
        "run": RUN,
        "round": 7,
        "base_hash": OURS.context.base_hash,
        "evidence": OURS.evidences[0].decode(),
        "constants": '{"movement_floor": 0.01}',
        "cohort": [NODE, OTHER],
        "heard": [6, 0],
    }


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()


def constants(draws: np.random.Generator) -> str:
    """Any text is a table of constants, or refused."""
    data = mutate([b'{"movement_floor": 0.01}', b'{"scale": [1, 2.5, -3e2], "rate": 0.5}'], draws)
    text = data.decode("utf-8", "surrogateescape")
    if draws.random() < 0.2:
        text = ("[" * int(draws.integers(1, 5000))) + text
    try:
        require(isinstance(read_constants(text), dict), "something else than a table", text)
    except ConfigError:
        return "not a table"
    return ACCEPTED


def reply(draws: np.random.Generator) -> str:
    """Any reply of a SuperNode gives bytes to open and nodes of the cohort, and stops nothing."""
    cohort = frozenset({NODE, OTHER})
    answer: dict[str, Any] = {"nodes": [NODE, OTHER], "envelopes": list(OURS.envelopes[:2]), "refusing_nodes": []}
    keys = ("nodes", "envelopes", "refusing_nodes", "reasons", "charged_nodes", "more")
    for _ in range(int(draws.integers(1, 4))):
        answer[keys[int(draws.integers(len(keys)))]] = hostile(draws)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as Flower has it inside a run
    about = Message(RecordDict(), dst_node_id=1, message_type="train")
    if draws.random() < 0.1:
        replies = [Message(Error(2, str(hostile(draws)) * 99), reply_to=about)]
    else:
        replies = [Message(_record(answer, draws), reply_to=about)]
    found = read_messages(replies, names={}, cohort=cohort, late=frozenset(), with_reasons=True)
    require(found.answering | found.refusing <= cohort, "somebody was heard who was not asked", answer)
    require(all(isinstance(item, bytes) for item in found.envelopes), "an envelope that is no bytes", answer)
    said = [*found.reasons.values(), *(reason for _, reason in found.errors)]
    require(found.reasons.keys() | found.charged <= cohort, "a reason of a node that was not asked", answer)
    require(all(reason.isprintable() and len(reason) <= MAX_REASON_LENGTH for reason in said), "a raw reason", answer)
    return ACCEPTED if found.envelopes else "nothing in it"


def _record(answer: Mapping[str, Any], draws: np.random.Generator) -> RecordDict:
    """Return what Flower can carry of an answer, sometimes under another name."""
    carried = {}
    for key, value in answer.items():
        try:
            carried[key] = ConfigRecord({key: value})[key]
        except (TypeError, ValueError):
            carried[key] = str(value)[:50].encode("utf-8", "replace")
    return RecordDict({"answer" if draws.random() < 0.9 else "other": ConfigRecord(carried)})


def hostile_node(draws: np.random.Generator) -> str:
    """A registered node that signs what it likes gives a finite update of bounded length, or is refused and blamed."""
    update_P = np.frombuffer(OURS.payload()[12:], "<f4").copy()
    kind = draws.random()
    if kind < 0.5:
        at = draws.integers(NUM_PARAMETERS, size=int(draws.integers(1, 9)))
        update_P[at] = draws.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -1e20, 1e3, 0], np.float32), len(at))
        data = OURS.payload()[:12] + update_P.tobytes()
    else:
        data = mutate([OURS.payload(), OURS.payload("int8"), OURS.payload("bf16")], draws)
    return _opened([OURS.seal(data)], honest=None)


def carrier(draws: np.random.Generator) -> str:
    """Whoever carries envelopes can alter, repeat, exchange and lose them; the honest ones count, nobody is blamed."""
    sent = [mutate(OURS.envelopes, draws) for _ in range(int(draws.integers(1, 4)))] + list(OURS.envelopes[:2])
    draws.shuffle(sent)
    return _opened(sent, honest=(NODE, OTHER))


def _opened(sent: list[bytes], *, honest: tuple[int, ...] | None) -> str:
    """Open a round; `honest` are the nodes that must be in it, unblamed, or None if node 3 may be blamed."""
    admitted = open_round(
        sent,
        run=RUN,
        round_number=7,
        base_hash=OURS.context.base_hash,
        cohort=(NODE, OTHER),
        roster=OURS.roster,
        opening_key=OURS.opening_key,
        log=_Forgetful(Path("/nonexistent")),
        num_parameters=NUM_PARAMETERS,
        codec="fp32",
        max_norm=MAX_NORM,
        memory_mb=1.0,
        examine=EXAMINE,
    )
    updates_NP = admitted.updates.stacked().astype(np.float64)
    require(bool(np.isfinite(updates_NP).all()), "an update that is not finite", sent)
    require(bool((np.linalg.norm(updates_NP, axis=1) <= MAX_NORM * 1.001).all()), "an update too long", sent)
    if honest is not None:
        require(admitted.nodes == honest and not admitted.faults, "the carrier could exclude or blame", sent)
        require(sum(admitted.refused.values()) == len(sent) - len(honest), "an envelope was not counted", sent)
    elif not admitted.nodes and "too-large" not in admitted.refused:  # what is too large is not even read
        require(admitted.faults.keys() == {NODE}, "a signed fault was nobody's", sent)
    return " ".join(admitted.refused) or ACCEPTED


class _Forgetful(AdmissionLog):
    """Keeps nothing on the disk: each input is a round of its own."""

    def record(self, round_number: int, admitted: Mapping[int, str]) -> None:
        """Forget."""


def _named(refusal: Exception) -> str:
    """Return a refusal's kind: its first words, without what the input brought."""
    return " ".join(word for word in str(refusal).split()[:6] if word.isalpha())


EXAMINE: Final = examiner(np.eye(1, NUM_PARAMETERS, dtype=np.float32), config=RunConfig())

TARGETS: Final[Mapping[str, Target]] = {
    item.__name__: item
    for item in (
        envelope,
        header,
        payload,
        evidence,
        certificate,
        signed_statement,
        request,
        constants,
        reply,
        carrier,
        hostile_node,
    )
}
"""Every target by its name."""
