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
        connection(feed, transport=transport, renew_after=when) as client,
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
    async with Feed() as feed, connection(feed, renew_after=when) as client:
        events = client.events()
        feed.answers = [(403, {})]
        due.set()
        event = await within(next_event(events, "error"))
        assert "HTTP 403" in str(event.error)
        await feed.sockets[0].send("alive")
        assert await client.receive(PATIENCE) == "alive"


async def test_renewal_after_seconds():
    """renew_after can be a number; overlap bounds how long both stay."""
    async with (
        Feed() as feed,
        connection(feed, renew_after=0.01, overlap=0.01) as client,
    ):
        await within(next_event(client.events(), "renewed"))
        await within(feed.sockets[0].wait_closed())
        assert client.state is State.CONNECTED


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
    """A renewal in mid-traffic brings every message once, in order (A4)."""
    due = asyncio.Event()

    async def when():
        await due.wait()
        due.clear()

    async with Feed() as feed, feed.client(renew_after=when) as mux:
        trades, events = await mux.subscribe("a"), mux.events()
        got = []
        reading = asyncio.ensure_future(collect(trades, got))
        for i in itertools.count():
            await feed.publish("a", i)
            if i % 100 == 50:
                due.set()
            if i % 10 == 0:
                await asyncio.sleep(0.001)  # A feed has its own pace.
            if len(feed.sockets) == 4 and mux.present_ws and i % 100 == 0:
                break
        total = i + 1
        while len(got) < total:
            await within(next_any(trades))
        reading.cancel()
        assert got == list(range(total))
        names = [await within(next_event(events, "renewed")) for _ in range(2)]
        assert len(names) == 2
        assert mux.stats().filtered > 0
        assert_conserved(mux.stats())


async def collect(subscription, got):
    async for message in subscription:
        got.append(message["data"])


async def next_any(subscription):
    await asyncio.sleep(0.001)  # For the reader, which has no event of its own.
