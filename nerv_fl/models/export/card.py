"""The model card of an export: README.md with the YAML head that model hubs read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nerv_fl.models.export.manifest import MANIFEST_FILE, TOLERANCE
from nerv_fl.models.export.measures import Measure, pick_measures
from nerv_fl.privacy.epsilon import format_epsilon

CARD_FILE: Final = "README.md"
LIBRARY: Final = {"safetensors": "safetensors", "onnx": "onnx", "torchscript": "pytorch", "bincode": "nerv"}

_TITLES: Final = {
    "encoder": "NERV ledger encoder",
    "predictor": "NERV consensus predictor",
    "forecaster": "NERV shard-load forecaster",
}
_TASKS: Final = {"encoder": "feature-extraction", "predictor": "other", "forecaster": "time-series-forecasting"}
_USES: Final = {
    "encoder": (
        "Maps the balances of a shard to the embedding that a NERV node commits as its state root, through the table "
        "V; the transformer's own vectors serve training and measurement.",
        "Not a predictor of balances, and not a secret: V and a transfer's delta reveal sender, receiver and amount "
        "to whoever searches the pairs.",
    ),
    "predictor": (
        "Predicts from the events of a consensus race which candidate will be finalised, which candidates are valid, "
        "and the next delta.",
        "Not a verdict: once the events decide a race the exact quorum rule answers, and it answers too where the "
        "file is missing or damaged.",
    ),
    "forecaster": (
        "Forecasts the next minute of a shard's load from the last 60, and the probability of overload within 10 "
        "minutes.",
        "Not tested on loads of a real network.",
    ),
}
_DATA: Final = {
    "encoder": "Synthetic ledgers of account roles (`nerv-fl datagen ledger`); no real accounts.",
    "predictor": "Simulated consensus races (`nerv-fl datagen consensus`); no real validators.",
    "forecaster": "Simulated shard load (`nerv-fl datagen sharding`); no real shards.",
}
_LIMITS: Final = {
    "encoder": (
        "The affine encoder keeps the homomorphism bound whatever its weights: the bound tests arithmetic, range and "
        "finiteness, not learning. Random weights pass it too.",
        "Low drift alone is no merit, since a flat encoder has none: read it beside the residual share and the masked "
        "cross-entropy.",
        "Accounts are positions: an encoder of A accounts says nothing of any other account.",
    ),
    "predictor": ("The simulator's honest and Byzantine validators are all that it has seen.",),
    "forecaster": ("The simulator's storms and shocks are all that it has seen.",),
}


def write_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the card of an export from its manifest."""
    (folder / CARD_FILE).write_text(card(manifest), encoding="utf-8")


def card(manifest: Mapping[str, Any]) -> str:
    """Return the card of an export.

    Args:
        manifest: As `nerv_fl.models.export.manifest.manifest_of` returns it.
    """
    kind, fmt = manifest["kind"], manifest["format"]
    use, misuse = _USES[kind]
    name = f"{_TITLES[kind]}{', ' + manifest['preset'] if manifest['preset'] else ''} ({fmt})"
    measures = pick_measures(kind, manifest["metrics"])
    sections = (
        _head(manifest, measures),
        f"# {name}",
        f"## Intended use\n\n{use}\n\n{misuse}",
        f"## Data\n\n{_DATA[kind]}{_data_hash(manifest)}",
        f"## Measures\n\n{_measures(measures)}\n\n{_privacy(kind, manifest)}",
        f"## Files\n\n{_files(manifest)}",
        f"## How to load it\n\n{_loading(manifest)}",
        f"## Limits\n\n{_bullets([*_LIMITS[kind], *_format_limits(manifest)])}",
        f"Licence {manifest['licence']}. Everything that is known stands in `{MANIFEST_FILE}`.",
    )
    return "\n\n".join(sections) + "\n"


def _head(manifest: Mapping[str, Any], measures: Sequence[Measure]) -> str:
    """Return the YAML that hubs index; its texts are JSON, which YAML reads."""
    tags = ["nerv", manifest["kind"], manifest["format"], "federated-learning"]
    lines = [
        f"license: {manifest['licence'].lower()}",
        f"library_name: {LIBRARY[manifest['format']]}",
        f"pipeline_tag: {_TASKS[manifest['kind']]}",
        "tags:",
        *(f"  - {tag}" for tag in tags),
    ]
    if measures:
        lines += [
            "model-index:",
            f"  - name: nerv-{manifest['kind']}",
            "    results:",
            f"      - task: {{type: {_TASKS[manifest['kind']]}}}",
            f"        dataset: {{type: simulated, name: {json.dumps(_DATA[manifest['kind']])}}}",
            "        metrics:",
            *(f"          - {{type: measure, name: {json.dumps(m.name)}, value: {m.value!r}}}" for m in measures),
        ]
    return "---\n" + "\n".join(lines) + "\n---"


def _data_hash(manifest: Mapping[str, Any]) -> str:
    facts = manifest["facts"]
    found = next((facts[key] for key in ("data_sha256", "data", "content_sha256") if facts.get(key)), None)
    return f" Content hash of the training data: `{found}`." if found else ""


def _measures(measures: Sequence[Measure]) -> str:
    if not measures:
        return "No measures came with the weights."
    rows = [
        f"| {measure.name} | {measure.value:.4g} | "
        f"{', '.join(f'{name} {value:.4g}' for name, value in measure.trivial) or '-'} |"
        for measure in measures
    ]
    return "\n".join(["| measure | this model | trivial models, same data |", "|---|---|---|", *rows])


def _privacy(kind: str, manifest: Mapping[str, Any]) -> str:
    """State epsilon with delta, unit and sampling, or that there is none."""
    spent = manifest["metrics"].get("round", {}).get("epsilon")
    if kind == "encoder" and isinstance(spent, Mapping):
        return _federated_privacy(spent)
    facts = manifest["facts"]
    if facts.get("epsilon") is not None:
        delta = f"delta {facts['delta']:g}" if facts.get("delta") else "a delta that its file does not state"
        unit = "window" if kind == "forecaster" else "step record"
        spent_text = f"epsilon {format_epsilon(facts['epsilon'])} at {delta} per {unit}"
        return f"Trained by DP-SGD: {spent_text}, Poisson sampling, {facts.get('mechanism') or 'sigma 0.5'}."
    if "epsilon" in facts or kind == "predictor":
        return "Trained centrally on simulated data, without differential privacy."
    return "Its file says nothing of differential privacy."


def _federated_privacy(spent: Mapping[str, Any]) -> str:
    """State the epsilon of a run's record; where its mechanism is not the protocol's, that in place of sigma."""
    deviation = spent.get("mechanism", "")
    if spent["max"] is None:
        return f"Trained federatedly with {deviation}."
    return (
        f"Trained federatedly: epsilon {format_epsilon(spent['max'])} at most of any node, at delta "
        f"{spent['delta']:g} per step record, Poisson sampling, {deviation or 'sigma 0.5'}. "
        "A simulated run's noise is seeded: epsilon describes deployment."
    )


def _files(manifest: Mapping[str, Any]) -> str:
    rows = ["| file | bytes | SHA-256 | difference from the model |", "|---|---|---|---|"]
    for name, entry in manifest["files"].items():
        differences = entry.get("max_relative_difference", {})
        shown = ", ".join(f"{output} {value:.1e}" for output, value in differences.items()) or "-"
        rows.append(f"| `{name}` | {entry['size_bytes']:,} | `{entry['sha256']}` | {shown} |")
    if any("max_relative_difference" in entry for entry in manifest["files"].values()):
        rows.append(
            f"\nDifferences are over 1 + the output's largest, on two examples; float32 stays within {TOLERANCE:g}."
        )
    return "\n".join(rows)


def _loading(manifest: Mapping[str, Any]) -> str:
    name = next(iter(manifest["files"]))
    entry = manifest["files"][name]
    ports = [
        f"- {way} `{port['name']}`: {port['dtype']} {json.dumps(port['shape'])}"
        for way, key in (("in", "inputs"), ("out", "outputs"))
        for port in entry.get(key, ())
    ]
    names = ", ".join(port["name"] for port in entry.get("inputs", ()))
    code = {
        "onnx": f'session = onnxruntime.InferenceSession("{name}")\nsession.run(None, feed)  # feed: {names}',
        "torchscript": f'model = torch.jit.load("{name}")\nmodel({names})',
        "safetensors": f'tensors = safetensors.torch.load_file("{name}")',
        "bincode": f'rust = nerv_fl.models.export.bincode_reader.read_rust_encoder(Path("{name}"))',
    }[manifest["format"]]
    return "\n".join([f"```python\n{code}\n```", *(["", *ports] if ports else [])])


def _format_limits(manifest: Mapping[str, Any]) -> list[str]:
    lines = list(manifest.get("notes", ()))
    if "layout" in manifest:
        lines.insert(0, f"The layout was {manifest['layout']}.")
        lines += [f"Differs from the protocol's encoder: {line}." for line in manifest["computed_differently"]]
        lines.append(f"{manifest['not_held_parameters']:,} parameters have no place in it: see `not_held`.")
    for adapter in manifest.get("adapters", ()):
        lacks = f"cannot be met; missing: {'; '.join(adapter['missing'])}" if adapter["missing"] else adapter["file"]
        lines.append(f"The protocol's signature {adapter['signature']}: {lacks}.")
        lines += [f"Of that signature: {note}." for note in adapter["notes"]]
    return lines


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
