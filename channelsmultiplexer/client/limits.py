"""
How fast a server lets its clients send.
"""

from __future__ import annotations

import asyncio
import collections
import math
import numbers
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["DEFAULT", "Limiter", "RateLimit"]

# The limit of a send that names none.
DEFAULT = "default"


@dataclass(frozen=True)
class RateLimit:
    """
    At most *limit* in any *interval* seconds.

    Attributes:
        id: What a send names it by; what names none falls under ``"default"``.

        weight: How much of *limit* a send takes.

        linked: Other limits that such a send falls under too, each with its weight.
    """

    id: str
    limit: float
    interval: float
    weight: float = 1
    linked: tuple[tuple[str, float], ...] = ()


class Limiter:
    """
    Holds sends to strict rolling windows: no interval of a limit's length, wherever
    it starts, has more than the limit.

    Args:
        limits: Those there are. A send that falls under none of them is free.

        clock: Returns the time in seconds; the event loop's unless given.

        sleep: Waits for so many seconds.

    Raises:
        ValueError: If a limit can't be meant or can never be kept, or is linked to
            one there isn't, to itself, or twice to one.
        TypeError: If something isn't a limit, or isn't a number.
    """

    def __init__(
        self,
        limits: Sequence[RateLimit] = (),
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        for limit in limits:
            _check(limit)
        ids = [limit.id for limit in limits]
        if len(set(ids)) < len(ids):
            raise ValueError(f"expected limits with an id each, got {ids}")
        self._clock = clock
        self._sleep = sleep
        self._windows = {limit.id: _Window(limit) for limit in limits}
        # What a send under each limit takes of which windows.
        self._takes: dict[str, list[tuple[_Window, Fraction]]] = {}
        # Those under one limit go in the order in which they came.
        self._turns: dict[str, asyncio.Lock] = {}
        # Those who wait for room: one for each limit at the most.
        self._sleeping: set[asyncio.Future[object]] = set()
        self._is_closed = False
        for limit in limits:
            self._takes[limit.id] = []
            for name, weight in [(limit.id, limit.weight), *limit.linked]:
                if name not in self._windows:
                    raise ValueError(f"{limit.id!r} is linked to {name!r}: no such id")
                window, exact = self._windows[name], _exact(weight)
                if exact > window.limit:
                    raise ValueError(f"a weight of {weight} is over {name!r}'s limit")
                self._takes[limit.id].append((window, exact))
            self._turns[limit.id] = asyncio.Lock()

    async def acquire(self, id: str = DEFAULT) -> None:  # noqa: A002 (the seed's word)
        """
        Wait until a send under the limit *id* is allowed, and count it.

        It sleeps until the very time at which there is room, or until :meth:`close`:
        then look if there is still something to send on. Canceling it counts nothing.

        Raises:
            ValueError: If there is no such limit. ``"default"`` needn't be there.
        """
        takes = self._takes.get(id)
        if takes is None:
            if id == DEFAULT:
                return
            raise ValueError(f"expected a limit's id, got {id!r}")
        clock = self._clock or asyncio.get_running_loop().time
        async with self._turns[id]:
            # Again after each sleep: another limit's sends may share a window.
            while not self._is_closed and (
                delay := max(window.delay(weight, clock()) for window, weight in takes)
            ):
                await self._pause(delay)
            now = clock()
            for window, weight in takes:
                window.use(weight, now)

    def close(self) -> None:
        """
        Let all go on who wait, now and later: nothing will be sent any more.
        """
        self._is_closed = True
        for sleeping in self._sleeping:
            sleeping.cancel()

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless close() ends that."""
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        self._sleeping.add(sleeping)
        try:
            await asyncio.wait({sleeping})
        finally:
            self._sleeping.discard(sleeping)
            sleeping.cancel()
            await asyncio.wait({sleeping})


class _Window:
    """
    What was used of one limit in the interval that ends now.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = _exact(limit.limit)
        self._interval = limit.interval
        # When how much was used, oldest first.
        self._uses: collections.deque[tuple[float, Fraction]] = collections.deque()
        # Their sum: of floats it would drift, and what fits in would no longer.
        self._used = Fraction(0)

    def delay(self, weight: Fraction, now: float) -> float:
        """Return the seconds until *weight* fits in."""
        while self._uses and self._uses[0][0] + self._interval <= now:
            self._used -= self._uses.popleft()[1]
        room = self.limit - self._used
        if weight <= room:
            return 0.0
        for time, used in self._uses:
            room += used
            if weight <= room:
                return time + self._interval - now
        raise AssertionError("a weight over the limit is refused at construction")

    def use(self, weight: Fraction, now: float) -> None:
        self._uses.append((now, weight))
        self._used += weight


def _check(limit: RateLimit) -> None:
    """Raise if a limit by itself can't be meant."""
    if not isinstance(limit, RateLimit):
        raise TypeError(f"expected a RateLimit, got {limit!r}")
    names = [limit.id, *(name for name, _ in limit.linked)]
    if len(set(names)) < len(names):
        raise ValueError(f"expected links of {limit.id!r} to others, got {names[1:]}")
    weights = [limit.limit, limit.weight, *(weight for _, weight in limit.linked)]
    for number in (limit.interval, *weights):
        if not isinstance(number, numbers.Real):
            raise TypeError(f"expected numbers for {limit.id!r}, got {number!r}")
    if not 0 < limit.interval < math.inf:
        raise ValueError(
            f"expected an interval of more than 0 seconds for {limit.id!r}, "
            f"got {limit.interval}"
        )
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ValueError(
                f"expected a limit and weights of 0 or more for {limit.id!r}, "
                f"got {weight}"
            )


def _exact(number: float) -> Fraction:
    """Return the number as it is written: ten times 0.1 are 1."""
    return Fraction(str(number))
