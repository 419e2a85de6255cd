"""A proxy that would take requests to the SuperLink elsewhere is named, as httpx would choose it."""

import itertools
import socket
from collections.abc import Mapping

import httpx
import pytest
from httpx._utils import URLPattern, get_environment_proxies

from nerv_fl.deploy.check import check_folder
from nerv_fl.deploy.checks.machines import CheckOptions
from nerv_fl.deploy.checks.proxy import covering_variable, without_credentials
from nerv_fl.deploy.layout import SERVER_ENV, Deployment, read_env, write_env
from tests.deploy.tls_server import point_nodes_at

HOSTS = ("fl.example.org", "example.org", "10.1.2.3", "localhost", "notexample.org", "FL.Example.org")
NO_PROXY = (
    "",
    "*",
    "example.org",
    ".example.org",
    "fl.example.org:9092",
    "fl.example.org:1",
    "10.1.2.3",
    "10.1.0.0/16",
    "localhost, 10.1.2.3 ,example.org",
    "https://fl.example.org",
    "http://fl.example.org",
    "all://example.org",
    "EXAMPLE.ORG",
    "::1",
)
PROXIES: tuple[dict[str, str], ...] = (
    {},
    {"https_proxy": "http://proxy:3128"},
    {"HTTPS_PROXY": "http://proxy:3128"},
    {"ALL_PROXY": "http://proxy:3128"},
    {"all_proxy": "http://proxy:3128", "HTTPS_PROXY": "http://other:3128"},
    {"http_proxy": "http://proxy:3128", "grpc_proxy": "http://proxy:3128"},
    {"HTTPS_PROXY": "http://proxy:3128", "https_proxy": ""},
)


def httpx_uses_a_proxy(address: str, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return what httpx, through which SuperNodes ask, would do."""
    for name in ("http", "https", "all", "no", "grpc"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mounts = {URLPattern(pattern): proxy for pattern, proxy in get_environment_proxies().items()}
    url = httpx.URL(f"https://{address}/")
    return next((mounts[pattern] for pattern in sorted(mounts) if pattern.matches(url)), None) is not None


@pytest.mark.parametrize("host", HOSTS)
def test_a_proxy_covers_what_httpx_would_send_through_it(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    for proxies, (name, without) in itertools.product(PROXIES, itertools.product(("no_proxy", "NO_PROXY"), NO_PROXY)):
        environment = proxies | {name: without}
        with monkeypatch.context() as patch:
            expected = httpx_uses_a_proxy(f"{host}:9092", environment, patch)
        found = covering_variable(environment, host=host, port=9092)
        assert (found is not None) == expected, (environment, host)
        compared += 1
    assert compared == 2 * len(PROXIES) * len(NO_PROXY)


def warnings_of(deployment: Deployment, environment: dict[str, str]) -> list[str]:
    options = CheckOptions(server=False, environment=environment)
    return check_folder(deployment.node(1).root, options).lines


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_is_named_without_its_password(deployment: Deployment, variable: str) -> None:
    point_nodes_at(deployment, "127.0.0.2:9092")
    assert warnings_of(deployment, {variable: "http://alice:secret@proxy.example.org:3128"}) == []
    point_nodes_at(deployment, "ip6-localhost.invalid:9092")
    found = warnings_of(deployment, {variable: "http://alice:secret@proxy.example.org:3128"})
    assert found[-1] == (
        f"warning: environment variable {variable} is 'http://proxy.example.org:3128', a proxy that requests to "
        "ip6-localhost.invalid:9092 go through, expected ip6-localhost.invalid in no_proxy; export "
        'no_proxy="$no_proxy,ip6-localhost.invalid" where the scripts are started, unless the proxy is '
        "the only way there"
    )
    assert "secret" not in "".join(found)


@pytest.mark.parametrize("environment", [{"no_proxy": "invalid"}, {"NO_PROXY": "*"}, {}])
def test_an_address_in_no_proxy_is_not_named(deployment: Deployment, environment: dict[str, str]) -> None:
    point_nodes_at(deployment, "ip6-localhost.invalid:9092")
    proxies = {"https_proxy": "http://proxy:1"} if environment else {"http_proxy": "http://proxy:1"}
    assert not any("environment variable" in line for line in warnings_of(deployment, environment | proxies))


PROXY = {"https_proxy": "http://proxy:1"}


@pytest.mark.parametrize("environment", [PROXY, PROXY | {"no_proxy": ""}, PROXY | {"no_proxy": "example.org"}])
@pytest.mark.parametrize("setting", ["HOST", "BIND"])
def test_on_the_server_its_own_addresses_are_reached_without_a_proxy(
    deployment: Deployment, setting: str, environment: dict[str, str]
) -> None:
    machine = deployment.server
    write_env(machine.env, {**read_env(machine.env, names=SERVER_ENV), "HOST": "fl.invalid", setting: "fl.invalid"})
    found = check_folder(machine.root, CheckOptions(server=False, environment=environment)).lines
    assert not any("environment variable" in line for line in found)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        (PROXY | {"no_proxy": "example.org", "NO_PROXY": "node.invalid"}, False),
        (PROXY | {"no_proxy": "example.org", "NO_PROXY": "example.com"}, True),
    ],
)
def test_both_spellings_of_no_proxy_count_as_in_the_scripts(
    deployment: Deployment, environment: dict[str, str], named: bool
) -> None:
    point_nodes_at(deployment, "node.invalid:9092")
    assert any("environment variable" in line for line in warnings_of(deployment, environment)) == named


def test_the_machines_own_name_is_reached_without_a_proxy(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node.invalid")
    point_nodes_at(deployment, "node.invalid:9092")
    assert not any("environment variable" in line for line in warnings_of(deployment, PROXY))


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [("http://a:b@c:1", "http://c:1"), ("a:b@c:1", "c:1"), ("http://c:1/path?x=a@b", "http://c:1"), ("c", "c")],
)
def test_credentials_are_left_out(proxy: str, shown: str) -> None:
    assert without_credentials(proxy) == shown
