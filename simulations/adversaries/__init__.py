"""Nodes that cheat: one attack a file, each a function from an `Attempt` to the update it sends.

    sybil          one update under many names
    splitter       one shard registered as many small nodes
    free_rider     zeros
    sign_flip      the update, reversed
    scaled         the update, made longer
    fabricated     training on invented balances
    colluder       the update, moved along a vector that the group shares
    replayer       the way that the encoder went last
    noisy_copy     one batch's gradient under many names, each with noise of its own
    noise_skipper  the gradient without its noise, stretched to the length of an honest update
    amplifier      the honest noise, but a longer gradient
    rejoiner       reverses its update under one name, then under another

A new attack is a file, a line in `ATTACKS` and a fraction in `AdversariesConfig`.
"""

from simulations.adversaries.roles import Role, assign_roles
from simulations.adversaries.training import ATTACKS, AdversarialTraining

__all__ = ["ATTACKS", "AdversarialTraining", "Role", "assign_roles"]
