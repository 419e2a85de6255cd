"""A pre-norm transformer block whose attention is two linear layers around scaled dot-product attention.

Shapes: B samples, G states of one sample, T tokens, D width, H heads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nerv_fl.models.presets import Preset
from nerv_fl.privacy.layers import LayerNorm, Linear


class Attention(nn.Module):
    """Multi-head self-attention within each state; no state of a sample sees another.

    Args:
        width: D.
        num_heads: H, a divisor of D.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x_BGTD: Tensor) -> Tensor:
        """Return the attention's output, same shape."""
        num_samples, num_states, num_tokens, width = x_BGTD.shape
        qkv = self.qkv(x_BGTD).reshape(num_samples * num_states, num_tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        output: Tensor = self.out(mixed.reshape(num_samples, num_states, num_tokens, width))
        return output


class Block(nn.Module):
    """``x + Attention(norm(x))``, then ``x + W2 GELU(W1 norm(x))`` (NERV whitepaper v1.01, section 2.1)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(preset.width)
        self.attention = Attention(preset.width, num_heads=preset.num_heads)
        self.feed_norm = LayerNorm(preset.width)
        self.feed_in = Linear(preset.width, preset.feed_forward_width)
        self.feed_out = Linear(preset.feed_forward_width, preset.width)

    def forward(self, x_BGTD: Tensor) -> Tensor:
        """Return the block's output, same shape."""
        x_BGTD = x_BGTD + self.attention(self.attention_norm(x_BGTD))
        output: Tensor = x_BGTD + self.feed_out(F.gelu(self.feed_in(self.feed_norm(x_BGTD))))
        return output
