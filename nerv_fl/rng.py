"""The only source of randomness: streams named by what they are for.

A stream is addressed by a seed and a path such as ``(seed, "noise", round, node)``. Equal addresses give equal
bits in any process; different addresses give independent streams, so results cannot depend on which
worker drew first. In deployment a node's streams come from the operating system instead.
"""

import hashlib
import json
import secrets

import numpy as np
import torch


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


def torch_stream(seed: int, *path: int | str) -> torch.Generator:
    """Return a CPU torch generator at an address (see `stream`); its seed has 64 bits."""
    return torch.Generator().manual_seed(int.from_bytes(_digest(seed, path)[:8], "little"))


def system_stream() -> np.random.Generator:
    """Return a NumPy generator keyed by 128 bits from the operating system, for deployment."""
    return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))


def system_torch_stream() -> torch.Generator:
    """Return a torch generator seeded with 64 bits from the operating system, for deployment."""
    return torch.Generator().manual_seed(secrets.randbits(64))


def _digest(seed: int, path: tuple[int | str, ...]) -> bytes:
    return hashlib.blake2b(json.dumps([seed, *path]).encode(), digest_size=16).digest()
