"""
What the documentation shows beside Python, which Sybil runs.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from requirement import program

DOCS = Path(__file__).parent.parent / "docs"

BLOCK = re.compile(
    r"^( *)\.\. code-block:: javascript\n(?:\1 +:.*\n)*\n((?:(?:\1 +.*)?\n)+)",
    re.MULTILINE,
)

# The tutorial is followed to the letter elsewhere.
PAGES = sorted(
    page.relative_to(DOCS).as_posix()
    for page in DOCS.rglob("*.rst")
    if "tutorial" not in page.parts and BLOCK.search(page.read_text())
)


@pytest.mark.parametrize("page", PAGES)
def test_javascript(page, tmp_path):
    """Each block of JavaScript is a module, on top of what the page has by then."""
    for number, (_, block) in enumerate(BLOCK.findall((DOCS / page).read_text())):
        module = tmp_path / f"{number}.mjs"
        module.write_text(textwrap.dedent(block))
        command = [program("node"), "--check", str(module)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert run.returncode == 0, run.stderr


def test_pages():
    """The pages that front-end developers read are among them."""
    assert {"howto/moving.rst", "reference/browser.rst"} <= set(PAGES)
