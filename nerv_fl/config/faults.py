"""What goes wrong with a simulation's nodes: chances to be out of reach, to fail and to be late."""

from dataclasses import dataclass

from nerv_fl.validation import in_range


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """How often nodes fail a simulated round; `nerv_fl.faults` draws who does. A deployed node refuses any.

    `offline` and `failure` are the chances that a node is never reached in a round, and that it stops in the middle of
    it, its privacy spent and nothing sent. An answer takes a log-normal simulated time: its median is `median_s`, its
    logarithm spreads by `spread` from round to round and by `node_spread` from node to node, so that some are slow for
    good. Whoever needs longer than `deadline_s` is not heard; 0 waits for everybody.
    """

    offline: float = 0.0
    failure: float = 0.0
    deadline_s: float = 0.0
    median_s: float = 60.0
    spread: float = 0.5
    node_spread: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability, and times without end."""
        in_range("faults.offline", self.offline, low=0, high=1)
        in_range("faults.failure", self.failure, low=0, high=1)
        in_range("faults.deadline_s", self.deadline_s, low=0, high=1e9)
        in_range("faults.median_s", self.median_s, low=0, high=1e9, open_low=True)
        in_range("faults.spread", self.spread, low=0, high=10)
        in_range("faults.node_spread", self.node_spread, low=0, high=10)

    @property
    def any(self) -> bool:
        """Whether anything goes wrong at all."""
        return bool(self.offline or self.failure or self.deadline_s)
