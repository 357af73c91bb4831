"""
What streams that were open leave on their socket: nothing.
"""

from __future__ import annotations

import asyncio
import gc
import sys

from channels.generic.websocket import AsyncWebsocketConsumer

from guard import soon
from v1_client import demultiplexer

OPEN = '{"op":"open","stream":"%d","path":"echo"}'
CLOSE = '{"op":"close","stream":"%d"}'


async def test_opens_and_closes_leave_nothing():
    """Ten thousand streams on one socket leave memory where it was."""
    application = demultiplexer({"echo": AsyncWebsocketConsumer.as_asgi()})
    to_server, to_client = asyncio.Queue(), asyncio.Queue()
    scope = {"type": "websocket", "subprotocols": ["channelsmultiplexer.v1"]}
    # No communicator: it keeps every stream for the test.
    serving = asyncio.create_task(application(scope, to_server.get, to_client.put))
    to_server.put_nowait({"type": "websocket.connect"})
    for _ in ("accept", "hello"):
        await soon(to_client.get())

    async def cycle(numbers):
        for number in numbers:
            for frame in (OPEN, CLOSE):
                text = frame % number
                to_server.put_nowait({"type": "websocket.receive", "text": text})
                await to_client.get()
        gc.collect()
        return sys.getallocatedblocks()

    before = await cycle(range(1, 1001))
    after = await cycle(range(1001, 11001))
    to_server.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await soon(serving)
    # A tenth of a block a stream: less than one thing kept of each.
    assert after - before < 1000
