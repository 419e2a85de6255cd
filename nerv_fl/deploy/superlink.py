"""Flower's SuperLink, with limits on what other machines may ask of it.

Flower serves everything at one port: to SuperNodes, each request signed with a registered key, and to whoever
administers the federation, who is asked for nothing unless there is an OpenID provider. There one registers SuperNodes
and starts runs, whose code runs on every node's machine. So that part is for this machine: a request from an address
that is neither loopback nor the one it came in at is refused. A proxy on this machine would hide where requests come
from. Connections (`nerv_fl.deploy.connections`) and SuperNodes' requests (`nerv_fl.deploy.fleet_guard`) have limits.

    python -m nerv_fl.deploy.superlink [--model FILE] [--max-connections N] OPTIONS OF flower-superlink
"""

import argparse
import asyncio
import ipaddress
import logging
import os
import socket
import sys
from asyncio import sslproto
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nerv_fl.deploy.connections import (
    MAX_CONNECTIONS,
    ConnectionLimits,
    Connections,
    LimitedListener,
    Peer,
    connection_limits,
)
from nerv_fl.deploy.fleet_guard import FleetGuard, OutOfService
from nerv_fl.deploy.fleet_paths import FOR_NODES
from nerv_fl.deploy.refusals import RefusalLog

FORBIDDEN: Final = 403
POLICY_VIOLATION: Final = 1008
"""Status of an HTTP request, and code of a websocket (RFC 6455, section 7.4.1), that is refused."""

MODEL: Final = Path("run/bootstrap.safetensors")
"""The first model of the run, in the folder that the start script works in."""

BODY_MARGIN_BYTES: Final = 2**20
MAX_HEADER_BYTES: Final = 16 * 1024
TLS_BUFFER_BYTES: Final = 64 * 1024
"""Of each connection, in place of asyncio's 256 KiB, which it has before the other side sent anything."""

SWEEP_INTERVAL_S: Final = 1.0


class NodesAlone:
    """Refuses other machines everything but what SuperNodes ask for.

    Args:
        app: What answers the rest.
        refusals: Where refusals are counted.
    """

    def __init__(self, app: ASGIApp, *, refusals: RefusalLog) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        is_for_nodes = scope["type"] == "http" and scope.get("path", "").startswith(FOR_NODES)
        if scope["type"] == "lifespan" or is_for_nodes or is_local(scope):
            await self._app(scope, receive, send)
            return
        asks = (scope.get("client") or ("an unknown address", 0))[0]
        path = scope.get("path", "")
        self._refusals.add("request that is for this machine alone", f"{asks} asked for {path!r:.100}")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            text, headers = f"{asks} may ask for {FOR_NODES} alone\n", {"connection": "close"}
            refusal = PlainTextResponse(text, status_code=FORBIDDEN, headers=headers)
            await refusal(scope, receive, send)


class ConnectionWatch:
    """Tells open connections which of them have a request, and closes those that are slow to send one.

    Args:
        app: What answers requests.
        connections: The open connections.
        refusals: What is logged once a minute.
    """

    def __init__(self, app: ASGIApp, *, connections: Connections, refusals: RefusalLog) -> None:
        self._app = app
        self._connections = connections
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] == "lifespan":
            await self._while_serving(scope, receive, send)
            return
        client = scope.get("client") or ("", 0)
        peer: Peer = (client[0], client[1])
        self._connections.began_request(peer)
        try:
            await self._app(scope, receive, send)
        finally:
            self._connections.ended_request(peer)

    async def _while_serving(self, scope: Scope, receive: Receive, send: Send) -> None:
        sweeping = asyncio.create_task(self._sweep())
        try:
            await self._app(scope, receive, send)
        finally:
            sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self._connections.close_slow()
            self._refusals.flush()


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


def restrict(app: FastAPI, *, max_body_bytes: int, connections: Connections, refusals: RefusalLog) -> None:
    """Put the limits around Flower's app."""

    def is_registered(key: bytes) -> bool:
        return app.state.linkstate_factory.state().get_node_id_by_public_key(key) is not None

    app.user_middleware.append(Middleware(OutOfService, refusals=refusals))  # the innermost
    app.add_middleware(FleetGuard, is_registered=is_registered, max_body_bytes=max_body_bytes, refusals=refusals)
    app.add_middleware(NodesAlone, refusals=refusals)
    app.add_middleware(ConnectionWatch, connections=connections, refusals=refusals)


def serve(app: ASGIApp, *, connections: Connections, **options: Any) -> None:
    """Serve in place of `uvicorn.run`, at a socket that accepts within limits.

    asyncio's own loop accepts through that socket (uvloop would not), and h11 limits the size of headers.
    """
    settings = {"http": "h11", "ws": "none", "loop": "asyncio", "h11_max_incomplete_event_size": MAX_HEADER_BYTES}
    config = uvicorn.Config(app, **options | settings)
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[LimitedListener(_listening(config), connections=connections)])
    if not server.started:
        sys.exit(1)


def _listening(config: uvicorn.Config) -> socket.socket:
    """Return the bound socket, and log its address once it listens; connections wait until the server has started."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=config.backlog)
    except OSError as error:
        sys.exit(f"cannot listen on {config.host}:{config.port} ({error.strerror}), expected a free address")
    logging.getLogger("uvicorn.error").info("Uvicorn running on https://%s:%d", config.host, config.port)
    return listening


def largest_body_bytes(model: Path) -> int:
    """Return the most bytes that a request of a SuperNode may have: twice the model, and a margin.

    An envelope has at most four bytes a parameter, and a model's file at least two.

    Raises:
        OSError: If the file is missing.
    """
    return 2 * model.stat().st_size + BODY_MARGIN_BYTES


def chosen_limits(max_connections: int) -> ConnectionLimits:
    """Return the limits that an option asks for, and say so where the process needs or has others.

    Raises:
        SystemExit: If the option is below 1.
    """
    if max_connections < 1:
        sys.exit(f"--max-connections is {max_connections}, expected 1 or more")
    limits = connection_limits(max_connections)
    if limits.total != max_connections:
        is_raised = limits.total > max_connections
        why = "fewer would keep out this machine itself" if is_raised else "ulimit -n allows no more open files"
        sys.stderr.write(f"--max-connections is {max_connections}, taken for {limits.total}: {why}\n")
    return limits


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Flower's SuperLink with the restrictions."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--max-connections", type=int, default=MAX_CONNECTIONS)
    own, rest = parser.parse_known_args(arguments)
    limits = chosen_limits(own.max_connections)
    try:
        max_body_bytes = largest_body_bytes(own.model)
    except OSError as error:
        sys.exit(
            f"--model is {str(own.model)!r} ({error.strerror}), expected the run's first model: it limits requests"
        )
    sys.argv[1:] = rest
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # Uvicorn would believe a header that says where a request comes from
    sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    refusals = RefusalLog()
    connections = Connections(limits, refusals=refusals)
    extend = extensions.configure_app

    def configure(app: FastAPI) -> None:
        extend(app)
        restrict(app, max_body_bytes=max_body_bytes, connections=connections, refusals=refusals)

    extensions.configure_app = configure
    uvicorn.run = partial(serve, connections=connections)
    flower_superlink()


if __name__ == "__main__":
    main()
