"""The cable that other tests cut does carry nothing then, and everything that waited afterwards."""

import socket
import threading

from tests.deploy.cable import Cable
from tests.simulations.processes import free_port, wait_for


def echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1024):
            connection.sendall(data)


def test_what_is_sent_while_it_is_cut_arrives_once_it_is_healed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        with (
            Cable(port=free_port(), target=server.getsockname()[1]) as cable,
            socket.create_connection(("127.0.0.1", cable.port), timeout=20) as client,
        ):
            client.sendall(b"one")
            assert client.recv(1024) == b"one"
            wait_for(lambda: cable.bytes_carried == 6, seconds=20)
            cable.cut()
            client.sendall(b"two")
            client.settimeout(0.5)
            try:
                came = client.recv(1024)
            except TimeoutError:
                came = b""
            assert came == b""
            assert cable.bytes_carried == 6
            cable.heal()
            client.settimeout(20)
            assert client.recv(1024) == b"two"
