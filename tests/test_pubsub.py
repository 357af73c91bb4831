"""
The Redis hop: what users see of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import traceback
import warnings

import pytest
import redis.asyncio as aioredis
from redis.credentials import CredentialProvider

from channelsmultiplexer.pubsub import (
    Activation,
    Gap,
    InactiveSubscription,
    Message,
    Multiplexer,
    NameRefused,
    PromiseLost,
    RedisUnavailable,
    SubscriptionIsClosed,
)
from guard import blocked
from recorder import Recorder, guarded
from redis_server import debian_server, server


@pytest.fixture
async def mpx(redis):
    """
    Return a Multiplexer with a link.
    """
    async with Multiplexer(redis.url) as mpx:
        yield mpx


@pytest.fixture
def recorder():
    return Recorder()


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


# Callbacks


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


# Order and gaps


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


async def test_leaving_many_names_with_a_full_inbox(mpx):
    """What waits is gone through once, however many names are left."""
    async with mpx.subscribe("a") as sub:
        await sub.add(*(f"c{number}" for number in range(4000)))
        await asyncio.gather(*(mpx.publish("a", "x") for _ in range(4000)))
        names = [f"c{number}" for number in range(4000)]
        await mpx.publish("a", "end")
        # CPU seconds: 0.01 here; once for each name it was 2.
        before = time.process_time()
        removing = asyncio.ensure_future(sub.remove(*names))
        await asyncio.sleep(0)  # It has left them, and waits for Redis.
        assert time.process_time() - before < 0.2
        await guarded(removing)
        assert (await guarded(sub.get())) == Activation(b"a")


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


# Promises


async def test_request(mpx):
    """A request brings the answer to its own question."""

    async def answer(channel, question):
        reply_to, _, text = question.partition(b" ")
        await mpx.publish(reply_to, text.upper())

    mpx.new_channel_subscription(answer).add("service")
    promises = mpx.new_promise_subscription("answer[1]*-")
    async with mpx.subscribe("service"):
        answers = [promises.request("service", text) for text in ("a", "b", "c")]
        assert await guarded(asyncio.gather(*answers)) == [b"A", b"B", b"C"]
        framed = promises.request("service", lambda name: name + b" framed")
        assert await guarded(framed) == b"FRAMED"


async def test_request_in_an_outage():
    """A request's time runs out in an outage, too."""
    with server() as doomed:
        async with Multiplexer(doomed.url) as mpx:
            promises = mpx.new_promise_subscription("p-")
            await guarded(promises.wait_for_activation())
            doomed.stop()
            async with mpx.subscribe() as sub:
                assert isinstance(await guarded(sub.get()), Gap)
            asking = asyncio.ensure_future(promises.request("s", "?", timeout=0.05))
            await asyncio.wait([asking], timeout=5)
            assert asking.done()
            assert isinstance(asking.exception(), asyncio.TimeoutError)


async def test_promise_before_activation(mpx):
    """
    A promise can't be made before its subscription is active.

    RedisMPX's wait_for_new_promise, and node-mpx, where it doesn't wait.
    """
    promises = mpx.new_promise_subscription("p-")
    with pytest.raises(InactiveSubscription):
        promises.new_promise("1", 1)
    promise = await guarded(promises.wait_for_new_promise("1", 10))
    await mpx.publish("p-1", "x")
    assert await guarded(promise) == b"x"


async def test_promises_of_the_same_suffix(mpx):
    """
    One message keeps all promises for its channel.

    RedisMPX's promise_same_suffix and second_pattern_activation.
    """
    promises = mpx.new_promise_subscription("p-")
    again = mpx.new_promise_subscription("p-")
    first, second = [await guarded(promises.wait_for_new_promise("1", 5)) for _ in "12"]
    third = await guarded(again.wait_for_new_promise("1", 5))
    await mpx.publish("p-1", "x")
    assert await guarded(asyncio.gather(first, second, third)) == [b"x"] * 3


async def test_promise_times_out_from_creation(mpx):
    """
    A promise's time runs whether or not anybody awaits it.

    In RedisMPX it runs from the first await.
    """
    promises = mpx.new_promise_subscription("p-")
    promise = await guarded(promises.wait_for_new_promise("1", 0.01))
    done = asyncio.Event()
    promise.add_done_callback(lambda _: done.set())
    await guarded(done.wait())
    with pytest.raises(asyncio.TimeoutError):
        await promise


async def test_promise_is_cancelled(mpx):
    """A cancelled promise leaves the others."""
    promises = mpx.new_promise_subscription("p-")
    first = await guarded(promises.wait_for_new_promise("1", 5))
    second = promises.new_promise("1", 5)
    assert first.cancel()
    await mpx.publish("p-1", "x")
    assert await guarded(second) == b"x"


async def test_promise_is_lost_with_the_link(redis, mpx):
    """
    All promises fail when the link drops, and new ones can be made after.

    RedisMPX's promise_disconnect.
    """
    promises = mpx.new_promise_subscription("p-")
    lost = [await guarded(promises.wait_for_new_promise(n, 5)) for n in "123"]
    redis.kill_subscribers()
    for promise in lost:
        with pytest.raises(PromiseLost):
            await guarded(promise)
    promise = await guarded(promises.wait_for_new_promise("4", 5))
    await mpx.publish("p-4", "x")
    assert await guarded(promise) == b"x"


async def test_close_fails_promises_and_waiters(mpx):
    """Closing a promise subscription tells who awaits a promise or an activation."""
    promises = mpx.new_promise_subscription("p-")
    waiter = asyncio.ensure_future(promises.wait_for_activation())
    await asyncio.sleep(0)  # It waits now.
    promises.close()
    with pytest.raises(SubscriptionIsClosed):
        await guarded(waiter)
    again = mpx.new_promise_subscription("p-")
    promise = await guarded(again.wait_for_new_promise("1", None))
    again.close()
    with pytest.raises(SubscriptionIsClosed):
        await promise
    with pytest.raises(SubscriptionIsClosed):
        again.new_promise("1", 1)


async def test_clear_fails_promises(mpx):
    """clear() fails what is outstanding, with a typed error."""
    promises = mpx.new_promise_subscription("p-")
    promise = await guarded(promises.wait_for_new_promise("1", None))
    promises.clear()
    with pytest.raises(PromiseLost, match="cleared"):
        await promise


# Names


async def test_add_remove_add(redis, mpx, recorder):
    """
    However often a name is added and removed in one turn, the last word holds.

    Go-mpx sends an unsubscription last.
    """
    one = mpx.new_channel_subscription(*recorder.callbacks)
    for number in range(50):
        name = f"c{number}"
        one.add(name)
        one.remove(name)
        one.add(name)
        if number % 2:
            one.remove(name)
    async with mpx.subscribe("settled"):
        counts = [redis.subscribers(f"c{number}") for number in range(50)]
    assert counts == [1, 0] * 25


async def test_add_and_remove_in_flight(redis, mpx, recorder):
    """
    A name is active when the last of its commands is answered, not the first.

    RedisMPX doesn't count the answers.
    """
    one = mpx.new_channel_subscription(*recorder.callbacks)
    for _ in range(5):
        one.add("a")
        await asyncio.sleep(0)  # The command leaves; its answer is still to come.
        one.remove("a")
        await asyncio.sleep(0)
    one.add("a")
    assert await recorder.next() == ("active", b"a")
    assert redis.subscribers("a") == 1
    assert recorder.events.empty()


async def test_remove_while_down(redis, mpx, recorder):
    """
    A name that was removed while there was no link isn't subscribed again.

    RedisMPX's remove_before_activation, without a link.
    """
    one = mpx.new_channel_subscription(*recorder.callbacks)
    one.add("a", "b")
    assert await recorder.take(2) == [("active", b"a"), ("active", b"b")]
    redis.kill_subscribers()
    assert (await recorder.next())[0] == "disconnect"
    one.remove("a")
    assert await recorder.next() == ("active", b"b")
    assert redis.subscribers("a") == 0


# Where it is at home


def test_another_event_loop(redis):
    """A Multiplexer that is at home in one event loop is refused in another."""
    mpx = Multiplexer(redis.url)
    asyncio.run(mpx.connect())
    mpx = Multiplexer(redis.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(mpx.connect())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(mpx.connect())
    loop.run_until_complete(mpx.aclose())
    loop.close()


def test_event_loop_that_ends(redis):
    """asyncio.run() that leaves a Multiplexer open leaves no connection."""

    async def leave_open():
        mpx = Multiplexer(redis.url)
        mpx.new_channel_subscription(print).add("a")
        await mpx.connect()

    asyncio.run(leave_open())
    gc.collect()
    while redis.clients():
        pass


def test_close_after_the_event_loop(redis):
    """What is open when its event loop is closed can be closed after it."""

    async def open_all():
        mpx = Multiplexer(redis.url)
        promises = mpx.new_promise_subscription("p-")
        await promises.wait_for_new_promise("1", None)
        sub = await mpx.subscribe("a").__aenter__()
        await sub.get()
        await blocked(sub.get())
        return mpx, sub, promises

    loop = asyncio.new_event_loop()
    closables = loop.run_until_complete(open_all())
    loop.close()
    for closable in closables:
        closable.close()
    while redis.clients():
        pass
    del closables, closable
    # asyncio warns of what was in the loop that nobody closed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_fork(redis, mpx):
    """A forked child is refused, and its close() leaves the parent's link."""
    async with mpx.subscribe("a") as sub:
        with warnings.catch_warnings():
            # Other tests' threads: the child uses none.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                mpx._link._start()
            except RuntimeError:
                mpx.close()
                os._exit(0)
            os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        await mpx.publish("a", "still here")
        assert (await guarded(anext(sub))).data == b"still here"


async def test_another_event_loop_while_at_home(redis, mpx):
    """All that needs the link is refused in another event loop."""
    async with mpx.subscribe("a"):

        async def use():
            for act in (mpx.connect, lambda: mpx.publish("a", "")):
                with pytest.raises(RuntimeError, match="another event loop"):
                    await act()

        await asyncio.to_thread(asyncio.run, use())


# Addresses


async def test_addresses(redis):
    """A server is named by URL, host and port, path of a socket, or a client."""
    client = aioredis.Redis(port=redis.port, client_name="like-me")
    for location in (
        redis.url,
        f"{redis.url}/3?client_name=me",
        ("127.0.0.1", redis.port),
        redis.socket_path,
        f"unix://{redis.socket_path}",
        client,
    ):
        async with Multiplexer(location) as mpx:
            assert await mpx.publish("a", "1") == 0
    await client.aclose()


async def test_like_a_client(redis):
    """A client of redis-py's lends its login, database and name, not its connection."""
    redis.call("ACL", "SETUSER", "user", "reset", "on", ">pw", "+@all", "&*")
    options = {"username": "user", "password": "pw", "db": 3, "client_name": "like-me"}
    client = aioredis.Redis(port=redis.port, **options)
    async with Multiplexer(client) as mpx, mpx.subscribe("a"):
        (line,) = redis.clients()
        for word in (" user=user ", " db=3 ", " name=like-me "):
            assert word in line
    assert await client.ping()
    await client.aclose()


async def test_client_name_and_database(redis):
    """The connection is known by the client name, and in the database, asked for."""
    mpx = Multiplexer(redis.url, db=3, client_name="mine")
    async with mpx, mpx.subscribe("a"):
        (line,) = redis.clients()
    assert " name=mine " in line
    assert " db=3 " in line


async def test_one_connection(redis, mpx):
    """Any number of subscriptions is one connection."""
    many = [mpx.new_channel_subscription(print) for _ in range(500)]
    for number, one in enumerate(many):
        one.add(f"c{number}")
    async with mpx.subscribe("c499", patterns=["x*"]):
        assert len(redis.clients()) == 1


async def test_resp2():
    """A server without HELLO has the older protocol, and publish() works."""
    options = ("--rename-command", "HELLO", "", "--requirepass", "pw")
    with server(*options) as old:
        async with Multiplexer(old.url, password="pw", client_name="me") as mpx:
            async with mpx.subscribe("a") as sub:
                assert await mpx.publish("a", "1") == 1
                assert (await guarded(anext(sub))).data == b"1"
            assert mpx._link._connection.version == 2


@pytest.fixture
def resp2():
    """
    Return a Redis server without HELLO.
    """
    with server("--rename-command", "HELLO", "") as old:
        yield old


async def test_close_while_publishing(resp2):
    """A link that publish() is opening when all is closed is dropped."""
    mpx = Multiplexer(resp2.url)
    await mpx.connect()
    publishing = await blocked(mpx.publish("a", "1"))
    await mpx.aclose()
    with pytest.raises(SubscriptionIsClosed):
        await guarded(publishing)
    (admin,) = resp2.clients("normal")
    assert "cmd=client|list" in admin


async def test_half_open_second_link(resp2):
    """publish() by a link of its own fails when the server goes silent."""
    async with Multiplexer(resp2.url, ping_interval=0.05, ping_timeout=0.05) as mpx:
        await mpx.publish("a", "1")
        resp2.signal(signal.SIGSTOP)
        with pytest.raises(RedisUnavailable):
            await guarded(mpx.publish("a", "2"))
        resp2.signal(signal.SIGCONT)


async def test_canceled_aclose(redis):
    """Canceling aclose() drops the link."""
    mpx = Multiplexer(redis.url)
    async with mpx.subscribe("a"):
        closing = await blocked(mpx.aclose())
        closing.cancel()
        await asyncio.wait([closing])
        while redis.clients():
            pass


# Refusals


@pytest.fixture
def limited(redis):
    """
    Return a URL of a user who may have all channels that start with ok.
    """
    redis.call("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", "&ok*")
    return f"redis://limited:pw@127.0.0.1:{redis.port}"


async def test_refused_name_among_500(redis, limited, recorder, caplog):
    """
    Of 500 names one is refused: who asked is told, and 499 are active.

    RedisMPX asks for all in one command.
    """
    async with Multiplexer(limited) as mpx:
        one = mpx.new_channel_subscription(*recorder.callbacks)
        one.add(*(f"ok{number}" for number in range(499)))
        with pytest.raises(NameRefused, match="bad") as caught:
            async with mpx.subscribe("bad"):
                pass
        assert caught.value.name == b"bad"
        active = {name for _, name in await recorder.take(499)}
        assert len(active) == 499
        assert mpx.connections == 1
        assert recorder.events.empty()
        redis.kill_subscribers()
        assert (await recorder.next())[0] == "disconnect"
        await recorder.take(499)


async def test_refused_callback_subscription(redis, limited, recorder, caplog):
    """
    A callback subscription's refusal is logged, and nothing else suffers.

    RedisMPX's socket_leak_reconnect.
    """
    async with Multiplexer(limited) as mpx:
        one = mpx.new_channel_subscription(*recorder.callbacks)
        one.add("ok1", "bad", "ok2")
        names = {name for _, name in await recorder.take(2)}
        assert names == {b"ok1", b"ok2"}
        async with mpx.subscribe("ok3"):
            assert "Redis refuses b'bad'" in caplog.text
        assert mpx.connections == 1


async def test_permission_revoked(redis, limited):
    """A name that is taken away is told to its reader; the others come back."""
    mpx = Multiplexer(limited)
    async with mpx, mpx.subscribe("ok1") as one, mpx.subscribe("ok2") as two:
        redis.call("ACL", "SETUSER", "limited", "resetchannels", "&ok2")
        with pytest.raises(NameRefused, match="ok1"):
            await guarded(anext(one))
        got = [await guarded(two.get()) for _ in range(3)]
        assert [type(event) for event in got] == [Activation, Gap, Activation]
        assert redis.call("PUBLISH", "ok2", "x") == 1


async def test_refused_name_is_asked_for_again(redis, limited):
    """A refused name is active when Redis lets us and it is added again."""
    async with Multiplexer(limited) as mpx, mpx.subscribe("ok") as sub:
        with pytest.raises(NameRefused):
            await sub.add("bad")
        redis.call("ACL", "SETUSER", "limited", "&bad")
        redis.kill_subscribers()
        await guarded(sub.add("bad"))
        assert redis.subscribers("bad") == 1


async def test_refusal_beside_a_slower_name(limited):
    """Of two names that are entered at once, the second's refusal is raised."""
    async with Multiplexer(limited) as mpx:
        with pytest.raises(NameRefused, match="bad"):
            await guarded(mpx.subscribe("ok1", "bad").__aenter__())


async def test_refusal_before_anybody_waits(limited, caplog):
    """Who waits for a name that Redis has already refused isn't left to wait."""
    async with Multiplexer(limited) as mpx:
        promises = mpx.new_promise_subscription("bad")
        # The refusal has come when the answer to a later command is there.
        async with mpx.subscribe("ok1"):
            with pytest.raises(NameRefused, match="bad"):
                await guarded(promises.wait_for_activation())


async def test_refusal_of_who_comes_after(redis, limited):
    """A name's leaver isn't told that Redis refuses it to the next who asks."""
    async with Multiplexer(limited) as mpx:
        first, second = mpx.subscribe("ok1"), mpx.subscribe("ok1")
        await first.__aenter__()
        redis.call("ACL", "SETUSER", "limited", "+@all", "-subscribe")
        leaving = asyncio.ensure_future(first.aclose())
        await asyncio.sleep(0)  # It has left, and waits for Redis.
        await asyncio.sleep(0)  # The command is on its way.
        with pytest.raises(NameRefused):
            await guarded(second.__aenter__())
        assert await guarded(leaving) is None


async def test_refused_names_leave_nothing(limited):
    """A name that was refused and left is forgotten."""
    async with Multiplexer(limited) as mpx:
        for number in range(3):
            with pytest.raises(NameRefused):
                await guarded(mpx.subscribe(f"bad{number}").__aenter__())
        # Private: that nothing grows can't be seen from outside.
        assert not mpx._registry.channels


async def test_names_of_an_outage_leave_nothing():
    """A name that comes and goes while Redis is away is forgotten."""
    mpx = Multiplexer("redis://127.0.0.1:1")
    one = mpx.new_channel_subscription(print)
    for number in range(3):
        one.add(f"c{number}")
        await asyncio.sleep(0)  # As if a user came and left.
        one.remove(f"c{number}")
    # Private, as above.
    assert not mpx._registry.channels
    assert not mpx._registry._dirty
    await mpx.aclose()


# Logins


@pytest.fixture(scope="module")
def redis_with_password():
    """
    Return a Redis server that asks for the password pw.
    """
    with server("--requirepass", "pw") as one:
        yield one


async def test_wrong_password(redis):
    """A wrong password is raised to who waits, and logged."""
    with pytest.raises(RedisUnavailable, match="WRONGPASS"):
        async with Multiplexer(redis.url, username="who", password="wrong"):
            pass


async def test_nobody_there(caplog):
    """
    A server that isn't there is raised to who waits, and logged.

    RedisMPX's silent_initial_failure.
    """
    mpx = Multiplexer("redis://127.0.0.1:1")
    with pytest.raises(RedisUnavailable):
        await guarded(mpx.subscribe("a").__aenter__())
    assert "can't connect" in caplog.text
    promises = mpx.new_promise_subscription("p")
    with pytest.raises(RedisUnavailable):
        await guarded(promises.wait_for_activation())
    await mpx.aclose()


async def test_wrong_password_then_right(redis):
    """It goes on trying, with the credentials that the provider gives then."""
    redis.call("ACL", "SETUSER", "user", "reset", "on", ">new", "+@all", "&*")
    passwords = iter(["old", "old"])

    class Provider(CredentialProvider):
        def get_credentials(self):
            return "user", next(passwords, "new")

    mpx = Multiplexer(redis.url, credential_provider=Provider())
    with pytest.raises(RedisUnavailable):
        await guarded(mpx.connect())
    await guarded(mpx.connected_event.wait())
    assert await mpx.publish("a", "1") == 0
    await mpx.aclose()


async def test_no_password(redis_with_password):
    """A password that is asked for and not given is raised to who connects."""
    with pytest.raises(RedisUnavailable, match="NOAUTH"):
        async with Multiplexer(redis_with_password.url):
            pass


async def test_too_many_clients(redis):
    """A server that has too many clients is told as that."""
    redis.call("CONFIG", "SET", "maxclients", 1)
    try:
        with pytest.raises(RedisUnavailable, match="max number of clients"):
            async with Multiplexer(redis.url):
                pass
    finally:
        redis.call("CONFIG", "SET", "maxclients", 10000)


async def test_password_is_in_no_traceback():
    """A server that repeats the login it didn't understand isn't quoted."""
    # Debian's: the other doesn't repeat it.
    with debian_server("--rename-command", "HELLO", "", "--requirepass", "pw") as old:
        mpx = Multiplexer(old.url, password="mistyped")
        with pytest.raises(RedisUnavailable) as caught:
            await guarded(mpx.connect())
        await mpx.aclose()
    assert "mistyped" not in "".join(traceback.format_exception(caught.value))


async def test_password_is_in_no_repr(redis):
    """Neither what users hold nor what a debugger shows has the password."""
    mpx = Multiplexer(f"redis://user:secret@127.0.0.1:{redis.port}")
    sub = mpx.subscribe("a")
    login = await mpx._address.login()
    assert login.password == "secret"
    assert "secret" not in repr([mpx, mpx._address, login, sub])


async def test_end_while_logging_in():
    """A link that ends in its login is told with its cause."""

    # It stands in for a proxy whose Redis is away.
    async def hang_up(reader, writer):
        writer.close()

    proxy = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    mpx = Multiplexer(("127.0.0.1", proxy.sockets[0].getsockname()[1]))
    with pytest.raises(RedisUnavailable) as caught:
        await guarded(mpx.connect())
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    await mpx.aclose()
    proxy.close()
