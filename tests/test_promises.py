"""The promises in writing: each test that SECURITY.md and docs/privacy.md name is there, under that name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROMISES = {"SECURITY.md": 30, "docs/privacy.md": 15}


def named(text: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/\S+\.py)::(\w+)`", text)


@pytest.mark.parametrize("name", PROMISES)
def test_every_test_that_is_named_exists(name: str) -> None:
    found = named((ROOT / name).read_text())

    missing = [item for item in found if f"def {item[1]}(" not in (ROOT / item[0]).read_text()]
    assert missing == []
    assert len(found) >= PROMISES[name]


def test_every_claim_in_a_table_of_claims_names_a_test() -> None:
    lines = [line for name in PROMISES for line in (ROOT / name).read_text().splitlines()]
    headings = [at for at, line in enumerate(lines) if line.endswith("| test |")]

    for at in headings:
        rows = lines[at + 2 : next(row for row in range(at, len(lines)) if not lines[row].startswith("|"))]
        assert rows
        assert [row for row in rows if not named(row)] == []
    assert len(headings) == 5


def test_the_readme_links_them() -> None:
    readme = (ROOT / "README.md").read_text()

    assert "](SECURITY.md)" in readme
    assert "](docs/privacy.md)" in readme
