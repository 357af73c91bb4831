"""
What waits for each listener: its inbox, and the events in it.

A listener has its own inbox, so that a slow one delays nobody and reorders nothing.
It is neither an :class:`.Inbox` nor a :class:`.Mailbox`. It is bounded in bytes, as
the server's own buffer for us is, and a mailbox counts; it tells of what it drops by
an event in its place; it is read in runs; and it takes 56 bytes while empty, where
those take 760: most of what a subscription is.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from ..exceptions import SubscriptionIsClosed
from .connection import MESSAGE_OVERHEAD
from .dispatcher import Dispatcher
from .registry import (
    CHANNEL,
    Item,
    Kind,
    Members,
    Name,
    Registry,
    Route,
    Waiting,
    encoded,
    joined,
    left,
)

__all__ = [
    "Activation",
    "Gap",
    "Listening",
    "Message",
    "Overflow",
]

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest"]

OVERFLOWS = get_args(Overflow)

# What is left when all is read.
NOTHING: Iterator[Item] = iter(())

# What part of its limit is taken from an inbox at once, and not counted any more.
SHARE = 8


class Message(NamedTuple):
    """
    A message, the channel it was published to, and the pattern it came by.
    """

    channel: bytes
    data: bytes
    pattern: bytes | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Messages are missing here.

    Attributes:
        error: Why the link dropped, if that is why they are.

        dropped: How many there were, if it is since they came too fast.
    """

    error: Exception | None = None
    dropped: int | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """
    From here on, all messages of a name come. It comes again after a loss.
    """

    name: bytes


class Listening:
    """
    What every subscription is: names, and an inbox.

    Args:
        registry: Counts who wants a name.

        dispatcher: Calls :meth:`read` when something waits.

        inbox_limit: Bytes of memory that waiting messages may take. One that is
            larger is taken while nothing else waits. Up to an eighth more may be on
            its way to the user, or one message.

        overflow: What to do with a message for which there is no room: drop the
            oldest until there is, or drop it. Either leaves a :class:`Gap`.

        forget: Called when the subscription closes.
    """

    __slots__ = (
        "_dispatcher",
        "_forget",
        "_limit",
        "_overflow",
        "_registry",
        "_routes",
        "_unread",
        "closed",
        "dropped",
        "room",
        "waiting",
    )

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        inbox_limit: int,
        overflow: Overflow,
        forget: Callable[[Any], None],
    ) -> None:
        if overflow not in OVERFLOWS:
            expected = " or ".join(map(repr, OVERFLOWS))
            raise ValueError(f"expected {expected}, got {overflow!r}")
        self._registry = registry
        self._dispatcher = dispatcher
        self._limit = inbox_limit
        self._overflow: Overflow = overflow
        self._forget = forget
        # The names it has joined.
        self._routes: Members[Route] = ()
        # What waits, oldest first.
        self.waiting: Waiting = []
        # The limit, less what waits.
        self.room: int = inbox_limit
        # What was taken from it and is not read yet.
        self._unread = NOTHING
        # Messages that were dropped, all in all.
        self.dropped: int = 0
        self.closed: bool = False

    def put(self, item: Item, size: int = 0) -> None:
        """
        Take what came.
        """
        if size and size > self.room:
            self._make_room(item, size)
            return
        self.room -= size
        if not self.waiting:
            # As wake() does. The call would be a tenth of what a message costs.
            dispatcher = self._dispatcher
            if not dispatcher.ready:
                dispatcher.schedule()
            dispatcher.ready.append(self)
        self.waiting.append(item)

    def wake(self) -> None:
        """
        Have :meth:`read` called soon.
        """
        dispatcher = self._dispatcher
        if not dispatcher.ready:
            dispatcher.schedule()
        dispatcher.ready.append(self)

    def read(self) -> None:
        """
        Bring what waits to the user, or the user to what waits.
        """
        raise NotImplementedError

    def close(self) -> None:
        """
        End the subscription. What waits is dropped.
        """
        if not self.closed:
            self._leave(list(self._routes))
            self.closed = True
            self._hold([])
            collections.deque(self._unread, maxlen=0)
            self._forget(self)

    def supersede(self) -> None:
        """
        Drop the events since a loss that has not been read: another loss follows.

        They take no room, so without it a link that drops time and again would
        fill the memory of who doesn't read.
        """
        waiting = self.waiting
        for count, item in enumerate(reversed(waiting), 1):
            if isinstance(item, list):
                break
            if isinstance(item[1], Gap):
                if item[1].error is not None:
                    for _ in range(count):
                        waiting.pop()
                break

    # Private

    def _join(self, kind: Kind, names: Iterable[Name]) -> list[Route]:
        if self.closed:
            raise SubscriptionIsClosed
        routes = []
        # All of them first: if one is no name, none is joined.
        for name in [encoded(name) for name in names]:
            route = self._registry.join(self, kind, name)
            if route not in self._routes:
                self._routes = joined(self._routes, route)
            routes.append(route)
        return routes

    def _leave(self, routes: list[Route]) -> None:
        gone = dict.fromkeys(route for route in routes if route in self._routes)
        for route in gone:
            self._registry.leave(self, route)
            self._routes = left(self._routes, route)
        self._drop(gone)

    def _find(self, kind: Kind, names: Iterable[Name]) -> list[Route]:
        found = (self._registry.find(kind, encoded(name)) for name in names)
        return [route for route in found if route is not None]

    def _drop(self, routes: dict[Route, None]) -> None:
        """Drop what waits of names."""
        self._return()
        if self.waiting:
            names = {(route.kind is CHANNEL, route.name) for route in routes}
            # A channel's messages have three parts, a pattern's have four.
            kept = (
                item
                for item in self.waiting
                if (len(item) == 3, item[1]) not in names and item[0] not in routes
            )
            self._hold(list(kept))

    def _hold(self, items: list[Item]) -> None:
        """Let this wait, and nothing else."""
        self.waiting = items
        self.room = self._limit - sum(map(_cost, items))

    def _take(self, *, whole: bool = False) -> None:
        """Take what waits to read it, or the oldest share of that."""
        share = self._limit // SHARE
        if whole or self._limit - self.room <= share:
            self._unread = iter(self.waiting)
            self.waiting = []
            self.room = self._limit
            return
        waiting = self._oldest()
        taken: list[Item] = []
        size = 0
        while not taken or size < share:
            taken.append(waiting.popleft())
            size += _cost(taken[-1])
        self._unread = iter(taken)
        self.room += size

    def _return(self) -> None:
        """Let what was taken and is not read wait again."""
        # In place: whoever iterates over it stops, too.
        if rest := list(self._unread):
            self._hold([*rest, *self.waiting])

    def _oldest(self) -> collections.deque[Item]:
        """Return what waits, so that some of it can be taken off."""
        # Most never need that, and an empty list takes a tenth of the memory.
        if isinstance(self.waiting, list):
            self.waiting = collections.deque(self.waiting)
        return self.waiting

    def _make_room(self, item: Item, size: int) -> None:
        """Take a message for which there is no room, or drop it."""
        waiting = self._oldest()
        if not waiting:
            self.wake()
        # If only events wait, which take no room, the message is taken.
        if self._overflow == "drop_newest" and self.room < self._limit:
            self.dropped += 1
            lost = _dropped(waiting[-1])
            if lost:
                waiting.pop()
            waiting.append((None, Gap(dropped=lost + 1)))
            return
        lost = 0
        # Events that stand before the gap.
        events: list[Item] = []
        while size > self.room and waiting:
            oldest = waiting.popleft()
            if isinstance(oldest, list):
                self.room += _cost(oldest)
                self.dropped += 1
                lost += 1
            elif already := _dropped(oldest):
                lost += already
            else:
                events.append(oldest)
        if lost:
            events.append((None, Gap(dropped=lost)))
        waiting.extendleft(reversed(events))
        waiting.append(item)
        self.room -= size


def _cost(item: Item) -> int:
    return MESSAGE_OVERHEAD + len(item[-1]) if isinstance(item, list) else 0


def _dropped(item: Item) -> int:
    """Return how many messages a gap says were dropped; 0 for what isn't one."""
    event = item[1]
    return (event.dropped or 0) if isinstance(event, Gap) else 0
