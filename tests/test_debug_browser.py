"""
The debug page in Chromium, under a strict Content-Security-Policy.
"""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from chromium import TIMEOUT, chromium
from daphne_server import DaphneServer


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """
    Return Chromium, with a profile of its own.
    """
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server():
    """
    Return Daphne, serving the page.
    """
    with DaphneServer("debug_application:application") as server:
        yield server


@pytest.fixture(params=["", "?self"], ids=["nonce", "self"])
def page(browser, server, request):
    """
    Return Chromium with the page, its scripts and styles trusted in either way.
    """
    browser.get(f"http://127.0.0.1:{server.port}/multiplexer/{request.param}")
    wait(browser, "return document.querySelector('#open button') !== null")
    return browser


def wait(browser, script, *args):
    """
    Wait until a script returns something true, and return it.
    """
    waiting = WebDriverWait(browser, TIMEOUT, poll_frequency=0.02)
    return waiting.until(lambda browser: browser.execute_script(script, *args))


def open_stream(page, path):
    """
    Have the console open a stream.
    """
    url, name = page.find_elements(By.CSS_SELECTOR, "#open input")
    for field, text in ((url, "/ws/"), (name, path)):
        field.clear()
        field.send_keys(text)
    page.find_element(By.CSS_SELECTOR, "#open button").click()


def lines(page, count):
    """
    Return the lines of the console's log, once there are that many.
    """
    script = """
        const lines = [...document.querySelectorAll("#log li")];
        return lines.length >= arguments[0] && lines.map((line) =>
          [line.className, line.textContent]);
    """
    return wait(page, script, count)


def test_console(page):
    """The console opens a stream, sends to it, shows what comes, and closes it."""
    open_stream(page, "text")
    lines(page, 2)
    page.find_element(By.TAG_NAME, "textarea").send_keys("<b>Grüße</b>\n")
    lines(page, 4)
    page.find_element(By.ID, "close").click()
    assert lines(page, 5) == [
        ["note", "opening text on /ws/"],
        ["note", "open"],
        ["sent", "<b>Grüße</b>"],
        ["received", "<b>Grüße</b>"],
        ["note", "closed with 1000"],
    ]


def test_refusal(page):
    """The console shows why a stream is refused."""
    open_stream(page, "refuses")
    assert ["note", "closed with 4403"] in lines(page, 3)


def test_refresh(page):
    """Refreshing shows the console's own stream, which goes on."""
    open_stream(page, "echo/<script>/")
    lines(page, 2)
    page.find_element(By.ID, "refresh").click()
    script = "return document.getElementById('live').textContent.includes(arguments[0])"
    assert wait(page, script, "echo/<script>/")
    assert page.find_element(By.ID, "state").text == "open"


def test_styled(page):
    """The page's style is in force, and nothing of the page is against the policy."""
    colour = "return getComputedStyle(document.body).display"
    assert page.execute_script(colour) == "grid"
    assert [
        entry for entry in page.get_log("browser") if "favicon" not in entry["message"]
    ] == []
