"""
Chromium, without a window.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from requirement import program

__all__ = ["TIMEOUT", "chromium"]

FLAGS = [
    "--headless=new",
    # Chromium has no sandbox for root.
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Containers have little shared memory.
    "--disable-dev-shm-usage",
]

# Seconds that a page or a script may take on a slow machine.
TIMEOUT = 30


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """
    Run Chromium with a new profile in a folder.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "google-chrome")
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    service = webdriver.ChromeService(program("chromedriver"))
    with pytest.MonkeyPatch.context() as patch:
        # The driver is on this machine, and selenium would ask a proxy for it.
        patch.setenv("no_proxy", "localhost,127.0.0.1")
        browser = webdriver.Chrome(options, service)
    with browser:
        browser.set_page_load_timeout(TIMEOUT)
        browser.set_script_timeout(TIMEOUT)
        yield browser
