"""
The three clients whose work this one does: each example, and each feature, that
their pages have, with the names of this package.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from channelsmultiplexer.client import (
    Multiplex,
    RateLimit,
)
from feed import (
    PATIENCE,
    Feed,
    next_event,
    within,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


MESSAGES = [
    {"a": 1, "c": 2},
    {"b": 2, "c": 3, "d": 4},
    {"a": 2, "c": 2},
    {"b": 2, "c": 4, "d": 4},
]


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
