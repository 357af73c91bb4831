"""
How streams are named, and what is said of those that aren't open.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsmultiplexer import dialects, envelope
from channelsmultiplexer.dialects import resolve
from channelsmultiplexer.exceptions import InvalidFrame
from strategies import texts


@pytest.fixture
def bare():
    """
    The bare dialect on a socket of its own.
    """
    return dialects.Bare("stream", "payload")


@pytest.fixture
def v1():
    """
    The v1 dialect on a socket of its own.
    """
    return dialects.V1()


# Bare


def test_bare_codec(bare):
    """A bare socket has a codec with its own keys."""
    assert isinstance(bare.codec, envelope.Bare)
    codec = dialects.Bare("action", "data").codec
    assert (codec.stream_key, codec.payload_key) == ("action", "data")


def test_bare_codec_is_shared(bare):
    """Sockets with the same keys share a codec."""
    assert dialects.Bare("stream", "payload").codec is bare.codec


def test_bare_unknown(bare):
    """A frame for a name that never was is a bad frame, every time."""
    for _ in range(2):
        error = bare.missing("chat")
        assert (error.code, error.stream) == ("unknown-stream", "chat")
        assert not error.late


def test_bare_ended(bare):
    """A frame for a stream that has ended is late."""
    bare.retire("chat")
    error = bare.missing("chat")
    assert (error.code, error.stream) == ("unknown-stream", "chat")
    assert error.late


def test_bare_ended_is_told_once(bare):
    """A client is told once that a stream has ended; then its frames are dropped."""
    bare.retire("chat")
    assert bare.missing("chat") is not None
    assert bare.missing("chat") is None
    assert bare.missing("chat") is None


def test_bare_ended_is_told_of_each(bare):
    """A client is told of each stream that has ended."""
    bare.retire("chat")
    bare.retire("news")
    assert bare.missing("chat").stream == "chat"
    assert bare.missing("news").stream == "news"


def test_bare_errors_differ(bare):
    """The text says if a stream has ended or never was."""
    bare.retire("chat")
    assert bare.missing("chat").detail.endswith("got 'chat': it has ended")
    assert bare.missing("cat").detail.endswith("got 'cat': there is none of that name")


def test_bare_sockets_are_apart(bare):
    """A stream that has ended on one socket has not on another."""
    bare.retire("chat")
    assert not dialects.Bare("stream", "payload").missing("chat").late


# v1


def test_v1_codec(v1):
    """Every v1 socket has the same codec."""
    assert isinstance(v1.codec, envelope.V1)
    assert dialects.V1().codec is v1.codec


def test_v1_reserve_grows(v1):
    """Each number must be past the greatest so far."""
    for stream in ("1", "2", "7", "10", "999999999999999999"):
        v1.reserve(stream)
        with pytest.raises(InvalidFrame) as caught:
            v1.reserve(stream)
        assert (caught.value.code, caught.value.stream) == ("stream-in-use", stream)


@pytest.mark.parametrize("stream", ["1", "6", "7"])
def test_v1_reserve_below(v1, stream):
    """A number below the greatest is in use, even if it was skipped."""
    v1.reserve("7")
    with pytest.raises(InvalidFrame, match=f"stream above 7, got {stream}$"):
        v1.reserve(stream)


def test_v1_reserve_fails(v1):
    """A number that was refused takes nothing."""
    v1.reserve("7")
    for stream in ("3", "7", "eight", "9" * 19):
        with pytest.raises(InvalidFrame):
            v1.reserve(stream)
    v1.reserve("8")


@pytest.mark.parametrize(
    "stream",
    [
        "",
        "0",
        "00",
        "01",
        "007",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "0x1",
        " 1",
        "1\n",
        "1_0",
        "chat",
        "\u0661",  # a digit, and not ASCII
        "\u00b2",  # a digit to str.isdigit, and to nobody else
        "\ud800",
        "9" * 19,
        "9" * 5000,
    ],
)
def test_v1_no_number(v1, stream):
    """What is no number of at most 18 digits, written in one way, names no stream."""
    with pytest.raises(InvalidFrame) as caught:
        v1.reserve(stream)
    assert (caught.value.code, caught.value.stream) == ("invalid-envelope", None)
    assert v1.missing(stream).code == "unknown-stream"


def test_v1_missing_beyond(v1):
    """A frame for a number beyond the greatest is a bad frame, and counts."""
    v1.reserve("7")
    error = v1.missing("8")
    assert (error.code, error.stream) == ("unknown-stream", "8")
    assert not error.late


def test_v1_missing_takes_nothing(v1):
    """A frame for a number that was never opened doesn't use it up."""
    assert v1.missing("8").code == "unknown-stream"
    v1.reserve("7")
    v1.reserve("8")


@pytest.mark.parametrize("stream", ["1", "6", "7"])
def test_v1_missing_crossed(v1, stream):
    """A frame that crossed its stream's closed is dropped in silence, every time."""
    v1.reserve("7")
    v1.retire("7")
    assert v1.missing(stream) is None
    assert v1.missing(stream) is None


def test_v1_retire(v1):
    """A number is not free again when its stream has ended."""
    v1.reserve("7")
    v1.retire("7")
    with pytest.raises(InvalidFrame, match="stream-in-use"):
        v1.reserve("7")


def test_v1_sockets_are_apart(v1):
    """The numbers of one socket say nothing of another's."""
    v1.reserve("7")
    other = dialects.V1()
    assert other.missing("7") is not None
    other.reserve("1")


@given(st.lists(st.integers(1, 50).map(str) | texts()))
def test_v1_numbers_only_grow(streams):
    """Whatever a client opens, the numbers it gets grow."""
    socket = dialects.V1()
    opened = [0]
    for stream in streams:
        with contextlib.suppress(InvalidFrame):
            socket.reserve(stream)
            opened.append(int(stream))
            assert socket.missing(stream) is None
    assert opened == sorted(set(opened))


# resolve()


def url(path, query=b""):
    """
    Return what a scope says of a URL whose path needs no escapes.
    """
    return {
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("rooms", url("/")),
        ("rooms/", url("/")),
        ("/rooms", url("/")),
        ("/rooms/", url("/")),
        ("rooms/42/", url("/42/")),
        ("/rooms/42/", url("/42/")),
        ("rooms//42", url("//42")),
        ("rooms/../chat", url("/../chat")),
        ("rooms/chat/rooms", url("/chat/rooms")),
        ("rooms?since=9", url("/", b"since=9")),
        ("rooms/42/?since=9", url("/42/", b"since=9")),
        ("rooms/42/?a=/b?c", url("/42/", b"a=/b?c")),
        ("rooms/?", url("/")),
        ("rooms#top", url("/")),
        ("rooms/42/#top", url("/42/")),
        ("rooms/?a=1#top?b=2", url("/", b"a=1")),
    ],
)
def test_resolve(path, expected):
    """The first part of a path names the application; the rest is its URL."""
    assert resolve(path, {"chat": None, "rooms": None}) == ("rooms", expected)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("users.orgplayer/1", "users.orgplayer"),
        ("a%20b/1", "a b"),
        ("a b/1", "a b"),
        ("a%2Fb/1", "a/b"),
        ("%E2%82%AC/1", "\u20ac"),
        ("\u20ac/1", "\u20ac"),
        ("100%/1", "100%"),
    ],
)
def test_resolve_any_name(path, name):
    """Any name can be written in a path, percent-encoded if it must be."""
    assert resolve(path, {name: None, "a": None}) == (name, url("/1"))


def test_resolve_decodes():
    """The path is percent-decoded, the query and the raw path are not."""
    _, scope = resolve("rooms/a%20b%2Fc%3Fd/%E2%82%AC?q=%20%E2", {"rooms": None})
    assert scope["path"] == "/a b/c?d/\u20ac"
    assert scope["raw_path"] == b"/a%20b%2Fc%3Fd/%E2%82%AC"
    assert scope["query_string"] == b"q=%20%E2"


def test_resolve_lone_surrogate():
    """What has no UTF-8 is replaced in the raw path and in the query."""
    _, scope = resolve("rooms/\ud800?\ud800", {"rooms": None})
    assert (scope["raw_path"], scope["query_string"]) == (b"/?", b"?")


def test_resolve_encodes():
    """What a client didn't escape is UTF-8 in the raw path and in the query."""
    _, scope = resolve("rooms/\u20ac?\u20ac", {"rooms": None})
    assert scope["path"] == "/\u20ac"
    assert scope["raw_path"] == b"/\xe2\x82\xac"
    assert scope["query_string"] == b"\xe2\x82\xac"


@pytest.mark.parametrize("path", ["", "/", "//rooms", "?rooms", "#rooms", "Rooms", "x"])
def test_resolve_nobody(path):
    """A path that names no application finds none."""
    name, _ = resolve(path, {"rooms": None})
    assert name is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", url("/")),
        ("/", url("/")),
        ("chat", url("/chat")),
        ("/chat/1/", url("/chat/1/")),
        ("chat/1/?a=b", url("/chat/1/", b"a=b")),
        ("//rooms", url("//rooms")),
        ("?rooms", url("/", b"rooms")),
    ],
)
def test_resolve_root(path, expected):
    """The application named '' gets every path that no other claims, whole."""
    assert resolve(path, {"": None, "rooms": None}) == ("", expected)


def test_resolve_root_decodes():
    """The application named '' gets its path percent-decoded, and once."""
    _, scope = resolve("a%2Fb/%2541", {"": None, "rooms": None})
    assert (scope["path"], scope["raw_path"]) == ("/a/b/%41", b"/a%2Fb/%2541")


def test_resolve_root_yields():
    """The application named '' doesn't get a path that another claims."""
    assert resolve("rooms/1", {"": None, "rooms": None}) == ("rooms", url("/1"))


@given(st.lists(texts() | st.sampled_from("/?#%")).map("".join))
def test_resolve_anything(path):
    """Any path has an answer that can stand in a scope."""
    name, scope = resolve(path, {"": None})
    assert name == ""
    assert scope["path"].startswith("/")
    assert scope["raw_path"].startswith(b"/")
    assert isinstance(scope["query_string"], bytes)
