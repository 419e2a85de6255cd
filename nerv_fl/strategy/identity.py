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
from nerv_fl.errors import CheckpointError, SealError
from nerv_fl.files import write_atomically
from nerv_fl.sealing import Evidence, OpeningKey, Owner, SigningKey, VerifyKey, code_hash, issue_evidence
from nerv_fl.strategy.keeping import KEEPING, PrivateKeys

_EVIDENCE, VENDOR_ROOT_FILE = "evidence.json", "vendor-root.pub"


@dataclass(frozen=True, kw_only=True)
class EnclaveIdentity:
    """The enclave's private keys and the evidence that the mock vendor root signed for them."""

    opening_key: OpeningKey
    signing_key: SigningKey
    evidence: Evidence
    vendor_root: VerifyKey

    @classmethod
    def create(cls, folder: Path, *, run: str, place: str = "here") -> Self:
        """Make keys for a new run, have a fresh mock vendor root vouch for them, and keep them in `folder`.

        The vendor root's private key is used once and forgotten; its public key is what nodes pin.

        Args:
            folder: Where they are kept.
            run: Name of the run.
            place: `enclave.place`, which says how they are kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        vendor, keys = SigningKey.generate(), PrivateKeys.generate()
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
        write_atomically(folder / _EVIDENCE, evidence.to_text().encode())
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
        evidence = Evidence.from_text((folder / _EVIDENCE).read_text(encoding="utf-8"))
        if evidence.code_hash != own_code_hash():
            raise CheckpointError(
                f"{folder / _EVIDENCE} is for code {evidence.code_hash[:12]}, expected {own_code_hash()[:12]}: "
                "this run began with another version of nerv_fl"
            )
        keys = KEEPING[place].load(folder, Owner(code_hash=own_code_hash(), run=run or evidence.run))
        found, named = keys.opening.sealing_key.fingerprint, evidence.sealing_key.fingerprint
        if found != named:
            raise SealError(f"{folder / _EVIDENCE} is for the key {named}, expected {found}, which lies beside it")
        return cls(
            opening_key=keys.opening,
            signing_key=keys.signing,
            evidence=evidence,
            vendor_root=read_vendor_root(folder / VENDOR_ROOT_FILE),
        )

    @classmethod
    def load_or_create(cls, folder: Path, *, run: str, place: str = "here") -> Self:
        """Return the run's identity, made at the first start; evidence is written last, so a torn start begins anew."""
        begun = (folder / _EVIDENCE).exists()
        return cls.load(folder, run=run, place=place) if begun else cls.create(folder, run=run, place=place)


def read_vendor_root(path: Path) -> VerifyKey:
    """Read the public key of a mock vendor root.

    Raises:
        SealError: If the file is not a public key.
        FileNotFoundError: If there is none.
    """
    return VerifyKey.from_text(path.read_text(encoding="utf-8"))


def pinned_root(certificate: Path) -> Path:
    """Return the path of the mock vendor root that lies in the same run folder as a certificate."""
    return certificate.resolve().parent.parent / "enclave" / VENDOR_ROOT_FILE


@cache
def own_code_hash() -> str:
    """Return the hash of the code that runs in this enclave: every Python file of the package."""
    return code_hash([Path(nerv_fl.__file__).parent])
