"""Certificates that have expired, or soon will, are found in the folder of each machine that has them."""

from datetime import timedelta

import pytest

from nerv_fl.deploy import certificates
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.renew import renew_server_certificate
from tests.deploy.checks.faults import require_found


def make_authority(deployment: Deployment, *, begins: int, ends: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make another authority, whose certificate is valid for some days, and give it to every machine."""
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_CLOCK_SKEW", timedelta(days=-begins))
        patch.setattr(certificates, "AUTHORITY_DAYS", ends)
        certificates.make_authority(deployment.ca_key, deployment.ca_certificate)
    text = deployment.ca_certificate.read_bytes()
    nodes = [deployment.node(number).ca_certificate for number in range(3)]
    for path in (deployment.server.ca_certificate, *nodes):
        path.write_bytes(text)
    renew_server_certificate(deployment, host="localhost")


@pytest.mark.parametrize(("begins", "ends"), [(-4000, -1), (-10, -5), (2, 300)])
def test_an_authority_out_of_date_is_found_on_each_machine(
    deployment: Deployment, begins: int, ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_authority(deployment, begins=begins, ends=ends, monkeypatch=monkeypatch)
    says = r"ca\.crt is valid from \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d, expected \d{4}-\d\d-\d\d within; "
    require_found(deployment.node(1).root, says)
    require_found(deployment.server.root, says)


@pytest.mark.parametrize("days", [0, 1, 29])
def test_an_authority_that_soon_expires_is_a_warning(
    deployment: Deployment, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_authority(deployment, begins=-3000, ends=days + 1, monkeypatch=monkeypatch)
    says = (
        rf"^warning: .*ca\.crt is valid from .*, {days} days from now, expected at least 30 days; an authority cannot"
    )
    require_found(deployment.node(1).root, says)
    require_found(deployment.server.root, says)


@pytest.mark.parametrize("days", [0, 29])
def test_a_servers_certificate_that_soon_expires_is_a_warning(
    deployment: Deployment, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "SERVER_DAYS", days + 1)
    renew_server_certificate(deployment, host="localhost")
    require_found(
        deployment.server.root,
        rf"^warning: .*server\.crt is valid from .*, {days} days from now, expected at least 30 days; call `nerv",
    )
