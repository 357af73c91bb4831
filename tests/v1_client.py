"""
A client of the v1 dialect, and what the demultiplexer owes to every one.
"""

from __future__ import annotations

import asyncio
import contextlib

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from channelsmultiplexer.testing import MultiplexCommunicator
from puppets import Puppets

__all__ = ["connect", "demultiplexer", "nothing_left", "open_puppet", "processed"]


def demultiplexer(applications, **attributes):
    """
    Return a subclass with these applications and attributes, as an application.
    """
    attributes["applications"] = applications
    return type(
        "Demultiplexer", (AsyncJsonWebsocketDemultiplexer,), attributes
    ).as_asgi()


@contextlib.asynccontextmanager
async def connect(applications, **attributes):
    """
    Connect a client and receive the ``hello``; in the end no puppet runs on.

    The communicator keeps apart what no stream may be sent, such as data after its
    ``closed`` or a second one: of that nothing may be there in the end.
    """
    application = demultiplexer(applications, **attributes)
    async with MultiplexCommunicator(application) as client:
        assert (await client.receive_frame())["op"] == "hello"
        yield client
        for value in applications.values():
            if isinstance(value, Puppets):
                value.finish()
    assert not client.unread


async def open_puppet(client, puppets, url="p"):
    """
    Open a stream, and return it and its application, which has accepted.
    """
    stream = client.open_nowait(url)
    puppet = await puppets.next()
    assert await puppet.receive() == {"type": "websocket.connect"}
    await puppet.accept()
    await stream.wait_open()
    return stream, puppet


async def processed(client):
    """
    Wait until the demultiplexer has read all that was sent: it answers in order.
    """
    await client.send_frame({"op": "ping"})
    assert await client.receive_frame() == {"op": "pong"}


@contextlib.contextmanager
def nothing_left():
    """
    Hold what runs inside to leaving no task behind.
    """
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left
