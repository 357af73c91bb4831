"""
One WebSocket of a connection, from its opening to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Any

from .limits import DEFAULT
from .renewal import Overlap

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Link"]


class Link:
    """
    One WebSocket of a connection, from its opening to its end.

    Attributes:
        websocket: What the transport returned.
    """

    def __init__(self, connection: Connection, websocket: Any) -> None:
        self.websocket = websocket
        self._connection = connection
        self.opened_at = monotonic()
        # When the last message came, 0 before; who serves the link keeps it.
        self.received_at = 0.0
        # Serves the link, and ends with it.
        self.task: asyncio.Task[None]
        # While this link is being replaced, or replaces another.
        self.overlap: Overlap | None = None
        # Set once all that is wanted of this link has been asked for.
        self.ready = asyncio.Event()
        # What ended the link, if it was us.
        self.error: BaseException | None = None

    async def send(
        self, message: Any, *, limit: str = DEFAULT, auth: bool = False
    ) -> None:
        """
        Send a message on this link, or lose it with the link.

        Args and raises as :meth:`Connection.send`.
        """
        data = await self._connection.processors.frame(message, auth)
        await self.send_frame(data, limit)

    async def send_frame(self, data: str | bytes, limit: str = DEFAULT) -> None:
        """
        Send a frame as it is, when the rate allows it.
        """
        await self._connection._limiter.acquire(limit)
        await self._write(data)

    async def receive(self) -> str | bytes:
        """
        Return the next frame; only while ``on_connect`` runs.
        """
        frame: str | bytes = await self.websocket.recv()
        return frame

    async def _write(self, data: str | bytes) -> None:
        # Then it is lost, as what was written just before is; the reader will say so.
        with contextlib.suppress(
            self._connection.transport.exceptions.ConnectionClosed
        ):
            await self.websocket.send(data)
