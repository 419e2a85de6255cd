"""What a machine's folder is started with: shell scripts that work wherever the folder lies.

Flower's commands must be on PATH: those of the environment that nerv_fl is installed in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nerv_fl.deploy.flower_app_bundle import write_app
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
# A proxy does not reach this machine's own addresses.
own="localhost,127.0.0.1,::1,$(hostname 2>/dev/null || echo localhost){own}"
export no_proxy="${{no_proxy:+$no_proxy,}}${{NO_PROXY:+$NO_PROXY,}}$own"
export NO_PROXY="$no_proxy"
# Every connection takes an open file.
files="$(ulimit -H -n)"
if [ "$files" = unlimited ] || [ "$files" -gt 65536 ]; then files=65536; fi
if [ "$(ulimit -S -n)" != unlimited ] && [ "$(ulimit -S -n)" -lt "$files" ]; then
  ulimit -S -n "$files" 2>/dev/null || true
fi
"""

_SUPERLINK: Final = """\
if [ ! -s state.db ]; then
  rm -f supernodes/node-*.json  # no SuperNode is registered in a new state.db; register.sh and run.sh do it again
fi
exec python -m nerv_fl.deploy.superlink --host "$BIND" --port "$PORT" \\
  --ssl-ca-certfile tls/ca.crt --ssl-certfile tls/server.crt --ssl-keyfile tls/server.key \\
  --enable-supernode-auth --superexec-auth-secret-file superexec.secret \\
  --database state.db --isolation process --disable-runtime-dependency-installation "$@"
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
  if ! said="$(flwr supernode unregister "$id" deployment 2>&1)"; then
    case "$said" in *"not found"*) ;; *) echo "$said" >&2; exit 1 ;; esac
  fi
  rm "$gone"
  echo "unregistered $id"
done
for key in supernodes/*.pub; do
  note="${key%.pub}.json"
  if [ -s "$note" ]; then continue; fi
  flwr supernode register "$key" deployment --format json > "$note.new" || true
  if grep -q "already in use" "$note.new"; then  # its note was lost, or this script was killed before it was written
    python -m nerv_fl.deploy.registered state.db "$key" > "$note.new"
  fi
  if ! grep -q node-id "$note.new"; then cat "$note.new" >&2; exit 1; fi
  mv "$note.new" "$note"
  echo "registered $key"
done
"""

_RUN: Final = """\
exec python -m nerv_fl.deploy.run_supervisor "$here"
"""

_STOP: Final = """\
touch run/stop
echo "a server at work ends after its round; run.sh goes on from there"
"""

_IS_PROGRAM: Final = """\
# Whether a process of this folder has a text in its command line: its number alone may be another program's by now.
is_program() {
  if [ -d /proc/self ] && [ "$(readlink "/proc/${1:-0}/cwd" 2>/dev/null)" != "$(pwd -P)" ]; then return 1; fi
  case "$(ps -ww -o args= -p "${1:-0}" 2>/dev/null || tr '\\0' ' ' 2>/dev/null < "/proc/${1:-0}/cmdline" || true)" in
    *"$2"*) return 0 ;;
  esac
  return 1
}
# End a SuperNode whose supernode.sh was killed: it holds the port, and the SuperLink takes it for online.
end_leftover() {
  left="$(cat supernode.child 2>/dev/null || true)"
  if is_program "$left" nerv_fl.deploy.supernode; then
    kill "$left" 2>/dev/null || true
    tries=0
    while is_program "$left" nerv_fl.deploy.supernode; do
      tries=$((tries + 1))
      if [ "$tries" -gt 150 ]; then kill -9 "$left" 2>/dev/null || true; fi
      if [ "$tries" -gt 300 ]; then echo "SuperNode, process $left, does not end" >&2; exit 1; fi
      sleep 0.2
    done
    echo "SuperNode, process $left, was left without its supernode.sh and has ended" >&2
  fi
  rm -f supernode.child
}
"""

_SUPERNODE: Final = """\
other="$(cat supernode.pid 2>/dev/null || true)"
if [ "$other" != $$ ] && is_program "$other" supernode.sh; then
  echo "supernode.pid is $other, a supernode.sh at work, expected one at a time in $here: stop.sh ends it" >&2
  exit 1
fi
echo $$ > supernode.pid
end_leftover
rm -rf flower/apps
mkdir -p flower
rm -f flower/waits-for  # whoever starts this by hand is told again what it waits for
child=
trap 'kill "$child" 2>/dev/null || true; wait "$child" || true; rm -f supernode.child supernode.pid; exit 0' INT TERM
pause=5
while :; do
  begun="$(date +%s)"
  python -m nerv_fl.deploy.supernode --superlink "$SUPERLINK" --root-certificates ca.crt \\
    --auth-supernode-private-key supernode.key --port "$RUNTIME_PORT" \\
    --node-config "node=$NODE data=\\"$here/data.h5\\" folder=\\"$here\\"" &
  child=$!
  echo "$child" > supernode.child
  status=0
  wait "$child" || status=$?
  rm -f supernode.child
  if [ "$(($(date +%s) - begun))" -ge 60 ]; then pause=5; fi
  echo "node $NODE: SuperNode ended with status $status, starts again in $pause s (stop.sh ends it for good)" >&2
  sleep "$pause" &
  child=$!
  wait "$child" || true
  pause=$((pause * 2))
  if [ "$pause" -gt 60 ]; then pause=60; fi
done
"""

_STOP_SUPERNODE: Final = """\
pid="$(cat supernode.pid 2>/dev/null || true)"
if ! is_program "$pid" supernode.sh; then
  end_leftover
  echo "no supernode.sh is at work in $here"
  exit 0
fi
kill "$pid"
tries=0
while [ -e supernode.pid ]; do  # supernode.sh removes it at its end
  tries=$((tries + 1))
  if [ "$tries" -gt 300 ]; then echo "supernode.sh, process $pid, does not end" >&2; exit 1; fi
  sleep 0.2
done
echo "supernode.sh, process $pid, has ended"
"""


def _script(what: str, body: str, *, own: str = "") -> str:
    return _HEAD.format(what=what, own=own) + body


def _server_script(what: str, body: str) -> str:
    return _script(what, body, own=",$HOST,$BIND")


SERVER_SCRIPTS: Final = {
    "superlink.sh": _server_script(
        "Start the SuperLink, which carries messages and keeps them in state.db.", _SUPERLINK
    ),
    "superexec.sh": _server_script("Start SuperExec, which starts the server of a run.", _SUPEREXEC),
    "register.sh": _server_script(
        "Register the SuperNodes of new keys, and unregister those of old ones.", _CONNECTION + _REGISTER
    ),
    "run.sh": _server_script(
        "Run the remaining rounds, from the last checkpoint on; a server that dies is started again.",
        _CONNECTION + _RUN,
    ),
    "stop.sh": _server_script("End the run after the round under way.", _STOP),
}
NODE_SCRIPTS: Final = {
    "supernode.sh": _script(
        "Start this node's SuperNode, and start it again whenever it ends.", _IS_PROGRAM + _SUPERNODE
    ),
    "stop.sh": _script("End this node's supernode.sh for good.", _IS_PROGRAM + _STOP_SUPERNODE),
}
"""By name."""


def write_server_scripts(machine: ServerMachine) -> None:
    """Write what the server's machine is started with."""
    _write_scripts(machine.root, SERVER_SCRIPTS)
    write_app(machine.root / "app")


def write_node_script(machine: NodeMachine) -> None:
    """Write what a node's machine is started with."""
    _write_scripts(machine.root, NODE_SCRIPTS)


def _write_scripts(folder: Path, scripts: Mapping[str, str]) -> None:
    for name, text in scripts.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o700)
