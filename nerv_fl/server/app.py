"""The Flower server: one run folder in, rounds out.

The folder must be prepared: ledgers, bootstrap, roster. Everything the server needs is read from it, so a run that
was killed goes on from its last checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from nerv_fl.enclave.build import EnclaveSettings
from nerv_fl.enclave.evaluation import PoolSettings
from nerv_fl.enclave.process import open_enclave
from nerv_fl.errors import NoUpdateError
from nerv_fl.records import FINAL_CLOSED, STOPPED, FinalPool, RewardRow, RoundRecord
from nerv_fl.report import write_report
from nerv_fl.server.ending import closed_reason, require_updates
from nerv_fl.server.monitor import Monitor
from nerv_fl.server.recorder import OnRound, Recorder
from nerv_fl.server.recovery import read_state, require_records
from nerv_fl.server.run_folder import POOLS, RunFolder
from nerv_fl.server.tracking import Tracker, make_trackers
from nerv_fl.strategy.nerv import NervStrategy
from nerv_fl.strategy.server_state import FederationState
from nerv_fl.tasks.registry import find_task
from nerv_fl.types import Vector


def ignore_round(_record: RoundRecord, _rows: Sequence[RewardRow]) -> None:
    """Show nothing."""


def no_names(_folder: RunFolder) -> Mapping[int, str]:
    """Name no SuperNode: a simulation's have no names."""
    return {}


def never(_folder: RunFolder) -> bool:
    """Ask no server to stop: a simulation is asked by a signal."""
    return False


def build_server_app(
    load_folder: Callable[[Context], RunFolder],
    *,
    num_supernodes: int | None = None,
    on_round: OnRound = ignore_round,
    load_names: Callable[[RunFolder], Mapping[int, str]] = no_names,
    is_asked_to_stop: Callable[[RunFolder], bool] = never,
    simulated: bool = False,
) -> ServerApp:
    """Return the ServerApp of the run folder that `load_folder` gives.

    Args:
        load_folder: Called once, when the app starts.
        num_supernodes: SuperNodes to wait for; `simulation.blocks` if None.
        on_round: Told of each finished round.
        load_names: Returns what SuperNodes are called in messages, by Flower's ids of them.
        is_asked_to_stop: Asked between two rounds.
        simulated: Whether the nodes are a simulation's, which say why they fail and whether they have spent privacy.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run the remaining rounds and open the final pool."""
        folder = load_folder(context)
        serve(
            grid,
            folder,
            num_supernodes=num_supernodes or folder.config.simulation.blocks,
            on_round=on_round,
            names=load_names(folder),
            is_asked_to_stop=is_asked_to_stop,
            simulated=simulated,
        )

    return app


def serve(
    grid: Grid,
    folder: RunFolder,
    *,
    num_supernodes: int,
    on_round: OnRound = ignore_round,
    names: Mapping[int, str] | None = None,
    is_asked_to_stop: Callable[[RunFolder], bool] = never,
    simulated: bool = False,
) -> FederationState:
    """Run a prepared folder's remaining rounds, open the final pool and write the report.

    Asked to stop between two rounds it writes the report and returns; called again it goes on.

    Raises:
        NervError: If the folder is not a prepared run, or no SuperNode comes online.
        NoUpdateError: If every node failed for one reason, or no update was admitted in any round. The manifest and
            the report say so, and the checkpoint is that of the last round.
    """
    config, manifest = folder.config, folder.read_manifest()
    start_P, constants = find_task(config.task).read_start(folder.bootstrap_path, config)
    pool_settings = PoolSettings(config=config, paths={name: folder.data(name) for name in POOLS}, constants=constants)
    run = str(manifest["run"])
    settings = EnclaveSettings(pools=pool_settings, roster=folder.read_roster(), run=run, folder=folder.enclave)
    trackers = make_trackers(config.tracking, folder.root)
    with open_enclave(settings) as (pools, enclave):
        state, is_new = _state(folder, start_P, run=run)
        monitor = Monitor(pools, config=config)
        if is_new:
            folder.update_manifest(references=monitor.references(start_P))
        recorder = Recorder(folder, state, monitor=monitor, config=config, trackers=trackers, on_round=on_round)
        if is_new:
            recorder.record_bootstrap()
        strategy = NervStrategy(
            enclave,
            state,
            config=config,
            run=run,
            weights=folder.read_weights(),
            constants=constants,
            num_supernodes=num_supernodes,
            names=names,
            commit=recorder.commit,
            is_asked_to_stop=lambda: is_asked_to_stop(folder),
            simulated=simulated,
        )
        with _stop_recorded(folder, trackers=trackers):
            strategy.start(grid)
            if strategy.state.round_number >= config.federation.num_rounds:
                _conclude(folder, open_final=lambda: monitor.final(start_P, strategy.state.theta_P))
    return strategy.state


@contextmanager
def _stop_recorded(folder: RunFolder, *, trackers: Sequence[Tracker]) -> Iterator[None]:
    """Write the report and close the trackers at the end, and in the manifest why a run stopped without updates."""
    if folder.read_manifest().get(STOPPED):
        folder.update_manifest(**{STOPPED: None})
    try:
        yield
    except NoUpdateError as error:
        folder.update_manifest(**{STOPPED: str(error)})
        _finish(folder, trackers)
        raise
    _finish(folder, trackers)


def _finish(folder: RunFolder, trackers: Sequence[Tracker]) -> None:
    write_report(folder.root)
    for tracker in trackers:
        tracker.close()


def _conclude(folder: RunFolder, *, open_final: Callable[[], FinalPool]) -> None:
    """Open the final pool after the last round, once, if the model has changed; say in the manifest if not.

    Raises:
        NoUpdateError: If no update was admitted in any round.
    """
    if folder.read_manifest().get("final") is not None:
        return
    rounds = folder.rounds()
    require_updates(rounds)
    if reason := closed_reason(rounds):
        folder.update_manifest(**{FINAL_CLOSED: reason})
    else:
        folder.update_manifest(**{FINAL_CLOSED: None} if FINAL_CLOSED in folder.read_manifest() else {})
        last = rounds[-1]
        folder.update_manifest(final=asdict(open_final()), final_round=last.round, final_model_hash=last.model_hash)


def _state(folder: RunFolder, start_P: Vector, *, run: str) -> tuple[FederationState, bool]:
    """Return the state to begin from, and whether no round was recorded yet."""
    config = folder.config
    num_nodes = config.federation.num_nodes
    stored = read_state(folder)
    if stored is not None:
        require_records(folder, stored.round_number)
        state = stored.grown(num_nodes, rewards=config.rewards)
        folder.cut_after(state.round_number)
        folder.check_ledger(head=state.ledger)
        return state, False
    folder.cut_after(-1)
    return FederationState.first(start_P, num_nodes=num_nodes, rewards=config.rewards, run=run), True
