"""
What Hypothesis makes frames of, good and hostile, and how many.
"""

from __future__ import annotations

import json
import os

from hypothesis import settings
from hypothesis import strategies as st

from channelsmultiplexer import control

__all__ = [
    "controls",
    "frames",
    "json_texts",
    "json_values",
    "stream_names",
    "texts",
]

# No deadline: a slow machine is no defect. CI gets the same examples every time.
settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "local")

# Keys that mean something, and some that don't; one has no UTF-8.
KEYS = ["stream", "payload", "text", "op", "path", "code", "reason", "x", "\ud800"]

# Keys that go together.
FRAMES = [
    ["stream", "payload"],
    ["stream", "text"],
    ["op"],
    ["op", "stream", "path"],
    ["op", "stream", "code", "reason"],
]

# What a key is likely to carry.
USUAL_VALUES = {
    "stream": ['"1"', '"a"', '"\u20ac"', '""'],
    "payload": ["1", '{"a": [1.50]}', "null"],
    "text": ['""', '"a"', r'"\ud800"'],
    "op": ['"ping"', '"open"', '"close"', '"hello"', '"credit"', r'"\ud800"'],
    "path": ['"chat/"'],
    "code": ["1000", "4999", "0"],
    "reason": ['"bye"'],
}

# What stands in a frame and is no JSON, or not everybody's.
NO_VALUES = [
    "",
    "NaN",
    "-Infinity",
    "01",
    "1.",
    "'a'",
    '"\\x"',
    '"\n"',
    '"\\ud800"',
    "]",
]


def texts():
    """
    Any text that a Python program can hold, lone surrogates included.
    """
    return st.text(st.characters())


def stream_names():
    """
    Any name that a stream can have.
    """
    names = st.text(min_size=1, max_size=255)
    return names.filter(lambda name: len(name.encode()) <= 255)


def json_values(strings=None):
    """
    Any value that JSON can carry.
    """
    strings = st.text() if strings is None else strings
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | strings,
        lambda values: st.lists(values) | st.dictionaries(strings, values),
        max_leaves=10,
    )


def json_texts(strings=None):
    """
    JSON, with the whitespace and the escapes that its writer likes.
    """
    return st.builds(
        json.dumps,
        json_values(strings),
        ensure_ascii=st.booleans(),
        indent=st.sampled_from([None, 1, "\t"]),
        separators=st.sampled_from([(",", ":"), (" , ", " : ")]),
    )


@st.composite
def frames(draw):
    """
    Text that is nearly a frame: keys that repeat or carry anything; perhaps cut short.
    """
    anything = json_texts(texts()) | st.sampled_from(NO_VALUES)
    more = st.lists(st.sampled_from(KEYS), max_size=2)
    # Or little would be left of the frame.
    rarely = st.sampled_from([False] * 6 + [True])
    pairs = []
    for key in draw(st.permutations(draw(st.sampled_from(FRAMES)) + draw(more))):
        usual = st.sampled_from(USUAL_VALUES.get(key, ["0"]))
        value = draw(anything if draw(rarely) else usual)
        pairs.append(f"{json.dumps(key)}:{value}")
    frame = f"{{{','.join(pairs)}}}"
    return frame[: draw(st.integers(0, len(frame)))] if draw(rarely) else frame


def controls():
    """
    Any control frame that the protocol has.
    """
    text = texts()
    return st.one_of(
        st.builds(
            control.Hello,
            heartbeat=st.floats(0, 1e9),
            max_streams=st.integers(0, 2**31),
        ),
        st.builds(
            control.Open,
            stream=text,
            path=text,
            subprotocols=st.lists(text, max_size=3),
        ),
        st.builds(control.Opened, stream=text, subprotocol=st.none() | text),
        st.builds(
            control.Close,
            stream=text,
            code=st.integers(1000, 4999),
            reason=st.text(st.characters(), max_size=123),
        ),
        st.builds(control.Closed, stream=text, code=st.integers(0, 4999), reason=text),
        st.builds(control.Error, stream=st.none() | text, code=text, message=text),
        st.just(control.Ping()),
        st.just(control.Pong()),
    )
