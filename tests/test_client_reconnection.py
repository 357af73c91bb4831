"""
A WebSocket that is always there, against servers that would rather it weren't.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools

import pytest

from channelsmultiplexer.client import (
    Closed,
    Connection,
    State,
)
from feed import (
    PATIENCE,
    Feed,
    at_once,
    connection,
    never,
    next_event,
    within,
)

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


@pytest.mark.parametrize("code", [1008, 4401, 4403])
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


async def test_refused_port(transport):
    """Connect to a port where nobody is raises a ConnectionError at once (J7)."""
    async with Feed() as feed:
        pass
    with pytest.raises(ConnectionError, match="1006"):
        await within(connection(feed, transport=transport).connect())


async def test_connect_timeout():
    """Connect with a timeout goes on trying until then (J7)."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 10_000
        client = connection(feed)
        with pytest.raises(TimeoutError):
            await within(client.connect(timeout=0.1))
        assert len(feed.requests) > 1
        assert client.state is State.CLOSED


async def test_connect_retries():
    """Connect with a timeout returns when an attempt succeeds."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 3
        client = connection(feed)
        await client.connect(timeout=PATIENCE)
        assert client.state is State.CONNECTED
        await client.close()


async def test_many_attempts():
    """A thousand failed attempts are no deeper a stack than one (J7)."""
    async with Feed() as feed, connection(feed) as client:
        feed.answers = [(503, {})] * 1000
        await feed.sockets[0].close(1012)
        await (await feed.socket(1)).send("at last")
        assert await asyncio.wait_for(client.receive(), 30) == "at last"


async def test_delays_end():
    """When there are no more delays the reason is raised to all who wait (J6)."""
    async with Feed() as feed, connection(feed, delays=never) as client:
        waiting = asyncio.ensure_future(client.receive())
        await feed.sockets[0].close(1012, "restart")
        with pytest.raises(Closed, match="restart"):
            await within(waiting)
        with pytest.raises(Closed, match="1012 restart"):
            await client.send("too late")


async def test_normal_end():
    """Iterating ends when a server that won't be called again closes normally (N1)."""
    async with Feed() as feed, connection(feed, delays=never) as client:
        await feed.sockets[0].send("last")
        await feed.sockets[0].close(1000)
        assert [frame async for frame in client] == ["last"]
        with pytest.raises(Closed) as caught:
            await client.receive()
        assert caught.value.code == 1000


@pytest.mark.parametrize(("stable_after", "delays"), [(0, [1, 1, 1]), (60, [1, 2, 3])])
async def test_delays_start_anew(stable_after, delays):
    """Delays grow over links that don't last, and start anew after one (J8, J10)."""
    made = []

    def scaled():
        made.append(None)
        # Too short to wait for, long enough to tell apart.
        return (n / 1e6 for n in itertools.count(1))

    async with (
        Feed() as feed,
        connection(feed, delays=scaled, stable_after=stable_after) as client,
    ):
        events = client.events()
        got = []
        for i in range(3):
            await (await feed.socket(i)).close(1012)
            event = await within(next_event(events, "retrying"))
            got.append(round(event.delay * 1e6))
        assert got == delays


async def test_accepts_and_closes():
    """A server that accepts and closes isn't called without pause."""

    async def close(socket):
        await socket.close(1011)

    async with Feed(close) as feed:
        client = Connection(feed.url, delays=lambda: iter([0, 0, 3600]))
        events = client.events()
        await client.connect()
        for _ in range(3):
            event = await within(next_event(events, "retrying"))
        assert event.delay == 3600
        assert len(feed.sockets) == 3
        await client.close()


async def test_vanished(transport):
    """A link that breaks without a word is a loss with code 1006."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.abort()
        event = await within(next_event(events, "disconnected"))
        assert event.code == 1006
        await feed.socket(1)


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


async def test_heartbeat_healthy(transport):
    """Heartbeats leave a link alone that answers, however quiet it is (J3, J4, N4)."""
    async with (
        Feed() as feed,
        connection(feed, transport=transport, heartbeat=0.02) as client,
    ):
        # Ten heartbeats are sent and answered meanwhile.
        with pytest.raises(TimeoutError):
            await client.receive(0.2)
        assert client.connections == 1


async def test_heartbeat_dead():
    """Heartbeats drop a link whose other end has stopped (N3)."""
    quick = {"heartbeat": 0.05, "close_timeout": 0.05}
    async with Feed() as feed, connection(feed, **quick) as client:
        events = client.events()
        feed.sockets[0].transport.pause_reading()
        event = await within(next_event(events, "disconnected"))
        assert event.code in (1006, 1011)
        await feed.socket(1)


async def test_uri_is_asked():
    """A function for the address, and for headers, is asked at each attempt."""
    async with Feed() as feed:
        numbers = itertools.count()

        async def uri():
            return f"{feed.url}?token={next(numbers)}"

        def headers():
            return {"X-Attempt": str(next(numbers))}

        async with Connection(uri, headers=headers, delays=at_once):
            await feed.sockets[0].close(1012)
            await feed.socket(1)
        asked = [(r.path, r.headers["X-Attempt"]) for r in feed.requests]
        assert asked == [("/?token=0", "1"), ("/?token=2", "3")]


async def test_redirect(transport):
    """A redirect is followed."""
    async with Feed() as feed, Feed() as other:
        other.answers = [(302, {"Location": feed.url})]
        async with connection(other, transport=transport):
            assert len(feed.sockets) == 1


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


async def test_invalid_frames(transport):
    """Bytes that are no WebSocket frame are a loss."""
    async with Feed() as feed, connection(feed, transport=transport) as client:
        events = client.events()
        feed.sockets[0].transport.write(b"\xff" * 100)
        assert (await within(next_event(events, "disconnected"))).code in (1002, 1006)
        await feed.socket(1)
