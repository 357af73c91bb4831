"""
In what order a subscription has messages, gaps and activations.
"""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from channelsmultiplexer.pubsub import (
    Activation,
    Gap,
    Message,
)
from guard import blocked
from recorder import guarded


async def test_one_order_for_channels_and_patterns(mpx):
    """Messages of all names of a subscription come in the order of Redis."""
    async with mpx.subscribe("a", "b", patterns=["c*"]) as sub:
        names = ["a", "b", "c1", "a", "a", "c2", "b"]
        await asyncio.gather(*(mpx.publish(n, str(i)) for i, n in enumerate(names)))
        got = [await guarded(anext(sub)) for _ in names]
    assert [m.channel.decode() for m in got] == names
    assert [m.data for m in got] == [b"%d" % n for n in range(len(names))]


async def test_channel_and_pattern_that_overlap(mpx):
    """
    A message that a channel and a pattern match comes once by each.

    With go-mpx it comes twice by the channel.
    """
    async with mpx.subscribe("a", patterns=["a*"]) as sub, mpx.subscribe("a") as other:
        await mpx.publish("a", "1")
        got = {await guarded(anext(sub)) for _ in range(2)}
        assert got == {Message(b"a", b"1"), Message(b"a", b"1", b"a*")}
        await mpx.publish("a", "2")
        assert [m.data for m in [await anext(other), await anext(other)]] == [
            b"1",
            b"2",
        ]


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        ("drop_oldest", [Gap(dropped=7), b"7", b"8", b"9"]),
        ("drop_newest", [b"0", b"1", b"2", Gap(dropped=7)]),
    ],
)
async def test_overflow(mpx, overflow, expected):
    """What is dropped for want of room is told in its place, as one gap."""
    limit = {"inbox_limit": 750, "overflow": overflow}
    async with mpx.subscribe("a", **limit) as sub:
        assert await sub.get() == Activation(b"a")
        for number in range(10):
            await mpx.publish("a", str(number))
        got = [await guarded(sub.get()) for _ in expected]
        assert [getattr(event, "data", event) for event in got] == expected
        assert sub.dropped == 7


async def test_overflow_of_one_run(mpx):
    """Messages that arrive together are cut where those that arrive singly are."""
    async with mpx.subscribe("a", inbox_limit=750) as sub:
        assert await sub.get() == Activation(b"a")
        await asyncio.gather(*(mpx.publish("a", str(n)) for n in range(10)))
        got = [await guarded(sub.get()) for _ in range(4)]
        assert got[0] == Gap(dropped=7)
        assert [message.data for message in got[1:]] == [b"7", b"8", b"9"]


async def test_large_message(mpx):
    """A message larger than the limit is taken while nothing else waits."""
    async with mpx.subscribe("a", inbox_limit=10) as sub:
        await mpx.publish("a", "x" * 100_000)
        assert len((await guarded(anext(sub))).data) == 100_000


async def test_left_pattern_of_a_channels_name(mpx):
    """With a pattern go its messages that wait, not those of a channel named so."""
    async with mpx.subscribe("a*", patterns=["a*"]) as sub:
        await mpx.publish("a*", "x")
        await sub.remove(patterns=["a*"])
        await mpx.publish("a*", "y")
        assert await guarded(anext(sub)) == Message(b"a*", b"x")
        assert await guarded(anext(sub)) == Message(b"a*", b"y")


async def test_gap_and_return_in_order(redis, mpx):
    """Messages, gap, activation, messages: an iterator has them in their order."""
    async with mpx.subscribe("a") as sub:
        await mpx.publish("a", "1")
        redis.kill_subscribers()
        got = [await guarded(sub.get()) for _ in range(4)]
        await mpx.publish("a", "2")
        got.append(await guarded(sub.get()))
    kinds = [type(event) for event in got]
    assert kinds == [Activation, Message, Gap, Activation, Message]
    assert isinstance(got[2].error, ConnectionError)


async def test_losses_of_a_slow_reader_are_one(redis, mpx):
    """Who doesn't read while the link drops time and again finds one gap."""
    async with mpx.subscribe("a") as slow, mpx.subscribe("a") as reader:
        for _ in range(5):
            while not isinstance(await guarded(reader.get()), Activation):
                pass
            redis.kill_subscribers()
        while not isinstance(await guarded(reader.get()), Activation):
            pass
        kinds = [type(await guarded(slow.get())) for _ in range(3)]
        assert kinds == [Activation, Gap, Activation]
        await mpx.publish("a", "1")
        assert (await guarded(slow.get())) == Message(b"a", b"1")


async def test_losses_between_messages_stay(redis, mpx):
    """A message that waits between two losses keeps its place."""
    async with mpx.subscribe("a") as slow, mpx.subscribe("a") as reader:
        for number in range(3):
            while not isinstance(await guarded(reader.get()), Activation):
                pass
            await mpx.publish("a", str(number))
            redis.kill_subscribers()
        kinds = [type(await guarded(slow.get())) for _ in range(9)]
    assert kinds == [Activation, Message, Gap] * 3


async def test_two_readers(mpx):
    """A second reader at a time is a mistake."""
    async with mpx.subscribe("a") as sub:
        await guarded(sub.get())
        reader = await blocked(sub.get())
        with pytest.raises(RuntimeError, match="already"):
            await sub.get()
        reader.cancel()


async def seconds_to_leave(sub, names):
    """
    Return the processor's time that leaving names takes here, Redis left out.
    """
    gc.disable()
    try:
        before = time.process_time()
        removing = asyncio.ensure_future(sub.remove(*names))
        await asyncio.sleep(0)  # It has left them, and waits for Redis.
        return time.process_time() - before
    finally:
        gc.enable()
        await guarded(removing)


async def test_leaving_many_names_with_a_full_inbox(mpx):
    """What waits is gone through once, however many names are left."""
    names = [f"c{number}" for number in range(4000)]
    async with mpx.subscribe("a") as sub:
        await sub.add(*names)
        await asyncio.gather(*(mpx.publish("a", "x") for _ in range(4000)))
        one = await seconds_to_leave(sub, names[:1])
        many = await seconds_to_leave(sub, names[1:])
        # Five times here; gone through once for each name, it was 800 times.
        assert many < 40 * one
        assert (await guarded(sub.get())) == Activation(b"a")
