"""
The browser module's own tests, by ``node --test``.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from requirement import missing, program

FOLDER = Path(__file__).parent / "js"


def test_node():
    """The module passes its tests, and there are some."""
    node = program("node")
    version = subprocess.check_output([node, "--version"], text=True)
    if tuple(map(int, version[1:].split("."))) < (20, 19):
        missing(f"needs Node 20.19 to load a .js file as a module, not {version}")
    command = [node, "--test", *map(str, sorted(FOLDER.glob("*.test.mjs")))]
    run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER)
    assert run.returncode == 0, run.stdout
    assert int(re.search(r"^# pass (\d+)$", run.stdout, re.MULTILINE)[1]) > 200


def test_one_file():
    """The module imports nothing and names no source map, as static storage needs."""
    path = "../channelsmultiplexer/static/channelsmultiplexer/multiplex.js"
    source = (FOLDER.parent / path).read_text()
    assert not re.search(r"^\s*import\b|\bimport\(|sourceMappingURL", source, re.M)
