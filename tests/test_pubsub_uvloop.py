"""
The Redis hop on uvloop's event loop, which Uvicorn takes where it is installed.
"""

from __future__ import annotations

import signal
import warnings

import pytest

from channelsmultiplexer.pubsub import Gap, Multiplexer, RedisUnavailable
from guard import blocked
from recorder import guarded
from redis_server import server
from requirement import missing

try:
    import uvloop
except ImportError:
    uvloop = None


@pytest.fixture(autouse=True)
def _uvloop():
    if uvloop is None:
        missing("needs uvloop, which is not installed")


def test_close(redis):
    """Redis hears of close() without another turn of the event loop."""

    async def close():
        mpx = Multiplexer(redis.url)
        async with mpx, mpx.subscribe("a") as sub:
            assert await mpx.publish("a", "1") == 1
            await guarded(sub.get())
            mpx.close()
            while redis.clients():
                pass

    uvloop.run(close())


def test_close_after_the_event_loop(redis):
    """What is open when its event loop is closed can be closed after it."""

    async def open_all():
        mpx = Multiplexer(redis.url)
        sub = await mpx.subscribe("a").__aenter__()
        await guarded(sub.get())
        await blocked(sub.get())
        return mpx, sub

    loop = uvloop.new_event_loop()
    closables = loop.run_until_complete(open_all())
    with warnings.catch_warnings():
        # uvloop warns of what it closes; as an error, that would leave it open.
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
    for closable in closables:
        closable.close()
        assert closable.closed
    assert not redis.clients()


def test_failed_login(redis):
    """A login that fails is raised, and the next attempt is made."""

    async def fail():
        mpx = Multiplexer(redis.url, username="who", password="wrong")
        for _ in range(2):
            with pytest.raises(RedisUnavailable, match="WRONGPASS"):
                await guarded(mpx.connect())
        await mpx.aclose()

    uvloop.run(fail())


def test_half_open_link():
    """A server that goes silent is noticed."""
    ping = {"ping_interval": 0.05, "ping_timeout": 0.05, "timeout": 0.2}

    async def fall_silent(one):
        async with Multiplexer(one.url, **ping) as mpx, mpx.subscribe("a") as sub:
            await guarded(sub.get())
            one.signal(signal.SIGSTOP)
            assert isinstance(await guarded(sub.get()), Gap)
            one.signal(signal.SIGCONT)
            await guarded(sub.get())

    with server() as one:
        uvloop.run(fall_silent(one))
