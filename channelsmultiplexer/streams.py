"""
The streams of one socket: each is started, routed to, and ended once.

How a stream ends:

==================================  =======================  =======================
who ends it                         its application          the client is told
==================================  =======================  =======================
the client, or ``send_upstream()``  is disconnected          when that has ended
the application, by closing         is disconnected, and     at once
                                    sees nothing that waits
the application, by ending          has ended                at once
a full inbox                        is disconnected          at once
the end of the socket               is disconnected          by that
==================================  =======================  =======================
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from django.dispatch import Signal
from django.urls import Resolver404
from django.utils.functional import Promise

from . import control, dialects
from .control import exact
from .envelope import Envelope
from .exceptions import InboxFull, InvalidFrame
from .signals import announce, stream_closed, stream_opened
from .stream import (
    AGAIN,
    Application,
    By,
    Ending,
    Message,
    Stream,
    StreamState,
    application_of,
    data_size,
)
from .websocket import Websocket

__all__ = ["MultiplexedWebsocket"]

logger: logging.Logger = logging.getLogger(__name__)

# What a stream ends with whose path leads nowhere.
NO_ROUTE: dict[str, Any] = {"code": 4404, "reason": "no application for this path"}


class MultiplexedWebsocket(Websocket):
    """
    A socket and the applications behind its streams: their tasks, their messages,
    their ends. What an accept and an end mean to the socket is for the subclass.
    """

    applications: Mapping[str, Any]
    application_close_timeout: float
    inbox_limit: int
    inbox_timeout: float | None
    overflow: Literal["wait", "close"]
    max_streams: int

    #: The names of the streams whose applications have accepted.
    applications_accepting_frames: set[str]

    # The streams that the client may send to, by their names on the wire.
    _streams: dict[str, Stream]

    # The streams whose tasks have not ended.
    _running: set[Stream]

    # Those of them that have ended, and of whose ends the client is being told.
    _telling: set[Stream]

    # The first exception that an application raised.
    _error: BaseException | None

    # If a subclass overrides a hook that sees what goes out. While none does, what
    # applications send is not decoded.
    _hooks_out: ClassVar[bool] = False

    # What the subclass defines

    async def websocket_accept(self, message: Message, stream_name: str) -> None:
        """Do what follows from an application's accepting."""
        raise NotImplementedError

    async def websocket_send(self, message: Message, stream_name: str) -> None:
        """Send what an application sends, if a hook is to see it."""
        raise NotImplementedError

    async def websocket_close(self, message: Message, stream_name: str) -> None:
        """Do what follows from a stream's end."""
        raise NotImplementedError

    # What the client sends

    def _set_up(self, scope: Any, send: Any) -> None:
        super()._set_up(scope, send)
        self.applications_accepting_frames = set()
        self._streams = {}
        self._running = set()
        self._telling = set()
        self._error = None

    async def _route(self, frame: Envelope | control.Control) -> None:
        if not isinstance(frame, Envelope):
            return await self._control(frame)
        stream = self._streams.get(frame.stream)
        if stream is None:
            return self._miss(frame.stream)
        stream.frames_received += 1
        stream.bytes_received += frame.size
        key = "text" if isinstance(frame.data, str) else "bytes"
        message: Message = {"type": "websocket.receive", key: frame.data}
        try:
            stream.put_nowait(message, frame.size)
        except InboxFull:
            await self._overflow(stream, message)

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
            await self._overflow(stream, message)

    async def _overflow(self, stream: Stream, message: Message) -> None:
        """Wait for room in a full inbox, or end its stream, as overflow says."""
        if self.overflow == "wait" and await self._put_in_time(stream, message):
            return
        # It may have ended just as its time ran out.
        if stream.is_live:
            close = _close(1013, "inbox full")
            self._close_stream(stream, close, "server")
            await self._announce(stream, close)

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

    async def _control(self, frame: control.Control) -> None:
        match frame:
            case control.Open():
                await self._open(frame)
            case control.Close(name, code, reason):
                if name in self._streams:
                    self._disconnect(self._streams[name], _close(code, reason))
                else:
                    self._miss(name)
            case control.Ping():
                await self._tell(control.Pong())
            # A client that was told something it doesn't know says so, too.
            case control.Pong() | control.Error():
                pass
            case _:
                detail = "expected open, close, ping or pong from a client"
                raise InvalidFrame("unknown-op", detail)

    async def _open(self, frame: control.Open) -> None:
        assert isinstance(self._dialect, dialects.V1), "only v1 has control frames"
        # Before anything is awaited: the next frame may be for this stream.
        self._dialect.reserve(frame.stream)
        ended = await self._wait_told(self.max_streams)
        if self.closing:
            return None
        name, url = dialects.resolve(frame.path, self.applications)
        # Those that have closed but whose application has not ended count too: they
        # take as much.
        if len(self._running) - ended >= self.max_streams:
            closed = control.Closed(frame.stream, 4429, "too many streams")
        elif name is None:
            closed = control.Closed(frame.stream, **NO_ROUTE)
        else:
            scope = {**self._scope(), **url, "subprotocols": frame.subprotocols}
            scope.pop("path_remaining", None)
            # Queries have secrets in them.
            path = frame.path.partition("#")[0].partition("?")[0]
            return self._start(frame.stream, path, self.applications[name], scope)
        self._ledger.refuse(closed.code)
        return await self._tell(closed)

    async def _tell(self, frame: control.Control) -> None:
        await self._send({"type": "websocket.send", "text": frame.encode()})

    # The applications

    def _start(self, name: str, path: str, value: Any, scope: dict[str, Any]) -> None:
        """Run what an entry of ``applications`` stands for behind a new stream."""
        application = application_of(path, value)
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

    def _scope(self) -> dict[str, Any]:
        """Return the scope of one application: its own dict, the same values."""
        scope = dict(self.scope)
        # A stream can be refused, but with no response: that is the socket's.
        extensions = scope.get("extensions")
        if extensions:
            scope["extensions"] = {**extensions}
            scope["extensions"].pop("websocket.http.response", None)
        return scope

    async def _run(self, stream: Stream, application: Application) -> None:
        """Run the application of a stream, and see to it that its end is known."""
        send = functools.partial(self._from_application, stream)
        error = await stream.run(application, send)
        if error is not None:
            _log(stream, error)
        if stream.is_live:
            close: Message = {"type": "websocket.close"}
            if _is_unrouted(error):
                close |= NO_ROUTE
            elif error is not None:
                self._error = self._error or error
                close["code"] = 1011
            stream.farewell = close
            self._retire(stream, close, "application")
        stream.end()
        self._ledger.close(stream)
        self._telling.add(stream)
        try:
            if stream.farewell is not None:
                await self.websocket_close(stream.farewell, stream.name)
            elif stream.announcement is not None:
                await stream.announcement
        finally:
            self._telling.discard(stream)
            if stream_closed.receivers and stream.ending.accepted:
                code, reason, by, _ = stream.ending
                ending = {"code": code, "reason": reason, "by": by}
                await self._signal(stream_closed, stream, **ending)

    def _reap(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._running.discard(stream)
        # If the task was cancelled before it ran.
        if stream.state is not StreamState.CLOSED:
            self._ledger.close(stream)
        # A hook of the subclass raised: what an application raises ends in _run.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _wait_told(self, limit: int) -> int:
        """Wait while the client has more than *limit* ends to read; return how many."""
        closed = StreamState.CLOSED
        while True:
            # These have nothing left to do but tell of an end. If nothing waited for
            # them, one that opens streams and reads nothing would have us keep all.
            tasks = {stream.task for stream in self._running if stream.state is closed}
            if len(tasks) <= limit:
                return len(tasks)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _wait_applications(self) -> None:
        while self._running:
            # Applications have their time. A server that waits for its client to read
            # may never return from being told of their ends.
            telling = set(self._telling)
            tasks = {stream.task for stream in self._running}
            timeout = max(self.application_close_timeout, AGAIN)
            await asyncio.wait(tasks, timeout=timeout)
            for stream in telling & self._telling:
                stream.kill()

    async def _cancel_applications(self) -> None:
        for stream in self._running:
            stream.kill()
            # The application's end isn't that of what it has announced.
            if stream.announcement is not None:
                stream.announcement.cancel()
        tasks = [stream.task for stream in self._running]
        await asyncio.gather(*tasks, return_exceptions=True)

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

    # What an application sends

    async def _from_application(self, stream: Stream, message: Message) -> None:
        """Do what the application of a stream asks for: its ``send``."""
        # The most frequent here, and not in a coroutine of its own.
        if message.get("type") != "websocket.send":
            return await self._obey(stream, message)
        if stream.state is StreamState.CONNECTING:
            raise RuntimeError("expected websocket.accept before websocket.send")
        if not self._accepted.is_set():
            await self._accepted.wait()
        # A frame that crosses the end is nobody's fault.
        if stream.state is not StreamState.OPEN:
            return
        if self._hooks_out:
            stream.frames_sent += 1
            stream.bytes_sent += data_size(message)
            return await self.websocket_send(message, stream.name)
        await self._send(stream.wrap(message))

    async def _obey(self, stream: Stream, message: Message) -> None:
        """Do what an application asks for that is no frame."""
        match message.get("type"):
            case "websocket.accept":
                await self._accept_stream(stream, message)
            case "websocket.close":
                if stream.is_live:
                    close = _checked(message)
                    self._close_stream(stream, close, "application", drop=True)
                    await self._announce(stream, close)
            case str(kind) if kind.startswith("websocket."):
                raise ValueError(f"a stream has no messages of type {kind!r}")
            case _:
                handler = self._handler(message)
                if handler is None:
                    await self._send(message)
                else:
                    await handler(message, stream_name=stream.name)

    async def _accept_stream(self, stream: Stream, message: Message) -> None:
        if stream.state is not StreamState.CONNECTING:
            return
        await self.websocket_accept(message, stream.name)
        # An await has passed: the socket may have ended since.
        if (
            stream.state is StreamState.CONNECTING
            and stream.name in self.applications_accepting_frames
        ):
            stream.accept()
            if stream_opened.receivers:
                await self._signal(stream_opened, stream)

    # The ends of streams

    def _retire(self, stream: Stream, close: Message, by: By) -> None:
        """Take no more frames for a stream: it has ended for the client."""
        accepted = stream.state is StreamState.OPEN
        code = close.get("code") or (1000 if accepted else 4403)
        stream.ending = Ending(code, close.get("reason") or "", by, accepted)
        del self._streams[stream.name]
        self._dialect.retire(stream.name)

    def _close_stream(
        self, stream: Stream, close: Message, by: By, *, drop: bool = False
    ) -> None:
        """Retire a stream whose application has not ended, and disconnect that."""
        self._retire(stream, close, by)
        stream.disconnect(close.get("code") or 1000, close.get("reason"), drop=drop)

    def _disconnect(self, stream: Stream, close: Message, by: By = "client") -> None:
        """End a stream from the client's side: it is over when its application is."""
        self._close_stream(stream, close, by)
        stream.farewell = close

    def _disconnect_streams(self, code: int, reason: str | None, by: By) -> None:
        for stream in list(self._streams.values()):
            self._close_stream(stream, _close(code, reason), by)

    async def _announce(self, stream: Stream, close: Message) -> None:
        """Tell of an end before the application's, whatever becomes of the caller."""
        # A task of its own: the application may be cancelled, by its time or by
        # itself, while the client is slow to read, and there is no second closed.
        announcement = self.websocket_close(close, stream.name)
        stream.announcement = asyncio.ensure_future(announcement)
        try:
            await asyncio.shield(stream.announcement)
        # The caller has done its part, and can't mend it.
        except Exception as error:
            self._fail(error)


def _is_unrouted(error: BaseException | None) -> bool:
    """Tell if an application is a URLRouter that knows no such path."""
    # Channels has no exception of its own for it: the outermost router raises a
    # ValueError, and one within another, as where a bare client's socket came by a
    # router, Django's.
    is_one = isinstance(error, (ValueError, Resolver404))
    return is_one and str(error).startswith("No route found for")


def _log(stream: Stream, error: BaseException) -> None:
    """Log what the application of a stream raised."""
    if _is_unrouted(error):
        logger.info("Stream %a has no route for its path", stream.name)
    elif isinstance(error, asyncio.CancelledError):
        logger.warning("The application of stream %a was cancelled", stream.name)
    else:
        logger.error("The application of stream %a raised", stream.name, exc_info=error)


def _close(code: int, reason: str | None) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}


def _checked(message: Message) -> Message:
    """Return a close as it goes on the wire; raise what is wrong with it first."""
    code, reason = message.get("code"), message.get("reason")
    if not isinstance(code, int | None):
        raise TypeError(f"expected an int for a close code, got {code!r}")
    # A translation may be lazy, and no str.
    if not isinstance(reason, str | Promise | None):
        raise TypeError(f"expected a str for the reason of a close, got {reason!r}")
    return message if reason is None else {**message, "reason": exact(reason)}
