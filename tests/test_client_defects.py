"""
What was found wrong with three other clients, each shown absent here by a test.

A test that does so says it at the end of its docstring: ``(J1)``. J is jetsocket
0.1.0, N networkpype 1.1.5, A AsyncWebsocketStreamInterface 1.0.5.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DEFECTS = {
    "J1": "After a loss nothing is subscribed to again.",
    "J2": "Most of a burst is dropped, uncounted, though its reader is there.",
    "J3": "Heartbeats end healthy links.",
    "J4": "A heartbeat of ten seconds or less is refused.",
    "J5": "Links that are replaced stay open, and go on delivering.",
    "J6": "When the connection has ended for good its readers wait for ever.",
    "J7": "connect() returns without a connection, or overflows the stack.",
    "J8": "Delays never start anew, so that attempts run out over the days.",
    "J9": "Codes and statuses that are final are tried again for ever.",
    "J10": "What runs until the end returns after the first loss.",
    "J11": "One message of another shape silences all subscriptions.",
    "J12": "Fragments aren't put together, compressed ones least of all.",
    "J13": "What waits when the connection is closed is lost.",
    "J14": "Subscriptions to one channel take messages, and the end, from each other.",
    "J15": "A subscribe that failed succeeds the second time, asking nobody.",
    "J16": "Options do nothing, and documented numbers aren't there.",
    "J17": "Messages of the wrong type pass.",
    "J18": "What callbacks have handled is kept as well, for nobody.",
    "J19": "The limit of a message's size is another than the one that was set.",
    "J20": "The caller's TLS context is changed.",
    "J21": "Reading a backlog costs the square of its length, and unbounded memory.",
    "N1": "Nothing comes back after a loss, and a normal close is an error.",
    "N2": "Closing while another task receives is a TypeError there.",
    "N3": "A dead peer is a TypeError, and still connected.",
    "N4": "A server's ping is answered with nothing, which it takes for no answer.",
    "N5": "Rate limits don't hold for what is sent.",
    "N6": "Text that looks like a number, or null, is taken for one.",
    "N7": "Limits are polled for, and forget wrongly what has expired.",
    "N8": "The timeout of pings is their interval; options of the first count for all.",
    "N9": "The documented example doesn't run.",
    "A1": "A server that closes normally is never connected to again.",
    "A2": "Twenty messages that wait end a stream, without a word.",
    "A3": "Links that are replaced, or exited, leave their sockets open.",
    "A4": "A renewal loses what comes between the old link and the new.",
    "A5": "Readers can't be cancelled.",
    "A6": "Adding a handler while messages are handled loses one.",
    "A7": "The documented renewal raises, and makes a storm of connections.",
    "A8": "Exiting before anything else raises.",
    "A9": "Each message costs copies, and a look at each filter.",
}

CLAIM = re.compile(r"\(([JNA]\d+(?:, [JNA]\d+)*)\)\.$")


def claims():
    """
    Return the tests that claim each defect, by name.
    """
    found = {}
    for path in Path(__file__).parent.glob("test_client_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                claim = CLAIM.search(ast.get_docstring(node) or "")
                for defect in claim[1].split(", ") if claim else ():
                    found.setdefault(defect, []).append(node.name)
    return found


@pytest.mark.parametrize("defect", DEFECTS)
def test_shown_absent(defect):
    """Each defect is shown absent by at least one test."""
    assert claims().get(defect), f"no test ends with ({defect}): {DEFECTS[defect]}"


def test_known():
    """No test claims a defect that nobody found."""
    assert claims().keys() <= DEFECTS.keys()
