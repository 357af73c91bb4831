"""
What becomes of a socket whose reader waits for room in one stream's inbox.
"""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.testing import WebsocketCommunicator

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from guard import soon


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    """
    With room for one frame a stream; sends what it gets to all streams.
    """

    inbox_limit = 1

    async def receive_json(self, content, **kwargs):
        await self.send_upstream({"type": "websocket.receive", "text": "to all"})


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


class Ends:
    """
    Applications that don't read, and then end.
    """

    def __init__(self):
        self.end = asyncio.Event()

    async def returns(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await self.end.wait()

    async def raises(self, scope, receive, send):
        await self.returns(scope, receive, send)
        raise LookupError("of this application")

    async def closes(self, scope, receive, send):
        await self.returns(scope, receive, send)
        await send({"type": "websocket.close"})
        await receive()


async def connect(cls, **applications):
    """
    Return the client of a socket that was accepted.
    """
    client = WebsocketCommunicator(cls.as_asgi(**applications), "/ws/")
    accepted, _ = await client.connect()
    assert accepted
    return client


@pytest.mark.parametrize("way", ["returns", "raises", "closes"])
async def test_application_ends(way):
    """An application that ends with its inbox full doesn't stop the socket."""

    class Routes(AsyncJsonWebsocketDemultiplexer):
        inbox_limit = 1

    ends = Ends()
    client = await connect(Routes, ends=getattr(ends, way), echo=Echo)
    for stream in ("ends", "ends", "echo"):
        await client.send_json_to({"stream": stream, "payload": 1})
    assert await client.receive_nothing()
    ends.end.set()
    assert await client.receive_json_from() == {"stream": "echo", "payload": 1}
    await client.disconnect()


async def test_application_ends_as_its_time_runs_out():
    """An application that ends as inbox_timeout does doesn't end the socket."""

    class Impatient(AsyncJsonWebsocketDemultiplexer):
        inbox_limit = 1
        inbox_timeout = 0.05

    ends = Ends()
    client = await connect(Impatient, ends=ends.closes, echo=Echo)
    asyncio.get_running_loop().call_later(0.05, ends.end.set)
    for _ in range(2):
        await client.send_json_to({"stream": "ends", "payload": 1})
    await asyncio.sleep(0.01)  # lets the reader begin to wait
    time.sleep(0.1)  # noqa: ASYNC251 (so that both times are up in the same turn)
    await client.send_json_to({"stream": "echo", "payload": 1})
    assert await client.receive_json_from() == {"stream": "echo", "payload": 1}
    await client.disconnect()


@pytest.mark.parametrize("turns", range(5))
async def test_cancelled_as_there_is_room(turns):
    """A demultiplexer cancelled in the turn in which there is room again ends."""
    reads = asyncio.Event()

    class Small(AsyncJsonWebsocketDemultiplexer):
        inbox_limit = 1
        application_close_timeout = 0.05

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await reads.wait()
        await receive()

    client = await connect(Small, application=application)
    for _ in range(2):
        await client.send_json_to({"stream": "application", "payload": 1})
    assert await client.receive_nothing()
    reads.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    client.future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(asyncio.shield(client.future))


@pytest.mark.parametrize("way", ["returns", "raises", "closes"])
async def test_send_upstream_to_all(way):
    """send_upstream() passes over streams that end while it waits for another."""
    slow, ends, got = Ends(), Ends(), asyncio.Queue()

    async def reads_late(scope, receive, send):
        await slow.returns(scope, receive, send)
        while (message := await receive())["type"] != "websocket.disconnect":
            await got.put(message["text"])

    client = await connect(Demultiplexer, slow=reads_late, ends=getattr(ends, way))
    for _ in range(2):
        await client.send_to(text_data=json.dumps({"stream": "slow", "payload": 1}))
    assert await client.receive_nothing()
    ends.end.set()
    assert await client.receive_nothing()
    slow.end.set()
    assert [await soon(got.get()) for _ in range(2)] == ["to all", "to all"]
    await client.disconnect()
