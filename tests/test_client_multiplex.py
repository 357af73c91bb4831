"""
Many subscriptions over one connection, to a feed that behaves and to one that doesn't.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import weakref

import msgspec
import pytest

from channelsmultiplexer.client import (
    Closed,
    InboxFull,
    Multiplex,
    RateLimit,
    Refused,
    State,
)
from feed import PATIENCE, Feed, at_once, confirms, never, subscribe, within
from test_client_connection import next_event, nothing_left

__all__ = ["nothing_left"]

# Which messages (rows) match which filters: the table of the interface's own rule.
MESSAGES = [
    {"a": 1, "c": 2},
    {"b": 2, "c": 3, "d": 4},
    {"a": 2, "c": 2},
    {"b": 2, "c": 4, "d": 4},
    {"a": True},
    {"a": {"x": 1}},
    {"a": {"x": 1, "y": 2}},
    {"a": None},
    {},
    [1],
]
FILTERS = [
    (None, range(10)),
    ([], range(10)),
    ([{}], range(10)),
    ([{"a": 1}, {"b": 2, "c": 3}], [0, 1, 4]),
    ([{"a": 1, "c": 2}], [0]),
    ([{"a": {"x": 1}}], [5]),
    ([{"a": None}], [7]),
    ([{"zzz": None}], []),
]


class Data(msgspec.Struct):
    price: float


class Trade(msgspec.Struct):
    data: Data


async def test_seed_multiplex():
    """The multiplexing page's example runs: two channels, one socket, statistics."""
    async with (
        Feed() as feed,
        Multiplex(
            feed.url,
            channel_key="stream",
            subscribe_msg=lambda ch: {"method": "SUBSCRIBE", "params": [ch], "id": ch},
            unsubscribe_msg=lambda ch: {
                "method": "UNSUBSCRIBE",
                "params": [ch],
                "id": ch,
            },
            queue_size=1000,
        ) as mux,
    ):
        btc = await mux.subscribe("btcusdt@trade")
        eth = await mux.subscribe("ethusdt@trade", timeout=PATIENCE)
        for _ in range(2):
            await feed.message()
        await feed.publish("ethusdt@trade", {"price": "2"})
        await feed.publish("btcusdt@trade", {"price": "1"})
        async for trade in btc:
            assert trade == {"stream": "btcusdt@trade", "data": {"price": "1"}}
            break
        assert (await eth.recv(timeout=PATIENCE))["data"] == {"price": "2"}
        assert mux.list_subscriptions() == ["btcusdt@trade", "ethusdt@trade"]
        assert mux.get_subscription("ethusdt@trade") is eth
        stats = mux.stats()
        assert (stats.total_subscriptions, stats.active_subscriptions) == (2, 2)
        assert (stats.total_messages_routed, stats.unroutable_messages) == (2, 2)
        assert (btc.stats().channel, btc.stats().messages_received) == (btc.channel, 1)
        assert await mux.unsubscribe("ethusdt@trade") is True
        assert await mux.unsubscribe("ethusdt@trade") is False
        assert (await feed.message())["method"] == "UNSUBSCRIBE"


async def test_seed_manager():
    """The manager page's example runs: connect, send, iterate, leave (N9)."""
    limits = [RateLimit("default", limit=10, interval=1.0)]
    async with Feed() as feed:
        mux = Multiplex(feed.url, limits=limits, heartbeat=10, headers={"X-Key": "k"})
        await mux.connect()
        await mux.send({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1})
        got = []
        async for message in mux.iter_messages():
            got.append(message)
            if len(got) == 2:
                break
            await feed.publish("btcusdt@trade", {"price": "1"})
        assert got[0]["id"] == 1
        assert got[1]["stream"] == "btcusdt@trade"
        assert mux.last_recv_time > 0
        assert feed.requests[0].headers["X-Key"] == "k"
        await mux.disconnect()


async def test_seed_interface():
    """The interface page's example runs: renewal by a message, filters (A7)."""

    async def when():
        expired = mux.stream_filter([{"e": "listenKeyExpired"}])
        async for _ in expired:
            await expired.close()
            return

    async with Feed() as feed:
        mux = Multiplex(lambda: feed.url, renew_after=when, overlap=0.01)
        await mux.connect()
        handled = []
        mux.add_handler(handled.append)
        stream = mux.stream_filter([{"a": 1}, {"b": 2, "c": 3}])
        events = mux.events()
        await asyncio.sleep(0)  # Let the renewal begin to wait.
        for message in MESSAGES[:4]:
            await feed.sockets[0].send(json.dumps(message))
        assert [await stream.recv(PATIENCE) for _ in range(2)] == MESSAGES[:2]
        await feed.sockets[0].send('{"e":"listenKeyExpired"}')
        await within(next_event(events, "renewed"))
        assert handled[:4] == MESSAGES[:4]
        assert mux.present_ws is not None
        await stream.close()
        await mux.exit()


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
async def test_filters(filters, expected):
    """A message matches a filter if it has all pairs of any of its dicts."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        stream = mux.stream_filter(filters)
        rest = mux.stream_filter([{"the": "end"}])
        for message in [*MESSAGES, {"the": "end"}]:
            await feed.sockets[0].send(json.dumps(message))
        await rest.recv(PATIENCE)
        got = await stream.recv_many() if expected else []
        if got and got[-1] == {"the": "end"}:
            got.pop()
        assert got == [MESSAGES[i] for i in expected]


async def test_handler():
    """A slow handler delays nobody; a removed one isn't called (A6)."""
    release, slow, quick = asyncio.Event(), [], []

    async def dawdle(message):
        slow.append(message)
        await release.wait()

    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(dawdle)
        handle = mux.add_handler(quick.append)
        stream = mux.stream_filter()
        for i in range(10):
            await feed.sockets[0].send(str(i))
            assert await stream.recv(PATIENCE) == i
        assert (slow, quick) == ([0], list(range(10)))
        # Nothing is kept for nobody (J18).
        assert mux.stats().queued == 9
        await handle.remove()
        await feed.sockets[0].send("10")
        assert await stream.recv(PATIENCE) == 10
        assert len(quick) == 10


async def test_handler_raises(caplog):
    """What a handler raises is logged, and the next message handled."""
    handled = []

    def fails(message):
        handled.append(message)
        raise LookupError(message)

    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(fails)
        stream = mux.stream_filter()
        for i in range(2):
            await feed.sockets[0].send(str(i))
            await stream.recv(PATIENCE)
        await asyncio.sleep(0)  # Let the handler have its turn.
    assert handled == [0, 1]
    assert len(caplog.records) == 2


async def test_handler_closes():
    """A handler may close the connection (A8)."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.add_handler(lambda message: mux.close())
        await feed.sockets[0].send("0")
        await within(next_event(mux.events(), "closed"))


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

    limits = [RateLimit("default", 2, 0.05)]
    async with Feed() as feed, feed.client(limits=limits, auth=sign) as mux:
        for name in "abcd":
            await mux.subscribe(name, auth=True)
        start = asyncio.get_running_loop().time()
        await feed.sockets[0].close(1012)
        got = [await feed.message(1) for _ in "abcd"]
        assert asyncio.get_running_loop().time() - start >= 0.05
        assert [message["stamp"] for message in got] == [4, 5, 6, 7]


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


@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_burst(transport):
    """A burst far over the limit reaches a live reader in full (J2, J18, A2)."""
    if transport == "picows":
        pytest.importorskip("picows")
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
        slow = await mux.subscribe("a", limit=3, overflow=overflow)
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
        slow = await mux.subscribe("a", limit=3, overflow="error")
        live = await mux.subscribe("a")
        for i in range(5):
            await feed.publish("a", i)
            await live.recv(PATIENCE)
        got = []
        with pytest.raises(InboxFull, match="3 of 3"):
            await collect(slow, got)
        assert got == [0, 1, 2]


async def test_overflow_block():
    """With overflow="block" the network waits for the reader; nothing is lost."""
    async with Feed() as feed, feed.client() as mux:
        slow = await mux.subscribe("a", limit=3, overflow="block")
        await publish_many(feed, 200)
        got = [(await slow.recv(PATIENCE))["data"] for _ in range(200)]
        assert got == list(range(200))
        assert slow.dropped == 0


async def test_close_while_blocked():
    """Close doesn't wait for a reader that blocks the network; what came is kept."""
    async with Feed() as feed, feed.client() as mux:
        slow = await mux.subscribe("a", limit=3, overflow="block")
        await publish_many(feed, 50)
        await within(mux.close())
        assert [m["data"] async for m in slow][:4] == [0, 1, 2, 3]
        assert_conserved(mux.stats())


async def publish_many(feed, total):
    for i in range(total):
        await feed.publish("a", i)


async def test_unknown_overflow():
    """A policy that there isn't is refused at construction, as a negative size is."""
    with pytest.raises(ValueError, match="drop_oldest"):
        Multiplex("ws://x", overflow="drop")
    with pytest.raises(ValueError, match="0 or more"):
        Multiplex("ws://x", queue_size=-1)


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
    """When it ends for good all readers get what waits, then the reason (J6, A2)."""
    async with Feed() as feed, feed.client() as mux:
        trades, stream = await mux.subscribe("a"), mux.stream_filter([{"x": 1}])
        others = [
            asyncio.ensure_future(s.recv()) for s in (stream, mux) if hasattr(s, "recv")
        ]
        pending = asyncio.ensure_future(mux.receive())
        await feed.publish("a", 1)
        await feed.sockets[0].close(4401, "expired")
        assert (await trades.recv(PATIENCE))["data"] == 1
        with pytest.raises(Closed, match="4401 expired"):
            await trades.recv(PATIENCE)
        for waiting in [*others, pending]:
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


GARBAGE = [
    "",
    "{",
    "[1, 2]",
    "null",
    '{"stream":{"a":1}}',
    '{"stream":null}',
    "\x00",
    '{"stream":["a"]}',
    "1e999",
    "[" * 5000,
]


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


def assert_conserved(stats):
    assert stats.received + stats.copied == (
        stats.delivered
        + stats.queued
        + stats.dropped
        + stats.filtered
        + stats.unrouted
        + stats.control
        + stats.undecodable
    )


@pytest.mark.parametrize("seed", range(3))
async def test_conservation(seed):
    """Whatever happens, each frame is somewhere, in all and per subscription."""
    chance = random.Random(seed)
    policies = ["drop_oldest", "drop_newest", "latest", "error"]
    async with Feed() as feed, feed.client(queue_size=20) as mux:
        events = mux.events()
        subs = [
            await mux.subscribe(chance.choice("abc"), overflow=chance.choice(policies))
            for _ in range(8)
        ]
        subs.append(mux.stream_filter([{"data": 7}, {"stream": "b"}]))
        last = await mux.subscribe("last")
        read, sent = dict.fromkeys(subs, 0), 0
        for _ in range(400):
            match chance.randrange(12):
                case 0:
                    await feed.sockets[-1].send(chance.choice(GARBAGE))
                    sent += 1
                case 1:
                    for sub in chance.sample(subs, 4):
                        if sub.stats().queue_size:
                            read[sub] += len(await sub.recv_many())
                case 2 if chance.random() < 0.1:
                    mux.present_ws.transport.abort()
                    await within(next_event(events, "resubscribed"))
                case 3 if len(subs) > 4 and chance.random() < 0.2:
                    gone = subs.pop()
                    await gone.close()
                    assert gone.stats().queue_size == 0
                case _:
                    name = chance.choice("abcd")
                    text = json.dumps({"stream": name, "data": chance.randrange(9)})
                    await feed.sockets[-1].send(text)
        # Once this is there, all that was sent before it has been seen to.
        await feed.sockets[-1].send('{"stream":"last"}')
        await last.recv(PATIENCE)
        assert_conserved(mux.stats())
        for sub, number in read.items():
            stats = sub.stats()
            assert stats.delivered == number
            parts = stats.delivered + stats.queue_size + stats.dropped
            assert stats.messages_received == parts


async def test_closing_mid_dispatch():
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


async def test_mistakes():
    """Arguments that contradict one another are refused at construction."""
    with pytest.raises(ValueError, match="both"):
        Multiplex("ws://x", channel_key="a", channel_extractor=str)
    with pytest.raises(ValueError, match="feed, v1 or bare"):
        Multiplex("ws://x", dialect="v2")
    with pytest.raises(ValueError, match="key of its own"):
        Multiplex("ws://x", dialect="v1", channel_key="a")
    with pytest.raises(ValueError, match="websockets"):
        Multiplex("ws://x", transport="carrier pigeon")
    with pytest.raises(RuntimeError, match="connect"):
        await Multiplex("ws://x", channel_key="a").subscribe("a")
    with pytest.raises(TypeError, match="dialect"):
        await Multiplex("ws://x").open("a")


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
