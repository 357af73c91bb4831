"""
What is wrong with RedisMPX 0.5.2 and its siblings, and has no test elsewhere.

Each test names the defect that it shows absent. The others of them are named where
the behaviour is tested: by its test in test_pubsub.py and its neighbours.
"""

from __future__ import annotations

import asyncio
import gc
import signal

import pytest

from channelsmultiplexer.pubsub import (
    Activation,
    Gap,
    Multiplexer,
    RedisUnavailable,
    SubscriptionIsClosed,
)
from recorder import guarded
from redis_server import server


async def test_remove_before_activation(redis, mpx, recorder):
    """A channel removed before its activation is left
    (RedisMPX's remove_before_activation).
    """
    one = mpx.new_channel_subscription(*recorder.callbacks)
    one.add("a")
    await asyncio.sleep(0)  # The command leaves; its answer is still to come.
    one.remove("a")
    async with mpx.subscribe("settled"):
        assert redis.subscribers("a") == 0
        assert recorder.events.empty()


async def test_promise_close_outstanding(mpx):
    """Closing fails all promises (RedisMPX's promise_close_outstanding)."""
    promises = mpx.new_promise_subscription("p-")
    await guarded(promises.wait_for_activation())
    made = [promises.new_promise(suffix, None) for suffix in "112345"]
    promises.close()
    assert promises.closed
    for promise in made:
        with pytest.raises(SubscriptionIsClosed):
            await guarded(promise)


async def test_expiry_says_nothing(mpx, capsys):
    """A promise that expires beside another prints nothing, and leaves the other
    (RedisMPX's promise_same_suffix).
    """
    promises = mpx.new_promise_subscription("p-")
    short = await guarded(promises.wait_for_new_promise("1", 0.01))
    long = promises.new_promise("1", 5)
    with pytest.raises(asyncio.TimeoutError):
        await guarded(short)
    await mpx.publish("p-1", "x")
    assert await guarded(long) == b"x"
    assert capsys.readouterr() == ("", "")


async def test_second_promise_subscription_is_active(mpx):
    """One that joins an active prefix is active at once
    (RedisMPX's second_pattern_activation; node-mpx's never is).
    """
    first = mpx.new_promise_subscription("p-")
    await guarded(first.wait_for_activation())
    second = mpx.new_promise_subscription("p-")
    # go-mpx says no to the second who waits.
    for _ in range(2):
        await guarded(second.wait_for_activation())
    second.new_promise("1", None)


async def test_socket_leak_close(redis):
    """Opening and closing leaves no connection (RedisMPX's socket_leak_close)."""
    for _ in range(5):
        async with Multiplexer(redis.url) as mpx, mpx.subscribe("a"):
            assert len(redis.clients()) == 1
        assert not redis.clients()
    assert len(redis.clients("normal")) == 1  # The test's own.


async def test_auth_password(redis):
    """db= and password= let it in, as a URL does (RedisMPX's auth_password)."""
    redis.call("ACL", "SETUSER", "user", "reset", "on", ">pw", "+@all", "&*")
    address = f"127.0.0.1:{redis.port}"
    options = {"username": "user", "password": "pw", "db": 3}
    for mpx in (
        Multiplexer(f"redis://{address}", **options),
        Multiplexer(f"redis://user:pw@{address}/3"),
    ):
        async with mpx, mpx.subscribe("a"):
            (line,) = redis.clients()
            assert " db=3 " in line
            assert " user=user " in line


async def test_close_wakes_waiters(redis):
    """close() tells all who wait for a name, a link, a promise or an activation
    (RedisMPX's close_wakes_waiters).
    """
    mpx = Multiplexer(redis.url)
    promises = mpx.new_promise_subscription("p-")
    waiting = [mpx.connect(), mpx.subscribe("a").add("a"), promises.request("a", "b")]
    waiting += [promises.wait_for_activation(), promises.wait_for_new_promise("a")]
    tasks = [asyncio.ensure_future(one) for one in waiting]
    await asyncio.sleep(0)  # They have started, and wait.
    mpx.close()
    for task in tasks:
        with pytest.raises(SubscriptionIsClosed):
            await guarded(task)


async def test_server_that_takes_nothing():
    """What a silent server doesn't take goes with the link, and publishers are told
    (RedisMPX's write_command never drains).
    """
    ping = {"ping_interval": 0.05, "ping_timeout": 0.05, "timeout": 0.2}
    with server() as silent:
        mpx = Multiplexer(silent.url, **ping)
        async with mpx, mpx.subscribe() as sub:
            silent.signal(signal.SIGSTOP)
            # More than the system's buffers take.
            publishing = [mpx.publish("a", bytes(1_000_000)) for _ in range(20)]
            told = await guarded(asyncio.gather(*publishing, return_exceptions=True))
            assert [type(error) for error in told] == [RedisUnavailable] * 20
            assert isinstance(await guarded(sub.get()), Gap)
            silent.signal(signal.SIGCONT)
            await guarded(mpx.connected_event.wait())
            assert await guarded(mpx.publish("a", "1")) == 0


async def test_slow_on_disconnect(redis, mpx, recorder):
    """An on_disconnect that hangs doesn't delay the way back
    (in RedisMPX it is awaited first).
    """

    async def hang(error):
        recorder.disconnect(error)
        await asyncio.Event().wait()

    mpx.new_channel_subscription(print, hang).add("a")
    async with mpx.subscribe("a") as sub:
        redis.kill_subscribers()
        assert (await recorder.next())[0] == "disconnect"
        got = [type(await guarded(sub.get())) for _ in range(3)]
        assert got == [Activation, Gap, Activation]


async def test_async_call_method(mpx, recorder):
    """An object whose __call__ is async is awaited (RedisMPX's lambda_coroutine)."""

    class Handler:
        async def __call__(self, channel, data):
            await asyncio.sleep(0)
            recorder.message(channel, data)

    mpx.new_channel_subscription(Handler()).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        assert await recorder.next() == (b"a", b"1")


async def test_addition_during_dispatch(mpx, recorder):
    """A listener that another adds skips none and repeats none
    (RedisMPX's removal_during_dispatch).
    """

    def add(channel, data):
        recorder.message("first", data)
        added.add("a")

    added = mpx.new_channel_subscription(lambda _, data: recorder.message("new", data))
    for callback in (add, recorder.message):
        mpx.new_channel_subscription(callback).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        assert await recorder.take(2) == [("first", b"1"), (b"a", b"1")]
        await mpx.publish("a", "2")
        assert await recorder.take(3) == [("first", b"2"), (b"a", b"2"), ("new", b"2")]


async def test_remove_and_add_of_active_channels(redis, mpx, recorder):
    """Fifty channels removed and added at once are subscribed (go-mpx: none is)."""
    names = [f"c{number}" for number in range(50)]
    one = mpx.new_channel_subscription(*recorder.callbacks)
    one.add(*names)
    await recorder.take(50)
    for turns in range(3):
        for name in names:
            one.remove(name)
        for _ in range(turns):
            await asyncio.sleep(0)  # From the second time on, the command leaves.
        for name in names:
            one.add(name)
        await recorder.take(50)
        for name in names:
            assert redis.call("PUBLISH", name, turns) == 1
        assert await recorder.take(50) == [
            (name.encode(), b"%d" % turns) for name in names
        ]


async def test_reconnection_is_not_collected(redis, recorder):
    """A Multiplexer that nobody holds goes on (RedisMPX keeps no task)."""
    Multiplexer(redis.url).new_channel_subscription(*recorder.callbacks).add("a")
    assert await recorder.next() == ("active", b"a")
    gc.collect()
    redis.kill_subscribers()
    assert (await recorder.next())[0] == "disconnect"
    gc.collect()
    assert await recorder.next() == ("active", b"a")


async def test_closing_within_a_callback(redis, recorder):
    """A callback may call close() and aclose() (go-mpx's Close can deadlock)."""

    async def end(channel, data):
        mpx.close()
        await mpx.aclose()
        recorder.message(channel, data)

    mpx = Multiplexer(redis.url)
    mpx.new_channel_subscription(end).add("a")
    async with mpx.subscribe("a"):
        await mpx.publish("a", "1")
        assert await recorder.next() == (b"a", b"1")
