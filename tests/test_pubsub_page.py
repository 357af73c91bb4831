"""
RedisMPX's page, example by example and name by name.

https://python-mpx.readthedocs.io/en/latest/
"""

from __future__ import annotations

import asyncio
import inspect

import pytest

from channelsmultiplexer import pubsub
from channelsmultiplexer.pubsub import (
    InactiveSubscription,
    Multiplexer,
    SubscriptionIsClosed,
)
from recorder import guarded


@pytest.fixture
async def mpx(redis):
    """
    Return the page's Multiplexer.
    """
    mpx = Multiplexer(redis.url)
    yield mpx
    await mpx.aclose()


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("Multiplexer", "new_channel_subscription new_channel_subcription"),
        ("Multiplexer", "new_pattern_subscription new_promise_subscription"),
        ("ChannelSubscription", "add remove clear close"),
        ("PatternSubscription", "close"),
        (
            "PromiseSubscription",
            "new_promise wait_for_activation wait_for_new_promise clear close",
        ),
        ("InactiveSubscription", "args"),
        ("SubscriptionIsClosed", "args"),
    ],
)
def test_names(name, members):
    """Every class of the page is there, with its methods."""
    for member in members.split():
        assert hasattr(getattr(pubsub, name), member)


def test_types():
    """The types of the callbacks can be imported."""
    assert {"OnMessage", "OnDisconnect", "OnActivation"} <= set(pubsub.__all__)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("new_channel_subscription", ["on_message", "on_disconnect", "on_activation"]),
        (
            "new_pattern_subscription",
            ["pattern", "on_message", "on_disconnect", "on_activation"],
        ),
        ("new_promise_subscription", ["prefix"]),
    ],
)
def test_parameters(method, parameters):
    """The arguments have the page's names, in its order."""
    names = list(inspect.signature(getattr(Multiplexer, method)).parameters)
    assert names[1 : 1 + len(parameters)] == parameters


async def test_keywords(mpx, recorder):
    """The methods' arguments have the page's names, too."""
    channel_sub = mpx.new_channel_subscription(*recorder.callbacks)
    channel_sub.add(channel="a")
    assert await recorder.next() == ("active", b"a")
    channel_sub.remove(channel="a")
    promise_sub = mpx.new_promise_subscription(prefix="hello-")
    p = await guarded(promise_sub.wait_for_new_promise(prefix="world"))
    await mpx.publish("a", "not listened to")
    await mpx.publish("hello-world", "x")
    assert await guarded(p) == b"x"
    assert recorder.events.empty()
    promise_sub.new_promise(suffix="world", timeout=10).cancel()


async def test_multiplexer_example(redis, mpx, recorder):
    """The Multiplexer's example runs as the page has it, misspelling included."""

    async def my_on_message(channel: bytes, message: bytes):
        recorder.message("sent", f"ch: {channel} msg: {message}")

    def my_on_activation(name: bytes):
        recorder.message("activated:", name)

    channel_sub = mpx.new_channel_subcription(my_on_message, recorder.disconnect, None)
    mpx.new_pattern_subscription("hello-*", my_on_message, None, my_on_activation)
    promise_sub = mpx.new_promise_subscription("hello-")
    assert await recorder.next() == ("activated:", b"hello-*")
    promise = await guarded(promise_sub.wait_for_new_promise("you", 10))
    redis.call("PUBLISH", "hello-you", "hi")
    assert await recorder.next() == ("sent", "ch: b'hello-you' msg: b'hi'")
    assert await promise == b"hi"
    redis.kill_subscribers()
    assert (await recorder.next())[0] == "disconnect"
    channel_sub.close()


async def test_channel_subscription_example(redis, mpx, recorder):
    """The ChannelSubscription's example runs, misspelling included."""
    channel_sub = mpx.new_channel_subcription(
        recorder.message, recorder.disconnect, None
    )
    channel_sub.add("hello-world")
    channel_sub.add("banana")
    channel_sub.remove("banana")
    async with mpx.subscribe("settled"):
        assert redis.subscribers("banana") == 0
        assert redis.call("PUBLISH", "hello-world", "hi") == 1
        assert await recorder.next() == (b"hello-world", b"hi")


async def test_channel_subscription_clear_and_close(redis, mpx, recorder):
    """clear() leaves all channels, and close() too: Redis has none (channel_close)."""
    channel_sub = mpx.new_channel_subscription(*recorder.callbacks)
    for end in (channel_sub.clear, channel_sub.close):
        channel_sub.add("a")
        channel_sub.add("b")
        assert await recorder.take(2) == [("active", b"a"), ("active", b"b")]
        end()
        async with mpx.subscribe("settled"):
            assert redis.subscribers("a") == redis.subscribers("b") == 0
    with pytest.raises(SubscriptionIsClosed):
        channel_sub.add("a")


async def test_pattern_subscription_example(redis, mpx, recorder):
    """The PatternSubscription's example runs, and closing it tells Redis
    (RedisMPX's pattern_close, and go-mpx, which leaves the pattern "").
    """
    pattern_sub = mpx.new_pattern_subscription("red*", *recorder.callbacks)
    assert await recorder.next() == ("active", b"red*")
    redis.call("PUBLISH", "redis", "1")
    redis.call("PUBLISH", "reddit", "2")
    assert await recorder.take(2) == [(b"redis", b"1"), (b"reddit", b"2")]
    pattern_sub.close()
    async with mpx.subscribe("settled"):
        assert redis.call("PUBSUB", "NUMPAT") == 0


async def test_promise_subscription_example(redis, mpx, capsys):
    """The PromiseSubscription's example runs; the message is bytes."""
    promise_sub = mpx.new_promise_subscription("hello-")
    await guarded(promise_sub.wait_for_activation())
    p = promise_sub.new_promise("world", 10)
    redis.call("PUBLISH", "hello-world", "success!")
    print(await guarded(p))  # noqa: T201
    assert capsys.readouterr().out == "b'success!'\n"


async def test_promise_subscription_errors(mpx):
    """A promise is inactive before its time, expires, and closes as the page says."""
    promise_sub = mpx.new_promise_subscription(b"hello-")
    with pytest.raises(InactiveSubscription):
        promise_sub.new_promise(b"world", 10)
    p = await guarded(promise_sub.wait_for_new_promise(b"world", 0.01))
    with pytest.raises(asyncio.TimeoutError):
        await p
    promise_sub.close()
    with pytest.raises(SubscriptionIsClosed):
        await guarded(promise_sub.wait_for_activation())
    with pytest.raises(SubscriptionIsClosed):
        await guarded(promise_sub.wait_for_new_promise("world"))
