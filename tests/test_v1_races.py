"""
The dialect channelsmultiplexer.v1 when two things happen at once.

After each the client holds one ``closed`` a stream and nothing that came after it
(``connect`` sees to that), and no task is left.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from channelsmultiplexer.envelope import SUBPROTOCOL
from channelsmultiplexer.testing import MultiplexCommunicator, Refused
from consumers import Text
from guard import blocked, soon
from v1_client import connect, demultiplexer, nothing_left, open_puppet, processed


@pytest.fixture(autouse=True)
async def _nothing_left():
    with nothing_left():
        yield


@pytest.fixture
async def client(puppets):
    """A client that can open puppets under ``p`` and an echo under ``echo``."""
    async with connect({"p": puppets, "echo": Text.as_asgi()}) as client:
        yield client


# Opening and closing


async def test_open_and_close_at_once(client, puppets):
    """A stream that is closed as it is opened has its application and its closed."""
    stream = client.open_nowait("p")
    await stream.close(4001)
    puppet = await puppets.next()
    assert await puppet.receive() == {"type": "websocket.connect"}
    assert (await puppet.receive())["code"] == 4001
    puppet.finish()
    await stream.wait_closed(4001)


async def test_open_close_open(client, puppets):
    """A path that is closed and opened again at once is two streams."""
    first = client.open_nowait("p")
    await first.close(4001)
    second = client.open_nowait("p")
    of_first, of_second = await puppets.next(), await puppets.next()
    await of_second.accept()
    await second.wait_open()
    of_first.finish()
    await first.wait_closed(4001)
    await of_second.send_json(2)
    assert await second.receive_json() == 2


async def test_accept_after_close(client, puppets):
    """An application that accepts what the client has closed opens nothing."""
    stream = client.open_nowait("p")
    puppet = await puppets.next()
    await stream.close(4001)
    await processed(client)
    await puppet.accept()
    await puppet.send_json("late")
    puppet.finish()
    with pytest.raises(Refused) as caught:
        await stream.wait_open()
    assert caught.value.code == 4001


async def test_refusal_after_close(client, puppets):
    """An application that refuses what the client has closed adds no closed."""
    stream = client.open_nowait("p")
    puppet = await puppets.next()
    await stream.close(4001)
    await processed(client)
    await puppet.close(4403)
    puppet.finish()
    await stream.wait_closed(4001)


async def test_refusal_after_data(client, puppets):
    """What was sent to a stream that is refused reaches nobody."""
    stream = client.open_nowait("p")
    for value in range(3):
        await stream.send_json(value)
    await processed(client)
    puppet = await puppets.next()
    await puppet.close()
    await stream.wait_closed(4403)
    assert await puppet.receive() == {"type": "websocket.connect"}
    assert (await puppet.receive())["type"] == "websocket.disconnect"


async def test_server_closes_before_opened(client, puppets):
    """An application that closes at once refuses, and the other streams run on."""
    other = await client.open("echo")
    stream = client.open_nowait("p")
    await (await puppets.next()).close(4009, "busy")
    assert await stream.wait_closed() == (4009, "busy")
    await other.send_json(1)
    assert await other.receive_json() == 1


async def test_data_crosses_closed(client, puppets):
    """Data that crosses a closed is dropped in silence."""
    stream, puppet = await open_puppet(client, puppets)
    await puppet.close(4001)
    await stream.send_json("late")
    await stream.send_bytes(b"late")
    await processed(client)
    assert (await puppet.receive())["type"] == "websocket.disconnect"
    await stream.wait_closed(4001)


async def test_close_crosses_closed(client, puppets):
    """Of two closes the application's counts if it came first."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.close(4001)
    await puppet.close(4002)
    await processed(client)
    puppet.finish()
    await stream.wait_closed(4002)


async def test_closed_crosses_close(client, puppets):
    """Of two closes the client's counts if it came first."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.close(4001)
    await processed(client)
    await puppet.close(4002)
    puppet.finish()
    await stream.wait_closed(4001)


async def test_close_twice(client, puppets):
    """Neither side's second close is seen by the other."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.close(4001)
    await stream.close(4002)
    await processed(client)
    await puppet.close(4003)
    await puppet.close(4004)
    puppet.finish()
    await stream.wait_closed(4001)


async def test_accept_twice(client, puppets):
    """An application that accepts twice opens its stream once."""
    _, puppet = await open_puppet(client, puppets)
    await puppet.accept()
    await processed(client)


async def test_send_after_closes(client, puppets):
    """What an application sends once either side has closed is dropped."""
    stream, puppet = await open_puppet(client, puppets)
    await stream.close(4001)
    await processed(client)
    await puppet.send_json("late")
    other, other_puppet = await open_puppet(client, puppets)
    await other_puppet.close(4002)
    await other_puppet.send_json("late")
    puppet.finish()
    await stream.wait_closed(4001)
    await other.wait_closed(4002)
    assert not stream.unread
    assert not other.unread


# Many at once


async def test_hundred_opens(client, puppets):
    """A hundred streams opened in one go may be answered in any order."""
    streams = [client.open_nowait("p") for _ in range(100)]
    for stream in streams:
        await stream.send_json(stream.name)
    pairs = [(stream, await puppets.next()) for stream in streams]
    random.Random(100).shuffle(pairs)
    for stream, puppet in pairs[:60]:
        await puppet.accept()
        await stream.wait_open()
        assert await puppet.receive() == {"type": "websocket.connect"}
        assert (await puppet.receive())["text"] == f'"{stream.name}"'
    for stream, puppet in pairs[60:]:
        await puppet.close(4001)
        await stream.wait_closed(4001)


async def test_max_streams_in_one_go(puppets):
    """Of many streams opened in one go those beyond max_streams are refused."""
    async with connect({"p": puppets}, max_streams=3) as client:
        streams = [client.open_nowait("p") for _ in range(5)]
        for stream in streams[3:]:
            await stream.wait_closed(4429)
        for stream in streams[:3]:
            await (await puppets.next()).accept()
            await stream.wait_open()
        assert len(puppets.started) == 3


async def test_open_crosses_ended(puppets):
    """A stream may be opened as soon as the client is told that another has ended."""
    application = Backpressure(demultiplexer({"p": puppets}, max_streams=1))
    async with MultiplexCommunicator(application) as client:
        stream, puppet = await open_puppet(client, puppets)
        application.flowing.clear()
        puppet.finish()
        await stream.wait_closed(1000)
        client.open_nowait("p")
        second = await puppets.next()
        application.flowing.set()
        second.finish()


async def test_killed_while_closing(caplog):
    """An application whose time is up before its client reads has its closed."""
    killed = asyncio.Event()
    flowing = asyncio.Event()
    flowing.set()

    async def closing(scope, receive, send):
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.receive":
            pass
        try:
            await send({"type": "websocket.close", "code": 4001})
        finally:
            killed.set()

    inner = demultiplexer({"closing": closing}, application_close_timeout=0.01)

    async def application(scope, receive, send):
        # As Uvicorn does: wait until the client reads, then write.
        async def slow(message):
            await flowing.wait()
            await send(message)

        await inner(scope, receive, slow)

    async with MultiplexCommunicator(application) as client:
        stream = await client.open("closing")
        flowing.clear()
        await stream.send_json(1)
        await soon(killed.wait())
        flowing.set()
        await stream.wait_closed(4001)
    assert "is cancelled" in caplog.text


async def test_client_that_never_reads(puppets):
    """A client that reads no ends can't pile up streams without bound."""
    application = Backpressure(demultiplexer({"p": puppets}, max_streams=1))
    async with MultiplexCommunicator(application) as client:
        await client.receive_frame()
        application.flowing.clear()
        for _ in range(2):
            stream = client.open_nowait("p")
            (await puppets.next()).finish()
            await stream.wait_closed(4403)
        client.open_nowait("p")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(puppets.started) == 2
        application.flowing.set()
        (await puppets.next()).finish()


class Backpressure:
    """
    Stands in for a server whose client reads slowly: what is sent is on its way,
    but send() returns once the test lets it flow.
    """

    def __init__(self, application):
        self.application = application
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def __call__(self, scope, receive, send):
        """Run the application."""

        async def slow(message):
            await send(message)
            await self.flowing.wait()

        await self.application(scope, receive, slow)


async def test_one_raises_among_many(client, puppets, caplog):
    """An application that raises ends its own stream, and the others run on."""
    opened = [await open_puppet(client, puppets) for _ in range(5)]
    stream, puppet = opened.pop(2)
    puppet.finish(ZeroDivisionError())
    await stream.wait_closed(1011)
    for stream, puppet in opened:
        await stream.send_json(1)
        assert (await puppet.receive())["text"] == "1"
    assert "ZeroDivisionError" in caplog.text


# Ids


async def test_id_reused_while_open(client, puppets):
    """An id that is opened again is a bad frame, and its stream runs on."""
    stream, puppet = await open_puppet(client, puppets)
    await client.send_frame({"op": "open", "stream": "1", "path": "p"})
    assert (await client.receive_frame())["code"] == "stream-in-use"
    await puppet.send_json(1)
    assert await stream.receive_json() == 1
    assert len(puppets.started) == 1


async def test_id_reused_after_closed(client, puppets):
    """An id that is opened again after its closed is a bad frame."""
    stream, puppet = await open_puppet(client, puppets)
    await puppet.close()
    await stream.wait_closed(1000)
    await client.send_frame({"op": "open", "stream": "1", "path": "p"})
    assert (await client.receive_frame())["code"] == "stream-in-use"
    assert len(puppets.started) == 1


async def test_id_of_a_refused_open(client):
    """An id that was refused is used up."""
    with pytest.raises(Refused):
        await client.open("nobody")
    await client.send_frame({"op": "open", "stream": "1", "path": "echo"})
    assert (await client.receive_frame())["code"] == "stream-in-use"


# The socket


async def test_socket_loss_during_open(client, puppets):
    """A socket that is lost disconnects the applications that have not answered."""
    client.open_nowait("p")
    puppet = await puppets.next()
    losing = asyncio.create_task(client.disconnect(1006))
    assert await puppet.receive() == {"type": "websocket.connect"}
    message = await puppet.receive()
    assert (message["type"], message["code"]) == ("websocket.disconnect", 1006)
    await puppet.accept()
    puppet.finish()
    await soon(losing)


async def test_socket_loss_right_after_open(client, puppets):
    """An application that starts as the socket is lost is disconnected too."""
    client.open_nowait("p")
    losing = asyncio.create_task(client.disconnect(1006))
    puppet = await puppets.next()
    await puppet.receive()
    assert (await puppet.receive())["code"] == 1006
    puppet.finish()
    await soon(losing)


async def test_socket_closes_during_open(puppets):
    """A socket that the server closes has no opened after it."""

    async def close_socket(self, message, stream_name):
        await self.close(4002)

    async with connect({"p": puppets}, socket_close=close_socket) as client:
        _, closing = await open_puppet(client, puppets)
        stream = client.open_nowait("p")
        puppet = await puppets.next()
        await closing.send({"type": "socket.close"})
        await puppet.accept()
        await client.wait_closed(4002)
        with pytest.raises(Refused):
            await stream.wait_open()


# Hooks that take their time


class Closing(Text):
    """Closes when something comes."""

    async def receive(self, text_data=None, bytes_data=None):
        """Close."""
        await self.close(4001)


def slow(allowed):
    """Return attributes: small inboxes, and a hook that waits to accept."""

    async def websocket_accept(self, message, stream_name):
        if stream_name != "closing":
            await allowed.wait()
        await type(self).__base__.websocket_accept(self, message, stream_name)

    hooks = {"websocket_accept": websocket_accept}
    return {"inbox_limit": 1, "overflow": "close", **hooks}


async def test_accepts_twice_at_once(puppets):
    """An application that accepts again while the first time waits opens once."""
    incoming, sent, gate = asyncio.Queue(), [], asyncio.Event()

    async def send(message):
        sent.append(message.get("text", ""))
        if '"opened"' in sent[-1]:
            await gate.wait()

    scope = {"type": "websocket", "path": "/", "subprotocols": [SUBPROTOCOL]}
    serving = asyncio.ensure_future(
        demultiplexer({"p": puppets})(scope, incoming.get, send)
    )
    incoming.put_nowait({"type": "websocket.connect"})
    frame = '{"op":"open","stream":"1","path":"p"}'
    incoming.put_nowait({"type": "websocket.receive", "text": frame})
    puppet = await puppets.next()
    first = await blocked(puppet.accept())
    await soon(puppet.accept())
    gate.set()
    await soon(first)
    assert sum('"opened"' in text for text in sent) == 1
    puppets.finish()
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await soon(serving)


async def test_stream_ends_during_websocket_accept(puppets):
    """A stream that ends while websocket_accept waits is not opened after that."""
    allowed = asyncio.Event()
    async with connect({"p": puppets}, **slow(allowed)) as client:
        stream = client.open_nowait("p")
        accepting = asyncio.create_task((await puppets.next()).accept())
        await stream.send_json(1)
        await stream.send_json(2)
        await stream.wait_closed(1013)
        allowed.set()
        await accepting


async def test_bare_stream_ends_during_websocket_accept(puppets):
    """A bare stream that ends while websocket_accept waits keeps no socket open."""
    allowed = asyncio.Event()
    applications = {"p": puppets, "closing": Closing.as_asgi()}
    application = demultiplexer(applications, **slow(allowed))
    async with MultiplexCommunicator(application, dialect="bare") as client:
        accepting = asyncio.create_task((await puppets.next()).accept())
        await client.stream("p").send_json(1)
        await client.stream("p").send_json(2)
        while (await puppets.started[0].receive())["type"] != "websocket.disconnect":
            pass
        allowed.set()
        await accepting
        puppets.finish()
        await client.stream("closing").send_json(1)
        await client.wait_closed(4001)


async def test_stream_ends_during_websocket_send(puppets):
    """What websocket_send still holds when a stream ends is dropped."""

    async def websocket_send(self, message, stream_name):
        await allowed.wait()
        await type(self).__base__.websocket_send(self, message, stream_name)

    allowed = asyncio.Event()
    async with connect({"p": puppets}, websocket_send=websocket_send) as client:
        stream, puppet = await open_puppet(client, puppets)
        sending = asyncio.create_task(puppet.send_json(1))
        await processed(client)
        await puppet.close(4001)
        allowed.set()
        await sending
        await stream.wait_closed(4001)
    assert not stream.unread


@pytest.mark.parametrize("application", ["refuses", "ends", "stays"])
@pytest.mark.parametrize("cancellations", [1, 2])
async def test_canceled_while_nobody_reads(application, cancellations):
    """A demultiplexer that is canceled ends, though the server's send() doesn't."""

    async def behave(scope, receive, send):
        await receive()
        refuses = application == "refuses"
        await send({"type": "websocket.close" if refuses else "websocket.accept"})
        while application == "stays" and (await receive())["type"][10:] != "disconnect":
            pass

    async def send(message):
        if '"stream"' in message.get("text", ""):
            told.set()
            await asyncio.Event().wait()

    told, frames = asyncio.Event(), asyncio.Queue()
    open_it = '{"op":"open","stream":"1","path":"a"}'
    frames.put_nowait({"type": "websocket.connect"})
    frames.put_nowait({"type": "websocket.receive", "text": open_it})
    scope = {"type": "websocket", "subprotocols": [SUBPROTOCOL]}
    serving = asyncio.ensure_future(
        demultiplexer({"a": behave}, application_close_timeout=0.05)(
            scope, frames.get, send
        )
    )
    await soon(told.wait())
    for _ in range(cancellations):
        serving.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
