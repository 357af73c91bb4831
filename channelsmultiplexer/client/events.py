"""
What happens to a connection, for those who want to know.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..exceptions import InboxClosed
from ..mailbox import Mailbox

__all__ = ["Event", "Events", "Listener"]

logger: logging.Logger = logging.getLogger(__name__)

# What Event.name may be.
NAMES = (
    "connected",
    "disconnected",
    "retrying",
    "resubscribed",
    "renewed",
    "gap",
    "error",
    "closed",
)

# A program that asks for events and doesn't read them mustn't grow for ever.
MAX_WAITING = 10_000


@dataclass(frozen=True)
class Event:
    """
    Something that happened.

    Attributes:
        name: ``connected``, ``disconnected`` (with *code* and *reason*),
            ``retrying`` (with the *delay* before the next attempt, and the *error*),
            ``resubscribed`` (with the *count* of channels), ``renewed``, ``gap`` (a
            *channel* may have missed messages, with the *count* of those that were
            dropped, 0 if nobody can know), ``error`` (with the *error*; nothing
            ended), ``closed`` (for good, with the *error* if there was one).
    """

    name: str
    channel: Any = None
    code: int | None = None
    reason: str = ""
    delay: float | None = None
    count: int = 0
    error: BaseException | None = None


class Events:
    """
    Tells listeners of events.
    """

    def __init__(self) -> None:
        self._callbacks: list[tuple[str, Callable[[Event], object]]] = []
        # Those that nobody reads any more go by themselves.
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._closed = False

    def emit(self, event: Event) -> None:
        """
        Tell everybody. What a callback raises is logged.
        """
        for name, callback in list(self._callbacks):
            if name == event.name:
                try:
                    callback(event)
                # A listener's bug is no reason to lose the connection. It isn't we who
                # were canceled: nothing here waits.
                except (Exception, asyncio.CancelledError):
                    logger.exception("A callback for %r raised", name)
        for listener in self._listeners:
            listener.mailbox.put_nowait(event)

    def on(self, name: str, callback: Callable[[Event], object]) -> Callable[[], None]:
        """
        Call *callback* with each event of that name.

        Returns:
            What removes it again.

        Raises:
            ValueError: If there are no events of that name.
            TypeError: If *callback* would have to be awaited: nothing here waits.
        """
        if name not in NAMES:
            expected = ", ".join(NAMES)
            raise ValueError(f"expected one of {expected}, got {name!r}")
        if inspect.iscoroutinefunction(callback):
            raise TypeError(
                f"expected a function, got the coroutine function {callback!r}; "
                "iterate over events() to await"
            )
        entry = (name, callback)
        self._callbacks.append(entry)

        def remove() -> None:
            if entry in self._callbacks:
                self._callbacks.remove(entry)

        return remove

    def listen(self) -> Listener:
        """
        Return an async iterator over the events from now on.
        """
        listener = Listener(self._listeners)
        if self._closed:
            listener.mailbox.close()
        return listener

    def close(self) -> None:
        """
        End all iterators, once they have had what waits for them.
        """
        self._closed = True
        for listener in self._listeners:
            listener.mailbox.close()


class Listener:
    """
    The events from one moment on; ends when the connection has.

    Leaving its ``async with`` stops listening, as forgetting it does.
    """

    def __init__(self, listeners: weakref.WeakSet[Listener]) -> None:
        self.mailbox: Mailbox[Event] = Mailbox(MAX_WAITING)
        self._listeners = listeners
        listeners.add(self)

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.mailbox.get()
        except InboxClosed:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """
        Stop listening.
        """
        self._listeners.discard(self)
        self.mailbox.close()
