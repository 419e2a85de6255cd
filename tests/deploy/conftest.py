"""A deployment to change."""

from pathlib import Path

import pytest

from nerv_fl.deploy.layout import Deployment
from tests.deploy.tiny import copy_deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """A copy of the tiny deployment."""
    return copy_deployment(tmp_path / "deployment")
