"""The encoder's sizes."""

import re

import pytest
import torch

from nerv_fl.config import PRESET_NAMES
from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import PRESETS, get_preset


def count_parameters(name: str) -> int:
    """Count an encoder's parameters without allocating them."""
    with torch.device("meta"):
        return Encoder(get_preset(name)).num_parameters


def test_table_and_names_agree() -> None:
    assert tuple(PRESETS) == PRESET_NAMES
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("name", "accounts", "width", "layers"),
    [
        ("quickstart", 64, 32, 2),
        ("small", 128, 64, 2),
        ("tee", 1024, 128, 3),
        ("base", 512, 256, 8),
        ("whitepaper", 1024, 512, 24),
    ],
)
def test_sizes(*, name: str, accounts: int, width: int, layers: int) -> None:
    preset = get_preset(name)
    assert (preset.num_accounts, preset.width, preset.num_layers) == (accounts, width, layers)
    assert preset.num_tokens == 1 + 2 * accounts
    assert preset.vocabulary == 1 + accounts + 256
    assert preset.feed_forward_width == 4 * width
    assert preset.width % preset.num_heads == 0


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_affine_map_cannot_be_inverted_outright(name: str) -> None:
    assert get_preset(name).num_accounts >= 2 * get_preset(name).width


def test_whitepaper_has_its_77_6_million_parameters_and_the_balance_head() -> None:
    block = 12 * 512**2 + 13 * 512
    body = 1281 * 512 + 2049 * 512 + 24 * block + 2 * 512 + 512**2 + 512
    assert body == 77_625_856
    assert count_parameters("whitepaper") == body + 256 * 512 + 256 == 77_757_184


def test_quickstart_is_small() -> None:
    embeddings, blocks = (321 + 129) * 32, 2 * (12 * 32**2 + 13 * 32)
    assert count_parameters("quickstart") == embeddings + blocks + 2 * 32 + 33 * 32 + 33 * 256 == 49_376


def test_unknown_preset_is_refused_by_name() -> None:
    message = (
        "model.preset is 'quikstart', expected one of: base, quickstart, small, tee, whitepaper "
        "(did you mean 'quickstart'?)"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        get_preset("quikstart")
