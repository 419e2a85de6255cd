"""Which curvature helps KernelCV most, on the sealed and opened updates of a real round of the quickstart's encoder.

Relative L2 error against full enumeration, mean over 8 seeds, and the CPU time of each curvature: secants of the
gradient, which is what the enclave uses, exact Hessian-vector products, and Gauss-Newton from one Jacobian-vector
product a player.

    python -m benchmarks.bench_controls

Shapes: N players, K samples, P parameters, A accounts, D width.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import print_setting, print_table
from nerv_fl.client.host import NodeHost
from nerv_fl.client.node import RoundOrder
from nerv_fl.enclave.admission import AdmissionLog, open_round
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.coalition_game import RoundGame
from nerv_fl.enclave.deduplication import merge_clones
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.enclave.screening import examiner
from nerv_fl.enclave.server_update import take_step
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.losses import DRIFT_WEIGHT, sample_losses_through_table
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder, vector_hash
from nerv_fl.server.run_folder import POOLS
from nerv_fl.shapley import Control, MeanControl, QuadraticControl, estimate
from nerv_fl.shapley.exact import all_coalitions, enumerate_values
from nerv_fl.types import FloatArray
from simulations.engine import host_settings
from simulations.prepare import begin_or_resume, load_recipe, prepare

NUM_NODES = 10
BUDGETS = (100, 400)
SEEDS = 8
SETTINGS = (f"federation.num_nodes={NUM_NODES}", f"federation.cohort_size={NUM_NODES}", "data.samples_per_node=1024",
            "privacy.max_epsilon=60.0", "valuation.method=exact", "valuation.curvature=true")  # fmt: skip


def main() -> None:
    """Play both games and print their tables."""
    torch.set_num_threads(1)
    print_setting(f"One round of {NUM_NODES} nodes, quickstart preset", packages=["torch"])
    with tempfile.TemporaryDirectory() as folder:
        for kind, (game, pools, floor) in make_games(Path(folder)).items():
            print_game(kind, game, pools, floor=floor)


def print_game(kind: str, game: RoundGame, pools: Pools, *, floor: float) -> None:
    """Print one game's table."""
    everyone_N, bits_N = np.ones(NUM_NODES, dtype=np.bool_), 2 ** np.arange(NUM_NODES)
    values_CK = game.per_example(all_coalitions(NUM_NODES), num_examples=game.num_examples)
    exact_N = enumerate_values(values_CK, NUM_NODES).mean(axis=1)
    built = game.controls(everyone_N)
    curved, first = built if kind == "fixed" else reversed(built)
    expansion = Expansion(game, pools, kind=kind, floor=floor)
    rows = []
    ways: dict[str, Callable[[], list[Control]]] = {
        "first order": lambda: [first],
        "secants": lambda: game.controls(everyone_N),
        "Hessian-vector": lambda: [first, like(curved, expansion.hessian())],
        "Gauss-Newton": lambda: [first, like(curved, expansion.gauss_newton())],
    }
    for name, make in ways.items():
        start = time.process_time()
        controls = make()
        seconds = time.process_time() - start
        errors = []
        for budget in BUDGETS:
            found = [
                estimate(
                    lambda masks_MN: values_CK[masks_MN @ bits_N],
                    NUM_NODES,
                    method="kernel_cv",
                    budget=budget,
                    controls=controls,
                    tolerance=0,
                    num_examples=game.num_examples,
                    seed=seed,
                ).values
                for seed in range(SEEDS)
            ]
            errors.append(np.mean([np.linalg.norm(item - exact_N) for item in found]) / np.linalg.norm(exact_N))
        rows.append([f"{kind}, {name}", *(f"{error:.4f}" for error in errors), f"{seconds:.1f}"])
    print_table(["controls", *(f"error at {budget}" for budget in BUDGETS), "CPU s"], rows)
    print()


def like(control: Control, curvature_NN: FloatArray) -> Control:
    """Return a control with another curvature."""
    assert isinstance(control, QuadraticControl | MeanControl)
    return replace(control, curvature_NN=curvature_NN)


class Expansion:
    """Exact curvatures at x_empty along each player's move, by forward-mode and double differentiation."""

    def __init__(self, game: RoundGame, pools: Pools, *, kind: str, floor: float) -> None:
        self._encoder, self._floor = Encoder(get_preset("quickstart")), floor
        self._batch = pools.batch("search", game.sample_ids)
        self._theta_P = torch.from_numpy(game.empty_P)
        scale = NUM_NODES if kind == "mean" else 1
        self._moves_NP = torch.from_numpy(scale * game.moves().stacked())

    def hessian(self) -> FloatArray:
        """Return -<d_i, H d_j>, float64 [N, N], by differentiating the gradient once more."""
        theta_P = self._theta_P.clone().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):
            loss = self._call(Losses(self._encoder, self._floor), theta_P).mean()
            (slope_P,) = torch.autograd.grad(loss, theta_P, create_graph=True)
            rows = [torch.autograd.grad(slope_P, theta_P, move_P, retain_graph=True)[0] for move_P in self._moves_NP]
        return _symmetric(-torch.stack(rows) @ self._moves_NP.T)

    def gauss_newton(self) -> FloatArray:
        """Return minus the curvature without that of the outputs themselves, float64 [N, N]."""
        rows, outputs = [], Outputs(self._encoder)
        with sdpa_kernel(SDPBackend.MATH):
            for move_P in self._moves_NP:
                along: Any = jvp(lambda theta_P: self._call(outputs, theta_P), (self._theta_P,), (move_P,))
                rows.append(self._whitened(*along))
        whitened_NR = torch.stack(rows)
        return _symmetric(-(whitened_NR @ whitened_NR.T) / self._batch.num_samples)

    def _call(self, module: nn.Module, theta_P: Tensor) -> Any:
        pieces = theta_P.split([parameter.numel() for parameter in self._encoder.parameters()])
        named = zip(self._encoder.named_parameters(), pieces, strict=True)
        weights = {f"encoder.{name}": piece.view(parameter.shape) for (name, parameter), piece in named}
        return functional_call(module, weights, (self._batch,))

    def _whitened(self, outputs: tuple[Tensor, ...], moved: tuple[Tensor, ...]) -> Tensor:
        """Return the outputs' change in the metric of the losses: its squared length is the curvature."""
        (_, delta_square_B, logits_BAK), (drift_BD, _, moved_BAK) = outputs, moved
        chance_BAK, masked_BA = logits_BAK.softmax(dim=-1), self._batch.masked_BA.float()
        centred_BAK = moved_BAK - (moved_BAK * chance_BAK).sum(dim=-1, keepdim=True)
        share_BA = masked_BA / masked_BA.sum(dim=1, keepdim=True)
        entropy = centred_BAK * (chance_BAK * share_BA.unsqueeze(-1)).sqrt()
        drift = drift_BD * (2 * DRIFT_WEIGHT / (delta_square_B + self._floor**2)).sqrt().unsqueeze(1)
        return torch.cat([entropy.flatten(), drift.flatten()]).detach()


class Losses(nn.Module):
    """The samples' losses as a function of weights from outside."""

    def __init__(self, encoder: Encoder, floor: float) -> None:
        super().__init__()
        self.encoder, self.floor = encoder, floor

    def forward(self, batch: StateBatch) -> Tensor:
        """Return them, (B,)."""
        return sample_losses_through_table(self.encoder, batch, movement_floor=self.floor).loss_B


class Outputs(nn.Module):
    """What the losses are made of."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: StateBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the change of the residual (B, D), |sum delta|^2 (B,) and the logits (B, A, 256)."""
        blank_B1T = self.encoder.blank_tokens().expand(batch.num_samples, 1, -1)
        hidden_B4TD = self.encoder.hidden(torch.cat([batch.tokens_B3T, blank_B1T], dim=1))
        table_BAD = self.encoder.table_of(hidden_B4TD[:, 3])
        residual_B2D = self.encoder.residual(hidden_B4TD[:, :2], batch.weights_B2A, table=table_BAD)
        change_B1A = (batch.weights_B2A[:, 1] - batch.weights_B2A[:, 0]).unsqueeze(1)
        delta_BD = (change_B1A @ table_BAD).squeeze(1)
        drift_BD = residual_B2D[:, 1] - residual_B2D[:, 0]
        return drift_BD, delta_BD.square().sum(dim=1), self.encoder.balance_logits(hidden_B4TD[:, 2])


def make_games(root: Path) -> dict[str, tuple[RoundGame, Pools, float]]:
    """Train one round, open it with the run's own mock enclave and return both games with their pools and f."""
    config = load_recipe("quickstart", overrides=SETTINGS)
    folder = begin_or_resume(root / "run", config)
    prepare(folder)
    encoder = Encoder(get_preset(config.model.preset))
    floor = float(str(load_encoder(folder.bootstrap_path, encoder)["movement_floor"]))
    theta_P, identity = get_flat(encoder).numpy(), EnclaveIdentity.load(folder.enclave)
    order = RoundOrder(
        run=identity.evidence.run,
        round_number=1,
        theta_P=torch.from_numpy(theta_P.copy()),
        base_hash=vector_hash(theta_P),
        evidence=identity.evidence.to_text(),
    )
    cohort = tuple(range(NUM_NODES))
    envelopes, _ = NodeHost(host_settings(folder), constants={"movement_floor": floor}).answer(order, cohort)
    admitted = open_round(
        envelopes.values(),
        run=order.run,
        round_number=1,
        base_hash=order.base_hash,
        cohort=cohort,
        roster=folder.read_roster(),
        opening_key=identity.opening_key,
        log=AdmissionLog(root / "admitted.json"),
        num_parameters=len(theta_P),
        codec=config.training.codec,
        max_norm=np.inf,
        memory_mb=config.enclave.memory_mb,
        examine=examiner(np.zeros((0, len(theta_P)), dtype=np.float32), config=config),
    )
    given = RoundInput(
        round_number=1,
        theta_P=theta_P,
        base_hash=order.base_hash,
        optimizer=OptimizerState.empty(len(theta_P)),
        move_P=np.zeros_like(theta_P),
        cohort=cohort,
        envelopes=(),
        weights=dict.fromkeys(cohort, 1.0),
    )
    paths = {name: folder.data(name) for name in POOLS}
    pools = Pools(PoolSettings(config=config, paths=paths, constants={"movement_floor": floor}))
    players = merge_clones(admitted.updates, np.ones(NUM_NODES), groups=())
    step = take_step(given, players, evaluator=pools, config=config)
    mean = replace(config, valuation=replace(config.valuation, game="mean"))
    return {kind: (step.game(pools, chosen), pools, floor) for kind, chosen in (("fixed", config), ("mean", mean))}


def _symmetric(matrix_NN: Tensor) -> FloatArray:
    square_NN = matrix_NN.detach().numpy().astype(np.float64)
    return np.asarray((square_NN + square_NN.T) / 2)


if __name__ == "__main__":
    main()
