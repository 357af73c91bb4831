"""
The control frames of the v1 dialect.

Sans-I/O. What each means, and who sends it, is in the wire protocol.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias, get_args

import msgspec
from msgspec import Meta

from .exceptions import InvalidFrame, escape, excerpt

__all__ = [
    "Close",
    "Closed",
    "Control",
    "Error",
    "Hello",
    "Open",
    "Opened",
    "Ping",
    "Pong",
    "convert",
    "exact",
]

# Longer than any URL that a proxy in front of the server would have let through.
MAX_PATH = 8192


def exact(text: object) -> str:
    """
    Return a :class:`str` of that very type, which is all that msgspec takes: what
    a template renders is Django's ``SafeString``, and a translation may be lazy.
    """
    # str() returns a SafeString as it is.
    return str.__str__(str(text))


class Control(msgspec.Struct, frozen=True, tag_field="op", tag=str.lower):
    """
    A frame of the v1 dialect that is about a stream, or about the socket.
    """

    def encode(self) -> str:
        """
        Return the text of the frame.
        """
        try:
            return msgspec.json.encode(self, enc_hook=exact).decode()
        # An application's reason with a lone surrogate, which json escapes.
        except UnicodeEncodeError:
            return json.dumps(msgspec.to_builtins(self, enc_hook=exact))


class Hello(Control, frozen=True):
    """
    The server's first frame: the limits of this socket.

    Attributes:
        heartbeat: Seconds of silence after which a client asks for a ``pong``.

        max_streams: How many streams may be open at once.
    """

    heartbeat: float
    max_streams: int


class Open(Control, frozen=True):
    """
    The client starts a stream.

    Attributes:
        stream: Its id, decimal digits.

        path: The application's name and what follows it, a relative URL.

        subprotocols: What the client offers the application.
    """

    stream: str
    path: Annotated[str, Meta(max_length=MAX_PATH)]
    subprotocols: Annotated[
        list[Annotated[str, Meta(max_length=255)]], Meta(max_length=32)
    ] = []


class Opened(Control, frozen=True):
    """
    The application accepted the stream.
    """

    stream: str
    subprotocol: str | None = None


class Close(Control, frozen=True):
    """
    The client ends a stream.
    """

    stream: str
    code: Annotated[int, Meta(ge=1000, le=4999)] = 1000
    # RFC 6455, 5.5: what fits in a close frame.
    reason: Annotated[str, Meta(max_length=123)] = ""


class Closed(Control, frozen=True):
    """
    A stream has ended: its one terminal frame.
    """

    stream: str
    code: int = 1000
    reason: str = ""


class Error(Control, frozen=True):
    """
    A frame was bad; nothing ended.

    Attributes:
        stream: The stream that the bad frame named, if it named one.

        code: See :class:`.InvalidFrame`.

        message: What was expected and what came.
    """

    stream: str | None
    code: str
    message: str


class Ping(Control, frozen=True):
    """
    Asks for a :class:`Pong`.
    """


class Pong(Control, frozen=True):
    """
    Answers a :class:`Ping`.
    """


_CONTROLS: TypeAlias = Hello | Open | Opened | Close | Closed | Error | Ping | Pong
_OPS = [control.__struct_config__.tag for control in get_args(_CONTROLS)]
_KEYS = {key for control in get_args(_CONTROLS) for key in control.__struct_fields__}


def convert(content: dict[str, Any]) -> Control:
    """
    Read the control frame that :mod:`json` has decoded.

    Raises:
        InvalidFrame: If it is none.
    """
    stream = content.get("stream")
    named = isinstance(stream, str) and stream.isascii() and len(stream) <= 255
    stream = stream if named else None
    op = content["op"]
    if isinstance(op, str) and op not in _OPS:
        detail = f"expected one of {', '.join(_OPS)}, got {excerpt(op)}"
        raise InvalidFrame("unknown-op", detail, stream)
    # msgspec reads keys as UTF-8, and a key may be a lone surrogate.
    known = {key: content[key] for key in content if key in _KEYS or key == "op"}
    try:
        control: Control = msgspec.convert(known, _CONTROLS)
    except msgspec.ValidationError as error:
        raise InvalidFrame("invalid-envelope", escape(str(error)), stream) from None
    return control
