"""The learning rate of each step: a linear warm-up, then half a cosine down to zero.

Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5, one period.
"""

import math

from nerv_fl.config import BootstrapConfig


def warm_cosine(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 1: a linear rise to the peak, then half a cosine to 0.

    >>> warm_cosine(2, peak=3.0, warmup_steps=4, steps=40), warm_cosine(40, peak=3.0, warmup_steps=4, steps=40)
    (1.5, 0.0)
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def cosine(step: int, settings: BootstrapConfig) -> float:
    """Return the share of `bootstrap.learning_rate` after `step` steps, in [0, 1].

    >>> cosine(0, BootstrapConfig(steps=40, warmup_steps=4))
    0.25
    >>> cosine(40, BootstrapConfig(steps=40, warmup_steps=4))
    0.0
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
