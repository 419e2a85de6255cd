"""A round's values, step by step, on real updates: run it whole, or cell by cell in an editor that knows `# %%`.

    .venv/bin/python docs/contribution_walkthrough.py [FOLDER]

It prepares a small federation of the quickstart's encoder in FOLDER (a minute the first time), has eight nodes train
one round by DP-SGD, opens their sealed updates with the run's own mock enclave, and draws four pictures into
FOLDER/pictures. Nothing but this page ever holds single updates: the enclave lets none out.
"""

# %% The federation: the quickstart's encoder and noise, eight nodes
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from nerv_fl.client.host import NodeHost
from nerv_fl.client.node import RoundOrder
from nerv_fl.enclave.admission import AdmissionLog, open_round
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.deduplication import merge_clones
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.enclave.screening import examiner
from nerv_fl.enclave.server_update import take_step
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder, vector_hash
from nerv_fl.server.run_folder import POOLS
from nerv_fl.shapley import ShapleyResult, estimate
from nerv_fl.types import FloatArray
from simulations.engine import host_settings
from simulations.prepare import begin_or_resume, load_recipe, prepare

NUM_NODES = 8
MILLI = 1000.0
SETTINGS = ("federation.num_nodes=8", "federation.cohort_size=8", "data.samples_per_node=1024",
            "data.certify_chains=512", "privacy.max_epsilon=60.0", "valuation.method=exact")  # fmt: skip

root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="walkthrough-"))
pictures = root / "pictures"
config = load_recipe("quickstart", overrides=SETTINGS)
folder = begin_or_resume(root / "run", config)
prepare(folder)
pictures.mkdir(exist_ok=True)

# %% One round of training: what each node seals, the enclave opens
encoder = Encoder(get_preset(config.model.preset), readout=config.model.readout)
facts = load_encoder(folder.bootstrap_path, encoder)
constants = {"movement_floor": facts["movement_floor"]}
theta_P = get_flat(encoder).numpy()
identity = EnclaveIdentity.load(folder.enclave)
order = RoundOrder(
    run=identity.evidence.run,
    round_number=1,
    theta_P=torch.from_numpy(theta_P.copy()),
    base_hash=vector_hash(theta_P),
    evidence=identity.evidence.to_text(),
)
cohort = tuple(range(NUM_NODES))
envelopes, refusing = NodeHost(host_settings(folder), constants=constants).answer(order, cohort)
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
print(f"{len(admitted.nodes)} updates of {len(theta_P):,} parameters; {len(refusing)} nodes refused")

# %% They are nearly all noise: compare their lengths with what DP-SGD adds
noise_length = config.privacy.sigma * len(theta_P) ** 0.5 / config.training.expected_batch
lengths_N = np.array([np.linalg.norm(update_P) for update_P in admitted.updates])
print(f"noise alone has the length {noise_length:.3f}, the updates {lengths_N.min():.3f} to {lengths_N.max():.3f}")

# %% The server's step, and the two games on it
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
players = merge_clones(admitted.updates, np.ones(NUM_NODES), groups=())
pools = Pools(PoolSettings(config=config, paths={name: folder.data(name) for name in POOLS}, constants=constants))
step = take_step(given, players, evaluator=pools, config=config)
mean_config = replace(config, valuation=replace(config.valuation, game="mean", method="auto"))
games = {"fixed": step.game(pools, config), "mean": step.game(pools, mean_config)}
print(f"step {step.candidate.step:g}; v(N) = {games['fixed'].total:.6f} nats")


# %% Every coalition of both games, evaluated once: 256 encoders each
bits_N = 2 ** np.arange(NUM_NODES)
all_masks_MN = (np.arange(2**NUM_NODES)[:, None] & bits_N) > 0
tables = {name: game.per_example(all_masks_MN, num_examples=game.num_examples) for name, game in games.items()}


# %% Exact values
def valued(name: str, *, method: str, budget: int, seed: int = 0) -> ShapleyResult:
    """Value a game of this round; KernelCV gets the controls that the enclave would give it."""
    game = games[name]
    controls = game.controls(np.ones(NUM_NODES, dtype=np.bool_)) if method == "kernel_cv" else ()
    return estimate(
        lambda masks_MN: tables[name][masks_MN @ bits_N],
        NUM_NODES,
        method=method,
        budget=budget,
        controls=controls,
        tolerance=0.0,
        num_examples=game.num_examples,
        seed=seed,
    )


exact = {name: valued(name, method="exact", budget=2**NUM_NODES) for name in games}
for name, result in exact.items():
    low, high = result.values.min(), result.values.max()
    print(f"{name}: values {low:.6f} to {high:.6f} nats, efficiency gap {result.efficiency_gap:.1e}")

# %% Picture 1: values with their intervals. What is left of an interval is the validation sample's own error
figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for axis, (name, result) in zip(axes, exact.items(), strict=True):
    spread = np.stack([result.values - result.ci_low, result.ci_high - result.values])
    axis.errorbar(range(NUM_NODES), result.values, yerr=spread, fmt="o", capsize=3)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(title=f"{name} game", xlabel="node", xticks=range(NUM_NODES))
axes[0].set_ylabel("value, nats (95 % interval)")
figure.savefig(pictures / "values.png", dpi=120)

# %% Picture 2: how fast each estimator gets there
BUDGETS = (32, 64, 96, 128, 192)


def error(estimates: FloatArray, truth: FloatArray) -> float:
    """Return the relative L2 error."""
    return float(np.linalg.norm(estimates - truth) / np.linalg.norm(truth))


def errors(name: str, method: str, *, seeds: Sequence[int] = (0, 1, 2)) -> list[float]:
    """Return the median error at each budget."""
    truth = exact[name].values
    return [
        float(np.median([error(valued(name, method=method, budget=m, seed=seed).values, truth) for seed in seeds]))
        for m in BUDGETS
    ]


figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for axis, name in zip(axes, games, strict=True):
    for method in ("permutation", "kernel_cv"):
        found = errors(name, method)
        axis.loglog(BUDGETS, np.maximum(found, 1e-6), "o-", label=method)
        print(f"{name}, {method}: " + ", ".join(f"{m}: {value:.4f}" for m, value in zip(BUDGETS, found, strict=True)))
    axis.set(title=f"{name} game", xlabel="evaluations")
    axis.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
    axis.minorticks_off()
    axis.legend()
axes[0].set_ylabel("relative L2 error")
figure.savefig(pictures / "convergence.png", dpi=120)

# %% Picture 3: one gradient values everyone, if the game is nearly quadratic
surrogate_N = games["fixed"].first_order().mean(axis=0)
figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
axis.plot(MILLI * exact["fixed"].values, MILLI * surrogate_N, "o")
axis.axline((0, 0), slope=1, color="grey", linewidth=0.8)
axis.set(title="the midpoint surrogate", xlabel="exact value, 0.001 nats", ylabel="surrogate, 0.001 nats")
figure.savefig(pictures / "surrogate.png", dpi=120)
print(f"midpoint surrogate: relative L2 error {error(surrogate_N, exact['fixed'].values):.4f}")

# %% Picture 4: the two games disagree about who is owed what
figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
axis.plot(MILLI * exact["fixed"].values, MILLI * exact["mean"].values, "o")
axis.set(title="one round, two games", xlabel="fixed game, 0.001 nats", ylabel="mean game, 0.001 nats")
figure.savefig(pictures / "games.png", dpi=120)
print(f"pictures: {pictures}")
