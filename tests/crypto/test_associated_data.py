"""The context of an update, and its canonical bytes."""

import re
from dataclasses import replace

import pytest

from nerv_fl.crypto import Context, Header
from nerv_fl.crypto.associated_data import MAX_HEADER_BYTES
from nerv_fl.errors import ConfigError

LONG = "x" * 128


def test_info_is_canonical_and_names_its_domain(context: Context) -> None:
    assert context.info() == b'{"base_hash":"c0ffee","domain":"nerv_fl update v1","node":3,"round":7,"run":"demo"}'


def test_contexts_that_differ_have_different_info(context: Context) -> None:
    others = [replace(context, run="demo2"), replace(context, round=8), replace(context, node=4)]
    others += [replace(context, base_hash="decaf"), replace(context, run='demo","x":"')]
    assert len({other.info() for other in [context, *others]}) == 6


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", "", "run is '', expected 1 to 128 printable characters"),
        ("run", "a\nb", "run is 'a\\nb', expected 1 to 128 printable characters"),
        ("run", "\u00e9", "run is '\u00e9', expected 1 to 128 printable characters"),
        ("base_hash", LONG + "x", f"base_hash is '{LONG}x', expected 1 to 128 printable characters"),
        ("round", -1, "round is -1, expected an integer in [0, 2^64)"),
        ("node", 2**64, "node is 18446744073709551616, expected an integer in [0, 2^64)"),
    ],
)
def test_a_context_out_of_range_is_refused(field: str, value: object, message: str) -> None:
    fields: dict[str, object] = {"run": "demo", "round": 7, "node": 3, "base_hash": "c0ffee", field: value}
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Context(**fields)  # type: ignore[arg-type]


def test_the_largest_header_fits() -> None:
    context = Context(run='"' * 128, round=2**64 - 1, node=2**64 - 1, base_hash="\\" * 128)
    header = Header(context=context, enclave="f" * 64, ciphertext="f" * 64, payload_size_bytes=2**64)
    assert len(header.to_bytes()) < MAX_HEADER_BYTES
    assert Header.from_bytes(header.to_bytes()) == header
