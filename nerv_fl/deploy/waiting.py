"""Log lines about what a SuperNode waits for: one when the waiting begins, one when it ends.

Flower's SuperNode logs that it tries again, and not why. It may also end and be started again, so the reason is kept in
a file, and a restart does not log it anew.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from nerv_fl.deploy.fleet_paths import ACTIVATE, KIND_HEADER

INTERNAL_ERROR: Final = 500
RETRIED: Final = frozenset({502, 503, 504})
"""Statuses after which Flower 1.41 sends a request again."""

WAITS: Final = "the SuperNode waits and tries again"
REFUSED: Final = "the SuperLink refused a request of this SuperNode"

log = logging.getLogger(__name__)

Intercept: TypeAlias = Callable[[Any, ProtobufRequestContext, ProtobufCall], httpx.Response]


class WaitNotice:
    """Logs each new reason to wait once.

    Args:
        path: File that holds the kind of the reason while there is one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kinds: dict[str, str] = {}
        with suppress(OSError):
            self._kinds[ACTIVATE] = path.read_text(encoding="utf-8")  # what is asked first after a restart

    def failed(self, request: str, kind: str, text: str, *, what: str = WAITS) -> None:
        """Note that a request failed.

        Args:
            request: Its path.
            kind: A word; the same kind is logged once.
            text: The reason in words.
            what: What follows from it.
        """
        with self._lock:
            is_new = kind not in self._kinds.values()
            self._kinds[request] = kind
            if is_new:
                log.warning("%s: %s", what, text)
                self._write(kind)

    def succeeded(self, request: str) -> None:
        """Note that a request was answered."""
        with self._lock:
            if self._kinds.pop(request, None) is not None and not self._kinds:
                log.warning("the SuperNode goes on: the SuperLink answers")
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def _write(self, kind: str) -> None:
        with suppress(OSError):  # a full disk costs a repeated line, no more
            self._path.write_text(kind, encoding="utf-8")


def noticing(intercept: Intercept, notice: WaitNotice) -> Intercept:
    """Return Flower's function that sends a request to the SuperLink, with failures noted."""

    def intercept_noticed(signer: Any, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        url = context.request.url
        try:
            response = intercept(signer, context, call_next)
        except httpx.TransportError as error:
            text = f"the SuperLink at {url.host}:{url.port} cannot be reached ({type(error).__name__}: {error})"
            notice.failed(url.path, type(error).__name__, text)
            raise
        reason = reason_of(url.path, response)
        if reason is not None:
            is_final = KIND_HEADER in response.headers and response.status_code not in RETRIED
            notice.failed(url.path, *reason, what=REFUSED if is_final else WAITS)
        elif response.is_success:
            notice.succeeded(url.path)
        return response

    return intercept_noticed


def reason_of(path: str, response: httpx.Response) -> tuple[str, str] | None:
    """Return the kind and text of the reason for which a response makes a SuperNode wait or give up, or None."""
    kind = response.headers.get(KIND_HEADER)
    if kind is not None:
        return kind, " ".join(response.text.split())
    if response.status_code >= INTERNAL_ERROR:
        return f"HTTP {response.status_code}", f"the SuperLink fails (HTTP status {response.status_code})"
    if path == ACTIVATE and response.is_error:
        return "taken", (
            f"the SuperLink does not take this SuperNode (HTTP status {response.status_code}): for about a minute "
            "after a SuperNode was killed it takes it for one that is still there"
        )
    return None
