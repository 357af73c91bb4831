"""
Time limits that lose no cancellation.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from channelsmultiplexer.pubsub import Multiplexer
from channelsmultiplexer.pubsub.deadline import wait_for
from recorder import guarded

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("error", [None, ConnectionRefusedError()])
@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_as_it_ends(turns, error):
    """A cancellation isn't lost, whichever turn of the event loop it comes in."""
    due = asyncio.Event()

    async def ends():
        await due.wait()
        if error is not None:
            raise error

    waiting = asyncio.ensure_future(wait_for(ends(), 60))
    await asyncio.sleep(0)
    due.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    is_cancelled = waiting.cancel()
    await asyncio.wait([waiting], timeout=5)
    assert waiting.cancelled() == is_cancelled
    assert is_cancelled or waiting.exception() is error


async def test_late():
    """What takes too long is canceled, and has ended when that is raised."""
    ended = False

    async def hangs():
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    with pytest.raises(asyncio.TimeoutError):
        await wait_for(hangs(), 0.001)
    assert ended


@pytest.mark.parametrize("turns", range(20))
async def test_closed_in_an_outage(turns):
    """Closing ends the attempts, whichever turn of one it comes in."""
    # Nobody listens there.
    mpx = Multiplexer("redis://127.0.0.1:1", backoff=lambda: itertools.repeat(0))
    mpx.new_channel_subscription(print).add("a")
    for _ in range(turns):
        await asyncio.sleep(0)
    await guarded(mpx.aclose())
    assert mpx.closed
