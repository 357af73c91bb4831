"""
Names that come and go, and names that Redis refuses.
"""

from __future__ import annotations

import asyncio

import pytest

from channelsmultiplexer.pubsub import (
    Activation,
    Gap,
    Multiplexer,
    NameRefused,
    SubscriptionIsClosed,
)
from guard import blocked
from recorder import guarded
from redis_server import server


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


async def test_leaving_while_another_joins(mpx):
    """Who leaves a name that another joins in the same turn waits for nothing."""
    first, second = mpx.subscribe("a"), mpx.subscribe("a")
    await guarded(first.__aenter__())
    await guarded(asyncio.gather(first.aclose(), second.__aenter__()))


async def test_closing_while_entering_in_an_outage():
    """Who enters a name in an outage is told when the subscription is closed."""
    with server() as doomed:
        async with Multiplexer(doomed.url) as mpx, mpx.subscribe() as other:
            doomed.stop()
            assert isinstance(await guarded(other.get()), Gap)
            sub = mpx.subscribe("a")
            entering = await blocked(sub.__aenter__())
            sub.close()
            with pytest.raises(SubscriptionIsClosed):
                await guarded(entering)
            canceled = await blocked(mpx.subscribe("b").__aenter__())
            canceled.cancel()
            await asyncio.wait([canceled])
            # Private: that nothing grows can't be seen from outside.
            assert not mpx._registry.channels


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


async def test_permission_revoked_from_two(redis, limited):
    """Two who read a name that is taken away have an error of their own."""
    mpx = Multiplexer(limited)
    async with mpx, mpx.subscribe("ok1") as one, mpx.subscribe("ok1") as two:
        redis.call("ACL", "SETUSER", "limited", "resetchannels")
        readers = [guarded(anext(sub)) for sub in (one, two)]
        errors = await asyncio.gather(*readers, return_exceptions=True)
    assert [str(error) for error in errors] == [str(errors[0])] * 2
    assert isinstance(errors[0], NameRefused)
    assert errors[0] is not errors[1]


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


async def test_refused_pattern_of_a_channels_name(redis, limited):
    """A refused pattern is left, and not the channel of the same name."""
    async with Multiplexer(limited) as mpx, mpx.subscribe("ok") as sub:
        # ACL asks that a pattern is allowed as it is written.
        with pytest.raises(NameRefused, match="ok1"):
            await sub.add("ok1", patterns=["ok1"])
        async with mpx.subscribe("ok2"):
            assert redis.subscribers("ok1") == 1


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


# What is no name


@pytest.mark.parametrize("wrong", [5, None, ["a"], 1.5])
async def test_wrong_kinds(redis, mpx, wrong):
    """What is neither text nor bytes is refused by its type, and nothing is joined."""
    one = mpx.new_channel_subscription(print)
    calls = [lambda: one.add("a", wrong), lambda: one.remove(wrong)]
    calls.append(lambda: mpx.new_pattern_subscription(wrong, print))
    for call in calls:
        with pytest.raises(TypeError, match=type(wrong).__name__):
            call()
    async with mpx.subscribe("settled") as sub:
        calls = [lambda: sub.add("a", wrong), lambda: sub.add("a", patterns=[wrong])]
        calls += [lambda: mpx.publish("a", wrong), lambda: mpx.publish(wrong, "")]
        for call in calls:
            with pytest.raises(TypeError, match=type(wrong).__name__):
                await call()
        assert redis.subscribers("a") == 0


async def test_data_of_a_buffer(mpx):
    """What is published may be any buffer of bytes."""
    async with mpx.subscribe("a") as sub:
        for data in (b"1", bytearray(b"1"), memoryview(b"1"), "1"):
            await mpx.publish("a", data)
            assert (await guarded(anext(sub))).data == b"1"


@pytest.mark.parametrize("patterns", ["news.*", b"news.*"])
async def test_patterns_that_are_one_word(mpx, patterns):
    """A pattern in place of several isn't taken for its letters."""
    with pytest.raises(TypeError, match="several patterns"):
        mpx.subscribe(patterns=patterns)
    async with mpx.subscribe() as sub:
        for change in (sub.add, sub.remove):
            with pytest.raises(TypeError, match="several patterns"):
                await change(patterns=patterns)


def test_wrong_options():
    """An unknown overflow, and a callback that can't be called, are refused."""
    mpx = Multiplexer()
    with pytest.raises(ValueError, match="or 'drop_newest', got 'bogus'"):
        mpx.subscribe(overflow="bogus")
    for number in range(4):
        callbacks = [print] * 4
        callbacks[number] = "x"
        with pytest.raises(TypeError, match="must be a function"):
            mpx.new_channel_subscription(*callbacks[:3], on_gap=callbacks[3])
