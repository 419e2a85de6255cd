"""The consensus predictor: from the events of a race and the candidates' deltas to what will be finalised.

A latent transformer. Events, embedded as sums of small tables, pass one narrow layer; the latents (the candidates,
whose first value is what the arithmetic below knows of them, and some free ones) read them by cross-attention and think
in wide layers. Three answers:

    valid      sigmoid of one number a candidate
    finalised  softmax over the candidates, those yet to be proposed included, and none
    delta      sum_c p(finalised = c) delta_c: a pointer, since no layer this narrow could reproduce 512 numbers

What is arithmetic is done in the graph, so that it need not be learned: votes by candidate in this round and the one
before, disputes, the length of a delta against its header's energy, and cosines to the other candidates and to past
batches, which show replays and exchanged signs. All are invariant under rotations of V (narrower than 512, so that none
of its coordinates is cut off), so a new epoch's encoder changes nothing but lengths and angles.

Source: Jaegle et al. 2021, Perceiver, section 3 (latents that read a long sequence); NERV whitepaper v1.01, section
2.3.

Shapes: B races, L events, C candidates, P past batches, D = 512, H header fields, E event width, W width, Z latents.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerv_fl.models.consensus_inputs import DELTA_WIDTH, HEADER
from nerv_fl.quorum import (
    DISPUTE,
    EVIDENCE,
    MAX_CANDIDATES,
    MAX_EVENTS,
    MAX_VALIDATORS,
    NUM_BUCKETS,
    PAST,
    TIMEOUT,
    VOTE,
)

EVENT_WIDTH: Final = 96
WIDTH: Final = 184
LATENTS: Final = 12
LAYERS: Final = 3
HEADS: Final = 4
KINDS: Final = 8
LATENT_STD: Final = 0.2
TABLE_STD: Final = 0.5
FAR: Final = -1e4
"""Added to the score of what is not there; within the range of float16."""
TALLIES: Final = 7
FACTS: Final = len(HEADER) + TALLIES + 3 + MAX_CANDIDATES + PAST


class Attention(nn.Module):
    """Attention of one sequence on another, by matrix products that every runtime knows."""

    def __init__(self, width: int, *, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BSW: Tensor, source_BTE: Tensor, bias_B11T: Tensor) -> Tensor:
        """Return what S places read from T others; ``bias`` is added to the scores."""
        batch, places, width = x_BSW.shape
        size = width // self.heads
        query = self.query(x_BSW).view(batch, places, self.heads, size).transpose(1, 2)
        key = self.key(source_BTE).view(batch, -1, self.heads, size).permute(0, 2, 3, 1)
        value = self.value(source_BTE).view(batch, -1, self.heads, size).transpose(1, 2)
        share = torch.softmax(query @ key * size**-0.5 + bias_B11T, dim=-1)
        out_BSW: Tensor = self.out((share @ value).transpose(1, 2).reshape(batch, places, width))
        return out_BSW


class Layer(nn.Module):
    """A pre-norm layer; on another sequence it reads, on its own it thinks."""

    def __init__(self, width: int, *, source_width: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_source = nn.LayerNorm(source_width)
        self.attention = Attention(width, source_width=source_width, heads=heads)
        self.norm_wide = nn.LayerNorm(width)
        self.wide = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def forward(self, x_BSW: Tensor, source_BTE: Tensor, bias_B11T: Tensor) -> Tensor:
        """Return the sequence after attention and a feed-forward layer."""
        x_BSW = x_BSW + self.attention(self.norm(x_BSW), self.norm_source(source_BTE), bias_B11T)
        thought_BSW: Tensor = self.narrow(F.gelu(self.wide(self.norm_wide(x_BSW))))
        return x_BSW + thought_BSW


class Predictor(nn.Module):
    """The predictor; see the module for what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = nn.Embedding(KINDS, EVENT_WIDTH)
        self.candidate = nn.Embedding(MAX_CANDIDATES, EVENT_WIDTH)
        self.reputation = nn.Embedding(NUM_BUCKETS, EVENT_WIDTH)
        self.validator = nn.Embedding(MAX_VALIDATORS, EVENT_WIDTH)
        self.position = nn.Embedding(MAX_EVENTS, EVENT_WIDTH)
        self.events = Layer(EVENT_WIDTH, source_width=EVENT_WIDTH, heads=HEADS, expansion=2)
        self.latents = nn.Parameter(torch.zeros(LATENTS, WIDTH))
        self.slot = nn.Embedding(MAX_CANDIDATES, WIDTH)
        self.facts = nn.Linear(FACTS, WIDTH)
        self.facts_wide = nn.Linear(WIDTH, WIDTH)
        self.read = Layer(WIDTH, source_width=EVENT_WIDTH, heads=HEADS, expansion=2)
        self.think = nn.ModuleList(Layer(WIDTH, source_width=WIDTH, heads=HEADS) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.valid = nn.Linear(WIDTH, 1)
        self.finalised = nn.Linear(WIDTH, 1)
        self.none = nn.Linear(WIDTH, 1)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all weights anew: tables and latents normal, matrices uniform within 1 / sqrt(inputs), biases zero."""
        with torch.no_grad():
            self.latents.normal_(0.0, LATENT_STD, generator=generator)
            for layer in self.modules():
                if isinstance(layer, nn.Embedding):
                    layer.weight.normal_(0.0, TABLE_STD, generator=generator)
                elif isinstance(layer, nn.Linear):
                    limit = layer.in_features**-0.5
                    layer.weight.uniform_(-limit, limit, generator=generator)
                    layer.bias.zero_()
                elif isinstance(layer, nn.LayerNorm):
                    layer.weight.fill_(1.0)
                    layer.bias.zero_()

    def forward(
        self, tokens_BL: Tensor, headers_BCH: Tensor, deltas_BCD: Tensor, past_BPD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict a race.

        Args:
            tokens_BL: int64, padded with 65,535.
            headers_BCH: float32 [B, 4, 5].
            deltas_BCD: float32 [B, 4, 512].
            past_BPD: float32 [B, 4, 512].

        Returns:
            Logits of validity [B, 4], logits of the outcome [B, 5] (the last: none), and the next delta [B, 512].
        """
        valid_BC, outcome_BK = self.logits(tokens_BL, headers_BCH, deltas_BCD, past_BPD)
        share_BC = torch.softmax(outcome_BK, dim=-1)[:, :MAX_CANDIDATES]
        next_BD = (share_BC[:, :, None] * deltas_BCD).sum(dim=1)
        return valid_BC, outcome_BK, next_BD

    def logits(
        self, tokens_BL: Tensor, headers_BCH: Tensor, deltas_BCD: Tensor, past_BPD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of validity [B, 4] and of the outcome [B, 5]."""
        facts_BCF = race_facts(tokens_BL, headers_BCH, deltas_BCD, past_BPD)
        events_BLE, bias_B11L = self._events(tokens_BL)
        slots_BCW = self.slot.weight + self.facts_wide(F.gelu(self.facts(facts_BCF)))
        batch = tokens_BL.shape[0]
        x_BZW = torch.cat([slots_BCW, self.latents.expand(batch, LATENTS, WIDTH)], dim=1)
        x_BZW = self.read(x_BZW, events_BLE, bias_B11L)
        for layer in self.think:
            x_BZW = layer(x_BZW, x_BZW, torch.zeros_like(bias_B11L[:, :, :, :1]))
        x_BZW = self.norm(x_BZW)
        slots_BCW = x_BZW[:, :MAX_CANDIDATES]
        # A candidate that is yet to be proposed may win, too: nothing is masked.
        outcome_BC = self.finalised(slots_BCW)[:, :, 0]
        none_B1 = self.none(x_BZW[:, MAX_CANDIDATES:].mean(dim=1))
        return self.valid(slots_BCW)[:, :, 0], torch.cat([outcome_BC, none_B1], dim=1)

    def _events(self, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
        there_BL = (tokens_BL < (1 << 15)).to(self.position.weight.dtype)
        x_BLE = (
            self.kind(_field(tokens_BL, 1 << 12, KINDS))
            + self.candidate(_field(tokens_BL, 1 << 10, MAX_CANDIDATES))
            + self.reputation(_field(tokens_BL, 1 << 6, NUM_BUCKETS))
            + self.validator(_field(tokens_BL, 1, MAX_VALIDATORS))
            + self.position(torch.arange(tokens_BL.shape[1], device=tokens_BL.device))
        )
        bias_B11L = (FAR * (1.0 - there_BL))[:, None, None, :]
        return self.events(x_BLE, x_BLE, bias_B11L), bias_B11L


def race_facts(tokens_BL: Tensor, headers_BCH: Tensor, deltas_BCD: Tensor, past_BPD: Tensor) -> Tensor:
    """Return what arithmetic knows of each candidate, float32 [B, 4, FACTS].

    Header; reputation (from its buckets) and number of votes in this round, reputation in the round before, reputation
    and number of disputes, rounds ended, reputation of the convicted; log |delta| over energy, log energy, supply
    coordinate less what the header mints; cosines to the candidates and to the past.
    """
    present_BC, energy_BC = headers_BCH[:, :, 0], headers_BCH[:, :, 3]
    length_BC = deltas_BCD.norm(dim=-1)
    unit_BCD = deltas_BCD / (length_BC[:, :, None] + 1e-12)
    unit_past_BPD = past_BPD / (past_BPD.norm(dim=-1, keepdim=True) + 1e-12)
    numbers_BC3 = torch.stack(
        [
            torch.log((length_BC + 1e-9) / (energy_BC + 1e-9)),
            torch.log(energy_BC + 1e-9) / 10.0,
            ((deltas_BCD[:, :, DELTA_WIDTH - 1] - headers_BCH[:, :, 4]) / (energy_BC + 1e-9)).clamp(-3.0, 3.0),
        ],
        dim=-1,
    )
    return torch.cat(
        [
            headers_BCH[:, :, :3],
            10.0 * headers_BCH[:, :, 3:],
            _tallies(tokens_BL, headers_BCH.dtype),
            numbers_BC3 * present_BC[:, :, None],
            unit_BCD @ unit_BCD.transpose(1, 2),
            unit_BCD @ unit_past_BPD.transpose(1, 2),
        ],
        dim=-1,
    )


def _field(tokens_BL: Tensor, unit: int, size: int) -> Tensor:
    """Return a field of tokens, by division: ONNX has no shifts of signed integers."""
    return torch.remainder(torch.div(tokens_BL, unit, rounding_mode="trunc"), size)


def _tallies(tokens_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the counts of each candidate, [B, 4, 7]: every vote of a round counts here, second ones too."""
    kind_BL = _field(tokens_BL, 1 << 12, 1 << 4)
    there_BL = tokens_BL < (1 << 15)
    ended_BL = torch.cumsum((kind_BL == TIMEOUT).to(torch.int64), dim=1)
    rounds_B1 = ended_BL[:, -1:]
    weight_BL = (_field(tokens_BL, 1 << 6, NUM_BUCKETS).to(dtype) + 0.5) / NUM_BUCKETS
    which_BLC = _field(tokens_BL, 1 << 10, MAX_CANDIDATES)[:, :, None] == torch.arange(
        MAX_CANDIDATES, device=tokens_BL.device
    )

    def count(mask_BL: Tensor, weight_BL: Tensor) -> Tensor:
        chosen_BL = (mask_BL & there_BL).to(dtype) * weight_BL
        return (chosen_BL[:, :, None] * which_BLC.to(dtype)).sum(dim=1)

    vote_BL, dispute_BL = kind_BL == VOTE, kind_BL == DISPUTE
    one_BL = torch.ones_like(weight_BL)
    now_BL, before_BL = vote_BL & (ended_BL == rounds_B1), vote_BL & (ended_BL == rounds_B1 - 1)
    now_BC = count(now_BL, weight_BL)
    return torch.stack(
        [
            now_BC / 10.0,
            count(now_BL, one_BL) / 20.0,
            count(before_BL, weight_BL) / 10.0,
            count(dispute_BL, weight_BL) / 3.0,
            count(dispute_BL, one_BL) / 5.0,
            rounds_B1.to(dtype).expand_as(now_BC),
            count(kind_BL == EVIDENCE, weight_BL),
        ],
        dim=-1,
    )
