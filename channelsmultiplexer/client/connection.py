"""
One WebSocket that is always there: lost, it comes back; old, it is renewed.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import functools
import inspect
import json
import ssl as _ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from time import monotonic, time
from typing import Any, TypeAlias

import msgspec

from .. import backoff
from ..exceptions import Closed, InboxClosed
from ..inbox import Mailbox
from .events import Event, Events, Listener
from .limits import DEFAULT, Limiter, RateLimit
from .link import Link
from .renewal import Overlap
from .transports import abort, drop, is_open, load, unsent

__all__ = ["Connection", "Processor", "State", "settle"]

Processor: TypeAlias = Callable[[Any], Any]

# A server on the internet, restarting: the browser client's delays.
DELAYS = functools.partial(backoff.delays, 0.5, 30.0)

# Ends that are nobody's fault.
NORMAL = (1000, 1001)

# How many frames may wait for receive(); then the network waits.
RECEIVE_LIMIT = 1000


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


class Connection:
    """
    One WebSocket to a server, opened again whenever it is lost.

    By itself it carries frames, and :class:`.Multiplex` takes them apart. It serves
    once: after :meth:`close` make another.

    Args:
        uri: Where to, or a function, or coroutine function, that is asked at each
            attempt.

        headers: Of the handshake; a mapping or, likewise, a function.

        subprotocols: What to offer.

        ssl: A context for ``wss``, used as it is.

        verify_ssl: :obj:`False` trusts any certificate. Not with *ssl*.

        heartbeat: Seconds between pings, and to wait for a pong; :obj:`None` for no
            pings.

        message_timeout: Seconds without any message after which the link counts as
            dead.

        open_timeout: Seconds for the handshake, and again for *on_connect*.

        delays: Makes an iterator of the seconds before each attempt to connect
            again. A new one is made when a link has lasted; when it ends, so does
            the connection: ``lambda: iter(())`` never connects again.

        stable_after: Seconds that a link must last to count as one that worked.

        renew_after: Seconds after which a link is replaced by a new one, or a
            coroutine function that returns when it is time. The old one stays until
            the new one brings what the old one brings.

        overlap: The most seconds that both stay.

        on_connect: Coroutine function, called with each new :class:`Link` before
            anything else uses it: to log in, say.

        auth: Signs those messages that ask for it; a processor.

        pre_processors: Applied in order to each message to be sent; functions or
            coroutine functions of a message, which return the message.

        post_processors: Likewise to each that comes in; :obj:`None` drops it.

        limits: How fast messages may be sent. All that is sent counts, pings of
            :meth:`ping` included.

        transport: ``"websockets"``, ``"picows"``, or what connects as they do.

        serve: What reads a link instead of :meth:`receive`; ends when it ends.

        options: Passed on to the transport: ``max_size``, ``compression``, ...
    """

    def __init__(
        self,
        uri: str | Callable[[], str | Awaitable[str]],
        *,
        headers: Any = None,
        subprotocols: Sequence[str] | None = None,
        ssl: _ssl.SSLContext | None = None,
        verify_ssl: bool = True,
        heartbeat: float | None = 20.0,
        message_timeout: float | None = None,
        open_timeout: float = 10.0,
        delays: Callable[[], Iterator[float]] = DELAYS,
        stable_after: float = 10.0,
        renew_after: float | Callable[[], Awaitable[object]] | None = None,
        overlap: float = 5.0,
        on_connect: Callable[[Link], Awaitable[object]] | None = None,
        auth: Processor | None = None,
        pre_processors: Sequence[Processor] = (),
        post_processors: Sequence[Processor] = (),
        limits: Sequence[RateLimit] = (),
        transport: str | Callable[..., Any] = "websockets",
        serve: Callable[[Link], Awaitable[None]] | None = None,
        **options: Any,
    ) -> None:
        if ssl is not None and not verify_ssl:
            raise ValueError("expected ssl or verify_ssl=False, got both")
        if not verify_ssl:
            ssl = _ssl.create_default_context()
            ssl.check_hostname = False
            ssl.verify_mode = _ssl.CERT_NONE
        if ssl is not None:
            options["ssl"] = ssl
        self.uri = uri
        self._headers = headers
        self._message_timeout = message_timeout
        self._open_timeout = open_timeout
        self.new_delays = delays
        self.stable_after = stable_after
        self._renew_after = renew_after
        self._overlap = overlap
        self._on_connect = on_connect
        self._auth = auth
        self._pre_processors = pre_processors
        self.post_processors = post_processors
        self._limiter = Limiter(limits)
        self.transport = load(transport)
        self._serve = serve or self._receive_all
        self._options = {
            "open_timeout": open_timeout,
            "ping_interval": heartbeat,
            "ping_timeout": heartbeat,
            "close_timeout": 5.0,
            "subprotocols": subprotocols,
            **options,
        }
        self._events = Events()
        self._delays = delays()
        # Frames for receive().
        self._frames: Mailbox[Any] = Mailbox(RECEIVE_LIMIT, "block")
        # Runs from connect() to the end; owns all other tasks.
        self._supervisor: asyncio.Task[None] | None = None
        # All WebSockets there are: two during a renewal.
        self._links: set[Link] = set()
        # The one to send on.
        self._link: Link | None = None
        # Set while there is a link, and at the end.
        self._up = asyncio.Event()
        # If a renewal has come so far as to open a link.
        self._renewing = False
        # If even the first connection may take several attempts.
        self._patient = False
        # When the last message came on a link that is gone.
        self._received_at = 0.0
        self.state = State.IDLE
        #: What the connection ended with; :obj:`None` if normally, or not at all.
        self.error: Closed | None = None
        #: How many links there have been.
        self.connections = 0
        #: Called with :attr:`error` at the end.
        self.on_end: Callable[[Closed | None], object] = self._frames.close

    # Public methods

    async def connect(self, timeout: float | None = None) -> None:
        """
        Open the first link.

        Without *timeout* a first attempt that fails is reported at once. Canceling
        it closes the connection.

        Args:
            timeout: Seconds to go on trying, as after a loss.

        Raises:
            Closed: If it can't be opened.
            TimeoutError: If it wasn't in time.
            RuntimeError: If it was called before.
        """
        if self.state is not State.IDLE:
            raise RuntimeError(f"expected a new connection, got one {self.state.value}")
        self.state = State.CONNECTING
        self._patient = timeout is not None
        self._supervisor = asyncio.create_task(self._supervise())
        up = asyncio.create_task(self._up.wait())
        try:
            done, _ = await asyncio.wait({up}, timeout=timeout)
        except BaseException:
            await self.close()
            raise
        finally:
            up.cancel()
        if not done:
            await self.close()
            raise TimeoutError(f"couldn't connect in {timeout} s")
        # Without either, it was closed meanwhile.
        if self.error is not None or not self.connections:
            raise self.ending()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close the connection, for good. What came until then can still be received.

        It returns when nothing is left: no task, no socket. Calling it again does
        nothing.
        """
        supervisor = self._supervisor
        if supervisor is not None and not supervisor.done():
            supervisor.cancel()
            await asyncio.wait({supervisor})
        # The closing handshake takes a reader that reads, at whatever pace.
        self._frames.lift()
        try:
            closing = [self._retire(link, code, reason) for link in self._links]
            await asyncio.gather(*closing)
        finally:
            for link in self._links:
                link.task.cancel()
                abort(link.websocket)
            self._end(None)

    async def __aenter__(self) -> Connection:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def send(
        self, message: Any, *, limit: str = DEFAULT, auth: bool = False
    ) -> None:
        """
        Send a message, once there is a link and the rate allows it.

        It returns when the message is on its way, which is no promise that it
        arrives: a link that is lost loses what was just written. It is never sent
        twice. Canceling it before it returns may or may not have sent it.

        Args:
            message: Text, bytes, or anything else as its JSON.

            limit: The id of the :class:`.RateLimit` that it falls under.

            auth: If it is to be signed.

        Raises:
            Closed: If the connection has ended.
            RuntimeError: Before :meth:`connect`.
        """
        await self._connected()
        data = await self._prepare(message, auth)
        while True:
            await self._connected()
            await self._limiter.acquire(limit)
            link = await self._connected()
            if is_open(link.websocket):
                return await link._write(data)
            # Closing, and its reader hasn't noticed.
            await asyncio.wait({link.task})

    async def receive(self, timeout: float | None = None) -> Any:
        """
        Return the next frame, text or bytes, as the post-processors left it.

        Canceling it loses nothing.

        Raises:
            TimeoutError: After *timeout* seconds.
            Closed: If the connection has ended; 1000 if normally.
        """
        try:
            return await self._frames.get(timeout)
        except InboxClosed:
            raise Closed(1000) from None

    async def iter_messages(self) -> AsyncIterator[Any]:
        """
        Iterate over the frames. Ends when the connection ends normally.

        Raises:
            Closed: If it ends otherwise.
        """
        while True:
            try:
                frame = await self._frames.get()
            except InboxClosed:
                return
            yield frame

    __aiter__ = iter_messages

    async def ping(self, timeout: float | None = None) -> float:
        """
        Return the seconds to the server and back.

        Raises:
            TimeoutError: If that takes longer than *timeout*.
            ConnectionError: If the link is lost meanwhile.
        """
        await self._limiter.acquire()
        link = await self._connected()
        closed = self.transport.exceptions.ConnectionClosed
        try:
            pong = asyncio.ensure_future(await link.websocket.ping())
            done, _ = await asyncio.wait({pong}, timeout=timeout)
            if not done:
                pong.cancel()
                raise TimeoutError(f"no pong in {timeout} s")
            return float(pong.result())
        except closed as error:
            raise ConnectionError("the link was lost before the pong") from error

    def on(self, name: str, callback: Callable[[Event], object]) -> Callable[[], None]:
        """
        Call *callback* with each :class:`.Event` of that name; returns what removes it.
        """
        return self._events.on(name, callback)

    def emit(self, event: Event) -> None:
        """
        Tell all who listen of an event.
        """
        self._events.emit(event)

    def events(self) -> Listener:
        """
        Return an async iterator over the events from now on.
        """
        return self._events.listen()

    @property
    def websocket(self) -> Any:
        """
        The transport's WebSocket of now, :obj:`None` if there is none.
        """
        return self._link.websocket if self._link else None

    @property
    def last_recv_time(self) -> float:
        """
        When the last message came, in seconds since the epoch; 0 if none has.
        """
        latest = max([self._received_at, *(link.received_at for link in self._links)])
        return time() - (monotonic() - latest) if latest else 0.0

    async def post_process(self, message: Any) -> Any:
        """
        Return what the post-processors make of a message.
        """
        for processor in self.post_processors:
            message = await settle(processor(message))
            if message is None:
                break
        return message

    async def pre_process(self, message: Any) -> Any:
        """
        Return what the pre-processors make of a message.
        """
        if self._pre_processors:
            # They may write to it, and it is the caller's.
            message = copy.deepcopy(message)
        for processor in self._pre_processors:
            message = await settle(processor(message))
        return message

    def ending(self) -> Closed:
        """
        Return a new error that says how the connection ended.
        """
        if self.error is None:
            return Closed(1000)
        ending = type(self.error)(self.error.code, self.error.reason)
        ending.__cause__ = self.error.__cause__
        return ending

    # Sending

    async def _prepare(self, message: Any, auth: bool) -> str | bytes:
        """Return the frame that a message becomes."""
        message = await self.pre_process(message)
        if auth:
            if self._auth is None:
                raise ValueError("expected auth= of the connection, to sign with")
            message = await settle(self._auth(copy.deepcopy(message)))
        if isinstance(message, str | bytes):
            return message
        try:
            return msgspec.json.encode(message).decode()
        # Lone surrogates, which only json writes.
        except UnicodeEncodeError:
            return json.dumps(message)

    async def _connected(self) -> Link:
        """Return the link, once there is one."""
        while self._link is None:
            if self.state is State.IDLE:
                raise RuntimeError("expected connect() first")
            if self.state is State.CLOSED:
                raise self.ending()
            await self._up.wait()
        return self._link

    # The supervisor

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
                closed, final, after = self.transport.failure(error)
            if final or not (self._patient or self.connections):
                raise closed
            await self._pause(closed, after)

    async def _pause(self, closed: Closed, after: float) -> None:
        """Wait before the next attempt, if there is to be one."""
        try:
            delay = max(next(self._delays), after)
        except StopIteration:
            raise closed from closed.__cause__
        self.emit(Event("retrying", delay=delay, error=closed))
        await asyncio.sleep(delay)

    async def _open(self, overlap: Overlap | None) -> Link:
        """Open a link, and start to serve it."""
        uri = await settle(self.uri() if callable(self.uri) else self.uri)
        headers = self._headers
        headers = await settle(headers() if callable(headers) else headers)
        websocket = await self.transport.connect(
            uri, additional_headers=headers, **self._options
        )
        link = Link(self, websocket)
        link.overlap = overlap
        if self._on_connect is not None:
            task = asyncio.ensure_future(self._on_connect(link))
            try:
                done, _ = await asyncio.wait({task}, timeout=self._open_timeout)
                if not done:
                    raise TimeoutError("on_connect took too long")
                task.result()
            except BaseException:
                task.cancel()
                await drop(websocket)
                raise
        link.task = asyncio.create_task(self._run(link))
        self._links.add(link)
        self._link = link
        self.connections += 1
        self.state = State.CONNECTED
        self._up.set()
        self.emit(Event("connected"))
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
                self.emit(Event("error", error=error))
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
        if monotonic() - link.opened_at >= self.stable_after:
            self._delays = self.new_delays()
        await self._pause(closed, after)
        return await self._establish()

    async def _lost(self, link: Link) -> tuple[Closed, bool, float]:
        """Say how a link ended."""
        assert link.task.done(), "a link is lost when its task has ended"
        error = link.error or (
            EOFError() if link.task.cancelled() else link.task.exception()
        )
        if self._link is link:
            self._link = None
            self._up.clear()
            self.state = State.CONNECTING
        await self._drop(link)
        closed, final, after = self.transport.failure(error or EOFError())
        self.emit(
            Event("disconnected", code=closed.code, reason=closed.reason, error=error)
        )
        # What becomes of a link that has its successor is of no interest.
        return closed, final and self._link is None, after

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
        self._delays = self.new_delays()
        self.emit(Event("renewed"))
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
        self._link = None
        self._up.set()
        self.on_end(self.error)
        self.emit(Event("closed", error=self.error))
        self._events.close()

    async def _receive_all(self, link: Link) -> None:
        """Serve a link for receive()."""
        link.ready.set()
        while True:
            frame = await link.websocket.recv()
            link.received_at = monotonic()
            if link.overlap is not None and link.overlap.is_duplicate(link, frame):
                continue
            try:
                message = await self.post_process(frame)
            # One bad message is no reason to lose the others.
            except Exception as error:
                self.emit(Event("error", error=error))
                continue
            if message is not None:
                await self._frames.put(message)


async def settle(value: Any) -> Any:
    """
    Return *value*, or what it is when it has been awaited.
    """
    return await value if inspect.isawaitable(value) else value
