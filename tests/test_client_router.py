"""
What servers may send at the wrong moment, or in the wrong shape.
"""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from channelsmultiplexer.client import MemoryServer, Multiplex
from feed import PATIENCE, Feed
from guard import blocked, soon


async def test_bad_bytes_of_nobody():
    """A message of nobody's that can't be decoded doesn't end the connection."""
    server = MemoryServer()
    async with Multiplex("ws://test", channel_key="s", transport=server.connect) as mux:
        websocket = await soon(server.accept())
        last = await blocked(mux.receive())
        # A key can be read where a string after it is no UTF-8.
        await websocket.send(b'{"s": "a", "d": "\xff"}')
        assert await soon(last) == b'{"s": "a", "d": "\xff"}'
        assert mux.is_connected


class SlowServer(MemoryServer):
    """What a client writes arrives, but its send() returns only when told to."""

    def __init__(self):
        super().__init__()
        self.written = asyncio.Event()

    async def connect(self, uri, **options):
        websocket = await super().connect(uri, **options)
        send = websocket.send

        async def send_slowly(data):
            await send(data)
            await self.written.wait()

        websocket.send = send_slowly
        return websocket


async def test_answer_before_send_returns():
    """A stream that is confirmed while its opening is still being sent opened once."""
    server, gaps = SlowServer(), []
    async with Multiplex("ws://test", dialect="v1", transport=server.connect) as mux:
        mux.on("gap", gaps.append)
        websocket = await soon(server.accept())
        opening = asyncio.ensure_future(mux.open("echo"))
        await soon(websocket.recv())
        await websocket.send('{"op":"opened","stream":"1","subprotocol":null}')
        stream = await soon(opening)
        server.written.set()
        await websocket.send('{"stream":"1","payload":1}')
        assert await soon(stream.recv()) == 1
        assert (gaps, stream.reopened) == ([], 0)


@pytest.mark.parametrize(
    "frame",
    [gzip.compress(b'{"stream":"a"}'), '{"in":["a"]}'],
    ids=["compressed", "wrapped"],
)
async def test_channel_after_processors(frame):
    """Post-processors may make readable what names no channel as it comes."""

    def unpack(message):
        if isinstance(message, bytes):
            return json.loads(gzip.decompress(message))
        return {"stream": message["in"][0]} if "in" in message else message

    async with Feed() as feed, feed.client(post_processors=[unpack]) as mux:
        trades = await mux.subscribe("a")
        await feed.sockets[0].send(frame)
        assert await trades.recv(PATIENCE) == {"stream": "a"}


async def test_no_channel_after_processors():
    """A message that is the name of a channel isn't therefore one of that channel."""
    server = MemoryServer()
    mux = Multiplex("ws://test", transport=server.connect, post_processors=[str.upper])
    async with mux:
        websocket = await soon(server.accept())
        named = await mux.subscribe("A")
        await websocket.send('"a"')
        assert await mux.receive(PATIENCE) == "A"
        assert named.stats().messages_received == 0
