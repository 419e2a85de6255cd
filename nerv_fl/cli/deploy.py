"""`nerv-fl deploy`: the folder of a federation on machines of its own, and what is wrong with it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nerv_fl.cli.completion import complete_recipe, complete_setting

if TYPE_CHECKING:
    from nerv_fl.deploy.diagnostics import Results

deploy_app = typer.Typer(no_args_is_help=True, help="Run a federation on machines of its own.")

Folder = Annotated[Path, typer.Argument(help="Folder of the deployment.")]


@deploy_app.command()
def init(
    folder: Folder,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, each on a machine of its own.")] = 3,
    host: Annotated[str, typer.Option(help="Name or address under which nodes reach the server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the SuperLink.")] = 9092,
    recipe: Annotated[
        str, typer.Option(help="Name of a shipped recipe, or the path of a TOML file.", autocompletion=complete_recipe)
    ] = "deployment",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting. Repeatable.", autocompletion=complete_setting
        ),
    ] = None,
) -> None:
    """Make a folder for each machine: certificates, keys, settings, data and start scripts.

    Copy server/ to the server and node-N/ to the machine of node N, keep ca/ to yourself, and delete the rest. On one
    machine everything runs from where it is.
    """
    from nerv_fl.deploy.provision import initialise  # noqa: PLC0415 (seconds of imports)
    from simulations.prepare import load_recipe  # noqa: PLC0415

    everybody = [f"federation.num_nodes={nodes}", f"federation.cohort_size={nodes}"]
    config = load_recipe(recipe, overrides=[*everybody, *(overrides or ())])
    console = Console(stderr=True)
    initialise(folder, config, host=host, port=port, tell=lambda what: console.print(what, highlight=False))
    print(f"{folder} is ready: `nerv-fl deploy check {folder}`, then see docs/deploy.md")


@deploy_app.command()
def renew(
    folder: Folder,
    node: Annotated[int | None, typer.Option(help="Make this node's SuperNode a new key instead.")] = None,
) -> None:
    """Make the server a new key and certificate, or a node's SuperNode a new key; restart it afterwards."""
    from nerv_fl.deploy.layout import Deployment  # noqa: PLC0415
    from nerv_fl.deploy.renew import renew  # noqa: PLC0415

    deployment = Deployment(folder)
    renew(deployment, node=node)
    print(deployment.server.certificate if node is None else deployment.node(node).key)


@deploy_app.command()
def add(folder: Folder) -> None:
    """Make a folder for one more node and put it on the roster, while the server stands still.

    Only server/ need be there. Copy node-N/ to the node's machine, server/ back to the server, run register.sh, run.sh.
    """
    from nerv_fl.deploy.layout import Deployment  # noqa: PLC0415
    from nerv_fl.deploy.membership import add_node  # noqa: PLC0415

    deployment = Deployment(folder)
    print(deployment.node(add_node(deployment)).root)


@deploy_app.command()
def remove(folder: Folder, node: Annotated[int, typer.Option(min=0, help="The node that leaves, for good.")]) -> None:
    """Take a node off the roster, while the server stands still; run register.sh, run.sh afterwards."""
    from nerv_fl.deploy.layout import Deployment  # noqa: PLC0415
    from nerv_fl.deploy.membership import remove_node  # noqa: PLC0415

    remove_node(Deployment(folder), node)
    print(f"node {node} takes part no more")


@deploy_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the deployment, or of one of its machines.")],
    ports: Annotated[bool, typer.Option(help="Whether ports must be free; not so once something runs.")] = True,
    server: Annotated[
        bool | None,
        typer.Option(help="Whether the SuperLink must answer; by default in a node's folder, and with --no-ports."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Report everything that is wrong, a line each, and change nothing; exit status 1 if anything is an error."""
    from nerv_fl.deploy.check import check_folder  # noqa: PLC0415
    from nerv_fl.deploy.checks.machines import CheckOptions  # noqa: PLC0415

    results = check_folder(folder, CheckOptions(ports=ports, server=server))
    if as_json:
        looked_at = [{"machine": machine, "check": name} for machine, name in results.checks]
        findings = [finding.to_fields() for finding in results.findings]
        table = {"folder": str(folder), "problems": results.lines, "findings": findings, "checks": looked_at}
        print(json.dumps(table))
    else:
        print("\n".join([*results.lines, _summary(folder, results)]))
    raise typer.Exit(1 if results.errors else 0)


def _summary(folder: Path, results: "Results") -> str:
    """Return what was looked at and how much of it is wrong."""
    machines = ", ".join(dict.fromkeys(machine for machine, _ in results.checks))
    errors, warnings = len(results.errors), len(results.findings) - len(results.errors)
    verdict = f"{errors} errors, {warnings} warnings" if results.findings else "nothing is wrong"
    return f"{folder}: {len(results.checks)} checks ({machines}), {verdict}"


@deploy_app.command()
def record_data(folder: Annotated[Path, typer.Argument(help="Folder of a node's machine.")]) -> None:
    """Record that a node's data.h5 was replaced on purpose: `check` compares it with this one from now on."""
    from nerv_fl.deploy.layout import NodeMachine  # noqa: PLC0415
    from nerv_fl.deploy.provision_node import record_data  # noqa: PLC0415

    machine = NodeMachine(folder)
    print(f"{machine.data}: SHA-256 {record_data(machine)}")
