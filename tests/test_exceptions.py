"""
What errors say, and who catches them.
"""

from __future__ import annotations

import asyncio
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsmultiplexer.exceptions import (
    InboxClosed,
    InboxFull,
    InvalidFrame,
    MultiplexError,
    escape,
    excerpt,
)
from strategies import texts

ERRORS = [
    (MultiplexError("as it comes"), "as it comes"),
    (
        InvalidFrame("invalid-json", "expected JSON, got '{'"),
        "Invalid multiplexed frame received (invalid-json): expected JSON, got '{'",
    ),
    (
        InvalidFrame("unknown-stream", "no such name", "chat"),
        "Invalid multiplexed frame received (unknown-stream): no such name",
    ),
    (InboxFull(90, 100), "90 of 100 are waiting"),
    (InboxClosed(), "the inbox is closed"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS)
def test_text(error, text):
    """An error says what was expected and what came."""
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), ERRORS)
def test_pickle(error, text):
    """An error survives the way to another process."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (text, vars(error))


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (MultiplexError, (Exception,)),
        (InvalidFrame, (MultiplexError, ValueError)),
        (InboxFull, (MultiplexError, asyncio.QueueFull)),
        (InboxClosed, (MultiplexError,)),
    ],
)
def test_tree(error, bases):
    """An error is caught by the root, and by the builtin that it resembles."""
    assert error.__bases__ == bases


def test_invalid_frame():
    """InvalidFrame keeps what its text is made of."""
    error = InvalidFrame("unknown-op", "expected an op", "7")
    assert (error.code, error.detail, error.stream) == (
        "unknown-op",
        "expected an op",
        "7",
    )


def test_invalid_frame_counts():
    """A bad frame names no stream and counts, unless it is said otherwise."""
    error = InvalidFrame("unknown-op", "expected an op")
    assert error.stream is None
    assert not error.late


def test_inbox_full():
    """InboxFull keeps how much waits and how much may."""
    error = InboxFull(90, 100)
    assert (error.size, error.limit) == (90, 100)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a\r\nb\x1b[31m", r"a\r\nb\x1b[31m"),
        ("\u20ac\ud800", r"\u20ac\ud800"),
        ("it's", "it's"),
        ("a" * 61, "a" * 60),
    ],
)
def test_escape(text, escaped):
    """escape() writes a text in printable ASCII and cuts it."""
    assert escape(text) == escaped


@pytest.mark.parametrize(
    ("got", "quoted"),
    [
        ("plain", "'plain'"),
        ("", "''"),
        ("a\n", r"'a\n'"),
        (b"\x00a", r"b'\x00a'"),
        ("a" * 60, repr("a" * 60)),
        ("a" * 61, repr("a" * 60) + "..."),
    ],
)
def test_excerpt(got, quoted):
    """excerpt() quotes what came, and says if it has cut it."""
    assert excerpt(got) == quoted


@given(texts())
def test_escape_any_text(text):
    """Whatever a client wrote, what is logged is one line of printable ASCII."""
    escaped = escape(text)
    assert escaped.isascii()
    assert escaped.isprintable()


@given(texts() | st.binary())
def test_excerpt_anything(got):
    """Whatever a client sent, its excerpt is one line of printable ASCII."""
    quoted = excerpt(got)
    assert quoted.isascii()
    assert quoted.isprintable()
