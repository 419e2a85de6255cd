"""Local training that may stop in the middle, as a process does that is killed."""

from dataclasses import dataclass

from torch import Tensor

from nerv_fl.client.local_training import Assignment, LocalTraining
from nerv_fl.client.refusals import NodeLostError
from nerv_fl.config import RunConfig
from nerv_fl.faults import FAILED, fate_of


@dataclass(frozen=True)
class FaultyTraining:
    """Local training of a federation whose nodes may fail; honest nodes and adversaries do alike."""

    config: RunConfig
    training: LocalTraining

    def __call__(self, work: Assignment) -> Tensor:
        """Return what the node would send, had it not failed.

        Raises:
            NodeLostError: If it fails in this round; it has accounted for it by then.
        """
        if fate_of(self.config, work.round_number, work.number) == FAILED:
            raise NodeLostError(f"node {work.number} fails in the middle of round {work.round_number}")
        return self.training(work)
