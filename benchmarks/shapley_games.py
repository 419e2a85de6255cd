"""Games for the Shapley benchmark: with structure and without a gradient, and of DP-noised updates of two small models.

Shapes: M coalitions, N players, P parameters, K validation examples, C classes.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from nerv_fl.rng import stream, torch_stream
from nerv_fl.shapley import Control, Game, LinearControl, MaskArray, MeanControl, QuadraticControl
from nerv_fl.types import FloatArray

CLASSES: Final = 10
VALIDATION: Final = 64
CHUNK: Final = 64


class Played(NamedTuple):
    """A game, and the controls that a gradient gives it."""

    game: Game
    controls: list[Control]


def coverage(num_players: int, draw: np.random.Generator) -> Game:
    """The weight of what a coalition covers: submodular."""
    covers_NU, weight_U = draw.random((num_players, 60)) < 0.15, draw.random(60)
    return lambda masks_MN: ((masks_MN.astype(np.int64) @ covers_NU) > 0) @ weight_U


def glove(num_players: int, draw: np.random.Generator) -> Game:
    """Left and right gloves; pairs count."""
    left_N = draw.permutation(num_players) < num_players // 3
    return lambda masks_MN: np.minimum((masks_MN & left_N).sum(axis=1), (masks_MN & ~left_N).sum(axis=1)) * 1.0


def airport(num_players: int, draw: np.random.Generator) -> Game:
    """The longest runway that a member needs."""
    cost_N = draw.integers(1, 11, num_players).astype(np.float64)
    return lambda masks_MN: (masks_MN * cost_N).max(axis=1)


def voting(num_players: int, draw: np.random.Generator) -> Game:
    """1 where a coalition has more than half of the votes."""
    votes_N = draw.integers(1, 11, num_players)
    return lambda masks_MN: 1.0 * (2 * (masks_MN @ votes_N) > votes_N.sum())


STRUCTURED: Final[dict[str, Callable[[int, np.random.Generator], Game]]] = {
    "coverage": coverage,
    "glove": glove,
    "airport": airport,
    "voting": voting,
}


class Mlp(nn.Module):
    """16 token embeddings, flattened, and two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 4)
        self.layers = nn.Sequential(nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, CLASSES))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits [B, C]."""
        logits_BC: Tensor = self.layers(self.embed(tokens_BT).flatten(1))
        return logits_BC


class Transformer(nn.Module):
    """Two pre-norm layers of width 32 over 12 tokens, mean-pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(16, 32), nn.Embedding(12, 32)
        self.qkv = nn.ModuleList(nn.Linear(32, 96) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))
        self.feed = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits [B, C]."""
        x_BTD = self.embed(tokens_BT) + self.position.weight
        for layer in range(2):
            query, key, value = self.qkv[layer](self.norms[layer](x_BTD)).chunk(3, dim=-1)
            score = torch.softmax(query @ key.transpose(-1, -2) / 32**0.5, dim=-1)
            x_BTD = x_BTD + self.out[layer](score @ value)
            x_BTD = x_BTD + self.feed[layer](self.norms[2 + layer](x_BTD))
        logits_BC: Tensor = self.head(self.norms[4](x_BTD).mean(dim=1))
        return logits_BC


MODELS: Final[dict[str, Callable[[], nn.Module]]] = {"mlp": Mlp, "transformer": Transformer}


class UpdateGame:
    """The `mean` or `fixed` game of one round of DP-SGD updates (clip 1, sigma 0.5, batches of 64).

    Args:
        kind: Model.
        num_players: N.
        seed: Seed of model, data, batches and noise.
    """

    def __init__(self, kind: str, num_players: int, *, seed: int) -> None:
        torch.set_num_threads(1)
        self._draw = stream(seed, "updates", kind, num_players)
        self._model = MODELS[kind]()
        _initialise(self._model, generator=torch_stream(seed, "weights", kind))
        self._shapes = [(name, item.shape) for name, item in self._model.named_parameters()]
        self._teacher = self._draw.normal(size=(12 * 16, CLASSES))
        self.theta_P = torch.cat([item.detach().reshape(-1) for item in self._model.parameters()])
        for _ in range(30):
            tokens_BT, labels_B = self._samples(256, tilt=0.0)
            self.theta_P = self.theta_P - 0.5 * grad(self._loss)(self.theta_P, tokens_BT, labels_B)
        self._held_out = self._samples(VALIDATION, tilt=0.0)
        self.updates_NP = torch.stack([self._update(tilt) for tilt in self._draw.uniform(0, 3, num_players)])

    def play(self, kind: str) -> Played:
        """Return the "mean" or "fixed" game with the controls of its gradient."""
        num_players, ones_N = len(self.updates_NP), np.ones(len(self.updates_NP))
        gains_N, hessian_NN, gauss_NN = self._expansion()
        if kind == "mean":
            controls: list[Control] = [
                MeanControl(gains_N, ones_N),
                MeanControl(gains_N, ones_N, hessian_NN),
                MeanControl(gains_N, ones_N, gauss_NN),
            ]
        else:
            gains_N, scale = gains_N / num_players, num_players**-2
            controls = [
                LinearControl(gains_N),
                QuadraticControl(gains_N, scale * hessian_NN),
                QuadraticControl(gains_N, scale * gauss_NN),
            ]
        empty = self._values(self.theta_P[None])

        def game(masks_MN: MaskArray) -> FloatArray:
            share_MN = masks_MN / np.maximum(masks_MN.sum(axis=1, keepdims=True), 1)
            if kind == "fixed":
                share_MN = masks_MN / num_players
            values = []
            for start in range(0, len(masks_MN), CHUNK):
                share = torch.from_numpy(share_MN[start : start + CHUNK].astype(np.float32))
                values.append(self._values(self.theta_P + share @ self.updates_NP))
            return np.concatenate(values) - empty

        return Played(game, controls)

    def _values(self, theta_MP: Tensor) -> FloatArray:
        losses_M = vmap(self._loss, in_dims=(0, None, None))(theta_MP, *self._held_out)
        return -losses_M.numpy().astype(np.float64)

    def _update(self, tilt: float) -> Tensor:
        tokens_BT, labels_B = self._samples(64, tilt=tilt)
        each = vmap(grad(self._loss), in_dims=(None, 0, 0))(self.theta_P, tokens_BT[:, None], labels_B[:, None])
        clipped = each * (1 / each.norm(dim=1, keepdim=True)).clamp(max=1)
        noise_P = 0.5 * torch.from_numpy(self._draw.standard_normal(each.shape[1]).astype(np.float32))
        update_P: Tensor = -2.0 * (clipped.sum(dim=0) + noise_P) / 64
        return update_P

    def _samples(self, count: int, *, tilt: float) -> tuple[Tensor, Tensor]:
        """Draw tokens, skewed by a node's tilt, and the teacher's labels of them."""
        chance = np.exp(-tilt * np.arange(16) / 16)
        tokens_BT = self._draw.choice(16, size=(count, 12), p=chance / chance.sum())
        hot = np.eye(16)[tokens_BT].reshape(count, -1)
        labels_B = (hot @ self._teacher + self._draw.gumbel(size=(count, CLASSES))).argmax(axis=1)
        return torch.from_numpy(tokens_BT), torch.from_numpy(labels_B)

    def _logits(self, theta_P: Tensor, tokens_BT: Tensor) -> Tensor:
        parameters, start = {}, 0
        for name, shape in self._shapes:
            parameters[name] = theta_P[start : start + shape.numel()].view(shape)
            start += shape.numel()
        logits_BC: Tensor = functional_call(self._model, parameters, (tokens_BT,))
        return logits_BC

    def _loss(self, theta_P: Tensor, tokens_BT: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(theta_P, tokens_BT), labels_B)

    def _expansion(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the gains at theta, and the curvatures by the Hessian and by Gauss-Newton in output space."""
        tokens_BT, labels_B = self._held_out

        def loss(theta_P: Tensor) -> Tensor:
            return self._loss(theta_P, tokens_BT, labels_B)

        def logits(theta_P: Tensor) -> Tensor:
            return self._logits(theta_P, tokens_BT)

        def along(function: Callable[[Tensor], Tensor], update_P: Tensor) -> Any:
            return jvp(function, (self.theta_P,), (update_P,))[1]

        gains_N = -(self.updates_NP @ grad(loss)(self.theta_P))
        hessian_NN = -torch.stack([self.updates_NP @ along(grad(loss), update_P) for update_P in self.updates_NP])
        moved_NKC = torch.stack([along(logits, update_P) for update_P in self.updates_NP])
        chance_KC = torch.softmax(logits(self.theta_P), dim=-1)
        centred_NKC = moved_NKC - (moved_NKC * chance_KC).sum(dim=-1, keepdim=True)
        gauss_NN = -torch.einsum("nkc,mkc,kc->nm", centred_NKC, centred_NKC, chance_KC) / VALIDATION
        hessian, gauss = (_float64(matrix_NN + matrix_NN.T) / 2 for matrix_NN in (hessian_NN, gauss_NN))
        return _float64(gains_N), hessian, gauss


def _initialise(model: nn.Module, *, generator: torch.Generator) -> None:
    """Draw matrices with variance 1 / fan-in and embeddings with variance 1; norms stay ones, other vectors are 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)


def _float64(tensor: Tensor) -> FloatArray:
    return tensor.detach().numpy().astype(np.float64)
