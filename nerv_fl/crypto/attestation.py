"""MOCK attestation: what an enclave would prove of itself, signed by a software key.

In a real TEE (Intel TDX, AMD SEV-SNP) the processor measures the code and a key fused by its vendor signs the
measurement. Here the vendor root is an ML-DSA-65 key in a file, and the code hash is whatever the issuer computed. So
the evidence shows that the holder of the vendor key vouched for an enclave's keys in a run, and nothing about hardware:
whoever runs the server can read the enclave's memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from nerv_fl.crypto.canonical_json import from_base64, read_json, text_at, to_base64, to_json
from nerv_fl.crypto.keys import SealingKey, SigningKey, VerifyKey
from nerv_fl.errors import SealError

MAX_EVIDENCE_CHARACTERS = 16_384
"""Longest evidence that is read; a usual one has 8.8 KB."""

_KEYS = frozenset({"code_hash", "nonce", "run", "sealing_key", "signature", "verify_key"})
_SIGNATURE_CONTEXT = b"nerv_fl mock evidence v1"
_WHAT = "evidence"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the mock vendor root says of an enclave.

    Attributes:
        sealing_key: Nodes seal to it.
        verify_key: Certificates verify under it.
        code_hash: SHA-256 of the code that runs inside, hexadecimal.
        run: Name of the run it serves; the keys live as long as the run, also through a restart.
        nonce: Freshness: what the asker chose, or the issuer's own random text.
        signature: The vendor's, 3,309 bytes, over all of the above.
    """

    sealing_key: SealingKey
    verify_key: VerifyKey
    code_hash: str
    run: str
    nonce: str
    signature: bytes

    def to_fields(self) -> dict[str, object]:
        """Return the evidence as a JSON object."""
        return {**self._statement(), "signature": to_base64(self.signature)}

    def to_text(self) -> str:
        """Return the evidence as one line of canonical JSON."""
        return to_json(self.to_fields(), what=_WHAT)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `to_text` wrote; `check_evidence` also verifies it.

        Raises:
            SealError: If the text is not evidence in canonical form.
        """
        if len(text) > MAX_EVIDENCE_CHARACTERS:
            raise SealError(f"evidence has {len(text)} characters, expected at most {MAX_EVIDENCE_CHARACTERS}")
        fields = read_json(text.encode("utf-8", "surrogatepass"), what=_WHAT, keys=_KEYS)
        return cls(
            sealing_key=SealingKey.from_text(text_at(fields, "sealing_key", what=_WHAT)),
            verify_key=VerifyKey.from_text(text_at(fields, "verify_key", what=_WHAT)),
            code_hash=text_at(fields, "code_hash", what=_WHAT),
            run=text_at(fields, "run", what=_WHAT),
            nonce=text_at(fields, "nonce", what=_WHAT),
            signature=from_base64(text_at(fields, "signature", what=_WHAT), what="evidence signature"),
        )

    def signed_bytes(self) -> bytes:
        """Return what the vendor signs: everything but the signature."""
        return to_json(self._statement(), what=_WHAT).encode()

    def _statement(self) -> dict[str, object]:
        keys = {"sealing_key": self.sealing_key.to_text(), "verify_key": self.verify_key.to_text()}
        return {**keys, "code_hash": self.code_hash, "run": self.run, "nonce": self.nonce}


def issue_evidence(
    vendor: SigningKey, *, sealing_key: SealingKey, verify_key: VerifyKey, code_hash: str, run: str, nonce: str
) -> Evidence:
    """Sign evidence with the mock vendor root.

    Args:
        vendor: Private key of the mock vendor root; no hardware is involved.
        sealing_key: The enclave's public key for envelopes.
        verify_key: The enclave's public key for certificates.
        code_hash: See `code_hash`.
        run: Name of the run.
        nonce: Freshness, chosen by the asker if there is one.
    """
    unsigned = Evidence(
        sealing_key=sealing_key, verify_key=verify_key, code_hash=code_hash, run=run, nonce=nonce, signature=b""
    )
    return replace(unsigned, signature=vendor.sign(unsigned.signed_bytes(), context=_SIGNATURE_CONTEXT))


def check_evidence(
    text: str, *, vendor_root: VerifyKey, run: str | None, nonce: str | None = None, code_hash: str | None = None
) -> Evidence:
    """Return the evidence if the mock vendor root signed it and it says what is expected.

    Args:
        text: Evidence as `Evidence.to_text` wrote it, from anyone.
        vendor_root: Public key that the node pinned.
        run: Run that the enclave must serve; None accepts any.
        nonce: Nonce that it must answer; None accepts any, and then also old evidence of the same run.
        code_hash: Code that it must run; None accepts any.

    Raises:
        SealError: Naming what differed.
    """
    evidence = Evidence.from_text(text)
    try:
        vendor_root.verify(evidence.signed_bytes(), signature=evidence.signature, context=_SIGNATURE_CONTEXT)
    except SealError as error:
        raise SealError(f"evidence is not signed by the vendor root {vendor_root.fingerprint}") from error
    for name, expected in (("run", run), ("nonce", nonce), ("code_hash", code_hash)):
        found = getattr(evidence, name)
        if expected is not None and found != expected:
            raise SealError(f"evidence has the {name} {found!r}, expected {expected!r}")
    return evidence


def code_hash(packages: Sequence[Path]) -> str:
    """Return the SHA-256 of the Python files under some packages, as 64 hexadecimal digits.

    Each file enters as (path from its package's name on, content), both with their length before them, in sorted order;
    so neither the order of the packages nor the place where they are installed matters.

    Args:
        packages: Folders, such as that of `nerv_fl`.

    Raises:
        SealError: If a folder holds no Python file.
    """
    files: list[tuple[str, Path]] = []
    for package in packages:
        found = [(path.relative_to(package.parent).as_posix(), path) for path in package.rglob("*.py")]
        if not found:
            raise SealError(f"{package} holds no Python file to hash")
        files += found
    digest = hashlib.sha256()
    for name, path in sorted(files):
        for part in (name.encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
