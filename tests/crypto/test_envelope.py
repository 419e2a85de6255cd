"""Envelopes open for one enclave, one context and one signer, and are refused otherwise with a reason."""

import hashlib
import json
import pickle
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nerv_fl.crypto import (
    Context,
    EnvelopeRefused,
    Header,
    OpeningKey,
    Reason,
    SigningKey,
    VerifyKey,
    decode_update,
    encode_update,
    largest_envelope_bytes,
    open_envelope,
    read_envelope,
    seal,
)
from nerv_fl.crypto.associated_data import MAX_HEADER_BYTES
from nerv_fl.crypto.keys import SIGNATURE_SIZE_BYTES
from nerv_fl.errors import SealError

PAYLOAD = hashlib.sha256(b"a noised update").digest()
MAGIC = b"NERVENV\x01"
WHOSE = "the envelope of node 3 for round 7"


@pytest.fixture(scope="module")
def envelope(context: Context, opening_key: OpeningKey, nodes: dict[int, SigningKey]) -> bytes:
    return seal(PAYLOAD, context=context, sealing_key=opening_key.sealing_key, signing_key=nodes[3])


@pytest.fixture(scope="module")
def opened(context: Context, opening_key: OpeningKey, roster: dict[int, VerifyKey]) -> partial[bytes]:
    return partial(open_envelope, expected=context, roster=roster, opening_key=opening_key, max_size_bytes=20_000)


def assemble(header: Header | bytes, *, ciphertext: bytes, signing_key: SigningKey) -> bytes:
    """Put together and sign an envelope by hand, as an attacker may."""
    data = header.to_bytes() if isinstance(header, Header) else header
    signature = signing_key.sign(MAGIC + data, context=b"nerv_fl envelope v1")
    return MAGIC + len(data).to_bytes(4, "big") + data + signature + ciphertext


def header_end(envelope: bytes) -> int:
    return 12 + int.from_bytes(envelope[8:12], "big")


def ciphertext_of(envelope: bytes) -> bytes:
    return envelope[header_end(envelope) + SIGNATURE_SIZE_BYTES :]


def refused(call: partial[bytes], envelope: bytes, *, reason: Reason, message: str, attributable: bool = False) -> None:
    with pytest.raises(EnvelopeRefused, match=f"^{re.escape(message)}$") as refusal:
        call(envelope)
    assert (refusal.value.reason, refusal.value.attributable) == (reason, attributable)


def test_an_update_arrives_bit_for_bit(context: Context, opening_key: OpeningKey, nodes: dict[int, SigningKey]) -> None:
    update = np.linspace(-1, 1, 1000, dtype=np.float32)
    envelope = seal(encode_update(update), context=context, sealing_key=opening_key.sealing_key, signing_key=nodes[3])
    payload = open_envelope(envelope, expected=context, roster={3: nodes[3].verify_key}, opening_key=opening_key)
    assert decode_update(payload, num_parameters=1000).tobytes() == update.tobytes()


def test_the_header_says_what_the_envelope_is_for(envelope: bytes, context: Context, opening_key: OpeningKey) -> None:
    header = read_envelope(envelope).header
    assert header.context == context
    assert header.enclave == opening_key.sealing_key.digest
    assert header.ciphertext == hashlib.sha256(ciphertext_of(envelope)).hexdigest()
    assert header.payload_size_bytes == len(PAYLOAD)


def test_the_payload_does_not_occur_in_the_envelope(envelope: bytes) -> None:
    assert not any(PAYLOAD[start : start + 4] in envelope for start in range(len(PAYLOAD) - 3))


def test_two_envelopes_of_one_payload_share_no_ciphertext(
    *, envelope: bytes, context: Context, opening_key: OpeningKey, nodes: dict[int, SigningKey]
) -> None:
    again = seal(PAYLOAD, context=context, sealing_key=opening_key.sealing_key, signing_key=nodes[3])
    assert ciphertext_of(again) != ciphertext_of(envelope)


def test_the_size_limit_holds_for_the_largest_header(opening_key: OpeningKey, nodes: dict[int, SigningKey]) -> None:
    context = Context(run='"' * 128, round=2**64 - 1, node=2**64 - 1, base_hash="\\" * 128)
    envelope = seal(PAYLOAD, context=context, sealing_key=opening_key.sealing_key, signing_key=nodes[3])
    assert len(envelope) <= largest_envelope_bytes(len(PAYLOAD))


def test_a_restarted_enclave_opens_earlier_envelopes(
    *, envelope: bytes, context: Context, opening_key: OpeningKey, roster: dict[int, VerifyKey]
) -> None:
    restarted = OpeningKey(opening_key.raw)
    assert open_envelope(envelope, expected=context, roster=roster, opening_key=restarted) == PAYLOAD


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", "other", "envelope is for run 'demo', expected 'other'"),
        ("round", 8, "envelope is for round 7, expected 8"),
        ("node", 4, "envelope is for node 3, expected 4"),
        ("base_hash", "decaf", "envelope is for base_hash 'c0ffee', expected 'decaf'"),
    ],
)
def test_another_context_is_refused(
    *, envelope: bytes, context: Context, opened: partial[bytes], field: str, value: object, message: str
) -> None:
    expected = replace(context, **{field: value})  # type: ignore[arg-type]
    refused(partial(opened, expected=expected), envelope, reason="wrong-context", message=message)


@pytest.mark.parametrize("change", [{"run": "other"}, {"round": 8}, {"node": 4}, {"base_hash": "decaf"}])
def test_a_ciphertext_does_not_open_in_another_context_even_if_signed_for_it(
    *,
    envelope: bytes,
    context: Context,
    opened: partial[bytes],
    nodes: dict[int, SigningKey],
    change: dict[str, str | int],
) -> None:
    other = replace(context, **change)  # type: ignore[arg-type]
    header = replace(read_envelope(envelope).header, context=other)
    moved = assemble(header, ciphertext=ciphertext_of(envelope), signing_key=nodes[other.node])
    message = f"the envelope of node {other.node} for round {other.round} is signed by its node but does not open"
    refused(partial(opened, expected=other), moved, reason="does-not-open", message=message, attributable=True)


def test_an_unknown_node_is_refused(envelope: bytes, opened: partial[bytes], roster: dict[int, VerifyKey]) -> None:
    call = partial(opened, roster={4: roster[4]})
    refused(call, envelope, reason="unknown-signer", message="node 3 is not among the 1 on the roster")


def test_another_enclave_refuses(envelope: bytes, opened: partial[bytes], opening_key: OpeningKey) -> None:
    message = f"{WHOSE} is sealed to enclave {opening_key.sealing_key.fingerprint}"
    call = partial(opened, opening_key=OpeningKey.generate())
    refused(call, envelope, reason="wrong-enclave", message=message)


def test_a_signature_by_another_node_is_refused(
    *, envelope: bytes, opened: partial[bytes], nodes: dict[int, SigningKey], roster: dict[int, VerifyKey]
) -> None:
    forged = assemble(read_envelope(envelope).header, ciphertext=ciphertext_of(envelope), signing_key=nodes[4])
    message = f"{WHOSE} is not signed by that node's key {roster[3].fingerprint}"
    refused(opened, forged, reason="bad-signature", message=message)


def test_a_swapped_ciphertext_is_refused(
    *, envelope: bytes, context: Context, opened: partial[bytes], opening_key: OpeningKey
) -> None:
    other = opening_key.sealing_key.seal(PAYLOAD[::-1], info=context.info())
    swapped = envelope[: -len(other)] + other
    message = f"{WHOSE} has another ciphertext than its node signed"
    refused(opened, swapped, reason="bad-signature", message=message)


def test_nothing_is_decrypted_before_the_signature_verified(
    envelope: bytes, opened: partial[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decrypted: list[bytes] = []

    def record(_key: OpeningKey, ciphertext: memoryview, *, info: bytes) -> bytes:
        decrypted.append(bytes(ciphertext) + info)
        return b""

    monkeypatch.setattr(OpeningKey, "open", record)
    at = header_end(envelope)
    for forged in (envelope[:-1] + b"\x00", envelope[:at] + bytes(SIGNATURE_SIZE_BYTES) + ciphertext_of(envelope)):
        with pytest.raises(EnvelopeRefused) as refusal:
            opened(forged)
        assert refusal.value.reason == "bad-signature"
    assert decrypted == []
    opened(envelope)
    assert len(decrypted) == 1


def test_garbage_that_the_node_signed_is_its_own_fault(
    envelope: bytes, opened: partial[bytes], nodes: dict[int, SigningKey]
) -> None:
    garbage = bytes(len(ciphertext_of(envelope)))
    header = replace(read_envelope(envelope).header, ciphertext=hashlib.sha256(garbage).hexdigest())
    signed = assemble(header, ciphertext=garbage, signing_key=nodes[3])
    message = f"{WHOSE} is signed by its node but does not open"
    refused(opened, signed, reason="does-not-open", message=message, attributable=True)


def test_the_size_is_checked_first(envelope: bytes, opened: partial[bytes]) -> None:
    message = f"envelope has {len(envelope)} bytes, expected at most {len(envelope) - 1}"
    for call in (opened, read_envelope):
        limited = partial(call, max_size_bytes=len(envelope) - 1)
        refused(limited, envelope, reason="too-large", message=message)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "envelope has 0 bytes, expected at least 12"),
        (MAGIC, "envelope has 8 bytes, expected at least 12"),
        (b"NERVENV\x02" + bytes(99), "envelope begins with b'NERVENV\\x02', expected b'NERVENV\\x01'"),
        (MAGIC + b"\xff" * 99, "envelope claims a header of 4294967295 bytes, expected at most 2048"),
        (MAGIC + b"\x00\x00\x08\x00" + bytes(99), "envelope has a bad header: header is not JSON"),
        (MAGIC + b"\x00\x00\x00\x02{}", "envelope has a bad header: header must be a JSON object with the keys "
         "base_hash, ciphertext, enclave, node, payload_size_bytes, round, run"),
    ],
)  # fmt: skip
def test_a_malformed_envelope_is_refused(opened: partial[bytes], data: bytes, message: str) -> None:
    refused(opened, data, reason="malformed", message=message)


def test_a_header_out_of_range_is_malformed(
    envelope: bytes, opened: partial[bytes], nodes: dict[int, SigningKey]
) -> None:
    header = read_envelope(envelope).header.to_bytes()
    for old, new, message in (
        (b'"node":3', b'"node":-3', "header has -3 at 'node', expected an integer from 0"),
        (b'"node":3', b'"node":true', "header has True at 'node', expected an integer from 0"),
        (b'"run":"demo"', b'"run":7', "header has int 7 at 'run', expected text"),
        (b'"run":"demo"', b'"run":""', "header: run is '', expected 1 to 128 printable characters"),
        (b'"node":3', b'"node": 3', "header is not in canonical form: it was edited, or written by another program"),
    ):
        bad = assemble(header.replace(old, new), ciphertext=ciphertext_of(envelope), signing_key=nodes[3])
        refused(opened, bad, reason="malformed", message=f"envelope has a bad header: {message}")


@given(
    field=st.sampled_from(["base_hash", "ciphertext", "enclave", "node", "payload_size_bytes", "round", "run"]),
    depth=st.integers(1, 990),
    table=st.booleans(),
)
@example(field="run", depth=600, table=False)
def test_nested_headers_are_malformed(
    *, envelope: bytes, opened: partial[bytes], field: str, depth: int, table: bool
) -> None:
    opening, closing = ('{"":', "}") if table and depth < 300 else ("[", "]")
    fields = json.loads(read_envelope(envelope).header.to_bytes())
    text = json.dumps({**fields, field: "nested"}, sort_keys=True, separators=(",", ":"))
    header = text.replace('"nested"', f"{opening * depth}0{closing * depth}")[:MAX_HEADER_BYTES].encode()
    junk = MAGIC + len(header).to_bytes(4, "big") + header + bytes(5000)
    for call in (opened, read_envelope):
        with pytest.raises(EnvelopeRefused, match=r"^envelope has a bad header: header ") as refusal:
            call(junk)
        assert refusal.value.reason == "malformed"


def test_lengths_must_agree(envelope: bytes, opened: partial[bytes]) -> None:
    for wrong in (envelope[:-1], envelope + b"\x00"):
        message = f"envelope has {len(wrong)} bytes, expected {len(envelope)} by its header"
        refused(opened, wrong, reason="malformed", message=message)


def test_every_changed_byte_is_refused(envelope: bytes, opened: partial[bytes]) -> None:
    for position in range(len(envelope)):
        changed = bytearray(envelope)
        changed[position] ^= 1 << position % 8
        with pytest.raises(EnvelopeRefused) as refusal:
            opened(bytes(changed))
        assert not refusal.value.attributable


@given(data=st.binary(max_size=200), header_size=st.integers(0, 300), prefixed=st.booleans())
def test_random_bytes_are_refused(*, opened: partial[bytes], data: bytes, header_size: int, prefixed: bool) -> None:
    junk = MAGIC + header_size.to_bytes(4, "big") + data if prefixed else data
    for call in (opened, read_envelope):
        with pytest.raises(EnvelopeRefused):
            call(junk)


@given(edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30), st.binary(max_size=30)), min_size=1))
def test_mutated_envelopes_never_open_and_only_seal_errors_escape(
    envelope: bytes, opened: partial[bytes], edits: list[tuple[int, int, bytes]]
) -> None:
    mutated = envelope
    for position, num_removed, inserted in edits:
        mutated = mutated[:position] + inserted + mutated[position + num_removed :]
    try:
        payload = opened(mutated)
    except SealError:
        assert mutated != envelope
    else:
        assert mutated == envelope
        assert payload == PAYLOAD


def test_refusals_survive_pickling() -> None:
    refusal = pickle.loads(pickle.dumps(EnvelopeRefused("why", "does-not-open", attributable=True)))
    assert (str(refusal), refusal.reason, refusal.attributable) == ("why", "does-not-open", True)
