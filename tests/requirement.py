"""
What a test needs that pip doesn't install.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["missing", "program"]


def program(*names: str) -> str:
    """
    Return the path of the first program of *names* that is installed.

    Skips the test if none is; fails it where ``CI`` is set, since CI installs them.
    """
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    missing(f"needs {' or '.join(names)}, which is not installed")


def missing(reason: str) -> NoReturn:
    """
    Skip the test, or fail it in CI.
    """
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
