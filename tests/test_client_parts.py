"""
The client's parts by themselves: limits, filters, overlaps, dialects.
"""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from channelsmultiplexer.client import RateLimit
from channelsmultiplexer.client.dialects import Feed, loads
from channelsmultiplexer.client.filters import Filters
from channelsmultiplexer.client.limits import Limiter
from channelsmultiplexer.client.renewal import Overlap
from channelsmultiplexer.mailbox import Mailbox
from feed import PATIENCE
from guard import blocked, soon


class Clock:
    """
    A clock that only sleeping moves.
    """

    def __init__(self):
        self.now = 0.0
        self.sleeps = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


def limiter(*limits):
    clock = Clock()
    return Limiter(limits, clock=clock, sleep=clock.sleep), clock


async def test_rolling_window():
    """No interval has more than the limit, and nothing is polled (N7)."""
    limits, clock = limiter(RateLimit("default", 5, 1.0))
    chance, times = random.Random(1), []
    for _ in range(200):
        clock.now += chance.random() * 0.3
        await limits.acquire()
        times.append(clock.now)
    for i, start in enumerate(times[:-5]):
        assert times[i + 5] - start >= 1.0 - 1e-9
    # One sleep a send at most: until the very time.
    assert len(clock.sleeps) <= 200


async def test_window_is_over():
    """What has expired is forgotten all at once (N7)."""
    whole = RateLimit("whole", 1, 1.0, linked=(("default", 10),))
    limits, clock = limiter(RateLimit("default", 10, 1.0), whole)
    for _ in range(10):
        await limits.acquire()
    clock.now = 1.0
    await limits.acquire("whole")
    assert clock.sleeps == []


async def test_weights():
    """A weighted send takes its weight, and a linked one of other limits too."""
    orders = RateLimit("orders", 10, 1, weight=5, linked=(("all", 2),))
    limits, clock = limiter(RateLimit("all", 5, 10), orders)
    for _ in range(2):
        await limits.acquire("orders")
    assert clock.now == 0
    await limits.acquire("orders")
    assert clock.now == 10
    await limits.acquire("all")
    assert clock.now == 10


async def test_limits_take_turns():
    """Those who wait for one limit go in the order in which they came."""
    limits, _ = limiter(RateLimit("default", 1, 1))
    order = []

    async def send(number):
        await limits.acquire()
        order.append(number)

    await asyncio.gather(*map(send, range(5)))
    assert order == list(range(5))


async def test_fractional_weights():
    """Weights add up to what they say, and nothing is left of them."""
    whole = RateLimit("whole", 1, 1, linked=(("default", 0.3),))
    limits, clock = limiter(RateLimit("default", 0.3, 1, weight=0.1), whole)
    for _ in range(3):
        await limits.acquire()
    assert clock.sleeps == []
    await limits.acquire("whole")
    assert clock.now == 1


async def test_closed_limits():
    """Closing lets all go on who wait for a limit, and who would."""
    limits = Limiter([RateLimit("default", 1, 3600)])
    await limits.acquire()
    waiting = [await blocked(limits.acquire()) for _ in range(3)]
    limits.close()
    await soon(asyncio.gather(*waiting))
    await soon(limits.acquire())


async def test_cancelled_limit():
    """Cancelling who waits for a limit leaves no task behind."""
    limits = Limiter([RateLimit("default", 1, 3600)])
    await limits.acquire()
    waiting = await blocked(limits.acquire())
    waiting.cancel()
    await asyncio.wait({waiting})
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_unknown_limit():
    """A send can't fall under a limit that there isn't, but for the default."""
    limits, clock = limiter()
    await limits.acquire()
    assert clock.sleeps == []
    with pytest.raises(ValueError, match="orders"):
        await limits.acquire("orders")


@pytest.mark.parametrize(
    "limit",
    [RateLimit("a", 1, 1, weight=2), RateLimit("a", 1, 1, linked=(("b", 1),))],
)
def test_impossible_limit(limit):
    """A limit that can never be kept is refused at construction."""
    with pytest.raises(ValueError, match=r"'[ab]'"):
        Limiter([limit])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"interval": 0}, ValueError),
        ({"interval": -1}, ValueError),
        ({"interval": float("nan")}, ValueError),
        ({"interval": "1"}, TypeError),
        ({"limit": float("inf")}, ValueError),
        ({"weight": -1}, ValueError),
        ({"weight": None}, TypeError),
        ({"linked": (("b", -1),)}, ValueError),
        ({"linked": (("b", 1), ("b", 1))}, ValueError),
        ({"linked": (("a", 1),)}, ValueError),
        ({"id": "b"}, ValueError),
    ],
)
def test_invalid_limit(changes, error):
    """A limit that can't be meant is refused at construction."""
    limit = RateLimit(**{"id": "a", "limit": 9, "interval": 1, **changes})
    with pytest.raises(error, match="expected"):
        Limiter([limit, RateLimit("b", 9, 1)])


def test_not_a_limit():
    """What is no limit is refused at construction."""
    with pytest.raises(TypeError, match="expected a RateLimit"):
        Limiter([(1, 1)])


def test_filters_agree():
    """The index finds what the rule says, over random filters and messages."""
    chance = random.Random(2)
    values = [0, 1, True, None, "x", 1.0, [1], {"y": 1}]

    def pairs(most):
        return {k: chance.choice(values) for k in chance.sample("abcd", most)}

    filters, rules = Filters(), {}
    for owner in range(300):
        rules[owner] = [pairs(chance.randrange(1, 4)) for _ in range(2)]
        filters.add(owner, rules[owner])
    for owner in range(0, 300, 3):
        filters.remove(owner)
        del rules[owner]
    for _ in range(300):
        message = pairs(chance.randrange(5))
        expected = {
            owner
            for owner, dicts in rules.items()
            if any(all(k in message and message[k] == d[k] for k in d) for d in dicts)
        }
        found = filters.match(message)
        assert set(found) == expected
        assert len(found) == len(expected)


def test_filters_leave_nothing():
    """An index from which all are removed is as it was."""
    filters = Filters()
    for owner in range(10):
        filters.add(owner, [{"a": 1, "b": owner}, {"c": [1]}])
    filters.add("all", None)
    assert len(filters) == 11
    for owner in [*filters, "unknown"]:
        filters.remove(owner)
    assert not filters._index
    assert not filters._others
    assert list(filters) == []


def test_filters_are_told_apart():
    """Of a thousand filters that share a pair one is looked at (A9)."""
    filters = Filters()
    for i in range(1000):
        filters.add(i, [{"e": "trade", "s": f"S{i}"}])
    assert filters.match({"e": "trade", "s": "S500"}) == [500]
    entries = filters._index["s"]["S500"]
    assert len(entries) == 1


def test_overlap():
    """Each message counts once, whichever brings it first; equal ones as many."""
    done = []
    overlap = Overlap("old", lambda: done.append(True))
    assert not overlap.is_duplicate("old", "a")
    assert not overlap.is_duplicate("old", "a")
    overlap.ready()
    assert overlap.is_duplicate("new", "a")
    assert done
    assert overlap.is_duplicate("new", "a")
    assert not overlap.is_duplicate("new", "a")
    assert overlap.is_duplicate("old", "a")


def test_overlap_waits():
    """The old one isn't done with while it alone has brought something."""
    done = []
    overlap = Overlap("old", lambda: done.append(True))
    overlap.ready()
    overlap.is_duplicate("old", "a")
    overlap.is_duplicate("old", "b")
    overlap.is_duplicate("new", "a")
    assert not done
    overlap.is_duplicate("new", "b")
    assert done


def test_feed_without_a_channel():
    """JSON without a channel has none; what is no JSON is an error."""
    feed = Feed(("arg", "channel"))
    assert feed.decode('{"arg":{"channel":"a"}}').stream == "a"
    assert feed.envelope('{"arg":[]}').stream is None
    with pytest.raises(ValueError, match="Expecting"):
        feed.envelope("{")
    with pytest.raises(ValueError, match="deep"):
        loads("[" * 100_000)


async def read_all(box, batches, size):
    """
    Return the CPU time that reading takes, which other processes don't stretch.
    """
    spent = 0
    for _ in range(batches):
        for item in range(size):
            box.put_nowait(item)
        start = time.process_time()
        for item in range(size):
            assert await box.get() == item
        spent += time.process_time() - start
    return spent


async def test_mailbox_backlog():
    """Each item that waits is read at the same cost, however many do (J21)."""
    few = await read_all(Mailbox(), batches=1000, size=100)
    # A list that loses its first item moves all the others: fifty times as long.
    assert await read_all(Mailbox(), batches=1, size=100_000) < 10 * few


async def test_mailbox_writers():
    """Several writers may wait; each goes on when there is room."""
    box = Mailbox(1, "block")
    await box.put(0)
    writers = [await blocked(box.put(i)) for i in (1, 2)]
    assert box.waiting == 3
    assert sorted([await box.get(PATIENCE) for _ in range(3)]) == [0, 1, 2]
    assert await asyncio.gather(*writers) == [True, True]
    assert box.waiting == 0


async def test_mailbox_writer_is_cancelled():
    """A writer that is cancelled while it waits adds nothing, and stops nobody."""
    box = Mailbox(1, "block")
    await box.put(0)
    first, second = [await blocked(box.put(i)) for i in (1, 2)]
    first.cancel()
    await asyncio.wait({first})
    assert box.waiting == 2
    assert [await box.get(PATIENCE) for _ in range(2)] == [0, 2]
    assert await second


async def test_mailbox_hurry():
    """A writer in a hurry adds over the limit, also if it waits already."""
    box, hurry = Mailbox(1, "block"), asyncio.get_running_loop().create_future()
    await box.put(0)
    writer = await blocked(box.put(1, hurry))
    hurry.set_result(None)
    assert await writer
    assert await box.put(2, hurry)
    assert [await box.get() for _ in range(3)] == [0, 1, 2]


async def test_mailbox_blocked_writer():
    """A writer that waits goes on when there is room, or when it is closed."""
    box = Mailbox(1, "block")
    await box.put(1)
    writer = asyncio.ensure_future(box.put(2))
    await asyncio.sleep(0)  # Its turn for a reader.
    await asyncio.sleep(0)  # Now it waits.
    assert box.waiting == 2
    assert await box.get() == 1
    await writer
    writer = asyncio.ensure_future(box.put(3))
    await asyncio.sleep(0)  # Its turn for a reader.
    await asyncio.sleep(0)  # Now it waits.
    box.close()
    assert await writer is False
    assert (await box.get(), box.dropped) == (2, 1)


async def test_mailbox_reader_overtaken():
    """A reader whose item another has taken goes on waiting, not timed out."""
    box = Mailbox()
    reader = await blocked(box.get())
    box.put_nowait(1)
    # The first reader is woken, and hasn't run.
    assert await box.get() == 1
    await asyncio.sleep(0)  # Now it has, and found nothing.
    box.put_nowait(2)
    assert await soon(reader) == 2


async def test_mailbox_reader_overtaken_by_one_that_waits():
    """A reader that was overtaken doesn't silence the one that waits now."""
    box = Mailbox()
    late = await blocked(box.get())

    async def overtake():
        box.put_nowait(1)
        return [await box.get(), await box.get()]

    waiting = await blocked(overtake())
    with pytest.raises(RuntimeError, match="another task"):
        await soon(late)
    box.put_nowait(2)
    assert await soon(waiting) == [1, 2]
