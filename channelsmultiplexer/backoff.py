"""
How long to wait before trying again.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Iterator

__all__ = ["backoff"]


def backoff(
    minimum: float = 0.5,
    maximum: float = 30.0,
    *,
    random: Callable[[], float] = _random.random,
) -> Iterator[float]:
    """
    Yield the seconds to wait before each attempt, for ever.

    Each is drawn from all that lies between zero and a ceiling, which starts at
    *minimum* and doubles up to *maximum*: "full jitter", so that the clients of a
    server that restarts don't come back at once.

    Args:
        random: Returns a number from 0 to 1.
    """
    ceiling = minimum
    while True:
        yield random() * ceiling
        ceiling = min(2 * ceiling, maximum)
