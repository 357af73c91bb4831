"""
The link to Redis: one connection after another, for as long as it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl as _ssl
from collections.abc import Callable, Iterator
from typing import Any

from ..exceptions import NameRefused, RedisUnavailable, SubscriptionIsClosed
from .address import Address
from .connection import Connection, connect, unavailable
from .registry import Listener, Registry, Route

__all__ = ["Link"]

logger: logging.Logger = logging.getLogger("channelsmultiplexer.pubsub")


class Link:
    """
    Keeps a connection up from its first use on, and Redis told of all names.

    It is at home in the event loop and the process in which that is.

    Args:
        address: Where Redis is.

        timeout: Seconds for a connection and its login.

        backoff: Makes the delays between one attempt and the next.

        healthy_after: Seconds that a connection has to last for the delays to start
            anew.

        ping: Seconds of silence before Redis is asked if it is there, and seconds
            that it has to answer.

        dropped: Called with the error that ended a connection, before the next.

        ended: Called when it is closed, by whomever.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float,
        backoff: Callable[[], Iterator[float]],
        healthy_after: float,
        ping: tuple[float, float],
        dropped: Callable[[Exception], None],
        ended: Callable[[], None],
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._backoff = backoff
        self._healthy_after = healthy_after
        self._ping = ping
        self._dropped = dropped
        self._ended = ended
        # Where it is at home, once it has connected or tried to.
        self._home: tuple[asyncio.AbstractEventLoop, int] | None = None
        # The task that keeps the link up; close() cancels it.
        self._keeper: asyncio.Task[None] | None = None
        # The connection, while there is one.
        self._connection: Connection | None = None
        # In Redis 5's protocol: one for what that can't do while it listens.
        self._publisher: Connection | None = None
        self._publisher_lock: asyncio.Lock | None = None
        # If _flush() is to run in the event loop's next turn.
        self._scheduled = False
        # Who waits for a name to settle, and who for a connection.
        self._waiters: dict[Route | None, list[asyncio.Future[None]]] = {}
        # Why the last attempt failed, if it did.
        self._failure = ""
        # If there has ever been a connection.
        self._was_connected = False
        # All names that are wanted of Redis.
        self.registry: Registry = Registry(self._changed, self._settled)
        # Set while there is a connection.
        self.connected_event: asyncio.Event = asyncio.Event()
        # Connections there have been.
        self.connections: int = 0
        self.closed: bool = False
        # What ended it, if nobody closed it.
        self._end: str = ""

    def __repr__(self) -> str:
        return f"<Link to {self._address}>"

    async def connect(self) -> None:
        """
        Return when there is a connection.

        Raises:
            RedisUnavailable: If the attempt fails. More will follow.
            SubscriptionIsClosed: If the link is closed, also meanwhile.
        """
        self._start()
        if self._connection is None:
            await self._wait(None)

    async def call(self, *words: bytes) -> Any:
        """
        Return what Redis answers to a command.

        Raises:
            RedisUnavailable: If there is no link, or it drops before the answer.
            hiredis.ReplyError: If Redis refuses.
        """
        await self.connect()
        connection = self._connection
        if connection is None:
            raise RedisUnavailable("the link dropped")
        if connection.version < 3:
            connection = await self._second_connection()
        return await connection.call(*words)

    async def settle(self, listener: Listener, routes: list[Route]) -> None:
        """
        Return when all are active, or, if the listener has left them, undone.

        Raises:
            NameRefused: If Redis refuses one.
            RedisUnavailable: If there is no link.
        """
        if self.closed:
            return
        for route in routes:
            while listener in route.listeners and not route.active:
                if route.refusal is not None:
                    raise NameRefused(route.name, route.refusal)
                self._start()
                await self._wait(route)
            # To be told of an UNSUBSCRIBE is worth waiting only while we can be.
            while (
                not route.listeners
                and route.subscribed | (route.pending > 0)
                and self._connection is not None
            ):
                await self._wait(route)

    def close(self) -> None:
        """
        Drop the connection now, and end for good.

        Raises:
            RuntimeError: If its event loop runs elsewhere.
        """
        if self.closed:
            return
        if self.is_at_home() and not self.is_here() and self._is_running():
            raise self._elsewhere()
        self.closed = True
        connection, publisher = self._connection, self._publisher
        self._stop()
        for one in (connection, publisher):
            if one is None:
                continue
            if self.is_at_home():
                one.abort(ConnectionResetError("closed here"))
            else:
                # In a forked child the parent goes on with it.
                one.detach(hang_up=self._is_in_process())

    async def aclose(self) -> None:
        """
        End for good, and return when Redis has closed the connection, too.

        It is for where the link is at home.
        """
        connection, publisher, keeper = self._connection, self._publisher, self._keeper
        if not self.closed:
            self.closed = True
            self._stop()
        both = [one for one in (connection, publisher) if one is not None]
        try:
            await asyncio.gather(*(one.aclose() for one in both))
        finally:
            # Those that were canceled before they began.
            for one in both:
                one.abort(ConnectionResetError("closed here"))
        if keeper is not None:
            await asyncio.wait([keeper])

    def check_open(self) -> None:
        """
        Raise :exc:`.SubscriptionIsClosed` if it is closed.
        """
        if self.closed:
            raise SubscriptionIsClosed(
                f"the Multiplexer of {self._address} is closed{self._end}"
            )

    def is_at_home(self) -> bool:
        """
        Return if this is the process that it is at home in, and its event loop is
        not closed.
        """
        if self._home is None:
            return True
        return self._is_in_process() and not self._home[0].is_closed()

    def is_here(self) -> bool:
        """
        Return if what runs this is where it is at home, or would be.
        """
        return self._home in (None, (_running_loop(), os.getpid()))

    def is_more_there(self) -> bool:
        """
        Return if Redis has probably sent more than was read.
        """
        return self._connection is not None and self._connection.is_more_there

    # Private

    def _start(self) -> None:
        """Keep the link up from now on."""
        self.check_open()
        if not self.is_here():
            raise self._elsewhere()
        if self._keeper is None:
            loop = asyncio.get_running_loop()
            self._home = (loop, os.getpid())
            self._keeper = loop.create_task(self._keep_up())
            self._keeper.add_done_callback(self._kept_up)

    def _stop(self) -> None:
        """Let go of everything but the connections."""
        self._connection = self._publisher = None
        self.connected_event.clear()
        self._ended()
        if self.is_at_home():
            if self._keeper is not None:
                self._keeper.cancel()
            # Who waits for a name to be left need not, and the others see.
            for key in list(self._waiters):
                self._wake(key, SubscriptionIsClosed if key is None else None)

    def _is_in_process(self) -> bool:
        return self._home is None or self._home[1] == os.getpid()

    def _is_running(self) -> bool:
        return self._home is not None and self._home[0].is_running()

    def _elsewhere(self) -> RuntimeError:
        return RuntimeError(
            f"the link to {self._address} is at home in another event loop, thread or "
            f"process: make a Multiplexer where it is used"
        )

    def _changed(self) -> None:
        """Tell Redis, in the next turn: what is undone until then needs no word."""
        if self.closed:
            return
        # While no event loop runs, it starts with the first use in one, or goes on
        # when its own runs again.
        if self._is_running() or _running_loop() is not None:
            self._start()
        if self._home is None or not self.is_at_home():
            return
        if self._connection is not None and not self._scheduled:
            self._scheduled = True
            self._home[0].call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._connection is not None:
            self._connection.send(self.registry.changes())

    def _settled(self, route: Route) -> None:
        # Who waits in an event loop that is closed can't be told.
        if self._waiters and self.is_at_home():
            self._wake(route, None)

    async def _wait(self, key: Route | None) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(waiter)
        try:
            await waiter
        finally:
            waiters = self._waiters.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[key]

    def _wake(self, key: Route | None, error: Callable[[], Exception] | None) -> None:
        """Let who waits go on, or have an error of their own each."""
        for waiter in self._waiters.pop(key, ()):
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error())

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        delays = self._backoff()
        while True:
            try:
                connection = await connect(self._address, self.registry, self._timeout)
            except RedisUnavailable as error:
                self._failed(error)
            else:
                since = loop.time()
                self._connected(connection)
                await self._drop(connection)
                if loop.time() - since >= self._healthy_after:
                    delays = self._backoff()
            delay = next(delays, None)
            if delay is None:
                logger.error("%r gives up: the backoff has no more delays", self)
                self._end = ": its backoff has no more delays"
                return
            await asyncio.sleep(delay)

    async def _drop(self, connection: Connection) -> None:
        """Wait for the end of the connection, and tell everybody."""
        error = await asyncio.shield(connection.lost)
        logger.warning("%r dropped: %s", self, error)
        self._connection = None
        self.connected_event.clear()
        # Whoever waits for Redis to hear of an unsubscription need not.
        self.registry.lost()
        self._dropped(error)

    def _failed(self, error: RedisUnavailable) -> None:
        # An outage is told once, not with every attempt.
        is_same, self._failure = str(error) == self._failure, str(error)
        level = logging.DEBUG if is_same else logging.WARNING
        logger.log(level, "%r can't connect: %s", self, error)
        cause = error.__cause__
        assert isinstance(cause, Exception), "connect() says why"
        is_outage = isinstance(cause, OSError) and not isinstance(cause, _ssl.SSLError)
        # An outage passes, and those who wait for a name wait for its end. But it
        # isn't one if there never was a link, or if Redis is there and refuses.
        for key in list(self._waiters):
            if key is None or not (is_outage and self._was_connected):
                self._wake(key, lambda: unavailable(cause))

    def _connected(self, connection: Connection) -> None:
        logger.info("%r is connected", self)
        self._failure = ""
        self._connection = connection
        self._was_connected = True
        self.connections += 1
        connection.watch(*self._ping)
        self.registry.lost()
        connection.send(self.registry.changes())
        self.connected_event.set()
        self._wake(None, None)

    def _kept_up(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            logger.critical("%r has failed", self, exc_info=error)
        # The event loop ends, and has cancelled its tasks; or a bug.
        if not self.closed and keeper.cancelled():
            logger.info("%r is closed: its task was cancelled", self)
            self._end = ": its event loop ended, or cancelled its task"
        self.close()

    async def _second_connection(self) -> Connection:
        if self._publisher_lock is None:
            self._publisher_lock = asyncio.Lock()
        async with self._publisher_lock:
            if self._publisher is None or self._publisher.lost.done():
                connection = await connect(self._address, self.registry, self._timeout)
                if self.closed:
                    connection.abort(ConnectionAbortedError("closed here"))
                    raise SubscriptionIsClosed
                connection.watch(*self._ping)
                self._publisher = connection
            return self._publisher


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs this, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
