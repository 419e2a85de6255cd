"""`nerv-fl models`: the registry of trained artefacts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nerv_fl.errors import DataError

models_app = typer.Typer(
    no_args_is_help=True, help="The registry of trained models: what there is, whole and unchanged."
)

Store = Annotated[
    Path | None, typer.Option(help="Folder of the registry; $NERV_FL_MODELS, or `models` if that is not set.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Reference = Annotated[str, typer.Argument(help="Name of an entry, or the first digits of its hash.")]


@models_app.command("add")
def add(
    path: Annotated[Path, typer.Argument(help="Model file, folder of a training, or folder of an export.")],
    name: Annotated[str, typer.Option(help="Its name; kind, preset and form if left out.")] = "",
    store: Store = None,
) -> None:
    """Add a trained model. The same content twice is one entry."""
    from nerv_fl.registry import open_registry  # noqa: PLC0415 (seconds of imports)

    entry = open_registry(store).add(path, name=name)
    print(f"{entry.sha256}  {entry.name}")


@models_app.command("list")
def list_models(store: Store = None, as_json: Json = False) -> None:
    """List what the registry holds, each with its first measure beside trivial models."""
    from nerv_fl.registry import open_registry  # noqa: PLC0415

    entries = open_registry(store).entries()
    if as_json:
        print(json.dumps([{**asdict(entry), "manifest": None} for entry in entries]))
        return
    rows = [("name", "kind", "form", "preset", "hash", "bytes", "added")]
    for entry in entries:
        day, size = entry.added.partition("T")[0], f"{entry.size_bytes:,}"
        rows.append((entry.name, entry.kind, entry.form, entry.preset or "-", entry.sha256[:12], size, day))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    notes = ["", *(entry.headline or "no measures" for entry in entries)]
    for row, note in zip(rows, notes, strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            print(f"    {note}")


@models_app.command("show")
def show(model: Reference, store: Store = None) -> None:
    """Print everything that is known of a model, as JSON."""
    from nerv_fl.registry import open_registry  # noqa: PLC0415

    print(json.dumps(asdict(open_registry(store).find(model)), indent=1))


@models_app.command("rename")
def rename(
    model: Reference,
    name: Annotated[str, typer.Argument(help="Its new name; no other entry may have it.")],
    store: Store = None,
) -> None:
    """Give a model another name. Its content and its hash stay."""
    from nerv_fl.registry import open_registry  # noqa: PLC0415

    entry = open_registry(store).rename(model, name)
    print(f"{entry.sha256}  {entry.name}")


@models_app.command("remove")
def remove(model: Reference, store: Store = None) -> None:
    """Take a model out with all its files, at once and for good. A damaged one is named by its whole hash."""
    from nerv_fl.registry import open_registry  # noqa: PLC0415

    print(open_registry(store).remove(model))


@models_app.command("verify")
def verify(store: Store = None, as_json: Json = False) -> None:
    """Compare every file of the registry with its hash, and name what was changed."""
    from nerv_fl.registry import open_registry  # noqa: PLC0415

    registry = open_registry(store)
    damage = registry.damage()
    if as_json:
        print(json.dumps({"damage": damage}))
    if damage:
        raise DataError(f"{registry.root} is damaged, expected every file as it was added:\n" + "\n".join(damage))
    if not as_json:
        print(f"{registry.root}: {len(registry.entries())} entries, every file as it was added")


@models_app.command("bundle")
def bundle(
    model: Reference,
    out: Annotated[Path, typer.Option(help="Folder to make; new or empty.")],
    log: Annotated[list[Path] | None, typer.Option(help="Log of the training to publish with it. Repeatable.")] = None,
    store: Store = None,
) -> None:
    """Write a model with its manifest, card, logs, licence and checksums into one folder, ready to publish."""
    from nerv_fl.registry import open_registry, write_model_bundle  # noqa: PLC0415

    registry = open_registry(store)
    print(write_model_bundle(registry, registry.find(model), out=out, logs=log or ()))
