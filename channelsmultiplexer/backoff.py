"""
How long to wait before the next attempt.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Iterator

__all__ = ["delays"]


def delays(
    initial: float = 0.05,
    maximum: float = 2.0,
    *,
    random: Callable[[], float] = _random.random,
) -> Iterator[float]:
    """
    Yield seconds to wait before one attempt after another, without end.

    Each is drawn from the whole range between nothing and a ceiling that doubles
    from *initial* to *maximum*. Full jitter is what spreads best the clients that
    all lost the same server
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Args:
        initial: Ceiling of the first delay.

        maximum: Ceiling of the last delays.

        random: Returns a number from 0 up to 1.
    """
    ceiling = initial
    while True:
        yield random() * min(ceiling, maximum)
        # It stops at the maximum: doubled for ever, it would overflow.
        ceiling = min(ceiling * 2, maximum)
