"""
A link that is replaced by a new one, before it is closed.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from channelsmultiplexer.client import (
    State,
)
from feed import (
    PATIENCE,
    Feed,
    assert_conserved,
    connection,
    next_event,
    within,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_renewal(transport):
    """A link is replaced before it is closed, and none is left (J5, A3, A4)."""
    due = [asyncio.Event(), asyncio.Event()]

    async def when():
        await due[len(feed.sockets) - 1].wait()

    async with (
        Feed() as feed,
        connection(feed, transport=transport, renew_after=when, overlap=0.5) as client,
    ):
        events = client.events()
        due[0].set()
        second = await feed.socket(1)
        for i in range(3):
            for socket in feed.sockets:
                await socket.send(str(i))
            assert await client.receive(PATIENCE) == str(i)
        await within(next_event(events, "renewed"))
        await within(feed.sockets[0].wait_closed())
        await second.send("after")
        assert await client.receive(PATIENCE) == "after"
        assert client.connections == 2


async def test_renewal_refused():
    """A link that can't be renewed goes on."""

    async def when():
        await due.wait()

    due = asyncio.Event()
    options = {"renew_after": when, "delays": lambda: iter([3600])}
    async with Feed() as feed, connection(feed, **options) as client:
        events = client.events()
        feed.answers = [(403, {})]
        due.set()
        event = await within(next_event(events, "error"))
        assert "HTTP 403" in str(event.error)
        await feed.sockets[0].send("alive")
        assert await client.receive(PATIENCE) == "alive"


async def test_renewal_raises():
    """A renewal that raises is told of once, and the link goes on (A7)."""

    async def when():
        raise TypeError("passing coroutines is forbidden")

    async with Feed() as feed:
        client = connection(feed, renew_after=when, delays=lambda: iter([3600]))
        errors = []
        client.on("error", errors.append)
        await client.connect()
        for i in range(5):
            await feed.sockets[0].send(str(i))
            assert await client.receive(PATIENCE) == str(i)
        assert [type(event.error) for event in errors] == [TypeError]
        assert len(feed.requests) == 1
        await client.close()


async def test_renewal_after_seconds():
    """renew_after can be a number; overlap bounds how long both stay."""
    async with (
        Feed() as feed,
        connection(feed, renew_after=0.01, overlap=0.01) as client,
    ):
        await within(next_event(client.events(), "renewed"))
        await within(feed.sockets[0].wait_closed())
        assert client.state is State.CONNECTED


async def test_answers_in_flight(transport):
    """What the old link is still to answer comes, after the new one has taken over."""
    due = asyncio.Event()
    options = {"renew_after": due.wait, "transport": transport}
    async with Feed() as feed, connection(feed, **options) as client:
        events = client.events()
        due.set()
        await feed.socket(1)
        for socket in feed.sockets:
            await socket.send("by both")
        await within(next_event(events, "connected"))
        # Were the old link being closed, that would come before the pong.
        await within(await feed.sockets[0].ping())
        await feed.sockets[0].send("answer")
        for frame in ("by both", "answer"):
            assert await client.receive(PATIENCE) == frame


@pytest.mark.parametrize("client_of", [connection, Feed.client])
async def test_equal_answers(client_of):
    """An answer by the new link isn't taken for an equal one that the old one gave."""
    due = asyncio.Event()
    # The first answer is never paired, so the new link takes over when that is over.
    options = {"renew_after": due.wait, "overlap": 0.1}
    async with Feed() as feed, client_of(feed, **options) as client:
        events = client.events()
        last = asyncio.ensure_future(client.receive(PATIENCE))
        due.set()
        second = await feed.socket(1)
        await feed.sockets[0].send('"ok"')
        await within(last)
        for socket in feed.sockets:
            await socket.send('"by both"')
        await client.receive(PATIENCE)
        await within(next_event(events, "connected"))
        await client.send("get")
        await second.send('"ok"')
        assert await client.receive(PATIENCE) in ("ok", '"ok"')


async def test_brought_while_the_new_one_opens(transport):
    """What a server sends unasked comes once, though the new link logs in meanwhile."""
    due, may_log_in = asyncio.Event(), asyncio.Event()

    async def log_in(link):
        if len(feed.sockets) > 1:
            await may_log_in.wait()

    options = {"renew_after": due.wait, "on_connect": log_in, "transport": transport}
    async with Feed() as feed, connection(feed, **options) as client:
        due.set()
        second = await feed.socket(1)
        for socket in feed.sockets:
            await socket.send("by both")
        assert await client.receive(PATIENCE) == "by both"
        may_log_in.set()
        await second.send("next")
        assert await client.receive(PATIENCE) == "next"


async def test_subscribed_after_the_promotion():
    """What is wanted once the new link has taken over isn't asked of the old one."""
    due = asyncio.Event()
    async with Feed() as feed, feed.client(renew_after=due.wait) as mux:
        events = mux.events()
        await mux.subscribe("a")
        due.set()
        await feed.message(1)
        for frame in range(2):
            await feed.publish("a", frame)
        await within(next_event(events, "connected"))
        await mux.subscribe("b", timeout=PATIENCE)
        # A pong comes after all that was sent before it.
        await within(await feed.sockets[0].ping())
        assert [feed.subscribed[s] for s in feed.sockets] == [["a"], ["a", "b"]]


async def test_lost_during_renewal():
    """A link that is lost while its successor is being opened is no end."""

    async def when():
        if feed.sockets[1:]:
            await asyncio.Event().wait()

    async with Feed() as feed:

        async def login(link):
            if feed.sockets[1:]:
                feed.sockets[0].transport.abort()

        options = {"renew_after": when, "on_connect": login}
        async with connection(feed, **options) as client:
            await within(next_event(client.events(), "renewed"))
            await feed.sockets[1].send("on the new one")
            assert await client.receive(PATIENCE) == "on the new one"


async def test_renewal_loses_nothing():
    """Renewals in mid-traffic bring every message once, in order (A4)."""
    due, numbers = asyncio.Event(), itertools.count()

    async def when():
        await due.wait()
        due.clear()

    async def exchange():
        sent = [next(numbers) for _ in range(20)]
        for number in sent:
            await feed.publish("a", number)
        assert [(await trades.recv(PATIENCE))["data"] for _ in sent] == sent

    async with Feed() as feed, feed.client(renew_after=when, overlap=0.3) as mux:
        trades, events = await mux.subscribe("a"), mux.events()
        await feed.message()
        for link in (1, 2, 3):
            await exchange()
            due.set()
            await exchange()  # While the new link is opened.
            await feed.message(link)
            await exchange()  # Now both bring them.
            await within(next_event(events, "renewed"))
        await exchange()
        assert mux.stats().filtered > 0
        assert_conserved(mux.stats())
