"""
One stream of the server: a WebSocket to its application, and to nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import enum
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from asgiref.compatibility import guarantee_single_callable
from channels.consumer import AsyncConsumer

from .control import exact
from .envelope import Wrapper, utf8_size
from .exceptions import InboxClosed
from .inbox import Inbox

__all__ = [
    "AGAIN",
    "UNKNOWN",
    "Application",
    "By",
    "Ending",
    "Message",
    "Stream",
    "StreamState",
    "application_of",
    "data_size",
    "fresh",
]

logger: logging.Logger = logging.getLogger(__name__)

Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

# What a message takes beside its data, a dict with two short keys and an object: a
# flood of empty frames fills an inbox too.
MESSAGE_OVERHEAD = sys.getsizeof({"type": "", "bytes": b""}) + sys.getsizeof(b"")

# The least time, in seconds, between two cancellations of an application.
AGAIN = 0.1


class StreamState(enum.Enum):
    """
    How far a stream has come.
    """

    # Its application runs and has neither accepted nor refused.
    CONNECTING = enum.auto()
    # Frames go both ways.
    OPEN = enum.auto()
    # It is over for the client; its application has its websocket.disconnect.
    CLOSING = enum.auto()
    # Its application has ended.
    CLOSED = enum.auto()


_MOVES = {
    StreamState.CONNECTING: {
        StreamState.OPEN,
        StreamState.CLOSING,
        StreamState.CLOSED,
    },
    StreamState.OPEN: {StreamState.CLOSING, StreamState.CLOSED},
    StreamState.CLOSING: {StreamState.CLOSED},
    StreamState.CLOSED: set(),
}


By: TypeAlias = Literal["client", "application", "server"]


class Ending(NamedTuple):
    """
    How a stream, or a socket, ended.

    Attributes:
        code: The close code.

        reason: The reason, or ``""``.

        by: Who ended it.

        accepted: If it had been accepted.
    """

    code: int
    reason: str
    by: By
    accepted: bool


# Of what has not ended yet.
UNKNOWN = Ending(1006, "", "server", False)


class Stream:
    """
    The inbox, the state and the application of one stream.

    Args:
        name: What the stream is called on the wire and in logs.

        wrapper: Writes its data frames.

        path: What the client opened, but for the query; the name, in bare.

        scope: The application's.

        inbox_limit: Bytes that its waiting messages may take, text in UTF-8.

        close_timeout: Seconds that its application may take to end once it has
            its ``websocket.disconnect``.
    """

    __slots__ = (
        "__weakref__",
        "_close_timeout",
        "_connect",
        "_killed",
        "_timer",
        "announcement",
        "bytes_received",
        "bytes_sent",
        "ending",
        "farewell",
        "frames_received",
        "frames_sent",
        "inbox",
        "name",
        "path",
        "scope",
        "state",
        "task",
        "wrapper",
    )

    def __init__(
        self,
        name: str,
        wrapper: Wrapper,
        *,
        path: str,
        scope: Any,
        inbox_limit: int,
        close_timeout: float,
    ) -> None:
        self.name: str = name
        self.wrapper: Wrapper = wrapper
        self.path: str = path
        self.scope: Any = scope
        self.state: StreamState = StreamState.CONNECTING
        # How it ended for the client, once it has.
        self.ending: Ending = UNKNOWN
        # Data frames from the client and from the application, and the bytes of
        # what they carry.
        self.frames_received: int = 0
        self.frames_sent: int = 0
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        # What websocket_close() is told when the application has ended; None if
        # it was told already, or need not be.
        self.farewell: Message | None = None
        # websocket_close() while it is told of an end that the application asked for.
        self.announcement: asyncio.Future[None] | None = None
        # Held until the application accepts: a server delivers no frame before.
        self.inbox: Inbox[Message] = Inbox(inbox_limit, held=True)
        # What the first receive() returns.
        self._connect: Message | None = {"type": "websocket.connect"}
        self._close_timeout = close_timeout
        # The task that run() runs in; whoever starts it awaits it.
        self.task: asyncio.Task[None]
        # Runs out close_timeout after the disconnect.
        self._timer: asyncio.TimerHandle | None = None
        # If the task was cancelled here, and not by the application itself.
        self._killed = False

    @property
    def is_live(self) -> bool:
        """
        If the client may still send to the stream.
        """
        return self.state in (StreamState.CONNECTING, StreamState.OPEN)

    async def run(self, application: Application, send: Send) -> BaseException | None:
        """
        Run the application to its end.

        Returns:
            What it raised, or :obj:`None`. It is for the caller to see to it that
            nobody else suffers from it.
        """
        # Channels' consumers await receive() by ensure_future(), which takes a
        # future as it is but makes a task of a coroutine. Others may give up
        # waiting, or call create_task(), which takes coroutines only.
        is_consumer = hasattr(application, "consumer_class")
        receive = self._receive_soon if is_consumer else self._receive
        try:
            await application(self.scope, receive, send)
        except asyncio.CancelledError as error:
            return None if self._killed else error
        except Exception as error:
            return error
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return None

    def put_nowait(self, message: Message, size: int | None = None) -> None:
        """
        Leave a message for the application.

        Args:
            size: Bytes of its data, if they have been counted.

        Raises:
            InboxFull: If it doesn't fit.
        """
        if size is None:
            size = data_size(message)
        self.inbox.put_nowait(message, MESSAGE_OVERHEAD + size)

    async def put(self, message: Message) -> None:
        """
        Leave a message for the application, once there is room for it.

        The message is dropped if the stream ends first. Canceling :meth:`put`
        before it returns leaves nothing.
        """
        with contextlib.suppress(InboxClosed):
            size = data_size(message)
            await self.inbox.put(message, MESSAGE_OVERHEAD + size)

    def wrap(self, message: Message) -> Message:
        """
        Return the frame that carries what the application sends, and count it.
        """
        frame: Message = {"type": "websocket.send"}
        text = message.get("text")
        if text is None:
            data = message["bytes"]
            frame["bytes"] = self.wrapper.binary(data)
            size = len(data)
        else:
            # A translation may be lazy, and no str.
            if type(text) is not str:
                text = exact(text)
            frame["text"] = self.wrapper.text(text)
            # Not before: msgspec has left the text's UTF-8 in it.
            size = utf8_size(text)
        self.frames_sent += 1
        self.bytes_sent += size
        return frame

    def accept(self) -> None:
        """
        Open the stream: its application has accepted.
        """
        self._move(StreamState.OPEN)
        self.inbox.release()

    def disconnect(self, code: int, reason: str | None, *, drop: bool = False) -> None:
        """
        Give the application its one ``websocket.disconnect`` and a time to end.

        Args:
            code: The close code that it sees.

            reason: The reason, if there is one.

            drop: If it shall not see the messages that still wait, since it was
                the one to close.
        """
        never_opened = self.state is StreamState.CONNECTING
        self._move(StreamState.CLOSING)
        if drop or never_opened:
            self.inbox.clear()
        message = {"type": "websocket.disconnect", "code": code}
        if reason is not None:
            message["reason"] = reason
        self.inbox.close(message)
        self.inbox.release()
        self._timer = asyncio.get_running_loop().call_later(
            self._close_timeout, self._expire
        )

    def kill(self) -> None:
        """
        Cancel the application.
        """
        self._killed = True
        self.task.cancel()

    def end(self) -> None:
        """
        Note that the application has ended.
        """
        self._move(StreamState.CLOSED)
        # Or whoever waits in put() would wait for ever.
        self.inbox.abandon()

    # Private

    def _move(self, state: StreamState) -> None:
        if state not in _MOVES[self.state]:
            raise RuntimeError(
                f"stream {self.name!r} can't go from {self.state.name} to {state.name}"
            )
        self.state = state

    def _expire(self) -> None:
        logger.warning(
            "The application of stream %a has not ended %s seconds after its "
            "websocket.disconnect and is cancelled",
            self.name,
            self._close_timeout,
        )
        self.kill()
        # Some swallow a cancellation: up to Python 3.11 wait_for() can.
        again = max(self._close_timeout, AGAIN)
        self._timer = asyncio.get_running_loop().call_later(again, self._expire)

    async def _receive(self) -> Message:
        if self._connect is not None:
            message, self._connect = self._connect, None
            return message
        return await self.inbox.get()

    def _receive_soon(self) -> asyncio.Future[Message]:
        if self._connect is None:
            return self.inbox.get_soon()
        future = asyncio.get_running_loop().create_future()
        future.set_result(self._connect)
        self._connect = None
        return future


def application_of(name: str, value: Any) -> Application:
    """
    Return the ASGI application that an entry of ``applications`` stands for.

    Raises:
        TypeError: If *value*, which is called *name*, is nothing of the kind.
    """
    if isinstance(value, AsyncConsumer):
        value = fresh(value)
    elif isinstance(value, type) and issubclass(value, AsyncConsumer):
        value = value.as_asgi()
    elif callable(value):
        value = guarantee_single_callable(value)  # type: ignore[no-untyped-call]
    else:
        raise TypeError(
            f"expected an ASGI application for stream {name!r}, got {value!r}"
        )
    return cast(Application, value)


def fresh(consumer: Any) -> Any:
    """
    Return a copy of a consumer that shares no container with it.
    """
    new = copy.copy(consumer)
    for name, value in vars(consumer).items():
        if type(value) in (dict, list, set):
            setattr(new, name, value.copy())
    return new


def data_size(message: Message) -> int:
    """
    Return how many bytes of data a message carries, text in UTF-8.
    """
    text = message.get("text")
    return len(message.get("bytes") or b"") if text is None else utf8_size(exact(text))
