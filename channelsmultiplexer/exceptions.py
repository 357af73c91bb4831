"""
What can go wrong, and whose fault it is.

::

    MultiplexError
    ├── InvalidFrame (also a ValueError)      the client sent a bad frame
    ├── InboxFull (also an asyncio.QueueFull) the reader of an inbox is too slow
    ├── InboxClosed                           the reader of an inbox is gone
    ├── Closed (also a ConnectionError)       a connection or stream has failed for good
    │   └── Refused                           it was never let in
    ├── RedisUnavailable (also a ConnectionError) Redis isn't there, or refuses us
    │   └── PromiseLost                       the link dropped while a promise waited
    ├── NameRefused (also a PermissionError)  Redis refuses a channel or a pattern
    ├── SubscriptionIsClosed                  it was closed, or its Multiplexer was
    └── InactiveSubscription                  Redis has not confirmed it, or not yet

What an application raises is never wrapped: it ends that application's stream
and is logged, or leaves the demultiplexer as it is.
"""

from __future__ import annotations

import asyncio

__all__ = [
    "Closed",
    "InactiveSubscription",
    "InboxClosed",
    "InboxFull",
    "InvalidFrame",
    "MultiplexError",
    "NameRefused",
    "PromiseLost",
    "RedisUnavailable",
    "Refused",
    "SubscriptionIsClosed",
    "escape",
    "excerpt",
]

# How much of a bad frame an error shows.
EXCERPT = 60


class MultiplexError(Exception):
    """
    Base class of every error of this package.
    """


class InvalidFrame(MultiplexError, ValueError):
    """
    The client sent a frame that can't be routed.

    The text starts with ``Invalid multiplexed frame received``, as it did in
    channelsmultiplexer 0.0.3. It is safe to log: whatever the client wrote
    stands in it escaped and cut short.

    Attributes:
        code: What is wrong, one of the error codes of the wire protocol:
            ``invalid-json``, ``invalid-envelope``, ``unknown-stream``,
            ``stream-in-use``, ``unknown-op`` or ``frame-too-large``.

        detail: What was expected, what came, and where.

        stream: The stream that the frame named, as the client wrote it;
            :obj:`None` if it named none.

        late: If the frame was good when it was sent, for all that the client
            knew: its stream has ended since. Such frames aren't counted.
    """

    late: bool = False

    def __init__(self, code: str, detail: str, stream: str | None = None) -> None:
        super().__init__(code, detail, stream)
        self.code = code
        self.detail = detail
        self.stream = stream

    def __str__(self) -> str:
        return f"Invalid multiplexed frame received ({self.code}): {self.detail}"


class InboxFull(MultiplexError, asyncio.QueueFull):
    """
    An item doesn't fit in an inbox now.

    Attributes:
        size: What is waiting in the inbox, in the unit of its limit.

        limit: The most that may wait.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.size} of {self.limit} are waiting"


class InboxClosed(MultiplexError):
    """
    Nothing more can be put in an inbox.
    """

    def __str__(self) -> str:
        return "the inbox is closed"


class Closed(MultiplexError, ConnectionError):
    """
    A connection, or a stream on it, has ended otherwise than normally, and won't
    come back.

    Its ``__cause__`` is what the network or the server did, where an exception
    said so.

    Attributes:
        code: The WebSocket close code, the server's or else our own; 1006 if there
            was no close frame.

        reason: What came with it for a reason, or what went wrong.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        cause = f", after {self.__cause__!r}" if self.__cause__ else ""
        return f"closed with {self.code} {escape(self.reason)}".rstrip() + cause


class Refused(Closed):
    """
    The server wouldn't open a stream, or wouldn't confirm a subscription.
    """


class RedisUnavailable(MultiplexError, ConnectionError):
    """
    There is no link to Redis: nobody answers, or the login failed, or it dropped.

    What raised it, if anything did, is its ``__cause__``.
    """


class PromiseLost(RedisUnavailable):
    """
    The answer may have passed while the link was down.
    """


class NameRefused(MultiplexError, PermissionError):
    """
    Redis doesn't let us subscribe to a name.

    Attributes:
        name: The channel, or the pattern.

        reply: What Redis said.
    """

    def __init__(self, name: bytes, reply: str) -> None:
        super().__init__(name, reply)
        self.name = name
        self.reply = reply

    def __str__(self) -> str:
        return f"Redis refuses {excerpt(self.name)}: {self.reply}"


class SubscriptionIsClosed(MultiplexError):
    """
    A subscription, or its whole Multiplexer, was used after it was closed.
    """

    def __str__(self) -> str:
        return super().__str__() or "the subscription is closed"


class InactiveSubscription(MultiplexError):
    """
    A promise was made before its subscription was active, or while it was not.
    """

    def __str__(self) -> str:
        return "the subscription is not active"


def escape(text: str) -> str:
    """
    Return the start of a text that a client may have had a part in, safe to log.
    """
    return ascii(text[:EXCERPT])[1:-1]


def excerpt(got: str | bytes) -> str:
    """
    Return the start of what a client sent, quoted and safe to log.
    """
    return ascii(got[:EXCERPT]) + ("..." if len(got) > EXCERPT else "")
