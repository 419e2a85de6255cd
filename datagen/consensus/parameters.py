"""Who takes part in a race, and the numbers that the simulation is made of.

Time is in units of a tenth of a second. What validators do comes at rates: what happens next depends on the
present state alone (when candidates are proposed is part of it), so a race can be continued from any of its events.
"""

from typing import Final

import numpy as np

from nerv_fl.quorum import MAX_CANDIDATES, MAX_VALIDATORS

BYZANTINE: Final = (0.05, 0.10)
"""Least and greatest part of a shard's validators that are Byzantine."""
LAGGING: Final = 0.10
OFFLINE: Final = 0.04
TAMPERING: Final = 0.9
"""Probability that a Byzantine proposer tampers with the batch."""
CAREFUL: Final = 0.5
"""Probability that the header is made to match."""

HONEST, AGAINST, EQUIVOCATES, LATE = range(4)
"""Judge and vote; vote and dispute against the evidence; vote twice; vote late, for a runner-up."""

PERSON: Final = np.dtype(
    [
        ("weight", np.float64),
        ("role", np.int64),
        ("lagging", np.int64),
        ("offline", np.int64),
        ("delay", np.float64),  # mean time until a candidate arrives
        ("pace", np.float64),  # rate of voting, once there is something to vote for
        ("stubborn", np.float64),  # what a rank of priority counts after the first round, as a part of all reputation
        ("talk", np.float64),  # rate of disputing what was judged invalid
    ]
)
"""A validator in a race; these do not change."""

CANDIDATE: Final = np.dtype(
    [
        ("publish", np.float64),
        ("valid", np.int64),
        ("priority", np.int64),
        ("proposer", np.int64),
    ]
)

CLOCK: Final = np.dtype(
    [
        ("time", np.float64),
        ("rounds", np.int64),  # that have ended
        ("deadline", np.float64),
        ("published", np.int64),
        ("winner", np.int64),  # UNDECIDED, a candidate, or NO_OUTCOME
        ("votes", np.int64),
        ("validators", np.int64),
        ("candidates", np.int64),
        ("total", np.float64),  # reputation of all validators
    ]
)
UNDECIDED: Final = -1

FIRST_VOTE, SECOND_VOTE, CONVICTED = range(3)
RECEIVED: Final = 3
VIEW: Final = RECEIVED + MAX_CANDIDATES
HAS_DISPUTED: Final = VIEW + MAX_CANDIDATES
NODE_FIELDS: Final = HAS_DISPUTED + MAX_CANDIDATES
"""Columns of a validator's state, int8: its first and second vote of the round (-1 for none), whether it was convicted
of two votes; then, of each candidate, whether it arrived, how it was judged, and whether the validator disputed it."""
GOOD, BAD = 1, 2
"""How a candidate was judged; 0 before."""

NODE_SHAPE: Final = (MAX_VALIDATORS, NODE_FIELDS)
TALLY_SHAPE: Final = (3, MAX_CANDIDATES)
LAST, NOW, AGAINST_IT = range(3)
"""Rows of the tally: reputation of the votes of the last round, of this round, and of the disputes."""

DELAY: Final = (1.0, 0.6)
"""Median, and standard deviation of the logarithm, of the mean time until a candidate arrives at a validator."""
PACE: Final = (1.2, 0.3)
"""The same of the rate at which one votes."""
LATE_PACE: Final = 0.25
"""What is left of it for who votes late."""
RUNNER_UP: Final = 0.3
"""Part of the reputation that the candidate has for which they vote, as nearly as there is one."""
STUBBORN: Final = 0.3
"""Most that a rank of priority counts after the first round, as a part of all reputation."""
TALKERS: Final = 0.4
TALK_RATE: Final = 0.7
"""Part of the validators that dispute, and their rate."""
RANK_GAP: Final = 0.3
PUBLISH_MEAN: Final = 0.9
"""A candidate is proposed after its rank times the gap, and an exponential time of this mean."""
JUDGE_RATE: Final = 3.0
EVIDENCE_RATE: Final = 0.6
SECOND_RATE: Final = 0.5
ERROR: Final = 0.004
"""Probability that a healthy validator misjudges a candidate."""
LAG_DOUBTS: Final = 0.30
LAG_MISSES: Final = 0.50
"""Probability that a lagging one judges a valid candidate invalid, and an invalid one valid."""
ROUND: Final = (6.0, 4.0, 4.0)
"""Length of each round."""
