"""
Measurements of this machine: CPU, memory and network.

Nothing here knows a consumer or sets the pace: a meter measures when it is asked.
"""

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What the machine has done between two readings of its counters.

    Attributes:
        cpu: Busy share of all processors, in percent.

        memory: Share of the memory in use, in percent.

        received: Bytes a second that came in over all network interfaces.

        sent: Bytes a second that went out over all network interfaces.
    """

    cpu: float
    memory: float
    received: int
    sent: int


class Meter:
    """
    Turns the machine's counters, which only grow, into samples.

    :func:`psutil.cpu_percent` would be shorter, but it remembers one last call for
    the whole process: with two tabs open, each would measure the time since the
    other's call.
    """

    def __init__(self) -> None:
        # The counters at the last sample.
        self._last = _Counters.read()

    def sample(self) -> Sample:
        """
        Measure the time since the last call, or since the meter was made.
        """
        last, now = self._last, _Counters.read()
        self._last = now
        busy, idle = now.busy - last.busy, now.idle - last.idle
        seconds = now.seconds - last.seconds
        return Sample(
            cpu=round(100 * _ratio(busy, busy + idle), 1),
            memory=psutil.virtual_memory().percent,
            received=round(_ratio(now.received - last.received, seconds)),
            sent=round(_ratio(now.sent - last.sent, seconds)),
        )


@dataclass(frozen=True, slots=True)
class _Counters:
    """The machine's counters at one moment: seconds and bytes since it started."""

    seconds: float
    busy: float
    idle: float
    received: int
    sent: int

    @classmethod
    def read(cls) -> "_Counters":
        """Read all counters; takes well under a millisecond, so no thread."""
        cpu = psutil.cpu_times()
        # Waiting for a disk isn't work; only Linux counts it apart.
        idle = cpu.idle + getattr(cpu, "iowait", 0.0)
        network = psutil.net_io_counters()
        return cls(
            seconds=time.monotonic(),
            busy=sum(cpu) - idle,
            idle=idle,
            # A machine without a network interface has no counters at all.
            received=network.bytes_recv if network else 0,
            sent=network.bytes_sent if network else 0,
        )


def _ratio(part: float, whole: float) -> float:
    """Divide, where a clock that hasn't ticked yet gives 0."""
    return part / whole if whole > 0 else 0.0
