"""
One WebSocket of a connection, from its opening to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
from time import monotonic
from typing import TYPE_CHECKING, Any

from .limits import DEFAULT
from .renewal import Overlap

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Link", "Standing"]


class Standing(enum.Enum):
    """
    What a link is to its connection.
    """

    # It isn't used yet: it may have to be given what another has.
    COMING = "coming"
    # It is the one to send on.
    CURRENT = "current"
    # Another has taken over; it is read to its end.
    LEAVING = "leaving"


class Link:
    """
    One WebSocket of a connection, from its opening to its end.

    Attributes:
        websocket: What the transport returned.
    """

    def __init__(self, connection: Connection, websocket: Any) -> None:
        self.websocket = websocket
        self._connection = connection
        self.opened_at: float = monotonic()
        self.standing = Standing.COMING
        # When the last message came, 0 before; who serves the link keeps it.
        self.received_at: float = 0.0
        # If a message that has come waits for us; likewise.
        self.is_held = False
        # Serves the link, and ends with it.
        self.task: asyncio.Task[None]
        # While this link is being replaced, or replaces another.
        self.overlap: Overlap | None = None
        # Set while the server has been asked for all that is wanted, and has it.
        self.ready: asyncio.Event = asyncio.Event()
        # Done once the link has ended, or is to: what it still brings is little, and
        # waits for no reader.
        self.ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # What ended the link, if it was us.
        self.error: BaseException | None = None

    def end(self) -> None:
        """
        Note that the link has ended, or is to.
        """
        if not self.ending.done():
            self.ending.set_result(None)

    def has_all(self) -> None:
        """
        Note that the server has been asked for all that is wanted, and has it.
        """
        self.ready.set()
        if self.overlap is not None and self.standing is Standing.COMING:
            self.overlap.ready()

    async def catch_up(
        self, caught_up: asyncio.Event, patience: float, overlap: float
    ) -> None:
        """
        Return when the link has all that the one has which it is to replace.

        Args:
            caught_up: Set once it brings what that one brings, if anything is.

            patience: The most seconds to wait for what is wanted.

            overlap: The most seconds to wait for *caught_up* then.

        Raises:
            TimeoutError: If it isn't given what is wanted.
        """
        await _wait(self.ready, patience)
        # Where nothing is going on nothing comes by both.
        with contextlib.suppress(TimeoutError):
            await _wait(caught_up, overlap)
        # Something else may have been asked for meanwhile.
        await _wait(self.ready, patience)

    def part(self, overlap: Overlap, timeout: float) -> None:
        """
        Go on alone, once this link has brought what the other one has.
        """
        leave = functools.partial(self._leave, overlap)
        overlap.part(self, leave)
        # It may never: nobody says that both are given the same.
        asyncio.get_running_loop().call_later(timeout, leave)

    def _leave(self, overlap: Overlap) -> None:
        if self.overlap is overlap:
            self.overlap = None

    async def close(self, code: int, reason: str, patience: float | None) -> None:
        """
        Close the link in good order, and read it to its end meanwhile.

        Args:
            patience: The most seconds that each of both takes.
        """
        # The closing handshake takes a reader that reads, at whatever pace.
        self.end()
        closing = asyncio.ensure_future(self.websocket.close(code, reason))
        try:
            # It has a timeout of its own, which starts when all that was sent is on
            # its way: never, with a server that doesn't read.
            done, _ = await asyncio.wait({closing}, timeout=patience)
            if done:
                closing.result()
                # Post-processors may take their time.
                await asyncio.wait({self.task}, timeout=patience)
        finally:
            closing.cancel()
            await asyncio.wait({closing})

    @property
    def failure(self) -> BaseException:
        """
        What the link ended with, once its task is done.
        """
        if self.error is None and not self.task.cancelled():
            self.error = self.task.exception()
        return self.error or EOFError()

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
        await self._connection.limiter.acquire(limit)
        await self.write(data)

    async def write(self, data: str | bytes) -> None:
        """
        Send a frame as it is, whatever the rate.
        """
        # Then it is lost, as what was written just before is; the reader will say so.
        with contextlib.suppress(
            self._connection.transport.exceptions.ConnectionClosed
        ):
            await self.websocket.send(data)

    async def receive(self) -> str | bytes:
        """
        Return the next frame; only while ``on_connect`` runs.
        """
        frame: str | bytes = await self.websocket.recv()
        return frame


async def _wait(event: asyncio.Event, timeout: float) -> None:
    # No asyncio.wait_for(): before Python 3.12 it can swallow a cancellation.
    waiting = asyncio.create_task(event.wait())
    try:
        done, _ = await asyncio.wait({waiting}, timeout=timeout)
    finally:
        waiting.cancel()
    if not done:
        raise TimeoutError(f"the new link wasn't ready in {timeout} s")
