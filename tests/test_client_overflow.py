"""
More messages than are read: what is kept, what is dropped, and what waits.
"""

from __future__ import annotations

import asyncio

import pytest

from channelsmultiplexer.client import (
    InboxFull,
    Multiplex,
)
from feed import (
    PATIENCE,
    Feed,
    Pinged,
    assert_conserved,
    next_event,
    within,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_burst(transport):
    """A burst far over the limit reaches a live reader in full (J2)."""
    async with Feed() as feed, feed.client(transport=transport) as mux:
        trades = await mux.subscribe("a")
        reading = asyncio.ensure_future(count(trades, 20_000))
        frame = '{"stream":"a","data":%d}'
        feed.sockets[0].transport.writelines(
            [text_frame(frame % i) for i in range(20_000)]
        )
        assert await asyncio.wait_for(reading, 30) == list(range(20_000))
        assert trades.dropped == 0


def text_frame(text):
    """
    Return a short text as a server's frame: RFC 6455, 5.2.
    """
    return bytes([0x81, len(text)]) + text.encode()


async def count(subscription, total):
    got = []
    async for message in subscription:
        got.append(message["data"])
        if len(got) == total:
            return got
    raise AssertionError("ended early")


@pytest.mark.parametrize(
    ("overflow", "kept", "dropped"),
    [
        ("drop_oldest", [7, 8, 9], 7),
        ("drop_newest", [0, 1, 2], 7),
        ("latest", [9], 9),
    ],
)
async def test_overflow(overflow, kept, dropped):
    """What a reader has no room for is dropped by the policy, and counted."""
    async with Feed() as feed, feed.client() as mux:
        events = mux.events()
        slow = await mux.subscribe("a", queue_size=3, overflow=overflow)
        live = await mux.subscribe("a")
        for i in range(10):
            await feed.publish("a", i)
            await live.recv(PATIENCE)
        assert [m["data"] for m in await slow.recv_many()] == kept
        assert slow.dropped == slow.stats().dropped == mux.stats().dropped == dropped
        assert (await within(next_event(events, "gap"))).count == 1


async def test_overflow_error():
    """With overflow="error" the reader gets what fitted, then the error."""
    async with Feed() as feed, feed.client() as mux:
        slow = await mux.subscribe("a", queue_size=3, overflow="error")
        live = await mux.subscribe("a")
        for i in range(5):
            await feed.publish("a", i)
            await live.recv(PATIENCE)
        assert [(await slow.recv(PATIENCE))["data"] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InboxFull, match="3 of 3"):
            await slow.recv(PATIENCE)


async def test_overflow_block():
    """With overflow="block" the network waits for the reader; nothing is lost."""
    async with Feed() as feed, feed.client() as mux:
        slow = await mux.subscribe("a", queue_size=3, overflow="block")
        await publish_many(feed, 200)
        got = [(await slow.recv(PATIENCE))["data"] for _ in range(200)]
        assert got == list(range(200))
        assert slow.dropped == 0


async def test_backpressure(transport):
    """A reader that doesn't read holds up the server, and takes no memory (J21)."""
    options = {"transport": transport, "compression": None, "overflow": "block"}
    async with Feed() as feed, feed.client(queue_size=3, **options) as mux:
        slow = await mux.subscribe("a")
        # More than the network takes.
        sending = asyncio.ensure_future(publish_many(feed, 1000, "x" * 32_768))
        # A thousand messages would come in as many turns.
        for _ in range(2000):
            await asyncio.sleep(0)
        assert not sending.done()
        # Three wait, one more is in the hand; the other is the confirmation.
        assert mux.stats().received <= 5
        for _ in range(1000):
            assert len((await slow.recv(PATIENCE))["data"]) == 32_768
        await within(sending)


async def test_lost_while_blocked(transport):
    """A link that is lost while its reader sends comes back; what came is kept."""
    options = {"transport": transport, "heartbeat": None}
    async with Feed() as feed, feed.client(**options) as mux:
        slow = await mux.subscribe("a", queue_size=3, overflow="block")
        await publish_many(feed, 50)
        feed.sockets[0].transport.abort()
        await within(send_until(mux, feed))
        got = [(await slow.recv(PATIENCE))["data"] for _ in range(5)]
        assert got == [0, 1, 2, 3, 4]
        assert_conserved(mux.stats())


async def send_until(mux, feed):
    while not feed.sockets[1:]:
        await mux.send("are you there?")
        # What is sent to nobody comes back as an error, by the network.
        await asyncio.sleep(0.001)


async def test_heartbeat_while_blocked(transport):
    """Heartbeats leave a link alone whose messages wait for their reader."""
    often = {"heartbeat": 0.01, "transport": transport, "compression": None}
    async with Feed(create_connection=Pinged) as feed, feed.client(**often) as mux:
        slow = await mux.subscribe("a", queue_size=3, overflow="block")
        # More than the transport takes: a pong is behind it.
        await publish_many(feed, 50)
        for _ in range(5):
            await within(feed.sockets[0].pings.acquire())
        got = [(await slow.recv(PATIENCE))["data"] for _ in range(50)]
        assert got == list(range(50))
        assert mux.stats().connection_stats["connections"] == 1


async def test_close_while_blocked():
    """Close doesn't wait for a reader that blocks the network; what came is kept."""
    async with Feed() as feed, feed.client() as mux:
        slow = await mux.subscribe("a", queue_size=3, overflow="block")
        await publish_many(feed, 50)
        await within(mux.close())
        assert [m["data"] async for m in slow][:4] == [0, 1, 2, 3]
        assert_conserved(mux.stats())


async def publish_many(feed, total, data=None):
    for i in range(total):
        await feed.publish("a", i if data is None else data)


async def test_unknown_overflow():
    """A policy that there isn't is refused at construction, as a negative size is."""
    with pytest.raises(ValueError, match="drop_oldest"):
        Multiplex("ws://x", overflow="drop")
    with pytest.raises(ValueError, match="0 or more"):
        Multiplex("ws://x", queue_size=-1)
