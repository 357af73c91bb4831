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

PATTERNS = ["ok*", "ok1*", "bad*"]

# What the user of the soak may have, at rest: no bad ones.
ALLOWED = ["&nobody", "&ok1*", "&ok*"]


class Oracle:
    """
    Callbacks that check what they are told.

    Between an activation and the next gap a channel's numbers must come one by one,
    and there is no second activation.
    """

    def __init__(self):
        self.wanted: set[str] = set()
        self.active: set[bytes] = set()
        # The last number of each channel since then.
        self.last: dict[bytes, int] = {}
        self.errors: list[object] = []
        self.delivered = 0

    def message(self, channel, data):
        number, before = int(data), self.last.get(channel)
        if not self.covered(channel):
            self.errors.append(("before activation", channel, number))
        elif before is not None and number != before + 1:
            self.errors.append(("order", channel, before, number))
        self.last[channel] = number
        self.delivered += 1

    def activation(self, name):
        if name in self.active:
            self.errors.append(("active twice", name))
        self.active.add(name)

    def disconnect(self, error):
        self.active.clear()
        self.last.clear()

    def gap(self, gap):
        self.errors.append(gap)

    @property
    def callbacks(self):
        return self.message, self.disconnect, self.activation


class Channels(Oracle):
    """
    Adds and removes channels.
    """

    names = NAMES

    def __init__(self, mpx):
        super().__init__()
        self.one = mpx.new_channel_subscription(*self.callbacks, on_gap=self.gap)

    def covered(self, channel):
        return channel in self.active

    def add(self, name):
        self.wanted.add(name)
        self.one.add(name)

    def remove(self, name):
        self.wanted.discard(name)
        self.one.remove(name)
        self.active.discard(name.encode())
        self.last.pop(name.encode(), None)


class Pattern(Oracle):
    """
    Opens and closes a subscription to one pattern.
    """

    def __init__(self, mpx, pattern):
        super().__init__()
        self.mpx = mpx
        self.names = [pattern]
        self.one = None

    def covered(self, channel):
        return bool(self.active)

    def add(self, name):
        if not self.wanted:
            self.wanted.add(name)
            self.one = self.mpx.new_pattern_subscription(
                name, *self.callbacks, on_gap=self.gap
            )

    def remove(self, name):
        if self.wanted:
            self.one.close()
            self.wanted.clear()
            self.disconnect(None)


async def wander(oracles, choose, turns):
    for _ in range(turns):
        oracle = choose.choice(oracles)
        change = choose.choice([oracle.add, oracle.add, oracle.remove])
        change(choose.choice(oracle.names))
        # A random number of turns of the event loop: commands meet in all orders.
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(0)


async def publish(teller, numbers, names):
    for name in names:
        numbers[name] += 1
        await teller.publish(name, str(numbers[name]))


async def drop(one, mpx, allowed):
    """Drop the link, after a change of what is allowed."""
    await guarded(mpx.connected_event.wait())
    # Private: nothing public says which link it is that has ended.
    lost = mpx._link._connection.lost
    one.call("ACL", "SETUSER", "default", "resetchannels", *allowed)
    one.call("CLIENT", "KILL", "USER", "default", "SKIPME", "yes")
    await guarded(asyncio.shield(lost))


async def drop_often(one, mpx, choose, times):
    for _ in range(times):
        refused = choose.sample(NAMES, choose.randrange(4))
        allowed = [f"&{name}" for name in NAMES if name not in refused]
        await drop(one, mpx, ["&nobody", *choose.sample(ALLOWED, 2), *allowed])


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
    """At rest Redis has what is wanted, and all was delivered once and in order."""
    choose, numbers = random.Random(seed), dict.fromkeys(NAMES, 0)
    with server("--enable-debug-command", "yes") as one:
        one.call("ACL", "SETUSER", "default", "resetchannels", *ALLOWED)
        one.call("ACL", "SETUSER", "teller", "on", ">pw", "+@all", "&*")
        options = {"backoff": lambda: iter(lambda: 0.001, None)}
        teller = Multiplexer(one.url, username="teller", password="pw", **options)
        async with Multiplexer(one.url, **options) as mpx, teller:
            channels = [Channels(mpx) for _ in range(6)]
            patterns = [Pattern(mpx, pattern) for pattern in PATTERNS * 2]
            oracles = channels + patterns
            told = [choose.choice(NAMES) for _ in range(turns * 3)]
            await asyncio.gather(
                *(wander(oracles, choose, turns) for _ in range(4)),
                publish(teller, numbers, told),
                drop_often(one, mpx, choose, turns // 100),
            )
            # From here on Redis refuses the bad ones only, and they have been asked
            # for anew: then each name that may be had tells its last number.
            await drop(one, mpx, ALLOWED)
            await settle(mpx)
            await publish(teller, numbers, NAMES)
            await settle(mpx)
            check(one, channels, patterns, numbers)
            assert [oracle.errors for oracle in oracles] == [[]] * len(oracles)
            assert sum(oracle.delivered for oracle in oracles) > turns


def check(one, channels, patterns, numbers):
    """See that Redis has what is wanted, and that who wants a name has its last."""
    wanted = set.union(*(oracle.wanted for oracle in channels))
    for name in NAMES:
        expected = int(name in wanted and name.startswith("ok"))
        assert (name, one.subscribers(name)) == (name, expected)
    wanted = set.union(*(oracle.wanted for oracle in patterns)) - {"bad*"}
    assert one.call("PUBSUB", "NUMPAT") == len(wanted)
    last = {name.encode(): number for name, number in numbers.items()}
    for oracle in channels:
        names = {name.encode() for name in oracle.wanted if name.startswith("ok")}
        assert oracle.last == {name: last[name] for name in names}
    for oracle in patterns:
        start = tuple(oracle.wanted - {"bad*"})
        names = {name for name in last if start and matches(start[0], name)}
        assert oracle.last == {name: last[name] for name in names}


def matches(pattern, name):
    return name.startswith(pattern.rstrip("*").encode())
