"""
What keeps a link: lost, it is opened again; old, it is renewed.

A renewal opens a second link beside the first. That one is promoted once it has been
given all that is wanted, and only then is the first one closed, and read to its end.
A second link that fails is given up instead, and the first is as it was; the next
attempt comes after a delay. If it is the first that ends, the second is promoted as
it is, and that is a loss.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic

from ..exceptions import Closed
from .events import Event, Events
from .link import Link, Standing
from .liveness import (
    watch_closing,
    watch_end,
    watch_pongs,
    watch_silence,
    watched,
)
from .processors import in_callback, outcome
from .renewal import Overlap
from .transports import NORMAL, CallbackError, Transport, abort, drop

__all__ = ["State", "Supervisor"]

# Whose task this is, or whose task has started it.
_inside: contextvars.ContextVar[Supervisor | None] = contextvars.ContextVar(
    "_inside", default=None
)


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

        on_promotion: Called with a link that is the one to send on from now on, and
            if something may have been lost since the one before.

        transport: Says what attempts and links ended with.

        events: Tells of what happens.

        on_end: Called with :attr:`error` at the end.

        close_timeout: The most seconds that closing takes.

        heartbeat: The seconds between pings, and to wait for a pong.

        delays: This and all others as of :class:`.Connection`.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[Link]],  # noqa: A002 (what it does)
        serve: Callable[[Link], Awaitable[None]],
        on_promotion: Callable[[Link, bool], object],
        transport: Transport,
        events: Events,
        on_end: Callable[[Closed | None], object],
        close_timeout: float | None,
        *,
        open_timeout: float,
        delays: Callable[[], Iterator[float]],
        stable_after: float,
        renew_after: float | Callable[[], Awaitable[object]] | None,
        overlap: float,
        message_timeout: float | None,
        heartbeat: tuple[float, float | None] | None,
    ) -> None:
        self._open_link = open
        self._serve = serve
        self._on_promotion = on_promotion
        self._transport = transport
        self._events = events
        self._on_end = on_end
        self._close_timeout = close_timeout
        self._open_timeout = open_timeout
        self._new_delays = delays
        self._stable_after = stable_after
        self._renew_after = renew_after
        self._overlap = overlap
        self._message_timeout = message_timeout
        self._heartbeat = heartbeat
        # The seconds before the next attempts.
        self._delays = delays()
        # Runs from start() to the end; owns all other tasks.
        self._task: asyncio.Task[None] | None = None
        # All links there are: two during a renewal.
        self._links: set[Link] = set()
        # The one of them that is to replace the link to send on, or just has.
        self._successor: Link | None = None
        # Closes everything, once that was asked for.
        self._closing: asyncio.Task[None] | None = None
        # If even the first link may take several attempts.
        self._patient = False
        # When the last message came on a link that is gone.
        self._received_at = 0.0
        self.state: State = State.IDLE
        #: The link to send on.
        self.link: Link | None = None
        #: Set while there is a link, and at the end.
        self.up: asyncio.Event = asyncio.Event()
        #: What it ended with; :obj:`None` if normally, or not at all.
        self.error: Closed | None = None
        #: How many links there have been.
        self.connections: int = 0

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

        A callback of the connection's own doesn't wait for that: it would wait for
        itself. A task that it has started does. Canceling it doesn't stop it.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, reason))
        if not (_inside.get() is self and in_callback()):
            await asyncio.wait({self._closing})
            self._closing.result()

    @property
    def received_at(self) -> float:
        """
        When the last message came, on :func:`time.monotonic`; 0 if none has.
        """
        return max([self._received_at, *(link.received_at for link in self._links)])

    # Links, one after the other

    async def _supervise(self) -> None:
        """Keep a link, until there can be none."""
        _inside.set(self)
        error: Closed | None = None
        try:
            link = await self._establish()
            while True:
                link = await self._keep(link)
        except Closed as closed:
            error = closed
        # A bug, of ours or of a callback; those who wait must hear of it. So they must
        # if we are canceled: only close() sees to the rest itself.
        except (Exception, asyncio.CancelledError) as bug:
            if self._closing is not None and isinstance(bug, asyncio.CancelledError):
                raise
            error = Closed(1006, f"{type(bug).__name__}: {bug}")
            error.__cause__ = bug
        try:
            for link in list(self._links):
                await self._drop(link)
        finally:
            self._end(error)

    async def _establish(self) -> Link:
        """Return a link to send on, however many attempts it takes."""
        while True:
            try:
                link = await self._open()
            except Exception as error:
                closed, final, after = self._failure(error)
            else:
                self._promote(link, lost=self.connections > 1)
                return link
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

    async def _open(self) -> Link:
        """Open a link, and start to serve it."""
        link = await self._open_link()
        link.task = asyncio.create_task(self._run(link))
        self._links.add(link)
        self.connections += 1
        return link

    def _promote(self, link: Link, *, lost: bool) -> None:
        """Make a link the one to send on."""
        if self.link is not None:
            self.link.standing = Standing.LEAVING
        link.standing = Standing.CURRENT
        self.link = link
        self.state = State.CONNECTED
        self.up.set()
        self._events.emit(Event("connected"))
        self._on_promotion(link, lost)

    async def _run(self, link: Link) -> None:
        """Serve a link until it ends."""
        watches = [watch_end(link)]
        if self._close_timeout is not None:
            watches.append(watch_closing(link, self._close_timeout))
        if self._heartbeat is not None:
            watches.append(watch_pongs(link, *self._heartbeat))
        if self._message_timeout is not None:
            watches.append(watch_silence(link, self._message_timeout))
        await watched(outcome(self._serve(link)), watches)

    async def _keep(self, link: Link) -> Link:
        """Return the link that comes after *link*, when there is one."""
        renewal = None
        if self._renew_after is not None:
            renewal = asyncio.create_task(self._renew(link))
        try:
            waiting = {link.task, *filter(None, [renewal])}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            # If there are two links it sees to the end of either.
            if renewal is not None and (renewal.done() or self._successor):
                new = await renewal
                if new is not None:
                    return new
            self._down()
        finally:
            if renewal is not None:
                renewal.cancel()
                await asyncio.wait({renewal})
        closed, final, after = await self._lost(link)
        if final:
            raise closed
        # Those go on from where they were unless the link has lasted: a server that
        # accepts and then closes isn't to be called without pause.
        if monotonic() - link.opened_at >= self._stable_after:
            self._delays = self._new_delays()
        await self._pause(closed, after)
        return await self._establish()

    def _down(self) -> None:
        """Note that there is no link to send on."""
        self.link = None
        self.up.clear()
        self.state = State.CONNECTING

    async def _lost(self, link: Link) -> tuple[Closed, bool, float]:
        """Say how a link ended that was the one to send on."""
        # A link that was to replace it may have been given up, and not closed yet.
        for gone in self._links - {self._successor}:
            await self._drop(gone)
        closed, final, after = self._failure(link.failure)
        self._events.emit(
            Event(
                "disconnected",
                code=closed.code,
                reason=closed.reason,
                error=link.failure,
            )
        )
        return closed, final, after

    def _failure(self, error: BaseException) -> tuple[Closed, bool, float]:
        """Say what an attempt or a link ended with; see Transport.failure()."""
        closed, final, after = self._transport.failure(error)
        if isinstance(error, CallbackError) and self.connections:
            # What it asks, for a token say, has answered before and may again.
            final = final and self._transport.is_verdict(error.cause)
            self._events.emit(Event("error", error=error.cause))
        return closed, final, after

    # One link beside the other

    async def _renew(self, old: Link) -> Link | None:
        """
        Return a link that has taken over from *old*, after so many attempts.

        None if both have ended.
        """
        is_due, delays = False, self._new_delays()
        while True:
            after = 0.0
            try:
                if not is_due:
                    await self._due()
                    is_due = True
                return await self._replace(old)
            # The old link goes on as long as it can.
            except Exception as error:
                after = self._transport.failure(error)[2]
                if isinstance(error, CallbackError):
                    error = error.cause
                self._events.emit(Event("error", error=error))
            if old.task.done():
                return None
            delay = next(delays, None)
            if delay is None:
                # There is to be no other attempt; our task is cancelled with the link.
                await asyncio.Event().wait()
            else:
                # What the new one brought first may still come by the old one.
                await asyncio.sleep(max(delay, after, self._overlap))

    async def _due(self) -> None:
        """Return when a link is to be renewed."""
        renew_after = self._renew_after
        if not callable(renew_after):
            return await asyncio.sleep(renew_after or 0)

        async def ask() -> None:
            await renew_after()

        await outcome(ask())

    async def _replace(self, old: Link) -> Link:
        """Return a link that has taken over from *old*, or raise why none could."""
        caught_up = asyncio.Event()
        # Before there is a new one: what a server sends to both unasked may come by
        # the old one while the new one is opened.
        overlap = old.overlap = Overlap(old, caught_up.set)
        try:
            new = await self._open()
        except BaseException:
            old.overlap = None
            raise
        new.overlap = overlap
        self._successor = new
        catching_up = asyncio.create_task(
            new.catch_up(caught_up, self._open_timeout, self._overlap)
        )
        try:
            waiting = {catching_up, old.task, new.task}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            catching_up.cancel()
            await asyncio.wait({catching_up})
        lost = old.task.done()
        error = None
        if new.task.done():
            error = new.failure
        elif not lost and not catching_up.cancelled():
            error = catching_up.exception()
        if error is not None:
            self._successor = None
            if not lost:
                # It may have brought something first, and still have something.
                await self._retire(new, 1000, "not renewed")
            old.part(overlap, self._overlap)
            raise error
        if lost:
            self._down()
            await self._lost(old)
        self._promote(new, lost=lost)
        if not lost:
            # It may still have to answer what was sent on it.
            await asyncio.wait(
                {old.task, new.task},
                timeout=self._overlap,
                return_when=asyncio.FIRST_COMPLETED,
            )
            retiring = asyncio.create_task(self._retire(old, 1000, "renewed"))
            try:
                # That takes its time, if the other end doesn't answer.
                waiting = {retiring, new.task}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                retiring.cancel()
                await asyncio.wait({retiring})
        new.part(overlap, self._overlap)
        self._successor = None
        self._delays = self._new_delays()
        self._events.emit(Event("renewed"))
        return new

    # Ends

    async def _close(self, code: int, reason: str) -> None:
        """Close all links."""
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
            closing = [self._retire(link, code, reason) for link in self._links]
            await asyncio.gather(*closing)
        finally:
            for link in self._links:
                link.task.cancel()
                abort(link.websocket)
            self._end(None)

    async def _retire(self, link: Link, code: int, reason: str) -> None:
        """Close a link in good order, which is read to its end meanwhile."""
        try:
            await link.close(code, reason, self._close_timeout)
        finally:
            await self._drop(link)

    async def _drop(self, link: Link) -> None:
        """Leave nothing of a link."""
        link.task.cancel()
        await asyncio.wait({link.task})
        self._received_at = max(link.received_at, self._received_at)
        try:
            await drop(link.websocket)
        finally:
            self._links.discard(link)

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
