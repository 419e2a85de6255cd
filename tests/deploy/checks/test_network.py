"""Whatever keeps a node from the SuperLink is found on the node's machine: name, port, TLS, certificate, clock."""

import re
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest

from nerv_fl.deploy import certificates
from nerv_fl.deploy.layout import Deployment, read_env, write_env
from nerv_fl.deploy.renew import renew_server_certificate
from tests.deploy.tiny import problems_of
from tests.deploy.tls_server import point_nodes_at, serving
from tests.simulations.processes import free_port

Break = Callable[[Deployment], object]


def found_on_node(deployment: Deployment) -> list[str]:
    return problems_of(deployment.node(1).root, server=None)


def matches(lines: list[str], *patterns: str) -> bool:
    return len(lines) == len(patterns) and all(
        re.search(pattern, line) for pattern, line in zip(patterns, lines, strict=True)
    )


def renew_from(deployment: Deployment, *, begins_days: int, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_CLOCK_SKEW", timedelta(days=-begins_days))
    monkeypatch.setattr(certificates, "SERVER_DAYS", days)
    renew_server_certificate(deployment, host="localhost")


def other_authority_on_node(deployment: Deployment) -> None:
    certificates.make_authority(deployment.root / "other.key", deployment.node(1).ca_certificate)


def other_authority_on_server(deployment: Deployment) -> None:
    certificates.make_authority(deployment.ca_key, deployment.ca_certificate)
    renew_server_certificate(deployment, host="localhost")


def test_nothing_is_wrong_with_a_server_that_answers(deployment: Deployment) -> None:
    with serving(deployment):
        assert found_on_node(deployment) == []


def test_a_server_is_not_expected_before_anything_runs(deployment: Deployment) -> None:
    assert problems_of(deployment.root, server=None) == []
    assert problems_of(deployment.server.root, server=None) == []


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1"])
def test_a_server_that_is_down_is_named(deployment: Deployment, address: str) -> None:
    port = free_port()
    point_nodes_at(deployment, f"{address}:{port}")

    assert matches(
        found_on_node(deployment),
        rf"node-1/machine\.env: SUPERLINK is '{address}:{port}', which cannot be connected to \(Connection refused\), "
        r"expected the SuperLink there; start superlink\.sh on the server, and let its firewall pass this port",
    )


def test_a_packet_filter_that_drops_is_named(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that nothing answers, as behind a firewall that drops packets."""

    def dropped(*_: object, **__: object) -> socket.socket:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", dropped)
    assert matches(found_on_node(deployment), r"which cannot be connected to \(timed out\), expected the SuperLink")


@pytest.mark.parametrize("name", ["nowhere.invalid", "fl.example.invalid"])
def test_a_name_that_is_unknown_is_named(deployment: Deployment, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def resolver(host: str, *given: object, **more: object) -> object:
        if host == name:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    point_nodes_at(deployment, f"{name}:9092")

    assert matches(
        found_on_node(deployment),
        rf"SUPERLINK is '{name}:9092', a name that is unknown on this machine \(.*Name or service not known\), "
        r"expected a name that resolves; correct it, or make the name known in DNS or in /etc/hosts",
    )


@pytest.mark.parametrize("host", ["127.0.0.2", "127.8.8.8"])
def test_a_name_that_the_certificate_lacks_is_named(deployment: Deployment, host: str) -> None:
    with serving(deployment, host=host) as port:
        assert matches(
            found_on_node(deployment),
            rf"certificate that {host}:{port} shows is for localhost, 127\.0\.0\.1, expected {host} among them "
            r"\(.*node-1/machine\.env: SUPERLINK\); use one of these names, or set HOST",
        )


def test_a_certificate_that_was_renewed_for_another_name_is_named(deployment: Deployment) -> None:
    renew_server_certificate(deployment, host="elsewhere.example.org")
    with serving(deployment):
        assert matches(found_on_node(deployment), r"shows is for elsewhere\.example\.org, .*, expected localhost among")


@pytest.mark.parametrize("change", [other_authority_on_node, other_authority_on_server])
def test_a_certificate_of_another_authority_is_named(deployment: Deployment, change: Break) -> None:
    change(deployment)
    with serving(deployment):
        assert matches(
            found_on_node(deployment),
            r"certificate that localhost:\d+ shows is issued by another authority than .*node-1/ca\.crt .*, "
            r"expected one of the authority [0-9a-f]{16}; this is another server, or ca\.crt is of another federation",
        )


@pytest.mark.parametrize(("begins", "ends"), [(-400, -2), (3, 400)])
def test_a_certificate_that_is_shown_out_of_date_is_named(
    deployment: Deployment, begins: int, ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew_from(deployment, begins_days=begins, days=ends, monkeypatch=monkeypatch)
    with serving(deployment):
        assert matches(
            found_on_node(deployment),
            r"certificate that localhost:\d+ shows is not valid now \(certificate (has expired|is not yet valid); from "
            r"\d{4}-\d\d-\d\d to .*\), expected one that is valid by this machine's clock; call `nerv-fl deploy renew`",
        )


@pytest.mark.parametrize("days", [0, 5, 29])
def test_a_certificate_that_soon_expires_is_a_warning(
    deployment: Deployment, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew_from(deployment, begins_days=-300, days=days + 1, monkeypatch=monkeypatch)
    with serving(deployment):
        assert matches(
            found_on_node(deployment),
            rf"^warning: certificate that localhost:\d+ shows is valid from .*, {days} days from now, expected at "
            r"least 30 days; call `nerv-fl deploy renew`",
        )


def test_a_program_that_speaks_no_tls_is_named(deployment: Deployment) -> None:
    with serving(deployment, tls=False):
        assert matches(found_on_node(deployment), r"where something does not answer as the SuperLink does \(.*\), exp")


def test_a_program_that_hangs_up_is_named(deployment: Deployment) -> None:
    """The sibling: a listener that accepts and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        point_nodes_at(deployment, f"127.0.0.1:{listener.getsockname()[1]}")
        import threading

        def hang_up() -> None:
            for _ in range(2):
                listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found = found_on_node(deployment)
        thread.join()
    assert matches(found, r"where something does not answer as the SuperLink does \(.*\), expected HTTPS")


@pytest.mark.parametrize(
    ("server_ahead_s", "says"),
    [
        (-300.0, r"^clock of this machine is 5\.0 min ahead of the server's \(localhost:\d+, to within 1\.\d s\), "),
        (
            -6.5,
            r"^clock of this machine is [67] s ahead of the server's .*, expected at most 5 s ahead and 305 s behind",
        ),
        (7200.0, r"^clock of this machine is 2\.0 h behind the server's .* or the SuperLink refuses it; .* by NTP"),
        (420.0, r"^clock of this machine is (6\.9|7\.0) min behind the server's"),
        (120.0, r"^warning: clock of this machine is (1\d\d s|2\.0 min) behind the server's"),
    ],
)
def test_a_clock_that_is_off_is_named_with_how_far(deployment: Deployment, server_ahead_s: float, says: str) -> None:
    with serving(deployment, ahead_s=server_ahead_s):
        assert matches(found_on_node(deployment), says)


@pytest.mark.parametrize("server_ahead_s", [-1.5, 0.7, 30.0])
def test_a_clock_that_hardly_differs_is_not_named(deployment: Deployment, server_ahead_s: float) -> None:
    with serving(deployment, ahead_s=server_ahead_s):
        assert found_on_node(deployment) == []


@pytest.mark.parametrize("bind", ["fl..example.org", "a" * 64 + ".example.org"])
def test_an_address_to_bind_that_is_no_name_is_named(deployment: Deployment, bind: str) -> None:
    env = deployment.server.env
    write_env(env, {**read_env(env, names=("HOST", "BIND", "PORT")), "BIND": bind})
    (found,) = problems_of(deployment.server.root)

    assert re.search(
        rf"server/machine\.env: PORT is 19099 on '{bind}', which is no host name \(.*\), "
        r"expected a name or an address of this machine; correct the address$",
        found,
    )


def test_the_server_is_reached_from_its_own_machine(deployment: Deployment) -> None:
    with serving(deployment) as port:
        env = deployment.server.env
        write_env(env, {**read_env(env, names=("HOST", "BIND", "PORT")), "PORT": port})
        assert problems_of(deployment.server.root, ports=False, server=None) == []
        renew_server_certificate(deployment, host="localhost")
        (stale,) = problems_of(deployment.server.root, ports=False, server=None)
    (down,) = problems_of(deployment.server.root, ports=False, server=None)

    assert re.search(r"^warning: certificate that localhost:\d+ shows is another one, .*; restart superlink\.sh", stale)
    assert re.search(r"server/machine\.env: HOST is 'localhost:\d+', which cannot be connected to \(Conn", down)


def test_a_node_that_is_given_a_name_the_certificate_lacks_is_found_in_the_operators_folder(
    deployment: Deployment,
) -> None:
    point_nodes_at(deployment, "fl.example.org:19099")
    lines = problems_of(deployment.root)
    assert (
        sum("SUPERLINK is 'fl.example.org:19099', expected 'localhost:19099', or another" in line for line in lines)
        == 3
    )
