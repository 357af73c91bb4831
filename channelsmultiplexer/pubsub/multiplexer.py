"""
One Pub/Sub connection for all who listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl as _ssl
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from .. import backoff as _backoff
from ..exceptions import NameRefused, RedisUnavailable, SubscriptionIsClosed
from .address import Address, Location
from .connection import Connection, connect
from .listening import Dispatcher, Gap, Listening, Overflow
from .promises import PromiseSubscription
from .registry import Name, Registry, Route, encoded
from .subscriptions import (
    ChannelSubscription,
    OnActivation,
    OnDisconnect,
    OnGap,
    OnMessage,
    PatternSubscription,
    Subscription,
)

__all__ = ["Multiplexer"]

logger = logging.getLogger("channelsmultiplexer.pubsub")

# Memory for what waits, a subscription: Redis itself drops a reader for whom 8 MB
# wait for a minute (client-output-buffer-limit).
INBOX_LIMIT = 8 * 1024 * 1024

S = TypeVar("S", bound="Listening | PromiseSubscription")


class Multiplexer:
    """
    A connection to Redis, shared by any number of subscriptions.

    It connects when it is first needed, not when it is made, and belongs to the
    event loop and the process in which that is. When the link drops it comes back
    by itself, and all names with it.

    Args:
        location: A URL (``redis://``, ``rediss://``, ``unix://``), the path of a
            socket, a host and a port, or a :class:`redis.asyncio.Redis` to be
            like, also one that Sentinel finds.

        ssl: An :class:`ssl.SSLContext`, or :obj:`True`.

        timeout: Seconds for a connection and its login.

        backoff: Makes the delays between one attempt and the next.

        healthy_after: Seconds that a link has to last for the delays to start
            anew.

        ping_interval: Seconds of silence before Redis is asked if it is there.

        ping_timeout: Seconds that it has to answer.

        options: Keyword arguments of :class:`redis.asyncio.Redis`: ``db``,
            ``username``, ``password``, ``credential_provider``, ``client_name``,
            ``ssl_ca_certs``, ...
    """

    def __init__(
        self,
        location: Location = "redis://localhost:6379",
        *,
        ssl: bool | _ssl.SSLContext | None = None,
        timeout: float = 5.0,
        backoff: Callable[[], Iterator[float]] = _backoff.delays,
        healthy_after: float = 5.0,
        ping_interval: float = 15.0,
        ping_timeout: float = 5.0,
        **options: Any,
    ) -> None:
        self._address = Address(location, ssl=ssl, **options)
        self._timeout = timeout
        self._backoff = backoff
        self._healthy_after = healthy_after
        self._ping = (ping_interval, ping_timeout)
        self._registry = Registry(self._changed, self._settled)
        self._dispatcher = Dispatcher(self._is_more_there)
        # All that are open, in the order in which they were made.
        self._subscriptions: dict[Listening | PromiseSubscription, None] = {}
        # Where it is at home, once it has connected or tried to.
        self._home: tuple[asyncio.AbstractEventLoop, int] | None = None
        # The task that keeps the link up; close() cancels it.
        self._keeper: asyncio.Task[None] | None = None
        # The link, while there is one.
        self._connection: Connection | None = None
        # In Redis 5's protocol: a link for what it can't do while it listens.
        self._publisher: Connection | None = None
        self._publisher_lock: asyncio.Lock | None = None
        # If flush() is to run in the event loop's next turn.
        self._scheduled = False
        # Who waits for a name to settle, and who for the link.
        self._waiters: dict[Route | None, list[asyncio.Future[None]]] = {}
        self._closed = False
        # If there has ever been a link.
        self._was_connected = False
        #: Set while there is a link.
        self.connected_event = asyncio.Event()
        #: Links there have been.
        self.connections = 0

    def __repr__(self) -> str:
        return f"<Multiplexer of {self._address}>"

    async def __aenter__(self) -> Multiplexer:
        try:
            await self.connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def connect(self) -> None:
        """
        Return when there is a link.

        Canceling :meth:`connect` stops the waiting, not the attempts.

        Raises:
            RedisUnavailable: If the attempt fails. More will follow.
            SubscriptionIsClosed: If the Multiplexer is closed, also meanwhile.
        """
        self._start()
        if self._connection is None:
            await self._wait(None)

    def close(self) -> None:
        """
        Drop the link now, and close all subscriptions.

        Iterations end, promises fail, whoever waits gets
        :exc:`.SubscriptionIsClosed`. It may be called at any time and more than
        once, and its subscriptions may be closed before or after.
        """
        if self._closed:
            return
        self._closed = True
        connection, publisher = self._connection, self._publisher
        self._stop()
        for link in (connection, publisher):
            if link is None:
                continue
            if self._is_at_home():
                link.abort(ConnectionResetError("closed here"))
            else:
                # In a forked child the parent goes on with it.
                link.detach(hang_up=self._is_in_process())

    async def aclose(self) -> None:
        """
        Close, and return when Redis has closed the connection, too.

        Canceling :meth:`aclose` drops the link, as :meth:`close` does.
        """
        connection, publisher, keeper = self._connection, self._publisher, self._keeper
        if not self._closed and self._is_at_home():
            self._closed = True
            self._stop()
        self.close()
        links = [link for link in (connection, publisher) if link is not None]
        await asyncio.gather(*(link.aclose() for link in links))
        await self._dispatcher.aclose()
        if keeper is not None and self._is_at_home():
            await asyncio.wait([keeper])

    async def publish(self, channel: Name, data: Name) -> int:
        """
        Publish a message.

        Canceling :meth:`publish` may or may not prevent it.

        Returns:
            How many connections it reached, as Redis counts.

        Raises:
            RedisUnavailable: If there is no link, or it drops before Redis
                answers: the message may have been published, or not.
            hiredis.ReplyError: If Redis refuses.
        """
        await self.connect()
        connection = self._connection
        if connection is None:
            raise RedisUnavailable("the link dropped")
        if connection.version < 3:
            connection = await self._second_connection()
        answer: int = await connection.call(b"PUBLISH", encoded(channel), encoded(data))
        return answer

    @property
    def closed(self) -> bool:
        """
        If it is closed, by :meth:`close` or since its event loop ended.
        """
        return self._closed

    # Subscriptions

    def subscribe(
        self,
        *channels: Name,
        patterns: Iterable[Name] = (),
        inbox_limit: int = INBOX_LIMIT,
        overflow: Overflow = "drop_oldest",
    ) -> Subscription:
        """
        Return a context in which the messages of names come, to iterate over.

        Args:
            channels: Names of channels.

            patterns: Glob-style patterns.

            inbox_limit: Bytes of memory that messages may take while they wait
                for the iteration. What messages for others take isn't counted.

            overflow: ``"drop_oldest"`` or ``"drop_newest"``: what to do when
                there is no room.
        """
        names = (channels, tuple(patterns))
        inbox = (self._registry, self._dispatcher, inbox_limit, overflow, self._forget)
        return self._keep(Subscription(*names, self._settle, *inbox))

    def new_channel_subscription(
        self,
        on_message: OnMessage,
        on_disconnect: OnDisconnect | None = None,
        on_activation: OnActivation | None = None,
        *,
        on_gap: OnGap | None = None,
        inbox_limit: int = INBOX_LIMIT,
        overflow: Overflow = "drop_oldest",
    ) -> ChannelSubscription:
        """
        Return a subscription, to no channel yet, that calls functions.

        They may be asynchronous. One at a time is called, in the order of what
        happened; what they raise is logged.

        Args:
            on_message: Is given the channel and the message, both as bytes.

            on_disconnect: Is given the error that ended the link.

            on_activation: Is given a name whose messages come from here on; again
                after each loss.

            on_gap: Is given a :class:`Gap` where messages were dropped; without
                it they are logged.

            inbox_limit: As :meth:`subscribe`'s.

            overflow: As :meth:`subscribe`'s.
        """
        callbacks = (on_message, on_disconnect, on_activation, on_gap)
        inbox = (self._registry, self._dispatcher, inbox_limit, overflow, self._forget)
        return self._keep(ChannelSubscription(*callbacks, *inbox))

    # As the page about RedisMPX has it.
    new_channel_subcription = new_channel_subscription

    def new_pattern_subscription(
        self,
        pattern: Name,
        on_message: OnMessage,
        on_disconnect: OnDisconnect | None = None,
        on_activation: OnActivation | None = None,
        *,
        on_gap: OnGap | None = None,
        inbox_limit: int = INBOX_LIMIT,
        overflow: Overflow = "drop_oldest",
    ) -> PatternSubscription:
        """
        Return a subscription to a pattern that calls functions.

        The arguments are those of :meth:`new_channel_subscription`; *on_message*
        is given the channel, not the pattern.
        """
        callbacks = (on_message, on_disconnect, on_activation, on_gap)
        inbox = (self._registry, self._dispatcher, inbox_limit, overflow, self._forget)
        return self._keep(PatternSubscription(pattern, *callbacks, *inbox))

    new_pattern_subcription = new_pattern_subscription

    def new_promise_subscription(self, prefix: Name) -> PromiseSubscription:
        """
        Return a subscription that makes promises for channels with a prefix.
        """
        return self._keep(
            PromiseSubscription(
                self._registry, prefix, self.publish, self._settle, self._forget
            )
        )

    # Private: subscriptions

    def _keep(self, subscription: S) -> S:
        if self._closed:
            subscription.close()
            raise SubscriptionIsClosed
        self._subscriptions[subscription] = None
        return subscription

    def _forget(self, subscription: Listening | PromiseSubscription) -> None:
        self._subscriptions.pop(subscription, None)
        if isinstance(subscription, PromiseSubscription):
            self._wake(subscription._route, SubscriptionIsClosed())

    async def _settle(self, routes: list[Route]) -> None:
        """Return when all are active, or nobody wants them any more."""
        if self._closed:
            return
        for route in routes:
            while route.listeners and not route.active:
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

    def _settled(self, route: Route) -> None:
        if self._waiters:
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

    def _wake(self, key: Route | None, error: Exception | None) -> None:
        for waiter in self._waiters.pop(key, ()):
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    # Private: the link

    def _is_more_there(self) -> bool:
        return self._connection is not None and self._connection.is_more_there

    def _is_in_process(self) -> bool:
        return self._home is None or self._home[1] == os.getpid()

    def _is_at_home(self) -> bool:
        if self._home is None:
            return True
        return self._is_in_process() and not self._home[0].is_closed()

    def _start(self) -> None:
        """Keep the link up from now on."""
        if self._closed:
            raise SubscriptionIsClosed
        home = (asyncio.get_running_loop(), os.getpid())
        if self._home is None:
            self._home = home
        elif self._home != home:
            raise RuntimeError(
                f"{self!r} is at home in another event loop or process: make one "
                f"where it is used"
            )
        if self._keeper is None:
            self._keeper = home[0].create_task(self._keep_up())
            self._keeper.add_done_callback(self._kept_up)

    def _stop(self) -> None:
        """Let go of everything but the link itself."""
        self._connection = self._publisher = None
        self.connected_event.clear()
        is_at_home = self._is_at_home()
        for subscription in list(self._subscriptions):
            # Who waits in an event loop that is closed can't be told.
            with contextlib.suppress(*() if is_at_home else (RuntimeError,)):
                subscription.close()
        if is_at_home:
            if self._keeper is not None:
                self._keeper.cancel()
            self._dispatcher.close()
            for key in list(self._waiters):
                self._wake(key, SubscriptionIsClosed())

    def _changed(self) -> None:
        """Tell Redis, in the next turn: what is undone until then needs no word."""
        if self._scheduled or self._closed:
            return
        try:
            asyncio.get_running_loop()
        # Made in a module: it starts with the first use in an event loop.
        except RuntimeError:
            return
        self._start()
        if self._connection is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._connection is not None:
            self._connection.send(self._registry.changes())

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        delays = self._backoff()
        while True:
            try:
                connection = await connect(self._address, self._registry, self._timeout)
            except RedisUnavailable as error:
                self._failed(error)
            else:
                # Python 3.10's wait_for() can lose a cancellation.
                if self._closed:
                    connection.abort(ConnectionAbortedError("closed here"))
                    return
                since = loop.time()
                self._connected(connection)
                await self._drop(connection)
                if loop.time() - since >= self._healthy_after:
                    delays = self._backoff()
            await asyncio.sleep(next(delays))

    async def _drop(self, connection: Connection) -> None:
        """Wait for the end of the link, and tell everybody."""
        error = await asyncio.shield(connection.lost)
        logger.warning("%r lost its link: %s", self, error)
        self._connection = None
        self.connected_event.clear()
        # Whoever waits for Redis to hear of an unsubscription need not.
        self._registry.lost()
        event = (None, Gap(error=error))
        for subscription in list(self._subscriptions):
            if isinstance(subscription, Listening):
                subscription.supersede()
            subscription.put(event)

    def _failed(self, error: RedisUnavailable) -> None:
        logger.warning("%r can't connect: %s", self, error)
        cause = error.__cause__
        is_outage = isinstance(cause, OSError) and not isinstance(cause, _ssl.SSLError)
        # An outage passes, and those who wait for a name wait for its end. But it
        # isn't one if there never was a link, or if Redis is there and refuses.
        for key in list(self._waiters):
            if key is None or not (is_outage and self._was_connected):
                self._wake(key, error)

    def _connected(self, connection: Connection) -> None:
        logger.info("%r is connected", self)
        self._connection = connection
        self._was_connected = True
        self.connections += 1
        connection.watch(*self._ping)
        self._registry.lost()
        connection.send(self._registry.changes())
        self.connected_event.set()
        self._wake(None, None)

    def _kept_up(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            logger.critical("%r has failed", self, exc_info=error)
        # The event loop ends, and has cancelled its tasks; or a bug.
        self.close()

    async def _second_connection(self) -> Connection:
        if self._publisher_lock is None:
            self._publisher_lock = asyncio.Lock()
        async with self._publisher_lock:
            if self._publisher is None or self._publisher.lost.done():
                link = await connect(self._address, self._registry, self._timeout)
                if self._closed:
                    link.abort(ConnectionAbortedError("closed here"))
                    raise SubscriptionIsClosed
                link.watch(*self._ping)
                self._publisher = link
            return self._publisher
