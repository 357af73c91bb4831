"""
Who wants which names, and what Redis has been told of it.

It decides which commands to send and what their answers mean. It does no I/O.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from ..exceptions import NameRefused

__all__ = [
    "ACTIVATED",
    "CHANNEL",
    "PATTERN",
    "Command",
    "Item",
    "Kind",
    "Listener",
    "Members",
    "Name",
    "Registry",
    "Route",
    "Waiting",
    "encoded",
    "joined",
    "left",
    "several",
]

Name: TypeAlias = "str | bytes"

# Names in one command. A refused name fails all that are with it.
CHUNK = 500


# A set in the order of joining. Most have one member, and a tuple of one takes a
# fifth of a dict's memory.
Members: TypeAlias = "tuple[M, ...] | dict[M, None]"

M = TypeVar("M")


def joined(members: Members[M], member: M) -> Members[M]:
    """
    Return members with one more, which is not among them.
    """
    if isinstance(members, dict):
        members[member] = None
        return members
    return dict.fromkeys((*members, member)) if members else (member,)


def left(members: Members[M], member: M) -> Members[M]:
    """
    Return members without one that is among them.
    """
    if isinstance(members, dict):
        del members[member]
        return members
    return ()


def encoded(name: Name) -> bytes:
    """
    Return a name or data as Redis has it.
    """
    if isinstance(name, str):
        return name.encode()
    # bytes() takes more: of a number, it makes as many zeros.
    if isinstance(name, (bytes, bytearray, memoryview)):
        return bytes(name)
    raise TypeError(f"expected str or bytes, got {type(name).__name__}")


def several(patterns: Iterable[Name]) -> list[bytes]:
    """
    Return patterns as Redis has them, unless it is one: its letters are none.
    """
    if isinstance(patterns, (str, bytes)):
        raise TypeError(f"expected several patterns, got {patterns!r} and no list")
    return [encoded(pattern) for pattern in patterns]


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A way to subscribe. Sharded channels would be a third.
    """

    subscribe: bytes
    unsubscribe: bytes


CHANNEL = Kind(b"SUBSCRIBE", b"UNSUBSCRIBE")
PATTERN = Kind(b"PSUBSCRIBE", b"PUNSUBSCRIBE")


class Route:
    """
    One name: who listens to it, and how far its subscription is.
    """

    __slots__ = (
        "active",
        "kind",
        "listeners",
        "name",
        "pending",
        "refusal",
        "subscribed",
    )

    def __init__(self, kind: Kind, name: bytes) -> None:
        self.kind: Kind = kind
        self.name: bytes = name
        # In the order in which they came.
        self.listeners: Members[Listener] = ()
        # What the last command about it was.
        self.subscribed: bool = False
        # Commands about it that Redis has not answered.
        self.pending: int = 0
        # If Redis has answered the last one, and it was to subscribe. Messages
        # that come before belong to nobody who listens now.
        self.active: bool = False
        # What Redis said when it refused the name, until it is asked again.
        self.refusal: str | None = None


# What waits in a subscription: a message, as Redis wrote it, or an event, with the
# name that it is about, if it is about one.
Item: TypeAlias = "list[bytes] | tuple[Route | None, Any]"

# Where it waits.
Waiting: TypeAlias = "list[Item] | collections.deque[Item]"

# The event of a name that became active.
ACTIVATED = object()


class Listener(Protocol):
    """
    What the registry knows of a subscription.
    """

    # What waits, oldest first, and the bytes of memory that it may still take. While
    # something waits, and there is room, a writer in a hurry appends without a call.
    waiting: Waiting
    room: int

    def put(self, item: Item, size: int = 0) -> None:
        """
        Take a message and its size in bytes, or an event.

        It runs in the reader, so it calls nobody. The item is shared by all who
        listen.
        """


class Command:
    """
    Names to subscribe or unsubscribe at once, and how many of them are answered.
    """

    __slots__ = ("answered", "kind", "routes", "subscribe")

    def __init__(self, kind: Kind, subscribe: bool, routes: list[Route]) -> None:
        self.kind: Kind = kind
        self.subscribe: bool = subscribe
        self.routes: list[Route] = routes
        self.answered: int = 0

    def words(self) -> tuple[bytes, ...]:
        """
        Return the command as Redis has it.
        """
        verb = self.kind.subscribe if self.subscribe else self.kind.unsubscribe
        return (verb, *(route.name for route in self.routes))


class Registry:
    """
    All names of one connection.

    Args:
        changed: Called before a name changes that Redis is to be told of. If it
            raises, nothing changes.

        settled: Called with a route that became active, was left, given up, joined
            after that, or refused.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        settled: Callable[[Route], None],
    ) -> None:
        self._changed = changed
        self._settled = settled
        self.channels: dict[bytes, Route] = {}
        self.patterns: dict[bytes, Route] = {}
        # The names whose listeners changed since changes() was called, in order.
        self._dirty: dict[Route, None] = {}

    def routes(self) -> Iterator[Route]:
        """
        Return all names.
        """
        yield from self.channels.values()
        yield from self.patterns.values()

    def find(self, kind: Kind, name: bytes) -> Route | None:
        """
        Return a name's route, if anybody listens to it.
        """
        return self._names(kind).get(name)

    def join(self, listener: Listener, kind: Kind, name: bytes) -> Route:
        """
        Let a listener have the messages of a name.

        One that has them already changes nothing, save that a name which Redis
        refused is asked for again.
        """
        self._changed()
        names = self._names(kind)
        route = names.get(name)
        if route is None:
            route = names[name] = Route(kind, name)
        elif not route.listeners:
            # Who has left it need not wait for Redis to hear of that.
            self._settled(route)
        if listener not in route.listeners:
            route.listeners = joined(route.listeners, listener)
            if route.active:
                listener.put((route, ACTIVATED))
        if not route.subscribed:
            route.refusal = None
            self._dirty[route] = None
        return route

    def leave(self, listener: Listener, route: Route) -> None:
        """
        Let a listener have no more messages of a name.
        """
        is_last = len(route.listeners) == 1
        if is_last and route.subscribed:
            self._changed()
            self._dirty[route] = None
        route.listeners = left(route.listeners, listener)
        # Refused, or there is no link: Redis need not be told.
        if is_last and not route.subscribed:
            self._drop(route)
        self._settled(route)

    # What the connection asks

    def changes(self) -> list[Command]:
        """
        Return the commands for what changed since the last time.

        A name that changed back needs none.
        """
        groups: dict[tuple[Kind, bool], list[Route]] = {}
        for route in self._dirty:
            wanted = bool(route.listeners)
            if wanted != route.subscribed:
                groups.setdefault((route.kind, wanted), []).append(route)
        self._dirty.clear()
        # Each name is in one group only, so their order is free.
        return [
            command
            for (kind, wanted), routes in groups.items()
            for command in self._commands(kind, wanted, routes)
        ]

    def lost(self) -> None:
        """
        Forget what Redis was told: the link is down, and the next starts anew.
        """
        self._dirty.clear()
        for route in list(self.routes()):
            route.subscribed = route.active = False
            route.pending = 0
            route.refusal = None
            if route.listeners:
                self._dirty[route] = None
            else:
                self._drop(route)

    def acknowledged(self, command: Command) -> None:
        """
        Note that Redis did what the next name of a command asks.
        """
        route = command.routes[command.answered]
        command.answered += 1
        route.pending -= 1
        if route.pending:
            return
        if not route.subscribed:
            self._drop(route)
            return
        route.active = True
        event = (route, ACTIVATED)
        for listener in route.listeners:
            listener.put(event)
        self._settled(route)

    def refused(self, command: Command, reply: str) -> list[Command]:
        """
        Note that Redis refused a command, and with it all of its names.

        Returns:
            The commands to send instead: Redis doesn't say which name it was, so
            each half is tried.
        """
        left = []
        for route in command.routes:
            route.pending -= 1
            # A later command about the name is on its way, and decides.
            if route.pending:
                continue
            route.subscribed = False
            if not route.listeners:
                self._drop(route)
            elif len(command.routes) > 1:
                left.append(route)
            else:
                self._refuse(route, reply)
        half = len(left) // 2
        return [
            part
            for routes in (left[:half], left[half:])
            for part in self._commands(command.kind, True, routes)
        ]

    # Private

    def _names(self, kind: Kind) -> dict[bytes, Route]:
        return self.channels if kind is CHANNEL else self.patterns

    def _commands(
        self, kind: Kind, wanted: bool, routes: list[Route]
    ) -> Iterable[Command]:
        for start in range(0, len(routes), CHUNK):
            chunk = routes[start : start + CHUNK]
            for route in chunk:
                route.subscribed = wanted
                route.active = False
                route.pending += 1
            yield Command(kind, wanted, chunk)

    def _drop(self, route: Route) -> None:
        if not route.listeners and not route.pending:
            del self._names(route.kind)[route.name]
            # Its name may have another route by the time that changes() is called.
            self._dirty.pop(route, None)
            self._settled(route)

    def _refuse(self, route: Route, reply: str) -> None:
        route.refusal = reply
        event = (route, NameRefused(route.name, reply))
        for listener in route.listeners:
            listener.put(event)
        self._settled(route)
