"""
One connection, many streams, at every hop.

* :class:`.AsyncJsonWebsocketDemultiplexer` serves the streams of one WebSocket by
  ordinary Channels consumers.
* :mod:`.exceptions` has what can go wrong.
* :mod:`.envelope` is the wire format, for those who write a client.

Importing this package imports neither Django nor Channels; a name does when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .demultiplexer import AsyncJsonWebsocketDemultiplexer
    from .exceptions import InvalidFrame, MultiplexError

__version__ = "1.0.0.dev0"

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
