"""Paths of the SuperLink that SuperNodes ask for, and the header of its refusals."""

from typing import Final

FOR_NODES: Final = "/v1/fleet/"
"""Beginning of the paths that SuperNodes ask for."""

ACTIVATE: Final = "/v1/fleet/activate-node"
HEARTBEAT: Final = "/v1/fleet/send-node-heartbeat"

KIND_HEADER: Final = "nerv-fl-refusal"
"""Response header with the kind of a refusal."""
