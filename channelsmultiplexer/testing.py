"""
A test client that speaks streams.

::

    async with MultiplexCommunicator(application, user=user) as communicator:
        room = await communicator.open("rooms/42/")
        await room.send_json({"text": "hello"})
        assert await room.receive_json() == {"text": "hello"}
        await room.close()
        await room.wait_closed(code=1000)

It is built on neither asgiref's communicator nor Channels'. Both cancel the
application when a receive times out, and what they do after that changed with
asgiref 3.9; ``channels.testing`` can't be imported without Daphne.

What Channels' communicator does for databases is done here too: from 4.2 on a
consumer closes old connections before each message, under a test those that the
test itself needs. While any communicator is open, it doesn't.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal
from unittest import mock
from urllib.parse import unquote

from asgiref.compatibility import guarantee_single_callable

from . import control, envelope
from .exceptions import InvalidFrame, MultiplexError

__all__ = ["Ended", "MultiplexCommunicator", "Refused", "Stream"]


class Ended(MultiplexError):
    """
    A stream, or the socket, has ended, and what was awaited can't come.

    Attributes:
        what: Which stream, or the socket.

        code: The close code.

        reason: The reason, or ``""``.
    """

    def __init__(self, what: str, code: int, reason: str) -> None:
        super().__init__(what, code, reason)
        self.what = what
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} ended with {self.code}: {self.reason or 'no reason'}"


class Refused(Ended):
    """
    A stream, or the socket, has ended without having been accepted.
    """


class _Receiver:
    """What the socket and its streams have in common: something comes, then an end."""

    def __init__(self, socket: MultiplexCommunicator, label: str) -> None:
        self.subprotocol: str | None = None
        self.unread: collections.deque[Any] = collections.deque()
        self._socket = socket
        # What it is called in errors.
        self._label = label
        self._is_open = False
        # Its own code and reason, once it has ended.
        self._end: tuple[int, str] | None = None

    @property
    def closed(self) -> tuple[int, str] | None:
        """
        The code and the reason, once it has ended or the socket has.
        """
        return self._end or self._socket._end

    async def receive_nothing(self, timeout: float = 0.1) -> bool:
        """
        Wait for *timeout* seconds, and tell if nothing was there to receive. An end
        is nothing.
        """
        return not await self._comes(lambda: self.unread, timeout)

    async def wait_closed(
        self, code: int | None = None, timeout: float = 1
    ) -> tuple[int, str]:
        """
        Wait for the end, and return its code and its reason. What has not been
        received by then still can be.

        Raises:
            AssertionError: If *code* is given and isn't the one.
            TimeoutError: If there is no end in time.
        """
        await self._wait(lambda: self.closed, timeout, "its end")
        assert self.closed is not None, "that is what was awaited"
        if code not in (None, self.closed[0]):
            raise AssertionError(f"expected {code}, {Ended(self._label, *self.closed)}")
        return self.closed

    async def _receive(self, timeout: float, what: str) -> Any:
        await self._wait(lambda: self.unread, timeout, what)
        return self.unread.popleft()

    async def _wait(
        self, ready: Callable[[], object], timeout: float, what: str
    ) -> None:
        if await self._comes(ready, timeout):
            return
        if self.closed:
            raise (Ended if self._is_open else Refused)(self._label, *self.closed)
        others = [
            f"{other._label} has {list(other.unread)!r:.200}"
            for other in (self._socket, *self._socket._streams.values())
            if other is not self and other.unread
        ]
        raise TimeoutError(
            f"{self._label} waited {timeout} s for {what}; unread elsewhere: "
            f"{', '.join(others) or 'nothing'}"
        )

    async def _comes(self, ready: Callable[[], object], timeout: float) -> bool:
        """Tell if *ready* turns true before the timeout and before the end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not ready():
            self._socket._raise()
            left = deadline - loop.time()
            if self.closed or left <= 0:
                return False
            await asyncio.wait({self._socket._news}, timeout=left)
        return True


class Stream(_Receiver):
    """
    A stream, seen from the client. :meth:`MultiplexCommunicator.open` makes them.

    Sending doesn't wait and doesn't let the application run. It is allowed at any
    time, as frames cross the end of a stream on a real wire.

    Attributes:
        subprotocol: What the application accepted with (v1).

        unread: The data frames that were not received yet, oldest first.
    """

    def __init__(
        self, socket: MultiplexCommunicator, name: str, path: str | None = None
    ) -> None:
        label = f"stream {name}" if path is None else f"stream {name} ({path})"
        super().__init__(socket, label)
        self.name = name
        self._wrapper = socket._codec.wrapper(name)
        # A bare client isn't told when.
        self._is_open = not socket._is_v1

    async def send_json(self, value: Any) -> None:
        """
        Send *value* as a payload.

        Raises:
            ValueError: If it isn't JSON; a NaN is not.
        """
        await self.send_text(json.dumps(value, allow_nan=False))

    async def send_text(self, text: str) -> None:
        """
        Send a text frame: as a payload if it is JSON.
        """
        await self._socket.send_frame(self._wrapper.text(text))

    async def send_bytes(self, data: bytes) -> None:
        """
        Send a binary frame.
        """
        await self._socket.send_frame(self._wrapper.binary(data))

    async def receive_json(self, timeout: float = 1) -> Any:
        """
        Return the next payload, decoded.

        Raises:
            AssertionError: If the next frame is another text, or binary.
            Ended: If the stream ends instead; :exc:`Refused` if it never opened.
            TimeoutError: If nothing comes in time.
        """
        frame = await self._receive(timeout, "a payload")
        if not frame.is_json:
            raise AssertionError(f"expected JSON on {self._label}, got {frame.data!r}")
        return json.loads(frame.data)

    async def receive_text(self, timeout: float = 1) -> str:
        """
        Return the text of the next frame, JSON as the application wrote it. Raises
        what :meth:`receive_json` does.
        """
        text: str = await self._receive_data(str, timeout)
        return text

    async def receive_bytes(self, timeout: float = 1) -> bytes:
        """
        Return the next frame, a binary one. Raises what :meth:`receive_json` does.
        """
        data: bytes = await self._receive_data(bytes, timeout)
        return data

    async def wait_open(self, timeout: float = 1) -> None:
        """
        Wait until the application accepts.

        Raises:
            Refused: If it doesn't.
            TimeoutError: If it doesn't decide in time.
        """
        await self._wait(lambda: self._is_open, timeout, "its opening")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Ask for the end of the stream (v1).
        """
        await self._socket.send_frame(control.Close(self.name, code, reason).encode())

    async def _receive_data(self, kind: type[Any], timeout: float) -> Any:
        data = (await self._receive(timeout, kind.__name__)).data
        if not isinstance(data, kind):
            raise AssertionError(
                f"expected {kind.__name__} on {self._label}, got {data!r}"
            )
        return data


class MultiplexCommunicator(_Receiver):
    """
    A client of one socket, for ``async with``: connects, and in the end disconnects
    and waits for the application.

    Frames are sorted as they arrive, each kept until its stream is asked for it. No
    timeout and no cancelled receive cancels the application or loses a frame. What
    the application raises is raised by whatever waits next, or else in the end.

    Args:
        application: A demultiplexer, or an ASGI application that leads to one.

        path: The path and the query of the socket.

        dialect: What the client speaks.

        headers, subprotocols: What its handshake has beside the dialect's own.

        user, session: Become those of the scope.

        scope: What else shall be in the scope, or be otherwise.

        stream_key, payload_key: The demultiplexer's, if changed (bare).

    Attributes:
        subprotocol, response_headers: What the socket was accepted with.

        unread: The frames that belong to no stream and were not received yet.

    Raises:
        Refused: If the socket is refused, from ``async with``.
    """

    def __init__(
        self,
        application: Any,
        path: str = "/",
        *,
        dialect: Literal["v1", "bare"] = "v1",
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        subprotocols: Iterable[str] = (),
        user: Any = None,
        session: Any = None,
        scope: Mapping[str, Any] | None = None,
        stream_key: str = "stream",
        payload_key: str = "payload",
    ) -> None:
        super().__init__(self, "the socket")
        self.response_headers: list[tuple[bytes, bytes]] = []
        self._is_v1 = dialect == "v1"
        self._codec: envelope.V1 | envelope.Bare = (
            envelope.V1() if self._is_v1 else envelope.Bare(stream_key, payload_key)
        )
        app = guarantee_single_callable(application)  # type: ignore[no-untyped-call]
        self._application = app
        path, _, query = path.partition("?")
        self._scope: dict[str, Any] = {
            "type": "websocket",
            "path": unquote(path),
            "query_string": query.encode(),
            "headers": list(headers or ()),
            "subprotocols": [*[envelope.SUBPROTOCOL] * self._is_v1, *subprotocols],
        }
        given = {"user": user, "session": session}
        self._scope |= {key: value for key, value in given.items() if value is not None}
        self._scope |= scope or {}
        # By name; those that have ended too.
        self._streams: dict[str, Stream] = {}
        # The number of streams that open_nowait() has made.
        self._opened = 0
        self._input: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None]
        # Done, and replaced, when something has happened.
        self._news: asyncio.Future[None]
        # If the test has seen what the application raised.
        self._has_raised = False

    async def __aenter__(self) -> MultiplexCommunicator:
        _connections.keep()
        self._news = asyncio.get_running_loop().create_future()
        # In a context of its own, as under a server: not in the test's.
        self._task = contextvars.Context().run(
            asyncio.create_task,
            self._application(self._scope, self._input.get, self._from_application),
        )
        self._task.add_done_callback(self._on_return)
        try:
            self._put({"type": "websocket.connect"})
            await self._wait(lambda: self._is_open, 1, "an answer")
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            await self.disconnect()
        except Exception:
            # The test's own error says more.
            if error is None:
                raise
        finally:
            _connections.release()

    async def open(
        self, path: str, subprotocols: Iterable[str] = (), timeout: float = 1
    ) -> Stream:
        """
        Open a stream, and wait until its application has accepted it.

        A bare client opens none: *path* is the name of one that the server opened,
        and nothing is awaited.

        Raises:
            Refused: If the stream is refused.
            TimeoutError: If its application doesn't decide in time.
        """
        if not self._is_v1:
            return self.stream(path)
        stream = self.open_nowait(path, subprotocols)
        await stream.wait_open(timeout)
        return stream

    def open_nowait(self, path: str, subprotocols: Iterable[str] = ()) -> Stream:
        """
        Open a stream: the first is called ``"1"``. It can be sent to at once (v1).
        """
        self._opened += 1
        name = str(self._opened)
        stream = self._streams[name] = Stream(self, name, path)
        self._put_frame(control.Open(name, path, list(subprotocols)).encode())
        return stream

    def stream(self, name: str) -> Stream:
        """
        Return the stream called *name* on the wire, and keep its frames for it from
        now on. Nothing is sent.
        """
        if name not in self._streams:
            self._streams[name] = Stream(self, name)
        return self._streams[name]

    async def send_frame(self, frame: Mapping[str, Any] | str | bytes) -> None:
        """
        Send a frame as it is, good or bad; a mapping as JSON.
        """
        if isinstance(frame, Mapping):
            frame = json.dumps(frame)
        self._put_frame(frame)

    async def receive_frame(self, timeout: float = 1) -> Any:
        """
        Return the next frame that belongs to no stream, decoded if it is JSON:
        ``hello``, ``error``, ``pong``, or what no stream may be sent, such as data
        after its ``closed``.

        Raises:
            Ended: If the socket closes instead.
            TimeoutError: If none comes in time.
        """
        return await self._receive(timeout, "a frame")

    async def disconnect(self, code: int = 1000, timeout: float = 10) -> None:
        """
        Close the socket, if it isn't, and wait until the application has ended.

        Raises:
            TimeoutError: If it has not in time. It is cancelled then.
        """
        self._close(code, "")
        if not (await asyncio.wait({self._task}, timeout=timeout))[0]:
            # A demultiplexer takes the first for its server's shutdown, and waits.
            while not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=0.1)
            raise TimeoutError(
                f"the application had not ended {timeout} s after its "
                "websocket.disconnect and was cancelled"
            )
        if not self._has_raised:
            self._raise()

    # Private

    def _put(self, message: dict[str, Any]) -> None:
        self._raise()
        self._input.put_nowait(message)

    def _put_frame(self, frame: str | bytes) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        self._put({"type": "websocket.receive", key: frame})

    def _raise(self) -> None:
        """Raise what the application raised, if it did."""
        if self._task.done() and not self._task.cancelled():
            self._has_raised = self._task.exception() is not None
            self._task.result()

    def _close(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = code, reason
            self._input.put_nowait({"type": "websocket.disconnect", "code": code})

    def _on_return(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._close(1006, "the application returned")
        self._tell()

    def _tell(self) -> None:
        self._news.set_result(None)
        self._news = self._news.get_loop().create_future()

    async def _from_application(self, message: Mapping[str, Any]) -> None:
        """Take what the application sends: its ``send``."""
        match message["type"]:
            # Where it crosses the end, a server drops it.
            case _ if self._end is not None:
                return
            case "websocket.accept" if not self._is_open:
                self._is_open = True
                self.subprotocol: str | None = message.get("subprotocol")
                self.response_headers = list(message.get("headers") or ())
            case "websocket.send" if self._is_open:
                text = message.get("text")
                self._sort(message["bytes"] if text is None else text)
            case "websocket.close":
                self._close(message.get("code") or 1000, message.get("reason") or "")
            case kind:
                raise RuntimeError(f"a server allows no {kind!r} now")
        self._tell()

    def _sort(self, frame: str | bytes) -> None:
        """Keep a frame for the stream it belongs to, or for receive_frame()."""
        try:
            content = self._codec.decode(frame)
        except InvalidFrame:
            content = control.Pong()
        if isinstance(content, envelope.Envelope) and not self._is_v1:
            stream: Stream | None = self.stream(content.stream)
        else:
            stream = self._streams.get(getattr(content, "stream", None) or "")
        # Neither before it opens nor after it has ended may anything come.
        is_open = stream is not None and stream._is_open and stream._end is None
        match content:
            case envelope.Envelope() if stream and is_open:
                stream.unread.append(content)
            case control.Opened() if stream and not (is_open or stream._end):
                stream._is_open = True
                stream.subprotocol = content.subprotocol
            case control.Closed() if stream and not stream._end:
                stream._end = content.code, content.reason
            case _:
                self.unread.append(_decode(frame))


def _no_op() -> None:
    """Stand in for ``close_old_connections``."""


class _Connections:
    """
    Keeps Channels from closing the database's connections. It counts, so that
    communicators which are open at once may end in any order, as nested patches
    may not.
    """

    def __init__(self) -> None:
        self._kept = 0
        self._patch = mock.patch("channels.db.close_old_connections", _no_op)

    def keep(self) -> None:
        if not self._kept:
            self._patch.start()
        self._kept += 1

    def release(self) -> None:
        self._kept -= 1
        if not self._kept:
            self._patch.stop()


_connections = _Connections()


def _decode(frame: str | bytes) -> Any:
    try:
        return frame if isinstance(frame, bytes) else json.loads(frame)
    except ValueError:
        return frame
