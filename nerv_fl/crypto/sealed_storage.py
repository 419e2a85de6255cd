"""MOCK sealed storage: a file that one enclave's code can read again, in one run, on one machine.

    offset  size  field
    0       8     magic "NERVSTO" and the version, 1
    8       4     size of the label L, unsigned, big-endian, at most 1,024
    12      L     label: canonical JSON with code_hash and run
    12+L    12    nonce
    ...           AES-256-GCM ciphertext and tag; magic, size and label are its associated data

The key is HKDF-SHA256 of the machine's secret, with code hash and run as `info`: a changed label gives another key.

In a real TEE the processor keeps that secret and derives the key itself, from its own measurement of the code. Here the
secret is a file of the machine's, and the code says what its hash is. So the file keeps the keys from whoever gets
hold of the run folder alone, and from nobody who can read the machine.

Sources: RFC 5869 (HKDF); NIST SP 800-38D (GCM); the sealing keys of Intel SGX and AMD SEV-SNP are derived likewise.
"""

import os
import secrets
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from nerv_fl.crypto.canonical_json import read_json, text_at, to_json
from nerv_fl.crypto.hybrid_keys import PrivateKey
from nerv_fl.errors import SealError, SetupError

MACHINE_VARIABLE: Final = "NERV_FL_MACHINE"
"""Environment variable: where the machine's secret lies, if not in `MACHINE_DEFAULT`."""

MACHINE_DEFAULT: Final = "~/.nerv_fl/machine.secret"

_MAGIC: Final = b"NERVSTO\x01"
_LABEL_SIZE: Final = struct.Struct(">I")
_PREFIX_BYTES: Final = len(_MAGIC) + _LABEL_SIZE.size
_MAX_LABEL_BYTES: Final = 1024
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"nerv_fl sealed storage v1"
_WHAT: Final = "sealed storage"


class MachineSecret(PrivateKey):
    """What stands in for the secret that a vendor fuses into a processor: 32 bytes in a file of the machine's."""

    kind = "mock machine secret"
    size_bytes = 32


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who may read what was sealed.

    Attributes:
        code_hash: SHA-256 of the enclave's code, hexadecimal.
        run: Name of the run.
    """

    code_hash: str
    run: str


def machine_secret_path() -> Path:
    """Return the file of this machine's secret: that of `NERV_FL_MACHINE`, or `~/.nerv_fl/machine.secret`.

    Raises:
        SetupError: If the variable is not set and the user has no home folder.
    """
    try:
        return Path(os.environ.get(MACHINE_VARIABLE) or MACHINE_DEFAULT).expanduser()
    except RuntimeError as error:
        raise SetupError(
            f"user {os.getuid()} has no home folder, expected the variable HOME, or {MACHINE_VARIABLE} with a file for "
            "the machine's secret, which enclave.place = 'process' needs"
        ) from error


def machine_secret(path: Path | None = None) -> MachineSecret:
    """Return this machine's secret, made when it is first asked for.

    Args:
        path: Its file; that of `NERV_FL_MACHINE`, or `~/.nerv_fl/machine.secret`, if None.

    Raises:
        SealError: If the file holds no such secret.
        SetupError: If no file is given, by argument or variable, and the user has no home folder.

    Guarantees:
        Processes that ask at once get the same one.
    """
    path = path or machine_secret_path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        MachineSecret.generate().save_private(staged)
        with suppress(FileExistsError):
            os.link(staged, path)
        staged.unlink()
    return MachineSecret.load_private(path)


def seal_storage(plaintext: bytes, *, machine: MachineSecret, owner: Owner) -> bytes:
    """Encrypt what an enclave keeps through a restart.

    Args:
        plaintext: Any bytes.
        machine: The machine's secret.
        owner: Who may read it again.
    """
    label = to_json(asdict(owner), what=_WHAT).encode()
    if len(label) > _MAX_LABEL_BYTES:
        raise SealError(f"label of {_WHAT} has {len(label)} bytes, expected at most {_MAX_LABEL_BYTES}")
    prefix = _MAGIC + _LABEL_SIZE.pack(len(label)) + label
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return prefix + nonce + _cipher(machine, owner).encrypt(nonce, plaintext, prefix)


def unseal_storage(data: bytes, *, machine: MachineSecret, owner: Owner) -> bytes:
    """Decrypt what `seal_storage` made.

    Args:
        data: As it lay on the disk, where anyone may have changed it.
        machine: This machine's secret.
        owner: Who asks.

    Raises:
        SealError: If it was sealed for other code, another run or another machine, or was altered.
    """
    sealed_for, body = _read(data)
    for name, found in asdict(sealed_for).items():
        if found != getattr(owner, name):
            raise SealError(f"{_WHAT} is for the {name} {found!r}, expected {getattr(owner, name)!r}")
    prefix, nonce, ciphertext = data[:body], data[body : body + _NONCE_BYTES], data[body + _NONCE_BYTES :]
    try:
        return _cipher(machine, owner).decrypt(nonce, ciphertext, prefix)
    except InvalidTag:
        raise SealError(
            f"{_WHAT} does not open on this machine, expected the one on which run {owner.run!r} began, "
            "and an unaltered file"
        ) from None


def _read(data: bytes) -> tuple[Owner, int]:
    """Return the label, and where the nonce begins."""
    if len(data) < _PREFIX_BYTES or not data.startswith(_MAGIC):
        raise SealError(f"{_WHAT} begins with {data[: len(_MAGIC)]!r}, expected {_MAGIC!r}")
    (size,) = _LABEL_SIZE.unpack_from(data, len(_MAGIC))
    body = _PREFIX_BYTES + size
    if size > _MAX_LABEL_BYTES or len(data) < body + _NONCE_BYTES:
        raise SealError(
            f"{_WHAT} has {len(data)} bytes and a label of {size}, expected a longer file or a shorter label"
        )
    fields = read_json(data[_PREFIX_BYTES:body], what=_WHAT, keys=frozenset({"code_hash", "run"}))
    return Owner(code_hash=text_at(fields, "code_hash", what=_WHAT), run=text_at(fields, "run", what=_WHAT)), body


def _cipher(machine: MachineSecret, owner: Owner) -> AESGCM:
    info = _PURPOSE + to_json(asdict(owner), what=_WHAT).encode()
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(machine.raw))
