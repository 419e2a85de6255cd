"""The commands of `nerv-fl`."""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from nerv_fl.cli.bootstrap import bootstrap_app
from nerv_fl.cli.completion import complete_recipe, complete_setting
from nerv_fl.cli.datagen import datagen_app
from nerv_fl.cli.deploy import deploy_app
from nerv_fl.cli.export import export
from nerv_fl.cli.forecaster import forecaster
from nerv_fl.cli.models import models_app
from nerv_fl.cli.predictor import predictor
from nerv_fl.cli.progress import RunDisplay
from nerv_fl.cli.recover import recover
from nerv_fl.cli.rewards import rewards
from nerv_fl.cli.streams import BROKEN_PIPE, drop_output, open_closed_streams
from nerv_fl.cli.sweep import sweep
from nerv_fl.errors import NervError, SealError
from nerv_fl.io.logging import start_logs
from nerv_fl.records import FINAL_CLOSED
from nerv_fl.tasks.user_code import user_error

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Federated learning of the NERV encoder: simulate it, read its reports, check its certificates.

Begin with [bold]nerv-fl simulate quickstart --out runs/quickstart[/bold]: 100 virtual nodes train an encoder by DP-SGD
(sigma 0.5), a simulated enclave opens their sealed updates, tests the new encoder, values every node and pays it. Then
open [bold]runs/quickstart/report.html[/bold].""",
)
app.add_typer(datagen_app, name="datagen")
app.add_typer(bootstrap_app, name="bootstrap")
app.add_typer(models_app, name="models")
app.add_typer(deploy_app, name="deploy")
app.command()(rewards)
app.command()(recover)
app.command()(sweep)
bootstrap_app.command()(forecaster)
app.command()(export)
bootstrap_app.command()(predictor)

INTERRUPTED = 130

LogFormat = Annotated[str, typer.Option(envvar="NERV_LOG_FORMAT", help="text or json.")]
LogLevel = Annotated[str, typer.Option(envvar="NERV_LOG_LEVEL", help="debug, info, warning or error.")]
LogFile = Annotated[
    Path | None, typer.Option(envvar="NERV_LOG_FILE", help="Log to this file, renamed at 10 MB; stderr if left out.")
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, such as federation.num_nodes=50. Repeatable.",
        autocompletion=complete_setting,
    ),
]


def print_version(wanted: bool) -> None:
    """Print the version and end, if wanted."""
    if wanted:
        print(f"nerv-fl {version('nerv-fl')}")
        raise typer.Exit


@app.callback()
def logs(
    log_format: LogFormat = "text",
    log_level: LogLevel = "warning",
    log_file: LogFile = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Configure logging for the command that follows."""
    start_logs(form=log_format, level=log_level, file=log_file)


@app.command()
def simulate(
    recipe: Annotated[
        str,
        typer.Argument(help="Name of a shipped recipe, or the path of a TOML file.", autocompletion=complete_recipe),
    ] = "quickstart",
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/RECIPE if left out.")] = None,
    overrides: Overrides = None,
    dp_engine: Annotated[
        str | None, typer.Option(help="layers or opacus, what forms per-sample gradients: training.dp_engine.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Join this Ray cluster, of which this machine is a part.")
    ] = "local",
    as_json: Json = False,
) -> None:
    """Run a federation of virtual nodes on this machine, and write its report.

    Generates the ledgers, pretrains the encoder, and runs every round through Flower on Ray. Interrupt it whenever
    you like: the last finished round is kept, and --resume goes on from there with the same results. SIGTERM stops it
    at the end of the round.

    A resumed run may change what no result depends on (simulation, tracking, enclave.workers, time limits), and
    federation.num_rounds to more rounds, which extends it.
    """
    from nerv_fl.server.recovery import rounds_done as count_rounds  # noqa: PLC0415
    from nerv_fl.server.shutdown import GracefulStop  # noqa: PLC0415
    from simulations.engine import run  # noqa: PLC0415 (seconds of imports that other commands do not need)
    from simulations.prepare import claimed_folder, load_recipe, prepare  # noqa: PLC0415

    engine = [f"training.dp_engine={dp_engine}"] if dp_engine else []
    config = load_recipe(recipe, overrides=[*(overrides or ()), *engine])
    display = RunDisplay(Console(stderr=True), config)
    with claimed_folder(out or Path("runs") / config.name, config, resume=resume, ray=ray) as folder:
        rounds_done = count_rounds(folder)
        display.begin(folder.root, rounds_done=rounds_done)
        stop = GracefulStop(display.round, say=display.say)
        with display:
            prepare(folder, progress=display.stage, ray=ray)
            stop.listen()
            with display.watching(folder.nodes, run=str(folder.read_manifest()["run"]), rounds_done=rounds_done):
                run(folder, ray=ray, on_round=stop.on_round)
    rounds = folder.rounds()
    if as_json:
        manifest, accepted = folder.read_manifest(), sum(record.accepted for record in rounds[1:])
        result = {"folder": str(folder.root), "accepted": accepted, "last": asdict(rounds[-1])}
        print(json.dumps(result | {key: manifest.get(key) for key in ("final", "final_round", FINAL_CLOSED)}))
    else:
        display.end(rounds, folder.read_manifest(), report=folder.root / "report.html")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write a run folder's report.html again from its records; a run that is under way writes it after every round."""
    from nerv_fl.report import write_report  # noqa: PLC0415
    from nerv_fl.server.recovery import require_whole  # noqa: PLC0415
    from nerv_fl.server.run_folder import RunFolder  # noqa: PLC0415

    run = RunFolder(folder)
    # A report from records that were read before the run's end must not replace the run's own last one.
    with run.exclusive() if folder.is_dir() else nullcontext():
        if folder.is_dir():
            require_whole(run)
        print(write_report(folder))


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="A file of a run's certificates/.")],
    root: Annotated[
        Path | None, typer.Option(help="Public key of the vendor root; the run folder's own (mock) one if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a round's certificate: every byte as the enclave signed it, and a verdict that follows from its numbers.

    Without --root, the root is read from the same run folder, which shows that the file is whole, not who wrote it.
    """
    from nerv_fl.enclave.certificate import verify_certificate  # noqa: PLC0415
    from nerv_fl.enclave.identity import pinned_root, read_vendor_root  # noqa: PLC0415

    vendor_root = read_vendor_root(root or pinned_root(certificate))
    try:
        verified = verify_certificate(certificate.read_bytes(), vendor_root=vendor_root)
    except SealError as error:
        raise SealError(f"{certificate}: {error}") from error
    if as_json:
        print(json.dumps(asdict(verified)))
        return
    print(f"valid: round {verified.round_number} of run {verified.run}")
    print(f"model {verified.model_hash}")
    if verified.mechanism:
        print(verified.mechanism)
    if verified.num_batches is not None and verified.pass_fraction_low is not None:
        print(
            f"homomorphism bound kept on all of {verified.num_batches:,} batches drawn: at least "
            f"{100 * verified.pass_fraction_low:.3f} % of the certify pool at 95 % confidence"
        )
    print(f"loss lower with p = {verified.p_value:.3g}; signed by an enclave whose hardware is mock")


def main() -> None:
    """Run the command line: an expected error is one line on stderr and exit status 1, an interrupt 130."""
    open_closed_streams()
    try:
        app()
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # what typer makes of Ctrl-C
            _interrupted()
        raise
    except Exception as error:  # noqa: BLE001 (the last resort: a hanging process would be worse)
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    """Leave with the reason of an error; a traceback is shown only where neither user nor machine is at fault."""
    if isinstance(error, BrokenPipeError):
        drop_output()
        os._exit(BROKEN_PIPE)
    if isinstance(error, NervError):
        _leave(f"{type(error).__name__}: {error}", status=1)
    raised = user_error(error)
    if raised is not None:
        _leave(f"{type(raised).__name__}: {raised}", status=1)
    if isinstance(error, OSError):
        _leave(f"{error.filename or 'file'}: {error.strerror or error}", status=1)
    Console(stderr=True).print_exception()
    _leave("this is a defect in nerv_fl; a run's last finished round is kept, --resume goes on from it", status=1)


def _interrupted() -> NoReturn:
    _leave("interrupted; the last finished round is kept, --resume goes on from it", status=INTERRUPTED)


def _leave(message: str, *, status: int) -> NoReturn:
    try:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error[/bold red] {escape(message)}")
        sys.stdout.flush()
    except OSError:  # the reader has gone, or its disk is full
        drop_output()
    # Flower's server thread may still wait for replies; the checkpoint is whole at every moment.
    os._exit(status)
