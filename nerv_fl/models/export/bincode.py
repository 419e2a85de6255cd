"""The protocol's own file of an encoder: `NeuralEncoder` in bincode, int8.

Little-endian, fixed-width integers, u64 lengths, no padding, no magic number, in this order:

    config           u64 x 6 (width, layers, heads, feed-forward width, tokens, vocabulary), u8 use_candle,
                     u8 0, or 1 and a path (u64 length, UTF-8)
    token embedding  QT: u64 n, n x i8, f32 scale (a reciprocal step), u8 bits = 8
    positions        u64 rows, each u64 width and f32 x width
    layers           u64 count, each: QT qkv [3D, D], QT out [D, D], u64 heads, u64 head width, u64 D; norm;
                     QT intermediate [F, D], QT output [D, F], u64 D, u64 F; norm
    final norm       norm: u64 n, f32 x n; u64 n, f32 x n; f32 eps; u64 D
    epoch            u64
    weight_hash      32 bytes: BLAKE3(token i8, each layer's qkv, out, norm, intermediate, output, norm, final norm)

The layout was derived by reading NERV's `encoder.rs`. It was never checked against a file that a Rust build wrote, and
no Rust build has read a file written here.

Shapes: D width, F feed-forward width, T tokens, N values of a vector.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from nerv_fl.models.encoder import Encoder
from nerv_fl.models.quantize_encoder import QuantizedEncoder, QuantizedTensor, quantize_encoder
from nerv_fl.validation import in_range

UNVERIFIED: Final = "derived by reading the protocol's encoder.rs; never checked against a real Rust build"
BITS: Final = 8
HASH_BYTES: Final = 32
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class RustNorm:
    """A layer norm: float32 (N) weight and bias, eps."""

    weight: Floats
    bias: Floats
    eps: np.float32


@dataclass(frozen=True, kw_only=True, eq=False)
class RustLayer:
    """One layer: matrices in int8, row-major [out, in]; rows of `qkv` are those of Q, K and V."""

    qkv: QuantizedTensor
    out: QuantizedTensor
    attention_norm: RustNorm
    feed_in: QuantizedTensor
    feed_out: QuantizedTensor
    feed_norm: RustNorm


@dataclass(frozen=True, kw_only=True, eq=False)
class RustEncoder:
    """What the protocol's file holds.

    Attributes:
        num_heads: Heads of each layer.
        feed_forward_width: F.
        token_embedding: int8 (vocabulary, D).
        positions_TD: float32.
        layers: Layers, the first first.
        final_norm: Norm of each token, before their mean.
        epoch: Committed rounds before this encoder.
        use_candle: A flag of the protocol's config.
        model_path: A path of the protocol's config, or None.
    """

    num_heads: int
    feed_forward_width: int
    token_embedding: QuantizedTensor
    positions_TD: Floats
    layers: tuple[RustLayer, ...]
    final_norm: RustNorm
    epoch: int
    use_candle: bool = False
    model_path: str | None = None

    @property
    def weight_hash(self) -> bytes:
        """BLAKE3 of matrices and norms, 32 bytes.

        Scales, positions, config and epoch are not in it, so two different encoders can share one.
        """
        digest = blake3(self.token_embedding.values.tobytes())
        for layer in self.layers:
            for part in (layer.qkv, layer.out, layer.attention_norm, layer.feed_in, layer.feed_out, layer.feed_norm):
                digest.update(_hashed(part))
        return bytes(digest.update(_hashed(self.final_norm)).digest())


def rust_tensors(rust: RustEncoder) -> dict[str, dict[str, object]]:
    """Return dtype and shape of every tensor of the file, by its name in the protocol's types, in the file's order."""
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "token_embedding": rust.token_embedding.values,
        "positional_embedding": rust.positions_TD,
    }
    for number, layer in enumerate(rust.layers):
        prefix = f"layers[{number}]"
        tensors |= {f"{prefix}.attention.qkv_proj": layer.qkv.values, f"{prefix}.attention.out_proj": layer.out.values}
        tensors |= _norm_tensors(f"{prefix}.attn_norm", layer.attention_norm)
        tensors |= {f"{prefix}.ff.intermediate": layer.feed_in.values, f"{prefix}.ff.output": layer.feed_out.values}
        tensors |= _norm_tensors(f"{prefix}.ff_norm", layer.feed_norm)
    tensors |= _norm_tensors("final_norm", rust.final_norm)
    return {name: {"dtype": str(values.dtype), "shape": list(values.shape)} for name, values in tensors.items()}


def rust_encoder(encoder: Encoder, *, epoch: int = 0) -> RustEncoder:
    """Return what the protocol's file can hold of an encoder; `not_held` names the rest.

    Args:
        encoder: In float32.
        epoch: Committed rounds before it, 0 to 2^64 - 1.

    Raises:
        ConfigError: If the epoch does not fit.
        DataError: If a weight is not finite.
    """
    in_range("epoch", epoch, low=0, high=2**64 - 1)
    quantised = quantize_encoder(encoder)
    matrices, others = quantised.matrices, quantised.others
    return RustEncoder(
        num_heads=encoder.preset.num_heads,
        feed_forward_width=encoder.preset.feed_forward_width,
        token_embedding=matrices["embedding.weight"],
        positions_TD=others["positions.weight"],
        layers=tuple(_layer(quantised, f"blocks.{number}.") for number in range(encoder.preset.num_layers)),
        final_norm=_norm(quantised, "norm"),
        epoch=epoch,
    )


def not_held(encoder: Encoder) -> tuple[str, ...]:
    """Return the names of an encoder's parameters that the protocol's file has no place for."""
    norms = ("norm.bias", "attention_norm.bias", "feed_norm.bias")
    return tuple(
        name
        for name, _ in encoder.named_parameters()
        if name.startswith(("out.", "balance_head.")) or (name.endswith(".bias") and not name.endswith(norms))
    )


def to_bytes(rust: RustEncoder) -> bytes:
    """Return the file of an encoder."""
    tokens, width = rust.positions_TD.shape
    vocabulary = rust.token_embedding.values.shape[0]
    sizes = (width, len(rust.layers), rust.num_heads, rust.feed_forward_width, tokens, vocabulary)
    path = b"\x00"
    if rust.model_path is not None:
        text = rust.model_path.encode()
        path = b"\x01" + _u64(len(text)) + text
    parts = [_u64(*sizes), bytes([rust.use_candle]), path, _tensor(rust.token_embedding), _u64(tokens)]
    parts += [_u64(width) + _f32(row_D) for row_D in rust.positions_TD]
    parts.append(_u64(len(rust.layers)))
    for layer in rust.layers:
        parts += [_tensor(layer.qkv), _tensor(layer.out), _u64(rust.num_heads, width // rust.num_heads, width)]
        parts += [_norm_bytes(layer.attention_norm), _tensor(layer.feed_in), _tensor(layer.feed_out)]
        parts += [_u64(width, rust.feed_forward_width), _norm_bytes(layer.feed_norm)]
    return b"".join([*parts, _norm_bytes(rust.final_norm), _u64(rust.epoch), rust.weight_hash])


def _layer(quantised: QuantizedEncoder, prefix: str) -> RustLayer:
    return RustLayer(
        qkv=quantised.matrices[f"{prefix}attention.qkv.weight"],
        out=quantised.matrices[f"{prefix}attention.out.weight"],
        attention_norm=_norm(quantised, f"{prefix}attention_norm"),
        feed_in=quantised.matrices[f"{prefix}feed_in.weight"],
        feed_out=quantised.matrices[f"{prefix}feed_out.weight"],
        feed_norm=_norm(quantised, f"{prefix}feed_norm"),
    )


def _norm(quantised: QuantizedEncoder, name: str) -> RustNorm:
    others = quantised.others
    return RustNorm(weight=others[f"{name}.weight"], bias=others[f"{name}.bias"], eps=np.float32(1e-5))


def _norm_tensors(name: str, norm: RustNorm) -> dict[str, Floats]:
    return {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}


def _hashed(part: QuantizedTensor | RustNorm) -> bytes:
    if isinstance(part, RustNorm):
        return _f32(part.weight) + _f32(part.bias)
    return part.values.tobytes()


def _tensor(tensor: QuantizedTensor) -> bytes:
    return _u64(tensor.values.size) + tensor.values.tobytes() + struct.pack("<fB", tensor.scale, BITS)


def _norm_bytes(norm: RustNorm) -> bytes:
    vectors = b"".join(_u64(len(vector_D)) + _f32(vector_D) for vector_D in (norm.weight, norm.bias))
    return vectors + struct.pack("<f", norm.eps) + _u64(len(norm.weight))


def _f32(values: Floats) -> bytes:
    return values.astype("<f4").tobytes()


def _u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)
