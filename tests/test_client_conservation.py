"""
Each frame is somewhere: delivered, or counted.
"""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from channelsmultiplexer.client import MemoryServer, Multiplex
from feed import GARBAGE, PATIENCE, Feed, assert_conserved, next_event, within

pytestmark = pytest.mark.usefixtures("nothing_left")

POLICIES = ["drop_oldest", "drop_newest", "latest", "error"]


class Traffic:
    """
    Random traffic, with an account of its own.

    Attributes:
        owed: How many frames were sent for each subscription.

        read: How many messages each has read.
    """

    def __init__(self, seed, feed, mux, is_orderly):
        self.chance = random.Random(seed)
        self.feed, self.mux, self.is_orderly = feed, mux, is_orderly
        self.owed, self.read = {}, {}
        self.here = []
        self.events = mux.events()

    async def arrive(self, channel=None, **options):
        """
        Subscribe, by a policy that is left to chance.
        """
        options.setdefault("overflow", self.chance.choice(POLICIES))
        channel = channel or self.chance.choice("abc")
        self._add(await self.mux.subscribe(channel, **options))

    def watch(self, filters):
        """
        Filter.
        """
        self._add(self.mux.stream_filter(filters))

    def _add(self, subscription):
        self.owed[subscription] = self.read[subscription] = 0
        self.here.append(subscription)

    async def send(self):
        """
        Send a message, which may be for nobody.
        """
        message = {
            "stream": self.chance.choice("abcd"),
            "data": self.chance.randrange(9),
        }
        await self.feed.sockets[-1].send(json.dumps(message))
        for subscription in self.here:
            if matches(subscription.channel, message):
                self.owed[subscription] += 1

    async def send_garbage(self):
        """
        Send what is no message.
        """
        await self.feed.sockets[-1].send(self.chance.choice(GARBAGE))

    async def read_some(self):
        """
        Let a few read what waits for them.
        """
        for subscription in self.chance.sample(self.here, 3):
            if subscription.stats().queue_size:
                self.read[subscription] += len(await subscription.recv_many())

    async def leave(self):
        """
        Let one go.
        """
        if len(self.here) > 4:
            await self.arrived()
            gone = self.here.pop()
            await gone.close()
            assert gone.stats().queue_size == 0

    async def lose(self):
        """
        End the link, and wait for the next.
        """
        if self.is_orderly:
            await self.feed.sockets[-1].close(1012)
        else:
            self.mux.present_ws.transport.abort()
        await within(next_event(self.events, "resubscribed"))

    async def arrived(self):
        """
        Return when all that was sent has been seen to.
        """
        async with await self.mux.subscribe("last") as last:
            await self.feed.sockets[-1].send('{"stream":"last"}')
            await last.recv(PATIENCE)

    async def run(self, steps):
        """
        Do what chance says.
        """
        acts = [self.send, self.send_garbage, self.read_some, self.leave, self.lose]
        for act in self.chance.choices(acts, [70, 10, 15, 2, 1], k=steps):
            await act()
        await self.arrived()


def matches(channel, message):
    """
    Tell if a message is for a subscription to a channel, or by filters.
    """
    if isinstance(channel, str):
        return message["stream"] == channel
    return any(pairs.items() <= message.items() for pairs in channel)


@pytest.mark.parametrize("is_orderly", [True, False])
@pytest.mark.parametrize("seed", range(4))
async def test_conservation(seed, is_orderly):
    """Under stalls, closes and drops each frame is somewhere, in all and for each."""
    async with Feed() as feed, feed.client(queue_size=20) as mux:
        traffic = Traffic(seed, feed, mux, is_orderly)
        for _ in range(8):
            await traffic.arrive()
        traffic.watch([{"data": 7}, {"stream": "b"}])
        await traffic.run(500)
        assert_conserved(mux.stats())
        assert mux.stats().dropped > 0
        for subscription, owed in traffic.owed.items():
            stats = subscription.stats()
            # A link that breaks takes with it what was on its way.
            assert stats.messages_received <= owed
            assert stats.messages_received == owed or not is_orderly
            assert stats.delivered == traffic.read[subscription]
            parts = stats.delivered + stats.queue_size + stats.dropped
            assert stats.messages_received == parts
    assert_conserved(mux.stats())


@pytest.mark.parametrize("overflow", ["drop_oldest", "block"])
async def test_live_reader(overflow):
    """One who reads gets each message, though the server closes in between."""
    async with Feed() as feed, feed.client(queue_size=5) as mux:
        live = await mux.subscribe("a", overflow=overflow)
        await feed.message(0)
        reading = asyncio.ensure_future(count(live))
        for link in range(4):
            for i in range(50):
                await feed.publish("a", i, link)
            await feed.sockets[link].close(1012)
            await feed.message(link + 1)  # It subscribes again.
        await mux.close()
        assert await within(reading) == live.stats().delivered == 200
        assert_conserved(mux.stats())


async def count(messages):
    return len([message async for message in messages])


async def test_streams():
    """The law holds for streams of our own server, and for its control frames."""
    server = MemoryServer()
    async with Multiplex("ws://x", dialect="v1", transport=server.connect) as mux:
        socket = await server.accept(PATIENCE)
        opening = asyncio.ensure_future(mux.open("a"))
        assert '"stream":"1"' in await within(socket.recv())
        await socket.send('{"op":"hello","heartbeat":25,"max_streams":100}')
        await socket.send('{"op":"opened","stream":"1"}')
        stream = await within(opening)
        for frame in ("garbage", '{"stream":"9","payload":0}', '{"op":"ping"}'):
            await socket.send(frame)
        await socket.send('{"stream":"1","payload":1}')
        assert await stream.recv(PATIENCE) == 1
        stats = mux.stats()
        assert_conserved(stats)
        assert (stats.received, stats.delivered, stats.control) == (6, 1, 3)
        assert (stats.unrouted, stats.undecodable) == (1, 1)


async def settled(mux):
    """
    Return when what the server has sent before is routed, or waits for room.
    """
    for _ in range(2):
        await mux.ping(PATIENCE)


async def test_reader_leaves_meanwhile():
    """A message that waited for a reader who then leaves is dropped, and counted."""
    async with Feed() as feed, feed.client() as mux:
        full = await mux.subscribe("a", overflow="block", queue_size=1)
        other = await mux.subscribe("a")
        await mux.subscribe("b")
        for i in range(2):
            await feed.publish("a", i)
        # Each has the first; one is given the second, and the rest waits for that.
        await settled(mux)
        assert full.mailbox.waiting == 2
        assert_conserved(mux.stats())
        await other.close()
        await full.close()
        await feed.sockets[0].send('{"stream":"a"}')
        await settled(mux)
        assert mux.stats().queued == 0
        assert_conserved(mux.stats())


async def test_being_processed():
    """A message that a post-processor holds is queued; dropped, once that ends."""
    held = asyncio.Event()

    async def hold(message):
        held.set()
        await asyncio.Event().wait()

    async with Feed() as feed:
        mux = feed.client(ack=None, post_processors=[hold], close_timeout=0.1)
        async with mux:
            await mux.subscribe("a")
            await within(held.wait())
            assert mux.stats().queued == 1
            assert_conserved(mux.stats())
        assert mux.stats().dropped == 1
        assert_conserved(mux.stats())
