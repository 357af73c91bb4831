"""
What waits for each listener: its inbox, and the events in it.

A listener has its own inbox, so that a slow one delays nobody and reorders nothing.
It isn't an :class:`.Inbox`: that takes 760 bytes while empty and one call for each
message, where this takes 56 bytes and one call for a run of messages, which all who
listen to the name share.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from ..exceptions import SubscriptionIsClosed
from .connection import MESSAGE_OVERHEAD
from .registry import (
    Entry,
    Kind,
    Members,
    Name,
    Registry,
    Route,
    encoded,
    joined,
    left,
)

__all__ = [
    "Activation",
    "Dispatcher",
    "Gap",
    "Listening",
    "Message",
    "Overflow",
    "current_task",
]

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest"]


# The rest of a run that is done.
NOTHING: Iterator[list[bytes]] = iter(())


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


class Dispatcher:
    """
    Has what came read, in the event loop's next turn: by callbacks, or by iterators.
    """

    def __init__(self) -> None:
        # Those for whom something waits that nobody reads. schedule() is called
        # before the first is added.
        self.ready: list[Listening] = []
        # The tasks of those whose callback has to be awaited.
        self._tasks: set[asyncio.Task[None]] = set()

    def schedule(self) -> None:
        """
        Let those that are ready read, soon.
        """
        asyncio.get_running_loop().call_soon(self._run)

    def own(self, task: asyncio.Task[None]) -> None:
        """
        See to the end of a task that awaits a callback.
        """
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """
        Cancel all callbacks, save the one that asks for it.
        """
        for task in self._tasks:
            if task is not current_task():
                task.cancel()

    async def aclose(self) -> None:
        """
        Cancel all callbacks, and await their end.
        """
        self.close()
        others = self._tasks - {current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self) -> None:
        ready = iter(self.ready)
        self.ready = []
        try:
            for subscription in ready:
                subscription.read()
        finally:
            # KeyboardInterrupt: those who are left are not to suffer from it.
            for subscription in ready:
                subscription.wake()


class Listening:
    """
    What every subscription is: names, and an inbox.

    Args:
        registry: Counts who wants a name.

        dispatcher: Calls :meth:`read` when something waits.

        inbox_limit: Bytes of memory that waiting messages may take. One that is
            larger is taken while nothing else waits.

        overflow: What to do with a message for which there is no room: drop the
            oldest until there is, or drop it. Either leaves a :class:`Gap`.

        forget: Called when the subscription closes.
    """

    __slots__ = (
        "_current",
        "_current_route",
        "_dispatcher",
        "_entries",
        "_forget",
        "_head",
        "_limit",
        "_overflow",
        "_registry",
        "_routes",
        "_size",
        "closed",
        "dropped",
    )

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        inbox_limit: int,
        overflow: Overflow,
        forget: Callable[[Any], None],
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._limit = inbox_limit
        self._overflow: Overflow = overflow
        self._forget = forget
        # The names it has joined.
        self._routes: Members[Route] = ()
        # What waits, oldest first, from _head on.
        self._entries: list[Entry] = []
        self._head = 0
        # Bytes of the messages that wait.
        self._size = 0
        # The rest of the run that is being read, and its name.
        self._current: Iterator[list[bytes]] = NOTHING
        self._current_route: Route | None = None
        # Messages that were dropped, all in all.
        self.dropped = 0
        self.closed = False

    def put(self, entry: Entry) -> None:
        """
        Take what came.
        """
        size = self._size + entry[2]
        if size > self._limit and entry[2]:
            self._make_room(entry)
            return
        self._size = size
        entries = self._entries
        if not entries:
            # As wake() does. The call would be a tenth of what a message costs.
            dispatcher = self._dispatcher
            if not dispatcher.ready:
                dispatcher.schedule()
            dispatcher.ready.append(self)
        entries.append(entry)

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
            self.closed = True
            self._leave(list(self._routes))
            self._entries.clear()
            self._head = self._size = 0
            self._exhaust()
            self._forget(self)

    def supersede(self) -> None:
        """
        Drop the events since a loss that has not been read: another loss follows.

        They take no room, so without it a link that drops time and again would
        fill the memory of who doesn't read.
        """
        entries = self._entries
        for index in range(len(entries) - 1, self._head - 1, -1):
            event, size = entries[index][1:]
            if size:
                break
            if isinstance(event, Gap):
                if event.error is not None:
                    del entries[index:]
                break

    # Private

    def _join(self, kind: Kind, names: Iterable[Name]) -> list[Route]:
        if self.closed:
            raise SubscriptionIsClosed
        routes = []
        for name in names:
            route = self._registry.join(self, kind, encoded(name))
            if route not in self._routes:
                self._routes = joined(self._routes, route)
            routes.append(route)
        return routes

    def _leave(self, routes: list[Route]) -> None:
        gone = dict.fromkeys(route for route in routes if route in self._routes)
        self._drop(gone)
        for route in gone:
            self._routes = left(self._routes, route)
            self._registry.leave(self, route)

    def _find(self, kind: Kind, names: Iterable[Name]) -> list[Route]:
        found = (self._registry.find(kind, encoded(name)) for name in names)
        return [route for route in found if route is not None]

    def _drop(self, routes: dict[Route, None]) -> None:
        """Drop what waits of names."""
        if self._current_route in routes:
            self._exhaust()
        if self._entries:
            kept = [e for e in self._entries[self._head :] if e[0] not in routes]
            self._entries[:] = kept
            self._head = 0
            self._size = sum(entry[2] for entry in kept)

    def _exhaust(self) -> None:
        # In place: whoever iterates over it stops, too.
        collections.deque(self._current, maxlen=0)

    def _take(self) -> Entry:
        """Return the oldest of the entries that wait."""
        entries = self._entries
        head = self._head
        entry = entries[head]
        head += 1
        if head == len(entries):
            entries.clear()
            head = 0
        # What is taken is let go of, in pieces that are worth the moving.
        elif head > 256 and head * 2 > len(entries):
            del entries[:head]
            head = 0
        self._head = head
        self._size -= entry[2]
        return entry

    def _make_room(self, entry: Entry) -> None:
        """Take what fits of an entry and of what waits, and tell what doesn't."""
        route, run, _ = entry
        run = list(run)
        if self._overflow == "drop_newest":
            kept = []
            for reply in run:
                cost = _cost(reply)
                if self._size and self._size + cost > self._limit:
                    break
                kept.append(reply)
                self._size += cost
            self._append((route, kept, sum(map(_cost, kept))))
            self._tell_dropped(len(run) - len(kept))
            return
        self._append(entry)
        self._size += entry[2]
        lost = 0
        # Events that stand before the gap; they take no room.
        events: list[Entry] = []
        while self._size > self._limit:
            oldest = self._take()
            route, run, size = oldest
            if not size:
                if isinstance(run, Gap) and run.dropped is not None:
                    lost += run.dropped
                    self.dropped -= run.dropped
                else:
                    events.append(oldest)
                continue
            cut = 0
            while self._size + size > self._limit and cut < len(run):
                # The newest stays, however large it is.
                if not self._entries and cut == len(run) - 1:
                    break
                size -= _cost(run[cut])
                cut += 1
            lost += cut
            if cut < len(run):
                events.append((None, Gap(dropped=lost), 0))
                events.append((route, run[cut:], size))
                self._size += size
                break
        else:
            events.append((None, Gap(dropped=lost), 0))
        self.dropped += lost
        self._entries[: self._head] = events
        self._head = 0

    def _append(self, entry: Entry) -> None:
        if entry[1]:
            if not self._entries:
                self.wake()
            self._entries.append(entry)

    def _tell_dropped(self, lost: int) -> None:
        if not lost:
            return
        self.dropped += lost
        last = self._entries[-1][1] if self._entries else None
        if isinstance(last, Gap) and last.dropped is not None:
            lost += last.dropped
            self._entries.pop()
        self._append((None, Gap(dropped=lost), 0))


def _cost(reply: list[bytes]) -> int:
    return MESSAGE_OVERHEAD + len(reply[-1])


def current_task() -> asyncio.Task[Any] | None:
    """
    Return the running task, if there is one.
    """
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
