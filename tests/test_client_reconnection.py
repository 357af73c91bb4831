"""
A WebSocket that is always there: how often, how soon, and how long it is tried.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from channelsmultiplexer.client import (
    Closed,
    Connection,
    MemoryServer,
    State,
)
from feed import (
    PATIENCE,
    Feed,
    Pinged,
    at_once,
    connection,
    never,
    next_event,
    within,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_refused_port(transport):
    """Connect to a port where nobody is raises a ConnectionError at once (J7)."""
    async with Feed() as feed:
        pass
    with pytest.raises(ConnectionError, match="1006"):
        await within(connection(feed, transport=transport).connect())


async def test_connect_timeout():
    """Connect with a timeout raises when there is no link by then (J7)."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 2
        client = connection(feed, delays=lambda: itertools.repeat(3600))
        with pytest.raises(TimeoutError):
            await within(client.connect(timeout=0.01))
        assert client.state is State.CLOSED


async def test_connect_retries():
    """Connect with a timeout goes on trying, and returns when it succeeds (J7)."""
    async with Feed() as feed:
        feed.answers = [(503, {})] * 3
        client = connection(feed)
        await client.connect(timeout=PATIENCE)
        assert client.state is State.CONNECTED
        await client.close()


async def test_many_attempts():
    """Thousands of failed attempts are no deeper a stack than one (J7)."""
    server, numbers = MemoryServer(), itertools.count()

    # So many real handshakes would take this machine seconds.
    async def connect(uri, **options):
        if 0 < next(numbers) < 3000:
            raise ConnectionRefusedError
        return await server.connect(uri, **options)

    async with Connection("ws://test", transport=connect, delays=at_once) as client:
        (await server.accept()).abort()
        await (await server.accept(PATIENCE)).send("at last")
        assert await client.receive(PATIENCE) == "at last"


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
    """Delays grow over links that don't last, and start anew after one (J8)."""

    def scaled():
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


async def test_iterating_goes_on():
    """Iterating goes on over any number of losses (J10)."""

    async def greet(socket):
        await socket.send(str(len(feed.sockets)))
        await socket.close(1012)

    async with Feed(greet) as feed, connection(feed) as client:
        frames = client.iter_messages()
        got = [await within(frames.__anext__()) for _ in range(5)]
        assert got == ["1", "2", "3", "4", "5"]


async def test_heartbeat_healthy(transport):
    """Heartbeats leave a link alone that answers, however quiet it is (J3)."""
    # However long an answer takes on this machine.
    often = {"heartbeat": 0.01, "ping_timeout": PATIENCE}
    async with (
        Feed(create_connection=Pinged) as feed,
        connection(feed, transport=transport, **often) as client,
    ):
        # The next ping is sent when the last has been answered.
        for _ in range(5):
            await within(feed.sockets[0].pings.acquire())
        assert client.connections == 1


@pytest.mark.parametrize("heartbeat", [0.5, 5, 10.0, 3600, None])
async def test_heartbeat_of_any_length(heartbeat):
    """A heartbeat may be of any length, or none (J4)."""
    async with Feed() as feed, connection(feed, heartbeat=heartbeat) as client:
        assert client.state is State.CONNECTED


async def test_server_pings(transport):
    """A server's ping is answered with what it sent (N4)."""
    async with Feed() as feed, connection(feed, transport=transport):
        # A pong that carries anything else is none, to the server.
        pong = await feed.sockets[0].ping(b"are you there?")
        assert await within(pong) >= 0


async def test_options_are_its_own():
    """Each connection has the pings and the headers that it was given (N8)."""
    beats = {"heartbeat": 0.01, "ping_timeout": PATIENCE, "headers": {"a": "1"}}
    async with (
        Feed(create_connection=Pinged) as feed,
        connection(feed, **beats),
        connection(feed, headers={"a": "2"}),
    ):
        for _ in range(3):
            await within(feed.sockets[0].pings.acquire())
        assert feed.sockets[1].pings.locked()
        assert [r.headers["a"] for r in feed.requests] == ["1", "2"]


async def test_unknown_option(transport):
    """An option that does nothing isn't taken (J16)."""
    with pytest.raises(TypeError, match="buffer"):
        Connection("ws://test", transport=transport, buffer=1000)


@pytest.mark.parametrize("seconds", [-1, 0, float("nan")])
@pytest.mark.parametrize(
    "name", ["heartbeat", "message_timeout", "open_timeout", "overlap", "renew_after"]
)
async def test_seconds_that_cannot_be(name, seconds):
    """Times that can't be meant are refused at construction."""
    with pytest.raises(ValueError, match=name):
        Connection("ws://test", **{name: seconds})


async def test_close_without_end():
    """A connection that can't be broken off has a limit for its closing."""
    with pytest.raises(ValueError, match="seconds for close_timeout"):
        Connection("ws://test", transport="picows", close_timeout=None)


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
