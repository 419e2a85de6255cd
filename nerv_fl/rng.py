"""The only source of randomness: streams named by what they are for.

A stream is addressed by a seed and a path such as ``(seed, "noise", round, node)``. Equal addresses give equal bits in
any process; different addresses give independent streams, so results cannot depend on which worker drew first. In
deployment what must stay secret, which records a node drew and its noise, comes from the operating system instead.
"""

import hashlib
import json
import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

if TYPE_CHECKING:
    import torch


_OTHER_SEED: Final = 77


class Source(Protocol):
    """What DP-SGD draws from: a seeded stream, or the operating system."""

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """Return uniform numbers in [0, 1)."""

    def standard_normal(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return standard normal numbers."""


class SystemSource:
    """Numbers from the operating system's generator: nobody can draw them again."""

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """Return uniform numbers in [0, 1), multiples of 2^-53."""
        words = np.frombuffer(os.urandom(8 * size), dtype="<u8")
        return np.asarray((words >> np.uint64(11)) * 2.0**-53, dtype=np.float64)

    def standard_normal(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return standard normal numbers, by inversion at the midpoints of 2^53 cells: none is infinite."""
        uniform = self.random(int(np.prod(size))) + 2.0**-54
        return np.asarray(ndtri(uniform), dtype=np.float64).reshape(size)


def stream(seed: int, *path: int | str) -> np.random.Generator:
    """Return the NumPy generator (Philox, keyed by 128 bits) at an address.

    Args:
        seed: Seed of the run.
        *path: What the stream is for, from general to special.

    >>> bool(stream(7, "cohort", 1).random() == stream(7, "cohort", 1).random())
    True
    >>> bool(stream(7, "cohort", 1).random() == stream(7, "cohort", 2).random())
    False
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, path), "little")))


def system_stream() -> np.random.Generator:
    """Return a NumPy generator keyed by 128 bits from the operating system, for what need not stay secret."""
    return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))


def torch_stream(seed: int, *path: int | str) -> "torch.Generator":
    """Return a CPU torch generator at an address, for initial weights: torch keeps 32 bits of a seed."""
    import torch  # noqa: PLC0415 (seconds, which generators of data need not spend)

    return torch.Generator().manual_seed(int.from_bytes(_digest(seed, path)[:4], "little"))


def global_generators() -> dict[str, bytes]:
    """Return the state of each global generator of this process, by name.

    Nothing in this project may draw from them: two equal states before and after a call show that it did not.
    """
    import torch  # noqa: PLC0415

    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (read, never drawn from)
    states = {
        "Python's random module": repr(random.getstate()).encode(),
        "NumPy's global generator": np.asarray(keys).tobytes() + repr(rest).encode(),
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["torch's generator on the GPU"] = torch.cuda.get_rng_state().cpu().numpy().tobytes()
    return states


@contextmanager
def global_generators_reseeded() -> Iterator[None]:
    """Give the global generators other states for a while: what reads them, even without drawing, then shows.

    The states from before are restored.
    """
    import torch  # noqa: PLC0415

    python, numpy_state, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        random.seed(_OTHER_SEED)
        np.random.seed(_OTHER_SEED)  # noqa: NPY002
        torch.manual_seed(_OTHER_SEED)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(of_torch)


def _digest(seed: int, path: tuple[int | str, ...]) -> bytes:
    return hashlib.blake2b(json.dumps([seed, *path]).encode(), digest_size=16).digest()
