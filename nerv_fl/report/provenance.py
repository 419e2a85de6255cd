"""What is mock, and what it takes to get this run again."""

from nerv_fl.report.layout import section
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el, join


def mock_section() -> Html:
    """Say what stands in for the real thing."""
    items = (
        (
            "Enclave hardware and its vendor root",
            "are software: envelopes and signatures are real cryptography; the isolation is not, and the root that "
            "signs the evidence was made for this run and vouches for no hardware.",
        ),
        (
            "Noise",
            "is seeded in a simulation, so that a run repeats. A deployment takes it from the operating system.",
        ),
        ("Ledgers", "are synthetic: accounts with roles, chains of batches. No real balance is in them."),
    )
    body = el("dl", *(el("div", el("dt", name), el("dd", text)) for name, text in items), class_="facts")
    return section("mock", "What is mock", prose=("The protocol's parts that this run only imitates.",), figures=[body])


def provenance_section(run: Run) -> Html:
    """Return versions, hashes and seeds, and the command that gives the same bits again."""
    comment = el("span", "   # in this folder: config.toml carries every setting")
    command = el("pre", el("code", "nerv-fl simulate config.toml --out again", comment))
    facts = dict(run.facts)
    if run.rounds:
        facts[f"model_hash of round {run.rounds[-1].round}"] = run.rounds[-1].model_hash
    rows = (el("div", el("dt", key), el("dd", value)) for key, value in facts.items())
    prose = join(
        "The same seed, type of processor and versions give the same model hash, values and payouts; "
        "envelopes, signatures and seconds differ."
    )
    return section("provenance", "Provenance", prose=(prose,), figures=[command, el("dl", *rows, class_="facts code")])
