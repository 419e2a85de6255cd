"""What a machine's folder is started with: shell scripts that work wherever the folder lies.

Flower's commands must be on PATH: those of the environment that nerv_fl is installed in.
"""

from pathlib import Path
from typing import Final

from nerv_fl.deploy.bundle import write_app
from nerv_fl.deploy.layout import NodeMachine, ServerMachine

_HEAD: Final = """\
#!/bin/sh
# {what}
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
. "$here/machine.env"
cd "$here"
umask 077
if ! command -v flower-superlink >/dev/null; then
  echo "flower-superlink is not on PATH, expected nerv_fl's environment" >&2
  exit 1
fi
export FLWR_HOME="$here/flower" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 OMP_NUM_THREADS=1
export FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.1
"""

_SUPERLINK: Final = """\
exec python -m nerv_fl.deploy.superlink --host "$BIND" --port "$PORT" \\
  --ssl-ca-certfile tls/ca.crt --ssl-certfile tls/server.crt --ssl-keyfile tls/server.key \\
  --enable-supernode-auth --superexec-auth-secret-file superexec.secret \\
  --database state.db --isolation process --disable-runtime-dependency-installation
"""

_SUPEREXEC: Final = """\
exec flower-superexec --runtime-api-address "$HOST:$PORT" --root-certificates tls/ca.crt \\
  --superexec-auth-secret-file superexec.secret
"""

_CONNECTION: Final = """\
mkdir -p flower
cat > flower/config.toml <<END
[superlink]
default = "deployment"

[superlink.deployment]
address = "$HOST:$PORT"
root-certificates = "$here/tls/ca.crt"
END
"""

_REGISTER: Final = """\
for gone in supernodes/gone-*; do
  if [ ! -e "$gone" ]; then continue; fi
  id="$(sed -n 's/.*"node-id": *"\\{0,1\\}\\([0-9][0-9]*\\).*/\\1/p' "$gone")"
  flwr supernode unregister "$id" deployment
  rm "$gone"
done
for key in supernodes/*.pub; do
  note="${key%.pub}.json"
  if [ -s "$note" ]; then continue; fi
  flwr supernode register "$key" deployment --format json > "$note.new" || true
  if ! grep -q node-id "$note.new"; then cat "$note.new" >&2; exit 1; fi
  mv "$note.new" "$note"
  echo "registered $key"
done
"""

_RUN: Final = """\
exec flwr run app deployment --stream --run-config "folder=\\"$here/run\\""
"""

_STOP: Final = """\
touch run/stop
echo "the server ends after the round under way; run.sh goes on from there"
"""

_SUPERNODE: Final = """\
trap 'kill "$child" 2>/dev/null || true; wait "$child" || true; exit 0' INT TERM
while :; do
  python -m nerv_fl.deploy.supernode --superlink "$SUPERLINK" --root-certificates ca.crt \\
    --auth-supernode-private-key supernode.key --port "$RUNTIME_PORT" \\
    --node-config "node=$NODE data=\\"$here/data.h5\\" folder=\\"$here\\"" &
  child=$!
  status=0
  wait "$child" || status=$?
  if [ "$status" -eq 0 ]; then exit 0; fi
  echo "node $NODE: SuperNode ended with status $status, starts again in 5 s. The SuperLink refuses a key that is" >&2
  echo "not registered, and for a minute after a SuperNode was killed takes it for one that is still there." >&2
  sleep 5 &
  child=$!
  wait "$child"
done
"""

SERVER_SCRIPTS: Final = {
    "superlink.sh": ("Start the SuperLink, which carries messages and keeps them in state.db.", _SUPERLINK),
    "superexec.sh": ("Start SuperExec, which starts the server of a run.", _SUPEREXEC),
    "register.sh": (
        "Register the SuperNodes of new keys, and unregister those of old ones.",
        _CONNECTION + _REGISTER,
    ),
    "run.sh": ("Run the remaining rounds, from the last checkpoint on.", _CONNECTION + _RUN),
    "stop.sh": ("End the run after the round under way.", _STOP),
}
"""By name, what it does and how."""


def write_server_scripts(machine: ServerMachine) -> None:
    """Write what the server's machine is started with."""
    for name, (what, body) in SERVER_SCRIPTS.items():
        _write_script(machine.root / name, what=what, body=body)
    write_app(machine.root / "app")


def write_node_script(machine: NodeMachine) -> None:
    """Write what a node's machine is started with."""
    _write_script(machine.root / "supernode.sh", what="Start this node's SuperNode.", body=_SUPERNODE)


def _write_script(path: Path, *, what: str, body: str) -> None:
    path.write_text(_HEAD.format(what=what) + body, encoding="utf-8")
    path.chmod(0o700)
