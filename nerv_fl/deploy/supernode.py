"""Flower's SuperNode, which runs this project's app alone.

Flower runs on a node's machine whatever app the server sends, unless the app carries a signature of Flower's platform.
Here an app is compared with the one that is known, file by file, in the place where Flower would look for that
signature: another is not run, and the server gets Flower's own answer to an app that cannot be verified.

    python -m nerv_fl.deploy.supernode OPTIONS OF flower-supernode
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from flwr.supercore.fab import Fab
from flwr.supernode import start_client_internal as internal
from flwr.supernode.cli import flower_supernode

from nerv_fl.deploy.bundle import is_own

_PULL: Final = "_pull_and_store_message"
_VERIFY: Final = "_verify_fab"
_LICENSED: Final = "valid_license"
"""What Flower wants to be told before it verifies an app at all."""

log = logging.getLogger(__name__)

Pull = Callable[..., int | None]


def verify_own(fab: Fab, _entities: Mapping[str, str]) -> bool:
    """Return whether an app is this project's; called by Flower before an app is stored."""
    if is_own(fab.content):
        return True
    log.error("the server sent another app than nerv_fl's, %d bytes: it is not run", len(fab.content))
    return False


def verifying(pull: Pull) -> Pull:
    """Return Flower's function that pulls a message and its app, with every app verified."""

    def pull_verified(**given: Any) -> int | None:
        get_fab = given.pop("get_fab")

        def get_verifiable(*of: Any) -> Fab:
            fab = get_fab(*of)
            return Fab(hash_str=fab.hash_str, content=fab.content, verifications={_LICENSED: "by its content"})

        return pull(**given | {"get_fab": get_verifiable, "trusted_entities": {"nerv_fl": "by its content"}})

    return pull_verified


def main() -> None:
    """Run Flower's SuperNode with the restriction."""
    for name in (_PULL, _VERIFY):
        if not hasattr(internal, name):
            raise RuntimeError(f"flwr.supernode has no {name}, expected flwr 1.41: no app would be verified")
    setattr(internal, _PULL, verifying(getattr(internal, _PULL)))
    setattr(internal, _VERIFY, verify_own)
    flower_supernode()


if __name__ == "__main__":
    main()
