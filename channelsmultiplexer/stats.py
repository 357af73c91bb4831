"""
What a demultiplexer has carried: figures for a monitoring system.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .stream import UNKNOWN, Ending, Stream

__all__ = ["Counts", "Ledger", "Stats"]


@dataclass(frozen=True, slots=True)
class Counts:
    """
    How many sockets, or streams.

    ``ever == now + sum(closed.values())``.

    Attributes:
        now: Those that have not ended. A stream has when its application has.

        ever: All that were asked for.

        refused: Those that were never accepted, unless the client left first.

        closed: How many have ended, by their close code: those refused too.
    """

    now: int
    ever: int
    refused: int
    closed: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """
    The figures of one demultiplexer class in this process, since it was started.

    All but ``now`` and what is derived from it only ever grow.

    Attributes:
        sockets: How many sockets.

        streams: How many streams.

        frames_received: Data frames that clients have sent to open streams.

        bytes_received: Bytes of their data: text in UTF-8, without the envelope.

        frames_sent: Data frames that applications have sent.

        bytes_sent: Bytes of their data, likewise.

        invalid_frames: Bad frames, but for those that a stream's end overtook.

        inbox_peak: The most bytes that ever waited in an inbox; see ``inbox_limit``.
    """

    sockets: Counts
    streams: Counts
    frames_received: int
    bytes_received: int
    frames_sent: int
    bytes_sent: int
    invalid_frames: int
    inbox_peak: int


class Ledger:
    """
    The books of one demultiplexer class: who is there, and the sum of who was.

    A live stream counts for itself, so that a frame costs two additions; they are
    summed when somebody asks. Any thread may ask.
    """

    def __init__(self) -> None:
        # Held while one goes from the living to the sum, or a counter would go
        # back, which Prometheus takes for a restart.
        self._lock = threading.Lock()
        # The live sockets, and when each came, in seconds since the epoch.
        self.sockets: dict[Any, float] = {}
        # The live streams.
        self.streams: set[Stream] = set()
        # The sums of those that have ended.
        self._ended_sockets = _Ended()
        self._ended_streams = _Ended()
        self._traffic = _Traffic()
        self.invalid_frames = 0

    @contextlib.contextmanager
    def serving(self, socket: Any) -> Iterator[None]:
        """
        Count a socket while the context lasts, and its end.
        """
        with self._lock:
            self.sockets[socket] = time.time()
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            ending = socket._ending
            if failed:
                # What the server closes it with, whatever applications were told.
                ending = ending._replace(code=1011)
            with self._lock:
                del self.sockets[socket]
                self._ended_sockets.add(ending)

    def open(self, stream: Stream) -> None:
        """
        Count a stream.
        """
        with self._lock:
            self.streams.add(stream)

    def close(self, stream: Stream) -> None:
        """
        Count the end of a stream.
        """
        with self._lock:
            self.streams.discard(stream)
            self._traffic.add(stream)
            self._ended_streams.add(stream.ending)

    def refuse(self, code: int) -> None:
        """
        Count a stream that was never started.
        """
        with self._lock:
            self._ended_streams.add(UNKNOWN._replace(code=code))

    def stats(self) -> Stats:
        """
        Return the figures as they are now.
        """
        with self._lock:
            live = list(self.streams)
            sockets = self._ended_sockets.counts(len(self.sockets))
            streams = self._ended_streams.counts(len(live))
            traffic = copy.copy(self._traffic)
        # What ends from here on is in the list, and its figures stay.
        for stream in live:
            traffic.add(stream)
        return Stats(
            sockets, streams, invalid_frames=self.invalid_frames, **vars(traffic)
        )


class _Traffic:
    """What streams have carried."""

    def __init__(self) -> None:
        self.frames_received = self.bytes_received = 0
        self.frames_sent = self.bytes_sent = 0
        self.inbox_peak = 0

    def add(self, stream: Stream) -> None:
        self.frames_received += stream.frames_received
        self.bytes_received += stream.bytes_received
        self.frames_sent += stream.frames_sent
        self.bytes_sent += stream.bytes_sent
        if stream.inbox.peak > self.inbox_peak:
            self.inbox_peak = stream.inbox.peak


class _Ended:
    """How many have ended, and how."""

    def __init__(self) -> None:
        self.refused = 0
        self.closed: dict[int, int] = {}

    def add(self, ending: Ending) -> None:
        code, _, by, accepted = ending
        self.closed[code] = self.closed.get(code, 0) + 1
        if not accepted and by != "client":
            self.refused += 1

    def counts(self, now: int) -> Counts:
        closed = MappingProxyType(self.closed.copy())
        return Counts(now, now + sum(closed.values()), self.refused, closed)
