"""Start of Ray: a cluster of this machine's own, or a running one that is joined.

Everything that uses Ray begins here, so that a cluster that cannot be had is one line, in seconds, everywhere.
"""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nerv_fl.errors import ConfigError, SetupError

LOCAL: Final = "local"
LOOPBACK: Final = "127.0.0.1"

REACHED_S: Final = 10.0
"""Longest wait for the head of a cluster; Ray itself waits for minutes."""

QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}
"""Environment of Ray's processes: no telemetry, one thread each."""

SHORT_TEMPORARY: Final = Path("/tmp/ray")  # noqa: S108 (Ray's own default)
LONGEST_SOCKET: Final = 107
"""Bytes of a socket's path on Linux: `sun_path` of unix(7) without its final zero."""

_SOCKET: Final = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest that Ray appends to its folder for temporary files."""

_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""First bytes of a client and an empty SETTINGS frame. Source: RFC 9113, sections 3.4 and 6.5."""

_SETTINGS: Final = 4
_FRAME_HEADER: Final = 9

log = logging.getLogger(__name__)


def start_ray(address: str, *, num_cpus: int | None = None, env_vars: dict[str, str] | None = None) -> None:
    """Start Ray on this machine alone, or join a running cluster of which this machine is a part.

    Args:
        address: "local", which is a new cluster even where `RAY_ADDRESS` is set or another runs; or that of a cluster.
        num_cpus: Processors of a local cluster; all of the machine's if None.
        env_vars: Environment of the workers on every machine of a joined cluster; local ones inherit this process's.

    Raises:
        ConfigError: If no cluster answers at the address.
        SetupError: If a local one cannot start.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address == LOCAL:
        _start_local(num_cpus)
    else:
        _join(address, env_vars or {})


def _start_local(num_cpus: int | None) -> None:
    import ray  # noqa: PLC0415 (seconds of imports, which checking an address does not need)

    temporary = _short_temporary_folder()
    options: dict[str, Any] = {} if temporary is None else {"_temp_dir": str(temporary)}
    try:
        with _import_path_in_environment():
            ray.init(
                address=LOCAL,
                num_cpus=num_cpus,
                _node_ip_address=LOOPBACK,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                **options,
            )
    except Exception as error:
        where = temporary or Path(_default_temporary_folder())
        raise SetupError(
            f"Ray cannot start on this machine: {_first_line(error)}; expected a free port on {LOOPBACK} and room in "
            f"{where}, where its logs are"
        ) from error


@contextmanager
def _import_path_in_environment() -> Iterator[None]:
    """Let processes that are started find modules where this one does: `sys.path` itself is not inherited."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _join(address: str, env_vars: dict[str, str]) -> None:
    import ray  # noqa: PLC0415

    own: dict[str, Any] = {"_node_ip_address": LOOPBACK} if address.startswith(f"{LOOPBACK}:") else {}
    if env_vars:
        own["runtime_env"] = {"env_vars": env_vars}
    require_cluster(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error


def require_cluster(address: str) -> None:
    """Raise unless a cluster may be at an address: "local", one without a port, or one where a gRPC server answers.

    Raises:
        ConfigError: If no cluster answers there.
    """
    host, _, port = address.rpartition(":")
    if address == LOCAL or not port.isdecimal():
        return
    try:
        require_grpc(host, int(port))
    except (OSError, OverflowError, ValueError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    return ConfigError(f"ray is {address!r}, expected the address of a running cluster ({_first_line(error)})")


def require_grpc(host: str, port: int) -> None:
    """Raise unless a gRPC server, as the head of a Ray cluster is, answers at an address.

    Raises:
        OSError: If nothing answers within `REACHED_S`, or something else does.
    """
    with socket.create_connection((host, port), timeout=REACHED_S) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in {"", "0"}:
            return  # the answer is encrypted; Ray's own handshake comes next
        connection.settimeout(REACHED_S)
        connection.sendall(_HTTP2_PREFACE)
        header = connection.recv(_FRAME_HEADER)
    if len(header) < _FRAME_HEADER or header[3] != _SETTINGS:
        raise OSError(f"a program that is not Ray answers there: {header!r}")


def _short_temporary_folder() -> Path | None:
    """Return a folder for Ray's temporary files where its default cannot hold sockets, None where it can.

    Raises:
        SetupError: If there is none.
    """
    default = _default_temporary_folder()
    if default.isascii() and len(default + _SOCKET) <= LONGEST_SOCKET:
        return None
    log.info("Ray's temporary files go to %s: %s is too long or not ASCII", SHORT_TEMPORARY, default)
    try:
        SHORT_TEMPORARY.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=SHORT_TEMPORARY):
            return SHORT_TEMPORARY
    except OSError as error:
        longest = LONGEST_SOCKET - len(_SOCKET)
        raise SetupError(
            f"Ray's temporary files would go to {default!r} (from RAY_TMPDIR or TMPDIR), expected an ASCII path of at "
            f"most {longest} bytes, and {SHORT_TEMPORARY} cannot be written ({error.strerror}): set RAY_TMPDIR"
        ) from error


def _default_temporary_folder() -> str:
    system = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or str(SHORT_TEMPORARY.parent)
    return str(Path(system) / "ray")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
