"""The protocol's layout against one written by hand, byte by byte, and its sizes against the protocol's own."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from blake3 import blake3

from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.bincode import RustEncoder, RustLayer, RustNorm, not_held, rust_encoder, to_bytes
from nerv_fl.models.quantize_encoder import QuantizedTensor


def u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def by_hand(encoder: Encoder, *, epoch: int) -> bytes:
    """Write the file of a 1-layer encoder one value at a time, by the layout's own list."""
    weights = {name: parameter.detach().numpy() for name, parameter in encoder.named_parameters()}
    hashed = blake3()

    def tensor(name: str) -> bytes:
        flat = weights[name].ravel()
        scale = np.float32(255) / (np.float32(2) * np.abs(flat).max())
        values = b""
        for value in flat:
            scaled = float(np.float32(value * scale))
            rounded = int(abs(scaled) + 0.5) * (1 if scaled > 0 else -1)
            values += struct.pack("<b", max(-128, min(127, rounded)))
        hashed.update(values)
        return u64(len(flat)) + values + struct.pack("<f", scale) + b"\x08"

    def norm(name: str) -> bytes:
        parts = [struct.pack("<8f", *weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        hashed.update(b"".join(parts))
        return u64(8) + parts[0] + u64(8) + parts[1] + struct.pack("<f", 1e-5) + u64(8)

    data = u64(8, 1, 2, 32, 17, 265) + b"\x00" + b"\x00" + tensor("embedding.weight") + u64(17)
    for row in weights["positions.weight"]:
        data += u64(8) + struct.pack("<8f", *row)
    data += u64(1) + tensor("blocks.0.attention.qkv.weight") + tensor("blocks.0.attention.out.weight") + u64(2, 4, 8)
    data += norm("blocks.0.attention_norm") + tensor("blocks.0.feed_in.weight") + tensor("blocks.0.feed_out.weight")
    data += u64(8, 32) + norm("blocks.0.feed_norm") + norm("norm")
    return data + u64(epoch) + hashed.digest()


def test_every_byte_is_the_one_written_by_hand(encoder: Encoder) -> None:
    assert to_bytes(rust_encoder(encoder, epoch=3)) == by_hand(encoder, epoch=3)


def zeros(*shape: int) -> QuantizedTensor:
    return QuantizedTensor(values=np.zeros(shape, dtype=np.int8), scale=np.float32(1))


def test_the_whitepapers_encoder_has_the_protocols_size() -> None:
    """24 layers, width 512, 1,281 tokens, 2,049 positions: 80,570,491 bytes, counted from the protocol's types."""
    norm = RustNorm(weight=np.ones(512, np.float32), bias=np.zeros(512, np.float32), eps=np.float32(1e-5))
    layer = RustLayer(
        qkv=zeros(1536, 512),
        out=zeros(512, 512),
        attention_norm=norm,
        feed_in=zeros(2048, 512),
        feed_out=zeros(512, 2048),
        feed_norm=norm,
    )
    rust = RustEncoder(
        num_heads=8,
        feed_forward_width=2048,
        token_embedding=zeros(1281, 512),
        positions_TD=np.zeros((2049, 512), np.float32),
        layers=(layer,) * 24,
        final_norm=norm,
        epoch=0,
    )
    assert len(to_bytes(rust)) == 80_570_491


def test_what_the_layout_has_no_place_for_is_named(encoder: Encoder) -> None:
    assert not_held(encoder) == (
        "blocks.0.attention.qkv.bias",
        "blocks.0.attention.out.bias",
        "blocks.0.feed_in.bias",
        "blocks.0.feed_out.bias",
        "out.weight",
        "out.bias",
        "balance_head.weight",
        "balance_head.bias",
    )


def test_the_hash_leaves_out_scales_positions_and_epoch(encoder: Encoder) -> None:
    rust = rust_encoder(encoder)
    other = replace(
        rust,
        token_embedding=replace(rust.token_embedding, scale=np.float32(7)),
        positions_TD=rust.positions_TD + 1,
        epoch=9,
    )
    assert other.weight_hash == rust.weight_hash
    changed = replace(rust, final_norm=replace(rust.final_norm, bias=rust.final_norm.bias + 1))
    assert changed.weight_hash != rust.weight_hash


def test_weights_that_are_not_held_do_not_change_the_file(encoder: Encoder) -> None:
    before = to_bytes(rust_encoder(encoder))
    parameters = dict(encoder.named_parameters())
    with torch.no_grad():
        for name in not_held(encoder):
            parameters[name].add_(1.0)
    assert to_bytes(rust_encoder(encoder)) == before
    with torch.no_grad():
        parameters["norm.bias"].add_(1.0)
    assert to_bytes(rust_encoder(encoder)) != before


@pytest.mark.parametrize("epoch", [-1, 2**64])
def test_an_epoch_that_does_not_fit(encoder: Encoder, epoch: int) -> None:
    with pytest.raises(ConfigError, match=rf"^epoch is {epoch}, expected a number in \[0, {2**64 - 1}\]$"):
        rust_encoder(encoder, epoch=epoch)
