"""
The Python client: one resilient WebSocket, many subscriptions.

* :class:`.Multiplex` takes a connection apart into subscriptions and streams.
* :class:`.Connection` is the connection by itself.
* :class:`.MemoryServer` is the other end of one, for tests.

It needs the extra ``client`` and no settings: neither Django nor Channels is loaded.
"""

from __future__ import annotations

from ..exceptions import Closed, InboxFull, Refused
from .connection import Connection
from .events import Event
from .handlers import Handler
from .limits import RateLimit
from .link import Link
from .memory import MemoryServer
from .multiplex import Multiplex
from .stats import MultiplexStats, SubscriptionStats
from .subscriptions import Stream, Subscription
from .supervisor import State

__all__ = [
    "Closed",
    "Connection",
    "Event",
    "Handler",
    "InboxFull",
    "Link",
    "MemoryServer",
    "Multiplex",
    "MultiplexStats",
    "RateLimit",
    "Refused",
    "State",
    "Stream",
    "Subscription",
    "SubscriptionStats",
]
