"""
A client of the v1 dialect, and what the demultiplexer owes to every one.
"""

from __future__ import annotations

import asyncio
import contextlib

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from channelsmultiplexer.testing import MultiplexCommunicator

__all__ = ["connect", "demultiplexer", "nothing_left", "processed"]


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
    Connect a client and receive the ``hello``.

    The communicator keeps apart what no stream may be sent, such as data after its
    ``closed`` or a second one: of that nothing may be there in the end.
    """
    application = demultiplexer(applications, **attributes)
    async with MultiplexCommunicator(application) as client:
        assert (await client.receive_frame())["op"] == "hello"
        yield client
    assert not client.unread


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
