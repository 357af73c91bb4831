"""
What the documentation shows runs.
"""

from __future__ import annotations

from sybil import Sybil
from sybil.parsers.rest import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    pattern="*.rst",
    # tests/test_tutorial.py follows it.
    exclude="tutorial/*",
).pytest()
