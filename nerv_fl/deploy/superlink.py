"""Flower's SuperLink, of which other machines reach the part for SuperNodes alone.

Flower serves everything at one port: to SuperNodes, each request signed with a registered key, and to whoever
administers the federation, who is asked for nothing unless there is an OpenID provider. There one registers SuperNodes
and starts runs, whose code runs on every node's machine. So that part is for this machine: a request from an address
that is neither loopback nor the one it came in at is refused. A proxy on this machine would hide where requests come
from.

    python -m nerv_fl.deploy.superlink OPTIONS OF flower-superlink
"""

import ipaddress
import logging
import os
from typing import Final

from fastapi import FastAPI
from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FOR_NODES: Final = "/v1/fleet/"
"""Beginning of the paths that SuperNodes ask for."""

FORBIDDEN: Final = 403
POLICY_VIOLATION: Final = 1008
"""Status of an HTTP request, and code of a websocket (RFC 6455, section 7.4.1), that is refused."""

log = logging.getLogger(__name__)


class NodesAlone:
    """Refuses other machines everything but what SuperNodes ask for.

    Args:
        app: What answers the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan" or scope.get("path", "").startswith(FOR_NODES) or is_local(scope):
            await self._app(scope, receive, send)
            return
        asks = (scope.get("client") or ("an unknown address", 0))[0]
        log.warning("%s asked for %.100r, which is for this machine alone: refused", asks, scope.get("path", ""))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            refusal = PlainTextResponse(f"{asks} may ask for {FOR_NODES} alone\n", status_code=FORBIDDEN)
            await refusal(scope, receive, send)


def is_local(scope: Scope) -> bool:
    """Return whether a request came from this machine: from loopback, or from the address that it came in at."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server:
        return False
    return client[0] == server[0] or _is_loopback(client[0])


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Run Flower's SuperLink with the restriction."""
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # Uvicorn would believe a header that says where a request comes from
    extend = extensions.configure_app

    def restrict(app: FastAPI) -> None:
        extend(app)
        app.add_middleware(NodesAlone)

    extensions.configure_app = restrict
    flower_superlink()


if __name__ == "__main__":
    main()
