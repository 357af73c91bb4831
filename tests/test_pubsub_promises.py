"""
Promises: the one message that somebody else will publish.
"""

from __future__ import annotations

import asyncio

import pytest

from channelsmultiplexer.pubsub import (
    Gap,
    InactiveSubscription,
    Multiplexer,
    PromiseLost,
    SubscriptionIsClosed,
)
from recorder import guarded
from redis_server import server


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
    lost = [await guarded(promises.wait_for_new_promise(n, 5)) for n in "112"]
    redis.kill_subscribers()
    errors = await guarded(asyncio.gather(*lost, return_exceptions=True))
    assert [type(error) for error in errors] == [PromiseLost] * 3
    # One would gather the traceback of all who await it.
    assert len(set(map(id, errors))) == 3
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


async def test_close_leaves_others_waiting(mpx):
    """Closing one of two subscriptions to a prefix tells those who wait for it only."""
    first, second = (mpx.new_promise_subscription("p-") for _ in "12")
    waiting = [
        asyncio.ensure_future(one.wait_for_activation()) for one in (first, second)
    ]
    await asyncio.sleep(0)  # They wait now.
    first.close()
    with pytest.raises(SubscriptionIsClosed):
        await guarded(waiting[0])
    assert await guarded(waiting[1]) is None


async def test_clear_fails_promises(mpx):
    """clear() fails what is outstanding, with a typed error."""
    promises = mpx.new_promise_subscription("p-")
    promise = await guarded(promises.wait_for_new_promise("1", None))
    promises.clear()
    with pytest.raises(PromiseLost, match="cleared"):
        await promise
