"""The money: what an epoch emits, who is paid what, what a node's past says of it, and the ledger of all that moved.

emission     the schedule, and its 60 / 30 / 10 split
payment      a pool divided in integer NANO, and how unequally
reputation   how it moves, and what repeated harm costs
ledger       append-only, bound by hashes, integers only
"""

from nerv_fl.rewards.emission import TOTAL_SUPPLY_NANO, Emission, round_emission, round_pool_nano
from nerv_fl.rewards.ledger import Entry, Head, Movement
from nerv_fl.rewards.payment import Settlement, gini, lower_bounds, pay, settle
from nerv_fl.rewards.reputation import count_strikes, penalise, slash_nano, update_reputation

__all__ = [
    "TOTAL_SUPPLY_NANO",
    "Emission",
    "Entry",
    "Head",
    "Movement",
    "Settlement",
    "count_strikes",
    "gini",
    "lower_bounds",
    "pay",
    "penalise",
    "round_emission",
    "round_pool_nano",
    "settle",
    "slash_nano",
    "update_reputation",
]
