"""
A feed to test clients against, on a real socket of this machine.

It does as the large exchanges do: ``SUBSCRIBE`` and ``UNSUBSCRIBE`` name channels,
an id is answered, messages name their channel. And it misbehaves on request.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import itertools
import json

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from channelsmultiplexer.client import Connection, Multiplex

__all__ = [
    "GARBAGE",
    "PATIENCE",
    "Feed",
    "Pinged",
    "assert_conserved",
    "at_once",
    "confirms",
    "connection",
    "never",
    "next_event",
    "subscribe",
    "unsubscribe",
    "within",
]

# Seconds after which a test has failed; nothing takes that long.
PATIENCE = 5


# Frames that are no message of a feed.
GARBAGE = [
    "",
    "{",
    "[1, 2]",
    "null",
    '{"stream":{"a":1}}',
    '{"stream":null}',
    "\x00",
    '{"stream":["a"]}',
    "1e999",
    "[" * 5000,
]


def at_once():
    """
    Return the delays of a client that doesn't wait.
    """
    return itertools.repeat(0.0)


def never():
    """
    Return the delays of a client that doesn't connect again.
    """
    return iter(())


def subscribe(channel):
    """
    Return the message that subscribes to a channel, or to several.
    """
    names = channel if isinstance(channel, list) else [channel]
    return {"method": "SUBSCRIBE", "params": names, "id": names[0]}


def unsubscribe(channel):
    """
    Return the one that unsubscribes.
    """
    return {**subscribe(channel), "method": "UNSUBSCRIBE"}


async def within(awaitable):
    """
    Return the result, or fail the test.
    """
    return await asyncio.wait_for(awaitable, PATIENCE)


async def next_event(events, name):
    """
    Return the next event of that name.
    """
    async for event in events:
        if event.name == name:
            return event
    raise AssertionError(f"ended without {name}")


def connection(feed, **options):
    """
    Return a connection to a feed, not opened yet.
    """
    return Connection(feed.url, **{"delays": at_once, **options})


def assert_conserved(stats):
    """
    Fail the test if a message is nowhere in a multiplex's numbers.
    """
    assert stats.received + stats.copied == (
        stats.delivered
        + stats.queued
        + stats.dropped
        + stats.filtered
        + stats.unrouted
        + stats.control
        + stats.undecodable
    )


class Pinged(ServerConnection):
    """
    A server's end of a WebSocket, that tells of the pings which it has answered.

    Attributes:
        pings: Released at each.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.pings = asyncio.Semaphore(0)

    def process_event(self, event):
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings.release()


class Feed:
    """
    The server. Its options are those of websockets' ``serve``.

    Attributes:
        sockets: The server's ends, all there have been.

        got: What each connection has sent, JSON decoded, in a queue each.

        answers: HTTP statuses, with headers, for the next handshakes; 101 is none.

        greet: Coroutine function, called with a socket first thing.
    """

    def __init__(self, greet=None, **options):
        self.sockets = []
        self.got = []
        self.subscribed = {}
        self.answers = []
        self.requests = []
        self.greet = greet
        self._options = options
        self._arrived = asyncio.Condition()

    async def __aenter__(self):
        self._server = await serve(
            self._handle, "127.0.0.1", 0, process_request=self._answer, **self._options
        )
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "wss" if "ssl" in self._options else "ws"
        self.url = f"{scheme}://127.0.0.1:{self.port}/"
        return self

    async def __aexit__(self, *exc_info):
        for socket in self.sockets:
            socket.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def _answer(self, connection, request):
        self.requests.append(request)
        status, headers = self.answers.pop(0) if self.answers else (101, {})
        if status == 101:
            return None
        phrase = http.HTTPStatus(status).phrase
        return Response(status, phrase, Headers(headers), b"")

    async def _handle(self, socket):
        async with self._arrived:
            self.got.append(asyncio.Queue())
            self.sockets.append(socket)
            got, self.subscribed[socket] = self.got[-1], []
            self._arrived.notify_all()
        with contextlib.suppress(ConnectionClosed):
            if self.greet is not None:
                await self.greet(socket)
            async for frame in socket:
                await self._message(socket, frame)
                with contextlib.suppress(ValueError):
                    got.put_nowait(json.loads(frame))

    async def _message(self, socket, frame):
        try:
            message = json.loads(frame)
            method, channels = message["method"], message["params"]
        except (ValueError, TypeError, KeyError):
            return
        if method == "SUBSCRIBE":
            self.subscribed[socket] += channels
        else:
            self.subscribed[socket] = [
                c for c in self.subscribed[socket] if c not in channels
            ]
        error = {"error": "no such channel"} if "bad" in channels else {"result": None}
        answer = {**error, "id": message.get("id"), "channels": channels}
        await socket.send(json.dumps(answer))

    async def socket(self, index):
        """
        Return the server's end of the connection of that number.
        """
        async with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.sockets) > index)
            await within(arrived)
        return self.sockets[index]

    async def message(self, index=0):
        """
        Return the next message that a connection has sent.
        """
        await self.socket(index)
        return await within(self.got[index].get())

    async def publish(self, channel, data, index=None):
        """
        Send a message to all who subscribed, or to one connection.
        """
        text = json.dumps({"stream": channel, "data": data})
        sockets = self.sockets if index is None else [self.sockets[index]]
        for socket in sockets:
            if channel in self.subscribed[socket]:
                with contextlib.suppress(ConnectionClosed):
                    await socket.send(text)

    def client(self, **options):
        """
        Return a client of this feed.
        """
        defaults = {
            "channel_key": "stream",
            "subscribe_msg": subscribe,
            "unsubscribe_msg": unsubscribe,
            "ack": confirms,
            "delays": at_once,
        }
        return Multiplex(self.url, **{**defaults, **options})


def confirms(channel, message):
    """
    Tell if a message of the feed confirms a channel.
    """
    if not isinstance(message, dict) or channel not in message.get("channels", []):
        return None
    return "error" not in message
