"""
Callbacks of the Redis hop: those that raise, hang, wait, or change what is there.
"""

from __future__ import annotations

import asyncio
import gc

import pytest

from channelsmultiplexer.pubsub import (
    Activation,
    Gap,
)
from recorder import guarded


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_callback_that_raises(mpx, recorder, caplog, error, kind):
    """
    What a callback raises is logged, and the next message comes.

    RedisMPX's cancelled_in_callback.
    """

    def plain(channel, data):
        recorder.message(channel, data)
        raise error

    async def coroutine(channel, data):
        plain(channel, data)

    callback = plain if kind == "plain" else coroutine
    mpx.new_channel_subscription(callback).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        await mpx.publish("a", "2")
        assert await recorder.take(2) == [(b"a", b"1"), (b"a", b"2")]
    assert "A callback of <ChannelSubscription" in caplog.text


async def test_callback_that_cancels_its_task(mpx, recorder):
    """A callback that cancels the task it runs in loses that message only."""

    async def callback(channel, data):
        recorder.message(channel, data)
        asyncio.current_task().cancel()
        await asyncio.Event().wait()

    mpx.new_channel_subscription(callback).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        await mpx.publish("a", "2")
        assert await recorder.take(2) == [(b"a", b"1"), (b"a", b"2")]


async def test_callback_that_hangs(redis, mpx, recorder):
    """
    A callback that hangs delays nobody else, nor the way back from a loss.

    RedisMPX's slow_callback_hol.
    """

    async def hang(channel, data):
        recorder.message(channel, data)
        await asyncio.Event().wait()

    mpx.new_channel_subscription(hang).add("a")
    async with mpx.subscribe("a", "b") as sub:
        await mpx.publish("a", "1")
        assert await recorder.next() == (b"a", b"1")
        redis.kill_subscribers()
        while not isinstance(await guarded(sub.get()), Gap):
            pass
        assert isinstance(await guarded(sub.get()), Activation)


async def test_awaitable_from_plain_callable(mpx, recorder):
    """
    A lambda that returns a coroutine is awaited like a coroutine function.

    RedisMPX's lambda_coroutine.
    """

    async def note(data):
        recorder.message("noted", data)

    mpx.new_channel_subscription(lambda channel, data: note(data)).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        assert await recorder.next() == ("noted", b"1")


async def test_callback_awaits_the_same_multiplexer(mpx, recorder):
    """
    A callback may wait for a message of the same Multiplexer.

    RedisMPX's callback_deadlock.
    """
    promises = mpx.new_promise_subscription("reply-")
    await guarded(promises.wait_for_activation())

    async def ask(channel, data):
        promise = promises.new_promise("1", 5)
        await mpx.publish("reply-1", "yes")
        recorder.message(channel, await promise)

    mpx.new_channel_subscription(ask).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "?")
        assert await recorder.next() == (b"a", b"yes")


async def test_removal_during_dispatch(mpx, recorder):
    """
    A listener that another removes has nothing more; others miss nothing.

    RedisMPX's removal_during_dispatch.
    """
    subscriptions = []

    def remove_next(channel, data):
        recorder.message("first", data)
        subscriptions[1].remove("a")

    for callback in (remove_next, recorder.message, recorder.message):
        subscriptions.append(mpx.new_channel_subscription(callback))
        subscriptions[-1].add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        await mpx.publish("a", "2")
        got = await recorder.take(4)
    expected = [("first", b"1"), (b"a", b"1"), ("first", b"2"), (b"a", b"2")]
    assert sorted(got, key=str) == sorted(expected, key=str)
    assert recorder.events.empty()


async def test_removal_in_the_middle_of_a_run(mpx, recorder):
    """A callback that removes its own channel isn't called for it again."""

    def once(channel, data):
        recorder.message(channel, data)
        subscription.remove("a")

    subscription = mpx.new_channel_subscription(once)
    subscription.add("a", "b")
    async with mpx.subscribe("a", "b"):
        await asyncio.gather(*(mpx.publish("a", str(n)) for n in range(5)))
        await mpx.publish("b", "end")
        assert await recorder.take(1) == [(b"a", b"0")]


async def test_close_cancels_the_running_callback(mpx, recorder):
    """Closing a subscription cancels the callback that it is in."""

    async def hang(channel, data):
        try:
            recorder.message(channel, data)
            await asyncio.Event().wait()
        finally:
            recorder.message("cancelled", data)

    subscription = mpx.new_channel_subscription(hang)
    subscription.add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        await recorder.next()
        subscription.close()
        assert await recorder.next() == ("cancelled", b"1")


async def test_close_before_the_callback_starts(mpx, recorder):
    """A coroutine whose subscription closes before its first step is closed, too."""

    async def never(channel, data):
        raise AssertionError("it starts after the one that closes")

    first = mpx.new_channel_subscription(never)
    closing = mpx.new_channel_subscription(lambda *_: first.close())
    for one in (first, closing, mpx.new_channel_subscription(recorder.message)):
        one.add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        await recorder.next()
    # A coroutine that was never awaited would be told now.
    gc.collect()


async def test_slow_callback_is_bounded(mpx, recorder):
    """
    A callback that doesn't keep up loses messages, and is told how many.

    RedisMPX's memory_slow_consumer.
    """
    go_on = asyncio.Event()

    async def slow(channel, data):
        recorder.message(channel, data)
        await go_on.wait()

    one = mpx.new_channel_subscription(slow, on_gap=recorder.gap, inbox_limit=500)
    one.add("a")
    async with mpx.subscribe("a"):
        for number in range(10):
            await mpx.publish("a", str(number))
        assert await recorder.next() == (b"a", b"0")
        go_on.set()
        expected = [("gap", 7), (b"a", b"8"), (b"a", b"9")]
        assert await recorder.take(3) == expected


async def test_callback_awaits_now_and_then(mpx, recorder):
    """Callbacks that sometimes return something to await are called in order."""

    def sometimes(channel, data):
        recorder.message(channel, data)
        return asyncio.sleep(0) if data.endswith(b"3") else None

    mpx.new_channel_subscription(sometimes, inbox_limit=100_000).add("a")
    async with mpx.subscribe("a"):
        await asyncio.gather(*(mpx.publish("a", str(n)) for n in range(300)))
        expected = [(b"a", str(n).encode()) for n in range(300)]
        assert await recorder.take(300) == expected
