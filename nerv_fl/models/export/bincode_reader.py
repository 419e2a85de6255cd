"""Reads the protocol's file of an encoder, and refuses every other file by the first byte that is wrong.

No length is believed before it is compared with what the config says and with what is left of the file, so a hostile
file takes no more than a few times its own size of memory. The layout stands in `nerv_fl.models.export.bincode`.

Shapes: D width, F feed-forward width, T tokens, N values of a vector.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nerv_fl.errors import DataError
from nerv_fl.models.export.bincode import BITS, HASH_BYTES, Floats, RustEncoder, RustLayer, RustNorm
from nerv_fl.models.quantize_encoder import QuantizedTensor

MAX_SIZE: Final = 2**20
"""Largest of any size in the config: foreign files begin with larger numbers."""
MAX_LAYERS: Final = 1024


class _Sizes(NamedTuple):
    embedding_dim: int
    num_layers: int
    num_heads: int
    ff_intermediate: int
    max_seq_len: int
    vocab_size: int


def read_rust_encoder(path: Path) -> RustEncoder:
    """Read an encoder in the protocol's layout.

    Raises:
        DataError: If the file is missing, truncated or foreign, naming offset, value and what was expected.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist, expected an encoder in the bincode layout") from error
    return parse_rust_encoder(data, source=str(path))


def parse_rust_encoder(data: bytes, *, source: str) -> RustEncoder:
    """Return the encoder of a file's bytes; see `read_rust_encoder`."""
    cursor = _Cursor(data, source=source)
    sizes = _sizes(cursor)
    width = sizes.embedding_dim
    flag = cursor.u8("config.use_candle", choices=(0, 1))
    model_path = _model_path(cursor)
    embedding = _tensor(cursor, "token_embedding", shape=(sizes.vocab_size, width))
    positions_TD = _positions(cursor, sizes.max_seq_len, width=width)
    cursor.expect("layers", sizes.num_layers)
    layers = tuple(_layer(cursor, f"layers[{number}]", sizes=sizes) for number in range(sizes.num_layers))
    rust = RustEncoder(
        num_heads=sizes.num_heads,
        feed_forward_width=sizes.ff_intermediate,
        token_embedding=embedding,
        positions_TD=positions_TD,
        layers=layers,
        final_norm=_norm(cursor, "final_norm", width=width),
        epoch=cursor.u64("epoch"),
        use_candle=bool(flag),
        model_path=model_path,
    )
    _check_end(cursor, rust)
    return rust


@dataclass
class _Cursor:
    """A place in a file's bytes."""

    data: bytes
    source: str
    at: int = 0

    def refuse(self, at: int, reason: str) -> DataError:
        """Return the error of what stands at an offset."""
        return DataError(f"{self.source}, offset {at:,}: {reason}")

    def take(self, size: int, name: str) -> bytes:
        """Return the next bytes."""
        left = len(self.data) - self.at
        if size > left:
            raise self.refuse(self.at, f"the file ends after {left:,} bytes of {name}, expected {size:,}")
        self.at += size
        return self.data[self.at - size : self.at]

    def u64(self, name: str) -> int:
        """Return the next u64."""
        return int.from_bytes(self.take(8, name), "little")

    def expect(self, name: str, expected: int) -> None:
        """Read a u64 that must be this one."""
        found = self.u64(name)
        if found != expected:
            raise self.refuse(self.at - 8, f"{name} is {found:,}, expected {expected:,}")

    def u8(self, name: str, *, choices: tuple[int, ...]) -> int:
        """Return the next byte."""
        (found,) = self.take(1, name)
        if found not in choices:
            words = " or ".join(map(str, choices))
            raise self.refuse(self.at - 1, f"{name} is {found}, expected {words}")
        return found

    def floats(self, count: int, name: str) -> Floats:
        """Return the next float32 numbers, all finite."""
        values_N: Floats = np.frombuffer(self.take(4 * count, name), dtype="<f4").astype(np.float32)
        finite_N: npt.NDArray[np.bool_] = np.isfinite(values_N)
        if not finite_N.all():
            bad = int(np.argmin(finite_N))
            at = self.at - 4 * (count - bad)
            raise self.refuse(at, f"{name} holds {values_N[bad]}, expected a finite number")
        return values_N

    def positive(self, name: str) -> np.float32:
        """Return the next float32, greater than 0."""
        value = np.float32(self.floats(1, name)[0])
        if value <= 0:
            raise self.refuse(self.at - 4, f"{name} is {value}, expected a number above 0")
        return value


def _sizes(cursor: _Cursor) -> _Sizes:
    values = []
    for name in _Sizes._fields:
        value = cursor.u64(f"config.{name}")
        largest = MAX_LAYERS if name == "num_layers" else MAX_SIZE
        if not 1 <= value <= largest:
            raise cursor.refuse(cursor.at - 8, f"config.{name} is {value:,}, expected 1 to {largest:,}")
        values.append(value)
    sizes = _Sizes(*values)
    if sizes.embedding_dim % sizes.num_heads:
        raise cursor.refuse(16, f"config.num_heads is {sizes.num_heads}, expected a divisor of {sizes.embedding_dim}")
    return sizes


def _model_path(cursor: _Cursor) -> str | None:
    if not cursor.u8("config.model_path", choices=(0, 1)):
        return None
    length = cursor.u64("config.model_path length")
    text = cursor.take(length, "config.model_path")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise cursor.refuse(cursor.at - length, f"config.model_path is {text[:16]!r}, expected UTF-8") from error


def _tensor(cursor: _Cursor, name: str, *, shape: tuple[int, int]) -> QuantizedTensor:
    rows, columns = shape
    cursor.expect(f"{name} length", rows * columns)
    values = np.frombuffer(cursor.take(rows * columns, f"{name} values"), dtype=np.int8).reshape(shape)
    scale = cursor.positive(f"{name} scale")
    cursor.u8(f"{name} bits", choices=(BITS,))
    return QuantizedTensor(values=values, scale=scale)


def _vector(cursor: _Cursor, name: str, *, length: int) -> Floats:
    cursor.expect(f"{name} length", length)
    return cursor.floats(length, name)


def _positions(cursor: _Cursor, rows: int, *, width: int) -> Floats:
    """Return the positions, float32 (T, D); nothing is kept of a file that is too short for them."""
    cursor.expect("positional_embedding rows", rows)
    enough = rows * (8 + 4 * width) <= len(cursor.data) - cursor.at
    positions_TD = np.empty((rows if enough else 0, width), dtype=np.float32)
    for row in range(rows):
        vector_D = _vector(cursor, f"positional_embedding[{row}]", length=width)
        if enough:
            positions_TD[row] = vector_D
    return positions_TD


def _norm(cursor: _Cursor, name: str, *, width: int) -> RustNorm:
    weight_D = _vector(cursor, f"{name}.weight", length=width)
    bias_D = _vector(cursor, f"{name}.bias", length=width)
    eps = cursor.positive(f"{name}.eps")
    cursor.expect(f"{name}.dim", width)
    return RustNorm(weight=weight_D, bias=bias_D, eps=eps)


def _layer(cursor: _Cursor, name: str, *, sizes: _Sizes) -> RustLayer:
    width, wide = sizes.embedding_dim, sizes.ff_intermediate
    qkv = _tensor(cursor, f"{name}.attention.qkv_proj", shape=(3 * width, width))
    out = _tensor(cursor, f"{name}.attention.out_proj", shape=(width, width))
    cursor.expect(f"{name}.attention.num_heads", sizes.num_heads)
    cursor.expect(f"{name}.attention.head_dim", width // sizes.num_heads)
    cursor.expect(f"{name}.attention.dim", width)
    attention_norm = _norm(cursor, f"{name}.attn_norm", width=width)
    feed_in = _tensor(cursor, f"{name}.ff.intermediate", shape=(wide, width))
    feed_out = _tensor(cursor, f"{name}.ff.output", shape=(width, wide))
    cursor.expect(f"{name}.ff.dim", width)
    cursor.expect(f"{name}.ff.intermediate_dim", wide)
    return RustLayer(
        qkv=qkv,
        out=out,
        attention_norm=attention_norm,
        feed_in=feed_in,
        feed_out=feed_out,
        feed_norm=_norm(cursor, f"{name}.ff_norm", width=width),
    )


def _check_end(cursor: _Cursor, rust: RustEncoder) -> None:
    at, found = cursor.at, cursor.take(HASH_BYTES, "weight_hash")
    if found != rust.weight_hash:
        raise cursor.refuse(at, f"weight_hash is {found.hex()}, expected {rust.weight_hash.hex()}")
    left = len(cursor.data) - cursor.at
    if left:
        raise cursor.refuse(cursor.at, f"{left:,} bytes follow weight_hash, expected the end of the file")
