"""What a round leaves behind: the records of `rounds.jsonl` and `rewards.csv`.

Other programs read these files; a field's name, unit and meaning are a contract. A number that does not exist (no
update was heard, nothing was valued) is null, never zero.
"""

from nerv_fl.records.rewards import REWARD_COLUMNS, RewardRow, read_rewards, rewards_to_csv
from nerv_fl.records.rounds import (
    FINAL_CLOSED,
    STOPPED,
    EpsilonSpread,
    FinalPool,
    GateSummary,
    NodeCounts,
    RewardsSummary,
    RoundRecord,
    Seconds,
    ShapleySummary,
    ValueSummary,
    final_measures,
    read_rounds,
    round_from_json,
    to_json,
)
from nerv_fl.records.standing import Drift, EncoderStanding, Homomorphism, MaskedCrossEntropy, Standing

__all__ = [
    "FINAL_CLOSED",
    "REWARD_COLUMNS",
    "STOPPED",
    "Drift",
    "EncoderStanding",
    "EpsilonSpread",
    "FinalPool",
    "GateSummary",
    "Homomorphism",
    "MaskedCrossEntropy",
    "NodeCounts",
    "RewardRow",
    "RewardsSummary",
    "RoundRecord",
    "Seconds",
    "ShapleySummary",
    "Standing",
    "ValueSummary",
    "final_measures",
    "read_rewards",
    "read_rounds",
    "rewards_to_csv",
    "round_from_json",
    "to_json",
]
