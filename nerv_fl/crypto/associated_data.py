"""The header of an envelope, and the context that it binds an update to."""

from dataclasses import dataclass
from typing import Self

from nerv_fl.crypto.canonical_json import count_at, read_json, text_at, to_json
from nerv_fl.errors import ConfigError, SealError

MAX_HEADER_BYTES = 2048
"""More than any header needs, whose two names have at most 128 characters each."""

LARGEST_NUMBER = 2**64
"""Rounds and nodes are below it."""

_MAX_NAME_CHARACTERS = 128
_KEYS = frozenset({"base_hash", "ciphertext", "enclave", "node", "payload_size_bytes", "round", "run"})
_INFO_DOMAIN = "nerv_fl update v1"
_WHAT = "header"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an update is for. An envelope opens in its own context only.

    Attributes:
        run: Name of the run: 1 to 128 printable ASCII characters.
        round: Round, from 0, under 2^64.
        node: Node, from 0, under 2^64 (Flower's node ids have 64 bits).
        base_hash: Hash of the encoder that the update starts from, in text as `run`.

    Raises:
        ConfigError: If a field is out of range.
    """

    run: str
    round: int
    node: int
    base_hash: str

    def __post_init__(self) -> None:
        for name, text in (("run", self.run), ("base_hash", self.base_hash)):
            if not (text.isascii() and text.isprintable() and 0 < len(text) <= _MAX_NAME_CHARACTERS):
                raise ConfigError(f"{name} is {text!r:.140}, expected 1 to {_MAX_NAME_CHARACTERS} printable characters")
        for name, number in (("round", self.round), ("node", self.node)):
            if not 0 <= number < LARGEST_NUMBER:
                raise ConfigError(f"{name} is {number}, expected an integer in [0, 2^64)")

    def to_fields(self) -> dict[str, object]:
        """Return the context as a JSON object."""
        return {"run": self.run, "round": self.round, "node": self.node, "base_hash": self.base_hash}

    def info(self) -> bytes:
        """Return the context as canonical bytes, for HPKE's `info` (RFC 9180, section 5.1)."""
        return to_json({"domain": _INFO_DOMAIN, **self.to_fields()}, what="context").encode()


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an envelope says of itself; true only once its signature is verified.

    Attributes:
        context: What the update is for.
        enclave: SHA-256 of the sealing key, hexadecimal.
        ciphertext: SHA-256 of the ciphertext, hexadecimal.
        payload_size_bytes: Size of the payload.
    """

    context: Context
    enclave: str
    ciphertext: str
    payload_size_bytes: int

    def to_bytes(self) -> bytes:
        """Return the header as it stands in the envelope."""
        own = {"enclave": self.enclave, "ciphertext": self.ciphertext, "payload_size_bytes": self.payload_size_bytes}
        return to_json({**self.context.to_fields(), **own}, what=_WHAT).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            SealError: If it is anything else.
        """
        fields = read_json(data, what=_WHAT, keys=_KEYS)
        try:
            context = Context(
                run=text_at(fields, "run", what=_WHAT),
                round=count_at(fields, "round", what=_WHAT),
                node=count_at(fields, "node", what=_WHAT),
                base_hash=text_at(fields, "base_hash", what=_WHAT),
            )
        except ConfigError as error:
            raise SealError(f"{_WHAT}: {error}") from error
        return cls(
            context=context,
            enclave=text_at(fields, "enclave", what=_WHAT),
            ciphertext=text_at(fields, "ciphertext", what=_WHAT),
            payload_size_bytes=count_at(fields, "payload_size_bytes", what=_WHAT),
        )
