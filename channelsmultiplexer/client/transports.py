"""
Whose WebSocket it is: the one seam between this package and those that speak RFC 6455.

A transport is what :mod:`websockets` offers: a ``connect`` whose result has ``recv``,
``send``, ``ping``, ``close`` and ``state``, and a module of exceptions.
``picows.websockets`` offers the same, five times as fast.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ..exceptions import Closed

try:
    import websockets.exceptions
    from websockets.frames import Opcode
except ImportError as _error:
    _package = __name__.partition(".")[0]
    raise ImportError(f'Run: pip install "{_package}[client]"') from _error

__all__ = [
    "FATAL_CODES",
    "NORMAL",
    "RETRIED_STATUSES",
    "CallbackError",
    "Transport",
    "abort",
    "check_close",
    "drop",
    "is_open",
    "load",
    "taker",
    "unsent",
]

# Close codes that are nobody's fault.
NORMAL = (1000, 1001)

# Close codes that say the same again next time. What ends normally may begin again.
FATAL_CODES = frozenset({1008, 4400, 4401, 4403, 4404})

# Answers to the handshake, of those below 500, that ask for patience.
RETRIED_STATUSES = frozenset({408, 425, 429})

TEXT = Opcode.TEXT

# In the State enumeration of either transport: CONNECTING, OPEN, CLOSING, CLOSED.
OPEN = 1
CLOSED = 3

MODULES = {
    "websockets": ("websockets.asyncio.client", "websockets.exceptions"),
    "picows": ("picows.websockets", "picows.websockets.exceptions"),
}


class CallbackError(Exception):
    """
    What a function of the caller's raised while a link was being opened.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True)
class Transport:
    """
    What opens WebSockets.

    Attributes:
        connect: Called as :func:`websockets.asyncio.client.connect` is.

        exceptions: Has ``ConnectionClosed``, ``InvalidStatus`` and the others.

        options: What ``connect`` takes; :obj:`None` if only it knows.
    """

    connect: Callable[..., Any]
    exceptions: Any = websockets.exceptions
    options: frozenset[str] | None = None

    def is_verdict(self, error: BaseException) -> bool:
        """
        Tell if an error says by itself how a connection is to end.
        """
        return isinstance(error, Closed | self.exceptions.ConnectionClosed)

    def failure(self, error: BaseException) -> tuple[Closed, bool, float]:
        """
        Say what an attempt or a connection ended with.

        Returns:
            The error for those who wait, caused by *error*; if it is final; and the
            seconds that the server asked for before the next attempt.
        """
        final, after = True, 0.0
        if isinstance(error, CallbackError):
            error = error.cause
        if isinstance(error, Closed):
            closed = type(error)(error.code, error.reason)
        elif isinstance(error, self.exceptions.ConnectionClosed):
            # What the server said, or else what we did: too large, no pong.
            frame = error.rcvd or error.sent
            closed = Closed(1006)
            if frame is not None:
                # picows has None for no reason, and an enumeration of codes.
                closed = Closed(int(frame.code), frame.reason or "")
            final = error.rcvd is not None and closed.code in FATAL_CODES
        elif isinstance(error, self.exceptions.InvalidStatus):
            status = error.response.status_code
            closed = Closed(1006, f"the server answered with HTTP {status}")
            final = status < 500 and status not in RETRIED_STATUSES
            values = _values(error.response.headers, "Retry-After")
            after = max(map(_seconds, values), default=0.0)
        else:
            closed = Closed(1006, f"{type(error).__name__}: {error}")
            # asyncio has a TimeoutError of its own before Python 3.11.
            timeouts = (TimeoutError, asyncio.TimeoutError)
            network = (OSError, EOFError, *timeouts, self.exceptions.InvalidMessage)
            certificate = isinstance(error, ssl.SSLCertVerificationError)
            final = certificate or not isinstance(error, network)
        closed.__cause__ = error
        return closed, final, after


def load(transport: str | Callable[..., Any]) -> Transport:
    """
    Return the transport of that name, or with that ``connect``.

    Raises:
        ValueError: If there is none of that name.
        ImportError: If it isn't installed; it says how to.
    """
    if not isinstance(transport, str):
        return Transport(transport)
    if transport not in MODULES:
        expected = " or ".join(map(repr, MODULES))
        raise ValueError(f"expected {expected} for a transport, got {transport!r}")
    try:
        client, exceptions = map(importlib.import_module, MODULES[transport])
    except ImportError as error:
        package = __name__.partition(".")[0]
        raise ImportError(f'Run: pip install "{package}[fast]"') from error
    # What they don't take for themselves they pass on.
    takers = (client.connect, asyncio.BaseEventLoop.create_connection)
    names = (inspect.signature(taker).parameters for taker in takers)
    connect = client.connect if transport == "websockets" else _telling(client.connect)
    return Transport(connect, exceptions, frozenset().union(*names))


def is_open(websocket: Any) -> bool:
    """
    Tell if a WebSocket can send.
    """
    return bool(websocket.state == OPEN)


def check_close(code: int, reason: str) -> None:
    """
    Raise if an endpoint may not close with that.

    Raises:
        ValueError: If it may not.
    """
    # RFC 6455, 7.4.1, and what was registered since. The others are never sent.
    sendable = (*range(1000, 1004), *range(1007, 1015))
    if code not in sendable and code not in range(3000, 5000):
        raise ValueError(
            f"expected a close code of 1000, of 3000 to 4999, or another that may be "
            f"sent, got {code!r}"
        )
    # RFC 6455, 5.5: what fits in a close frame.
    if len(reason.encode()) > 123:
        raise ValueError(
            f"expected a reason of at most 123 bytes in UTF-8, got {reason!r}"
        )


def abort(websocket: Any) -> bool:
    """
    Break off a connection, if the transport can.

    Returns:
        If it can. picows keeps what it would take to itself.
    """
    transport = getattr(websocket, "transport", None)
    if transport is not None:
        transport.abort()
    return transport is not None


def unsent(websocket: Any) -> int:
    """
    Return how many bytes wait for the network to take them; 0 if nothing tells.

    Nor does it matter then: picows's pings wait for nothing.
    """
    transport = getattr(websocket, "transport", None)
    measure = getattr(transport, "get_write_buffer_size", int)
    return int(measure())


def taker(websocket: Any, raw: bool) -> Callable[[], str | bytes | None] | None:
    """
    Return what takes a message that has come and is whole; it returns None otherwise,
    and ``recv()`` is to be awaited.

    For each message websockets' ``recv()`` awaits three coroutines, which are for
    fragments and for readers who wait: a fifth of all that a busy feed costs. Where
    its queue isn't what it was from version 14 to 17, and of others, nothing can be.

    Args:
        raw: If text is to be had as bytes, too.
    """
    try:
        messages = websocket.recv_messages
        queue, resume, _ = messages.frames.queue, messages.maybe_resume, messages.paused
    except AttributeError:
        return None

    def take() -> str | bytes | None:
        if not queue or not (frame := queue[0]).fin:
            return None
        data = bytes(frame.data)
        message: str | bytes = data
        if not raw and frame.opcode is TEXT:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                # recv() closes the connection.
                return None
        queue.popleft()
        if messages.paused:
            resume()
        return message

    return take


async def drop(websocket: Any) -> None:
    """
    Be rid of a connection whose other end may not answer.

    It takes the time that closing takes at the most, if breaking off can't be had.
    Canceling it doesn't stop it, and waits for its end.
    """

    async def end() -> None:
        # Also one that is closed: Python 3.10 warns of TLS that only the other end
        # closed, and picows of an error that nobody waited for.
        if not abort(websocket) and websocket.state != CLOSED:
            await websocket.close()
        await websocket.wait_closed()

    ending = asyncio.create_task(end())
    try:
        await asyncio.wait({ending})
    finally:
        await asyncio.wait({ending})
    ending.result()


def _telling(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return picows's connect, made to tell a handshake that ends from a bug."""

    @functools.wraps(connect)
    async def telling(uri: str, **options: Any) -> Any:
        websocket = None
        try:
            websocket = await connect(uri, **options)
        # It asserts that there is one. What else it asserts is of the options, and
        # has a message.
        except AssertionError as error:
            if error.args:
                raise
        if websocket is None:
            raise ConnectionResetError("the server closed during the handshake")
        return websocket

    return telling


def _values(headers: Any, name: str) -> list[str]:
    """Return what all headers of that name say."""
    # What picows has is a multidict.
    every = getattr(headers, "get_all", None) or headers.getall
    try:
        return list(every(name))
    except KeyError:
        return []


def _seconds(value: str) -> float:
    """Return the seconds that a Retry-After header asks for, 0 if none can be had."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
