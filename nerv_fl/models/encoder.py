"""The encoder: a transformer over (account, bucket) tokens with a balance-weighted read-out.

    v_i(S)    = out(norm(h_i)),  h = Transformer(tokens(S)) at account i's position
    V_i       = round_32.16(v_i(blank))            blank: every balance masked, so V depends on theta alone
    E(S)      = sum_i (b_i / T) V_i                the affine encoder, which the protocol commits
    E_live(S) = sum_i (b_i / T) v_i(S)             the transformer read whole
    R(S)      = E_live(S) - E(S)                   its contextual residual

With ``readout="mean"`` the plain mean of the hidden states takes the place of the balance-weighted one and the table
is the account tokens' embedding: the read-out of the protocol's first plan, kept for comparison.
`docs/homomorphism.md` proves that only an affine read-out can be exact.

Shapes: B samples, G states of one sample, T tokens (T = 1 + 2A), A accounts, D width, K = 256 buckets, P parameters.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nerv_fl.errors import ConfigError
from nerv_fl.models.attention import Block
from nerv_fl.models.presets import Preset
from nerv_fl.privacy.layers import Embedding, LayerNorm, Linear, Positions
from nerv_fl.tokens import CLS_TOKEN, NUM_BUCKETS
from nerv_fl.validation import one_of

FIXED_POINT_SCALE = 2.0**16
"""Steps to the unit in the 32.16 fixed-point format."""


def round_fixed_point(x: Tensor) -> Tensor:
    """Round to multiples of 2^-16, passing the gradient straight through.

    torch.round alone has gradient zero everywhere, so no loss would reach any weight behind it.

    Source: Bengio, Leonard and Courville, "Estimating or propagating gradients through stochastic neurons", 2013.

    >>> round_fixed_point(torch.tensor([1.0 + 2.0**-18])).item()
    1.0
    """
    return x + (torch.round(x * FIXED_POINT_SCALE) / FIXED_POINT_SCALE - x).detach()


class Encoder(nn.Module):
    """The transformer, its read-out `out` and the head that predicts masked balances.

    Args:
        preset: Sizes.
        readout: "balance" (exact), or "mean" (for comparison).
        checkpoint_activations: Recompute each block in the backward pass, to save memory.
    """

    def __init__(self, preset: Preset, *, readout: str = "balance", checkpoint_activations: bool = False) -> None:
        super().__init__()
        one_of("model.readout", readout, choices=("balance", "mean"))
        self.preset = preset
        self.readout = readout
        self.checkpoint_activations = checkpoint_activations
        self.embedding = Embedding(preset.vocabulary, preset.width)
        self.positions = Positions(preset.num_tokens, preset.width, std=preset.position_std)
        self.blocks = nn.ModuleList(Block(preset) for _ in range(preset.num_layers))
        self.norm = LayerNorm(preset.width)
        self.out = Linear(preset.width, preset.width)
        self.balance_head = Linear(preset.width, NUM_BUCKETS)
        self.blank_T: Tensor
        self.register_buffer("blank_T", _blank_tokens(preset), persistent=False)

    @property
    def num_parameters(self) -> int:
        """P, the length of the flat parameter vector."""
        return sum(parameter.numel() for parameter in self.parameters())

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw every parameter afresh: Xavier matrices, normal embeddings and positions, zero biases, unit norms."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Linear):
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                    nn.init.zeros_(module.bias)
                elif isinstance(module, Embedding):
                    nn.init.normal_(module.weight, std=self.preset.embedding_std, generator=generator)
                elif isinstance(module, Positions):
                    nn.init.normal_(module.weight, std=module.std, generator=generator)
                elif isinstance(module, LayerNorm):
                    nn.init.ones_(module.weight)
                    nn.init.zeros_(module.bias)

    def hidden(self, tokens_BGT: Tensor) -> Tensor:
        """Return the final normalised hidden states.

        Args:
            tokens_BGT: int64 token sequences of G states of each sample.

        Returns:
            float32 (B, G, T, D).
        """
        x_BGTD = self.positions(self.embedding(tokens_BGT))
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x_BGTD = checkpoint(block, x_BGTD, use_reentrant=False)
            else:
                x_BGTD = block(x_BGTD)
        output: Tensor = self.norm(x_BGTD)
        return output

    def account_vectors(self, hidden_BGTD: Tensor) -> Tensor:
        """Return v_i(S), float32 (B, G, A, D), from the account positions 1, 3, 5, ..."""
        vectors: Tensor = self.out(hidden_BGTD[:, :, 1::2])
        return vectors

    def balance_logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return the logits of each balance's bucket, float32 (B, A, K), from the balance positions 2, 4, 6, ..."""
        logits: Tensor = self.balance_head(hidden_BTD[:, 2::2])
        return logits

    def blank_tokens(self) -> Tensor:
        """Return the blank state's tokens, int64 (1, 1, T): every balance masked."""
        return self.blank_T.reshape(1, 1, -1)

    def table(self) -> Tensor:
        """Return the public table of the affine encoder, float32 (A, D): V, or the account embeddings for "mean"."""
        return self.table_of(self.hidden(self.blank_tokens())[:, 0])[0]

    def table_of(self, hidden_BTD: Tensor) -> Tensor:
        """Return the table from the blank state's hidden states, once for each sample, (B, A, D)."""
        if self.readout == "mean":
            # Looked up through the layer, or per-sample gradients would miss it.
            accounts_BAD: Tensor = self.embedding(self.blank_T[1::2].expand(hidden_BTD.shape[0], -1))
            return accounts_BAD
        return round_fixed_point(self.account_vectors(hidden_BTD.unsqueeze(1))[:, 0])

    def residual(self, hidden_BGTD: Tensor, weights_BGA: Tensor, *, table: Tensor) -> Tensor:
        """Return R(S) of each state.

        Args:
            hidden_BGTD: Hidden states.
            weights_BGA: b_i / T, float32.
            table: The affine encoder's table, float32 (A, D), or one for each sample (B, A, D).

        Returns:
            float32 (B, G, D).
        """
        if self.readout == "mean":
            live: Tensor = self.out(hidden_BGTD.mean(dim=2))
            return live - weights_BGA @ table
        table_BGAD = table if table.dim() == 2 else table.unsqueeze(1)  # noqa: PLR2004
        return torch.einsum("bga,bgad->bgd", weights_BGA, self.account_vectors(hidden_BGTD) - table_BGAD)


def centre(encoder: Encoder) -> None:
    """Move the origin of the embedding to mean_i V_i = 0, by the bias of `out`.

    V_i -> V_i - c for every i changes no residual and no transfer's delta; a mint's or burn's moves by (amount / T) c.
    But noise and the nodes' updates push it, and then the spread of V is stiff in this one direction. A coordinate
    that is within half a step of the 32.16 grid stays, or each call would move the last float of the bias: a centred
    encoder keeps its bits. With the "mean" read-out nothing is moved.
    """
    if encoder.readout == "mean":
        return
    with torch.no_grad():
        blank_AD = encoder.account_vectors(encoder.hidden(encoder.blank_tokens()))[0, 0]
        mean_D = blank_AD.mean(dim=0)
        encoder.out.bias.sub_(mean_D.where(mean_D.abs() >= 0.5 / FIXED_POINT_SCALE, 0.0))


def get_flat(model: nn.Module) -> Tensor:
    """Return a copy of all parameters as one float32 vector (P,), in the order of `model.parameters()`."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def set_flat(model: nn.Module, theta_P: Tensor) -> None:
    """Copy a flat vector into the parameters of a resident model.

    Raises:
        ConfigError: If the vector's length is not the model's P.
    """
    sizes = [parameter.numel() for parameter in model.parameters()]
    if theta_P.shape != (sum(sizes),):
        raise ConfigError(f"weights have shape {tuple(theta_P.shape)}, expected ({sum(sizes)},): another preset?")
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), theta_P.split(sizes), strict=True):
            parameter.copy_(part.reshape(parameter.shape))


def _blank_tokens(preset: Preset) -> Tensor:
    blank_T = torch.full((preset.num_tokens,), CLS_TOKEN, dtype=torch.int64)
    blank_T[1::2] = 1 + torch.arange(preset.num_accounts)
    return blank_T
