"""
What keeps a link: lost, it is opened again; old, it is renewed.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterator, Mapping
from time import monotonic
from typing import Any

from ..exceptions import Closed
from .events import Event, Events
from .link import Link
from .renewal import Overlap
from .transports import NORMAL, Transport, abort, drop, unsent

__all__ = ["State", "Supervisor"]


class State(enum.Enum):
    """
    How a connection is doing.
    """

    # connect() hasn't been called.
    IDLE = "idle"
    # There is no link; one is being opened, or will be after a delay.
    CONNECTING = "connecting"
    # There is a link.
    CONNECTED = "connected"
    # There will be none any more.
    CLOSED = "closed"


class Supervisor:
    """
    Keeps a link, until there can be none; owns all links, and their tasks.

    Args:
        open: Opens a link, in one attempt.

        serve: Reads a link; ends when it ends.

        transport: Says what attempts and links ended with.

        events: Tells of what happens.

        on_end: Called with :attr:`error` at the end.

        options: The transport's; here for its timeouts.

        delays: This and all others as of :class:`.Connection`.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[Link]],  # noqa: A002 (what it does)
        serve: Callable[[Link], Awaitable[None]],
        transport: Transport,
        events: Events,
        on_end: Callable[[Closed | None], object],
        options: Mapping[str, Any],
        *,
        delays: Callable[[], Iterator[float]],
        stable_after: float,
        renew_after: float | Callable[[], Awaitable[object]] | None,
        overlap: float,
        message_timeout: float | None,
    ) -> None:
        self._open_link = open
        self._serve = serve
        self._transport = transport
        self._events = events
        self._on_end = on_end
        self._options = options
        self._new_delays = delays
        self._stable_after = stable_after
        self._renew_after = renew_after
        self._overlap = overlap
        self._message_timeout = message_timeout
        # The seconds before the next attempts.
        self._delays = delays()
        # Runs from start() to the end; owns all other tasks.
        self._task: asyncio.Task[None] | None = None
        # All links there are: two during a renewal.
        self._links: set[Link] = set()
        # If a renewal has come so far as to open a link.
        self._renewing = False
        # If even the first link may take several attempts.
        self._patient = False
        # When the last message came on a link that is gone.
        self._received_at = 0.0
        self.state = State.IDLE
        #: The link to send on.
        self.link: Link | None = None
        #: Set while there is a link, and at the end.
        self.up = asyncio.Event()
        #: What it ended with; :obj:`None` if normally, or not at all.
        self.error: Closed | None = None
        #: How many links there have been.
        self.connections = 0

    def start(self, *, patient: bool) -> None:
        """
        Begin; if *patient*, even the first link may take several attempts.
        """
        self.state = State.CONNECTING
        self._patient = patient
        self._task = asyncio.create_task(self._supervise())

    async def close(self, code: int, reason: str) -> None:
        """
        Close all links; return when nothing is left.
        """
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        try:
            closing = [self._retire(link, code, reason) for link in self._links]
            await asyncio.gather(*closing)
        finally:
            for link in self._links:
                link.task.cancel()
                abort(link.websocket)
            self._end(None)

    @property
    def received_at(self) -> float:
        """
        When the last message came, on :func:`time.monotonic`; 0 if none has.
        """
        return max([self._received_at, *(link.received_at for link in self._links)])

    # Links, one after the other

    async def _supervise(self) -> None:
        """Keep a link, until there can be none."""
        error: Closed | None = None
        try:
            link = await self._establish()
            while True:
                link = await self._keep(link)
        except Closed as closed:
            error = closed
        # A bug, of ours or of a callback; those who wait must hear of it.
        except Exception as bug:
            error = Closed(1006, f"{type(bug).__name__}: {bug}")
            error.__cause__ = bug
        for link in list(self._links):
            await self._drop(link)
        self._end(error)

    async def _establish(self, overlap: Overlap | None = None) -> Link:
        """Open a link, however many attempts it takes."""
        while True:
            try:
                return await self._open(overlap)
            except Exception as error:
                closed, final, after = self._transport.failure(error)
            if final or not (self._patient or self.connections):
                raise closed
            await self._pause(closed, after)

    async def _pause(self, closed: Closed, after: float) -> None:
        """Wait before the next attempt, if there is to be one."""
        try:
            delay = max(next(self._delays), after)
        except StopIteration:
            raise closed from closed.__cause__
        self._events.emit(Event("retrying", delay=delay, error=closed))
        await asyncio.sleep(delay)

    async def _open(self, overlap: Overlap | None) -> Link:
        """Open a link, and start to serve it."""
        link = await self._open_link()
        link.overlap = overlap
        link.task = asyncio.create_task(self._run(link))
        self._links.add(link)
        self.link = link
        self.connections += 1
        self.state = State.CONNECTED
        self.up.set()
        self._events.emit(Event("connected"))
        return link

    async def _run(self, link: Link) -> None:
        """Serve a link until it ends."""
        watches = [asyncio.create_task(self._watch_sending(link))]
        if self._message_timeout:
            watches.append(asyncio.create_task(self._watch(link)))
        try:
            await self._serve(link)
        finally:
            for watch in watches:
                watch.cancel()

    async def _watch(self, link: Link) -> None:
        """Drop a link on which nothing comes."""
        assert self._message_timeout is not None
        while True:
            last = link.received_at or link.opened_at
            left = last + self._message_timeout - monotonic()
            if left <= 0:
                break
            await asyncio.sleep(left)
        link.error = TimeoutError(f"no message in {self._message_timeout} s")
        await drop(link.websocket)

    async def _watch_sending(self, link: Link) -> None:
        """Drop a link that takes nothing of what is sent."""
        beats = (self._options["ping_interval"], self._options["ping_timeout"])
        if None in beats:
            return
        # The transport's ping would wait without end, behind what isn't taken.
        patience = sum(beats)
        before, now = 0, 0
        while not now or now != before:
            await asyncio.sleep(patience)
            before, now = now, unsent(link.websocket)
        link.error = TimeoutError(f"nothing was taken in {patience} s")
        await drop(link.websocket)

    async def _keep(self, link: Link) -> Link:
        """Return the link that comes after *link*, when there is one."""
        renewal = None
        if self._renew_after is not None:
            renewal = asyncio.create_task(self._renew(link))
        try:
            waiting = {link.task, *filter(None, [renewal])}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if renewal is not None and renewal.done():
                error = renewal.exception()
                if error is None:
                    return renewal.result()
                # The old link goes on as long as it can.
                self._events.emit(Event("error", error=error))
                await asyncio.wait({link.task})
            closed, final, after = await self._lost(link)
            if final:
                raise closed
            if renewal is not None and self._renewing and not renewal.done():
                return await renewal
        finally:
            if renewal is not None:
                renewal.cancel()
                await asyncio.wait({renewal})
            self._renewing = False
        # Those go on from where they were unless the link has lasted: a server that
        # accepts and then closes isn't to be called without pause.
        if monotonic() - link.opened_at >= self._stable_after:
            self._delays = self._new_delays()
        await self._pause(closed, after)
        return await self._establish()

    async def _lost(self, link: Link) -> tuple[Closed, bool, float]:
        """Say how a link ended."""
        assert link.task.done(), "a link is lost when its task has ended"
        error = link.error or (
            EOFError() if link.task.cancelled() else link.task.exception()
        )
        if self.link is link:
            self.link = None
            self.up.clear()
            self.state = State.CONNECTING
        await self._drop(link)
        closed, final, after = self._transport.failure(error or EOFError())
        self._events.emit(
            Event("disconnected", code=closed.code, reason=closed.reason, error=error)
        )
        # What becomes of a link that has its successor is of no interest.
        return closed, final and self.link is None, after

    async def _renew(self, old: Link) -> Link:
        """Return a link that has taken over from *old*."""
        if callable(self._renew_after):
            await self._renew_after()
        else:
            await asyncio.sleep(self._renew_after or 0)
        self._renewing = True
        joined = asyncio.Event()
        overlap = old.overlap = Overlap(old, joined.set)
        new = await self._establish(overlap)
        waiting = [
            asyncio.ensure_future(self._joined(new, overlap, joined)),
            old.task,
            new.task,
        ]
        try:
            await asyncio.wait(
                waiting, timeout=self._overlap, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting[0].cancel()
        if not old.task.done():
            await self._retire(old, 1000, "renewed")
        new.overlap = None
        self._delays = self._new_delays()
        self._events.emit(Event("renewed"))
        return new

    async def _joined(self, new: Link, overlap: Overlap, joined: asyncio.Event) -> None:
        await new.ready.wait()
        overlap.ready()
        await joined.wait()

    # Ends

    async def _retire(self, link: Link, code: int, reason: str) -> None:
        """Close a link in good order, which is read to its end meanwhile."""
        patience = self._options["close_timeout"]
        closing = asyncio.ensure_future(link.websocket.close(code, reason))
        try:
            # It has a timeout of its own, which starts when all that was sent is on
            # its way: never, with a server that doesn't read.
            done, _ = await asyncio.wait({closing}, timeout=patience)
            if done:
                closing.result()
                # A blocked reader has no end.
                await asyncio.wait({link.task}, timeout=patience)
        finally:
            closing.cancel()
            await asyncio.wait({closing})
        await self._drop(link)

    async def _drop(self, link: Link) -> None:
        """Leave nothing of a link."""
        link.task.cancel()
        await asyncio.wait({link.task})
        self._received_at = max(link.received_at, self._received_at)
        self._links.discard(link)
        await drop(link.websocket)

    def _end(self, error: Closed | None) -> None:
        """Tell everybody that it is over."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        if error is not None and (error.code not in NORMAL or not self.connections):
            self.error = error
        self.link = None
        self.up.set()
        self._on_end(self.error)
        self._events.emit(Event("closed", error=self.error))
        self._events.close()
