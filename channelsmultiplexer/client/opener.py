"""
What opens a link: it asks where to, shakes hands, and lets the caller log in.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import ssl as _ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..exceptions import Closed
from .link import Link
from .processors import outcome
from .transports import CallbackError, Transport, drop

__all__ = ["Opener"]

# The attempt that a callback runs in.
_attempt: contextvars.ContextVar[object] = contextvars.ContextVar(
    "_attempt", default=None
)


class Opener:
    """
    Opens the links of one connection.

    Args:
        transport: What shakes hands.

        options: The transport's.

        new_link: Makes a link of what the transport returned.

        uri: This and all others as of :class:`.Connection`.

    Attributes:
        required: A subprotocol without which a link is of no use.
    """

    def __init__(
        self,
        transport: Transport,
        options: Mapping[str, Any],
        new_link: Callable[[Any], Link],
        *,
        uri: Any,
        headers: Any,
        ssl: _ssl.SSLContext | None,
        verify_ssl: bool,
        on_connect: Callable[[Link], Awaitable[object]] | None,
    ) -> None:
        if ssl is not None and not verify_ssl:
            raise ValueError("expected ssl or verify_ssl=False, got both")
        self.uri = uri
        self.required: str | None = None
        self._transport = transport
        self._options = options
        self._new_link = new_link
        self._headers = headers
        self._ssl, self._verifies = ssl, verify_ssl
        self._on_connect = on_connect
        # The attempts there are now.
        self._attempts: set[object] = set()

    async def open(self) -> Link:
        """
        Open a link, in one attempt.

        Raises:
            CallbackError: If a function of the caller's raised.
            Exception: Whatever the transport raises.
        """
        attempt = object()
        self._attempts.add(attempt)
        token = _attempt.set(attempt)
        try:
            uri = await _answer(self.uri)
            headers = await _answer(self._headers)
            options = {"additional_headers": headers, **self._options}
            if self._ssl is not None:
                options["ssl"] = self._ssl
            # Elsewhere there is no certificate.
            elif not self._verifies and uri.lower().startswith("wss:"):
                options["ssl"] = _trusting()
            websocket = await self._connect(uri, options)
            try:
                link = self._new_link(websocket)
                await self._greet(link)
            except BaseException:
                await drop(websocket)
                raise
            return link
        finally:
            self._attempts.discard(attempt)
            _attempt.reset(token)

    def refuse_inside(self) -> None:
        """
        Raise where a callback would wait for the link that waits for the callback.
        """
        if _attempt.get() in self._attempts:
            raise RuntimeError("expected the link's send() here: it isn't used yet")

    async def _connect(self, uri: Any, options: Mapping[str, Any]) -> Any:
        """
        Return a WebSocket in time, or leave none.

        picows doesn't count the time in which the network connects, and a transport
        can swallow a cancellation: before Python 3.12 asyncio.wait_for() does.
        """
        connecting = asyncio.ensure_future(self._transport.connect(uri, **options))
        timeout = options["open_timeout"]
        in_time = False
        try:
            await asyncio.wait({connecting}, timeout=timeout)
            in_time = connecting.done()
        finally:
            connecting.cancel()
            await asyncio.wait({connecting})
            has_ended = not connecting.cancelled() and connecting.exception() is None
            if has_ended and not in_time:
                await drop(connecting.result())
        if not in_time:
            raise TimeoutError(f"no handshake in {timeout} s")
        return connecting.result()

    async def _greet(self, link: Link) -> None:
        """See that a link is of use, and let on_connect have it."""
        if self.required not in (None, link.websocket.subprotocol):
            raise Closed(1002, f"the server doesn't speak {self.required}")
        on_connect = self._on_connect
        if on_connect is None:
            return

        async def log_in() -> None:
            await on_connect(link)

        async def greet() -> None:
            await outcome(log_in())

        task = asyncio.create_task(greet())
        try:
            timeout = self._options["open_timeout"]
            done, _ = await asyncio.wait({task}, timeout=timeout)
        finally:
            task.cancel()
            await asyncio.wait({task})
        if not done:
            raise TimeoutError("on_connect took too long")
        error = task.exception()
        if isinstance(error, Exception):
            raise CallbackError(error) from error
        task.result()


async def _answer(value: Any) -> Any:
    """Return *value*, or what it returns if it is a function."""

    async def ask() -> Any:
        answer = value() if callable(value) else value
        return await answer if inspect.isawaitable(answer) else answer

    try:
        # A function that isn't awaited can raise that it was canceled, too.
        return await outcome(ask())
    except Exception as error:
        raise CallbackError(error) from error


def _trusting() -> _ssl.SSLContext:
    """Return a context that trusts any certificate."""
    context = _ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = _ssl.CERT_NONE
    return context
