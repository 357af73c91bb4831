"""
How long to wait before the next attempt.
"""

from __future__ import annotations

import itertools
import random

from channelsmultiplexer import backoff


def take(count, delays):
    return list(itertools.islice(delays, count))


def test_ceiling_doubles():
    """The longest delays double, up to the maximum."""
    delays = backoff.delays(1, 6, random=lambda: 1.0)
    assert take(5, delays) == [1, 2, 4, 6, 6]


def test_full_jitter():
    """A delay is drawn from the whole range below the ceiling."""
    draws = iter([0.0, 0.5, 0.25])
    delays = backoff.delays(1, 8, random=lambda: next(draws))
    assert take(3, delays) == [0, 1, 1]


def test_maximum_below_initial():
    """The maximum holds for the first delay, too."""
    assert take(2, backoff.delays(4, 1, random=lambda: 1.0)) == [1, 1]


def test_without_end():
    """The delays go on after more attempts than a float can double."""
    delays = backoff.delays(1, 2, random=lambda: 1.0)
    assert take(1, itertools.islice(delays, 3000, None)) == [2]


def test_default_random():
    """Two that lost the same server don't come back at the same moment."""
    random.seed(1)
    assert take(3, backoff.delays()) != take(3, backoff.delays())
