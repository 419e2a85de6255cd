"""The report in a real browser: it renders, its script runs, and nothing is asked of the network."""

import shutil
import subprocess
from pathlib import Path

import pytest

from nerv_fl.report import write_report
from tests.report.fake_run import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


def browse(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in headless Chromium, without a network."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    make_run().write(tmp_path)
    return write_report(tmp_path)


def test_renders_without_an_error(page: Path) -> None:
    shown = browse(page, "--dump-dom")
    assert "</html>" in shown.stdout
    assert "CONSOLE" not in shown.stderr


@pytest.mark.parametrize("width", [420, 1200])
def test_has_no_sideways_scroll(page: Path, tmp_path: Path, width: int) -> None:
    probe = tmp_path / "probe.html"
    measure = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    text = page.read_text().replace("</body>", measure)
    probe.write_text(text.replace("script-src", "script-src 'unsafe-inline'"))
    shown = browse(probe, f"--window-size={width},2000", "--dump-dom").stdout
    title = shown.partition("<title>")[2].partition("</title>")[0]
    assert title.isdigit()
    assert int(title) <= max(width, 500)
