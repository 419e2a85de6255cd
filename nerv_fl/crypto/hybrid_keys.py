"""What all keys share: a fixed number of raw bytes, and a form in which to keep or send them."""

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from nerv_fl.crypto.canonical_json import from_base64, to_base64
from nerv_fl.errors import SealError
from nerv_fl.io.atomic import write_atomically


@dataclass(frozen=True, repr=False)
class PublicKey:
    """A public key as its raw bytes; compared, hashed and pickled by them."""

    raw: bytes
    kind: ClassVar[str]
    size_bytes: ClassVar[int]

    def __post_init__(self) -> None:
        _check_size(self.kind, self.raw, size_bytes=self.size_bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fingerprint})"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the key from canonical base64.

        Raises:
            SealError: If the text is not base64 or not such a key.
        """
        return cls(from_base64(text, what=cls.kind))

    def to_text(self) -> str:
        """Return the key as canonical base64."""
        return to_base64(self.raw)

    @property
    def digest(self) -> str:
        """SHA-256 of the raw key: 64 hexadecimal digits."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def fingerprint(self) -> str:
        """First 16 digits of the digest, for people and logs; decisions use the whole key."""
        return self.digest[:16]


@dataclass(frozen=True)
class PrivateKey:
    """A private key as its raw bytes, which its repr does not show."""

    raw: bytes = field(repr=False)
    kind: ClassVar[str]
    size_bytes: ClassVar[int]

    def __post_init__(self) -> None:
        _check_size(self.kind, self.raw, size_bytes=self.size_bytes)

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        """Pickle the raw bytes; what is derived from them cannot be, and is derived again."""
        return type(self), (self.raw,)

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's randomness."""
        return cls(secrets.token_bytes(cls.size_bytes))

    def save_private(self, path: Path) -> None:
        """Write the key atomically to a file that its owner alone may read (mode 0600); it is not encrypted.

        Raises:
            OSError: If the file cannot be written.
        """
        write_atomically(path, f"nerv_fl {self.kind}\n{to_base64(self.raw)}\n".encode(), mode=0o600)

    @classmethod
    def load_private(cls, path: Path) -> Self:
        """Read a key that `save_private` wrote.

        Raises:
            SealError: If the file is missing, unreadable, or holds no such key; the message never shows its content.
        """
        try:
            title, _, encoded = path.read_text("ascii").partition("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"{path} cannot be read as {cls.kind}: {type(error).__name__}") from error
        if title != f"nerv_fl {cls.kind}":
            raise SealError(f"{path} does not begin with 'nerv_fl {cls.kind}'")
        try:
            return cls(from_base64(encoded.removesuffix("\n"), what=cls.kind))
        except SealError:
            raise SealError(f"{path} holds a damaged {cls.kind}") from None


def _check_size(kind: str, raw: bytes, *, size_bytes: int) -> None:
    if len(raw) != size_bytes:
        raise SealError(f"{kind} has {len(raw)} bytes, expected {size_bytes}")
