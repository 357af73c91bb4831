"""
What a caller gets wrong: each is told at once, and nothing else ends by it.
"""

from __future__ import annotations

import pytest

from channelsmultiplexer.client import Multiplex
from feed import PATIENCE, Feed, within

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_mistakes():
    """Arguments that contradict one another are refused at construction."""
    with pytest.raises(ValueError, match="both"):
        Multiplex("ws://x", channel_key="a", channel_extractor=str)
    with pytest.raises(ValueError, match="feed, v1 or bare"):
        Multiplex("ws://x", dialect="v2")
    with pytest.raises(ValueError, match="key of its own"):
        Multiplex("ws://x", dialect="v1", channel_key="a")
    with pytest.raises(ValueError, match="websockets"):
        Multiplex("ws://x", transport="carrier pigeon")
    with pytest.raises(RuntimeError, match="connect"):
        await Multiplex("ws://x", dialect="v1").open("a")
    with pytest.raises(TypeError, match="dialect"):
        await Multiplex("ws://x").open("a")


@pytest.mark.parametrize(
    "options", [{"dialect": "v1", "subscribe_msg": print}, {"batch_size": 0}]
)
def test_messages_for_nobody(options):
    """Messages that would never be sent are refused at construction."""
    with pytest.raises(ValueError, match=r"expected a batch_size|messages of its own"):
        Multiplex("ws://x", **options)


async def test_unhashable_channel():
    """A channel that is no key is refused, by name."""
    async with Feed() as feed, feed.client() as mux:
        for channel in ({"a": 1}, ("a", [])):
            with pytest.raises(TypeError, match=r"hashable channel, got .*a"):
                await mux.subscribe(channel)


def mistake(*args):
    """
    Stand for a function of the caller's that raises.
    """
    raise LookupError("mistake")


@pytest.mark.parametrize(
    ("options", "auth", "error"),
    [
        ({}, True, ValueError),
        ({"auth": mistake}, True, LookupError),
        ({"subscribe_msg": mistake}, False, LookupError),
        ({"subscribe_msg": lambda channel: object()}, False, TypeError),
        ({"pre_processors": [mistake]}, False, LookupError),
    ],
)
async def test_mistake_in_a_subscribe(options, auth, error):
    """A subscribe whose message can't be made raises why, and ends nothing else."""
    async with Feed() as feed, feed.client(**options) as mux:
        with pytest.raises(error):
            await mux.subscribe("b", auth=auth, timeout=PATIENCE)
        assert mux.list_subscriptions() == []
        assert await within(mux.ping()) >= 0
        assert mux.connection.connections == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"channel_key": ""}, "a key, or several"),
        ({"channel_key": []}, "a key, or several"),
        ({"ack": True}, "expected a function, got True"),
        ({"subscribe_msg": {"a": 1}}, "expected a function, got"),
        ({"ack": Feed().message}, "is async"),
        ({"dialect": "v1", "ack": print}, "confirms by itself"),
    ],
)
def test_no_function(options, expected):
    """What could never name, ask or confirm is refused at construction."""
    with pytest.raises((TypeError, ValueError), match=expected):
        Multiplex("ws://x", **options)


def test_handler_without_loop():
    """A handler that can't run leaves no filter behind."""
    mux = Multiplex("ws://x")
    with pytest.raises(TypeError, match="a function"):
        mux.add_handler(None)
    with pytest.raises(RuntimeError, match="event loop"):
        mux.add_handler(print)
    assert mux.stats().active_subscriptions == 1  # Those without a channel.


async def test_filters_that_run_out():
    """Filters that can be looked at only once are refused: they would never match."""
    async with Feed() as feed, feed.client() as mux:
        with pytest.raises(TypeError, match="list of dicts"):
            mux.stream_filter(pairs for pairs in [{"a": 1}])


async def test_close_with_what_cannot_be_sent():
    """A code that no close frame has is refused, and nothing is closed by it."""
    async with Feed() as feed, feed.client() as mux:
        handler = mux.add_handler(print)
        with pytest.raises(ValueError, match="5000"):
            await mux.close(5000)
        assert mux.is_connected
        assert not handler.task.done()
