"""The enclave in a process of its own: keys, opened updates and its pools are there and nowhere else.

    server's process                           enclave's process
    EnclaveProcess  --- RoundInput as data -->  Enclave, pools, their workers
                    <-- RoundOutcome ---------

A process that died is replaced by one that unseals the same keys and repeats the round, once. What is mock is the wall
between the two: they belong to one user, who can read the memory of either.
"""

import atexit
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from nerv_fl.enclave.build import EnclaveSettings, start_enclave
from nerv_fl.enclave.evaluation import Pools
from nerv_fl.enclave.interface import Border, RoundInput, RoundOutcome
from nerv_fl.enclave.parallel_evaluation import make_pools
from nerv_fl.enclave.round import Enclave
from nerv_fl.enclave.wire import from_parts, to_parts
from nerv_fl.errors import CheckpointError, NervError, SealError
from nerv_fl.processes import end_with_parent, spawn_context
from nerv_fl.tasks.user_code import user_error

PROCESS_NAME: Final = "nerv_fl enclave"
FAREWELL_S: Final = 5.0
"""Seconds an idle process gets to end by itself."""

_GONE: Final = (EOFError, ConnectionError)
"""What a pipe raises whose other end has died."""

log = logging.getLogger(__name__)


@contextmanager
def open_enclave(settings: EnclaveSettings) -> Iterator[tuple[Pools, Border]]:
    """Yield pools on which the server measures models that stand, and the enclave in its place.

    Raises:
        SealError: If the enclave's keys cannot be read.
        CheckpointError: If the run began with other code, or the enclave's process ended before it was ready.
    """
    if settings.place == "here":
        with make_pools(settings.pools) as pools:
            yield pools, start_enclave(settings, pools)
    else:
        with closing(EnclaveProcess(settings)) as enclave, Pools(settings.pools) as pools:
            yield pools, enclave


class EnclaveProcess:
    """Stands in for an `Enclave` that runs in another process.

    Args:
        settings: What that process starts with.

    Raises:
        NervError: Whatever kept it from starting.
    """

    def __init__(self, settings: EnclaveSettings) -> None:
        self._settings = settings
        self._child = _Child(settings)
        self._evidence = self._child.evidence
        atexit.register(self.close)

    @property
    def evidence(self) -> str:
        """The signed statement of its public keys and code, for nodes to check."""
        return self._evidence

    def process(self, given: RoundInput) -> RoundOutcome:
        """Run one round on its envelopes; repeated by a new process if the first dies.

        Raises:
            CheckpointError: If the new process dies as well.
            NervError: Whatever stopped the enclave.
        """
        try:
            return self._child.ask(given)
        except _GONE:
            log.warning("the enclave's process died in round %d; a new one repeats it", given.round_number)
        self._replace()
        try:
            return self._child.ask(given)
        except _GONE as error:
            raise CheckpointError(
                f"the enclave's process died twice in round {given.round_number}; --resume repeats the round"
            ) from error

    def close(self) -> None:
        """End the process."""
        atexit.unregister(self.close)
        self._child.end()

    def _replace(self) -> None:
        self._child.end()
        self._child = _Child(self._settings)
        if self._child.evidence != self._evidence:
            raise SealError("the enclave's evidence changed with its process, expected the same keys")


class _Child:
    """One process and the server's end of its pipe; its first word is its evidence."""

    def __init__(self, settings: EnclaveSettings) -> None:
        context = spawn_context()
        self._connection, inner = context.Pipe()
        self._process = context.Process(target=_live, args=(inner, settings), name=PROCESS_NAME)
        self._process.start()
        inner.close()
        try:
            self.evidence = str(self._answer())
        except _GONE as error:
            self.end()
            raise CheckpointError("the enclave's process died before it was ready; --resume starts it again") from error
        except BaseException:
            self.end()
            raise

    def ask(self, given: RoundInput) -> RoundOutcome:
        for part in to_parts(given):
            self._connection.send_bytes(part)
        outcome: RoundOutcome = self._answer()
        return outcome

    def end(self) -> None:
        """Close the pipe, on which an idle process ends; kill a busy one."""
        self._connection.close()
        self._process.join(FAREWELL_S)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _live(connection: Connection, settings: EnclaveSettings) -> None:
    """Serve rounds until the server closes its end; what stops the enclave is told and ends this process."""
    end_with_parent()
    try:
        with make_pools(settings.pools) as pools:
            enclave = start_enclave(settings, pools)
            connection.send(enclave.evidence)
            _serve(enclave, connection)
    except _GONE:
        return
    except NervError as error:
        connection.send(error)
    except Exception as error:
        raised = user_error(error)
        if raised is None:
            log.exception("the enclave failed")
        connection.send(raised or RuntimeError(f"the enclave failed: {type(error).__name__}: {error}"))


def _serve(enclave: Enclave, connection: Connection) -> None:
    while True:
        given = from_parts(connection.recv_bytes(), connection.recv_bytes)
        connection.send(enclave.process(given))
