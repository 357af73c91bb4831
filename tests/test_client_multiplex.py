"""
Many subscriptions over one connection, to a feed that behaves and to one that doesn't.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import weakref

import msgspec
import pytest

from channelsmultiplexer.client import (
    Closed,
    Multiplex,
    MultiplexStats,
    RateLimit,
    Refused,
    State,
)
from feed import (
    PATIENCE,
    Feed,
    at_once,
    confirms,
    never,
    next_event,
    subscribe,
    within,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


class Data(msgspec.Struct):
    price: float


class Trade(msgspec.Struct):
    data: Data


async def test_typed():
    """Messages are decoded into the type asked for; a bad one harms no other (J17)."""
    async with Feed() as feed, feed.client(type=Trade) as mux:
        trades = await mux.subscribe("a")
        plain = await mux.subscribe("a", type=dict)
        for price in (1.5, "?", 2.5):
            await feed.publish("a", {"price": price})
        assert (await trades.recv(PATIENCE)).data.price == 1.5
        with pytest.raises(msgspec.ValidationError):
            await trades.recv(PATIENCE)
        assert (await trades.recv(PATIENCE)).data.price == 2.5
        assert len(await plain.recv_many()) == 3


@pytest.mark.parametrize("key", ["stream", ("arg", "channel")])
async def test_channel_key(key):
    """A channel's key may be nested; NaN and lone surrogates are read too."""
    async with Feed() as feed, feed.client(channel_key=key, ack=None) as mux:
        trades = await mux.subscribe("a")
        for value in ("NaN", '"\\ud800"', "1"):
            text = f'{{"stream":"a","arg":{{"channel":"a"}},"value":{value}}}'
            await feed.sockets[0].send(text)
        got = [(await trades.recv(PATIENCE))["value"] for _ in range(3)]
        assert got[0] != got[0]
        assert got[1:] == ["\ud800", 1]


async def test_resubscribed():
    """After a loss every channel is asked for once, and told of as a gap (J1, N1)."""
    async with Feed() as feed, feed.client(batch_size=2) as mux:
        events = mux.events()
        names = ["a", "b", "c"]
        subs = await asyncio.gather(*(mux.subscribe(n, timeout=5) for n in names))
        await feed.sockets[0].close(1012)
        gaps = [await within(next_event(events, "gap")) for _ in names]
        assert sorted(gap.channel for gap in gaps) == names
        asked = [(await feed.message(1))["params"] for _ in range(2)]
        assert sorted(map(len, asked)) == [1, 2]
        assert sorted(feed.subscribed[feed.sockets[1]]) == names
        for sub in subs:
            await feed.publish(sub.channel, 1)
            assert (await sub.recv(PATIENCE))["data"] == 1


async def test_resubscribed_within_limits():
    """Re-subscription keeps to the rate limits, and signs what was signed."""
    stamps = itertools.count()

    def sign(message):
        return {**message, "stamp": next(stamps)}

    limits = [RateLimit("default", 6, 3600)]
    async with Feed() as feed, feed.client(limits=limits, auth=sign) as mux:
        for name in "abcd":
            await mux.subscribe(name, auth=True)
        await feed.sockets[0].close(1012)
        got = [await feed.message(1) for _ in range(2)]
        assert [message["stamp"] for message in got] == [4, 5]
        # What the client has sent is there before its pong.
        await within(await feed.sockets[1].ping())
        assert feed.got[1].empty()


async def test_subscribe_before_connect():
    """What a server sends first reaches who subscribed before it was connected to."""

    async def greet(socket):
        await socket.send('{"stream":"a","data":1}')

    async with Feed(greet) as feed:
        mux = feed.client()
        trades = await mux.subscribe("a")
        async with mux:
            assert (await trades.recv(PATIENCE))["data"] == 1
            assert (await feed.message())["params"] == ["a"]


async def test_refused_subscribe_before_connect():
    """The reader is told that a server refused what was subscribed before."""
    async with Feed() as feed:
        mux = feed.client()
        refused = await mux.subscribe("bad")
        async with mux:
            with pytest.raises(Refused, match="no such channel"):
                await refused.recv(PATIENCE)


async def test_ack():
    """Subscribe returns when the server has confirmed, and raises if it refuses."""
    async with Feed() as feed, feed.client() as mux:
        await mux.subscribe("good")
        assert feed.subscribed[feed.sockets[0]] == ["good"]
        with pytest.raises(Refused, match="no such channel"):
            await mux.subscribe("bad")
        assert mux.list_subscriptions() == ["good"]
        assert mux.stats().control == 2


async def test_ack_timeout():
    """Subscribe without an answer raises the builtin TimeoutError, and is undone."""
    async with Feed() as feed, feed.client(ack=lambda channel, message: None) as mux:
        with pytest.raises(TimeoutError):
            await mux.subscribe("a", timeout=0.01)
        assert mux.list_subscriptions() == []
        assert (await feed.message())["method"] == "SUBSCRIBE"
        assert (await feed.message())["method"] == "UNSUBSCRIBE"


async def test_failed_subscribe():
    """A subscribe that failed can be done again (J15)."""
    calls = itertools.count()

    def make(channel):
        if next(calls) == 0:
            raise LookupError(channel)
        return subscribe(channel)

    async with Feed() as feed, feed.client(subscribe_msg=make) as mux:
        with pytest.raises(LookupError):
            await mux.subscribe("a")
        await mux.subscribe("a", timeout=PATIENCE)
        assert feed.subscribed[feed.sockets[0]] == ["a"]


async def test_subscribe_while_down():
    """Subscribe while there is no link returns when there is one again."""
    async with Feed() as feed, feed.client() as mux:
        feed.answers = [(503, {})] * 20
        mux.present_ws.transport.abort()
        await mux.subscribe("a", timeout=PATIENCE)
        assert feed.subscribed[feed.sockets[1]] == ["a"]


async def test_same_channel():
    """Several subscriptions each get everything, asked for once (J14)."""
    async with Feed() as feed, feed.client() as mux:
        first, second = await mux.subscribe("a"), await mux.subscribe("a")
        assert feed.subscribed[feed.sockets[0]] == ["a"]
        await feed.publish("a", 1)
        assert (await first.recv(5))["data"] == (await second.recv(5))["data"] == 1
        await first.close()
        await feed.publish("a", 2)
        assert (await second.recv(PATIENCE))["data"] == 2
        assert [m async for m in first] == []
        await second.close()
        methods = [(await feed.message())["method"] for _ in range(2)]
        assert methods == ["SUBSCRIBE", "UNSUBSCRIBE"]


async def test_unsubscribe_and_subscribe():
    """Leaving a channel and coming back in one breath ends subscribed."""
    async with Feed() as feed, feed.client() as mux:
        async with await mux.subscribe("a"):
            pass
        again = await mux.subscribe("a", timeout=PATIENCE)
        await feed.publish("a", 1)
        assert (await again.recv(PATIENCE))["data"] == 1


async def test_queued_at_close():
    """What waits when the connection is closed is delivered, then it ends (J13)."""
    async with Feed() as feed:
        mux = feed.client()
        await mux.connect()
        trades, live = await mux.subscribe("a"), await mux.subscribe("a")
        for i in range(5):
            await feed.publish("a", i)
            await live.recv(PATIENCE)
        await mux.close()
        assert [m["data"] async for m in trades] == [0, 1, 2, 3, 4]
        with pytest.raises(Closed, match="1000"):
            await trades.recv()


async def test_fatal_end():
    """When it ends for good all readers get what waits, then the reason (J6)."""
    async with Feed() as feed, feed.client() as mux:
        trades, stream = await mux.subscribe("a"), mux.stream_filter([{"x": 1}])
        others = [asyncio.ensure_future(get()) for get in (stream.recv, mux.receive)]
        await feed.publish("a", 1)
        await feed.sockets[0].close(4401, "expired")
        assert (await trades.recv(PATIENCE))["data"] == 1
        with pytest.raises(Closed, match="4401 expired"):
            await trades.recv(PATIENCE)
        for waiting in others:
            with pytest.raises(Closed, match="4401 expired"):
                await within(waiting)
        with pytest.raises(Closed):
            await mux.subscribe("b")
        assert not trades.is_active
        assert mux.state is State.CLOSED


async def test_cancelled_recv():
    """Cancelling recv is never swallowed, and loses no message (A5)."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a")
        for i in range(30):
            waiting = asyncio.ensure_future(trades.recv(PATIENCE))
            await asyncio.sleep(0)  # Let it wait.
            await feed.publish("a", i)
            for _ in range(i % 6):
                await asyncio.sleep(0)  # Any stage of the delivery.
            if waiting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert (await trades.recv(PATIENCE))["data"] == i
            else:
                assert waiting.result()["data"] == i


async def test_two_readers():
    """A second reader of one subscription is told so."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a")
        first = asyncio.ensure_future(trades.recv())
        await asyncio.sleep(0)  # Let it wait.
        with pytest.raises(RuntimeError, match="another task"):
            await trades.recv()
        await feed.publish("a", 1)
        assert (await within(first))["data"] == 1


async def test_extractor_of_lists():
    """A channel may be anything hashable that the extractor returns."""

    def channel(message):
        arg = message.get("arg")
        return (arg["channel"], arg["id"])

    async with (
        Feed() as feed,
        Multiplex(feed.url, channel_extractor=channel) as mux,
    ):
        book = await mux.subscribe(("books", 7))
        await feed.sockets[0].send('{"arg":{"channel":"books","id":7}}')
        assert (await book.recv(PATIENCE))["arg"]["id"] == 7


async def test_closed_subscriptions_are_forgotten():
    """A subscription that is closed leaves nothing behind, not even itself."""
    async with Feed() as feed, feed.client() as mux:
        stream = mux.stream_filter([{"a": 1}])
        trades = await mux.subscribe("a")
        references = [weakref.ref(stream), weakref.ref(trades)]
        await stream.close()
        await stream.close()
        await trades.close()
        del stream, trades
        gc.collect()
        assert [r() for r in references] == [None, None]


def test_mistakes_of_a_dialect():
    """What a dialect has no use for is refused at construction, as no batch is."""
    with pytest.raises(ValueError, match="messages of its own"):
        Multiplex("ws://x", dialect="v1", subscribe_msg=str)
    with pytest.raises(ValueError, match="1 or more"):
        Multiplex("ws://x", batch_size=0)


async def test_documented_stats():
    """Each number that is documented is there, and says something (J16)."""
    async with Feed() as feed, feed.client() as mux:
        trades = await mux.subscribe("a")
        names = re.findall(r"^ +(\w+): ", MultiplexStats.__doc__, re.MULTILINE)
        assert len(names) > 10
        stats = mux.stats()
        assert [name for name in names if getattr(stats, name, None) is None] == []
        assert stats.total_subscriptions == stats.control == 1
        assert trades.stats().queue_size == 0


async def test_repr():
    """A multiplex says where to, and how it is doing."""
    async with Feed() as feed, feed.client() as mux:
        assert repr(mux) == f"<Multiplex '{feed.url}' connected>"
        assert mux.is_connected
        assert mux.uri == feed.url


async def test_subscribe_all_at_once():
    """A thousand channels in one tick are all subscribed, fifty to a message."""
    async with Feed() as feed, feed.client(batch_size=50, ack=None) as mux:
        names = [f"c{i}" for i in range(1000)]
        await within(asyncio.gather(*map(mux.subscribe, names)))
        for _ in range(20):
            assert len((await feed.message())["params"]) == 50
        assert feed.subscribed[feed.sockets[0]] == names


def test_ack_of_the_feed():
    """The feed's confirmations tell a channel's from another's."""
    assert confirms("a", {"channels": ["a"], "result": None}) is True
    assert confirms("a", {"channels": ["b"], "result": None}) is None
    assert list(never()) == []
    assert next(at_once()) == 0
