"""
The figures of a demultiplexer class.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from channelsmultiplexer.testing import MultiplexCommunicator, Refused
from consumers import Closes, Echo, NeverAccepts, Refuses, Text, refuses
from guard import soon


@pytest.fixture
def demultiplexer():
    """
    Return a class that nothing has been counted of.
    """

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        application_close_timeout = 0.05
        max_streams = 3
        applications = {
            "closes": Closes.as_asgi(),
            "echo": Echo.as_asgi(),
            "refuses": Refuses.as_asgi(),
            "text": Text.as_asgi(),
            "undecided": NeverAccepts.as_asgi(),
        }

    return Demultiplexer


async def test_sockets(demultiplexer):
    """Sockets are counted as long as they are there, and once they are gone."""
    async with MultiplexCommunicator(demultiplexer()) as client:
        async with MultiplexCommunicator(demultiplexer()):
            assert demultiplexer.stats().sockets.now == 2
        await client.disconnect(1001)
    sockets = demultiplexer.stats().sockets
    assert (sockets.now, sockets.ever, sockets.refused) == (0, 2, 0)
    assert sockets.closed == {1000: 1, 1001: 1}


async def test_streams(demultiplexer):
    """So are streams, by the code that each was closed with."""
    async with MultiplexCommunicator(demultiplexer()) as client:
        await client.open("echo")
        await client.open("echo")
        assert demultiplexer.stats().streams.now == 2
        closes = await client.open("closes")
        await closes.send_json(4001)
        await closes.wait_closed()
    streams = demultiplexer.stats().streams
    assert (streams.now, streams.ever, streams.refused) == (0, 3, 0)
    assert streams.closed == {1000: 2, 4001: 1}


async def test_hanging_application(demultiplexer):
    """A stream counts as there until its application has ended."""
    disconnected, may_end = asyncio.Event(), asyncio.Event()

    class Lingers(Echo):
        async def disconnect(self, code):
            disconnected.set()
            await may_end.wait()

    demultiplexer.application_close_timeout = 60
    application = demultiplexer(lingers=Lingers.as_asgi())
    async with MultiplexCommunicator(application) as client:
        await (await client.open("lingers")).close()
        await soon(disconnected.wait())
        assert demultiplexer.stats().streams.now == 1
        may_end.set()
        await client.stream("1").wait_closed()
        assert demultiplexer.stats().streams.now == 0


@pytest.mark.parametrize(
    ("path", "code"), [("refuses", 4403), ("nothing", 4404), ("echo", 4429)]
)
async def test_refused_streams(demultiplexer, path, code):
    """Streams that were never accepted are counted as refused, and by their code."""
    async with MultiplexCommunicator(demultiplexer()) as client:
        if code == 4429:
            for _ in range(demultiplexer.max_streams):
                await client.open("echo")
        await client.open_nowait(path).wait_closed(code)
    streams = demultiplexer.stats().streams
    assert (streams.refused, streams.closed[code]) == (1, 1)
    assert streams.ever == sum(streams.closed.values())


async def test_client_leaves_first(demultiplexer):
    """A stream whose client left before the application decided wasn't refused."""
    async with MultiplexCommunicator(demultiplexer()) as client:
        client.open_nowait("undecided")
        await client.send_frame({"op": "close", "stream": "1", "code": 4000})
        await client.stream("1").wait_closed()
    streams = demultiplexer.stats().streams
    assert (streams.ever, streams.refused, streams.closed) == (1, 0, {4000: 1})


async def test_refused_socket():
    """A socket that all applications refused is counted as refused."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"refuses": Refuses.as_asgi()}

    with pytest.raises(Refused):
        async with MultiplexCommunicator(Demultiplexer(), dialect="bare"):
            pass
    stats = Demultiplexer.stats()
    assert (stats.sockets.ever, stats.sockets.refused) == (1, 1)
    assert stats.streams.closed == {4403: 1}


async def test_failed_socket(demultiplexer):
    """A socket whose hook raised counts as closed with what the server makes of it."""

    class Fails(demultiplexer):
        async def connect(self):
            raise LookupError("of this demultiplexer")

    with pytest.raises(LookupError):
        async with MultiplexCommunicator(Fails()):
            pass
    sockets = Fails.stats().sockets
    assert (sockets.now, sockets.refused, sockets.closed) == (0, 1, {1011: 1})


@pytest.mark.parametrize("is_open", [True, False])
async def test_traffic(demultiplexer, is_open):
    """Frames and their bytes are counted each way, of open streams and ended ones."""
    async with MultiplexCommunicator(demultiplexer()) as client:
        text = await client.open("text")
        await client.send_frame('{"stream":"1","payload":{"a":"ü"}}')
        await text.send_text("grüße \ud800")
        await text.send_bytes(b"\0\xff")
        for _ in range(3):
            await text._receive(1, "an echo")
        if not is_open:
            await text.close()
            await text.wait_closed()
        stats = demultiplexer.stats()
    size = len('{"a":"ü"}'.encode()) + len("grüße ".encode()) + 3 + 2
    assert (stats.frames_received, stats.bytes_received) == (3, size)
    assert (stats.frames_sent, stats.bytes_sent) == (3, size)


async def test_traffic_with_hooks(demultiplexer):
    """A class whose hooks see the content counts the same."""

    class Hooked(demultiplexer):
        async def receive_json(self, content, **kwargs):
            await super().receive_json(content, **kwargs)

        async def send_json(self, content, close=False):
            await super().send_json(content, close)

    async with MultiplexCommunicator(Hooked()) as client:
        echo = await client.open("echo")
        await echo.send_json("one")
        await echo.receive_json()
        stats = Hooked.stats()
    assert (stats.frames_received, stats.bytes_received) == (1, 5)
    assert (stats.frames_sent, stats.bytes_sent) == (1, 5)


async def test_invalid_frames(demultiplexer):
    """Bad frames are counted, but for those that a stream's end overtook."""
    demultiplexer.applications = {"refuses": refuses, "echo": Echo}
    application = demultiplexer()
    async with MultiplexCommunicator(application, dialect="bare") as client:
        await client.send_frame("no JSON")
        await client.stream("refuses").send_json("late")
        errors = [(await client.receive_frame())["error"] for _ in range(2)]
    assert [error["code"] for error in errors] == ["invalid-json", "unknown-stream"]
    assert demultiplexer.stats().invalid_frames == 1


async def test_inbox_peak(demultiplexer):
    """The peak is the most bytes that ever waited for one application."""
    async with MultiplexCommunicator(demultiplexer()) as client:
        client.open_nowait("undecided")
        await client.stream("1").send_text("x" * 1000)
        await client.send_frame({"op": "ping"})
        assert [await client.receive_frame() for _ in range(2)][1] == {"op": "pong"}
        peak = demultiplexer.stats().inbox_peak
    assert 1000 < peak < demultiplexer.inbox_limit
    assert demultiplexer.stats().inbox_peak == peak


async def test_subclasses(demultiplexer):
    """A class counts its own sockets, and not those of its subclasses."""

    class Subclass(demultiplexer):
        pass

    async with MultiplexCommunicator(Subclass()):
        assert demultiplexer.stats().sockets.ever == 0
        assert Subclass.stats().sockets.ever == 1


def test_frozen(demultiplexer):
    """What stats() returns can't be changed, nor does it change."""
    stats = demultiplexer.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.frames_sent = 1
    with pytest.raises(TypeError):
        stats.streams.closed[1000] = 1


async def test_counters_never_go_back(demultiplexer):
    """A thread that asks while streams come and go sees figures that only grow."""
    seen, done = [demultiplexer.stats()], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(demultiplexer.stats())

    watching = asyncio.create_task(asyncio.to_thread(watch))
    try:
        async with MultiplexCommunicator(demultiplexer()) as client:
            for _ in range(50):
                await (await client.open("closes")).send_json(4001)
                await client.stream(str(client._opened)).wait_closed()
    finally:
        done.set()
        await watching
    for figures in zip(
        *((s.streams.ever, s.frames_received) for s in seen), strict=True
    ):
        assert list(figures) == sorted(figures)
