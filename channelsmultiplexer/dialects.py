"""
How the two dialects name the streams of a socket.

Sans-I/O. A dialect is asked about names and frames, and decides; the
demultiplexer does what follows from it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from urllib.parse import unquote

from . import envelope
from .exceptions import InvalidFrame, excerpt

__all__ = ["V1", "Bare"]

# A number of a stream is kept below 2**63, for clients in any language.
MAX_DIGITS = 18

# One codec for all sockets that use the same keys: making one is slow.
_bare_codec = functools.cache(envelope.Bare)
_v1_codec = envelope.V1()


class Bare:
    """
    A stream is called by its application's name, and lives once.

    Args:
        stream_key: The key that names a frame's stream.

        payload_key: The key of a frame's payload.
    """

    def __init__(self, stream_key: str, payload_key: str) -> None:
        self.codec: envelope.Bare = _bare_codec(stream_key, payload_key)
        # The streams that have ended, and if their client was told so.
        self._ended: dict[str, bool] = {}

    def retire(self, stream: str) -> None:
        """
        Note that a stream has ended.
        """
        self._ended[stream] = False

    def missing(self, stream: str) -> InvalidFrame | None:
        """
        Say what is wrong with a frame for a stream that isn't open.

        Returns:
            :obj:`None` if the frame is to be dropped in silence: a client is told
            once that a stream has ended, since it isn't told when it ends.
        """
        told = self._ended.get(stream)
        if told is None:
            return _unknown(stream, "there is none of that name")
        if told:
            return None
        self._ended[stream] = True
        error = _unknown(stream, "it has ended")
        error.late = True
        return error


class V1:
    """
    A stream is called by a number that the client chose, each greater than the
    one before, so that one number tells all that were ever used.
    """

    def __init__(self) -> None:
        self.codec: envelope.V1 = _v1_codec
        self._greatest = 0

    def reserve(self, stream: str) -> None:
        """
        Take a number for a new stream.

        Raises:
            InvalidFrame: If *stream* is no number, or isn't past the greatest.
        """
        number = _number(stream)
        if number is None:
            detail = f"expected decimal digits for a stream, got {excerpt(stream)}"
            raise InvalidFrame("invalid-envelope", detail)
        if number <= self._greatest:
            detail = f"expected a stream above {self._greatest}, got {number}"
            raise InvalidFrame("stream-in-use", detail, stream)
        self._greatest = number

    def retire(self, stream: str) -> None:
        """
        Note that a stream has ended.
        """

    def missing(self, stream: str) -> InvalidFrame | None:
        """
        Say what is wrong with a frame for a stream that isn't open.

        Returns:
            :obj:`None` if the frame is to be dropped in silence: it crossed the
            stream's ``closed`` on the wire.
        """
        number = _number(stream)
        if number is not None and number <= self._greatest:
            return None
        return _unknown(stream, "it was never opened")


def resolve(
    path: str, applications: Mapping[str, object]
) -> tuple[str | None, dict[str, object]]:
    """
    Find the application that a path of the v1 dialect names.

    Args:
        path: A relative URL: the application's name, its path, its query.

        applications: The applications there are, by name. The one named ``""``
            gets every path that no other name claims.

    Returns:
        The application's name, :obj:`None` if there is none, and what its scope
        says of the URL. The path is percent-decoded there and the query is not,
        as the ASGI specification has it.
    """
    path, _, query = path.partition("#")[0].partition("?")
    path = path.removeprefix("/")
    name, _, rest = path.partition("/")
    found: str | None = unquote(name)
    if not found or found not in applications:
        found, rest = ("" if "" in applications else None), path
    return found, {
        "path": "/" + unquote(rest),
        "raw_path": ("/" + rest).encode(errors="replace"),
        "query_string": query.encode(errors="replace"),
        # Paths are the application's own: it is mounted at no prefix.
        "root_path": "",
    }


def _number(stream: str) -> int | None:
    """Return the number that a stream is called by, if it is written as one."""
    digits = stream.isascii() and stream.isdigit() and len(stream) <= MAX_DIGITS
    return int(stream) if digits and not stream.startswith("0") else None


def _unknown(stream: str, why: str) -> InvalidFrame:
    detail = f"expected an open stream, got {excerpt(stream)}: {why}"
    return InvalidFrame("unknown-stream", detail, stream)
