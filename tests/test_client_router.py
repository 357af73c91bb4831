"""
What servers may send at the wrong moment, or in the wrong shape.
"""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from channelsmultiplexer.client import MemoryServer, Multiplex
from channelsmultiplexer.client.transports import load, taker
from feed import PATIENCE, Feed, never, next_event
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


def frame(head, text):
    """
    Return a frame, by its first byte; see RFC 6455, 5.2.
    """
    data = text if isinstance(text, bytes) else text.encode()
    return bytes([head, len(data)]) + data


@pytest.mark.parametrize("channel_key", [None, "s"])
async def test_burst(channel_key):
    """Of a burst each message comes in its order and shape, and then bad text."""
    burst = frame(0x81, '{"s":"a","d":10}')
    burst += frame(0x01, '{"s":"a",') + frame(0x80, '"d":11}')
    burst += frame(0x81, '{"s":"a","d":"ü"}') + frame(0x82, '{"s":"a","d":13}')
    burst += frame(0x81, b"\xff")
    options = {"channel_key": channel_key, "delays": never}
    async with Feed() as feed, Multiplex(feed.url, **options) as mux:
        receive = (await mux.subscribe("a")).recv if channel_key else mux.receive
        events = mux.events()
        feed.sockets[0].transport.write(burst)
        for data in (10, 11, "ü", 13):
            assert await soon(receive()) == {"s": "a", "d": data}
        # Where bytes will do, nobody has looked if they are text.
        end, code = ("error", None) if channel_key else ("disconnected", 1007)
        assert (await soon(next_event(events, end))).code == code


async def test_taker(transport):
    """What has come whole is had without a wait, of a transport that can do that."""
    connect = load(transport).connect
    async with Feed() as feed, await connect(feed.url) as websocket:
        take = taker(websocket, raw=True)
        assert (take is None) == (transport == "picows")
        if take is not None:
            assert take() is None
            (await feed.socket(0)).transport.write(
                frame(0x81, "1") + frame(0x82, "2") + frame(0x01, "3")
            )
            assert await soon(websocket.recv()) == "1"
            assert [take(), take()] == [b"2", None]
            feed.sockets[0].transport.write(frame(0x80, "4"))
            assert await soon(websocket.recv()) == "34"


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
