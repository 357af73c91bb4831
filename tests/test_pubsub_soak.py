"""
The Redis hop under random use, held to an oracle.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from channelsmultiplexer.pubsub import Multiplexer
from recorder import guarded
from redis_server import server

NAMES = [f"ok{number}" for number in range(12)] + ["bad1", "bad2"]


class Oracle:
    """
    A subscription that checks what it is told, and knows what it wants.

    Between a name's activation and the next gap its numbers must come one by one.
    """

    def __init__(self, mpx):
        self.subscription = mpx.new_channel_subscription(
            self.message, self.disconnect, self.activation, on_gap=self.gap
        )
        self.wanted: set[str] = set()
        # The last number of each name that is active; None if none came yet.
        self.last: dict[bytes, int | None] = {}
        self.errors: list[object] = []
        self.delivered = 0

    def message(self, channel, data):
        number = int(data)
        if channel not in self.last:
            self.errors.append(("before activation", channel, number))
        elif self.last[channel] is not None and number != self.last[channel] + 1:
            self.errors.append(("order", channel, self.last[channel], number))
        self.last[channel] = number
        self.delivered += 1

    def activation(self, name):
        self.last[name] = None

    def disconnect(self, error):
        self.last.clear()

    def gap(self, gap):
        self.errors.append(gap)

    def add(self, name):
        self.wanted.add(name)
        self.subscription.add(name)

    def remove(self, name):
        self.wanted.discard(name)
        self.subscription.remove(name)
        self.last.pop(name.encode(), None)


async def wander(oracles, choose, turns):
    for _ in range(turns):
        oracle, name = choose.choice(oracles), choose.choice(NAMES)
        choose.choice([oracle.add, oracle.add, oracle.remove])(name)
        # A random number of turns of the event loop: commands meet in all orders.
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(0)


async def publish(mpx_of_publisher, choose, turns):
    numbers = dict.fromkeys(NAMES, 0)
    for _ in range(turns):
        name = choose.choice(NAMES)
        numbers[name] += 1
        await mpx_of_publisher.publish(name, str(numbers[name]))


async def kill(one, mpx, times):
    for _ in range(times):
        await guarded(mpx.connected_event.wait())
        # Private: nothing public says which link it is that has ended.
        lost = mpx._connection.lost
        one.call("CLIENT", "KILL", "USER", "default", "SKIPME", "yes")
        await guarded(asyncio.shield(lost))


async def settle(mpx):
    """Return when all that was asked of Redis is answered."""
    for _ in range(30):
        await guarded(mpx.connect())
        await mpx.publish("nobody", "")


@pytest.mark.parametrize(
    ("seed", "turns"),
    [(1, 1000), (2, 1000), pytest.param(3, 40_000, marks=pytest.mark.slow)],
)
async def test_soak(seed, turns):
    """At rest Redis has what is wanted, and what was delivered was in order."""
    choose = random.Random(seed)
    with server("--enable-debug-command", "yes") as one:
        one.call("ACL", "SETUSER", "default", "resetchannels", "&ok*", "&nobody")
        one.call("ACL", "SETUSER", "teller", "on", ">pw", "+@all", "&*")
        options = {"backoff": lambda: iter(lambda: 0.001, None)}
        teller = Multiplexer(one.url, username="teller", password="pw", **options)
        async with Multiplexer(one.url, **options) as mpx, teller:
            oracles = [Oracle(mpx) for _ in range(6)]
            walks = [wander(oracles, choose, turns) for _ in range(4)]
            noise = [publish(teller, choose, turns * 3), kill(one, mpx, turns // 100)]
            await asyncio.gather(*walks, *noise)
            await settle(mpx)
            wanted = set.union(*(oracle.wanted for oracle in oracles))
            for name in NAMES:
                expected = int(name in wanted and name.startswith("ok"))
                assert (name, one.subscribers(name)) == (name, expected)
            assert [oracle.errors for oracle in oracles] == [[]] * 6
            assert sum(oracle.delivered for oracle in oracles) > turns
