"""A TCP proxy that breaks what passes through it: a real network that fails on request.

::

    with Proxy("127.0.0.1", 5432) as proxy:
        connect(port=proxy.port)
        proxy.breaks = Reset(after=10_000)      # of the bytes that go to the client
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Fine:
    """Pass everything."""


@dataclass(frozen=True)
class Cut:
    """Close both sides in order (FIN) after so many bytes to the client."""

    after: int


@dataclass(frozen=True)
class Reset:
    """Reset the client's connection (RST) after so many bytes to it."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Keep the connection open and pass nothing more after so many bytes to the client."""

    after: int


@dataclass(frozen=True)
class Slow:
    """Pass so many bytes a second to the client, a few at a time."""

    bytes_per_second: int


@dataclass(frozen=True)
class Refuse:
    """Reset each new connection at once."""


class Proxy:
    """Listens on a port of 127.0.0.1 and connects each client to `host:port`.

    `breaks` holds for connections made after it was set; with `times` only for so many of them.
    `connections` counts all that were made, `open` those that still are, `sent` the bytes to clients.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.breaks: object = Fine()
        self.times: int | None = None
        self.connections = 0
        self.open = 0
        self.sent = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._tasks: set[asyncio.Task] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def drop(self) -> None:
        """Reset all connections that are open now."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(10)

    def settled(self, seconds: float = 5) -> None:
        """Wait until no connection is open, at most so long."""
        end = time.monotonic() + seconds
        while self.open and time.monotonic() < end:
            time.sleep(0.01)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        await self._drop()

    async def _drop(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _rule(self) -> object:
        if self.times is None:
            return self.breaks
        self.times -= 1
        return self.breaks if self.times >= 0 else Fine()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        far = None
        try:
            rule = self._rule()
            if isinstance(rule, Refuse):
                _reset(writer)
                return
            far_reader, far = await asyncio.open_connection(*self._target)
            up = asyncio.ensure_future(_pump(reader, far))
            down = asyncio.ensure_future(self._broken_pump(far_reader, writer, rule))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                if up.done() and not down.done():
                    await asyncio.wait({down}, timeout=30)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except asyncio.CancelledError:
            _reset(writer)
        except OSError:
            _reset(writer)
        finally:
            for side in (writer, far):
                if side is not None:
                    side.close()
            self.open -= 1
            self._tasks.discard(task)

    async def _broken_pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rule: object
    ) -> None:
        """Pass bytes to the client until the rule says otherwise."""
        passed = 0
        with suppress(OSError):
            while data := await reader.read(65536):
                match rule:
                    case Slow(rate):
                        step = max(1, rate // 10)
                        for start in range(0, len(data), step):
                            writer.write(data[start : start + step])
                            await writer.drain()
                            await asyncio.sleep(step / rate)
                    case Cut(after) | Reset(after) | Stall(after) if passed + len(data) > after:
                        writer.write(data[: after - passed])
                        await writer.drain()
                        if isinstance(rule, Stall):
                            await asyncio.Event().wait()
                        if isinstance(rule, Reset):
                            await asyncio.sleep(0.02)  # so that what was passed arrives before the RST
                            _reset(writer)
                        return
                    case _:
                        writer.write(data)
                        await writer.drain()
                passed += len(data)
                self.sent += len(data)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: linger on, for no time."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
