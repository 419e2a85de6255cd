"""Signed documents, such as the certificate of a round, that anyone can check again.

    {"body": {...}, "evidence": {...}, "signature": "..."}     canonical JSON, indented by one space, newline at the end

The enclave's key signs body and evidence; the evidence names that key and is signed by the (mock) vendor root. A file
has one valid form: any byte that differs makes it invalid.
"""

from collections.abc import Mapping

from nerv_fl.crypto.attestation import Evidence, check_evidence
from nerv_fl.crypto.canonical_json import from_base64, read_json, text_at, to_base64, to_json
from nerv_fl.crypto.keys import SigningKey, VerifyKey
from nerv_fl.errors import SealError

MAX_DOCUMENT_BYTES = 2**20
"""Longest document that is read: 1 MiB, of which JSON makes some 30 MiB at worst; a usual certificate has 15 KB."""

_KEYS = frozenset({"body", "evidence", "signature"})
_INDENT = 1
_SIGNATURE_CONTEXT = b"nerv_fl document v1"
_WHAT = "document"


def sign_document(body: Mapping[str, object], *, key: SigningKey, evidence: Evidence) -> str:
    """Sign a body and return the whole document.

    Args:
        body: JSON values; floats must be finite, and keep all their bits.
        key: The enclave's signing key.
        evidence: Evidence of the same enclave.

    Raises:
        SealError: If the body is not JSON, holds a number that is not finite, or the evidence is for another key.
    """
    if key.verify_key != evidence.verify_key:
        signer, named = key.verify_key.fingerprint, evidence.verify_key.fingerprint
        raise SealError(f"document would be signed by the key {signer}, but its evidence names {named}")
    statement = {"body": dict(body), "evidence": evidence.to_fields()}
    signature = to_base64(key.sign(_signed_bytes(statement), context=_SIGNATURE_CONTEXT))
    return to_json({**statement, "signature": signature}, what=_WHAT, indent=_INDENT) + "\n"


def verify_document(text: str | bytes, *, vendor_root: VerifyKey, run: str | None = None) -> dict[str, object]:
    """Return the body of a document if every byte of it is as it was signed.

    Args:
        text: The document as it came, from anyone.
        vendor_root: Public key of the mock vendor root, pinned by whoever checks.
        run: Run that the evidence must be for; None accepts any.

    Raises:
        SealError: Naming what failed: size, form, evidence or signature.

    Guarantees:
        The enclave that the vendor root vouched for signed this body. That enclave is software (see `evidence`).
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SealError(f"document has {len(data)} bytes, expected at most {MAX_DOCUMENT_BYTES}")
    fields = read_json(data, what=_WHAT, keys=_KEYS, indent=_INDENT)
    body = fields["body"]
    if not isinstance(body, dict):
        raise SealError(f"document has {type(body).__name__} as its body, expected a JSON object")
    evidence = check_evidence(to_json(fields["evidence"], what="evidence"), vendor_root=vendor_root, run=run)
    signature = from_base64(text_at(fields, "signature", what=_WHAT), what="document signature")
    statement = {"body": body, "evidence": fields["evidence"]}
    try:
        evidence.verify_key.verify(_signed_bytes(statement), signature=signature, context=_SIGNATURE_CONTEXT)
    except SealError as error:
        raise SealError(f"document is not signed by the enclave key {evidence.verify_key.fingerprint}") from error
    return body


def _signed_bytes(statement: Mapping[str, object]) -> bytes:
    return to_json(statement, what=_WHAT).encode()
