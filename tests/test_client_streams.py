"""
Streams of our own server, in both dialects, on two servers.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import itertools
import json
import re
import textwrap
from pathlib import Path

import pytest

from channelsmultiplexer.client import (
    Closed,
    InboxFull,
    MemoryServer,
    Multiplex,
    Refused,
)
from feed import PATIENCE, Feed, at_once, next_event, within
from served import Server

pytestmark = pytest.mark.usefixtures("nothing_left")


class Text(str):
    """
    As Django's SafeString is.
    """


# What json doesn't know, and what msgspec doesn't.
VALUES = [
    datetime.date(2026, 1, 2),
    decimal.Decimal("1.5"),
    Text("safe"),
    {None: [Text("safe")]},
]


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(request):
    """
    Run a server for all tests here.
    """
    server = Server(request.param)
    yield server
    server.stop()


@pytest.fixture
async def v1(server):
    """
    Return a client that speaks v1.
    """
    mux = Multiplex(server.url, dialect="v1", delays=lambda: itertools.repeat(0.05))
    await mux.connect(timeout=20)
    yield mux
    await mux.close()


@pytest.fixture
async def bare(server):
    """
    Return a client that speaks bare, of which one application refuses.
    """
    mux = Multiplex(server.url, dialect="bare", delays=lambda: itertools.repeat(0.05))
    await mux.connect(timeout=20)
    yield mux
    await mux.close()


@pytest.mark.parametrize("value", [{"a": [1, None]}, "text", None, "\ud800", 0])
async def test_json(v1, value):
    """A stream carries any JSON value."""
    echo = await v1.open("echo")
    await echo.send(value)
    assert await echo.recv(PATIENCE) == value


async def test_text_and_bytes(v1):
    """A stream carries text that isn't JSON, and bytes."""
    text = await v1.open("text")
    await text.send_text("not JSON")
    await text.send_bytes(b"\x00\xff")
    assert await text.recv(PATIENCE) == "not JSON"
    assert await text.recv(PATIENCE) == b"\x00\xff"


async def test_path_and_subprotocol(v1):
    """A stream has a path, parameters and a subprotocol; a path can be open twice."""
    streams = [await v1.open("where/42/?a=1", subprotocols=["x"]) for _ in range(2)]
    for stream in streams:
        assert await stream.recv(PATIENCE) == ["/42/", "a=1"]
        assert stream.subprotocol == "x"
    await streams[1].send("only here")
    assert await streams[1].recv(PATIENCE) == [1, "only here"]
    assert v1.list_subscriptions() == ["where/42/?a=1"] * 2


@pytest.mark.parametrize(("path", "code"), [("refuses", 4403), ("none/", 4404)])
async def test_refused(v1, path, code):
    """A refusal raises with its code, and leaves nothing."""
    with pytest.raises(Refused) as caught:
        await v1.open(path, timeout=PATIENCE)
    assert caught.value.code == code
    assert v1.list_subscriptions() == []


async def test_closed_normally(v1):
    """A normal close by the server ends iteration, with the code and reason."""
    closes = await v1.open("closes")
    await closes.send(1000)
    assert [message async for message in closes] == []
    assert (closes.code, closes.reason) == (1000, "as you wish")
    with pytest.raises(Closed, match="1000"):
        await closes.send("too late")


async def test_closed_otherwise(v1):
    """Any other close raises, with the code and reason."""
    closes = await v1.open("closes")
    await closes.send(4321)
    with pytest.raises(Closed, match="4321 as you wish"):
        await closes.recv(PATIENCE)


async def test_close(v1):
    """A stream can be closed, and others go on."""
    async with await v1.open("echo") as echo:
        await echo.close(4000, "enough")
    other = await v1.open("echo")
    await other.send(1)
    assert await other.recv(PATIENCE) == 1
    with pytest.raises(Closed, match="4000 enough"):
        await echo.send(1)


async def test_recv_after_a_close(v1):
    """Who asks a closed stream for more is told its code and reason."""
    closes = await v1.open("closes")
    await closes.send(1001)
    with pytest.raises(Closed, match="1001 as you wish"):
        await closes.recv(PATIENCE)


@pytest.mark.parametrize("ending", [(99,), (5000,), (4000, "x" * 124), ("4000",)])
async def test_close_with_what_is_refused(v1, ending):
    """What the server would refuse is refused, and closes nothing."""
    echo = await v1.open("echo")
    with pytest.raises(ValueError, match=r"Expected"):
        await echo.close(*ending)
    await echo.send(1)
    assert await echo.recv(PATIENCE) == 1


@pytest.mark.parametrize("value", VALUES)
async def test_same_json(v1, value):
    """A stream writes a value's JSON as the connection does: dates, Structs."""
    echo = await v1.open("echo")
    await echo.send(value)
    (direct,) = [await echo.recv(PATIENCE)]
    text = await v1.connection.processors.frame([value], auth=False)
    assert json.loads(text) == [direct]


OPENINGS = [
    (42, (), TypeError),
    ("echo", "ab", TypeError),
    ("x" * 8193, (), ValueError),
    ("echo", ["x"] * 33, ValueError),
    ("echo", [1], ValueError),
]


@pytest.mark.parametrize(("path", "subprotocols", "error"), OPENINGS)
async def test_no_opening(v1, path, subprotocols, error):
    """What the server would call a bad frame is refused before it is sent."""
    with pytest.raises(error):
        await within(v1.open(path, subprotocols=subprotocols))
    assert v1.list_subscriptions() == []


async def test_streams_by_path(v1):
    """The streams of a path are found and closed by it."""
    streams = [await v1.open("echo") for _ in range(2)]
    assert v1.get_subscription("echo") is streams[0]
    assert repr(streams[0]) == "<Stream 'echo'>"
    assert await v1.unsubscribe("echo")
    assert v1.list_subscriptions() == []
    assert v1.get_subscription("echo") is None
    assert not await v1.unsubscribe("echo")


async def test_too_slow(v1):
    """A stream that its reader's slowness has ended takes nothing any more."""
    slow = await v1.open("echo", queue_size=1, overflow="error")
    live = v1.stream_filter()
    for i in range(3):
        await slow.send(i)
        await live.recv(PATIENCE)
    assert await slow.recv(PATIENCE) == 0
    with pytest.raises(InboxFull):
        await slow.recv(PATIENCE)
    with pytest.raises(Closed, match="1013 inbox full"):
        await slow.send("lost")


async def test_bare(bare):
    """In bare a stream is its name, and several may read it."""
    first, second = await bare.open("text"), await bare.open("text")
    await first.send({"a": 1})
    await second.send_text("not JSON")
    for stream in (first, second):
        assert await stream.recv(PATIENCE) == {"a": 1}
        assert await stream.recv(PATIENCE) == "not JSON"


async def test_bare_first_messages(transport):
    """In bare a stream that is opened before the connection misses nothing."""

    async def greet(socket):
        await socket.send('{"stream":"a","payload":1}')

    async with Feed(greet) as feed:
        mux = Multiplex(feed.url, dialect="bare", transport=transport)
        stream = await within(mux.open("a"))
        with pytest.raises(RuntimeError, match="connect"):
            await within(stream.send(1))
        async with mux:
            assert await stream.recv(PATIENCE) == 1
            await stream.send(2)
            assert await feed.message() == {"stream": "a", "payload": 2}


@pytest.mark.parametrize(("path", "subprotocols"), [("", ()), ("echo", ["x"])])
async def test_bare_no_opening(bare, path, subprotocols):
    """In bare a stream has a name, and no subprotocols."""
    with pytest.raises(ValueError, match="expected"):
        await bare.open(path, subprotocols=subprotocols)


@pytest.mark.parametrize("stream", ['{"a":1}', "[1]", "5"])
async def test_bare_error_of_no_stream(stream, transport):
    """In bare an error whose stream is no text is of no stream, and ends nothing."""
    async with Feed() as feed:
        mux = Multiplex(feed.url, dialect="bare", transport=transport)
        async with mux, await mux.open("a") as a:
            error = f'{{"code":"unknown-stream","message":"m","stream":{stream}}}'
            await feed.sockets[0].send(f'{{"error":{error}}}')
            await feed.sockets[0].send('{"stream":"a","payload":1}')
            assert await a.recv(PATIENCE) == 1
            assert mux.connection.connections == 1


async def test_bare_ended(bare):
    """In bare a stream that has ended says so when something is sent to it."""
    closes = await bare.open("closes")
    await closes.send(1000)
    waiting = asyncio.ensure_future(closes.recv())
    # It is told once, whenever the application has ended.
    while not waiting.done():
        try:
            await closes.send(1000)
        except Closed:
            break
        await bare.ping(PATIENCE)
    with pytest.raises(Closed, match="4404"):
        await within(waiting)


async def test_filters(v1):
    """Filters and handlers see what streams carry."""
    handled = []
    v1.add_handler(handled.append)
    stream = v1.stream_filter([{"a": 1}])
    echo = await v1.open("echo")
    for message in ({"a": 2}, {"a": 1, "b": 1}):
        await echo.send(message)
    assert await stream.recv(PATIENCE) == {"a": 1, "b": 1}
    assert handled[0] == {"a": 2}


async def test_bad_frame(v1):
    """A frame that the server refuses is told of, and ends nothing."""
    events = v1.events()
    echo = await v1.open("echo")
    await v1.send("not an envelope")
    event = await within(next_event(events, "error"))
    assert "invalid-json" in str(event.error)
    await echo.send(1)
    assert await echo.recv(PATIENCE) == 1


@pytest.mark.parametrize("clients", [20, pytest.param(200, marks=pytest.mark.slow)])
async def test_restart(server, clients):
    """The server is killed in mid-traffic: every stream comes back, with a gap."""
    each = 10
    muxes = [
        Multiplex(server.url, dialect="v1", delays=lambda: itertools.repeat(0.1))
        for _ in range(clients)
    ]
    listeners = [mux.events() for mux in muxes]
    await asyncio.gather(*(mux.connect(timeout=20) for mux in muxes))
    every = [await mux.open("where") for mux in muxes for _ in range(each)]
    await asyncio.gather(*(stream.send(0) for stream in every))
    server.stop()
    server.start()
    for events in listeners:
        for _ in range(each):
            gap = await asyncio.wait_for(next_event(events, "gap"), 20)
            assert gap.channel == "where"
    await asyncio.gather(*(stream.send("again") for stream in every))
    for stream in every:
        while await stream.recv(PATIENCE) != [1, "again"]:
            pass
        assert stream.reopened == 1
    await asyncio.gather(*(mux.close() for mux in muxes))


def readme(**addresses):
    """
    Return the names that the README's Python client section defines.
    """
    text = (Path(__file__).parent.parent / "README.rst").read_text()
    section = text.split("The Python client\n=====", 1)[1].split("\nRedis\n", 1)[0]
    names = {}
    for block in section.split(".. code-block:: python\n")[1:]:
        code = textwrap.dedent(re.match(r"(\n|    .*\n)+", block)[0])
        for address in ("ws://127.0.0.1:8000/ws/", "wss://stream.example.com/ws"):
            code = code.replace(address, addresses["to"])
        exec(code, names)
    return names


async def test_readme_talk(server, v1, capsys):
    """The README's example for our server runs."""
    await within(readme(to=server.url)["talk"]())
    assert capsys.readouterr().out == "{'text': 'hi'}\n"


async def test_readme_follow(capsys):
    """The README's example for a feed runs."""

    async def greet(socket):
        assert json.loads(await socket.recv())["params"] == ["btcusdt@trade"]
        await socket.send('{"stream":"btcusdt@trade","data":{"p":1}}')
        await socket.close(1008, "enough")

    async with Feed(greet) as feed:
        with pytest.raises(Closed, match="enough"):
            await within(readme(to=feed.url)["follow"]())
    assert capsys.readouterr().out == "{'p': 1}\n"


# What no real server can be made to do on request: frame by frame.


async def v1_in_memory():
    server = MemoryServer()
    mux = Multiplex("ws://test", dialect="v1", transport=server.connect, delays=at_once)
    await mux.connect()
    return mux, await server.accept(PATIENCE), server


async def opened(mux, socket, path):
    opening = asyncio.ensure_future(mux.open(path))
    frame = await within(socket.recv())
    number = frame.split('"stream":"')[1].split('"')[0]
    await socket.send(f'{{"op":"opened","stream":"{number}"}}')
    return await within(opening)


async def test_opened_again():
    """A stream closed with a code that means later is opened again, saying so."""
    mux, socket, _ = await v1_in_memory()
    events = mux.events()
    stream = await opened(mux, socket, "a")
    await socket.send('{"op":"closed","stream":"1","code":1012,"reason":""}')
    assert '"stream":"2"' in await within(socket.recv())
    await socket.send('{"op":"opened","stream":"2"}')
    await socket.send('{"stream":"2","payload":1}')
    assert await stream.recv(PATIENCE) == 1
    assert (await within(next_event(events, "gap"))).channel == "a"
    assert stream.reopened == 1
    await mux.close()


async def test_refused_later():
    """A stream that isn't open yet is refused with any code."""
    mux, socket, _ = await v1_in_memory()
    opening = asyncio.ensure_future(mux.open("a"))
    await within(socket.recv())
    await socket.send('{"op":"closed","stream":"1","code":4429,"reason":"many"}')
    with pytest.raises(Refused, match="4429 many"):
        await within(opening)
    await mux.close()


async def test_bad_opening():
    """A server that calls an opening a bad frame refuses the stream so."""
    mux, socket, _ = await v1_in_memory()
    events = mux.events()
    opening = asyncio.ensure_future(mux.open("a"))
    await within(socket.recv())
    error = {"op": "error", "stream": "1", "code": "invalid-envelope", "message": "no"}
    await socket.send(json.dumps(error))
    with pytest.raises(Refused, match="1002 invalid-envelope: no"):
        await within(opening)
    assert (await within(next_event(events, "error"))).channel == "a"
    assert mux.list_subscriptions() == []
    await mux.close()


async def test_server_pings():
    """A ping of the dialect is answered by a pong."""
    mux, socket, _ = await v1_in_memory()
    await socket.send('{"op":"hello","heartbeat":25,"max_streams":100}')
    await socket.send('{"op":"ping"}')
    assert await within(socket.recv()) == '{"op":"pong"}'
    await mux.close()


async def test_late_frames():
    """Frames for a stream that was closed are nobody's."""
    mux, socket, _ = await v1_in_memory()
    stream = await opened(mux, socket, "a")
    await stream.close(4000, "enough")
    close = '{"op":"close","stream":"1","code":4000,"reason":"enough"}'
    assert await within(socket.recv()) == close
    other = await opened(mux, socket, "b")
    await socket.send('{"stream":"1","payload":1}')
    await socket.send('{"op":"closed","stream":"1","code":4000,"reason":""}')
    await socket.send('{"stream":"2","payload":2}')
    assert await other.recv(PATIENCE) == 2
    assert mux.stats().unrouted == 1
    await mux.close()


async def test_open_is_cancelled():
    """Cancelling open closes the stream that may have been opened."""
    mux, socket, _ = await v1_in_memory()
    opening = asyncio.ensure_future(mux.open("a"))
    await within(socket.recv())
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert '"op":"close"' in await within(socket.recv())
    await mux.close()


async def test_memory():
    """The pair in memory closes, breaks and comes back as a socket does."""
    mux, socket, server = await v1_in_memory()
    assert socket.subprotocol == "channelsmultiplexer.v1"
    assert await mux.ping() == 0
    events = mux.events()
    await socket.close(1012, "restart")
    assert (await within(next_event(events, "disconnected"))).reason == "restart"
    second = await server.accept(PATIENCE)
    second.abort()
    assert (await within(next_event(events, "disconnected"))).code == 1006
    await server.accept(PATIENCE)
    await mux.close()


async def test_one_of_two_of_a_name_closes():
    """In bare, a stream that closes while there is no link leaves others to wait."""
    server = MemoryServer()
    mux = Multiplex(
        "ws://test",
        dialect="bare",
        transport=server.connect,
        delays=lambda: itertools.repeat(0.01),
    )
    async with mux:
        one, other = await mux.open("echo"), await mux.open("echo")
        down = asyncio.ensure_future(next_event(mux.events(), "disconnected"))
        await asyncio.sleep(0)
        await (await server.accept(PATIENCE)).close(1011)
        await within(down)
        await one.close()
        await within(other.send(1))
        socket = await server.accept(PATIENCE)
        assert '"payload":1' in await within(socket.recv())


async def test_closed_twice():
    """The application is told the first code of a stream that is closed twice."""
    mux, socket, _ = await v1_in_memory()
    async with await opened(mux, socket, "a") as stream:
        await stream.close(4001, "bye")
    assert '"code":4001,"reason":"bye"' in await within(socket.recv())
    await mux.close()


async def test_no_text():
    """Text that is none, and bytes that are none, are refused at once."""
    mux, socket, _ = await v1_in_memory()
    stream = await opened(mux, socket, "a")
    with pytest.raises(TypeError, match="expected a str, got b"):
        await stream.send_text(b"a")
    with pytest.raises(TypeError, match="expected bytes, got 'a'"):
        await stream.send_bytes("a")
    await mux.close()
