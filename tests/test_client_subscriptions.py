"""
What the readers of subscriptions and streams get, and what handlers do.
"""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from channelsmultiplexer.client import Closed
from feed import PATIENCE, Feed, assert_conserved, never, next_event, within

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


async def test_unsubscribed_while_it_waits():
    """Who waits to be confirmed is told when another task unsubscribes."""
    async with Feed() as feed, feed.client(ack=lambda *_: None) as mux:
        waiting = asyncio.ensure_future(mux.subscribe("a"))
        await feed.message()
        assert await mux.unsubscribe("a")
        with pytest.raises(Closed, match="unsubscribed"):
            await within(waiting)
        assert mux.list_subscriptions() == []


async def test_early_one_that_cannot_be_asked_for():
    """A subscription made before connect() ends if its message can't be made."""

    def fail(channel):
        raise LookupError(f"no market {channel}")

    async with Feed() as feed:
        mux = feed.client(subscribe_msg=fail)
        early = await mux.subscribe("a")
        async with mux:
            with pytest.raises(Closed, match="no market a"):
                await early.recv(PATIENCE)
            assert mux.list_subscriptions() == []


async def test_end_is_raised_as_new():
    """An end that is asked for again and again carries no more with it each time."""
    async with Feed() as feed, feed.client(delays=never) as mux:
        trades = await mux.subscribe("a")
        await feed.sockets[0].close(1008)
        for _ in range(3):
            with pytest.raises(Closed) as caught:
                await trades.recv(PATIENCE)
        assert len(caught.traceback) < 10


async def test_nothing_is_listed_after_the_end():
    """A connection that is closed has no subscriptions."""
    async with Feed() as feed, feed.client() as mux:
        await mux.subscribe("a")
        assert mux.list_subscriptions() == ["a"]
        await mux.close()
        assert mux.list_subscriptions() == []


async def test_keys_of_a_type():
    """A filter's messages are decoded into a type as a channel's are."""
    async with Feed() as feed, feed.client(type=dict[str, dict[int, str] | str]) as mux:
        await mux.subscribe("a")
        found = mux.stream_filter([{"stream": "a"}])
        await feed.publish("a", {1: "one"})
        assert (await found.recv(PATIENCE))["data"] == {1: "one"}
