"""New keys in place of old ones."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.renew import renew
from nerv_fl.errors import ConfigError, SealError
from tests.deploy.tiny import problems_of


def test_the_servers_certificate_is_renewed_and_everything_fits(deployment: Deployment) -> None:
    before = deployment.server.certificate.read_bytes(), deployment.server.key.read_bytes()
    shown = CliRunner().invoke(app, ["deploy", "renew", str(deployment.root)], catch_exceptions=False)

    assert shown.stdout == f"{deployment.server.certificate}\n"
    assert before[0] != deployment.server.certificate.read_bytes()
    assert before[1] != deployment.server.key.read_bytes()
    assert problems_of(deployment.root) == []


def test_a_supernodes_key_is_renewed_and_waits_to_be_registered(deployment: Deployment) -> None:
    before, note = deployment.node(1).key.read_bytes(), deployment.server.root / "supernodes" / "node-1.json"
    note.write_text("{}")
    renew(deployment, node=1)

    assert deployment.node(1).key.read_bytes() != before
    assert not note.exists()
    assert problems_of(deployment.root) == []


def test_what_is_not_there_is_not_renewed(deployment: Deployment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^node is 7, expected one with a folder in "):
        renew(deployment, node=7)
    before = deployment.server.key.read_bytes()
    deployment.ca_key.unlink()
    with pytest.raises(SealError, match=r"ca\.key cannot be read \(FileNotFoundError\), expected a private key in PEM"):
        renew(deployment, node=None)
    assert deployment.server.key.read_bytes() == before
