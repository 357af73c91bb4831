"""
One link to Redis, from its login to its end.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
from typing import Any, cast

import hiredis

from ..exceptions import RedisUnavailable
from .address import Address, Login
from .deadline import wait_for
from .registry import CHANNEL, Command, Registry, Route

__all__ = ["Connection", "connect", "unavailable"]

# How much is read at once. With 256 kB, as asyncio reads by itself, a message costs
# a sixth more CPU: replies that wait leave the processor's cache.
BUFFER = 64 * 1024

# Where messages belong that nobody wants any more.
NOBODY = Route(CHANNEL, b"")

# What a message takes beside its data: the list of three or four byte strings.
MESSAGE_OVERHEAD = 240


class Connection(asyncio.BufferedProtocol):
    """
    Reads all that Redis sends, as it comes, and leaves it where it belongs.

    It runs no user code and never stops reading: to a reader that stops, Redis
    stops sending by closing the connection, for everybody.

    Args:
        registry: Knows the names, and hears what Redis answers.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(BUFFER)
        self._reader: Any = hiredis.Reader()
        self._transport: asyncio.Transport
        # What was asked and not answered; Redis answers in order.
        self._expected: collections.deque[asyncio.Future[Any] | Command] = (
            collections.deque()
        )
        # If anything came since the idle timer last looked.
        self._heard = False
        self._timer: asyncio.TimerHandle | None = None
        # Why the link ended, once it has.
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        # The version of the protocol: 3 can publish on a link that subscribes.
        self.version: int = 2
        # If the last read took as much as it could, so that more is probably there.
        self.is_more_there: bool = False

    async def login(self, login: Login) -> None:
        """
        Say who we are.

        Raises:
            hiredis.ReplyError: If Redis refuses.
            RedisUnavailable: If the link ends first.
        """
        # What follows runs outside of the handler of HELLO's error: Redis may have
        # repeated the command in it, password and all, for a traceback to show.
        if await self._hello(login):
            self.version = 3
        else:
            if login.username or login.password:
                username = (login.username,) if login.username else ()
                await self.call("AUTH", *username, login.password or "")
            if login.client_name:
                await self.call("CLIENT", "SETNAME", login.client_name)
        if login.db:
            await self.call("SELECT", str(login.db))

    def call(self, *words: str | bytes) -> asyncio.Future[Any]:
        """
        Send a command, and return the future of its one answer.
        """
        answer = self._loop.create_future()
        if self.lost.done():
            answer.set_exception(unavailable(self.lost.result()))
        else:
            self._expected.append(answer)
            self._transport.write(_packed(words))
        return answer

    def send(self, commands: list[Command]) -> None:
        """
        Send commands that subscribe or unsubscribe.
        """
        if commands and not self.lost.done():
            self._expected.extend(commands)
            packed = [_packed(command.words()) for command in commands]
            self._transport.write(b"".join(packed))

    def watch(self, interval: float, timeout: float) -> None:
        """
        From now on, make sure that an idle link is alive.

        Args:
            interval: Seconds of silence before Redis is asked.

            timeout: Seconds of silence after that, that end the link.
        """
        if self._heard:
            self._heard = False
            self._timer = self._loop.call_later(interval, self.watch, interval, timeout)
        else:
            self.call("PING").add_done_callback(_retrieve)
            self._timer = self._loop.call_later(
                timeout, self._expire, interval, timeout
            )

    def abort(self, error: Exception) -> None:
        """
        End the link now. What it still expects fails.
        """
        if not self.lost.done():
            # The server hears of it now, whatever becomes of the event loop.
            self._hang_up()
            self._transport.abort()
            self.connection_lost(error)

    def detach(self, *, hang_up: bool) -> None:
        """
        Let go of the link outside of its event loop.

        Args:
            hang_up: If the server shall hear of it.
        """
        if hang_up and not self.lost.done():
            self._hang_up()

    async def aclose(self, timeout: float = 1.0) -> None:
        """
        End the link, and wait until Redis has done so, too.
        """
        if not self.lost.done():
            self.call("QUIT").add_done_callback(_retrieve)
            try:
                await asyncio.wait([self.lost], timeout=timeout)
            finally:
                self.abort(ConnectionResetError("closed here"))

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link is there."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self._heard = True
        self.is_more_there = nbytes == len(self._buffer)
        try:
            self._reader.feed(self._buffer, 0, nbytes)
            self._read()
        # Not Redis, or not in step with what was asked.
        except (hiredis.ProtocolError, AssertionError) as error:
            self.abort(error)

    def eof_received(self) -> None:
        """Redis ends the link."""
        self.connection_lost(ConnectionResetError("Redis closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The link has ended; whatever is expected fails."""
        if self.lost.done():
            return
        error = exc or ConnectionResetError("the connection is closed")
        self.lost.set_result(error)
        # Redis has closed it, but Python 3.10 warns of TLS that we don't close.
        self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
        for expected in self._expected:
            if isinstance(expected, asyncio.Future) and not expected.done():
                expected.set_exception(unavailable(error))
        self._expected.clear()

    # Private

    async def _hello(self, login: Login) -> bool:
        """Log in by the newer protocol; return if Redis knows it."""
        auth: tuple[str, ...] = ()
        # A user who needs no password may be named, too.
        if login.username or login.password:
            auth = ("AUTH", login.username or "default", login.password or "")
        name = ("SETNAME", login.client_name) if login.client_name else ()
        try:
            await self.call("HELLO", "3", *auth, *name)
        except hiredis.ReplyError as error:
            said = str(error)
            # Redis 5 has no HELLO, and a proxy may not know it: what they say is
            # an ERR, or that AUTH comes first.
            unknown = ("ERR", "NOPROTO", "NOPERM", *(("NOAUTH",) if auth else ()))
            if not said.startswith(unknown) or "max number of clients" in said:
                raise
            return False
        return True

    def _hang_up(self) -> None:
        peer = self._transport.get_extra_info("socket")
        # uvloop has closed it with its event loop.
        if peer is None:
            return
        # By a socket of our own: uvloop's has no shutdown().
        with (
            contextlib.suppress(OSError),
            socket.fromfd(peer.fileno(), peer.family, peer.type) as own,
        ):
            own.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        gets = self._reader.gets
        channels = self._registry.channels.get
        patterns = self._registry.patterns.get
        while (reply := gets()) is not False:
            kind = reply[0] if isinstance(reply, list) else None
            if kind == b"message":
                route = channels(reply[1], NOBODY)
            elif kind == b"pmessage":
                route = patterns(reply[1], NOBODY)
            else:
                self._answer(reply)
                continue
            # What comes before the activation belongs to nobody who listens now.
            if not route.active:
                continue
            size = MESSAGE_OVERHEAD + len(reply[-1])
            for listener in route.listeners:
                waiting = listener.waiting
                # As put() does. The call would be half of what a delivery costs.
                if waiting and (room := listener.room - size) >= 0:
                    listener.room = room
                    waiting.append(reply)
                else:
                    listener.put(reply, size)

    def _answer(self, reply: Any) -> None:
        failed = isinstance(reply, hiredis.ReplyError)
        if failed and not self._expected:
            # A server that has too many clients says so before it is asked.
            self.abort(reply)
            return
        assert self._expected, "Redis answers what it was asked"
        expected = self._expected[0]
        if isinstance(expected, Command):
            if failed:
                self._expected.popleft()
                self.send(self._registry.refused(expected, str(reply)))
                return
            name = expected.routes[expected.answered].name
            assert reply[1] == name, "Redis answers in the order it was asked"
            if expected.answered + 1 == len(expected.routes):
                self._expected.popleft()
            self._registry.acknowledged(expected)
        else:
            self._expected.popleft()
            if expected.done():
                return
            if failed:
                expected.set_exception(reply)
            else:
                expected.set_result(reply)

    def _expire(self, interval: float, timeout: float) -> None:
        if self._heard:
            self.watch(interval, timeout)
        else:
            self.abort(TimeoutError(f"Redis is silent, {timeout} seconds after PING"))


async def connect(address: Address, registry: Registry, timeout: float) -> Connection:
    """
    Open a link and log in, all within *timeout* seconds.

    Canceling :func:`connect` leaves no link.

    Raises:
        RedisUnavailable: If it doesn't come about, from the error that says why.
    """
    connection = Connection(registry)

    async def open_and_log_in() -> None:
        await address.connect(lambda: connection)
        await connection.login(await address.login())

    try:
        await wait_for(open_and_log_in(), timeout)
    except BaseException as error:
        if hasattr(connection, "_transport"):
            connection.abort(ConnectionAbortedError("the login failed"))
        if isinstance(error, asyncio.TimeoutError):
            error = TimeoutError(f"no login within {timeout} seconds")
        if isinstance(error, Exception):
            failure = unavailable(error)
            raise failure from failure.__cause__
        raise
    return connection


def unavailable(error: Exception) -> RedisUnavailable:
    """
    Return what to raise for an error that ends or prevents a connection.
    """
    if isinstance(error, RedisUnavailable):
        return error
    failure = RedisUnavailable(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _packed(words: tuple[str | bytes, ...]) -> bytes:
    # The stub says that a command is a single word.
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """Let an answer be, whatever it is."""
    if not answer.cancelled():
        answer.exception()
