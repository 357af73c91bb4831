"""
One connection, many streams, at every hop.

* :class:`.AsyncJsonWebsocketDemultiplexer` serves the streams of one WebSocket by
  ordinary Channels consumers.
* :mod:`.exceptions` has what can go wrong.
* :mod:`.envelope` is the wire format, for those who write a client.

Each module that logs has the logger of its own name below ``channelsmultiplexer``:

============================== =========== =========================================
``.demultiplexer``             warning     a bad frame; a class without applications
``.websocket``                 warning     an application accepts with a subprotocol
                                           that was not offered
``.streams``                   error       an application raised, with its traceback
``.streams``                   warning     an application was cancelled, not by us
``.streams``                   info        no route for the path of a stream
``.stream``                    warning     an application hangs after its disconnect,
                                           and is cancelled
``.client.events``             error       a callback raised
``.client.handlers``           error       a handler raised, or is too slow
``.client.handlers``           warning     a handler was cancelled
``.pubsub``                    info        connected to Redis
``.pubsub``                    warning     the link is lost, or can't be had; a
                                           reader is too slow; a callback was
                                           cancelled
``.pubsub``                    error       a callback raised; Redis refuses a name
``.pubsub``                    critical    a bug of ours ended a Multiplexer
============================== =========== =========================================

What a client wrote is escaped and cut short there. A warning is what a client, the
network or a slow program does; an error is for a programmer to mend. What receivers
of signals raise is logged by ``django.dispatch``.

Importing this package imports neither Django nor Channels; a name does when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .demultiplexer import AsyncJsonWebsocketDemultiplexer
    from .exceptions import InvalidFrame, MultiplexError

__version__: str = "1.0.0rc1"

__all__ = [
    "AsyncJsonWebsocketDemultiplexer",
    "InvalidFrame",
    "MultiplexError",
    "__version__",
]

# Where each public name lives.
_MODULES = {
    "AsyncJsonWebsocketDemultiplexer": "demultiplexer",
    "InvalidFrame": "exceptions",
    "MultiplexError": "exceptions",
}


def __getattr__(name: str) -> Any:
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
