"""Shapley values at the same number of evaluations: ours against shap, shapiq and a plain permutation sampler.

Relative L2 error |phi' - phi| / |phi| against full enumeration, mean over the seeds:

    python -m benchmarks.bench_shapley [--seeds 8] [--quick]

shapiq comes with an extra, `pip install '.[peers]'`; without it its columns are left out.
"""

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.measure import print_setting, print_table
from benchmarks.shapley_games import STRUCTURED, Played, UpdateGame
from nerv_fl.rng import stream
from nerv_fl.shapley import Game, MeanControl, estimate
from nerv_fl.shapley.exact import all_coalitions, enumerate_values
from nerv_fl.types import FloatArray

Estimator = Callable[[Played, int, int, int], FloatArray]
"""(game, N, budget, seed) -> values [N]."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="The structured games alone.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    estimators = {"ours": ours, "permutation": permutation, **through_shap(), **through_shapiq()}
    print_setting(f"Relative L2 error, mean over {arguments.seeds} seeds", packages=["numpy", "shap", "torch"])
    rows = []
    for name, make in STRUCTURED.items():
        for num_players in (12, 16):
            games = [Played(make(num_players, stream(seed, name)), []) for seed in range(arguments.seeds)]
            rows.append((f"{name}, N = {num_players}", 32 * num_players, games, num_players))
    print_errors(rows, estimators)
    if not arguments.quick:
        print_errors(update_rows(arguments.seeds), estimators)
        print_large(arguments.seeds)
    print_orders()


def update_rows(num_seeds: int) -> list[tuple[str, int, list[Played], int]]:
    """Return the games of real updates at both budgets."""
    rows = []
    for model in ("mlp", "transformer"):
        for num_players in (12, 14):
            rounds = [UpdateGame(model, num_players, seed=seed) for seed in range(num_seeds)]
            for kind in ("mean", "fixed"):
                games = [round_.play(kind) for round_ in rounds]
                rows += [(f"{kind}, {model}, N = {num_players}", budget, games, num_players) for budget in (128, 512)]
    return rows


def print_errors(rows: list[tuple[str, int, list[Played], int]], estimators: Mapping[str, Estimator]) -> None:
    """Print a table with a row a game and a column an estimator."""
    exact: dict[int, FloatArray] = {}
    table = []
    for title, budget, games, num_players in rows:
        errors = defaultdict(list)
        for seed, played in enumerate(games):
            if id(played) not in exact:
                exact[id(played)] = enumerate_values(played.game(all_coalitions(num_players))[:, None], num_players)[
                    :, 0
                ]
            for name, estimator in estimators.items():
                values_N = estimator(played, num_players, budget, seed)
                errors[name].append(relative_error(values_N, exact[id(played)]))
        table.append([title, str(budget), *(f"{np.mean(errors[name]):.4f}" for name in estimators)])
        print(" ".join(table[-1]), flush=True)
    print()
    print_table(("game", "evaluations", *estimators), table)
    print()


def print_large(num_seeds: int) -> None:
    """Print errors at N = 100 against a reference with a stated standard error."""
    table = []
    for seed in range(min(num_seeds, 4)):
        played = UpdateGame("mlp", 100, seed=seed).play("mean")
        reference = estimate(
            played.game, 100, method="audit", budget=2000, controls=played.controls, seed=1000, tolerance=0
        )
        result = estimate(played.game, 100, budget=1000, controls=played.controls, tolerance=0, seed=seed)
        table.append(
            [
                str(seed),
                result.method,
                f"{relative_error(result.values, reference.values):.4f}",
                f"{np.linalg.norm(reference.standard_errors) / np.linalg.norm(reference.values):.4f}",
            ]
        )
    print_table(("mean, mlp, N = 100: seed", "method", "error at 1,000", "reference's own"), table)
    print()


def print_orders() -> None:
    """Print the CPU time of 10,000 orders on a control of 1,000 players with unequal weights."""
    draw = stream(0, "orders")
    root_NN = draw.normal(size=(1000, 1000))
    control = MeanControl(draw.normal(size=1000), draw.random(1000) + 0.5, root_NN + root_NN.T)
    MeanControl(np.ones(2), np.array([1.0, 2.0]), np.eye(2)).shapley()  # compiles
    start = time.process_time()
    control.shapley()
    print(f"10,000 orders on a control of 1,000 players: {time.process_time() - start:.2f} CPU s")


def relative_error(values_N: FloatArray, exact_N: FloatArray) -> float:
    """Return |values - exact| / |exact|."""
    return float(np.linalg.norm(values_N - exact_N) / np.linalg.norm(exact_N))


def ours(played: Played, num_players: int, budget: int, seed: int) -> FloatArray:
    """KernelCV, with the controls where there are any."""
    return estimate(
        played.game, num_players, method="kernel_cv", budget=budget, controls=played.controls, tolerance=0, seed=seed
    ).values


def permutation(played: Played, num_players: int, budget: int, seed: int) -> FloatArray:
    """Plain random orders."""
    draw, total_N, orders = stream(seed, "plain"), np.zeros(num_players), max(1, (budget - 2) // (num_players - 1))
    for _ in range(orders):
        order_N = draw.permutation(num_players)
        arrival_N = np.argsort(order_N)
        path = played.game(arrival_N[None, :] < np.arange(num_players + 1)[:, None])
        total_N[order_N] += np.diff(path)
    return total_N / orders


def through_shap() -> dict[str, Estimator]:
    """Return shap's model-agnostic estimators."""
    import shap  # noqa: PLC0415

    def kernel(played: Played, num_players: int, budget: int, seed: int) -> FloatArray:
        explainer = shap.KernelExplainer(on_floats(played.game), np.zeros((1, num_players)), seed=seed)
        found = explainer.shap_values(np.ones((1, num_players)), nsamples=budget - 2, l1_reg=False, silent=True)
        return np.asarray(found[0], dtype=np.float64)

    def orders(played: Played, num_players: int, budget: int, seed: int) -> FloatArray:
        explainer = shap.PermutationExplainer(on_floats(played.game), np.zeros((1, num_players)), seed=seed)
        rounds = max(1, budget // (2 * num_players + 1))
        found = explainer(np.ones((1, num_players)), max_evals=rounds * (2 * num_players + 1), silent=True)
        return np.asarray(found.values[0], dtype=np.float64)

    return {"shap Kernel": kernel, "shap Permutation": orders}


def through_shapiq() -> dict[str, Estimator]:
    """Return shapiq's estimators of Shapley values, none if it is not installed."""
    try:
        import shapiq.approximator as approximators  # noqa: PLC0415
    except ImportError:
        return {}

    def of(make: Callable[[int, int], Any]) -> Estimator:
        def run(played: Played, num_players: int, budget: int, seed: int) -> FloatArray:
            empty = float(played.game(np.zeros((1, num_players), dtype=np.bool_))[0])

            def shifted(masks: FloatArray) -> FloatArray:
                return played.game(np.atleast_2d(np.asarray(masks, dtype=np.bool_))) - empty

            found = make(num_players, seed).approximate(budget, shifted)
            return np.array([float(found[(player,)]) for player in range(num_players)])

        return run

    return {
        "shapiq Kernel": of(lambda n, s: approximators.KernelSHAP(n, pairing_trick=True, random_state=s)),
        "shapiq Unbiased": of(lambda n, s: approximators.UnbiasedKernelSHAP(n, pairing_trick=True, random_state=s)),
        "shapiq SVARM": of(lambda n, s: approximators.SVARM(n, pairing_trick=True, random_state=s)),
        "shapiq Permutation": of(lambda n, s: approximators.PermutationSamplingSV(n, random_state=s)),
        "shapiq Stratified": of(lambda n, s: approximators.StratifiedSamplingSV(n, random_state=s)),
    }


def on_floats(game: Game) -> Callable[[FloatArray], FloatArray]:
    """Return a game on masks of 0.0 and 1.0, as shap has them."""
    return lambda masks_MN: game(masks_MN > 0.5)


if __name__ == "__main__":
    main()
