"""
Who is told what happens to a connection.
"""

from __future__ import annotations

import gc

import pytest

from channelsmultiplexer.client import Event
from channelsmultiplexer.client.events import Events


def test_unknown_event():
    """A callback for an event that there isn't is refused, with those there are."""
    with pytest.raises(ValueError, match=r"disconnected, retrying.*'disconnect'"):
        Events().on("disconnect", print)


def test_coroutine_function():
    """A callback that nobody would await is refused."""

    async def hear(event):
        pass

    with pytest.raises(TypeError, match="coroutine function"):
        Events().on("gap", hear)


async def test_forgotten_listener():
    """A listener that nobody holds any more gets nothing more, and takes no memory."""
    events = Events()
    kept, forgotten = events.listen(), events.listen()
    assert len(events._listeners) == 2
    del forgotten
    gc.collect()
    events.emit(Event("gap"))
    assert len(events._listeners) == 1
    assert (await kept.__anext__()).name == "gap"


async def test_listener_as_a_context():
    """Leaving a listener's context stops it."""
    events = Events()
    async with events.listen() as listener:
        events.emit(Event("gap"))
    events.emit(Event("closed"))
    assert [event.name async for event in listener] == ["gap"]
