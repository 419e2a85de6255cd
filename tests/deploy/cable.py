"""A network cable between one node and the SuperLink, which can be cut and healed: bytes wait, nothing is refused.

As on a network that loses everything, neither side is told: connections stay open, and what was sent arrives after the
cable is healed, or never.
"""

import asyncio
import threading
from typing import Final, Self

CHUNK_BYTES: Final = 65_536


class Cable:
    """A TCP relay on loopback, in a thread of its own.

    Args:
        port: Its own port.
        target: Port that it leads to.
    """

    def __init__(self, *, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._whole = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self.bytes_carried = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Carry nothing from now on."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        """Carry again, what waited first."""
        self._loop.call_soon_threadsafe(self._whole.set)

    async def _listen(self) -> None:
        self._whole.set()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            relay = asyncio.ensure_future(self._carry(source, sink))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
                self.bytes_carried += len(data)
        except OSError:
            pass
        finally:
            sink.close()

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
