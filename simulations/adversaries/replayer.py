"""The way that the encoder went last, which is public, sent as if it were learned: theta_t - theta_s, s < t.

An adversary that has seen no earlier encoder trains honestly. It keeps the last two that it was sent in its own folder,
and adds the noise that an honest update has.
"""

from pathlib import Path
from typing import Final

from safetensors.torch import load, save
from torch import Tensor

from nerv_fl.io.atomic import write_atomically
from simulations.adversaries.attack_context import Attempt

LENGTH: Final = 0.5
"""Length of the replayed part, in lengths of an honest update's noise: several times an honest gradient."""


def replayer(attempt: Attempt) -> Tensor:
    """Return the last change of the encoder, scaled, with noise of its own."""
    theta_P = attempt.work.theta_P
    earlier_P = _last_but(attempt.work.folder / "seen.safetensors", theta_P)
    if earlier_P is None:
        return attempt.train()
    noise_P, moved_P = attempt.own_noise(), theta_P - earlier_P
    replayed_P: Tensor = LENGTH * noise_P.norm() * moved_P / moved_P.norm()
    return replayed_P + noise_P


def _last_but(path: Path, theta_P: Tensor) -> Tensor | None:
    """Return the last encoder seen that is not this one, and remember this one; asked again, the answer is the same."""
    seen = load(path.read_bytes()) if path.exists() else {}
    last_P, before_P = seen.get("last"), seen.get("before")
    if last_P is not None and bool((last_P == theta_P).all()):
        return before_P
    write_atomically(path, save({"last": theta_P} | ({} if last_P is None else {"before": last_P})))
    return last_P
