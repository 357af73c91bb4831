"""
A server in the same process, without a network: for the tests of those who use this.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import types
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close

from ..mailbox import Mailbox

__all__ = ["MemoryServer", "MemoryWebSocket"]

OPEN, CLOSED = 1, 3

# What a client may ask for; most of it means nothing without a network.
OPTIONS = frozenset(inspect.signature(connect).parameters) | {"ssl"}


class MemoryWebSocket:
    """
    One end of a WebSocket in memory; used as one of :mod:`websockets`.
    """

    #: The other end.
    peer: MemoryWebSocket

    def __init__(self) -> None:
        self.state = OPEN
        self.subprotocol: str | None = None
        #: What the client asked for.
        self.uri = ""
        self.headers: Any = None
        # As a transport's; there is none.
        self.transport: types.SimpleNamespace = types.SimpleNamespace(abort=self.abort)
        self._frames: Mailbox[str | bytes] = Mailbox()
        self._closed = asyncio.Event()

    async def recv(self, decode: bool | None = None) -> str | bytes:
        """
        Return the next message.

        Canceling it loses nothing.

        Raises:
            ConnectionClosed: If there are no more.
        """
        frame = await self._frames.get()
        if decode is False and isinstance(frame, str):
            return frame.encode()
        return frame

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """
        Iterate over the messages. Ends when it is closed normally.

        Raises:
            ConnectionClosedError: If it is closed otherwise.
        """
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                yield await self.recv()

    async def send(self, data: str | bytes) -> None:
        """
        Send a message.

        Raises:
            TypeError: If it is neither text nor bytes.
            ConnectionClosed: If the connection is closed.
        """
        if not isinstance(data, str | bytes):
            raise TypeError(f"expected text or bytes, got {type(data).__name__}")
        if self.state == CLOSED:
            raise ConnectionClosedError(None, None)
        self.peer._frames.put_nowait(data)

    async def ping(self) -> asyncio.Future[float]:
        """
        Return a future for the seconds until the pong.
        """
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        pong.set_result(0.0)
        return pong

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close both ends.
        """
        frame = Close(code, reason)
        kind = ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError
        self._end(kind(frame, frame, True))

    def abort(self) -> None:
        """
        Break the connection: no closing handshake.
        """
        self._end(ConnectionClosedError(None, None))

    async def wait_closed(self) -> None:
        """
        Return when it is closed, which takes no time.
        """
        await self._closed.wait()

    def _end(self, error: Exception) -> None:
        for end in (self, self.peer):
            end.state = CLOSED
            end._frames.close(error)
            end._closed.set()


class MemoryServer:
    """
    What a client connects to in place of a server::

        server = MemoryServer()
        async with Multiplex("ws://test", transport=server.connect) as mux:
            websocket = await server.accept()
            await websocket.send("...")
    """

    def __init__(self) -> None:
        self._clients: Mailbox[MemoryWebSocket] = Mailbox()

    async def accept(self, timeout: float | None = None) -> MemoryWebSocket:
        """
        Return the server's end of the next connection.

        Raises:
            TimeoutError: If none came in time.
        """
        return await self._clients.get(timeout)

    async def connect(self, uri: str, **options: Any) -> MemoryWebSocket:
        """
        Connect, as a transport of a client does.

        Args:
            options: Those of websockets' ``connect``.

        Raises:
            TypeError: If there is no such option.
        """
        unknown = options.keys() - OPTIONS
        if unknown:
            raise TypeError(f"there is no option {min(unknown)!r}")
        ours, theirs = MemoryWebSocket(), MemoryWebSocket()
        ours.peer, theirs.peer = theirs, ours
        theirs.uri, theirs.headers = uri, options.get("additional_headers")
        # A server with nothing against any.
        for offered in (options.get("subprotocols") or ())[:1]:
            ours.subprotocol = theirs.subprotocol = offered
        self._clients.put_nowait(theirs)
        return ours
