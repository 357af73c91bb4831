"""
The Redis hop: what users see of it.
"""

from __future__ import annotations

import asyncio

import pytest

from channelsmultiplexer.pubsub import (
    Message,
    Multiplexer,
    SubscriptionIsClosed,
)
from recorder import Recorder, guarded

# The seed's API


async def test_nothing_at_construction(redis):
    """Making a Multiplexer and its subscriptions takes no event loop and no link."""

    def make():
        mpx = Multiplexer(redis.url)
        return mpx.new_pattern_subscription("a", print), mpx

    _, mpx = await asyncio.to_thread(make)
    assert not redis.clients()
    assert not redis.clients("normal")[1:]
    await guarded(mpx.connect())
    async with mpx.subscribe("settled"):
        assert redis.call("PUBSUB", "NUMPAT") == 1
    await mpx.aclose()


async def test_three_listeners(redis, mpx, recorder):
    """
    All who listen to a channel have its messages, first come first.

    RedisMPX's fanout_two_subscribers.
    """
    for number in range(3):
        one = mpx.new_channel_subscription(
            lambda c, m, n=number: recorder.message(n, m)
        )
        one.add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "x")
        assert await recorder.take(3) == [(0, b"x"), (1, b"x"), (2, b"x")]
        assert redis.subscribers("a") == 1


async def test_newest_leaves(redis, mpx, recorder):
    """
    When one of two listeners leaves, the other goes on.

    RedisMPX's newest_leaves.
    """
    old = mpx.new_channel_subscription(*recorder.callbacks)
    old.add("a")
    assert await recorder.next() == ("active", b"a")
    async with mpx.subscribe("a"):
        pass
    await mpx.publish("a", "x")
    assert await recorder.next() == (b"a", b"x")


async def test_disconnect_is_told_to_all(redis, mpx):
    """
    Every subscription is told of a lost link, and of its names' return.

    RedisMPX's disconnect_fanout.
    """
    recorders = [Recorder() for _ in range(3)]
    for recorder in recorders:
        mpx.new_channel_subscription(*recorder.callbacks).add("a")
        assert await recorder.next() == ("active", b"a")
    redis.kill_subscribers()
    for recorder in recorders:
        (what, error), back = await recorder.take(2)
        assert what == "disconnect"
        assert isinstance(error, ConnectionError)
        assert back == ("active", b"a")


async def test_joiner_is_activated(mpx, recorder):
    """
    Who joins a channel that is active is told at once.

    Go-mpx and node-mpx never do.
    """
    async with mpx.subscribe("a"):
        mpx.new_channel_subscription(*recorder.callbacks).add("a")
        assert await recorder.next() == ("active", b"a")


async def test_close_in_any_order(redis, mpx, recorder):
    """Subscriptions and Multiplexer close before or after each other, and again."""
    channels = mpx.new_channel_subscription(*recorder.callbacks)
    channels.add("a")
    pattern = mpx.new_pattern_subscription("b*", *recorder.callbacks)
    pattern.close()
    await mpx.aclose()
    for closable in (channels, pattern, mpx, channels, mpx):
        closable.close()
    await mpx.aclose()
    assert not redis.clients()
    with pytest.raises(SubscriptionIsClosed):
        channels.add("b")
    with pytest.raises(SubscriptionIsClosed):
        mpx.new_channel_subscription(print)


async def test_synchronous_close(redis, mpx):
    """Redis hears of close() without another turn of the event loop."""
    async with mpx.subscribe("a"):
        mpx.close()
        while redis.clients():
            pass
    with pytest.raises(SubscriptionIsClosed):
        await mpx.publish("a", "b")


async def test_names_are_text_or_bytes(mpx):
    """A name as text and the same as UTF-8 are one."""
    async with mpx.subscribe("é") as sub:
        await mpx.publish("é".encode(), b"\xff")
        assert await guarded(anext(sub)) == Message("é".encode(), b"\xff")


async def test_on_message_is_needed(mpx):
    """A subscription without on_message is a mistake."""
    with pytest.raises(TypeError, match="on_message"):
        mpx.new_channel_subscription(None)


# The modern API


async def test_publish_right_after_entering(redis):
    """What is published right after entering comes, also from another connection."""
    async with Multiplexer(redis.url) as mpx:
        for number in range(20):
            async with mpx.subscribe(f"c{number}", patterns=[f"p{number}*"]) as sub:
                assert redis.call("PUBLISH", f"c{number}", "1") == 1
                assert redis.call("PUBLISH", f"p{number}x", "2") == 1
                assert (await guarded(anext(sub))).data == b"1"
                assert (await guarded(anext(sub))).data == b"2"
            assert redis.subscribers(f"c{number}") == 0


async def test_iteration_ends(mpx):
    """Closing a subscription ends its iteration; so does closing the Multiplexer."""
    async with mpx.subscribe("a") as first, mpx.subscribe("a") as second:
        first.close()
        assert [message async for message in first] == []
        reader = asyncio.ensure_future(anext(second))
        await mpx.publish("b", "")
        mpx.close()
        with pytest.raises(StopAsyncIteration):
            await guarded(reader)
        with pytest.raises(SubscriptionIsClosed):
            await second.get()


async def test_subscription_that_is_never_entered(mpx):
    """A subscription that is made and not entered is forgotten."""
    mpx.subscribe("a")
    # Private: that nothing grows can't be seen from outside.
    assert not mpx._subscriptions


async def test_entering_after_the_end(redis, mpx):
    """A subscription that was made before the Multiplexer closed can't be entered."""
    sub = mpx.subscribe("a")
    await mpx.aclose()
    with pytest.raises(SubscriptionIsClosed):
        await sub.__aenter__()
    with pytest.raises(SubscriptionIsClosed):
        mpx.subscribe("a")


async def test_reading_before_entering(mpx):
    """A subscription that is read before it is entered says so."""
    sub = mpx.subscribe("a")
    for read in (sub.get, sub.__anext__):
        with pytest.raises(RuntimeError, match="async with"):
            await guarded(read())


async def test_canceled_reader_loses_nothing(mpx):
    """A reader that is cancelled while it waits leaves the next message."""
    async with mpx.subscribe("a") as sub:
        await guarded(sub.get())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sub.get(), 0.01)
        await mpx.publish("a", "1")
        assert (await guarded(anext(sub))).data == b"1"


async def test_add_and_remove(redis, mpx):
    """Names are added to and removed from an open subscription, as Redis sees, too."""
    async with mpx.subscribe("a") as sub:
        await sub.add("b", patterns=["p*"])
        assert redis.subscribers("b") == 1
        await sub.remove("a", "b", "never", patterns=["p*"])
        assert redis.subscribers("a") == redis.subscribers("b") == 0
        assert redis.call("PUBSUB", "NUMPAT") == 0


async def test_canceled_entering_leaves_nothing(redis, mpx):
    """Canceling the entering of a subscription leaves no name behind."""
    entering = asyncio.ensure_future(mpx.subscribe("a").__aenter__())
    await asyncio.sleep(0)  # It has joined, and waits for Redis.
    entering.cancel()
    await asyncio.wait([entering])
    async with mpx.subscribe("settled"):
        assert redis.subscribers("a") == 0


async def test_publish_counts(mpx):
    """publish() returns how many connections a message reached."""
    assert await mpx.publish("a", "1") == 0
    async with mpx.subscribe("a"), mpx.subscribe("a"):
        assert await mpx.publish("a", "1") == 1
