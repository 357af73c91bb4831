"""
The control frames, one by one.
"""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from channelsmultiplexer import control
from channelsmultiplexer.exceptions import InvalidFrame
from strategies import controls, json_values, texts

# Each frame, and its text as the wire protocol has it.
FRAMES = [
    (
        control.Hello(25, 100),
        {"op": "hello", "heartbeat": 25, "max_streams": 100},
    ),
    (
        control.Open("1", "rooms/42/?since=9", ["a"]),
        {
            "op": "open",
            "stream": "1",
            "path": "rooms/42/?since=9",
            "subprotocols": ["a"],
        },
    ),
    (
        control.Opened("1"),
        {"op": "opened", "stream": "1", "subprotocol": None},
    ),
    (
        control.Close("1"),
        {"op": "close", "stream": "1", "code": 1000, "reason": ""},
    ),
    (
        control.Closed("1", 4403, "not a member"),
        {"op": "closed", "stream": "1", "code": 4403, "reason": "not a member"},
    ),
    (
        control.Error(None, "invalid-json", "expected JSON"),
        {
            "op": "error",
            "stream": None,
            "code": "invalid-json",
            "message": "expected JSON",
        },
    ),
    (control.Ping(), {"op": "ping"}),
    (control.Pong(), {"op": "pong"}),
]

frames = pytest.mark.parametrize(
    ("frame", "content"), FRAMES, ids=[content["op"] for _, content in FRAMES]
)


def refusal(content):
    """
    Return what is wrong with a control frame.
    """
    with pytest.raises(InvalidFrame) as caught:
        control.convert(content)
    return caught.value


@frames
def test_encode(frame, content):
    """encode() writes the frame of the wire protocol, keys and all."""
    assert json.loads(frame.encode()) == content


@frames
def test_convert(frame, content):
    """convert() reads the frame of the wire protocol."""
    assert control.convert(content) == frame


@frames
def test_every_key_is_known(frame, content):
    """A frame has the keys of the wire protocol and no other."""
    assert {"op", *frame.__struct_fields__} == content.keys()


def test_every_op_is_here():
    """Every op that convert() reads is in the table above."""
    error = refusal({"op": "credit"})
    ops = ", ".join(content["op"] for _, content in FRAMES)
    assert error.detail == f"expected one of {ops}, got 'credit'"


@frames
def test_frozen(frame, content):
    """A control frame doesn't change."""
    with pytest.raises(AttributeError):
        frame.stream = "2"


@frames
def test_unknown_keys(frame, content):
    """Unknown keys are ignored, whatever they are."""
    assert control.convert({**content, "x": [None], "\ud800": "\ud800"}) == frame


@pytest.mark.parametrize(
    ("content", "frame"),
    [
        ({"op": "open", "stream": "1", "path": "a"}, control.Open("1", "a", [])),
        ({"op": "opened", "stream": "1"}, control.Opened("1", None)),
        ({"op": "close", "stream": "1"}, control.Close("1", 1000, "")),
        ({"op": "closed", "stream": "1"}, control.Closed("1", 1000, "")),
    ],
)
def test_defaults(content, frame):
    """What a frame may leave out has a value."""
    assert control.convert(content) == frame


def test_defaults_are_not_shared():
    """A frame's list is its own."""
    open_ = control.convert({"op": "open", "stream": "1", "path": "a"})
    open_.subprotocols.append("b")
    other = control.convert({"op": "open", "stream": "2", "path": "a"})
    assert other.subprotocols == []


@pytest.mark.parametrize("op", ["credit", "PING", "", "control", "\ud800", "a" * 999])
def test_unknown_op(op):
    """An op that isn't known is an error of its own."""
    error = refusal({"op": op, "stream": "1"})
    assert (error.code, error.stream) == ("unknown-op", "1")


@pytest.mark.parametrize("op", [None, 1, 1.5, True, [], ["ping"], {}, {"ping": 1}])
def test_op_of_a_wrong_type(op):
    """An op that is no string makes a frame that is none."""
    error = refusal({"op": op, "stream": "1", "payload": 1})
    assert (error.code, error.stream) == ("invalid-envelope", "1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stream", 1),
        ("stream", None),
        ("path", None),
        ("path", "a" * 8193),
        ("subprotocols", None),
        ("subprotocols", "a"),
        ("subprotocols", [1]),
        ("subprotocols", ["a" * 256]),
        ("subprotocols", ["a"] * 33),
    ],
)
def test_bad_open(key, value):
    """An open has a path and subprotocols that a server could use."""
    content = {"op": "open", "stream": "1", "path": "a", "subprotocols": []}
    assert refusal({**content, key: value}).code == "invalid-envelope"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stream", 1),
        ("code", 999),
        ("code", 5000),
        ("code", 1000.5),
        ("code", "1000"),
        ("code", True),
        ("code", None),
        ("reason", None),
        ("reason", "a" * 124),
    ],
)
def test_bad_close(key, value):
    """A close has a code and a reason that a WebSocket could have."""
    content = {"op": "close", "stream": "1", "code": 1000, "reason": ""}
    assert refusal({**content, key: value}).code == "invalid-envelope"


@pytest.mark.parametrize("missing", ["stream", "path"])
def test_missing_key(missing):
    """What has no default must be there."""
    content = {"op": "open", "stream": "1", "path": "a"}
    del content[missing]
    assert refusal(content).code == "invalid-envelope"


@pytest.mark.parametrize(
    ("stream", "named"),
    [
        ("1", "1"),
        ("", ""),
        ("a" * 255, "a" * 255),
        ("a" * 256, None),
        ("\u20ac", None),
        ("\ud800", None),
        (1, None),
        (None, None),
        ([], None),
    ],
)
def test_error_names_the_stream(stream, named):
    """An error names the stream of the bad frame, if it could be one's name."""
    assert refusal({"op": "credit", "stream": stream}).stream == named
    assert refusal({"op": 1, "stream": stream}).stream == named


def test_error_is_short():
    """An error shows little of what the client wrote, and that in ASCII."""
    detail = refusal({"op": "\u20ac\n" * 9999}).detail
    assert detail.isascii()
    assert detail.isprintable()
    assert len(detail) < 500


@pytest.mark.parametrize("reason", ["no member", "\ud800"])
@pytest.mark.parametrize("kind", [mark_safe, lazystr])
def test_reason_of_django(kind, reason):
    """A reason may be what Django has for text: marked safe, or lazily translated."""
    text = control.Closed("1", 4403, kind(reason)).encode()
    assert json.loads(text)["reason"] == reason


def test_lone_surrogate():
    """An application's reason can have no UTF-8 and is sent all the same."""
    closed = control.Closed("1", 4000, "\ud800")
    text = closed.encode()
    assert text.isascii()
    assert control.convert(json.loads(text)) == closed


@given(controls())
def test_round_trip(frame):
    """convert() reads what encode writes, any text in it."""
    content = json.loads(frame.encode().encode())
    # Two halves of a surrogate pair become the letter they stand for.
    expected = json.loads(json.dumps(msgspec.to_builtins(frame)))
    assert msgspec.to_builtins(control.convert(content)) == expected


@given(
    st.dictionaries(
        st.sampled_from(["stream", "path", "subprotocols", "code", "reason", "\ud800"]),
        json_values(texts()),
    ),
    st.sampled_from([content["op"] for _, content in FRAMES]) | json_values(texts()),
)
def test_convert_anything(content, op):
    """convert() reads any content or raises InvalidFrame, never anything else."""
    with contextlib.suppress(InvalidFrame):
        assert isinstance(control.convert({**content, "op": op}), control.Control)
