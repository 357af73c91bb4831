"""
The wire format: what one frame of the socket says, in both dialects.

Sans-I/O. Nothing here awaits, logs, or knows Django.

The envelope is parsed, what it carries is not: a payload's JSON reaches the
application as the client wrote it, and an application's JSON is spliced into
the envelope as the application wrote it. ``msgspec`` does the parsing because it
alone hands out a value's raw text (:class:`msgspec.Raw`) while it checks the
syntax of the whole. It is stricter than :mod:`json` in two places, NaN and lone
surrogates, so what it refuses is read once more by :mod:`json`.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from . import control
from .control import exact
from .exceptions import InvalidFrame, escape, excerpt

__all__ = [
    "SUBPROTOCOL",
    "V1",
    "Bare",
    "Envelope",
    "Wrapper",
    "is_json",
    "utf8_size",
]

# The WebSocket subprotocol that a client of the v1 dialect offers.
SUBPROTOCOL = "channelsmultiplexer.v1"

# The header of a binary frame has one byte for the length of the name.
MAX_STREAM_BYTES = 255

JSON: TypeAlias = Any


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """
    A data frame: what one stream carries to its other end.

    Attributes:
        stream: The stream's name; never empty, at most 255 bytes of UTF-8.

        data: The text of a text frame, the bytes of a binary one.

        is_json: If *data* travelled as a payload, and so is JSON.

        size: Bytes of *data*, text in UTF-8.
    """

    stream: str
    data: str | bytes
    is_json: bool
    size: int


_raw = msgspec.json.Decoder(Raw)


class Wrapper:
    """
    Writes the data frames of one stream.

    Args:
        stream: The stream's name.

        stream_key: The key that names the stream.

        payload_key: The key of the payload.

    Raises:
        ValueError: If *stream* is empty or longer than 255 bytes of UTF-8.
    """

    __slots__ = ("_header", "_payload_head", "_text_head")

    def __init__(self, stream: str, stream_key: str, payload_key: str) -> None:
        name = stream.encode()
        if not 0 < len(name) <= MAX_STREAM_BYTES:
            raise ValueError(
                f"expected a stream's name of 1 to {MAX_STREAM_BYTES} bytes, "
                f"got {len(name)}: {excerpt(stream)}"
            )
        # All that stands before the data, so that a frame is one concatenation.
        head = f"{{{json.dumps(stream_key)}:{json.dumps(stream)},"
        self._payload_head = f"{head}{json.dumps(payload_key)}:"
        self._text_head = f'{head}"text":'
        self._header = bytes([len(name)]) + name

    def text(self, text: str) -> str:
        """
        Return the frame that carries *text*: as a payload if it is JSON.
        """
        if type(text) is not str:
            text = exact(text)
        if is_json(text):
            return f"{self._payload_head}{text}}}"
        return f"{self._text_head}{_quote(text)}}}"

    def binary(self, data: bytes) -> bytes:
        """
        Return the frame that carries *data*.
        """
        return self._header + data


class Bare:
    """
    The dialect of channelsmultiplexer 0.0.3: data frames, and streams by name.

    Args:
        stream_key: The key that names the stream, for clients that differ.

        payload_key: The key of the payload, likewise.
    """

    def __init__(
        self, stream_key: str = "stream", payload_key: str = "payload"
    ) -> None:
        if len({stream_key, payload_key, "text"}) < 3:
            raise ValueError(
                "expected different keys for the stream, the payload and the text, "
                f"got {stream_key!r}, {payload_key!r} and 'text'"
            )
        self.stream_key = stream_key
        self.payload_key = payload_key
        self._keys = (stream_key, payload_key, "text")
        # The same object twice: with the payload's JSON, and with its value.
        self._decoder = msgspec.json.Decoder(self._shape(Raw))
        self._content = self._shape(JSON)

    def decode(self, frame: str | bytes) -> Envelope:
        """
        Read one frame.

        A payload that only the slow path can read, because of a NaN or of a lone
        surrogate, is written anew by :func:`json.dumps`; any other is passed on
        as it came.

        Raises:
            InvalidFrame: If *frame* is no frame of this dialect. No other
                exception escapes.
        """
        if not isinstance(frame, str):
            return _decode_binary(frame)
        try:
            shape = self._decoder.decode(frame)
        # ValueError: a str with a lone surrogate can't be encoded to be read.
        except (msgspec.MsgspecError, ValueError, RecursionError):
            stream, value, is_json = self.unwrap(_loads(frame))
            text = json.dumps(value) if is_json else value
            return Envelope(stream, text, is_json, utf8_size(text))
        return _envelope(shape)

    def unwrap(self, content: JSON) -> tuple[str, JSON, bool]:
        """
        Read the envelope in a frame that :mod:`json` has decoded.

        Returns:
            The stream, what it carries, and if that is a payload rather than a
            text.

        Raises:
            InvalidFrame: If *content* is no envelope.
        """
        named = None
        if isinstance(content, dict):
            # msgspec reads keys as UTF-8, and a key may be a lone surrogate.
            content = {key: content[key] for key in self._keys if key in content}
            stream = content.get(self.stream_key)
            named = stream if isinstance(stream, str) and _is_name(stream) else None
        try:
            return _data(msgspec.convert(content, self._content))
        except msgspec.ValidationError as error:
            _refuse("invalid-envelope", escape(str(error)), named)

    def control(self, content: JSON) -> control.Control | None:
        """
        Return :obj:`None`: this dialect has no control frames.
        """
        return None

    def wrapper(self, stream: str) -> Wrapper:
        """
        Return what writes the data frames of *stream*.
        """
        return Wrapper(stream, self.stream_key, self.payload_key)

    def error(self, error: InvalidFrame) -> str:
        """
        Return the frame that tells a client of its bad frame.

        It names no stream where a client of 0.0.3 would look for one, so that
        none takes it for data.
        """
        return json.dumps(
            {
                "error": {
                    "code": error.code,
                    "message": error.detail,
                    "stream": error.stream,
                }
            }
        )

    def _shape(self, payload: Any) -> Any:
        """Return the type of a data frame whose payload is of type *payload*."""
        return msgspec.defstruct(
            "Envelope",
            [
                ("stream", str),
                ("payload", payload | UnsetType, UNSET),
                ("text", str | UnsetType, UNSET),
            ],
            rename={"stream": self.stream_key, "payload": self.payload_key},
            gc=False,
        )


class V1:
    """
    The dialect ``channelsmultiplexer.v1``: data frames and control frames.
    """

    class _Shape(msgspec.Struct, gc=False):
        op: Raw | UnsetType = UNSET
        # A control frame may have none.
        stream: str | UnsetType | None = UNSET
        payload: Raw | UnsetType = UNSET
        text: str | UnsetType = UNSET

    def __init__(self) -> None:
        self._bare = Bare()
        self.stream_key: str = self._bare.stream_key
        self.payload_key: str = self._bare.payload_key
        self._decoder = msgspec.json.Decoder(self._Shape)

    def decode(self, frame: str | bytes) -> Envelope | control.Control:
        """
        Read one frame. One that has an ``op`` is never data.

        Raises:
            InvalidFrame: If *frame* is no frame of this dialect. No other
                exception escapes.
        """
        if not isinstance(frame, str):
            return _decode_binary(frame)
        try:
            shape = self._decoder.decode(frame)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            shape = None
        if shape is None or not isinstance(shape.stream, str) or shape.op is not UNSET:
            return self.control(_loads(frame)) or self._bare.decode(frame)
        return _envelope(shape)

    def unwrap(self, content: JSON) -> tuple[str, JSON, bool]:
        """
        Read the envelope in a frame that :mod:`json` has decoded.

        Returns and raises what :meth:`Bare.unwrap` does.
        """
        return self._bare.unwrap(content)

    def control(self, content: JSON) -> control.Control | None:
        """
        Read the control frame that :mod:`json` has decoded.

        Returns:
            :obj:`None` if *content* has no ``op``.

        Raises:
            InvalidFrame: If it has, and yet is no control frame.
        """
        if isinstance(content, dict) and "op" in content:
            return control.convert(content)
        return None

    def wrapper(self, stream: str) -> Wrapper:
        """
        Return what writes the data frames of *stream*.
        """
        return self._bare.wrapper(stream)

    def error(self, error: InvalidFrame) -> str:
        """
        Return the frame that tells a client of its bad frame.
        """
        return control.Error(error.stream, error.code, error.detail).encode()


def utf8_size(text: str) -> int:
    """
    Return how many bytes *text* takes in UTF-8.
    """
    # A lone surrogate is no UTF-8, and travels escaped.
    return len(text if text.isascii() else text.encode(errors="surrogatepass"))


def _quote(text: str) -> str:
    """Return *text* as a JSON string that is as long as it, but for its escapes."""
    try:
        return msgspec.json.encode(text).decode()
    # A lone surrogate, which only json escapes: json.dumps() escapes all that is not
    # ASCII, so that text grows up to three times, past what Daphne sends.
    except UnicodeEncodeError:
        return json.dumps(text)


def is_json(text: str) -> bool:
    """
    Tell if *text* is JSON by RFC 8259, as browsers read it.

    NaN, which :func:`json.dumps` writes, is not; an escaped lone surrogate is.
    """
    if type(text) is not str:
        text = exact(text)
    try:
        _raw.decode(text)
    except msgspec.DecodeError:
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return False
    # Deeper than can be checked, or, a ValueError, no UTF-8.
    except (RecursionError, ValueError):
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _decode_binary(frame: bytes) -> Envelope:
    end = 1 + frame[0] if frame else 0
    if end < 2 or len(frame) < end:
        _refuse(
            "invalid-envelope",
            "expected a byte with the length of the stream's name, the name and the "
            f"data, got {len(frame)} bytes: {excerpt(frame)}",
        )
    try:
        stream = str(frame[1:end], "utf-8")
    except UnicodeDecodeError as error:
        _refuse("invalid-envelope", f"expected a stream's name in UTF-8, got {error}")
    return Envelope(stream, bytes(frame[end:]), False, len(frame) - end)


def _envelope(shape: Any) -> Envelope:
    stream, value, is_json = _data(shape)
    if is_json:
        return Envelope(stream, str(value, "utf-8"), True, len(value))
    return Envelope(stream, value, False, utf8_size(value))


def _data(shape: Any) -> tuple[str, Any, bool]:
    """Return the stream, what it carries, and if that is a payload."""
    stream = shape.stream
    if not _is_name(stream):
        _refuse(
            "invalid-envelope",
            f"expected a stream's name of 1 to {MAX_STREAM_BYTES} bytes of UTF-8, "
            f"got {excerpt(stream)}",
        )
    if (shape.payload is UNSET) == (shape.text is UNSET):
        both = "neither" if shape.text is UNSET else "both"
        _refuse("invalid-envelope", f"expected a payload or a text, got {both}", stream)
    if shape.payload is UNSET:
        return stream, shape.text, False
    return stream, shape.payload, True


def _is_name(stream: str) -> bool:
    if stream.isascii():
        return 0 < len(stream) <= MAX_STREAM_BYTES
    try:
        return 0 < len(stream.encode()) <= MAX_STREAM_BYTES
    except UnicodeEncodeError:
        return False


def _loads(frame: str) -> JSON:
    try:
        content = json.loads(frame)
        # What can be read but not written again is refused now: the slow path
        # writes its payload.
        json.dumps(content)
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:
        reason = str(error)
    else:
        return content
    _refuse("invalid-json", f"expected JSON, got {excerpt(frame)}: {reason}")


def _refuse(code: str, detail: str, stream: str | None = None) -> NoReturn:
    raise InvalidFrame(code, detail, stream) from None
