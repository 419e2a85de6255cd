"""`nerv-fl export`: trained models as files that other programs load."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nerv_fl.models.export.export_source import Source


def export(
    folder: Annotated[Path, typer.Argument(help="Run folder, folder of trained models, or a model file.")],
    fmt: Annotated[str, typer.Option("--format", help="safetensors, onnx, torchscript or bincode.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; `export` beside the models if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifests as JSON.")] = False,
) -> None:
    """Write trained models in a format of other programs, each with a manifest and a model card.

    Each model becomes a folder OUT/KIND-FORMAT. bincode is the protocol's own layout of an encoder, derived by reading
    its code and never checked against a real Rust build.
    """
    from nerv_fl.models.export.write import require_format, write_export  # noqa: PLC0415 (seconds of imports)

    require_format(fmt)
    sources = _sources(folder)
    if fmt == "bincode" and len(sources) > 1:
        # The others have no such layout; without an encoder, the first of them says so.
        sources = tuple(source for source in sources if source.kind == "encoder") or sources[:1]
    target = out or (folder.parent if folder.is_file() else folder) / "export"
    done = {}
    for source in sources:
        path = target / f"{source.kind}-{fmt}"
        done[str(path)] = write_export(source, path, fmt=fmt)
    if as_json:
        print(json.dumps(done))
        return
    for path_name, manifest in done.items():
        for name, entry in manifest["files"].items():
            print(f"{path_name}/{name}: {entry['size_bytes']:,} bytes")


def _sources(path: Path) -> "tuple[Source, ...]":
    """Return the models of a path: a run's model, or those in model files."""
    from nerv_fl.models.export.export_source import find_models, open_source  # noqa: PLC0415
    from nerv_fl.server.export_source import trained_model  # noqa: PLC0415
    from nerv_fl.server.run_folder import RunFolder  # noqa: PLC0415

    run = RunFolder(path)
    if run.config_path.is_file():
        return (trained_model(run),)
    return tuple(open_source(file) for file in find_models(path))
