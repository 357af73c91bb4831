"""
How a server names channels on the wire.

Sans-I/O. A session is what one link needs to know: it reads frames, and says what to
send for a channel to begin or end. There are three dialects: an outside feed, which
names the channel in each message, and the two of our own server, bare and v1.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import msgspec

from .. import control, envelope
from ..envelope import SUBPROTOCOL, Envelope

__all__ = [
    "V1",
    "Bare",
    "Feed",
    "Session",
    "checked",
    "decoder",
    "loads",
    "named",
]

C = TypeVar("C", bound=control.Control)


class Session:
    """
    What a dialect says on one link.

    Attributes:
        kind: The class of what :attr:`decode` returns for data; it has ``stream``.
            What it returns of another class is no data.

        decode: Reads a frame. Raises :exc:`ValueError`, or what msgspec raises.

        routes: What a frame's ``stream`` stands for.
    """

    kind: type[Any]
    decode: Callable[[Any], Any]

    def __init__(self, routes: dict[Hashable, Any]) -> None:
        self.routes = routes

    def begin(self, channels: Sequence[Any]) -> list[Any]:
        """
        Return what to send so that channels begin.
        """
        return []

    def end(self, channels: Sequence[Any]) -> list[Any]:
        """
        Return what to send so that channels end.
        """
        return []


class Feed:
    """
    Any server that names the channel in each message.

    Args:
        channel_key: The key that has the channel, or several, to go down by.

        subscribe_msg: Makes the message that subscribes to a channel; to a list of
            channels if there is a *batch_size*.

        unsubscribe_msg: The same to end it.

        batch_size: The most channels in one message.
    """

    subprotocols = None
    #: If the server confirms what was asked, unasked.
    confirms = False

    def __init__(
        self,
        channel_key: str | Sequence[str] | None,
        subscribe_msg: Callable[[Any], Any] | None = None,
        unsubscribe_msg: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._messages = (subscribe_msg, unsubscribe_msg)
        self.batch_size = batch_size
        path = [channel_key] if isinstance(channel_key, str) else channel_key
        self._path = list(path or [])
        self.kind: type[Any] = _Key
        self.decode: Callable[[Any], Any] = _no_key
        if path:
            self.kind, self.decode = _reader(self._path)
        #: If messages don't name their channel.
        self.keyless: bool = not path

    def session(self, routes: dict[Hashable, Any]) -> Session:
        """
        Return what is said on a new link.
        """
        return _FeedSession(self, routes)

    def envelope(self, frame: str | bytes) -> Any:
        """
        Read a frame that :attr:`decode` couldn't, if it is good enough for json.

        Its channel is :obj:`None` if it names none.

        Raises:
            ValueError: If it is no JSON.
        """
        return self.kind(self.name(loads(frame)))

    def name(self, content: Any) -> Any:
        """
        Return the channel that a message names; :obj:`None` if it names none.
        """
        if self.keyless:
            return None
        for key in self._path:
            content = content.get(key) if isinstance(content, dict) else None
        return content

    def messages(self, which: int, channels: Sequence[Any]) -> list[Any]:
        """
        Return what subscribes to channels (0), or unsubscribes from them (1).
        """
        make = self._messages[which]
        if make is None:
            return []
        names = [channel.name for channel in channels]
        return [make(names)] if self.batch_size else [make(name) for name in names]


class _FeedSession(Session):
    def __init__(self, feed: Feed, routes: dict[Hashable, Any]) -> None:
        super().__init__(routes)
        self._feed = feed
        self.kind = feed.kind
        self.decode = feed.decode

    def begin(self, channels: Sequence[Any]) -> list[Any]:
        return self._feed.messages(0, channels)

    def end(self, channels: Sequence[Any]) -> list[Any]:
        return self._feed.messages(1, channels)


class Bare:
    """
    Our server's bare dialect: every application runs, and a stream is its name.
    """

    subprotocols = None
    confirms = False
    batch_size = None

    def __init__(self) -> None:
        self._codec = envelope.Bare()

    def check(self, path: str, subprotocols: Sequence[str]) -> None:
        """
        Raise :exc:`ValueError` if a stream can't be opened so.
        """
        if subprotocols:
            raise ValueError("expected dialect='v1', for subprotocols")
        self._codec.wrapper(path)

    def session(self, routes: dict[Hashable, Any]) -> Session:
        """
        Return what is said on a new link.
        """
        return _BareSession(self._codec, routes)


class _BareSession(Session):
    kind = Envelope

    def __init__(self, codec: envelope.Bare, routes: dict[Hashable, Any]) -> None:
        super().__init__(routes)
        self._codec = codec

    def decode(self, frame: str | bytes) -> Any:
        try:
            return self._codec.decode(frame)
        except ValueError:
            content = loads(frame)
            match content:
                case {"error": {"code": str(code), "message": str(message)} as error}:
                    stream = error.get("stream")
                    stream = stream if isinstance(stream, str) else None
                    return control.Error(stream, code, message)
            raise

    def begin(self, channels: Sequence[Any]) -> list[Any]:
        for channel in channels:
            channel.wire[self] = (channel.name, self._codec.wrapper(channel.name))
        return []


class V1:
    """
    Our server's dialect ``channelsmultiplexer.v1``: streams are opened, by number.
    """

    subprotocols: tuple[str, ...] = (SUBPROTOCOL,)
    confirms = True
    batch_size = None

    def check(self, path: str, subprotocols: Sequence[str]) -> None:
        """
        Raise :exc:`ValueError` if a stream can't be opened so.
        """
        checked(control.Open("1", path, list(subprotocols)))

    def session(self, routes: dict[Hashable, Any]) -> Session:
        """
        Return what is said on a new link. Numbers are the link's own.
        """
        return _V1Session()


class _V1Session(Session):
    kind = Envelope
    _codec = envelope.V1()

    def __init__(self) -> None:
        super().__init__({})
        self._last = 0
        self.decode = self._codec.decode

    def begin(self, channels: Sequence[Any]) -> list[Any]:
        frames = []
        for channel in channels:
            self._last += 1
            number = str(self._last)
            channel.wire[self] = (number, self._codec.wrapper(number))
            self.routes[number] = channel
            opening = control.Open(number, channel.name, list(channel.subprotocols))
            frames.append(opening.encode())
        return frames

    def end(self, channels: Sequence[Any]) -> list[Any]:
        frames = []
        for channel in channels:
            number, _ = channel.wire.pop(self, (None, None))
            # None if the server has closed it.
            if number is not None and self.routes.pop(number, None) is not None:
                frames.append(control.Close(number, *channel.ending).encode())
        return frames


def named(
    dialect: str,
    channel_key: str | Sequence[str] | None,
    *,
    channel_extractor: Callable[[Any], Any] | None,
    subscribe_msg: Callable[[Any], Any] | None,
    unsubscribe_msg: Callable[[Any], Any] | None,
    batch_size: int | None,
    ack: Callable[[Any, Any], bool | None] | None,
) -> Feed | Bare | V1:
    """
    Return the dialect of that name; the arguments are :class:`.Multiplex`'s.

    Raises:
        ValueError: If they contradict one another.
        TypeError: If what is to be called can't be, or would have to be awaited.
    """
    if dialect not in ("feed", "v1", "bare"):
        raise ValueError(f"expected feed, v1 or bare, got {dialect!r}")
    if channel_key is not None and not channel_key:
        raise ValueError(f"expected a key, or several, got {channel_key!r}")
    for function in (channel_extractor, subscribe_msg, unsubscribe_msg, ack):
        if function is not None and not callable(function):
            raise TypeError(f"expected a function, got {function!r}")
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"expected a function to call, {function!r} is async")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"expected a batch_size of 1 or more, got {batch_size}")
    if dialect == "feed":
        if channel_key and channel_extractor:
            raise ValueError("expected channel_key or channel_extractor, got both")
        return Feed(channel_key, subscribe_msg, unsubscribe_msg, batch_size)
    if channel_key or channel_extractor:
        raise ValueError(f"the dialect {dialect!r} has a channel key of its own")
    if subscribe_msg or unsubscribe_msg or batch_size:
        raise ValueError(f"the dialect {dialect!r} has messages of its own")
    if ack:
        raise ValueError(f"the dialect {dialect!r} confirms by itself")
    return V1() if dialect == "v1" else Bare()


class _Key(msgspec.Struct, gc=False):
    stream: Any


def _no_key(frame: Any) -> _Key:
    return _Key(None)


def _reader(path: list[str]) -> tuple[type, Callable[[Any], Any]]:
    """Return the class of what has a frame's channel, and what reads a frame so."""
    inner: Any = Any
    for key in reversed(path[1:]):
        inner = msgspec.defstruct("Key", [("stream", inner)], rename={"stream": key})
    outer = msgspec.defstruct(
        "Key", [("stream", inner)], rename={"stream": path[0]}, gc=False
    )
    decode = msgspec.json.Decoder(outer).decode
    if len(path) == 1:
        return outer, decode

    def nested(frame: Any) -> _Key:
        key: Any = decode(frame)
        for _ in path:
            key = key.stream
        return _Key(key)

    return _Key, nested


def checked(frame: C) -> C:
    """
    Return a control frame if our server will take it.

    Raises:
        ValueError: If it won't.
    """
    try:
        msgspec.json.decode(frame.encode(), type=type(frame))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    return frame


def loads(frame: str | bytes) -> Any:
    """
    Return what a frame's JSON means: also what msgspec finds too lax.

    Raises:
        ValueError: If it is no JSON.
    """
    try:
        return msgspec.json.decode(frame)
    except (msgspec.DecodeError, RecursionError, ValueError):
        try:
            return json.loads(frame)
        except RecursionError:
            raise ValueError("nested too deep") from None


def decoder(type: Any) -> Callable[[str | bytes], Any]:  # noqa: A002 (the seed's word)
    """
    Return what decodes a frame's JSON into *type*.
    """
    return msgspec.json.Decoder(type).decode
