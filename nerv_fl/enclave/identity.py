"""The enclave's keys and evidence, kept through a restart.

A real TEE would seal these keys to its hardware. Here they lie in a folder, in the clear or sealed with a secret that
is itself a file (`keeping`): that is the mock.
"""

import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import nerv_fl
from nerv_fl.crypto import (
    Evidence,
    OpeningKey,
    Owner,
    SigningKey,
    VerifyKey,
    check_evidence,
    code_hash,
    issue_evidence,
)
from nerv_fl.enclave.key_storage import KEEPING, PrivateKeys
from nerv_fl.errors import CheckpointError, SealError
from nerv_fl.io.atomic import write_atomically

EVIDENCE_FILE, VENDOR_ROOT_FILE, VENDOR_KEY_FILE = "evidence.json", "vendor-root.pub", "vendor.key"


@dataclass(frozen=True, kw_only=True)
class EnclaveIdentity:
    """The enclave's private keys and the evidence that the mock vendor root signed for them."""

    opening_key: OpeningKey
    signing_key: SigningKey
    evidence: Evidence
    vendor_root: VerifyKey

    @classmethod
    def create(cls, folder: Path, *, run: str, place: str = "here") -> Self:
        """Make keys for a new run, have the mock vendor root vouch for them, and keep them in `folder`.

        The vendor root is the one of `leave_vendor_key`, or else a fresh one. Its private key is used once and
        removed; its public key is what nodes pin.

        Args:
            folder: Where they are kept.
            run: Name of the run.
            place: `enclave.place`, which says how they are kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        vendor, keys = _vendor(folder), PrivateKeys.generate()
        evidence = issue_evidence(
            vendor,
            sealing_key=keys.opening.sealing_key,
            verify_key=keys.signing.verify_key,
            code_hash=own_code_hash(),
            run=run,
            nonce=secrets.token_hex(16),
        )
        KEEPING[place].save(keys, folder, Owner(code_hash=own_code_hash(), run=run))
        write_atomically(folder / VENDOR_ROOT_FILE, vendor.verify_key.to_text().encode())
        write_atomically(folder / EVIDENCE_FILE, evidence.to_text().encode())
        (folder / VENDOR_KEY_FILE).unlink(missing_ok=True)
        return cls(opening_key=keys.opening, signing_key=keys.signing, evidence=evidence, vendor_root=vendor.verify_key)

    @classmethod
    def load(cls, folder: Path, *, run: str | None = None, place: str = "here") -> Self:
        """Read the keys of a run that is resumed.

        Args:
            folder: Where they are kept.
            run: Run that they must be of; that of the evidence if None.
            place: `enclave.place`, as they were made with.

        Raises:
            SealError: If a file is missing, malformed, or sealed for another run, code or machine.
            CheckpointError: If the code has changed since: its evidence would speak for other code.
        """
        evidence, root_path = read_evidence(folder), folder / VENDOR_ROOT_FILE
        if not root_path.exists():
            raise SealError(f"{root_path} is missing, expected the public key of the vendor root")
        vendor_root = read_vendor_root(root_path)
        keys = KEEPING[place].load(folder, Owner(code_hash=own_code_hash(), run=run or evidence.run))
        found, named = keys.opening.sealing_key.fingerprint, evidence.sealing_key.fingerprint
        if found != named:
            raise SealError(f"{folder / EVIDENCE_FILE} is for the key {named}, expected {found}, which lies beside it")
        found, named = keys.signing.verify_key.fingerprint, evidence.verify_key.fingerprint
        if found != named:
            path = folder / KEEPING[place].files[-1]
            raise SealError(f"{path} holds the signing key {found}, expected {named}, which {EVIDENCE_FILE} names")
        try:
            check_evidence(evidence.to_text(), vendor_root=vendor_root, run=None)
        except SealError as error:
            raise SealError(f"{folder / EVIDENCE_FILE} or {root_path} was changed: {error}") from error
        return cls(opening_key=keys.opening, signing_key=keys.signing, evidence=evidence, vendor_root=vendor_root)

    @classmethod
    def load_or_create(cls, folder: Path, *, run: str, place: str = "here") -> Self:
        """Return the run's identity, made at the first start; evidence is written last, so a torn start begins anew."""
        if not (folder / EVIDENCE_FILE).exists():
            return cls.create(folder, run=run, place=place)
        (folder / VENDOR_KEY_FILE).unlink(missing_ok=True)
        return cls.load(folder, run=run, place=place)


def read_evidence(folder: Path) -> Evidence:
    """Read an enclave's evidence, without its keys.

    Raises:
        SealError: If it is malformed.
        CheckpointError: If the code has changed since: it would speak for other code.
        FileNotFoundError: If there is none.
    """
    path = folder / EVIDENCE_FILE
    try:
        evidence = Evidence.from_text(path.read_text(encoding="utf-8"))
    except (SealError, UnicodeError) as error:
        raise SealError(f"{path} cannot be read ({error}), expected the evidence of the enclave's keys") from error
    if evidence.code_hash != own_code_hash():
        raise CheckpointError(
            f"{path} is for code {evidence.code_hash[:12]}, expected {own_code_hash()[:12]}: "
            "this run began with another version of nerv_fl"
        )
    return evidence


def leave_vendor_key(folder: Path) -> None:
    """Make a mock vendor root for an enclave that is born later, on another machine, and vouched for there, once.

    A real vendor's key is in the processor. Until this one is used, whoever reads it can vouch for any enclave.
    """
    vendor = SigningKey.generate()
    vendor.save_private(folder / VENDOR_KEY_FILE)
    write_atomically(folder / VENDOR_ROOT_FILE, vendor.verify_key.to_text().encode())


def _vendor(folder: Path) -> SigningKey:
    path = folder / VENDOR_KEY_FILE
    return SigningKey.load_private(path) if path.exists() else SigningKey.generate()


def read_vendor_root(path: Path) -> VerifyKey:
    """Read the public key of a mock vendor root.

    Raises:
        SealError: If the file is not a public key.
        FileNotFoundError: If there is none.
    """
    try:
        return VerifyKey.from_text(path.read_text(encoding="utf-8"))
    except (SealError, UnicodeError) as error:
        raise SealError(f"{path} cannot be read ({error}), expected the public key of the vendor root") from error


def pinned_root(certificate: Path) -> Path:
    """Return the path of the mock vendor root that lies in the same run folder as a certificate."""
    return certificate.resolve().parent.parent / "enclave" / VENDOR_ROOT_FILE


@cache
def own_code_hash() -> str:
    """Return the hash of the code that runs in this enclave: every Python file of the package."""
    return code_hash([Path(nerv_fl.__file__).parent])
