"""Proxy variables that would take a machine's requests to the SuperLink elsewhere.

Flower's SuperNode asks through httpx, which reads `https_proxy`, `all_proxy` and `no_proxy` in either case, the lower
one first. `http_proxy` is for http:// addresses and `grpc_proxy` for gRPC: Flower 1.41 uses neither for the SuperLink.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Final

from nerv_fl.deploy.checks.machines import Endpoint, NodeView, ServerView
from nerv_fl.deploy.diagnostics import Finding, Severity

VARIABLES: Final = ("https_proxy", "all_proxy")
"""In the order in which they are taken."""

OWN_NAMES: Final = ("localhost", "127.0.0.1", "::1")
"""What every start script adds to `no_proxy`, besides the host's name."""


def no_proxy_covers_the_server(machine: NodeView | ServerView) -> Iterator[Finding]:
    """Find a proxy through which requests to the SuperLink would go."""
    if not machine.here:
        return
    endpoint = machine.endpoint
    variable = covering_variable(_environment_of_scripts(machine), host=endpoint.host, port=endpoint.port)
    if variable is not None and not _is_loopback(endpoint.host):
        yield _finding(variable, machine.options.environment[variable], endpoint=endpoint)


def _environment_of_scripts(machine: NodeView | ServerView) -> Mapping[str, str]:
    """Return the environment that the start scripts make: they add the machine's own names to both spellings."""
    given = machine.options.environment
    own = [*OWN_NAMES, socket.gethostname()]
    if isinstance(machine, ServerView):
        own += [machine.env["HOST"], machine.env["BIND"]]
    joined = ",".join(filter(None, (given.get("no_proxy"), given.get("NO_PROXY"), *own)))
    return {**given, "no_proxy": joined, "NO_PROXY": joined}


def covering_variable(environment: Mapping[str, str], *, host: str, port: int) -> str | None:
    """Return the variable that names the proxy for https://host:port, None if the request is made directly.

    >>> covering_variable({"HTTPS_PROXY": "proxy:3128"}, host="fl.example.org", port=9092)
    'HTTPS_PROXY'
    >>> covering_variable({"all_proxy": "proxy:3128", "no_proxy": "example.org"}, host="fl.example.org", port=9092)
    """
    variable = next(filter(None, (_spelling(environment, name) for name in VARIABLES)), None)
    if variable is None:
        return None
    without = environment.get(_spelling(environment, "no_proxy") or "", "")
    entries = [entry.strip() for entry in without.split(",") if entry.strip()]
    if any(_matches(entry, host=host, port=port) for entry in entries):
        return None
    return variable


def without_credentials(proxy: str) -> str:
    """Return a proxy's address without the user and password that it may hold.

    >>> without_credentials("http://alice:secret@proxy.example.org:3128/")
    'http://proxy.example.org:3128'
    """
    scheme, separator, rest = proxy.rpartition("://")
    return f"{scheme}{separator}{rest.split('/')[0].rpartition('@')[2]}"


def _spelling(environment: Mapping[str, str], name: str) -> str | None:
    """Return the variable that is in force: the lower case wins, and an empty one takes the other away."""
    if name in environment:
        return name if environment[name] else None
    return next((key for key, value in environment.items() if key.lower() == name and value), None)


def _matches(entry: str, *, host: str, port: int) -> bool:
    """Return whether an entry of no_proxy covers an address: a name covers what ends in it, at a dot."""
    if entry == "*":
        return True
    scheme, separator, rest = entry.lower().rpartition("://")
    if separator and scheme not in {"https", "all"}:
        return False
    if rest.count(":") > 1:  # an IPv6 address has no port here
        return rest.strip("[]") == host.lower()
    name, _, wanted = rest.partition("/")[0].partition(":")
    if wanted and wanted != str(port):
        return False
    return _name_matches(name, host.lower(), whole=bool(separator) or name == "localhost")


def _name_matches(name: str, host: str, *, whole: bool) -> bool:
    if whole or _is_address(name):
        return host == name
    inner = name.startswith(".")
    return bool(re.fullmatch(rf"{'.+' if inner else '(.+[.])?'}{re.escape(name)}", host))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    """Return whether a host is loopback, for which the scripts set `no_proxy` themselves."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _finding(variable: str, value: str, *, endpoint: Endpoint) -> Finding:
    return Finding(
        what=f"environment variable {variable}",
        value=f"is {without_credentials(value)!r}, a proxy that requests to {endpoint.address} go through",
        expected=f"{endpoint.host} in no_proxy",
        remedy=f'export no_proxy="$no_proxy,{endpoint.host}" where the scripts are started, unless the proxy is the '
        "only way there",
        severity=Severity.WARNING,
    )
