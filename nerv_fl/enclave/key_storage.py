"""How an enclave's private keys lie on the disk between two starts: in the clear or sealed, a mock either way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nerv_fl.crypto import OpeningKey, Owner, SigningKey, machine_secret, seal_storage, unseal_storage
from nerv_fl.errors import SealError
from nerv_fl.io.atomic import write_atomically

_OPENING, _SIGNING, _SEALED = "opening.key", "signing.key", "identity.sealed"


@dataclass(frozen=True, kw_only=True)
class PrivateKeys:
    """What only the enclave may know."""

    opening: OpeningKey
    signing: SigningKey

    @classmethod
    def generate(cls) -> "PrivateKeys":
        """Return new ones."""
        return cls(opening=OpeningKey.generate(), signing=SigningKey.generate())


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """A way to keep private keys in a folder; `owner` is whose they are.

    Attributes:
        files: Names of the private files.
        save: Writes them atomically.
        load: Reads them again, or raises SealError.
    """

    files: tuple[str, ...]
    save: Callable[[PrivateKeys, Path, Owner], None]
    load: Callable[[Path, Owner], PrivateKeys]


def _save_open(keys: PrivateKeys, folder: Path, _: Owner) -> None:
    keys.opening.save_private(folder / _OPENING)
    keys.signing.save_private(folder / _SIGNING)


def _load_open(folder: Path, _: Owner) -> PrivateKeys:
    return PrivateKeys(
        opening=OpeningKey.load_private(folder / _OPENING), signing=SigningKey.load_private(folder / _SIGNING)
    )


def _save_sealed(keys: PrivateKeys, folder: Path, owner: Owner) -> None:
    sealed = seal_storage(keys.opening.raw + keys.signing.raw, machine=machine_secret(), owner=owner)
    write_atomically(folder / _SEALED, sealed, mode=0o600)


def _load_sealed(folder: Path, owner: Owner) -> PrivateKeys:
    path = folder / _SEALED
    try:
        raw = unseal_storage(path.read_bytes(), machine=machine_secret(), owner=owner)
    except FileNotFoundError as error:
        raise SealError(f"{path} is missing, expected the sealed keys of run {owner.run!r}") from error
    except SealError as error:
        raise SealError(f"{path}: {error}") from error
    size = OpeningKey.size_bytes
    return PrivateKeys(opening=OpeningKey(raw[:size]), signing=SigningKey(raw[size:]))


KEEPING: Final[Mapping[str, Keeping]] = {
    "here": Keeping(files=(_OPENING, _SIGNING), save=_save_open, load=_load_open),
    "process": Keeping(files=(_SEALED,), save=_save_sealed, load=_load_sealed),
}
"""By `enclave.place`: in the clear for any program of this user, or sealed for the enclave's code on its machine."""
