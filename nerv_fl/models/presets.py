"""The encoder's sizes. Accounts are at least twice the width in all, or the affine map could be inverted outright."""

from dataclasses import dataclass, replace
from typing import Final

from nerv_fl.config import PRESET_NAMES
from nerv_fl.tokens import sequence_length, vocabulary_size
from nerv_fl.validation import one_of


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of one encoder.

    `position_std` and `embedding_std` are the standard deviations at which positions and tokens start. Positions at
    0.02 never tell a small encoder which account is which; tokens at 0.2 make it start three times less flat.
    """

    name: str
    num_accounts: int
    width: int
    num_layers: int
    num_heads: int
    position_std: float
    embedding_std: float

    @property
    def feed_forward_width(self) -> int:
        """Width of the hidden feed-forward layer: four times the model's."""
        return 4 * self.width

    @property
    def num_tokens(self) -> int:
        """Tokens of one state: 1 + 2A."""
        return sequence_length(self.num_accounts)

    @property
    def vocabulary(self) -> int:
        """Number of different tokens: 1 + A + 256."""
        return vocabulary_size(self.num_accounts)


_QUICKSTART: Final = Preset(
    name="quickstart", num_accounts=64, width=32, num_layers=2, num_heads=2, position_std=0.3, embedding_std=0.05
)

PRESETS: Final = {
    preset.name: preset
    for preset in (
        _QUICKSTART,
        replace(_QUICKSTART, name="small", num_accounts=128, width=64, num_heads=4),
        Preset(
            name="tee",
            num_accounts=1024,
            width=128,
            num_layers=3,
            num_heads=4,
            position_std=0.2,
            embedding_std=0.05,
        ),
        Preset(
            name="base", num_accounts=512, width=256, num_layers=8, num_heads=8, position_std=0.1, embedding_std=0.02
        ),
        Preset(
            name="whitepaper",
            num_accounts=1024,
            width=512,
            num_layers=24,
            num_heads=8,
            position_std=0.02,
            embedding_std=0.02,
        ),
    )
}
"""The whitepaper's encoder is its section 2.1: 24 layers, width 512, 8 heads, feed-forward 2,048, 2,049 tokens.

`tee` has its accounts and fits an enclave: at most 2 MB in int8, even with its positions in float32, as the protocol's
own file keeps them. That leaves a width of 128: an eighth of the accounts, not half.
"""


def get_preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        ConfigError: If there is none, naming the nearest.
    """
    one_of("model.preset", name, choices=PRESET_NAMES)
    return PRESETS[name]
