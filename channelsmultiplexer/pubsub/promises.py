"""
Answers that other programs publish: a networked promise system.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from ..exceptions import (
    InactiveSubscription,
    NameRefused,
    PromiseLost,
    SubscriptionIsClosed,
)
from .deadline import wait_for
from .listening import Gap
from .registry import PATTERN, Item, Listener, Name, Registry, Route, Waiting, encoded

__all__ = ["Promise", "PromiseSubscription"]


class Promise(asyncio.Future[bytes]):
    """
    The one message that will be published to a channel.

    It is a future: await it, cancel it, add callbacks to it. Its time runs from its
    creation, whoever awaits it and whenever.

    Awaiting it raises :exc:`asyncio.TimeoutError` when its time is up,
    :exc:`.PromiseLost` if the link drops first, since the message may have passed
    meanwhile, and :exc:`.SubscriptionIsClosed`.

    Attributes:
        channel: Where the message is published.
    """

    channel: bytes

    def fail(self, error: Exception) -> None:
        """
        Let those who await it have an error. It isn't one that nobody does.
        """
        if not self.done():
            self.set_exception(error)
            self.exception()


class PromiseSubscription:
    """
    Makes promises for the channels that start with a prefix.

    All share one subscription to a pattern: a promise costs no command, and has
    its message even if that is published right after.
    """

    def __init__(
        self,
        registry: Registry,
        prefix: Name,
        publish: Callable[[Name, Name], Awaitable[int]],
        settle: Callable[[Listener, list[Route]], Awaitable[None]],
        forget: Callable[[Any], None],
    ) -> None:
        self._registry = registry
        self._prefix = encoded(prefix)
        self._publish = publish
        self._settle = settle
        self._forget = forget
        self._promises: dict[bytes, list[Promise]] = {}
        # A promise has its message at once: nothing ever waits.
        self.waiting: Waiting = []
        self.room = 0
        self.closed: bool = False
        # A prefix is meant as it stands.
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._prefix) + b"*"
        self._route = registry.join(self, PATTERN, pattern)

    def __repr__(self) -> str:
        return f"<PromiseSubscription of {self._prefix!r}>"

    def new_promise(self, suffix: Name, timeout: float | None) -> Promise:
        """
        Promise the next message to the channel of the prefix and *suffix*.

        Args:
            suffix: The rest of the channel's name.

            timeout: Seconds from now; :obj:`None` for ever.

        Raises:
            InactiveSubscription: If the subscription isn't active now.
            SubscriptionIsClosed: If it is closed.
        """
        if self.closed:
            raise SubscriptionIsClosed
        if not self._route.active:
            raise InactiveSubscription
        loop = asyncio.get_running_loop()
        promise = Promise(loop=loop)
        promise.channel = self._prefix + encoded(suffix)
        self._promises.setdefault(promise.channel, []).append(promise)
        promise.add_done_callback(self._discard)
        if timeout is not None:
            timer = loop.call_later(timeout, promise.fail, asyncio.TimeoutError())
            promise.add_done_callback(lambda _: timer.cancel())
        return promise

    async def wait_for_activation(self, timeout: float | None = None) -> None:
        """
        Return when the subscription is active.

        Raises:
            SubscriptionIsClosed: If it is closed, also meanwhile.
            RedisUnavailable: If there is no link to Redis, and never was.
            NameRefused: If Redis refuses the pattern.
            asyncio.TimeoutError: If *timeout* seconds pass.
        """
        if self.closed:
            raise SubscriptionIsClosed
        await wait_for(self._settle(self, [self._route]), timeout)
        if self.closed:
            raise SubscriptionIsClosed

    async def wait_for_new_promise(
        self,
        suffix: Name = b"",
        timeout: float | None = None,
        *,
        prefix: Name = b"",
    ) -> Promise:
        """
        Promise a message as soon as the subscription is active.

        The promise's time runs from then on. Raises what
        :meth:`wait_for_activation` does.

        Args:
            suffix: The rest of the channel's name.

            timeout: Seconds from then; :obj:`None` for ever.

            prefix: What the page about RedisMPX calls *suffix* here.
        """
        while True:
            await self.wait_for_activation()
            try:
                return self.new_promise(suffix or prefix, timeout)
            # The link dropped between its activation and our turn.
            except InactiveSubscription:
                continue

    async def request(
        self,
        channel: Name,
        data: Name | Callable[[bytes], Name],
        timeout: float | None = 10.0,
    ) -> bytes:
        """
        Publish a question, and return the answer.

        Whoever answers publishes to the channel that the question names: it starts
        with that name and a space, and *data* follows. Give a function for *data*
        to write it another way: it has the name and returns what is published.

        Canceling :meth:`request` lets go of the answer, not of the question.

        Raises:
            asyncio.TimeoutError: If there is no answer in *timeout* seconds, the
                wait for the subscription to be active included.
            PromiseLost: If the link drops before.
            RedisUnavailable: If the question can't be published.
        """
        return await wait_for(self._request(channel, data), timeout)

    def clear(self) -> None:
        """
        Fail all promises that are outstanding, with :exc:`.PromiseLost`.
        """
        self._fail(lambda: PromiseLost("the promises were cleared"))

    def close(self) -> None:
        """
        End the subscription, and fail its promises with
        :exc:`.SubscriptionIsClosed`.
        """
        if not self.closed:
            self._registry.leave(self, self._route)
            self.closed = True
            self._fail(SubscriptionIsClosed)
            self._forget(self)

    def put(self, item: Item, size: int = 0) -> None:
        """
        Take what came. A promise has its message at once: that calls nobody.
        """
        if isinstance(item, list):
            for promise in self._promises.pop(item[2], ()):
                if not promise.done():
                    promise.set_result(item[3])
        elif isinstance(event := item[1], Gap):
            self._fail(lambda: PromiseLost(f"the link dropped: {event.error}"))
        elif isinstance(event, NameRefused):
            self._fail(lambda: NameRefused(event.name, event.reply))

    # Private

    async def _request(
        self, channel: Name, data: Name | Callable[[bytes], Name]
    ) -> bytes:
        promise = await self.wait_for_new_promise(uuid.uuid4().hex)
        try:
            if callable(data):
                question = data(promise.channel)
            else:
                question = promise.channel + b" " + encoded(data)
            await self._publish(channel, question)
            return await promise
        finally:
            promise.cancel()

    def _fail(self, error: Callable[[], Exception]) -> None:
        """Fail all promises, each with an error of its own."""
        for promises in list(self._promises.values()):
            for promise in promises:
                promise.fail(error())
        self._promises.clear()

    def _discard(self, promise: asyncio.Future[bytes]) -> None:
        assert isinstance(promise, Promise), "it is one of ours"
        promises = self._promises.get(promise.channel)
        if promises is not None and promise in promises:
            promises.remove(promise)
            if not promises:
                del self._promises[promise.channel]
