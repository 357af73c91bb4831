"""
One WebSocket that is always there: lost, it comes back; old, it is renewed.
"""

from __future__ import annotations

import asyncio
import functools
import ssl as _ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from time import monotonic, time
from typing import Any

from .. import backoff
from ..exceptions import Closed, InboxClosed
from ..mailbox import Mailbox
from .events import Event, Events, Listener
from .limits import DEFAULT, Limiter, RateLimit
from .link import Link
from .opener import Opener
from .processors import Processor, Processors
from .supervisor import State, Supervisor
from .transports import Transport, check_close, is_open, load

__all__ = ["Connection"]

# A server on the internet, restarting: the browser client's delays.
DELAYS = functools.partial(backoff.delays, 0.5, 30.0)

# How many frames may wait for receive(); then the network waits.
RECEIVE_LIMIT = 1000


class Connection:
    """
    One WebSocket to a server, opened again whenever it is lost.

    By itself it carries frames, and :class:`.Multiplex` takes them apart. It serves
    once: after :meth:`close` make another.

    What would be the same next time ends it for good: the close codes 1008, 4400,
    4401, 4403 and 4404, a handshake that is answered with a status below 500 other
    than 408, 425 and 429, a certificate that doesn't verify. All else is a loss, a
    server's 1000 and 1001 too; ``Retry-After`` is heeded.

    Args:
        uri: Where to, or a function, or coroutine function, that is asked at each
            attempt. If it raises, the first attempt fails; after that it is asked
            again, as after a failed attempt, and an ``error`` event tells. To end
            the connection it raises :exc:`.Closed`.

        headers: Of the handshake; a mapping or, likewise in all, a function. With
            ``websockets`` also pairs, for a name that comes twice.

        subprotocols: What to offer.

        ssl: A context for ``wss``, used as it is.

        verify_ssl: :obj:`False` trusts any certificate. Not with *ssl*.

        heartbeat: Seconds between pings, and to wait for a pong or a message;
            :obj:`None` for no pings. A link whose messages wait for their reader
            isn't taken for dead.

        message_timeout: Seconds without any message after which the link counts as
            dead.

        open_timeout: Seconds for the handshake, again for *on_connect*, and in a
            renewal for the new link to be given all that is wanted.

        delays: Makes an iterator of the seconds before each attempt to connect
            again. A new one is made when a link has lasted; when it ends, so does
            the connection: ``lambda: iter(())`` never connects again.

        stable_after: Seconds that a link must last to count as one that worked.

        renew_after: Seconds after which a link is replaced by a new one, or a
            coroutine function that returns when it is time. The old one stays until
            the new one brings what the old one brings; then a ``renewed`` event
            tells, and no ``disconnected``. A new one that fails, or is refused
            anything, is given up: an ``error`` event tells, the old one stays, and
            *delays* say when it is tried again.

        overlap: Seconds that a new link has to bring what the old one brings. As
            long again the old one stays, for answers that are on their way. Messages
            that are equal, one by each link, count as one meanwhile.

        on_connect: Coroutine function, called with each new :class:`Link` before
            anything else uses it: to log in, say. What it raises counts as what
            *uri* does. It sends with the link's :meth:`Link.send`.

        auth: Signs those messages that ask for it; a processor.

        pre_processors: Applied in order to each message to be sent; functions or
            coroutine functions of a message, which return the message.

        post_processors: Likewise to each that comes in; :obj:`None` drops it.

        limits: How fast messages may be sent. All that is sent counts, pings of
            :meth:`ping` included.

        transport: ``"websockets"``, ``"picows"``, or what connects as they do.

        serve: What reads a link instead of :meth:`receive`; ends when it ends.

        options: Passed on to the transport: ``max_size``, ``compression``, ...

    Raises:
        ValueError: If an argument can't be meant.
        TypeError: If the transport has no such option.
        ImportError: If the transport isn't installed.
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
        _check_seconds(
            heartbeat=heartbeat,
            message_timeout=message_timeout,
            open_timeout=open_timeout,
            renew_after=None if callable(renew_after) else renew_after,
            overlap=overlap,
            ping_interval=options.get("ping_interval"),
            ping_timeout=options.get("ping_timeout"),
            close_timeout=options.get("close_timeout"),
        )
        if not stable_after >= 0:
            raise ValueError(f"expected stable_after of 0 or more, got {stable_after}")
        self.new_delays = delays
        self.stable_after = stable_after
        #: What messages go through.
        self.processors: Processors = Processors(auth, pre_processors, post_processors)
        #: What sends wait for.
        self.limiter: Limiter = Limiter(limits)
        self.transport: Transport = load(transport)
        unknown = options.keys() - (self.transport.options or options.keys())
        if unknown:
            raise TypeError(f"{transport} has no option {min(unknown)!r}")
        if transport == "picows" and options.get("close_timeout", 5.0) is None:
            raise ValueError(
                "expected seconds for close_timeout, got None: picows can't break off "
                "a connection whose other end doesn't answer"
            )
        # Ours: the transport's don't know that a reader may be slow.
        interval = options.pop("ping_interval", heartbeat)
        timeout = options.pop("ping_timeout", heartbeat)
        self._options = {
            "open_timeout": open_timeout,
            "ping_interval": None,
            "ping_timeout": None,
            "close_timeout": 5.0,
            "subprotocols": subprotocols,
            **options,
        }
        #: What opens its links.
        self.opener: Opener = Opener(
            self.transport,
            self._options,
            functools.partial(Link, self),
            uri=uri,
            headers=headers,
            ssl=ssl,
            verify_ssl=verify_ssl,
            on_connect=on_connect,
        )
        # When time.monotonic() was 0: asked once, so that one time is always the same.
        self._epoch = time() - monotonic()
        self._events = Events()
        # Frames for receive().
        self._frames: Mailbox[Any] = Mailbox(RECEIVE_LIMIT, "block")
        #: Called with :attr:`error` at the end.
        self.on_end: Callable[[Closed | None], object] = self._frames.close
        #: Called with each link to send on, and if something may have been lost.
        self.on_promotion: Callable[[Link, bool], object] = self._promoted
        self._supervisor = Supervisor(
            self.opener.open,
            serve or self._receive_all,
            lambda link, lost: self.on_promotion(link, lost),
            self.transport,
            self._events,
            self._ended,
            self._options["close_timeout"],
            open_timeout=open_timeout,
            delays=delays,
            stable_after=stable_after,
            renew_after=renew_after,
            overlap=overlap,
            message_timeout=message_timeout,
            heartbeat=None if interval is None else (interval, timeout),
        )

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
            TimeoutError: If it wasn't in time, from what the last attempt ended with.
            RuntimeError: If it was called before.
        """
        if self.state is not State.IDLE:
            raise RuntimeError(f"expected a new connection, got one {self.state.value}")
        self._supervisor.start(patient=timeout is not None)
        failures: list[Event] = []
        stop_listening = self.on("retrying", failures.append)
        up = asyncio.create_task(self._supervisor.up.wait())
        try:
            done, _ = await asyncio.wait({up}, timeout=timeout)
        except BaseException:
            await self.close()
            raise
        finally:
            up.cancel()
            stop_listening()
        if not done:
            await self.close()
            last = failures[-1].error if failures else None
            why = f": {last.reason}" if isinstance(last, Closed) else ""
            raise TimeoutError(f"couldn't connect in {timeout} s{why}") from last
        # Without either, it was closed meanwhile.
        if self.error is not None or not self.connections:
            raise self.ending()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close the connection, for good. What came until then can still be received.

        It returns when nothing is left: no task, no socket. Calling it again does
        nothing. In a callback of the connection, and not in a task that one starts,
        it doesn't wait for that: it would wait for itself. Canceling it doesn't stop
        it.

        Raises:
            ValueError: If *code* isn't 1000, one of 3000 to 4999, or another that may
                be sent, or if *reason* is longer than 123 bytes in UTF-8. Then it is
                as it was.
        """
        check_close(code, reason)
        await self._supervisor.close(code, reason)

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
            RuntimeError: Before :meth:`connect`, and in *on_connect*.
        """
        await self._connected()
        data = await self.processors.frame(message, auth)
        link = await self._allowed(limit)
        if link.overlap is not None:
            # Of no channel.
            link.overlap.ask(link, None)
        await link.write(data)

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

        It waits for a link, and for the rate, as :meth:`send` does. Canceling it may
        or may not have pinged.

        Raises:
            TimeoutError: If all that takes longer than *timeout*.
            ConnectionError: If the link is lost before the pong.
            Closed: If the connection has ended.
            RuntimeError: Before :meth:`connect`, and in *on_connect*.
        """
        pinging = asyncio.create_task(self._ping())
        try:
            await asyncio.wait({pinging}, timeout=timeout)
        finally:
            pinging.cancel()
            await asyncio.wait({pinging})
        if pinging.cancelled():
            raise TimeoutError(f"no pong in {timeout} s")
        return pinging.result()

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
    def state(self) -> State:
        """
        How the connection is doing.
        """
        return self._supervisor.state

    @property
    def error(self) -> Closed | None:
        """
        What the connection ended with; :obj:`None` if normally, or not at all.
        """
        return self._supervisor.error

    @property
    def connections(self) -> int:
        """
        How many links there have been.
        """
        return self._supervisor.connections

    @property
    def websocket(self) -> Any:
        """
        The transport's WebSocket of now, :obj:`None` if there is none.
        """
        link = self._supervisor.link
        return link.websocket if link else None

    @property
    def last_recv_time(self) -> float:
        """
        When the last message came, in seconds since the epoch; 0 if none has.
        """
        latest = self._supervisor.received_at
        return self._epoch + latest if latest else 0.0

    def ending(self) -> Closed:
        """
        Return a new error that says how the connection ended.
        """
        if self.error is None:
            return Closed(1000)
        ending = type(self.error)(self.error.code, self.error.reason)
        ending.__cause__ = self.error.__cause__
        return ending

    # Private

    async def _connected(self) -> Link:
        """Return a link that can send, once there is one."""
        self.opener.refuse_inside()
        supervisor = self._supervisor
        while True:
            link = supervisor.link
            if link is not None:
                if is_open(link.websocket):
                    return link
                # Closing, and its reader hasn't noticed.
                await asyncio.wait({link.task})
            elif self.state is State.IDLE:
                raise RuntimeError("expected connect() first")
            elif self.state is State.CLOSED:
                raise self.ending()
            else:
                await supervisor.up.wait()

    async def _allowed(self, limit: str) -> Link:
        """Return a link that can send, once there is one and the rate allows it."""
        while True:
            # First: what is allowed now and sent after an outage breaks the limit.
            await self._connected()
            await self.limiter.acquire(limit)
            link = self._supervisor.link
            if link is not None and is_open(link.websocket):
                return link

    async def _ping(self) -> float:
        """Return the seconds to the server and back, however many."""
        link = await self._allowed(DEFAULT)
        try:
            return float(await (await link.websocket.ping()))
        except self.transport.exceptions.ConnectionClosed as error:
            raise ConnectionError("the link was lost before the pong") from error

    async def _receive_all(self, link: Link) -> None:
        """Serve a link for receive()."""
        link.has_all()
        while True:
            frame = await link.websocket.recv()
            link.received_at = monotonic()
            overlap = link.overlap
            if overlap is not None and overlap.is_duplicate(link, (None, frame)):
                continue
            link.is_held = True
            try:
                message = await self.processors.post_process(frame)
                if message is not None:
                    await self._frames.put(message, link.ending)
            # One bad message is no reason to lose the others.
            except Exception as error:
                self.emit(Event("error", error=error))
            link.is_held = False

    def _ended(self, error: Closed | None) -> None:
        """Wake who waits, for the rate too; they see that it is over."""
        self.limiter.close()
        self.on_end(error)

    def _promoted(self, link: Link, lost: bool) -> None:
        if lost:
            self.emit(Event("gap"))


def _check_seconds(**seconds: float | None) -> None:
    for name, value in seconds.items():
        if value is not None and not value > 0:
            raise ValueError(f"expected more than 0 seconds for {name}, got {value}")
