"""An HTTPS server on loopback in the SuperLink's place: its certificate, and a clock that may be off."""

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate

from nerv_fl.deploy.layout import NODE_ENV, Deployment, read_env, write_env


@contextmanager
def serving(
    deployment: Deployment, *, ahead_s: float = 0.0, tls: bool = True, host: str = "localhost"
) -> Iterator[int]:
    """Give the port of a server with the deployment's certificate, which every node's settings then name.

    Args:
        deployment: Its folder.
        ahead_s: Seconds by which the server's clock is ahead of the true time.
        tls: Whether it speaks TLS.
        host: Name or address under which nodes reach it.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + ahead_s, usegmt=True)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("0.0.0.0", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(deployment.server.certificate, deployment.server.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        point_nodes_at(deployment, f"{host}:{server.server_port}")
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_nodes_at(deployment: Deployment, address: str) -> None:
    """Write the SuperLink's address into every node's settings."""
    for path in deployment.root.glob("node-*/machine.env"):
        write_env(path, {**read_env(path, names=NODE_ENV), "SUPERLINK": address})
