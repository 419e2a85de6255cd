"""What can be added to the registry: a model file, a training's folder, or an export."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from nerv_fl.errors import DataError
from nerv_fl.io.checksums import sha256_of, walk
from nerv_fl.models.export.card import CARD_FILE
from nerv_fl.models.export.export_source import NAMES, find_models, open_source
from nerv_fl.models.export.manifest import MANIFEST_FILE, SCHEMA, file_entry, manifest_of
from nerv_fl.models.export.model_notes import file_notes
from nerv_fl.models.export.write import FORMATS

LEFT_OUT: Final = re.compile(r"export/.*|(.*/)?(checkpoint\.pt|[^/]+\.(resume|h5))")
"""Files of a training's folder that are no part of what was trained: exports, data, and what a resume needs."""

PARTS: Final = {"preset": str, "format": str, "licence": str, "facts": dict, "metrics": dict, "files": dict}
"""What the registry and a card read of a manifest."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Something to add.

    Attributes:
        paths: Each file, by its name in the entry.
        form: As in `nerv_fl.registry.entry.Entry`.
        manifest: What is known of it.
    """

    paths: Mapping[str, Path]
    form: str
    manifest: Mapping[str, Any]


def read_content(path: Path) -> Content:
    """Return what a path holds.

    Raises:
        DataError: If it is no model, no export and no training's folder, or an export was changed since it was written.
        CheckpointError: If a model file is damaged.
    """
    if (path / MANIFEST_FILE).is_file():
        return _export(path)
    if (path / "config.toml").is_file():
        raise DataError(f"{path} holds a run, expected a model or an export of it: `nerv-fl export` writes one")
    models = find_models(path)
    if len(models) > 1:
        raise DataError(f"{path} holds {len(models)} models, expected one: add each of its files")
    (model,) = models
    source = open_source(model)
    paths = {model.name: model}
    if path.is_dir():
        below = {file.relative_to(path).as_posix(): file for file in walk(path)}
        paths = {name: file for name, file in below.items() if not LEFT_OUT.fullmatch(name) and not _hidden(name)}
    files = {name: file_entry(file) for name, file in sorted(paths.items(), key=lambda item: item[0] != model.name)}
    manifest = manifest_of(source, fmt="safetensors", files=files, notes=file_notes(source, files))
    return Content(paths=paths, form="training" if path.is_dir() else "weights", manifest=manifest)


def _export(path: Path) -> Content:
    """Return an export, each file of which is as its manifest says."""
    file = path / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}), expected the manifest of an export") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or manifest.get("kind") not in NAMES:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{file} has schema {found!r}, expected {SCHEMA!r}")
    lacking = [key for key, kind in PARTS.items() if not isinstance(manifest.get(key), kind)]
    if lacking:
        raise DataError(f"{file} lacks {', '.join(lacking)}, expected the manifest of an export")
    if manifest["format"] not in FORMATS:
        raise DataError(f"{file} has format {manifest['format']!r}, expected one of: {', '.join(FORMATS)}")
    paths = {member.relative_to(path).as_posix(): member for member in walk(path)}
    listed = {*manifest["files"], MANIFEST_FILE, CARD_FILE}
    for name in sorted(listed ^ paths.keys()):
        if name in paths:
            raise DataError(f"{path / name} is not listed, expected only the files of {file}")
        raise DataError(f"{path / name} does not exist, expected a file of the export")
    for name, entry in manifest["files"].items():
        member = paths[name]
        digest = sha256_of(member)
        expected = entry.get("sha256") if isinstance(entry, dict) else None
        if digest != expected:
            raise DataError(f"{member} has SHA-256 {digest}, expected {expected} ({file})")
    return Content(paths=paths, form=manifest["format"], manifest=manifest)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
