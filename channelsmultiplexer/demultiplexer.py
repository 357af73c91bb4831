"""
The server's end of a socket: one WebSocket in, many applications out.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, cast

from channels.consumer import get_handler_name

from . import control, dialects, envelope
from .exceptions import InvalidFrame, excerpt
from .stats import Stats
from .stream import Message
from .streams import MultiplexedWebsocket

__all__ = ["AsyncJsonWebsocketDemultiplexer"]

logger: logging.Logger = logging.getLogger(__name__)


class AsyncJsonWebsocketDemultiplexer(MultiplexedWebsocket):
    """
    Serves each stream of a WebSocket by an application of its own.

    Name the applications in a subclass::

        class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
            applications = {
                "chat": ChatConsumer.as_asgi(),
                "metrics": MetricsConsumer.as_asgi(),
            }

    or where it is mounted: ``AsyncJsonWebsocketDemultiplexer.as_asgi(chat=...)``.
    An instance is an ASGI application too, for any number of sockets.

    To an application its stream is a WebSocket of its own. Whatever it does there
    (refuse, close, raise, hang) ends its own stream and touches no other.

    Args:
        applications: Applications by name, beside those of the class. They are
            this instance's and appear on no other.
    """

    #: Applications by name. A value is an ASGI application, a Channels consumer's
    #: class, or a consumer, of which each socket gets a fresh copy.
    applications: Mapping[str, Any] = {}

    #: Seconds that an application has to end after its ``websocket.disconnect``.
    #: Keep it below 10: then Daphne cancels the whole socket.
    application_close_timeout: float = 5

    #: How many bad frames it takes to have the socket closed with 4400.
    max_invalid_frames: int = 100

    #: Bytes that the messages waiting for one application may take, text in UTF-8
    #: and about 200 more for each. In memory, text that isn't ASCII can take up to
    #: four times as much. A larger message is taken when nothing else waits.
    inbox_limit: int = 2**20

    #: What becomes of a frame that doesn't fit in its stream's inbox. ``"wait"``:
    #: the socket is not read until it does. Nothing is lost, and the server can
    #: push back on the client (Daphne can't), but the other streams wait as well.
    #: ``"close"``: that stream alone ends, with 1013.
    overflow: Literal["wait", "close"] = "wait"

    #: Seconds that ``overflow = "wait"`` waits. An application that makes no room
    #: for so long hangs, and would keep the others from their frames and from the
    #: socket's end; its stream ends with 1013. :obj:`None` waits for ever.
    inbox_timeout: float | None = 30

    #: The key that names a frame's stream, for bare clients that use another.
    stream_key: str = "stream"

    #: The key of a frame's payload, likewise.
    payload_key: str = "payload"

    #: When a bare client's socket is accepted. ``"first"``: with the first
    #: application that accepts; it is refused once all have refused. ``"all"``:
    #: once all have accepted; it is refused as soon as one refuses.
    accept_when: Literal["first", "all"] = "first"

    #: How many streams a v1 client may have at once.
    max_streams: int = 100

    #: Seconds of silence after which a v1 client is to ask for a ``pong``.
    heartbeat: float = 25

    # The accept message of the first application that accepted.
    _first_accept: Message | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._hooks_in = _overrides(
            cls,
            "websocket_receive",
            "receive",
            "receive_json",
            "decode_json",
            "encode_json",
        )
        cls._hooks_out = _overrides(
            cls, "websocket_send", "send_json", "send", "decode_json", "encode_json"
        )
        cls._has_handlers = any(
            inspect.iscoroutinefunction(inspect.getattr_static(cls, name))
            for name in dir(cls)
            if not name.startswith("_")
            and not hasattr(AsyncJsonWebsocketDemultiplexer, name)
        )

    def __init__(self, /, **applications: Any) -> None:
        super().__init__()
        self.applications = {**type(self).applications, **applications}
        # Of an instance too: Demultiplexer(chat=...).as_asgi(). Not assigned as an
        # attribute, which mypy, without types-channels, takes for all there is.
        vars(self)["as_asgi"] = functools.partial(type(self).as_asgi, **applications)

    @classmethod
    def stats(cls) -> Stats:
        """
        Return what this class has carried in this process, its subclasses not
        included. Any thread may ask; it costs about a microsecond for each stream
        that is open.
        """
        return cls._ledger.stats()

    # Hooks on the way in

    async def websocket_connect(self, message: Any) -> None:
        """
        Start the applications, unless :meth:`connect` has closed the socket. For a
        v1 client, who starts them one by one, accept it instead.

        Override it to change ``self.scope`` before the applications see it, or to
        ``await self.close(code)`` instead of calling ``super()``.
        """
        await super().websocket_connect(message)
        if self.closing:
            return
        if isinstance(self._dialect, dialects.V1):
            await self.accept()
            await self._tell(control.Hello(self.heartbeat, self.max_streams))
            return
        for name, value in self.applications.items():
            # The application named "" is for the v1 dialect.
            if name:
                self._start(name, name, value, self._scope())
        if not self._streams:
            logger.warning("%s has no applications", type(self).__qualname__)
            await self.close()

    async def connect(self) -> None:
        """
        Decide if the socket may open; the applications decide about streams.

        Override it to ``await self.close(code)``, or to raise
        :exc:`channels.exceptions.DenyConnection`. By default it may.
        """

    async def websocket_receive(self, message: Any) -> None:
        """
        Hand a frame to :meth:`receive`.

        Raises:
            InvalidFrame: If it is a bad frame.
        """
        text = message.get("text")
        if text is None:
            await self.receive(bytes_data=message["bytes"])
        else:
            await self.receive(text_data=text)

    async def receive(
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Hand the content of a text frame to :meth:`receive_json`; route a binary
        frame to its stream.

        Raises:
            InvalidFrame: If it is a bad frame.
        """
        codec = self._dialect.codec
        if text_data is None:
            await self._route(codec.decode(cast(bytes, bytes_data)))
            return
        try:
            content = await self.decode_json(text_data)
        except (ValueError, RecursionError) as error:
            detail = f"expected JSON, got {excerpt(text_data)}: {error}"
            raise InvalidFrame("invalid-json", detail) from error
        frame = codec.control(content)
        if frame is not None:
            await self._route(frame)
        else:
            await self.receive_json(content, **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Route the payload, or the text, of an envelope to its stream.

        Args:
            content: The whole envelope, decoded.

        Raises:
            InvalidFrame: If *content* is no envelope, or its stream is not open.
        """
        stream, value, is_json = self._dialect.codec.unwrap(content)
        text = await self.encode_json(value) if is_json else value
        size = envelope.utf8_size(text)
        await self._route(envelope.Envelope(stream, text, is_json, size))

    async def invalid_frame(self, error: InvalidFrame) -> None:
        """
        Answer a bad frame: tell the client, log it, and count it.

        Override it to decide otherwise; ``raise error`` ends the socket and the
        application, as 0.0.3 did.
        """
        self._invalid_frames += not error.late
        logger.warning("%s", error)
        text = self._dialect.codec.error(error)
        await self._send({"type": "websocket.send", "text": text})
        if self._invalid_frames >= self.max_invalid_frames:
            await self.close(4400, "too many invalid frames")

    async def websocket_disconnect(self, message: Any) -> None:
        """
        Disconnect every application, and wait for them in :meth:`disconnect`.
        """
        # Hypercorn says 1000, whatever the code that the socket was closed with.
        code = self._close_code or message.get("code", 1005)
        self._end_socket(code, message.get("reason"))
        await super().websocket_disconnect(message)

    async def disconnect(self, code: int) -> None:
        """
        Wait until every application has ended or its time is up.
        """
        await self._wait_applications()

    async def send_upstream(
        self, message: Message, stream_name: str | None = None
    ) -> None:
        """
        Send a message to the application of one stream, or of all.

        Waits while an inbox is full, or ends that stream, as :attr:`overflow` says.
        Canceling it while it waits sends nothing to that stream.

        Raises:
            InvalidFrame: If there is no such stream.
        """
        if stream_name is None:
            streams = list(self._streams.values())
        elif stream_name in self._streams:
            streams = [self._streams[stream_name]]
        else:
            detail = f"expected an open stream, got {excerpt(stream_name)}"
            raise InvalidFrame("unknown-stream", detail, stream_name)
        for stream in streams:
            if not stream.is_live:
                # It has ended while another was waited for.
                continue
            if message["type"] == "websocket.disconnect":
                # An application gets one, and no message after it.
                close = {**message, "type": "websocket.close"}
                self._disconnect(stream, close, "server")
            else:
                await self._put(stream, message)

    # Hooks on the way out

    async def websocket_accept(self, message: Message, stream_name: str) -> None:
        """
        Note that an application accepts. Tell a v1 client; accept the socket of a
        bare one if :attr:`accept_when` says so, with the subprotocol and the
        headers of the first that accepted.

        An override that doesn't call ``super()`` accepts the stream by adding it
        to ``self.applications_accepting_frames``.
        """
        # An override may have waited, and the stream have ended.
        if stream_name not in self._streams:
            return
        accepting = self.applications_accepting_frames
        is_new = stream_name not in accepting
        accepting.add(stream_name)
        if isinstance(self._dialect, dialects.V1):
            # The application may accept again while the first time waits.
            if is_new:
                opened = control.Opened(stream_name, message.get("subprotocol"))
                await self._tell(opened)
            return
        first = self._first_accept = self._first_accept or message
        if self.accept_when == "all" and self._streams.keys() - accepting:
            return
        try:
            await self.accept(first.get("subprotocol"), first.get("headers"))
        except Exception:
            # This application hasn't accepted, and the next may.
            accepting.discard(stream_name)
            self._first_accept = None
            raise

    async def websocket_send(self, message: Message, stream_name: str) -> None:
        """
        Send what an application sends, in an envelope, by :meth:`send_json`.
        """
        # An override may have waited, and the stream have ended.
        if stream_name not in self._streams:
            return
        codec = self._dialect.codec
        text = message.get("text")
        if text is None:
            frame = codec.wrapper(stream_name).binary(message["bytes"])
            await self.send(bytes_data=frame)
            return
        content: dict[str, Any] = {codec.stream_key: stream_name}
        if envelope.is_json(text):
            content[codec.payload_key] = await self.decode_json(text)
        else:
            content["text"] = text
        await self.send_json(content)

    async def websocket_close(self, message: Message, stream_name: str) -> None:
        """
        Note that a stream has ended. Tell a v1 client; close the socket of a bare
        one if no stream is left, or refuse it if all have refused.

        It is called once a stream, also when the application returned, or raised
        (then the code is 1011).
        """
        accepted = stream_name in self.applications_accepting_frames
        self.applications_accepting_frames.discard(stream_name)
        if isinstance(self._dialect, dialects.V1):
            code = message.get("code") or (1000 if accepted else 4403)
            reason = message.get("reason") or ""
            await self._tell(control.Closed(stream_name, code, reason))
            return
        can_refuse = self.accept_when == "all" and not self._accept_sent
        # Those that have not decided yet may accept.
        if self._streams and not can_refuse:
            return
        if self._error is not None and not self._accept_sent:
            self._fail(self._error)
        else:
            await self.close(message.get("code"), message.get("reason"))

    # Private

    def _handler(self, message: Message) -> Callable[..., Awaitable[None]] | None:
        # The type comes from an application or from the channel layer, and must
        # reach nothing but what the subclass has for it.
        name = get_handler_name(message)
        if not hasattr(self, name):
            return None
        handler = getattr(type(self), name, None)
        if hasattr(AsyncJsonWebsocketDemultiplexer, name) or not callable(handler):
            raise ValueError(f"{name} is no handler for {message['type']!a}")
        return cast(Callable[..., Awaitable[None]], getattr(self, name))


def _overrides(cls: type, *names: str) -> bool:
    return any(
        inspect.getattr_static(cls, name)
        is not inspect.getattr_static(AsyncJsonWebsocketDemultiplexer, name)
        for name in names
    )
