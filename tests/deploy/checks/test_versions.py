"""Packages of other versions than the server's are found on each machine."""

import json
from importlib import metadata

import pytest

from nerv_fl.deploy.checks import versions
from nerv_fl.deploy.layout import Deployment, read_record
from nerv_fl.io.checksums import with_sum
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.checks.faults import require_found
from tests.deploy.tiny import problems_of

OTHER = "9.9.9"


def install(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    really = versions.installed_version
    monkeypatch.setattr(versions, "installed_version", lambda asked: found if asked == name else really(asked))


@pytest.mark.parametrize("name", ["torch", "flwr", "opacus", "nerv-fl"])
def test_another_version_is_an_error_on_each_machine(
    deployment: Deployment, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = metadata.version(name)
    install(name, OTHER, monkeypatch)
    says = (
        rf"^version of {name} on this machine is 9\.9\.9, expected {expected.replace('+', '[+]')}, the server's, as "
        rf"recorded in .*; pip install {name}=={expected.partition('+')[0]}$"
    )
    require_found(deployment.node(1).root, says)
    require_found(deployment.server.root, says)
    require_found(deployment.root, says)


@pytest.mark.parametrize("name", ["numpy", "cryptography", "h5py"])
def test_another_version_of_what_decides_nothing_is_a_warning(
    deployment: Deployment, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, OTHER, monkeypatch)
    require_found(deployment.node(1).root, rf"^warning: version of {name} on this machine is 9\.9\.9, expected ")


@pytest.mark.parametrize(("found", "wrong"), [("3.99.0", True), ("3.11.99", False)])
def test_python_may_differ_in_its_patch_level(
    deployment: Deployment, found: str, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(deployment.node(1).record)
    series = ".".join(record.versions["python"].split(".")[:2])
    install("python", found.replace("3.11", series), monkeypatch)
    says = rf"^warning: version of python on this machine is 3\.99\.0, .*; install python {series}$"
    require_found(deployment.node(1).root, *([says] if wrong else []))


@pytest.mark.parametrize("label", ["+cu126", "+cpu", ""])
def test_the_label_of_a_build_may_differ(deployment: Deployment, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install("torch", metadata.version("torch").partition("+")[0] + label, monkeypatch)
    assert problems_of(deployment.node(1).root) == []


def test_a_package_that_is_missing_is_found(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        if name == "opacus":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(versions, "version", missing)
    require_found(deployment.node(1).root, r"^version of opacus on this machine is not installed, expected ")


def test_a_run_of_an_older_version_says_that_nothing_was_recorded(deployment: Deployment) -> None:
    run = RunFolder(deployment.server.run)
    manifest = run.read_manifest()
    kept = {key: value for key, value in manifest.items() if key not in {"versions", "data", "sum"}}
    run.manifest_path.write_text(json.dumps(with_sum(kept)))
    require_found(
        deployment.server.root,
        r"^warning: .*manifest\.json has no versions: not recorded, made by an older version of nerv_fl",
        r"^warning: .*manifest\.json has no data: not recorded, made by an older version of nerv_fl",
    )
