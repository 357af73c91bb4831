"""
The real WebSocket: read in one loop, written by many, ended once.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from django.dispatch import Signal
from django.utils.functional import Promise

from . import dialects
from .control import Control, exact
from .envelope import SUBPROTOCOL, Envelope
from .exceptions import InboxFull, InvalidFrame
from .signals import announce, stream_closed, stream_opened
from .stats import Ledger
from .stream import (
    UNKNOWN,
    Application,
    By,
    Ending,
    Message,
    Stream,
    StreamState,
)

__all__ = ["NO_ROUTE", "MultiplexedWebsocket", "fresh"]

logger = logging.getLogger(__name__)

# What a stream ends with whose path leads nowhere.
NO_ROUTE: dict[str, Any] = {"code": 4404, "reason": "no application for this path"}


class MultiplexedWebsocket(AsyncJsonWebsocketConsumer):
    """
    A socket and the applications behind its streams: their tasks, their messages,
    their ends. When to start one, and what an end means, is for the subclass.
    """

    application_close_timeout: float
    inbox_limit: int
    inbox_timeout: float | None
    overflow: Literal["wait", "close"]
    stream_key: str
    payload_key: str

    #: The scope of the socket; each application gets a copy of its own.
    scope: Any

    #: If the socket is closed, by either side, or about to be.
    closing: bool

    #: The names of the streams whose applications have accepted.
    applications_accepting_frames: set[str]

    # The streams that the client may send to, by their names on the wire.
    _streams: dict[str, Stream]

    # The streams whose applications have not ended.
    _running: set[Stream]

    # The code that the socket was closed with from this side, if it was with one.
    _close_code: int | None

    # How the client names its streams.
    _dialect: dialects.Bare | dialects.V1

    # How many bad frames the client has sent.
    _invalid_frames: int

    # If the socket's websocket.accept is on its way.
    _accept_sent: bool

    # Set once it has gone out, or never will.
    _accepted: asyncio.Event

    # The first exception that an application raised.
    _error: BaseException | None

    # How the socket ended, as far as its applications know.
    _ending: Ending = UNKNOWN

    # Done when the socket has failed elsewhere than in a reader.
    _failure: asyncio.Future[BaseException]

    # The server's send.
    _socket_send: Callable[[Message], Awaitable[None]]

    # If a subclass overrides a hook that sees what comes in, or what goes out.
    # While none does, frames are not decoded beyond the envelope.
    _hooks_in: ClassVar[bool] = False
    _hooks_out: ClassVar[bool] = False

    # If a subclass has message handlers of its own.
    _has_handlers: ClassVar[bool] = False

    # The figures of this class; its subclasses have their own.
    _ledger: ClassVar[Ledger]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._ledger = Ledger()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Serve one socket, from its ``websocket.connect`` to the end of the last of
        its applications.

        Canceling it disconnects every application, gives them
        :attr:`application_close_timeout` seconds to end, and then goes on; a
        second cancellation cancels them.

        Raises:
            Exception: What an application raised, if all refused the socket; what
                a hook of a subclass raised.
        """
        # State is per socket, and one instance may serve many.
        socket = fresh(self)
        socket._set_up(scope, send)
        with self._ledger.serving(socket):
            await socket._serve(receive)

    # What the subclass defines

    async def invalid_frame(self, error: InvalidFrame) -> None:
        """Decide what a bad frame gets."""
        raise NotImplementedError

    async def websocket_accept(self, message: Message, stream_name: str) -> None:
        """Do what follows from an application's accepting."""
        raise NotImplementedError

    async def websocket_send(self, message: Message, stream_name: str) -> None:
        """Send what an application sends, if a hook is to see it."""
        raise NotImplementedError

    async def websocket_close(self, message: Message, stream_name: str) -> None:
        """Do what follows from a stream's end."""
        raise NotImplementedError

    async def _control(self, frame: Control) -> None:
        """Do what a control frame says."""
        raise NotImplementedError

    def _handler(self, message: Message) -> Callable[..., Awaitable[None]] | None:
        """Return the subclass's handler for a message of its own type, if any."""
        raise NotImplementedError

    # The socket

    def _set_up(self, scope: Any, send: Any) -> None:
        self.scope = {**scope, "demultiplexer_cls": type(self)}
        self.closing = False
        self._close_code = None
        self.applications_accepting_frames = set()
        self._streams = {}
        self._running = set()
        if SUBPROTOCOL in scope.get("subprotocols", ()):
            self._dialect = dialects.V1()
        else:
            self._dialect = dialects.Bare(self.stream_key, self.payload_key)
        self._invalid_frames = 0
        self._accept_sent = False
        self._accepted = asyncio.Event()
        self._error = None
        self._failure = asyncio.get_running_loop().create_future()
        self._socket_send = send
        self.base_send: Any = self._send

    async def _serve(self, receive: Any) -> None:
        sources = [receive]
        self.channel_layer: Any = get_channel_layer(self.channel_layer_alias)
        if self.channel_layer is not None and (self.groups or self._has_handlers):
            self.channel_name = await self.channel_layer.new_channel()
            sources.append(
                functools.partial(self.channel_layer.receive, self.channel_name)
            )
        readers: list[asyncio.Future[Any]] = [
            asyncio.create_task(self._read(source)) for source in sources
        ]
        try:
            await asyncio.wait(
                [*readers, self._failure], return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await self._shut_down(readers)
        if self._failure.done():
            raise self._failure.result()
        for reader in readers:
            if not reader.cancelled():
                reader.result()

    async def _read(self, receive: Callable[[], Awaitable[Message]]) -> None:
        """Handle what comes from the server, or from the channel layer."""
        # One loop, where Channels has a task and a check of the database's
        # connections for every message: this consumer uses no database.
        with contextlib.suppress(StopConsumer):
            while True:
                message: Any = await receive()
                match message["type"]:
                    case "websocket.receive":
                        await self._receive_frame(message)
                    case "websocket.connect":
                        await self.websocket_connect(message)
                    case "websocket.disconnect":
                        return await self.websocket_disconnect(message)
                    case kind:
                        if self._handler(message) is None:
                            raise ValueError(f"No handler for message type {kind}")
                        await self.dispatch(message)

    async def _receive_frame(self, message: Any) -> None:
        if self.closing:
            return
        try:
            if self._hooks_in:
                await self.websocket_receive(message)
            else:
                text = message.get("text")
                frame = message["bytes"] if text is None else text
                await self._route(self._dialect.codec.decode(frame))
        except InvalidFrame as error:
            self._ledger.invalid_frames += not error.late
            await self.invalid_frame(error)

    async def _send(self, message: Message) -> None:
        """Send to the client, if it is there."""
        if self.closing and message["type"] == "websocket.send":
            return
        try:
            await self._socket_send(message)
        # ASGI 2.4: the client is gone. Its websocket.disconnect follows, but may
        # be behind frames that the reader can't deliver.
        except OSError:
            self._end_socket(1006)

    def _end_socket(
        self, code: int, reason: str | None = None, by: By = "client"
    ) -> None:
        """Disconnect every application: the client is gone."""
        if self.closing:
            by = "server"
        if self._ending is UNKNOWN:
            self._ending = Ending(code, reason or "", by, self._accept_sent)
        self.closing = True
        self._accepted.set()
        for stream in list(self._streams.values()):
            self._retire(stream, code, reason, by)
            stream.disconnect(code, reason)

    def _count_running(self) -> int:
        """Return how many applications have not ended."""
        # A task may still be telling the client of its stream's end.
        return sum(stream.state is not StreamState.CLOSED for stream in self._running)

    async def _wait_told(self, limit: int) -> None:
        """Wait while the client has more than *limit* ends to read."""
        # Or one that opens streams and reads nothing has us keep them all.
        while len(ended := self._ended()) > limit:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)

    def _ended(self) -> set[asyncio.Task[None]]:
        """Return the tasks that have nothing left to do but tell of an end."""
        closed = StreamState.CLOSED
        return {stream.task for stream in self._running if stream.state is closed}

    async def _wait_applications(self) -> None:
        """Wait until every application has ended; each has its time."""
        while self._running:
            await asyncio.wait({stream.task for stream in self._running})

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    async def _shut_down(self, readers: list[asyncio.Future[Any]]) -> None:
        """End all that was started here."""
        for reader in readers:
            reader.cancel()
        self._end_socket(1001, by="server")
        try:
            await asyncio.wait(readers)
            await self._wait_applications()
        finally:
            # Nothing is running now, unless this was cancelled.
            for stream in self._running:
                stream.kill()
            tasks = [stream.task for stream in self._running]
            await asyncio.gather(*readers, *tasks, return_exceptions=True)
            # Channels leaves them at the disconnect only, which may not have come.
            if self.channel_layer is not None:
                for group in self.groups:
                    await self.channel_layer.group_discard(group, self.channel_name)

    # The streams

    def _start(
        self, name: str, path: str, application: Application, scope: Any
    ) -> None:
        """Run an application behind a new stream."""
        stream = Stream(
            name,
            self._dialect.codec.wrapper(name),
            path=path,
            scope=scope,
            inbox_limit=self.inbox_limit,
            close_timeout=self.application_close_timeout,
        )
        self._streams[name] = stream
        self._running.add(stream)
        self._ledger.open(stream)
        stream.task = asyncio.create_task(self._run(stream, application))
        stream.task.add_done_callback(functools.partial(self._reap, stream))

    async def _run(self, stream: Stream, application: Application) -> None:
        """Run the application of a stream, and see to it that its end is known."""
        send = functools.partial(self._from_application, stream)
        error = await stream.run(application, send)
        unrouted = _is_unrouted(error)
        if unrouted:
            logger.info("Stream %a has no route for its path", stream.name)
        elif isinstance(error, asyncio.CancelledError):
            logger.warning("The application of stream %a was cancelled", stream.name)
        elif error is not None:
            logger.error(
                "The application of stream %a raised", stream.name, exc_info=error
            )
        if stream.is_live:
            farewell: Message = {"type": "websocket.close"}
            if unrouted:
                farewell |= NO_ROUTE
            elif error is not None:
                self._error = self._error or error
                farewell["code"] = 1011
            stream.farewell = farewell
            self._retire(stream, farewell.get("code"), farewell.get("reason"))
        stream.end()
        self._ledger.close(stream)
        try:
            if stream.farewell is not None:
                await self.websocket_close(stream.farewell, stream.name)
            elif stream.announcement is not None and not stream.announcement.done():
                await stream.announcement
        finally:
            if stream_closed.receivers and stream.ending.accepted:
                code, reason, by, _ = stream.ending
                ending = {"code": code, "reason": reason, "by": by}
                await self._signal(stream_closed, stream, **ending)

    async def _signal(self, signal: Signal, stream: Stream, **named: Any) -> None:
        """Tell the receivers of a signal about a stream."""
        await announce(
            signal,
            type(self),
            scope=stream.scope,
            stream=stream.name,
            path=stream.path,
            **named,
        )

    def _reap(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._running.discard(stream)
        # If the task was cancelled before it ran.
        if stream.state is not StreamState.CLOSED:
            self._ledger.close(stream)
        # A hook of the subclass raised: what an application raises ends in _run.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _retire(
        self,
        stream: Stream,
        code: int | None,
        reason: str | None = None,
        by: By = "application",
    ) -> None:
        """Take no more frames for a stream: it has ended for the client."""
        accepted = stream.state is StreamState.OPEN
        code = code or (1000 if accepted else 4403)
        stream.ending = Ending(code, reason or "", by, accepted)
        del self._streams[stream.name]
        self._dialect.retire(stream.name)

    def _disconnect(
        self, stream: Stream, code: int, reason: str | None, by: By = "client"
    ) -> None:
        """End a stream from the client's side: it is over when its application is."""
        self._retire(stream, code, reason, by)
        stream.farewell = {"type": "websocket.close", "code": code, "reason": reason}
        stream.disconnect(code, reason)

    async def _route(self, frame: Envelope | Control) -> None:
        """Put what the client sent in the inbox of its stream."""
        if not isinstance(frame, Envelope):
            return await self._control(frame)
        stream = self._streams.get(frame.stream)
        if stream is None:
            return self._miss(frame.stream)
        data = frame.data
        if isinstance(data, str):
            key, size = "text", len(data) if data.isascii() else _utf8_length(data)
        else:
            key, size = "bytes", len(data)
        stream.frames_received += 1
        stream.bytes_received += size
        return await self._put(stream, {"type": "websocket.receive", key: data})

    def _miss(self, name: str) -> None:
        """Drop a frame for a stream that isn't open, or raise what is wrong."""
        error = self._dialect.missing(name)
        if error is not None:
            raise error

    async def _put(self, stream: Stream, message: Message) -> None:
        """Leave a message for an application, or do as overflow says."""
        try:
            stream.put_nowait(message)
        except InboxFull:
            if self.overflow == "wait" and await self._put_in_time(stream, message):
                return
            # It may have ended just as its time ran out.
            if stream.is_live:
                await self._close_stream(stream, 1013, "inbox full")

    async def _put_in_time(self, stream: Stream, message: Message) -> bool:
        """Wait for room, and return if the message was left, or its stream ended."""
        # Up to Python 3.11 wait_for() forgets that it was cancelled if there is room
        # in the same turn; then _shut_down() would wait for its reader for ever.
        put = asyncio.create_task(stream.put(message))
        try:
            await asyncio.wait({put}, timeout=self.inbox_timeout)
            return put.done()
        finally:
            put.cancel()

    async def _close_stream(self, stream: Stream, code: int, reason: str) -> None:
        self._retire(stream, code, reason, "server")
        stream.disconnect(code, reason)
        message = {"type": "websocket.close", "code": code, "reason": reason}
        await self.websocket_close(message, stream.name)

    # The applications

    async def _from_application(self, stream: Stream, message: Message) -> None:
        """Do what the application of a stream asks for: its ``send``."""
        match message.get("type"):
            case "websocket.send":
                await self._send_frame(stream, message)
            case "websocket.accept":
                if stream.state is StreamState.CONNECTING:
                    await self.websocket_accept(message, stream.name)
                    # An await has passed: the socket may have ended since.
                    if (
                        stream.state is StreamState.CONNECTING
                        and stream.name in self.applications_accepting_frames
                    ):
                        stream.accept()
                        if stream_opened.receivers:
                            await self._signal(stream_opened, stream)
            case "websocket.close":
                if stream.is_live:
                    message = _checked(message)
                    self._retire(stream, message.get("code"), message.get("reason"))
                    code = message.get("code") or 1000
                    stream.disconnect(code, message.get("reason"), drop=True)
                    await self._announce(stream, message)
            case str(kind) if kind.startswith("websocket."):
                raise ValueError(f"a stream has no messages of type {kind!r}")
            case _:
                handler = self._handler(message)
                if handler is None:
                    await self._send(message)
                else:
                    await handler(message, stream_name=stream.name)

    async def _announce(self, stream: Stream, message: Message) -> None:
        """Tell of the end that an application has asked for, whatever becomes of it."""
        # A task of its own: the application may be cancelled, by its time or by
        # itself, while the client is slow to read, and there is no second closed.
        announcement = self.websocket_close(message, stream.name)
        stream.announcement = asyncio.ensure_future(announcement)
        try:
            await asyncio.shield(stream.announcement)
        # The application has done its part, and can't mend it.
        except Exception as error:
            self._fail(error)

    async def _send_frame(self, stream: Stream, message: Message) -> None:
        if stream.state is StreamState.CONNECTING:
            raise RuntimeError("expected websocket.accept before websocket.send")
        if not self._accepted.is_set():
            await self._accepted.wait()
        # A frame that crosses the end is nobody's fault.
        if stream.state is not StreamState.OPEN:
            return
        text = message.get("text")
        if text is None:
            size = len(message["bytes"])
        else:
            # A translation may be lazy, and no str.
            if type(text) is not str:
                text = exact(text)
            size = len(text) if text.isascii() else _utf8_length(text)
        stream.frames_sent += 1
        stream.bytes_sent += size
        if self._hooks_out:
            return await self.websocket_send(message, stream.name)
        frame: Message = {"type": "websocket.send"}
        if text is not None:
            frame["text"] = stream.wrapper.text(text)
        else:
            frame["bytes"] = stream.wrapper.binary(message["bytes"])
        await self._send(frame)


def _is_unrouted(error: BaseException | None) -> bool:
    """Tell if an application is a URLRouter that knows no such path."""
    # Channels has no exception of its own for it.
    return isinstance(error, ValueError) and str(error).startswith("No route found for")


def _utf8_length(text: str) -> int:
    # A lone surrogate is no UTF-8, and travels escaped.
    return len(text.encode(errors="surrogatepass"))


def _checked(message: Message) -> Message:
    """Return a close as it goes on the wire; raise what is wrong with it first."""
    code, reason = message.get("code"), message.get("reason")
    if not isinstance(code, int | None):
        raise TypeError(f"expected an int for a close code, got {code!r}")
    # A translation may be lazy, and no str.
    if not isinstance(reason, str | Promise | None):
        raise TypeError(f"expected a str for the reason of a close, got {reason!r}")
    return message if reason is None else {**message, "reason": exact(reason)}


def fresh(consumer: Any) -> Any:
    """Return a copy of a consumer that shares no container with it."""
    new = copy.copy(consumer)
    for name, value in vars(consumer).items():
        if type(value) in (dict, list, set):
            setattr(new, name, value.copy())
    return new
