"""Sealing: updates that one enclave alone can read, evidence of that enclave, and documents it signs.

Read in this order: `keys`, `envelope` with its `payload` and its `codecs`, `evidence` and `storage` (MOCK hardware),
`signed`.
"""

from nerv_fl.crypto.associated_data import Context, Header
from nerv_fl.crypto.attestation import Evidence, check_evidence, code_hash, issue_evidence
from nerv_fl.crypto.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    largest_envelope_bytes,
    open_envelope,
    read_envelope,
    seal,
)
from nerv_fl.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from nerv_fl.crypto.rejection import EnvelopeRefused, Reason
from nerv_fl.crypto.sealed_storage import MachineSecret, Owner, machine_secret, seal_storage, unseal_storage
from nerv_fl.crypto.signed_document import sign_document, verify_document
from nerv_fl.crypto.update_codecs import CODECS
from nerv_fl.crypto.update_payload import decode_update, encode_update, rounding_spacing, update_size_bytes

__all__ = [
    "CODECS",
    "MAX_ENVELOPE_BYTES",
    "Context",
    "Envelope",
    "EnvelopeRefused",
    "Evidence",
    "Header",
    "MachineSecret",
    "OpeningKey",
    "Owner",
    "Reason",
    "SealingKey",
    "SigningKey",
    "VerifyKey",
    "check_evidence",
    "code_hash",
    "decode_update",
    "encode_update",
    "issue_evidence",
    "largest_envelope_bytes",
    "machine_secret",
    "open_envelope",
    "read_envelope",
    "rounding_spacing",
    "seal",
    "seal_storage",
    "sign_document",
    "unseal_storage",
    "update_size_bytes",
    "verify_document",
]
