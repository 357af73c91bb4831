"""
The bridge from Redis to consumers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from .listening import Gap, Message
from .multiplexer import Multiplexer
from .registry import Name, encoded
from .subscriptions import Subscription

__all__ = ["RedisListener", "shared"]

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

# The Multiplexers of each event loop.
_MULTIPLEXERS: dict[asyncio.AbstractEventLoop, dict[str, Multiplexer]] = {}


def shared(url: str) -> Multiplexer:
    """
    Return the Multiplexer that the running event loop has for a URL.

    It is made when it is first asked for, or was closed.
    """
    # No weak dictionary would do it: a Multiplexer knows its event loop.
    for loop in [loop for loop in _MULTIPLEXERS if loop.is_closed()]:
        del _MULTIPLEXERS[loop]
    multiplexers = _MULTIPLEXERS.setdefault(asyncio.get_running_loop(), {})
    multiplexer = multiplexers.get(url)
    if multiplexer is None or multiplexer.closed:
        multiplexer = multiplexers[url] = Multiplexer(url)
    return multiplexer


class RedisListener:
    """
    A consumer that also hears what other programs publish in Redis.

    Put it before the consumer class. What the channels of :meth:`listen` bring
    comes to the consumer's handlers, in order and one at a time, as all its
    messages do::

        class PriceConsumer(RedisListener, AsyncJsonWebsocketConsumer):
            redis_url = "redis://localhost"

            async def connect(self):
                await self.accept()
                await self.listen("prices.*")

            async def redis_message(self, event):
                await self.send(text_data=event["data"].decode())

    ``event`` has ``channel``, ``data`` and ``pattern``. If there is a handler
    ``redis_gap`` it is called where messages may be missing, with ``error`` or
    ``dropped``. All consumers of an event loop share one connection. What is
    listened to ends with the consumer.
    """

    # The server that it listens to.
    redis_url = "redis://localhost:6379"

    async def listen(self, *names: Name) -> None:
        """
        Hear what is published to channels, or, where there is a ``*``, ``?`` or
        ``[`` in the name, to those that match it.

        Returns when Redis has confirmed it.

        In an outage it waits for the end of that. To wait less, use
        :func:`asyncio.wait_for`.

        Raises:
            NameRefused: If Redis doesn't let us.
            RedisUnavailable: If the process never had a link to Redis. The names
                stay joined: their messages come once there is one.
        """
        patterns = [name for name in names if _is_pattern(name)]
        channels = [name for name in names if not _is_pattern(name)]
        await self._subscription.add(*channels, patterns=patterns)

    async def unlisten(self, *names: Name) -> None:
        """
        Undo :meth:`listen`. None of their messages comes any more.
        """
        patterns = [name for name in names if _is_pattern(name)]
        channels = [name for name in names if not _is_pattern(name)]
        await self._subscription.remove(*channels, patterns=patterns)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the consumer, with one more source of messages."""
        self._subscription = shared(self.redis_url).subscribe()
        wants_gaps = hasattr(self, "redis_gap")
        self._merged = _Merged(receive, self._subscription, wants_gaps)
        try:
            await super().__call__(  # type: ignore[misc]
                scope, self._merged.receive, send
            )
        finally:
            self._subscription.close()
            self._merged.close()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Bring a message to its handler, unless :meth:`unlisten` came first."""
        if not self._merged.is_unwanted(message):
            await super().dispatch(message)  # type: ignore[misc]

    _subscription: Subscription
    _merged: _Merged


class _Merged:
    """
    What a consumer receives, from its client and from Redis.
    """

    def __init__(
        self, receive: Receive, subscription: Subscription, wants_gaps: bool
    ) -> None:
        self._receive = receive
        self._subscription = subscription
        self._wants_gaps = wants_gaps
        # What is awaited of each. They outlive a receive() that ends with the
        # other's, so that nothing is lost.
        self._frame: asyncio.Future[dict[str, Any]] | None = None
        self._event: asyncio.Future[Any] | None = None
        # Whose turn it is if both have something: neither a fast feed nor a fast
        # client keeps the other waiting.
        self._is_turn_of_frame = False
        # The last message of Redis's, as the consumer has it.
        self._handed: dict[str, Any] | None = None

    async def receive(self) -> dict[str, Any]:
        """
        Return the next message of either.
        """
        while True:
            if self._frame is None:
                self._frame = asyncio.ensure_future(self._receive())
            if self._event is None:
                self._event = asyncio.ensure_future(self._subscription.get())
            await asyncio.wait(
                (self._frame, self._event), return_when=asyncio.FIRST_COMPLETED
            )
            if not self._frame.done() or (
                self._event.done() and not self._is_turn_of_frame
            ):
                event, self._event = self._event.result(), None
                self._is_turn_of_frame = True
                match event:
                    case Message():
                        self._handed = {"type": "redis.message", **event._asdict()}
                        return self._handed
                    case Gap() if self._wants_gaps:
                        return {
                            "type": "redis.gap",
                            "error": event.error,
                            "dropped": event.dropped,
                        }
            else:
                frame, self._frame = self._frame, None
                self._is_turn_of_frame = False
                return frame.result()

    def is_unwanted(self, message: dict[str, Any]) -> bool:
        """
        Return if a message is from Redis, and of a name that was left meanwhile.
        """
        # Only what we made: a program may send a consumer the like of it.
        return message is self._handed and not self._subscription.has(
            message["channel"], message["pattern"]
        )

    def close(self) -> None:
        """
        Stop waiting.
        """
        for future in (self._frame, self._event):
            # One that has failed, and whose turn it wasn't, is nobody's any more.
            if future is not None and not future.cancel() and not future.cancelled():
                future.exception()


def _is_pattern(name: Name) -> bool:
    return any(sign in encoded(name) for sign in b"*?[")
