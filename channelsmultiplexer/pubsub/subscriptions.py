"""
Messages brought to an iteration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..exceptions import NameRefused, SubscriptionIsClosed
from .listening import NOTHING, Activation, Gap, Listening, Message
from .registry import ACTIVATED, CHANNEL, PATTERN, Listener, Name, Route, several

__all__ = ["Subscription"]


class Subscription(Listening):
    """
    An asynchronous iterator of messages, and a context in which they come.

    Entering it returns when all names are active: what is published from then on
    comes. It ends the iteration when it is closed.

    Iterating over it raises :exc:`.NameRefused` when Redis takes a name away, and
    may be taken up again: the other names are still there. It has one reader at a
    time; a second is told so by a :exc:`RuntimeError`.
    """

    __slots__ = ("_channels", "_keep", "_patterns", "_settle", "_waiter")

    def __init__(
        self,
        channels: Iterable[Name],
        patterns: Iterable[Name],
        settle: Callable[[Listener, list[Route]], Awaitable[None]],
        keep: Callable[[Subscription], Any],
        *listening: Any,
    ) -> None:
        super().__init__(*listening)
        # What entering it adds, until then.
        self._channels = channels
        self._patterns = patterns
        self._settle = settle
        # Called when it is in use: one that is never entered is nobody's concern.
        self._keep = keep
        # The reader, while nothing waits.
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Subscription to {len(self._routes)} names>"

    async def __aenter__(self) -> Subscription:
        try:
            names = self._channels, self._patterns
            self._channels = self._patterns = ()
            await self.add(*names[0], patterns=names[1])
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """
        End the subscription, and the iteration. What waits is dropped.

        It may be called at any time and more than once.
        """
        super().close()
        self.read()

    def read(self) -> None:
        """
        Wake the reader, if there is one.
        """
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def add(self, *channels: Name, patterns: Iterable[Name] = ()) -> None:
        """
        Listen to more names, and return when they are active.

        Canceling :meth:`add` leaves them joined; :meth:`remove` undoes it.

        Raises:
            NameRefused: If Redis doesn't let us; that name is left again.
            RedisUnavailable: If there is no link to Redis and never was, or Redis
                is there and refuses us. The names stay joined, and are active
                once there is a link. The end of an outage is waited for.
            SubscriptionIsClosed: If it is, also meanwhile.
        """
        patterns = several(patterns)
        routes = self._join(CHANNEL, channels) + self._join(PATTERN, patterns)
        self._keep(self)
        try:
            await self._settle(self, routes)
        except NameRefused as error:
            refused = [route for route in routes if route.refusal is not None]
            self._leave([route for route in refused if route.name == error.name])
            raise
        if self.closed:
            raise SubscriptionIsClosed

    async def remove(self, *channels: Name, patterns: Iterable[Name] = ()) -> None:
        """
        Stop listening to names, and return when Redis knows, if it has to.
        """
        patterns = several(patterns)
        routes = self._find(CHANNEL, channels) + self._find(PATTERN, patterns)
        self._leave(routes)
        await self._settle(self, routes)

    async def aclose(self) -> None:
        """
        Close, and return when Redis knows, if it has to.
        """
        routes = list(self._routes)
        self.close()
        await self._settle(self, routes)

    def has(self, channel: bytes, pattern: bytes | None = None) -> bool:
        """
        Return if it listens to a channel, or to the pattern by which that came.
        """
        if pattern is None:
            found = self._find(CHANNEL, [channel])
        else:
            found = self._find(PATTERN, [pattern])
        return any(route in self._routes for route in found)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        """
        Return the next message. Canceling loses nothing.
        """
        while True:
            for item in self._unread:
                if isinstance(item, list):
                    # As _message() does. The call would be a third of the time.
                    if len(item) == 3:
                        return _new(Message, (item[1], item[2], None))
                    return _message(item)
                _event(*item)
            if self.waiting:
                self._take()
            elif self.closed:
                raise StopAsyncIteration
            else:
                await self._arrival()

    async def get(self) -> Message | Gap | Activation:
        """
        Return the next message or event, in order. Canceling loses nothing.

        Raises:
            NameRefused: If Redis took a name away.
            SubscriptionIsClosed: If it is.
        """
        while True:
            for item in self._unread:
                return _message(item) if isinstance(item, list) else _event(*item)
            if self.waiting:
                self._take()
            elif self.closed:
                raise SubscriptionIsClosed
            else:
                await self._arrival()

    # Private

    def _arrival(self) -> asyncio.Future[None]:
        """Return what is done when something waits, or the subscription is closed."""
        if self._channels or self._patterns:
            raise RuntimeError(f"{self!r} is read before `async with` has entered it")
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError(f"{self!r} is already being read")
        self._unread = NOTHING
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter


# Message() takes twice as long.
_new = tuple.__new__


def _message(reply: list[bytes]) -> Message:
    if len(reply) == 3:
        return _new(Message, (reply[1], reply[2], None))
    return _new(Message, (reply[2], reply[3], reply[1]))


def _event(route: Route | None, event: Any) -> Gap | Activation:
    """Return an event as the user has it, or raise it."""
    if event is ACTIVATED:
        assert route is not None, "a name is what becomes active"
        return Activation(route.name)
    if isinstance(event, NameRefused):
        # Others who listen have it, too.
        raise NameRefused(event.name, event.reply)
    assert isinstance(event, Gap), "there are no other events"
    return event
