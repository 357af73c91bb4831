"""
The one link of a Multiplexer: where it is at home, how it ends, its second one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import warnings

import pytest

from channelsmultiplexer.pubsub import (
    Multiplexer,
    RedisUnavailable,
    Subscription,
    SubscriptionIsClosed,
)
from guard import blocked
from recorder import guarded
from redis_server import server


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


async def test_use_after_the_end(redis):
    """A Multiplexer that is used after its end says that it is it, and how it ended."""
    mpx = Multiplexer(redis.url)
    async with mpx:
        pass
    for use in (mpx.connect, lambda: mpx.publish("a", ""), mpx.__aenter__):
        with pytest.raises(SubscriptionIsClosed, match="the Multiplexer of"):
            await use()
    with pytest.raises(SubscriptionIsClosed, match="the Multiplexer of"):
        mpx.subscribe("a")


def test_use_after_its_event_loop(redis):
    """One that is used in a second asyncio.run() says that its event loop ended."""
    mpx = Multiplexer(redis.url)
    asyncio.run(mpx.connect())
    with pytest.raises(SubscriptionIsClosed, match="event loop ended"):
        asyncio.run(mpx.connect())


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_into_another_event_loop(redis):
    """Nor does a forked child's aclose(), in an event loop of its own."""
    loop = asyncio.new_event_loop()
    mpx = Multiplexer(redis.url)
    sub = loop.run_until_complete(mpx.subscribe("a").__aenter__())
    with warnings.catch_warnings():
        # As above.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            asyncio.run(guarded(mpx.aclose()))
        finally:
            os._exit(not mpx.closed)
    assert os.waitpid(child, 0)[1] == 0
    assert loop.run_until_complete(guarded(mpx.publish("a", "still here"))) == 1
    loop.run_until_complete(sub.aclose())
    loop.run_until_complete(mpx.aclose())
    loop.close()


def test_aclose_in_another_event_loop(redis):
    """While its event loop rests, aclose() in another one drops the link."""
    loop = asyncio.new_event_loop()
    mpx = Multiplexer(redis.url)
    loop.run_until_complete(mpx.subscribe("a").__aenter__())
    asyncio.run(guarded(mpx.aclose()))
    while redis.clients():
        pass
    # What was there, with the event loop's own end.
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


async def test_another_thread(redis, mpx):
    """All that needs the link is refused in another thread."""
    one = mpx.new_channel_subscription(print)
    one.add("a")
    await mpx.connect()
    for act in (lambda: one.add("b"), one.clear, one.close, mpx.close):
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(act)
    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, mpx.aclose())
    async with mpx.subscribe("settled"):
        assert [redis.subscribers(name) for name in "ab"] == [1, 0]


def test_names_while_the_event_loop_rests(redis, recorder):
    """A name that is added while the event loop rests is subscribed when it runs."""
    loop = asyncio.new_event_loop()
    mpx = Multiplexer(redis.url)
    loop.run_until_complete(mpx.connect())
    mpx.new_channel_subscription(*recorder.callbacks).add("a")
    assert loop.run_until_complete(recorder.next()) == ("active", b"a")
    loop.run_until_complete(mpx.aclose())
    loop.close()


async def test_another_event_loop_while_at_home(redis, mpx):
    """All that needs the link is refused in another event loop."""
    async with mpx.subscribe("a"):

        async def use():
            for act in (mpx.connect, lambda: mpx.publish("a", "")):
                with pytest.raises(RuntimeError, match="another event loop"):
                    await act()

        await asyncio.to_thread(asyncio.run, use())


async def test_names_in_another_event_loop(redis, mpx):
    """Names that are added or removed in another event loop stay as they were."""
    one = mpx.new_channel_subscription(print)
    one.add("a")

    async def use():
        for act in (
            lambda: one.add("b"),
            lambda: one.add("settled"),
            lambda: one.remove("a"),
            lambda: one.close(),
            lambda: mpx.new_pattern_subscription("p", print),
        ):
            with pytest.raises(RuntimeError, match="another event loop"):
                act()

    async with mpx.subscribe("settled") as sub:
        await asyncio.to_thread(asyncio.run, use())
        assert repr(one) == "<ChannelSubscription to 1 channels>"
        await sub.add("settled, too")
        assert redis.subscribers("a") == 1
        assert redis.subscribers("b") == redis.call("PUBSUB", "NUMPAT") == 0


# Connections


async def test_failed_attempt_is_raised_to_each():
    """All who wait for an attempt that fails have an error of their own."""
    mpx = Multiplexer("redis://127.0.0.1:1")
    waiting = [
        mpx.connect(),
        mpx.connect(),
        *(mpx.subscribe("a").add("a") for _ in "12"),
    ]
    errors = await guarded(asyncio.gather(*waiting, return_exceptions=True))
    assert len(set(map(id, errors))) == 4
    for error in errors:
        assert isinstance(error, RedisUnavailable)
        assert isinstance(error.__cause__, OSError)
    await mpx.aclose()


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


@pytest.mark.parametrize("turns", range(1, 4))
async def test_canceled_aclose(redis, turns):
    """Canceling aclose() drops the link, whichever turn it comes in."""
    mpx = Multiplexer(redis.url)
    async with mpx.subscribe("a"):
        closing = asyncio.ensure_future(mpx.aclose())
        # Before the first it hasn't begun.
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        while redis.clients():
            pass


async def test_leaving_while_all_is_closed(redis):
    """A subscription that is being left when all is closed is left without an error."""
    for leave in (Subscription.aclose, lambda sub: sub.remove("a")):
        mpx = Multiplexer(redis.url)
        sub = await guarded(mpx.subscribe("a").__aenter__())
        leaving = asyncio.ensure_future(leave(sub))
        await asyncio.sleep(0)  # It has left, and waits for Redis.
        mpx.close()
        assert await guarded(leaving) is None
