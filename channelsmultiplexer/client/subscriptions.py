"""
What a program holds of a connection that it shares: a subscription, or a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from .. import control
from ..envelope import Envelope, Wrapper
from ..exceptions import Closed, InboxClosed, InboxFull
from ..mailbox import Mailbox, Overflow
from .dialects import checked, decoder, loads
from .processors import encode
from .stats import SubscriptionStats

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .channels import Channel
    from .router import Router

    # Where no type is given. At runtime a TypeVar has a default since Python 3.13.
    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Stream", "Subscription"]

# What a fast decoder raises, for what is bad and for what only json can read.
UNUSUAL = (msgspec.DecodeError, RecursionError, ValueError)

# What a stream is closed with whose reader was too slow; as the server says it.
FULL = (1013, "inbox full")

# In place of a message that nothing can decode.
SKIPPED: Any = object()


class Subscription(Generic[T]):
    """
    One listener's messages. Got from :class:`.Multiplex`, which routes to it.

    Iterating ends, and :meth:`recv` raises, once the connection has ended for good
    and what waits has been delivered; a loss that is made good is only waited for.
    Leaving its ``async with`` closes it.

    Attributes:
        channel: What it is subscribed to; the filters, if it is a filtered stream.
    """

    def __init__(
        self,
        router: Router,
        channel: Any,
        *,
        type: Any = Any,  # noqa: A002 (the seed's word)
        queue_size: int = 1000,
        overflow: Overflow = "drop_oldest",
        decoded: bool = False,
    ) -> None:
        self.channel = channel
        self.mailbox: Mailbox[Any] = Mailbox(queue_size, overflow)
        #: What the router knows its channel by.
        self.key: Any = None
        self._router = router
        self._items = self.mailbox.items
        self._type = type
        self._decode: Callable[[Any], Any] = decoder(type)
        if decoded:
            self._decode = self._convert

    # The reader

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        items = self._items
        while True:
            while not items:
                try:
                    await self.mailbox.arrival()
                except InboxClosed:
                    raise StopAsyncIteration from None
                except InboxFull:
                    self._leave()
                    raise
            # As in _next(): a call is what half of this would cost.
            item = items.popleft()
            if self.mailbox.room is not None:
                self.mailbox.made_room()
            try:
                message: T = self._decode(item)
            except UNUSUAL as error:
                message = self._decode_unusual(item, error)
                if message is SKIPPED:
                    continue
            return message

    async def recv(self, timeout: float | None = None) -> T:
        """
        Return the next message. One that can't be read at all is skipped, and told
        of by an ``error`` event.

        Canceling it loses nothing.

        Raises:
            TimeoutError: After *timeout* seconds.
            Closed: If there will be no more; 1000 if it ended normally.
            InboxFull: After the last message that fitted, if *overflow* is
                ``"error"``.
            msgspec.ValidationError: If the message isn't of the type asked for; the
                next call returns the next one.
        """
        until = None if timeout is None else monotonic() + timeout
        while True:
            if not self._items:
                await self._wait(timeout)
            message = self._next()
            if message is not SKIPPED:
                return message
            if until is not None:
                timeout = max(0.0, until - monotonic())

    async def recv_many(self) -> list[T]:
        """
        Return all messages that wait, at least one.

        Cancels and raises as :meth:`recv`; those before one that isn't of the type
        asked for are returned first.
        """
        messages: list[T] = []
        while not messages:
            if not self._items:
                await self._wait(None)
            while self._items:
                item = self._items[0]
                try:
                    message = self._next()
                except msgspec.ValidationError:
                    if not messages:
                        raise
                    self._items.appendleft(item)
                    break
                if message is not SKIPPED:
                    messages.append(message)
        return messages

    async def close(self) -> None:
        """
        Leave. What waits is dropped; iterating ends.

        The last one to leave a channel unsubscribes from it.
        """
        self.mailbox.close()
        self.mailbox.discard()
        self._leave()

    async def __aenter__(self) -> Subscription[T]:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "" if self.is_active else " closed"
        return f"<{type(self).__name__} {self.channel!r}{state}>"

    @property
    def is_active(self) -> bool:
        """
        If more messages may come.
        """
        return not self.mailbox.closed

    @property
    def dropped(self) -> int:
        """
        How many messages were lost because they came faster than they were read.
        """
        return self.mailbox.dropped

    def stats(self) -> SubscriptionStats:
        """
        Return its numbers.
        """
        box = self.mailbox
        waiting = len(box.items)
        delivered = box.received - box.dropped - waiting
        return SubscriptionStats(
            self.channel,
            box.received,
            delivered,
            waiting,
            box.dropped,
            self.is_active,
        )

    # Private

    def _leave(self) -> None:
        self._router.leave(self)

    def _ended(self) -> Closed:
        """Return what a normal end is for those who ask for more."""
        return Closed(1000)

    async def _wait(self, timeout: float | None) -> None:
        try:
            await self.mailbox.wait(timeout)
        except InboxClosed:
            raise self._ended() from None
        except InboxFull:
            self._leave()
            raise

    def _next(self) -> T:
        """Return the next message, or SKIPPED."""
        item = self._items.popleft()
        self.mailbox.made_room()
        try:
            message: T = self._decode(item)
        except UNUSUAL as error:
            message = self._decode_unusual(item, error)
        return message

    def _decode_unusual(self, item: Any, error: Exception) -> Any:
        """
        Return what msgspec finds too lax, NaN, 1e999, lone surrogates; or SKIPPED.
        """
        if isinstance(error, msgspec.ValidationError) and self._type is not Any:
            raise error
        try:
            message = loads(item)
        # Parts of it were never looked at before.
        except ValueError as bad:
            self._router.unreadable(self, bad)
            return SKIPPED
        return self._convert(message)

    def _convert(self, message: Any) -> Any:
        """Return a decoded message as the type that was asked for."""
        if self._type is Any:
            return message
        # Keys of JSON are text, also where the type says int.
        return msgspec.convert(message, self._type, str_keys=True)


class Stream(Subscription[T]):
    """
    A subscription that can also send: a stream of our own server.

    It is a WebSocket of its own to the application at the other end. When the
    connection is lost and comes back, or is renewed, the stream is opened again, with
    a new application at its other end; a ``gap`` event tells of it, and so does
    :attr:`reopened`.

    So it is, after a delay, when the server closes the stream alone with a code that
    means later: 1011, 1012, 1013 or 4429. With any other the stream ends: iterating
    ends if the code is 1000 or 1001, else it raises :exc:`.Closed`; :attr:`code` and
    :attr:`reason` are there in either case.

    Attributes:
        reopened: How many times it was opened again.

        subprotocol: What the application chose.

        code: The code it was closed with; :obj:`None` before.

        reason: The reason that came with it.
    """

    def __init__(self, router: Router, channel: Any, **options: Any) -> None:
        super().__init__(router, channel, **options)
        self.reopened = 0
        self.subprotocol: str | None = None
        self.code: int | None = None
        self.reason: str = ""
        # The stream's place on the wire.
        self.wanted: Channel
        if not options.get("decoded"):
            self._payload = self._decode
            self._decode = self._unwrap

    async def send(self, value: Any) -> None:
        """
        Send a value as JSON, once the stream is open: text too is a JSON string.

        Returns and loses what :meth:`.Multiplex.send` does, and writes JSON as it.

        Raises:
            Closed: If the stream has ended.
        """
        value = await self._router.connection.processors.pre_process(value)
        await self._send(lambda wrapper: wrapper.text(encode(value)))

    async def send_text(self, text: str) -> None:
        """
        Send text, as a payload if it is JSON; otherwise as :meth:`send`.

        Raises:
            TypeError: If it is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"expected a str, got {text!r}")
        await self._send(lambda wrapper: wrapper.text(text))

    async def send_bytes(self, data: bytes) -> None:
        """
        Send bytes; otherwise as :meth:`send`.

        Raises:
            TypeError: If they aren't bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"expected bytes, got {data!r}")
        await self._send(lambda wrapper: wrapper.binary(data))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close the stream: the application is told *code*, and *reason*.

        Raises:
            ValueError: If the code isn't one of 1000 to 4999, or the reason is longer
                than 123 characters.
        """
        checked(control.Close("1", code, reason))
        if self.code is None:
            self.wanted.ending = (code, reason)
        self.end(code, reason)
        await super().close()

    async def __aenter__(self) -> Stream[T]:
        return self

    def end(self, code: int, reason: str) -> None:
        """
        Note that the stream has ended, and with what.
        """
        if self.code is None:
            self.code, self.reason = code, reason
        self.wanted.wake()

    async def _send(self, frame: Callable[[Wrapper], str | bytes]) -> None:
        await self._router.send(self, frame)

    def _leave(self) -> None:
        # Its reader was too slow; close() has said otherwise before.
        if self.code is None:
            self.wanted.ending = FULL
            self.end(*FULL)
        super()._leave()

    def _ended(self) -> Closed:
        return super()._ended() if self.code is None else Closed(self.code, self.reason)

    def _unwrap(self, envelope: Envelope) -> Any:
        return self._payload(envelope.data) if envelope.is_json else envelope.data

    def _decode_unusual(self, item: Any, error: Exception) -> Any:
        data = item.data if isinstance(item, Envelope) else item
        return super()._decode_unusual(data, error)
