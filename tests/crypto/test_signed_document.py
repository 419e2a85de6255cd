"""Signed documents: any byte that differs is noticed."""

import json
import re
from collections.abc import Iterator

import pytest

from nerv_fl.crypto import Evidence, SigningKey, issue_evidence, sign_document, verify_document
from nerv_fl.errors import SealError

BODY: dict[str, object] = {"accepted": True, "loss": 0.1 + 0.2, "payouts_nano": {"3": 10**18}, "note": "why?"}
STRIDE = 7


@pytest.fixture(scope="module")
def document(enclave_signer: SigningKey, evidence: Evidence) -> str:
    return sign_document(BODY, key=enclave_signer, evidence=evidence)


def test_the_body_comes_back_with_all_its_bits(document: str, vendor: SigningKey) -> None:
    assert verify_document(document, vendor_root=vendor.verify_key, run="demo") == BODY
    assert verify_document(document.encode(), vendor_root=vendor.verify_key) == BODY
    assert document.endswith("}\n")


def altered(data: bytes) -> Iterator[bytes]:
    """Yield the data with one byte flipped, removed, doubled or a space inserted, throughout and near both ends."""
    positions = {*range(0, len(data), STRIDE), *range(400), *range(len(data) - 100, len(data))}
    for at in positions:
        before, byte, after = data[:at], data[at : at + 1], data[at + 1 :]
        yield before + bytes([byte[0] ^ 1 << at % 7]) + after
        yield before + after
        yield before + byte + byte + after
        yield before + b" " + byte + after
    yield data + b"\n"
    yield b"\xef\xbb\xbf" + data


def test_every_altered_byte_is_refused(document: str, vendor: SigningKey) -> None:
    root = vendor.verify_key
    for changed in altered(document.encode()):
        with pytest.raises(SealError):
            verify_document(changed, vendor_root=root)


def resigned(document: str, **changes: object) -> str:
    return json.dumps({**json.loads(document), **changes}, sort_keys=True, indent=1) + "\n"


def test_what_failed_is_named(document: str, vendor: SigningKey, nodes: dict[int, SigningKey]) -> None:
    root, key = vendor.verify_key, json.loads(document)["evidence"]
    other_base64 = {**key, "signature": key["signature"][:-2] + "=="}
    for changed, message in (
        (resigned(document, body={"accepted": False}), "document is not signed by the enclave key "),
        (resigned(document, signature=""), "document is not signed by the enclave key "),
        (resigned(document, signature=3), "document has int 3 at 'signature', expected text"),
        (resigned(document, body=[]), "document has list as its body, expected a JSON object"),
        (resigned(document, evidence={**key, "run": "demo2"}), "evidence is not signed by the vendor root "),
        (resigned(document, evidence=None), "evidence must be a JSON object with the keys "),
        (resigned(document, evidence=other_base64), "evidence signature is not "),
        (resigned(document, extra=1), "document must be a JSON object with the keys body, evidence, signature"),
        (document.replace("\n", "\r\n"), "document is not in canonical form: it was edited, or written by another"),
        (document.replace("why?", "why\ud800"), "document is not JSON"),
        ("", "document is not JSON"),
    ):
        with pytest.raises(SealError, match=f"^{re.escape(message)}"):
            verify_document(changed, vendor_root=root)
    with pytest.raises(SealError, match=r"^evidence is not signed by the vendor root "):
        verify_document(document, vendor_root=nodes[3].verify_key)
    with pytest.raises(SealError, match=r"^evidence has the run 'demo', expected 'other'$"):
        verify_document(document, vendor_root=root, run="other")


@pytest.mark.parametrize("where", ["why?", "n-1"])
def test_a_nested_document_is_refused(document: str, vendor: SigningKey, where: str) -> None:
    nested = document.replace(f'"{where}"', "[" * 600 + "]" * 600)
    assert nested != document
    with pytest.raises(SealError, match=r"^document is nested deeper than 16 levels$"):
        verify_document(nested, vendor_root=vendor.verify_key)


def test_evidence_of_another_enclave_does_not_carry_the_document(
    *, document: str, vendor: SigningKey, nodes: dict[int, SigningKey], evidence: Evidence
) -> None:
    other = issue_evidence(
        vendor,
        sealing_key=evidence.sealing_key,
        verify_key=nodes[4].verify_key,
        code_hash=evidence.code_hash,
        run="demo",
        nonce="n-1",
    )
    message = f"document is not signed by the enclave key {nodes[4].verify_key.fingerprint}"
    with pytest.raises(SealError, match=f"^{message}$"):
        verify_document(resigned(document, evidence=other.to_fields()), vendor_root=vendor.verify_key)


def test_only_the_enclave_that_the_evidence_names_may_sign(evidence: Evidence, nodes: dict[int, SigningKey]) -> None:
    signer, named = nodes[3].verify_key.fingerprint, evidence.verify_key.fingerprint
    message = f"document would be signed by the key {signer}, but its evidence names {named}"
    with pytest.raises(SealError, match=f"^{message}$"):
        sign_document(BODY, key=nodes[3], evidence=evidence)


def test_numbers_that_are_not_finite_are_not_signed(enclave_signer: SigningKey, evidence: Evidence) -> None:
    with pytest.raises(SealError, match=r"^document cannot be written as canonical JSON: Out of range float values"):
        sign_document({"loss": float("inf")}, key=enclave_signer, evidence=evidence)


def test_a_document_too_long_is_not_parsed(vendor: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nerv_fl.crypto.signed_document.MAX_DOCUMENT_BYTES", 9)
    with pytest.raises(SealError, match=r"^document has 10 bytes, expected at most 9$"):
        verify_document("x" * 10, vendor_root=vendor.verify_key)
