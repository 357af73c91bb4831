"""
Messages brought to functions.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..exceptions import NameRefused
from .dispatcher import current_task
from .listening import NOTHING, Gap, Listening
from .registry import ACTIVATED, CHANNEL, PATTERN, Name, Route

__all__ = [
    "ChannelSubscription",
    "OnActivation",
    "OnDisconnect",
    "OnGap",
    "OnMessage",
    "PatternSubscription",
]

logger: logging.Logger = logging.getLogger("channelsmultiplexer.pubsub")

OnMessage: TypeAlias = Callable[[bytes, bytes], "Awaitable[None] | None"]
OnDisconnect: TypeAlias = Callable[[Exception], "Awaitable[None] | None"]
OnActivation: TypeAlias = Callable[[bytes], "Awaitable[None] | None"]
OnGap: TypeAlias = Callable[[Gap], "Awaitable[None] | None"]


class Callback(Listening):
    """
    A subscription whose messages are brought to functions, synchronous or not.

    They are called one at a time, in order. What one raises is logged.
    """

    __slots__ = (
        "_on_activation",
        "_on_disconnect",
        "_on_gap",
        "_on_message",
        "task",
    )

    def __init__(
        self,
        on_message: OnMessage,
        on_disconnect: OnDisconnect | None,
        on_activation: OnActivation | None,
        on_gap: OnGap | None,
        *listening: Any,
    ) -> None:
        super().__init__(*listening)
        if not callable(on_message):
            raise TypeError("on_message must be a function")
        for optional in (on_disconnect, on_activation, on_gap):
            if optional is not None and not callable(optional):
                raise TypeError(f"a callback must be a function, not {optional!r}")
        self._on_message = on_message
        self._on_disconnect = on_disconnect
        self._on_activation = on_activation
        self._on_gap = on_gap
        # Awaits the callback that is running, if it has to be awaited.
        self.task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """
        End the subscription: no more callbacks, and the one that runs is cancelled.

        It may be called at any time and more than once.
        """
        super().close()
        if self.task is not None and self.task is not current_task():
            self.task.cancel()

    def read(self) -> None:
        """
        Call back for what waits; what has to be awaited, in a task.
        """
        if self.task is None:
            pending = self._run()
            if pending is not None:
                self._return()
                loop = asyncio.get_running_loop()
                self.task = loop.create_task(self._finish(pending))
                self.task.add_done_callback(self._finished)
                if inspect.iscoroutine(pending):
                    # A task that is cancelled before its first step awaits nothing.
                    self.task.add_done_callback(lambda _: pending.close())
                self._dispatcher.own(self.task)

    # Private

    def _run(self) -> Awaitable[Any] | None:
        """
        Call back for all that waits, or until there is something to await.
        """
        on_message = self._on_message
        while True:
            try:
                for item in self._unread:
                    if isinstance(item, list):
                        pending = on_message(item[-2], item[-1])
                    else:
                        pending = self._tell(*item)
                    if pending is not None and inspect.isawaitable(pending):
                        return pending
                if not self.waiting:
                    self._unread = NOTHING
                    return None
                # All at once, while no callback is awaited: nothing comes meanwhile.
                self._take(whole=self.task is None)
            # User code is at fault, and harms itself only; a stray
            # CancelledError, which comes of an await that was cancelled, too.
            except (Exception, asyncio.CancelledError):
                logger.exception("A callback of %r failed", self)

    async def _finish(self, pending: Awaitable[Any] | None) -> None:
        """
        Await what a callback returned, and go on until nothing waits.
        """
        while pending is not None:
            try:
                await pending
            # As in _run(). A CancelledError ends the task, and _finished() goes on.
            except Exception:
                logger.exception("A callback of %r failed", self)
            pending = self._run()
        self.task = None

    def _finished(self, task: asyncio.Task[None]) -> None:
        """
        Go on after a callback that was cancelled.
        """
        if self.task is task:
            self.task = None
            if not self.closed:
                logger.warning("A callback of %r was cancelled", self)
                self.wake()

    def _tell(self, route: Route | None, event: Any) -> Awaitable[None] | None:
        if event is ACTIVATED:
            assert route is not None, "a name is what becomes active"
            return self._on_activation and self._on_activation(route.name)
        if isinstance(event, NameRefused):
            logger.error("%s", event)
        elif event.error is not None:
            return self._on_disconnect and self._on_disconnect(event.error)
        elif self._on_gap is not None:
            return self._on_gap(event)
        else:
            logger.warning("%r is too slow: %s messages lost", self, event.dropped)
        return None


class ChannelSubscription(Callback):
    """
    Ties functions to any number of channels.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<ChannelSubscription to {len(self._routes)} channels>"

    def add(self, channel: Name, *more: Name) -> None:
        """
        Listen to one more channel, or several. One that it has stays as it is.

        Raises:
            SubscriptionIsClosed: If it is.
        """
        self._join(CHANNEL, (channel, *more))

    def remove(self, channel: Name, *more: Name) -> None:
        """
        Stop listening to channels: none of their messages comes any more.

        Unknown ones are ignored.
        """
        self._leave(self._find(CHANNEL, (channel, *more)))

    def clear(self) -> None:
        """
        Stop listening to all channels.
        """
        self._leave(list(self._routes))


class PatternSubscription(Callback):
    """
    Ties functions to all channels that match a pattern.
    """

    __slots__ = ()

    def __init__(self, pattern: Name, *args: Any) -> None:
        super().__init__(*args)
        self._join(PATTERN, [pattern])

    def __repr__(self) -> str:
        return f"<PatternSubscription to {[route.name for route in self._routes]}>"
