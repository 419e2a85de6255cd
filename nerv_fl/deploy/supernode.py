"""Flower's SuperNode, which runs this project's app alone.

Flower runs on a node's machine whatever app the server sends, unless the app carries a signature of Flower's platform.
Here an app is compared with the one that is known, file by file, in the place where Flower would look for that
signature, and so are the name and version under which the server says it is: Flower makes a path of them. Another is
not run, and the server gets Flower's own answer to an app that cannot be verified.

What the SuperNode waits for (a server, a clock, a registration) is logged once (`nerv_fl.deploy.waiting`).

    python -m nerv_fl.deploy.supernode OPTIONS OF flower-supernode
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal as internal
from flwr.supernode.cli import flower_supernode
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from nerv_fl.deploy.flower_app_bundle import APP_ID, APP_VERSION, is_own
from nerv_fl.deploy.waiting import WaitNotice, noticing

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


def is_own_run(run: Run) -> bool:
    """Return whether a run claims to be of this project's app, in which a ServerApp asks ClientApps."""
    return (run.fab_id, run.fab_version) == (APP_ID, APP_VERSION) and run.primary_task_type == TaskType.SERVER_APP


def verifying(pull: Pull) -> Pull:
    """Return Flower's function that pulls a message and its app, with every run and app verified."""

    def pull_verified(**given: Any) -> int | None:
        get_run, get_fab = given.pop("get_run"), given.pop("get_fab")
        strange: list[Run] = []

        def get_noted(run_id: int) -> Run:
            run: Run = get_run(run_id)
            if not is_own_run(run):
                strange.append(run)
                log.error("the server starts %.100r, expected %s %s", run.fab_id, APP_ID, APP_VERSION)
            return run

        def get_verifiable(*of: Any) -> Fab:
            fab = get_fab(*of)
            content = b"" if strange else fab.content  # nothing is no app
            return Fab(hash_str=fab.hash_str, content=content, verifications={_LICENSED: "by its content"})

        verified = {"get_run": get_noted, "get_fab": get_verifiable, "trusted_entities": {"nerv_fl": "by its content"}}
        return pull(**given | verified)

    return pull_verified


def main() -> None:
    """Run Flower's SuperNode with the restriction."""
    for name in (_PULL, _VERIFY):
        if not hasattr(internal, name):
            raise RuntimeError(f"flwr.supernode has no {name}, expected flwr 1.41: no app would be verified")
    setattr(internal, _PULL, verifying(getattr(internal, _PULL)))
    setattr(internal, _VERIFY, verify_own)
    notice = WaitNotice(Path(os.environ.get("FLWR_HOME", ".")) / "waits-for")
    setattr(NodeAuthHttpInterceptor, "intercept", noticing(NodeAuthHttpInterceptor.intercept, notice))  # noqa: B010
    flower_supernode()


if __name__ == "__main__":
    main()
