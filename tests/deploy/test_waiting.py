"""What a SuperNode's log says while it waits."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from nerv_fl.deploy.fleet_paths import ACTIVATE, HEARTBEAT, KIND_HEADER
from nerv_fl.deploy.waiting import WaitNotice, noticing

PULL = "/v1/fleet/pull-messages"
WAITS, GOES_ON = "the SuperNode waits and tries again: ", "the SuperNode goes on: the SuperLink answers"


@pytest.fixture
def notice(tmp_path: Path) -> WaitNotice:
    return WaitNotice(tmp_path / "waits-for")


def ask(notice: WaitNotice, path: str, answer: httpx.Response | Exception) -> None:
    """Send a request to which the SuperLink gives an answer, or gives none."""

    def send(_signer: Any, _context: Any, _call_next: Any) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Context:
        request = httpx.Request("POST", f"https://fl.example.org:9092{path}")

    noticing(send, notice)(None, Context(), None)  # type: ignore[arg-type]


def refused(kind: str, text: str, status: int = 503) -> httpx.Response:
    return httpx.Response(status, headers={KIND_HEADER: kind}, text=text)


def test_each_reason_is_said_once_and_its_end_once(notice: WaitNotice, caplog: pytest.LogCaptureFixture) -> None:
    for off in ("7.3", "7.4", "7.2"):
        ask(notice, PULL, refused("clock", f"the clock is {off} s ahead\n"))
        ask(notice, HEARTBEAT, refused("clock", f"the clock is {off} s ahead\n"))
    ask(notice, PULL, httpx.Response(200))
    ask(notice, HEARTBEAT, httpx.Response(200))
    ask(notice, PULL, httpx.Response(200))

    assert caplog.messages == [f"{WAITS}the clock is 7.3 s ahead", GOES_ON]


def test_requests_of_which_one_kind_fails_do_not_take_turns(
    notice: WaitNotice, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk fails what writes, and answers what reads."""
    for _ in range(5):
        ask(notice, HEARTBEAT, refused("database", "full"))
        ask(notice, PULL, httpx.Response(200))

    assert caplog.messages == [f"{WAITS}full"]


def test_a_restart_does_not_say_it_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "waits-for"
    for _ in range(3):
        ask(WaitNotice(path), ACTIVATE, refused("unregistered", "this SuperNode's key is not registered"))
    ask(WaitNotice(path), ACTIVATE, httpx.Response(200))
    ask(WaitNotice(path), ACTIVATE, httpx.Response(200))

    assert caplog.messages == [f"{WAITS}this SuperNode's key is not registered", GOES_ON]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (httpx.Response(500), "the SuperLink fails (HTTP status 500)"),
        (httpx.Response(412), "the SuperLink does not take this SuperNode (HTTP status 412): for about a minute after"),
    ],
)
def test_other_answers_are_reasons_too(
    answer: httpx.Response, text: str, notice: WaitNotice, caplog: pytest.LogCaptureFixture
) -> None:
    ask(notice, ACTIVATE, answer)

    assert caplog.messages[0].startswith(WAITS + text)


@pytest.mark.parametrize("status", [400, 401, 408, 413])
def test_a_refusal_that_flower_does_not_retry_is_not_said_to_be_waited_for(
    status: int, notice: WaitNotice, caplog: pytest.LogCaptureFixture
) -> None:
    ask(notice, PULL, refused("body", "the body is too large", status))

    assert caplog.messages == ["the SuperLink refused a request of this SuperNode: the body is too large"]


def test_a_run_that_is_over_is_no_reason_to_wait(notice: WaitNotice, caplog: pytest.LogCaptureFixture) -> None:
    ask(notice, PULL, httpx.Response(403))

    assert caplog.messages == []


def test_a_server_that_is_not_there_is_named(notice: WaitNotice, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with pytest.raises(httpx.ConnectError):
            ask(notice, PULL, httpx.ConnectError("connection refused"))

    assert caplog.messages == [
        f"{WAITS}the SuperLink at fl.example.org:9092 cannot be reached (ConnectError: connection refused)"
    ]
