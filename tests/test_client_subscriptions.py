"""
What the readers of subscriptions and streams get, and what handlers do.
"""

from __future__ import annotations

import msgspec
import pytest

from feed import PATIENCE, Feed, assert_conserved, next_event

pytestmark = pytest.mark.usefixtures("nothing_left")


class Trade(msgspec.Struct):
    """
    What most messages of a feed are.
    """

    data: int


# Text whose key can be read, and what comes after it can't.
UNREADABLE = b'{"stream":"a","data":"\xff"}'


async def publish(feed, *values):
    """
    Send messages with these data on channel a.
    """
    for value in values:
        await feed.publish("a", value)


async def test_unreadable_message(transport):
    """A message that nothing can decode is skipped, counted, and told of."""
    async with Feed() as feed, feed.client(transport=transport) as mux:
        events, trades = mux.events(), await mux.subscribe("a")
        for _ in range(3):
            await feed.sockets[0].send(UNREADABLE, text=True)
        await publish(feed, 1)
        assert (await trades.recv(PATIENCE))["data"] == 1
        await next_event(events, "error")
        stats = mux.stats()
        assert (stats.undecodable, stats.delivered) == (3, 1)
        assert trades.stats().delivered == 1
        assert_conserved(stats)


async def test_unreadable_message_of_one_that_left():
    """What is skipped after its subscription has left is still counted once."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a", queue_size=2, overflow="error")
        await feed.sockets[0].send(UNREADABLE)
        await publish(feed, 1, 2)
        await mux.subscribe("b", timeout=PATIENCE)
        mux._router.leave(trades)
        assert await trades.recv_many() == [{"stream": "a", "data": 1}]
        assert mux.stats().undecodable == 1
        assert_conserved(mux.stats())


@pytest.mark.parametrize("text", ['"\\ud800"', "NaN", "1e999"])
async def test_unusual_message(text):
    """What msgspec finds too lax is read as json reads it, and iterating goes on."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a")
        await feed.sockets[0].send(f'{{"stream":"a","data":{text}}}')
        await feed.sockets[0].send('{"stream":"a","data":"last"}')
        async for message in trades:
            if message["data"] == "last":
                break
        assert trades.stats().delivered == 2


async def test_timeout_after_unreadable_messages():
    """The timeout of recv counts from its call, whatever is skipped meanwhile."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a")
        await feed.sockets[0].send(UNREADABLE)
        with pytest.raises(TimeoutError):
            await trades.recv(0.05)
        assert mux.stats().undecodable == 1


async def test_recv_many_of_a_wrong_type():
    """recv_many returns what comes before a message of another type, then raises."""
    async with Feed() as feed, feed.client(type=Trade) as mux:
        trades = await mux.subscribe("a")
        await publish(feed, 1, 2, "three", 4)
        await mux.subscribe("b", timeout=PATIENCE)
        assert await trades.recv_many() == [Trade(1), Trade(2)]
        with pytest.raises(msgspec.ValidationError):
            await trades.recv_many()
        assert await trades.recv_many() == [Trade(4)]
        assert_conserved(mux.stats())


async def test_repr():
    """A subscription shows its channel, and if it is closed."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a")
        assert repr(trades) == "<Subscription 'a'>"
        await trades.close()
        assert repr(trades) == "<Subscription 'a' closed>"
