"""
The three clients whose work this one does: each example, and each feature, that
their pages have, with the names of this package.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import urllib.parse

import pytest

from channelsmultiplexer.client import Closed, Multiplex, RateLimit
from feed import PATIENCE, Feed, next_event, subscribe, unsubscribe, within

pytestmark = pytest.mark.usefixtures("nothing_left")


# jetsocket's Multiplex.


async def test_multiplex():
    """The example of the multiplexing page runs."""
    async with (
        Feed() as feed,
        Multiplex(
            feed.url,
            channel_key="stream",
            subscribe_msg=lambda ch: {"method": "SUBSCRIBE", "params": [ch]},
            unsubscribe_msg=lambda ch: {"method": "UNSUBSCRIBE", "params": [ch]},
            queue_size=1000,
        ) as mux,
    ):
        btc = await mux.subscribe("btcusdt@trade")
        await mux.subscribe("ethusdt@trade")
        assert (await feed.message())["params"] == ["btcusdt@trade"]
        assert (await feed.message())["params"] == ["ethusdt@trade"]
        await feed.publish("ethusdt@trade", {"price": "2"})
        await feed.publish("btcusdt@trade", {"price": "1"})
        async for trade in btc:
            assert trade == {"stream": "btcusdt@trade", "data": {"price": "1"}}
            break


async def test_channel_extractor():
    """The page's extractor takes the channel from a message."""
    async with (
        Feed() as feed,
        Multiplex(feed.url, channel_extractor=lambda msg: msg.get("topic")) as mux,
    ):
        trades = await mux.subscribe("trade.BTCUSDT")
        await feed.sockets[0].send('{"topic":"trade.ETHUSDT"}')
        await feed.sockets[0].send('{"topic":"trade.BTCUSDT"}')
        assert await trades.recv(PATIENCE) == {"topic": "trade.BTCUSDT"}


@pytest.mark.parametrize(("queue_size", "kept"), [(50, 50), (1000, 150), (0, 150)])
async def test_queue_size(queue_size, kept):
    """queue_size bounds what waits for each subscription, unless it is 0 (J16)."""
    async with Feed() as feed, feed.client(queue_size=queue_size) as mux:
        trades = await mux.subscribe("a")
        live = await mux.subscribe("a", queue_size=0)
        for i in range(150):
            await feed.publish("a", i)
        for _ in range(150):
            await live.recv(PATIENCE)
        assert trades.stats().queue_size == kept
        assert trades.stats().dropped == 150 - kept


async def test_statistics():
    """The page's statistics are there, of the multiplex and of a subscription."""
    async with Feed() as feed, feed.client(ack=None) as mux:
        btc, eth = await mux.subscribe("btc"), await mux.subscribe("eth")
        for _ in range(2):
            await feed.message()
        await feed.publish("btc", 1)
        await btc.recv(PATIENCE)
        stats = mux.stats()
        assert (stats.total_subscriptions, stats.active_subscriptions) == (2, 2)
        # The feed's two answers are nobody's.
        assert (stats.total_messages_routed, stats.unroutable_messages) == (1, 2)
        assert stats.connection_stats["state"] == "connected"
        mine = btc.stats()
        assert (mine.channel, mine.messages_received) == ("btc", 1)
        assert (mine.queue_size, mine.is_active) == (0, True)
        assert eth.stats().messages_received == 0


async def test_lookup():
    """Subscriptions are found by their channel, and listed, until they are closed."""
    async with Feed() as feed, feed.client() as mux:
        btc, eth = await mux.subscribe("btc"), await mux.subscribe("eth")
        assert mux.list_subscriptions() == ["btc", "eth"]
        assert mux.get_subscription("eth") is eth
        await eth.close()
        assert mux.get_subscription("eth") is None
        assert mux.list_subscriptions() == ["btc"]
        assert btc.is_active
        assert not eth.is_active


async def test_unsubscribe():
    """Unsubscribe says if there was a subscription, ends it, and tells the server."""
    async with Feed() as feed, feed.client() as mux:
        btc = await mux.subscribe("btc")
        assert await mux.unsubscribe("btc") is True
        assert await mux.unsubscribe("btc") is False
        assert [message async for message in btc] == []
        assert await feed.message() == subscribe("btc")
        assert await feed.message() == unsubscribe("btc")


async def test_recv():
    """Recv returns the next message, or raises: in time, and at the end."""
    async with Feed() as feed, feed.client() as mux:
        btc = await mux.subscribe("btc")
        with pytest.raises(TimeoutError):
            await btc.recv(timeout=0.01)
        await feed.publish("btc", 1)
        assert (await btc.recv(timeout=PATIENCE))["data"] == 1
        waiting = asyncio.ensure_future(btc.recv())
        await asyncio.sleep(0)  # Let it wait.
        await btc.close()
        with pytest.raises(Closed):
            await within(waiting)


async def test_connect():
    """Connect raises when it can't, and when it has already."""
    async with Feed() as feed, feed.client() as mux:
        with pytest.raises(RuntimeError, match="connected"):
            await mux.connect()
    with pytest.raises(ConnectionError):
        await feed.client().connect()


# networkpype's WebSocketManager.


async def test_manager():
    """The example of the manager page runs (N9)."""
    limits = [RateLimit("default", limit=10, interval=1.0)]
    async with Feed() as feed:
        mux = Multiplex(feed.url, limits=limits)
        await mux.connect()
        await mux.send({"method": "SUBSCRIBE", "params": ["btcusdt@trade"]})
        await feed.message()
        await feed.publish("btcusdt@trade", {"price": "1"})
        await feed.sockets[0].send("{}")
        got = []
        async for message in mux.iter_messages():
            if not message:
                break
            got.append(message)
        assert got[1] == {"stream": "btcusdt@trade", "data": {"price": "1"}}
        await mux.disconnect()


async def test_manager_connect():
    """What the page's connect takes, a multiplex takes."""
    options = {
        "heartbeat": 10,
        "message_timeout": 60,
        "headers": {"X-Key": "k"},
        "verify_ssl": True,
    }
    async with Feed() as feed, Multiplex(feed.url, **options):
        assert feed.requests[0].headers["X-Key"] == "k"


async def test_manager_pipeline():
    """What goes out is processed, then signed if it asks for that (N9)."""
    options = {
        "pre_processors": [lambda message: {**message, "id": 1}],
        "auth": lambda message: {**message, "signature": sorted(message)},
    }
    async with Feed() as feed, Multiplex(feed.url, **options) as mux:
        await mux.send({"method": "a"}, auth=True)
        await mux.send({"method": "b"})
        signed = {"method": "a", "id": 1, "signature": ["id", "method"]}
        assert await feed.message() == signed
        assert await feed.message() == {"method": "b", "id": 1}


async def test_manager_messages():
    """What comes in is processed; iterating ends when the connection is closed."""

    async def wrap(message):
        return [message]

    async with Feed() as feed, Multiplex(feed.url, post_processors=[wrap]) as mux:
        for i in range(3):
            await feed.sockets[0].send(str(i))
        assert await mux.receive(PATIENCE) == [0]
        rest = asyncio.ensure_future(collect(mux.iter_messages()))
        await asyncio.sleep(0)  # Let it wait.
        await mux.disconnect()
        assert await within(rest) == [[1], [2]]
        with pytest.raises(Closed, match="1000"):
            await mux.receive()


async def collect(messages):
    return [message async for message in messages]


async def test_manager_statistics():
    """What iter_messages reads by counts as a subscription."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        mux.stream_filter()
        stats = mux.stats()
        assert (stats.total_subscriptions, stats.active_subscriptions) == (2, 2)


async def test_manager_health():
    """Ping returns the round trip, and last_recv_time is that of the last message."""
    async with Feed() as feed, Multiplex(feed.url) as mux:
        assert 0 < await mux.ping(PATIENCE) < PATIENCE
        assert mux.last_recv_time == 0.0
        await feed.sockets[0].send("1")
        await mux.receive(PATIENCE)
        assert mux.last_recv_time > 0


# AsyncWebsocketStreamInterface.


async def test_interface():
    """The example of the interface page runs: a key expires, and is renewed (A7)."""

    async def address():
        return f"{feed.url}ws/key{next(keys)}"

    async def when():
        async with mux.stream_filter([expiry]) as expired:
            with contextlib.suppress(TimeoutError):
                await expired.recv(timeout=20 * 3600)

    keys, expiry = itertools.count(), {"e": "listenKeyExpired"}
    async with Feed() as feed:
        mux = Multiplex(address, renew_after=when, overlap=0.01)
        await mux.connect()
        events = mux.events()
        await mux.ping()  # By then it waits for a key to expire.
        await feed.sockets[0].send('{"e":"listenKeyExpired"}')
        await within(next_event(events, "renewed"))
        assert [request.path for request in feed.requests] == ["/ws/key0", "/ws/key1"]
        await mux.exit()


async def test_interface_watcher():
    """The page's watcher gets everything, until its stream is closed."""
    async with Feed() as feed, Multiplex(feed.url) as ws:
        stream = ws.stream_filter()
        watcher = asyncio.ensure_future(collect(stream))
        other = ws.stream_filter()
        for i in range(3):
            await feed.sockets[0].send(str(i))
            await other.recv(PATIENCE)
        close_task = asyncio.create_task(stream.close())
        await within(close_task)
        assert await within(watcher) == [0, 1, 2]


async def test_interface_filter():
    """The page's filters match the messages that it says, and not the others."""
    async with Feed() as feed, Multiplex(feed.url) as ws:
        stream = ws.stream_filter([{"a": 1}, {"b": 2, "c": 3}])
        for message in (
            '{"a":1,"c":2}',
            '{"a":2,"c":2}',
            '{"b":2,"c":4,"d":4}',
            '{"b":2,"c":3,"d":4}',
        ):
            await feed.sockets[0].send(message)
        assert await stream.recv(PATIENCE) == {"a": 1, "c": 2}
        assert await stream.recv(PATIENCE) == {"b": 2, "c": 3, "d": 4}


async def test_interface_parser():
    """Raw data that isn't JSON is parsed by a processor of one's own."""

    async def parse(raw):
        return dict(urllib.parse.parse_qsl(raw))

    async with Feed() as feed, Multiplex(feed.url, post_processors=[parse]) as ws:
        stream = ws.stream_filter([{"a": "1"}])
        for raw in ("a=2", "a=1&b=3"):
            await feed.sockets[0].send(raw)
        assert await stream.recv(PATIENCE) == {"a": "1", "b": "3"}


async def test_interface_handlers():
    """The page's handlers, a function and a coroutine function, get each message."""
    plain, coroutine = [], asyncio.Queue()

    def f(msg):
        plain.append(msg)

    async def f2(msg):
        await coroutine.put(msg)

    async with Feed() as feed, Multiplex(feed.url) as ws:
        ws.add_handler(f)
        ws.add_handler(f2)
        for i in range(3):
            await feed.sockets[0].send(str(i))
        assert [await within(coroutine.get()) for _ in range(3)] == [0, 1, 2]
        assert plain == [0, 1, 2]


async def test_interface_send():
    """Send sends, present_ws is the WebSocket of now, and exit closes it."""
    async with Feed() as feed:
        ws = Multiplex(feed.url)
        await ws.connect()
        await ws.send({"a": 1})
        assert await feed.message() == {"a": 1}
        assert ws.present_ws.remote_address[1] == feed.port
        await ws.exit()
        await within(feed.sockets[0].wait_closed())
        assert ws.present_ws is None
