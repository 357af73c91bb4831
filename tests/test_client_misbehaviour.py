"""
Servers that misbehave: each gets what it deserves, soon, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import socket

import pytest
import websockets.asyncio.client

from channelsmultiplexer.client import (
    Closed,
    Connection,
    State,
)
from channelsmultiplexer.client.transports import is_open
from feed import (
    GARBAGE,
    PATIENCE,
    Feed,
    assert_conserved,
    at_once,
    connection,
    never,
    next_event,
    within,
)
from guard import blocked, open_sockets

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("code", [1000, 1001, 1012, 1013])
async def test_comes_back(code, transport):
    """A server that closes, normally or not, is connected to again (A1)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        await feed.sockets[0].close(code, "later")
        event = await within(next_event(events, "disconnected"))
        assert (event.code, event.reason) == (code, "later")
        await (await feed.socket(1)).send("again")
        assert await client.receive(PATIENCE) == "again"


@pytest.mark.parametrize("code", [1008, 4400, 4401, 4403, 4404])
async def test_fatal_code(code, transport):
    """A code that says the same next time ends it, with code and reason (J6, J9)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        waiting = asyncio.ensure_future(client.receive())
        await feed.sockets[0].close(code, "never")
        with pytest.raises(Closed, match="never") as caught:
            await within(waiting)
        assert caught.value.code == code
        assert caught.value.__cause__ is not None
        assert len(feed.sockets) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_fatal_status(status, transport):
    """A handshake that is refused for good isn't tried again (J9)."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        feed.answers = [(status, {})]
        await feed.sockets[0].close(1012)
        with pytest.raises(Closed, match=f"HTTP {status}"):
            await client.receive(PATIENCE)
        assert len(feed.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_retry_after(status, transport):
    """Retry-After is the least delay before the next attempt."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.answers = [(status, {"Retry-After": "77"})]
        await feed.sockets[0].close(1012)
        first = await within(next_event(events, "retrying"))
        second = await within(next_event(events, "retrying"))
        assert (first.delay, second.delay) == (0, 77)


async def test_retry_after_date():
    """Retry-After can be a date."""
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    date = when.strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with Feed() as feed, connection(feed) as client:
        events = client.events()
        feed.answers = [(503, {"Retry-After": date})]
        await feed.sockets[0].close(1012)
        await within(next_event(events, "retrying"))
        event = await within(next_event(events, "retrying"))
        assert 3500 < event.delay <= 3600


@pytest.mark.parametrize(
    ("values", "seconds"),
    [(["1", "77", "soon"], 77), (["inf"], 0), (["inf", "nan", "5"], 5), (["-1"], 0)],
)
async def test_retry_after_odd(values, seconds, transport):
    """Of several Retry-After headers the greatest finite one counts."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.answers = [(503, [("Retry-After", value) for value in values])]
        await feed.sockets[0].close(1012)
        await within(next_event(events, "retrying"))
        event = await within(next_event(events, "retrying"))
        assert event.delay == seconds


@pytest.mark.parametrize("code", [1000, 1011])
async def test_accepts_and_closes(code, transport):
    """A server that accepts and closes isn't called without pause (J8)."""

    async def close(socket):
        await socket.close(code)

    async with Feed(close) as feed:
        delays = {"delays": lambda: iter([0, 0, 3600])}
        client = connection(feed, transport=transport, **delays)
        events = client.events()
        await client.connect()
        for _ in range(3):
            event = await within(next_event(events, "retrying"))
        assert event.delay == 3600
        assert len(feed.sockets) == 3
        await client.close()


async def test_no_reason(transport):
    """A close without a reason is told of with an empty one."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        await feed.sockets[0].close(4401)
        assert (await within(next_event(events, "disconnected"))).reason == ""
        with pytest.raises(Closed) as caught:
            await client.receive(PATIENCE)
        assert str(caught.value).startswith("closed with 4401")
        assert type(caught.value.code) is int


async def test_vanished(transport):
    """A link that breaks without a word is a loss with code 1006."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.abort()
        event = await within(next_event(events, "disconnected"))
        assert event.code == 1006
        await feed.socket(1)


async def test_closes_and_stays(transport):
    """A server that closes, and doesn't hang up, is a loss with its code."""
    options = {"heartbeat": None, "close_timeout": 0.05}
    async with (
        Feed() as feed,
        connection(feed, transport=transport, **options) as client,
    ):
        events = client.events()
        # It doesn't see the answer, at which it would hang up.
        feed.sockets[0].transport.pause_reading()
        feed.sockets[0].transport.write(b"\x88\x02\x03\xf4")
        assert (await within(next_event(events, "disconnected"))).code == 1012
        await feed.socket(1)


async def test_half_a_frame(transport):
    """A link that breaks in the middle of a message is a loss, and that is lost."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        # Text of 256 bytes, of which one comes.
        feed.sockets[0].transport.write(b"\x81\x7e\x01\x00x")
        feed.sockets[0].transport.write_eof()
        await (await feed.socket(1)).send("whole")
        assert await client.receive(PATIENCE) == "whole"


async def test_half_closed(transport):
    """A server that stops writing and doesn't close is a loss."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.write_eof()
        assert (await within(next_event(events, "disconnected"))).code == 1006
        await feed.socket(1)


async def test_silence(transport):
    """A link on which nothing comes is dropped after the message timeout."""
    async with (
        Feed() as feed,
        connection(
            feed, transport=transport, message_timeout=0.05, close_timeout=0.05
        ) as client,
    ):
        event = await within(next_event(client.events(), "disconnected"))
        assert isinstance(event.error, TimeoutError)
        await feed.socket(1)
        await within(feed.sockets[0].wait_closed())


async def test_heartbeat_dead(transport):
    """Heartbeats drop a link whose other end has stopped, and close it (N3, J5)."""
    quick = {"heartbeat": 0.05, "close_timeout": 0.05, "delays": lambda: iter([3600])}
    async with (
        Feed() as feed,
        connection(feed, transport=transport, **quick) as client,
    ):
        events = client.events()
        feed.sockets[0].transport.pause_reading()
        event = await within(next_event(events, "disconnected"))
        assert event.code == 1006
        assert "0.05 s" in event.reason
        assert client.state is State.CONNECTING
        feed.sockets[0].transport.resume_reading()
        await within(feed.sockets[0].wait_closed())


async def test_heartbeat_deaf(transport):
    """Heartbeats drop a link that takes nothing of what is sent."""
    quick = {"heartbeat": 0.05, "close_timeout": 0.05, "compression": None}
    async with (
        Feed() as feed,
        connection(feed, transport=transport, **quick) as client,
    ):
        events = client.events()
        feed.sockets[0].transport.pause_reading()
        # More than the network takes.
        sending = await blocked(client.send("x" * 20_000_000))
        event = await within(next_event(events, "disconnected"))
        assert event.code in (1006, 1011)
        await within(sending)
        await feed.socket(1)


async def test_close_of_a_deaf_server(transport):
    """Close doesn't wait for a server that doesn't read, nor does a send."""
    options = {"transport": transport, "close_timeout": 0.05, "compression": None}
    async with Feed() as feed, connection(feed, **options) as client:
        feed.sockets[0].transport.pause_reading()
        # More than the network takes.
        sending = await blocked(client.send("x" * 20_000_000))
        await within(client.close())
        await within(sending)


async def test_redirect(transport):
    """A redirect is followed."""
    async with Feed() as feed, Feed() as other:
        other.answers = [(302, {"Location": feed.url})]
        async with connection(other, transport=transport):
            assert len(feed.sockets) == 1


async def test_redirects_without_end(transport):
    """Redirects that lead nowhere end it."""
    async with Feed() as feed:
        feed.answers = [(302, {"Location": feed.url})] * 1000
        with pytest.raises(Closed, match=r"redirects|HTTP 302"):
            await within(connection(feed, transport=transport).connect(PATIENCE))


async def test_garbage_handshake():
    """What isn't a WebSocket server is an error that says so."""

    async def garbage(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Connection(f"ws://127.0.0.1:{port}/", delays=at_once)
    with pytest.raises(Closed, match="InvalidMessage"):
        await within(client.connect())
    server.close()
    await server.wait_closed()


async def test_handshake_ends_early(transport):
    """A server that closes in the middle of a handshake is tried again."""

    async def hang_up(reader, writer):
        writer.close()
        attempts.release()

    attempts = asyncio.Semaphore(0)
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Connection(f"ws://127.0.0.1:{port}/", delays=at_once, transport=transport)
    connecting = asyncio.ensure_future(client.connect(PATIENCE))
    for _ in range(3):
        await within(attempts.acquire())
    await client.close()
    server.close()
    await asyncio.wait({connecting})
    assert isinstance(connecting.exception(), Closed)


async def test_network_does_not_answer(transport):
    """A server whose system takes no more connections is a failed attempt, in time."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        url = f"ws://127.0.0.1:{full.getsockname()[1]}/"
        with socket.create_connection(full.getsockname()):
            options = {"open_timeout": 0.05, "transport": transport}
            with pytest.raises(Closed, match="TimeoutError"):
                await within(Connection(url, **options).connect())


async def test_mute_after_the_handshake(transport):
    """Closing while a mute server's link is given up leaves no socket, either."""
    links = []

    async def be_mute(socket):
        socket.transport.pause_reading()

    async def fail(link):
        links.append(link)
        raise LookupError

    options = {"transport": transport, "on_connect": fail, "close_timeout": 0.1}
    async with Feed(be_mute) as feed:
        before = open_sockets()
        client = connection(feed, **options)
        connecting = asyncio.ensure_future(client.connect(PATIENCE))
        while not links or is_open(links[0].websocket):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await within(client.close())
        # That of the server's end.
        assert len(open_sockets() - before) == 1
        with pytest.raises(Closed):
            await connecting


async def test_garbage_for_on_connect(transport, caplog):
    """A bad frame while on_connect reads is a failed attempt, and no more."""

    async def send_garbage(socket):
        socket.transport.pause_reading()
        socket.transport.write(b"\xff" * 4)

    async def log_in(link):
        await link.receive()

    options = {"on_connect": log_in, "open_timeout": 0.1, "delays": never}
    async with Feed(send_garbage) as feed:
        # Now and then it comes with the handshake.
        for _ in range(5):
            with pytest.raises(Closed):
                await within(
                    connection(feed, transport=transport, **options).connect(PATIENCE)
                )
    gc.collect()
    await asyncio.sleep(0)
    assert not [r for r in caplog.records if r.name == "asyncio"]


async def test_transport_that_swallows_a_cancellation():
    """A WebSocket that a transport opens though it was canceled is closed again."""
    opened = asyncio.Event()

    async def connect(uri, **options):
        websocket = await websockets.asyncio.client.connect(uri, **options)
        opened.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return websocket

    async with Feed() as feed:
        client = connection(feed, transport=connect)
        connecting = asyncio.ensure_future(client.connect(PATIENCE))
        await within(opened.wait())
        await within(client.close())
        await within(feed.sockets[0].wait_closed())
        with pytest.raises(Closed):
            await connecting


async def test_invalid_frames(transport):
    """Bytes that are no WebSocket frame are a loss."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.write(b"\xff" * 100)
        assert (await within(next_event(events, "disconnected"))).code in (1002, 1006)
        await feed.socket(1)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_fragments(transport, compression):
    """A message in fragments, compressed or not, is one message (J12)."""
    options = {"transport": transport, "compression": compression}
    async with Feed() as feed, connection(feed, **options) as client:
        (socket,) = feed.sockets
        assert len(socket.protocol.extensions) == (compression is not None)

        async def fragments():
            yield "frag"
            # Control frames may come between.
            await socket.ping()
            yield "ment"
            yield "ed" * 1000

        await socket.send(fragments())
        assert await client.receive(PATIENCE) == "fragmented" + "ed" * 999


async def test_burst_before_the_first_read(transport):
    """A burst before the first read waits for it; nothing is lost."""

    async def greet(socket):
        for i in range(5000):
            await socket.send(str(i))
        sent.set()

    sent = asyncio.Event()
    async with Feed(greet) as feed, connection(feed, transport=transport) as client:
        await within(sent.wait())
        got = [await client.receive(PATIENCE) for _ in range(5000)]
        assert got == [str(i) for i in range(5000)]


async def test_burst_for_nobody(transport):
    """What a server sends before anybody subscribes is counted, not kept (J18)."""

    async def greet(socket):
        for _ in range(5000):
            await socket.send('{"stream":"b","data":1}')

    async with Feed(greet) as feed, feed.client(transport=transport) as mux:
        # The server confirms it once all that has been read.
        await mux.subscribe("a", timeout=PATIENCE)
        stats = mux.stats()
        assert (stats.received, stats.unrouted, stats.control) == (5001, 5000, 1)


async def test_max_size(transport):
    """max_size holds for what comes out of compression (J19)."""
    async with (
        Feed() as feed,
        connection(feed, transport=transport, max_size=100_000) as client,
    ):
        events = client.events()
        await feed.sockets[0].send("x" * 10_000_000)
        event = await within(next_event(events, "disconnected"))
        assert event.code == 1009
        await feed.socket(1)


async def test_large_message():
    """A large message is received if max_size allows it (J19)."""
    async with Feed() as feed, connection(feed, max_size=2**25) as client:
        await feed.sockets[0].send("x" * 2**24)
        assert len(await client.receive(PATIENCE)) == 2**24


@pytest.mark.parametrize(
    "options",
    [
        {"channel_key": "stream"},
        {"channel_key": None, "channel_extractor": lambda m: m.get("stream")},
    ],
)
async def test_garbage(options):
    """Garbage, arrays, unhashable channels: counted, and harming nobody (J11)."""
    async with Feed() as feed, feed.client(**options) as mux:
        trades = await mux.subscribe("a")
        for frame in [*GARBAGE, b"\xff\xfe"]:
            await feed.sockets[0].send(frame)
        await feed.publish("a", "fine")
        assert (await trades.recv(PATIENCE))["data"] == "fine"
        stats = mux.stats()
        assert stats.undecodable + stats.unrouted == len(GARBAGE) + 1
        assert stats.undecodable > 0
        assert_conserved(stats)
