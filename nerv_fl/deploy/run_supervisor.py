"""Supervision of a deployment's run: a server that ends before the last round is started again.

    python -m nerv_fl.deploy.run_supervisor FOLDER OF THE SERVER

`flwr run` shows a run's log and then returns 0, however the run ended, and returns early where its stream breaks. The
run folder tells more: its lock is held as long as the server lives, and its files say how far it came. So nothing here
imports torch or Flower: this process waits for days beside the one that works.
"""

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar

from nerv_fl.errors import CheckpointError
from nerv_fl.io.locks import hold, holder_of
from nerv_fl.records import FINAL_CLOSED, STOPPED

MAX_FAILURES: Final = 5
"""Starts in a row that add no round."""

FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 60.0
POLL_S: Final = 1.0
START_S: Final = 60.0
"""Time until it is said that no server has started; nothing is ended for it."""

BROKEN_STREAM_S: Final = 30.0
"""Time in which a server may still start although the log stream failed."""

STREAM_S: Final = 10.0
"""Time that the log stream gets to end after its server ended."""

Say: TypeAlias = Callable[[str], None]
"""Called with a line for the operator."""

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class RunFiles:
    """The files of a server's machine that say how its run stands.

    Attributes:
        server: The machine's folder.
    """

    server: Path

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.server / "run"

    @property
    def lock(self) -> Path:
        """Held by the server that is at work."""
        return self.run / ".lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the `run.sh` that is at work."""
        return self.server / "run.lock"

    @property
    def stop(self) -> Path:
        """Asks the server to end, by being there."""
        return self.run / "stop"

    @property
    def num_rounds(self) -> int:
        """Rounds of the whole run.

        Raises:
            CheckpointError: As of every property that reads a file: if it is missing or damaged, naming it.
        """
        return self._read("config.toml", lambda text: int(tomllib.loads(text)["federation"]["num_rounds"]))

    @property
    def last_round(self) -> int:
        """The last round that is recorded, 0 if there is none."""
        return self._read("rounds.jsonl", _last_round) if (self.run / "rounds.jsonl").exists() else 0

    @property
    def is_finished(self) -> bool:
        """Whether all rounds are done and the final pool was opened, or stays closed."""
        manifest = self._manifest
        is_concluded = any(manifest.get(key) is not None for key in ("final", FINAL_CLOSED))
        return self.last_round >= self.num_rounds and is_concluded

    @property
    def stopped(self) -> str | None:
        """Why a run that has done all its rounds cannot be concluded, None in any other run."""
        reason = self._manifest.get(STOPPED)
        return str(reason) if reason and self.last_round >= self.num_rounds else None

    @property
    def _manifest(self) -> Mapping[str, Any]:
        return self._read("manifest.json", lambda text: dict(json.loads(text)))

    def _read(self, name: str, parse: Callable[[str], Parsed]) -> Parsed:
        path = self.run / name
        try:
            return parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}: {error}), expected what the run wrote: "
                f"`nerv-fl recover {self.run}` restores it, then start run.sh again"
            ) from error


def _last_round(text: str) -> int:
    """Return the round of the last whole line: a resumed run cuts off what follows it."""
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return int(json.loads(whole[-1])["round"]) if whole else 0


@dataclass
class Supervisor:
    """Starts a run's server until the run is finished.

    Attributes:
        files: The server's machine.
        start: Command that starts the run and shows its log.
        prepare: Command before each start, which must succeed.
        say: Shows a line.
        sleep: Waits so many seconds.
        clock: Monotonic seconds.
    """

    files: RunFiles
    start: Sequence[str]
    prepare: Sequence[str]
    say: Say
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _stream: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def run(self) -> int:
        """Run until the run is finished, was asked to stop, or fails too often; return the exit status."""
        failures = 0
        while True:
            before = self.files.last_round
            self._attempt()
            if self.files.is_finished:
                self.say(f"the run is finished: {self.files.last_round} rounds")
                return 0
            if self.files.stop.exists():
                self.say(f"stopped after round {self.files.last_round}; run.sh goes on from it")
                return 0
            if (reason := self.files.stopped) is not None:
                self.say(f"the run has done its {self.files.num_rounds} rounds and is not started again: {reason}")
                return 1
            failures = 1 if self.files.last_round > before else failures + 1
            if failures > MAX_FAILURES:
                self.say(
                    f"the run ended {failures} times without a new round, expected to finish round "
                    f"{self.files.last_round + 1}: given up; the reason is above or in the log of superexec.sh"
                )
                return 1
            self._pause(min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S))

    def close(self) -> None:
        """End the log stream; the server goes on."""
        if self._stream is not None and self._stream.poll() is None:
            self._stream.terminate()
            self._stream.wait()

    def _pause(self, pause_s: float) -> None:
        last, wanted = self.files.last_round, self.files.num_rounds
        self.say(f"the run ended after round {last} of {wanted}, before it was finished: starts again in {pause_s:g} s")
        until = self.clock() + pause_s
        while self.clock() < until and not self.files.stop.exists():
            self.sleep(POLL_S)

    def _attempt(self) -> None:
        """Start the run and wait until its server has ended; wait alone where one is at work already."""
        self._stream = None
        holder = holder_of(self.files.lock)
        if holder is not None:
            self.say(
                f"process {holder} holds {self.files.lock}, a server at work or another command on the run folder: "
                "waits until it ends"
            )
        elif not self.files.stop.exists():
            if subprocess.run(self.prepare, check=False).returncode != 0:  # noqa: S603 - fixed by main
                self.say(f"{self.prepare[0]} failed: is superlink.sh running?")
                return
            self._stream = subprocess.Popen(self.start)  # noqa: S603 - fixed by main
        try:
            self._watch(holder)
        finally:
            self.close()

    def _watch(self, other: str | None) -> None:
        """Wait until the server has ended, or the run ended without one.

        Args:
            other: The process that was at work before, of which there is no log stream.
        """
        begun, server, is_stream_lost, is_late = self.clock(), other, other is not None, False
        while True:
            holder = holder_of(self.files.lock)
            waited = self.clock() - begun
            if holder is None and (server is not None or not self._may_start(waited)):
                break
            if holder is not None and server is None:
                self.say(f"the server is at work: process {holder}")
            server = holder
            if server is not None and not self._is_streaming and not is_stream_lost:
                self.say("the log stream has ended, the server has not: its log goes on in that of superexec.sh")
                is_stream_lost = True
            if server is None and not is_late and waited > START_S:
                self.say(f"no server has started for {START_S:g} s: is superexec.sh running?")
                is_late = True
            self.sleep(POLL_S)
        if other is not None:
            self.say(f"process {other} has ended")
        elif server is not None:
            self._end_stream(server)

    @property
    def _is_streaming(self) -> bool:
        return self._stream is not None and self._stream.poll() is None

    def _may_start(self, waited_s: float) -> bool:
        """Return whether a server may still come: the run goes on, or its stream broke a short while after it began."""
        if self._stream is None or self._stream.poll() == 0:
            return False
        return self._is_streaming or waited_s < BROKEN_STREAM_S

    def _end_stream(self, server: str) -> None:
        """Let the log stream show the end; Flower takes a killed server for running until its heartbeat is due."""
        self.say(f"the server, process {server}, has ended")
        until = self.clock() + STREAM_S
        while self._is_streaming and self.clock() < until:
            self.sleep(POLL_S)


def hold_supervision(files: RunFiles) -> None:
    """Become the only supervisor of a run, until this process ends.

    Raises:
        CheckpointError: If another `run.sh` is at work; it names the process.
    """
    hold(files.supervisor_lock, written=files.run)


def print_line(line: str) -> None:
    """Show a line on stderr."""
    sys.stderr.write(f"run.sh: {line}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Supervise the run of a server's machine."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    files = RunFiles(Path(folder))
    try:
        hold_supervision(files)
        if holder_of(files.lock) is None:  # what a server at work was asked is not taken back
            files.stop.unlink(missing_ok=True)
    except (CheckpointError, OSError) as error:
        print_line(str(error))
        return 1
    start = ["flwr", "run", "app", "deployment", "--stream", "--run-config", f'folder="{files.run}"']
    supervisor = Supervisor(files, start=start, prepare=["./register.sh"], say=print_line)

    def leave(number: int, _frame: FrameType | None) -> None:
        print_line("ended; a server at work goes on without it: stop.sh ends that after its round")
        supervisor.close()
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    try:
        return supervisor.run()
    except (CheckpointError, OSError) as error:
        supervisor.close()
        print_line(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
