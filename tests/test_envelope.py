"""
The wire format: case by case, and for any text and any bytes.
"""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import assume, example, given
from hypothesis import strategies as st

from channelsmultiplexer import control, envelope
from channelsmultiplexer.envelope import Envelope, is_json
from channelsmultiplexer.exceptions import InvalidFrame
from strategies import frames, json_texts, stream_names, texts
from wire_cases import cases

CODECS = {"bare": envelope.Bare(), "v1": envelope.V1()}

codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def frame_of(case):
    """
    Return the frame of a case: text, or the bytes of a binary frame.
    """
    frame = case["frame"]
    return frame["hex"] if isinstance(frame, dict) else frame


def data_frame(stream, data, is_json):
    """
    Return an envelope of the right size.
    """
    is_text = isinstance(data, str)
    octets = data.encode(errors="surrogatepass") if is_text else data
    return Envelope(stream, data, is_json, len(octets))


def envelope_of(case):
    """
    Return the envelope that a case expects.
    """
    expected = case["envelope"]
    kind, value = expected["kind"], expected["value"]
    data = bytes.fromhex(value) if kind == "bytes" else value
    return data_frame(expected["stream"], data, kind == "payload")


def meaning(frame):
    """
    Return what a text frame says, in one spelling.
    """
    return json.dumps(json.loads(frame), sort_keys=True)


# Case by case


@pytest.mark.parametrize("case", cases("decode", "envelope"))
def test_decode_data(case):
    """decode() reads what a data frame carries."""
    for dialect in case["dialects"]:
        assert CODECS[dialect].decode(frame_of(case)) == envelope_of(case)


@pytest.mark.parametrize("case", cases("decode", "control"))
def test_decode_control(case):
    """decode() reads control frames where there are any."""
    for dialect in case["dialects"]:
        frame = CODECS[dialect].decode(frame_of(case))
        assert isinstance(frame, control.Control)
        assert msgspec.to_builtins(frame) == case["control"]


# A client reads JSON with a parser of its own.
@pytest.mark.parametrize(
    "case",
    [
        param
        for param in cases("decode", "error")
        if param.values[0].get("to") != "client"
    ],
)
def test_decode_bad(case):
    """decode() says what is wrong with a bad frame, and on which stream."""
    for dialect in case["dialects"]:
        with pytest.raises(InvalidFrame) as caught:
            CODECS[dialect].decode(frame_of(case))
        assert caught.value.code == case["error"]
        assert caught.value.stream == case["error_stream"]


@pytest.mark.parametrize("case", cases("encode", "text"))
def test_encode_text(case):
    """JSON travels as a payload, any other text as a text."""
    for dialect in case["dialects"]:
        frame = CODECS[dialect].wrapper(case["stream"]).text(case["text"])
        assert meaning(frame) == json.dumps(case["frame"], sort_keys=True)


@pytest.mark.parametrize("case", cases("encode", "hex"))
def test_encode_bytes(case):
    """Bytes travel behind the name of their stream."""
    for dialect in case["dialects"]:
        frame = CODECS[dialect].wrapper(case["stream"]).binary(case["hex"])
        assert frame == frame_of(case)


@pytest.mark.parametrize("case", cases("errors"))
def test_error(case):
    """The client of a bad frame is told of it, with no stream in bare."""
    error = InvalidFrame(case["code"], case["message"], case["stream"])
    frame = CODECS[case["dialect"]].error(error)
    assert meaning(frame) == json.dumps(case["frame"], sort_keys=True)


# What the cases can't say


@codecs
def test_decode_lone_surrogate(codec):
    """A frame with a lone surrogate, which no server delivers, is read all the same."""
    frame = codec.decode('{"stream":"1","payload":"\ud800"}')
    assert frame == data_frame("1", r'"\ud800"', True)


@codecs
def test_decode_long_number(codec):
    """A number longer than Python would convert is passed on."""
    digits = "9" * 5000
    frame = codec.decode(f'{{"stream":"1","payload":{digits}}}')
    assert frame == data_frame("1", digits, True)


@codecs
def test_decode_long_number_beside_nan(codec):
    """A payload that can be neither passed on nor read is refused."""
    with pytest.raises(InvalidFrame, match="invalid-json"):
        codec.decode(f'{{"stream":"1","payload":[NaN,{"9" * 5000}]}}')


def test_long_number_is_json():
    """A number longer than Python would convert is JSON."""
    assert is_json("9" * 5000)


@codecs
def test_unwrap(codec):
    """unwrap() reads the envelope in what json has decoded."""
    assert codec.unwrap({"stream": "1", "payload": [1], "x": 2}) == ("1", [1], True)
    assert codec.unwrap({"stream": "1", "text": "a"}) == ("1", "a", False)


@codecs
@pytest.mark.parametrize("content", [[], None, {}, {"stream": "1"}, {1: 2}])
def test_unwrap_bad(codec, content):
    """unwrap() refuses what is no envelope."""
    with pytest.raises(InvalidFrame, match="invalid-envelope"):
        codec.unwrap(content)


@pytest.mark.parametrize("content", [{"op": "ping"}, {"op": 1}, {}, []])
def test_bare_has_no_control(content):
    """Bare has no control frames, and so no bad ones."""
    assert CODECS["bare"].control(content) is None


@pytest.mark.parametrize("content", [{"stream": "1", "payload": 1}, [], "op", ["op"]])
def test_v1_control_needs_op(content):
    """What has no op is no control frame."""
    assert CODECS["v1"].control(content) is None


def test_v1_control():
    """What has an op is read as a control frame."""
    assert CODECS["v1"].control({"op": "ping"}) == control.Ping()


def test_keys():
    """A bare client's own keys take the place of stream and payload."""
    codec = envelope.Bare("action", "data")
    assert meaning(codec.wrapper("1").text("[1]")) == '{"action": "1", "data": [1]}'
    assert codec.decode('{"action":"1","data":[1]}') == data_frame("1", "[1]", True)
    assert codec.decode('{"action":"1","data":NaN}') == data_frame("1", "NaN", True)
    with pytest.raises(InvalidFrame, match="invalid-envelope"):
        codec.decode('{"stream":"1","payload":[1]}')


def test_keys_in_any_script():
    """A key may have any letters."""
    codec = envelope.Bare("\u043f\u043e\u0442\u043e\u043a", "\u20ac")
    frame = codec.wrapper("1").text("[1]")
    assert codec.decode(frame) == data_frame("1", "[1]", True)


@pytest.mark.parametrize(
    "keys", [("a", "a"), ("text", "payload"), ("stream", "text"), ("payload",)]
)
def test_keys_differ(keys):
    """The keys of an envelope must differ."""
    with pytest.raises(ValueError, match="expected different keys"):
        envelope.Bare(*keys)


def test_codec_names_its_keys():
    """A codec says which keys it reads and writes."""
    for codec in CODECS.values():
        assert (codec.stream_key, codec.payload_key) == ("stream", "payload")


@codecs
@pytest.mark.parametrize("stream", ["", "a" * 256, "\u20ac" * 86])
def test_wrapper_refuses(codec, stream):
    """A stream's name has 1 to 255 bytes."""
    with pytest.raises(ValueError, match="expected a stream's name of 1 to 255 bytes"):
        codec.wrapper(stream)


@codecs
def test_wrapper_refuses_lone_surrogate(codec):
    """A stream's name has UTF-8."""
    with pytest.raises(UnicodeEncodeError):
        codec.wrapper("\ud800")


def test_text_is_spliced():
    """An application's JSON is not written anew."""
    text = '{ "a":1.50, "b":"\\u0061",\n"a":2 }'
    assert text in CODECS["bare"].wrapper("1").text(text)


@codecs
@pytest.mark.parametrize("kind", [mark_safe, lazystr])
@pytest.mark.parametrize("text", ["<p>hi</p>", '{"html":"<p>"}', "\ud800"])
def test_text_of_django(codec, kind, text):
    """Text may be what a template renders: a SafeString, or a lazy one."""
    wrapper = codec.wrapper("1")
    frame = wrapper.text(kind(text))
    assert type(frame) is str
    assert frame == wrapper.text(text)
    assert is_json(kind(text)) == is_json(text)


def test_text_is_not_inflated():
    """Text travels in UTF-8, not in escapes three times as long."""
    assert "\u20ac\U0001f600" in CODECS["bare"].wrapper("1").text("\u20ac\U0001f600")


def test_envelope_is_frozen():
    """An envelope doesn't change."""
    with pytest.raises(AttributeError):
        data_frame("1", "a", False).data = "b"


# For any text and any bytes


@codecs
@given(stream_names(), json_texts())
def test_json_round_trip(codec, stream, text):
    """A payload is passed on verbatim, both ways, for any name of a stream."""
    frame = codec.decode(codec.wrapper(stream).text(text))
    assert frame == data_frame(stream, text, True)


@codecs
@given(stream_names(), texts())
def test_text_round_trip(codec, stream, text):
    """A text that is no JSON is passed on verbatim, for any name of a stream."""
    assume(not is_json(text))
    frame = codec.decode(codec.wrapper(stream).text(text))
    # Two halves of a surrogate pair become the letter they stand for.
    assert frame == data_frame(stream, json.loads(json.dumps(text)), False)


@codecs
@given(stream_names(), st.binary())
def test_bytes_round_trip(codec, stream, data):
    """Bytes are passed on verbatim, for any name of a stream."""
    frame = codec.decode(codec.wrapper(stream).binary(data))
    assert frame == data_frame(stream, data, False)


@codecs
@given(json_texts(texts()))
def test_surrogates_round_trip(codec, text):
    """A payload with lone surrogates keeps its meaning."""
    assume(is_json(text))
    frame = codec.decode(codec.wrapper("1").text(text))
    assert frame.is_json
    assert json.loads(frame.data) == json.loads(text)


@codecs
@given(texts() | frames() | st.binary() | json_texts(texts()))
def test_decode_anything(codec, frame):
    """decode() reads any frame or raises InvalidFrame, never anything else."""
    with contextlib.suppress(InvalidFrame):
        assert isinstance(codec.decode(frame), Envelope | control.Control)


def refusal(codec, frame):
    """
    Return what is wrong with a frame, if anything is.
    """
    try:
        codec.decode(frame)
    except InvalidFrame as error:
        return error


@codecs
@given(texts() | frames() | st.binary())
def test_error_can_be_told(codec, frame):
    """What is wrong with any frame can be logged, and sent in a frame."""
    error = refusal(codec, frame)
    assume(error is not None)
    assert error.detail.isascii()
    assert error.detail.isprintable()
    assert isinstance(json.loads(codec.error(error).encode()), dict)


def outcome(codec, read, frame):
    """
    Return what comes of reading a frame: what it says, or what is wrong with it.
    """
    try:
        content = read(codec, frame)
    except InvalidFrame as error:
        return error.code, error.stream
    except ValueError:
        return "invalid-json", None
    if isinstance(content, control.Control):
        return content
    stream, data, has_payload = content
    return stream, meaning(data) if has_payload else data, has_payload


def decoded(codec, frame):
    content = codec.decode(frame)
    if isinstance(content, control.Control):
        return content
    return content.stream, content.data, content.is_json


def unwrapped(codec, frame):
    content = json.loads(frame)
    frame = codec.control(content)
    if frame is not None:
        return frame
    stream, value, has_payload = codec.unwrap(content)
    return stream, json.dumps(value) if has_payload else value, has_payload


@codecs
@given(frames())
def test_unwrap_agrees(codec, frame):
    """A hook that sees decoded content sees what is routed without one."""
    assert outcome(codec, unwrapped, frame) == outcome(codec, decoded, frame)


def has_utf8(text):
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def strictly_json(text):
    """
    Tell if json reads a text, NaN and infinities aside.
    """

    def refuse(constant):
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


@given(json_texts() | json_texts(texts()).filter(has_utf8) | frames() | st.text())
@example("NaN")
@example('["\\ud800", NaN]')
@example(r'"\ud800"')
def test_is_json(text):
    """is_json agrees with json on any text that has UTF-8."""
    assert is_json(text) == strictly_json(text)
