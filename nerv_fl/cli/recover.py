"""The command `nerv-fl recover`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def recover(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    round_number: Annotated[
        int | None,
        typer.Option("--round", help="Round to go back to; the newest with a whole checkpoint if left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Go back to the newest whole checkpoint of a damaged run, and restore its settings and manifest.

    What is replaced is kept in damaged-1/, damaged-2/ and so on inside the run folder. Afterwards --resume goes on with
    the run; a simulation repeats the lost rounds with the same results.
    """
    from nerv_fl.errors import CheckpointError  # noqa: PLC0415 (imports that other commands do not need)
    from nerv_fl.server.recovery import recover as recover_run  # noqa: PLC0415
    from nerv_fl.server.run_folder import RunFolder  # noqa: PLC0415

    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder, expected a run folder")
    run = RunFolder(folder.resolve())
    with run.exclusive():
        found = recover_run(run, round_number=round_number)
    if as_json:
        print(json.dumps(asdict(found) | {"kept": str(found.kept) if found.kept else None}))
        return
    if not found.replaced:
        print(f"nothing to recover: the checkpoint of round {found.round_number} and its records are whole")
        return
    print(f"back to round {found.round_number}; {found.rounds_lost} later rounds are to be run again")
    for name in found.replaced:
        print(f"replaced {name}")
    if found.kept:
        print(f"what was there before is in {found.kept}")
