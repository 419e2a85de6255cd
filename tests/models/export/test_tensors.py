"""Safetensors: the model's own bytes, and the table as exact integers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from nerv_fl.errors import DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.export_source import Source, open_source
from nerv_fl.models.export.tensors import write_tensors
from nerv_fl.models.export.write import write_export
from nerv_fl.models.presets import PRESETS
from nerv_fl.models.quantize_encoder import fixed_point_table, load_int8
from nerv_fl.models.weights import load_encoder, save_encoder
from nerv_fl.rng import torch_stream


def test_a_models_own_file_is_copied_byte_for_byte(encoder: Encoder, tmp_path: Path) -> None:
    own, out = tmp_path / "mine.safetensors", tmp_path / "out"
    out.mkdir()
    save_encoder(own, encoder, facts={"movement_floor": 0.5})
    names = write_tensors(Source(kind="encoder", model=encoder, path=own, preset="tiny"), out)
    assert names == ("encoder.safetensors", "encoder.int8.safetensors", "table_32_16.safetensors")
    assert (out / names[0]).read_bytes() == own.read_bytes()


def test_an_encoder_without_a_file_is_written(encoder: Encoder, tmp_path: Path) -> None:
    write_tensors(Source(kind="encoder", model=encoder, preset="tiny", facts={"movement_floor": 0.25}), tmp_path)
    again = Encoder(encoder.preset)
    assert load_encoder(tmp_path / "encoder.safetensors", again) == {"movement_floor": 0.25}
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), encoder.parameters(), strict=True))
    assert load_int8(tmp_path / "encoder.int8.safetensors").preset == "tiny"


def test_the_table_is_integers_that_lose_nothing(encoder: Encoder, tmp_path: Path) -> None:
    write_tensors(Source(kind="encoder", model=encoder, preset="tiny"), tmp_path)
    raw_AD = load_file(tmp_path / "table_32_16.safetensors")["raw"]
    with torch.no_grad():
        table_AD = encoder.table().numpy()
    assert (raw_AD.dtype.name, raw_AD.shape) == ("int64", (8, 8))
    assert np.array_equal((raw_AD / 2.0**16).astype(np.float32), table_AD)
    with safe_open(tmp_path / "table_32_16.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "nerv-fl table 32.16", "fraction_bits": "16", "preset": "tiny"}


def test_the_mean_readout_has_no_table(tmp_path: Path) -> None:
    encoder = Encoder(PRESETS["quickstart"], readout="mean")
    encoder.reset_parameters(torch_stream(1, "mean"))
    save_encoder(tmp_path / "encoder.safetensors", encoder, facts={})
    manifest = write_export(open_source(tmp_path / "encoder.safetensors"), tmp_path / "out", fmt="safetensors")
    assert set(manifest["files"]) == {"encoder.safetensors", "encoder.int8.safetensors"}
    assert "no table in 32.16 fixed point" in " ".join(manifest["notes"])
    with pytest.raises(
        DataError, match=r"^the table of read-out 'mean' is not in 32\.16, expected multiples of 2\^-16$"
    ):
        fixed_point_table(encoder)
