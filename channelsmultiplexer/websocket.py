"""
The real WebSocket: read in one loop, written by many, accepted and ended once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer

from . import dialects
from .control import Control
from .envelope import SUBPROTOCOL, Envelope
from .exceptions import InvalidFrame
from .stats import Ledger
from .stream import UNKNOWN, By, Ending, Message, fresh

__all__ = ["Websocket"]

logger: logging.Logger = logging.getLogger(__name__)


class Websocket(AsyncJsonWebsocketConsumer):
    """
    A socket, and nothing of its streams but that they end with it.
    """

    stream_key: str
    payload_key: str

    #: The scope of the socket; each application gets a copy of its own.
    scope: Any

    #: If the socket is closed, by either side, or about to be.
    closing: bool

    # Its channel in the channel layer, if its class takes what comes from there.
    channel_name: str

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

    # How the socket ended, as far as its applications know.
    _ending: Ending = UNKNOWN

    # Done when the socket has failed elsewhere than in a reader.
    _failure: asyncio.Future[BaseException]

    # The server's send.
    _socket_send: Callable[[Message], Awaitable[None]]

    # If a subclass overrides a hook that sees what comes in. While none does, frames
    # are not decoded beyond the envelope.
    _hooks_in: ClassVar[bool] = False

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
        :attr:`application_close_timeout` seconds to end, and as much to what tells
        of their ends, and then goes on; a second cancellation cancels them.

        Raises:
            Exception: What an application raised, if all refused the socket; what
                a hook of a subclass raised.
        """
        # State is per socket, and one instance may serve many.
        socket = fresh(self)
        socket._set_up(scope, send)
        with self._ledger.serving(socket):
            await socket._serve(receive)

    async def accept(self, subprotocol: Any = None, headers: Any = None) -> None:
        """
        Accept the socket, if it hasn't been. A v1 client's gets the subprotocol of
        the dialect.
        """
        if self._accept_sent or self.closing:
            return
        self._accept_sent = True
        if isinstance(self._dialect, dialects.V1):
            subprotocol = SUBPROTOCOL
        elif subprotocol not in (None, *self.scope.get("subprotocols", ())):
            # Servers fail the handshake for it, and with it all other streams.
            logger.warning("The client did not offer subprotocol %a", subprotocol)
            subprotocol = None
        try:
            await super().accept(subprotocol, headers)
        except Exception:
            # The server didn't take it, and may take another's.
            self._accept_sent = False
            raise
        finally:
            # Also when it is cancelled: a server that waits has the message.
            if self._accept_sent:
                self._accepted.set()

    async def close(self, code: Any = None, reason: str | None = None) -> None:
        """
        Close the socket, or refuse it, if it hasn't been.

        Args:
            code: 1000 or 3000 to 4999. Daphne allows no other, so any other
                becomes 1000 if it tells of a normal end, and else 4500.

            reason: What is beyond 123 bytes of UTF-8 is cut off; Daphne drops it.
        """
        if self.closing:
            return
        # First what may raise: a socket that is said to be closing is never closed.
        self._close_code = _socket_code(code)
        reason = reason and _socket_reason(reason)
        self.closing = True
        self._accepted.set()
        await super().close(self._close_code, reason)

    # What the subclass defines

    async def invalid_frame(self, error: InvalidFrame) -> None:
        """Decide what a bad frame gets."""
        raise NotImplementedError

    async def _route(self, frame: Envelope | Control) -> None:
        """Do what a frame says."""
        raise NotImplementedError

    def _handler(self, message: Message) -> Callable[..., Awaitable[None]] | None:
        """Return the subclass's handler for a message of its own type, if any."""
        raise NotImplementedError

    def _disconnect_streams(self, code: int, reason: str | None, by: By) -> None:
        """End every stream: the client is gone."""
        raise NotImplementedError

    async def _wait_applications(self) -> None:
        """Wait until every application has ended; each has its time."""
        raise NotImplementedError

    async def _cancel_applications(self) -> None:
        """Cancel every application that has not ended, and wait for it."""
        raise NotImplementedError

    # Private

    def _set_up(self, scope: Any, send: Any) -> None:
        self.scope = {**scope, "demultiplexer_cls": type(self)}
        self.closing = False
        self._close_code = None
        if SUBPROTOCOL in scope.get("subprotocols", ()):
            self._dialect = dialects.V1()
        else:
            self._dialect = dialects.Bare(self.stream_key, self.payload_key)
        self._invalid_frames = 0
        self._accept_sent = False
        self._accepted = asyncio.Event()
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
        self._disconnect_streams(code, reason, by)

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
            await self._cancel_applications()
            await asyncio.gather(*readers, return_exceptions=True)
            # Channels leaves them at the disconnect only, which may not have come.
            if self.channel_layer is not None:
                for group in self.groups:
                    await self.channel_layer.group_discard(group, self.channel_name)


def _socket_code(code: Any) -> int | None:
    if code is None or code is True:
        return None
    if code in (1000, 1001, 1005):
        return 1000
    return code if 3000 <= code <= 4999 else 4500


def _socket_reason(reason: str) -> str:
    # RFC 6455, 5.5: what fits in a close frame. Uvicorn raises if it doesn't.
    return reason.encode(errors="replace")[:123].decode(errors="ignore")
