"""
What receivers are told of streams, and what they can do to them: nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import django
import pytest

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from channelsmultiplexer.signals import stream_closed, stream_opened
from channelsmultiplexer.testing import MultiplexCommunicator
from consumers import Closes, Echo, Hangs, Raises, Refuses
from guard import soon


async def deaf(scope, receive, send):
    """
    Accept, and read nothing more.
    """
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    application_close_timeout = 0.05
    inbox_limit = 1
    overflow = "close"
    applications = {
        "": deaf,
        "closes": Closes.as_asgi(),
        "echo": Echo.as_asgi(),
        "hangs": Hangs.as_asgi(),
        "raises": Raises.as_asgi(),
        "refuses": Refuses.as_asgi(),
    }


@contextlib.contextmanager
def receiving(signal, receiver):
    """
    Have *receiver* called while the context lasts.
    """
    signal.connect(receiver, sender=Demultiplexer)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=Demultiplexer)


@pytest.fixture
async def told():
    """
    Return a queue of what both signals say.
    """
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue()

    def receiver(signal, **named):
        kind = "opened" if signal is stream_opened else "closed"
        loop.call_soon_threadsafe(queue.put_nowait, (kind, named))

    with receiving(stream_opened, receiver), receiving(stream_closed, receiver):
        yield queue


async def closed(told):
    """
    Return the code, the reason and who ended it, of the one stream.
    """
    assert (await soon(told.get()))[0] == "opened"
    kind, named = await soon(told.get())
    assert kind == "closed"
    return named["code"], named["reason"], named["by"]


async def test_opened(told):
    """stream_opened tells the class, the scope, the stream and its path."""
    async with MultiplexCommunicator(Demultiplexer(), user="Ann") as client:
        await client.open("echo/42/?token=secret")
        kind, named = await soon(told.get())
    scope = named.pop("scope")
    assert (scope["user"], scope["path"]) == ("Ann", "/42/")
    named = {key: named[key] for key in ("sender", "stream", "path")}
    assert kind == "opened"
    assert named == {"sender": Demultiplexer, "stream": "1", "path": "echo/42/"}


async def test_bare(told):
    """In bare, a stream's path is its name."""
    application = Demultiplexer.as_asgi()
    async with MultiplexCommunicator(application, dialect="bare"):
        named = [(await soon(told.get()))[1] for _ in range(4)]
    assert {n["path"] for n in named} == {"closes", "echo", "hangs", "raises"}
    assert all(n["path"] == n["stream"] for n in named)


async def test_closed_by_client(told):
    """stream_closed tells of a client that closes, after the last frame is read."""
    async with MultiplexCommunicator(Demultiplexer()) as client:
        await (await client.open("echo")).close(4000, "bye")
        assert await closed(told) == (4000, "bye", "client")


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("closes", "4001", (4001, "as you wish", "application")),
        ("raises", "", (1011, "", "application")),
    ],
)
async def test_closed_by_application(told, path, text, expected):
    """stream_closed tells of an application that closes, or raises."""
    async with MultiplexCommunicator(Demultiplexer()) as client:
        await (await client.open(path)).send_text(text)
        assert await closed(told) == expected


async def test_closed_by_server(told):
    """stream_closed tells of a stream that the demultiplexer ends."""
    async with MultiplexCommunicator(Demultiplexer()) as client:
        stream = await client.open("deaf")
        await stream.send_text("one")
        await stream.send_text("two")
        assert await closed(told) == (1013, "inbox full", "server")


@pytest.mark.parametrize("path", ["echo", "hangs"])
async def test_client_leaves(told, path):
    """stream_closed comes once for each stream of a client that leaves."""
    async with MultiplexCommunicator(Demultiplexer()) as client:
        await client.open(path)
        await client.disconnect(1001)
    assert await closed(told) == (1001, "", "client")
    assert told.empty()


async def test_refused():
    """A stream that is refused, or has no application, sends no signal."""
    application = AsyncJsonWebsocketDemultiplexer(refuses=Refuses.as_asgi())
    heard = []

    def receiver(**named):
        heard.append(named)

    stream_closed.connect(receiver)
    try:
        async with MultiplexCommunicator(application) as client:
            for path in ("refuses", "nothing"):
                await client.open_nowait(path).wait_closed()
    finally:
        stream_closed.disconnect(receiver)
    assert heard == []


async def test_receiver_raises(told, caplog):
    """A receiver that raises is logged, and harms neither stream nor receivers."""

    def receiver(**named):
        raise LookupError("of this receiver")

    with receiving(stream_opened, receiver), receiving(stream_closed, receiver):
        async with MultiplexCommunicator(Demultiplexer()) as client:
            stream = await client.open("echo")
            await stream.send_json("alive")
            assert await stream.receive_json() == "alive"
    assert await closed(told) == (1000, "", "client")
    assert [r.name for r in caplog.records] == ["django.dispatch"] * 2


async def test_sync_receiver():
    """A synchronous receiver may block: the event loop's thread isn't its own."""
    threads = []

    def receiver(**named):
        threads.append(threading.current_thread())

    with receiving(stream_opened, receiver):
        async with MultiplexCommunicator(Demultiplexer()) as client:
            await client.open("echo")
    assert threading.current_thread() not in threads
    assert len(threads) == 1


@pytest.mark.skipif(django.VERSION < (5, 0), reason="signals have no async receivers")
async def test_async_receiver():
    """An asynchronous receiver runs on the event loop, and is awaited."""
    tasks = []

    async def receiver(**named):
        tasks.append(asyncio.current_task())

    with receiving(stream_closed, receiver):
        async with MultiplexCommunicator(Demultiplexer()) as client:
            await client.open("echo")
    assert len(tasks) == 1


async def test_slow_receivers():
    """Receivers that take longer together than applications may are all told."""
    numbers = []

    def receiver(signal, stream, **named):
        time.sleep(0.02)
        numbers.append(stream)

    with receiving(stream_closed, receiver):
        async with MultiplexCommunicator(Demultiplexer.as_asgi()) as client:
            await client.receive_frame()
            for _ in range(20):
                await client.open("echo")
    assert len(numbers) == 20
