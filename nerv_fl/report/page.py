"""The whole page, from a run: one file, no request to anywhere."""

from typing import Final

from nerv_fl.report.adversaries import adversaries_section
from nerv_fl.report.encoder import drift_section, homomorphism_section, loss_section
from nerv_fl.report.faults import failures_section, faults_section
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el
from nerv_fl.report.model import model_section
from nerv_fl.report.nodes import nodes_section
from nerv_fl.report.privacy import privacy_section
from nerv_fl.report.provenance import mock_section, provenance_section
from nerv_fl.report.rounds import rounds_section
from nerv_fl.report.script import SCRIPT
from nerv_fl.report.style import STYLE
from nerv_fl.report.summary import header, tiles

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""Content security policy: the browser itself refuses to load anything for this page."""


def page(run: Run) -> str:
    """Return the report as HTML."""
    return f"<!doctype html>\n{el('html', _head(run), _body(run), lang='en')}\n"


def _model_sections(run: Run) -> list[Html]:
    return (
        [homomorphism_section(run), drift_section(run), loss_section(run)] if run.is_encoder else [model_section(run)]
    )


def _head(run: Run) -> Html:
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", f"{run.config.name}, seed {run.config.seed}: nerv_fl report"),
        el("style", Html(STYLE)),
    )


def _body(run: Run) -> Html:
    parts = [header(run)]
    if run.rounds:
        parts += [
            tiles(run),
            *_model_sections(run),
            privacy_section(run),
            rounds_section(run),
            nodes_section(run),
            *failures_section(run),
            *faults_section(run),
            *adversaries_section(run),
        ]
    parts += [mock_section(), provenance_section(run)]
    return el("body", el("main", *parts), el("div", id="tip", role="status", hidden=True), el("script", Html(SCRIPT)))
