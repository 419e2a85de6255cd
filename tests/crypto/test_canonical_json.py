"""One text for each value, and nothing else is read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.crypto.canonical_json import MAX_NESTING, count_at, from_base64, read_json, text_at, to_base64, to_json
from nerv_fl.errors import SealError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=json_values)
def test_what_is_written_is_read_back(value: object) -> None:
    for indent, ending in ((None, ""), (1, "\n")):
        data = (to_json({"body": value}, what="value", indent=indent) + ending).encode("ascii")
        assert read_json(data, what="value", keys=frozenset({"body"}), indent=indent) == {"body": value}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"loss": float("nan")}, "body cannot be written as canonical JSON: Out of range float values are not JSON"),
        ({"loss": [float("inf")]}, "body cannot be written as canonical JSON: Out of range float values are not JSON"),
        ({"key": b"bytes"}, "body cannot be written as canonical JSON: Object of type bytes is not JSON serializable"),
        ({"nodes": [{3: "payout"}]}, "body cannot be written as canonical JSON: all its keys must be text"),
    ],
)
def test_refuses_to_write_what_is_not_json(value: object, message: str) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(message)}"):
        to_json(value, what="body")


NOT_CANONICAL = "header is not in canonical form: it was edited, or written by another program"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header is not JSON"),
        (b"[" * 100_000, "header is not JSON"),
        (b'{"n":' + b"1" * 5000 + b"}", "header is not JSON"),
        (b"\xff", "header is not JSON"),
        ('{"n":"\u00e9"}'.encode(), "header is not JSON"),
        (b"[]", "header must be a JSON object with the keys n"),
        (b"{}", "header must be a JSON object with the keys n"),
        (b'{"m":1,"n":1}', "header must be a JSON object with the keys n"),
        (b'{"n":1,"n":1}', NOT_CANONICAL),
        (b'{"n": 1}', NOT_CANONICAL),
        (b'{"n":1}\n', NOT_CANONICAL),
        (b'{"n":1.0e0}', NOT_CANONICAL),
        (b'{"n":"\\u0041"}', NOT_CANONICAL),
        (b'{"n":1e999}', "header cannot be written as canonical JSON: Out of range float values"),
        (b'{"n":NaN}', "header cannot be written as canonical JSON: Out of range float values"),
    ],
)
def test_refuses_to_read_what_it_would_not_write(data: bytes, message: str) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(message)}"):
        read_json(data, what="header", keys=frozenset({"n"}))


@given(data=st.binary(max_size=40))
def test_base64_has_one_text_for_each_value(data: bytes) -> None:
    assert from_base64(to_base64(data), what="key") == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TkVSVg", "key is not base64: 'TkVSVg'"),
        ("TkVS\nVg==", "key is not base64: 'TkVS\\nVg=='"),
        ("TkVS-g==", "key is not base64: 'TkVS-g=='"),
        ("TkVS\u00e9g==", "key is not base64: 'TkVS\u00e9g=='"),
        ("TkVSVh==", "key is not canonical base64: 'TkVSVh==' at its end"),
    ],
)
def test_refuses_other_base64(text: str, message: str) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(message)}$"):
        from_base64(text, what="key")


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None])
def test_a_count_is_a_non_negative_integer(value: object) -> None:
    with pytest.raises(SealError, match=f"^{re.escape(f'header has {value!r} at {chr(39)}node{chr(39)}, expected')}"):
        count_at({"node": value}, "node", what="header")


def test_text_is_text() -> None:
    with pytest.raises(SealError, match=r"^header has int 3 at 'run', expected text$"):
        text_at({"run": 3}, "run", what="header")


def nested(depth: int, *, leaf: object = 0) -> object:
    """Return lists and tables within each other, in turn, around a leaf."""
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"in": leaf}
    return leaf


def test_nesting_ends_at_its_limit() -> None:
    assert to_json(nested(MAX_NESTING), what="body").count("[") == MAX_NESTING // 2
    for depth in (MAX_NESTING + 1, 600, 100_000):
        with pytest.raises(SealError, match=r"^body is nested deeper than 16 levels$"):
            to_json(nested(depth), what="body")


@pytest.mark.parametrize("depth", [MAX_NESTING, 600, 900, 20_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"n":', "}")])
def test_deeply_nested_text_is_refused(depth: int, opening: str, *, closing: str) -> None:
    data = f'{{"n":{opening * depth}0{closing * depth}}}'.encode()
    with pytest.raises(SealError, match=r"^header is (nested deeper than 16 levels|not JSON)$"):
        read_json(data, what="header", keys=frozenset({"n"}))
