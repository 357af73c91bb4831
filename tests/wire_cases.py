"""
The cases of vectors/envelope.json, whose about says how to read them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

__all__ = ["cases"]

VECTORS = Path(__file__).parent / "vectors" / "envelope.json"


def cases(section, *keys):
    """
    Return what to parametrize a test with: the cases of a section that have the keys.
    """
    return [
        pytest.param(case, id=case["name"])
        for case in expand(json.loads(VECTORS.read_text("utf-8")))[section]
        if case.keys() >= set(keys)
    ]


def expand(value):
    """
    Return a value with its generators replaced by what they generate.
    """
    match value:
        case {"repeat": [str(text), int(times)]}:
            return text * times
        case {"join": list(parts)}:
            return "".join(map(expand, parts))
        case {"hex": digits, **rest}:
            return {**expand(rest), "hex": bytes.fromhex(expand(digits))}
        case dict():
            return {key: expand(item) for key, item in value.items()}
        case list():
            return [expand(item) for item in value]
    return value
