"""A sealed update: who sent it, for which round and enclave, signed, and readable by that enclave alone.

    offset  size  field
    0       8     magic "NERVENV" and the version, 1
    8       4     size of the header H, unsigned, big-endian, at most 2,048
    12      H     header: canonical JSON with base_hash, ciphertext, enclave, node, payload_size_bytes, round, run
    12+H    3309  ML-DSA-65 signature by the node over magic and header
    ...     C     HPKE ciphertext, C = payload_size_bytes + 1,136

The header names the SHA-256 of the ciphertext and of the enclave's public key, so the signature covers context, header,
ciphertext and enclave. HPKE's `info` binds the context once more: the node's signature over the ciphertext of another
node makes nothing that opens. Base mode authenticates nobody (RFC 9180, section 9.1); the signature does.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from nerv_fl.crypto.associated_data import MAX_HEADER_BYTES, Context, Header
from nerv_fl.crypto.keys import (
    SEAL_OVERHEAD_BYTES,
    SIGNATURE_SIZE_BYTES,
    OpeningKey,
    SealingKey,
    SigningKey,
    VerifyKey,
)
from nerv_fl.crypto.rejection import EnvelopeRefused
from nerv_fl.errors import SealError

MAX_ENVELOPE_BYTES = 2**30
"""Largest envelope that is read unless the caller says less: 1 GiB, three times an update of the largest preset."""

_MAGIC = b"NERVENV\x01"
_HEADER_SIZE = struct.Struct(">I")
_PREFIX_BYTES = len(_MAGIC) + _HEADER_SIZE.size
_SIGNATURE_CONTEXT = b"nerv_fl envelope v1"


def largest_envelope_bytes(payload_size_bytes: int) -> int:
    """Return the most bytes that an envelope with such a payload can have.

    >>> largest_envelope_bytes(0)
    6505
    """
    return _PREFIX_BYTES + MAX_HEADER_BYTES + SIGNATURE_SIZE_BYTES + SEAL_OVERHEAD_BYTES + payload_size_bytes


def seal(payload: bytes, *, context: Context, sealing_key: SealingKey, signing_key: SigningKey) -> bytes:
    """Seal a payload to an enclave and sign it.

    Args:
        payload: What the enclave shall read, such as an encoded update.
        context: Run, round, node and base model.
        sealing_key: Public key of the enclave, taken from its checked evidence.
        signing_key: Key of the node, whose public half is on the roster.

    Returns:
        The envelope: about 4.8 KB more than the payload.

    Raises:
        SealError: If the sealing key is not a valid key.
    """
    ciphertext = sealing_key.seal(payload, info=context.info())
    digest = hashlib.sha256(ciphertext).hexdigest()
    header = Header(
        context=context, enclave=sealing_key.digest, ciphertext=digest, payload_size_bytes=len(payload)
    ).to_bytes()
    signature = signing_key.sign(_MAGIC + header, context=_SIGNATURE_CONTEXT)
    return b"".join((_MAGIC, _HEADER_SIZE.pack(len(header)), header, signature, ciphertext))


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """An envelope taken apart, which says nothing yet about its truth; `open` does.

    Attributes:
        header: What it claims.
        signed: What the signature is over.
        signature: The node's, 3,309 bytes.
        ciphertext: The rest, not copied.
    """

    header: Header
    signed: bytes
    signature: bytes
    ciphertext: memoryview

    @property
    def digest(self) -> str:
        """Name of the envelope: SHA-256 of all that stands before its ciphertext, in hex.

        The ciphertext's own hash is in there, so two envelopes of one name that open are the same bytes.
        """
        return hashlib.sha256(self.signed + self.signature).hexdigest()

    def open(self, *, expected: Context, roster: Mapping[int, VerifyKey], opening_key: OpeningKey) -> bytes:
        """Verify and decrypt; see `open_envelope`."""
        _check_context(self.header.context, expected=expected)
        if expected.node not in roster:
            raise EnvelopeRefused(
                f"node {expected.node} is not among the {len(roster)} on the roster", "unknown-signer"
            )
        if self.header.enclave != opening_key.sealing_key.digest:
            raise EnvelopeRefused(f"{_of(expected)} is sealed to enclave {self.header.enclave[:16]}", "wrong-enclave")
        _check_signature(self, key=roster[expected.node])
        try:
            return opening_key.open(self.ciphertext, info=expected.info())
        except SealError as error:
            message = f"{_of(expected)} is signed by its node but does not open"
            raise EnvelopeRefused(message, "does-not-open", attributable=True) from error


def read_envelope(data: bytes, *, max_size_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """Take an envelope apart, to route and count it. Nothing in it is verified yet.

    Args:
        data: Any bytes, from anyone.
        max_size_bytes: Longer ones are refused unread.

    Raises:
        EnvelopeRefused: "too-large", or "malformed" if it is not exactly one envelope in canonical form.
    """
    if len(data) > max_size_bytes:
        raise EnvelopeRefused(f"envelope has {len(data)} bytes, expected at most {max_size_bytes}", "too-large")
    if len(data) < _PREFIX_BYTES:
        raise _malformed(f"has {len(data)} bytes, expected at least {_PREFIX_BYTES}")
    if not data.startswith(_MAGIC):
        raise _malformed(f"begins with {data[: len(_MAGIC)]!r}, expected {_MAGIC!r}")
    (header_size,) = _HEADER_SIZE.unpack_from(data, len(_MAGIC))
    if header_size > MAX_HEADER_BYTES:
        raise _malformed(f"claims a header of {header_size} bytes, expected at most {MAX_HEADER_BYTES}")
    signature_at = _PREFIX_BYTES + header_size
    ciphertext_at = signature_at + SIGNATURE_SIZE_BYTES
    header_bytes = data[_PREFIX_BYTES:signature_at]
    header = _parse(header_bytes)
    size = ciphertext_at + SEAL_OVERHEAD_BYTES + header.payload_size_bytes
    if len(data) != size:
        raise _malformed(f"has {len(data)} bytes, expected {size} by its header")
    return Envelope(
        header=header,
        signed=_MAGIC + header_bytes,
        signature=data[signature_at:ciphertext_at],
        ciphertext=memoryview(data)[ciphertext_at:],
    )


def open_envelope(
    data: bytes,
    *,
    expected: Context,
    roster: Mapping[int, VerifyKey],
    opening_key: OpeningKey,
    max_size_bytes: int = MAX_ENVELOPE_BYTES,
) -> bytes:
    """Verify an envelope and decrypt it, in that order.

    Args:
        data: Any bytes, from anyone.
        expected: What the envelope must be for.
        roster: Public key of each registered node.
        opening_key: Private key of the enclave.
        max_size_bytes: Longer ones are refused unread.

    Returns:
        The payload.

    Raises:
        EnvelopeRefused: For the first `Reason` that applies, in the order in which `Reason` lists them.

    Guarantees:
        What is returned was signed by the key on the roster for `expected.node` and sealed for `expected`, and nothing
        is decrypted before that signature verified. A replay of the same envelope opens again: whoever opens must
        remember which (run, round, node) it has taken.
    """
    envelope = read_envelope(data, max_size_bytes=max_size_bytes)
    return envelope.open(expected=expected, roster=roster, opening_key=opening_key)


def _parse(header_bytes: bytes) -> Header:
    try:
        return Header.from_bytes(header_bytes)
    except SealError as error:
        raise _malformed(f"has a bad header: {error}") from error


def _check_context(claimed: Context, *, expected: Context) -> None:
    for name in ("run", "round", "node", "base_hash"):
        found, value = getattr(claimed, name), getattr(expected, name)
        if found != value:
            raise EnvelopeRefused(f"envelope is for {name} {found!r}, expected {value!r}", "wrong-context")


def _check_signature(envelope: Envelope, *, key: VerifyKey) -> None:
    whose = _of(envelope.header.context)
    try:
        key.verify(envelope.signed, signature=envelope.signature, context=_SIGNATURE_CONTEXT)
    except SealError as error:
        raise EnvelopeRefused(f"{whose} is not signed by that node's key {key.fingerprint}", "bad-signature") from error
    if hashlib.sha256(envelope.ciphertext).hexdigest() != envelope.header.ciphertext:
        raise EnvelopeRefused(f"{whose} has another ciphertext than its node signed", "bad-signature")


def _of(context: Context) -> str:
    return f"the envelope of node {context.node} for round {context.round}"


def _malformed(what: str) -> EnvelopeRefused:
    return EnvelopeRefused(f"envelope {what}", "malformed")
