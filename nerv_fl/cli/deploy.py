"""`nerv-fl deploy`: the folder of a federation on machines of its own, and what is wrong with it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nerv_fl.cli.completion import complete_recipe, complete_setting

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
    from nerv_fl.deploy.initialise import initialise  # noqa: PLC0415 (seconds of imports)
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
    from nerv_fl.deploy.members import add_node  # noqa: PLC0415

    deployment = Deployment(folder)
    print(deployment.node(add_node(deployment)).root)


@deploy_app.command()
def remove(folder: Folder, node: Annotated[int, typer.Option(min=0, help="The node that leaves, for good.")]) -> None:
    """Take a node off the roster, while the server stands still; run register.sh, run.sh afterwards."""
    from nerv_fl.deploy.layout import Deployment  # noqa: PLC0415
    from nerv_fl.deploy.members import remove_node  # noqa: PLC0415

    remove_node(Deployment(folder), node)
    print(f"node {node} takes part no more")


@deploy_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the deployment, or of one of its machines.")],
    ports: Annotated[bool, typer.Option(help="Whether ports must be free; not so once something runs.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say everything that is wrong before anything starts, a line each; exit status 1 if anything is."""
    from nerv_fl.deploy.check import problems_of  # noqa: PLC0415

    problems = problems_of(folder, ports=ports)
    if as_json:
        print(json.dumps({"folder": str(folder), "problems": problems}))
    else:
        print("\n".join(problems) or f"{folder}: nothing is wrong")
    raise typer.Exit(1 if problems else 0)
