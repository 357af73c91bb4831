"""
One Pub/Sub connection for all who listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as _ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from .. import backoff as _backoff
from .address import Address, Location
from .callbacks import (
    ChannelSubscription,
    OnActivation,
    OnDisconnect,
    OnGap,
    OnMessage,
    PatternSubscription,
)
from .dispatcher import Dispatcher
from .link import Link
from .listening import Gap, Listening, Overflow
from .promises import PromiseSubscription
from .registry import Name, encoded, several
from .subscriptions import Subscription

__all__ = ["Multiplexer"]

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
            like, also one from ``Sentinel.master_for()``. Without it, *options*
            say where; without ``host`` or ``unix_socket_path`` in them, it is
            ``localhost``.

        ssl: An :class:`ssl.SSLContext`, or :obj:`True`.

        timeout: Seconds for a connection and its login.

        backoff: Makes the delays between one attempt and the next, in seconds.
            When they end, the Multiplexer is closed.

        healthy_after: Seconds that a link has to last for the delays to start
            anew.

        ping_interval: Seconds of silence before Redis is asked if it is there.

        ping_timeout: Seconds that it has to answer.

        options: Keyword arguments of :class:`redis.asyncio.Redis`: ``db``,
            ``username``, ``password``, ``credential_provider``, ``client_name``,
            ``ssl_ca_certs``, ...

    Raises:
        TypeError: If *location* and *options* name no place, or two.
        ValueError: If *location* is a text that names none.
    """

    def __init__(
        self,
        location: Location | None = None,
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
        self._link = Link(
            self._address,
            timeout=timeout,
            backoff=backoff,
            healthy_after=healthy_after,
            ping=(ping_interval, ping_timeout),
            dropped=self._dropped,
            ended=self._ended,
        )
        self._registry = self._link.registry
        self._dispatcher = Dispatcher(self._link.is_more_there)
        # What subscriptions call, bound once: a bound method takes 64 bytes.
        self._calls = (self._link.settle, self._keep, self._forget)
        # All that are open, in the order in which they were made or entered.
        self._subscriptions: dict[Listening | PromiseSubscription, None] = {}

    def __repr__(self) -> str:
        return f"<Multiplexer of {self._address}>"

    async def __aenter__(self) -> Multiplexer:
        try:
            await self.connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def connect(self) -> None:
        """
        Return when there is a link.

        Canceling :meth:`connect` stops the waiting, not the attempts.

        Raises:
            RedisUnavailable: If the attempt fails. More will follow.
            SubscriptionIsClosed: If the Multiplexer is closed, also meanwhile.
        """
        await self._link.connect()

    def close(self) -> None:
        """
        Drop the link now, and close all subscriptions.

        Iterations end, promises fail, whoever waits gets
        :exc:`.SubscriptionIsClosed`. It may be called at any time and more than
        once, and its subscriptions may be closed before or after. In a forked
        child, the parent keeps its link.

        Raises:
            RuntimeError: If its event loop runs in another thread.
        """
        self._link.close()

    async def aclose(self) -> None:
        """
        Close, and return when Redis has closed the connection, too.

        In another event loop it does as :meth:`close`, and waits for nothing.
        Canceling :meth:`aclose` drops the link, as :meth:`close` does.
        """
        if not self._link.is_here():
            # Nothing of another event loop's, or process's, can be awaited here.
            self.close()
            return
        await self._link.aclose()
        await self._dispatcher.aclose()

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
        words = (b"PUBLISH", encoded(channel), encoded(data))
        answer: int = await self._link.call(*words)
        return answer

    @property
    def closed(self) -> bool:
        """
        If it is closed, by :meth:`close` or since its event loop ended.
        """
        return self._link.closed

    @property
    def connected_event(self) -> asyncio.Event:
        """
        Set while there is a link.
        """
        return self._link.connected_event

    @property
    def connections(self) -> int:
        """
        Links there have been.
        """
        return self._link.connections

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
        self._link.check_open()
        settle, keep, forget = self._calls
        names = (channels, several(patterns))
        inbox = (self._registry, self._dispatcher, inbox_limit, overflow, forget)
        return Subscription(*names, settle, keep, *inbox)

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
        *_, forget = self._calls
        inbox = (self._registry, self._dispatcher, inbox_limit, overflow, forget)
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
        *_, forget = self._calls
        inbox = (self._registry, self._dispatcher, inbox_limit, overflow, forget)
        return self._keep(PatternSubscription(pattern, *callbacks, *inbox))

    new_pattern_subcription = new_pattern_subscription

    def new_promise_subscription(self, prefix: Name) -> PromiseSubscription:
        """
        Return a subscription that makes promises for channels with a prefix.
        """
        return self._keep(
            PromiseSubscription(
                self._registry, prefix, self.publish, self._link.settle, self._forget
            )
        )

    # Private

    def _keep(self, subscription: S) -> S:
        if self.closed:
            subscription.close()
            self._link.check_open()
        self._subscriptions[subscription] = None
        return subscription

    def _forget(self, subscription: Listening | PromiseSubscription) -> None:
        self._subscriptions.pop(subscription, None)

    def _dropped(self, error: Exception) -> None:
        """Tell everybody that the link dropped."""
        event = (None, Gap(error=error))
        for subscription in list(self._subscriptions):
            if isinstance(subscription, Listening):
                subscription.supersede()
            subscription.put(event)

    def _ended(self) -> None:
        """Let go of everybody: the link is closed."""
        is_at_home = self._link.is_at_home()
        for subscription in list(self._subscriptions):
            # Who waits in an event loop that is closed can't be told.
            with contextlib.suppress(*() if is_at_home else (RuntimeError,)):
                subscription.close()
        if is_at_home:
            self._dispatcher.close()
