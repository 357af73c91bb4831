"""
Which names Redis is told of, whatever order answers and wishes come in.
"""

from __future__ import annotations

import pytest

from channelsmultiplexer.pubsub.registry import ACTIVATED, CHANNEL, Registry


class Listener:
    def __init__(self):
        self.got = []

    def put(self, item, size=0):
        self.got.append(item)


@pytest.fixture
def registry():
    return Registry(lambda: None, lambda route: None)


def acknowledge(registry, commands):
    for command in commands:
        for _ in command.routes:
            registry.acknowledged(command)


def test_name_that_is_given_up_and_wanted_again(registry):
    """A name that Redis gives up between two wishes is found when it is back."""
    listener = Listener()
    route = registry.join(listener, CHANNEL, b"a")
    acknowledge(registry, registry.changes())
    registry.leave(listener, route)
    leaving = registry.changes()
    registry.leave(listener, registry.join(listener, CHANNEL, b"a"))
    acknowledge(registry, leaving)
    route = registry.join(listener, CHANNEL, b"a")
    acknowledge(registry, registry.changes())
    assert registry.find(CHANNEL, b"a") is route
    assert route.active


def test_refused_name_that_is_wanted_again(registry):
    """A name that is left, refused and wanted again in one turn is found, too."""
    listener = Listener()
    route = registry.join(listener, CHANNEL, b"a")
    (command,) = registry.changes()
    registry.leave(listener, route)
    assert registry.refused(command, "NOPERM") == []
    route = registry.join(listener, CHANNEL, b"a")
    acknowledge(registry, registry.changes())
    assert registry.find(CHANNEL, b"a") is route
    assert route.active


def test_refusal_that_a_later_command_overtakes(registry):
    """A refusal counts only if it answers the last command about its name."""
    listener = Listener()
    route = registry.join(listener, CHANNEL, b"a")
    (first,) = registry.changes()
    registry.leave(listener, route)
    leaving = registry.changes()
    registry.join(listener, CHANNEL, b"a")
    again = registry.changes()
    assert registry.refused(first, "NOPERM") == []
    acknowledge(registry, leaving + again)
    assert route.active
    assert [event for _, event in listener.got] == [ACTIVATED]
