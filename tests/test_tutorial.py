"""
The tutorial, followed to the letter. Each test goes on where the one before has ended,
or follows the pages before, too.
"""

from __future__ import annotations

import re
from importlib.metadata import metadata

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from chromium import TIMEOUT, chromium
from tutorial import PAGES, Reader, blocks

# It starts a project, five servers and a browser.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with Reader(tmp_path_factory.mktemp("tutorial")) as reader:
        yield reader


@pytest.fixture(scope="module")
def browser_process(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(browser_process):
    # The page of the test before would connect to each server that is started.
    browser_process.get("about:blank")
    return browser_process


def wait_text(browser, selector, pattern):
    """
    Wait until the text of an element matches, and return it.
    """

    def matching(browser):
        text = browser.find_element(By.CSS_SELECTOR, selector).text
        return re.search(pattern, text) and text

    wait = WebDriverWait(browser, TIMEOUT, 0.02)
    return wait.until(matching, f"{pattern!r} in {selector}")


def enter(browser, name, room="lobby"):
    """
    Enter a room by the page's form.
    """
    for field, value in {"name": name, "room": room}.items():
        element = browser.find_element(By.NAME, field)
        element.clear()
        element.send_keys(value)
    browser.find_element(By.CSS_SELECTOR, "#enter button").click()


def say(browser, text):
    """
    Say something in the first room of the page.
    """
    browser.find_element(By.NAME, "text").send_keys(text)
    browser.find_element(By.CSS_SELECTOR, "section button").click()


def test_install():
    """What is to be installed is this package, and extras that it has."""
    (line,) = re.findall("^pip install .*", blocks("stream")[0][2], re.M)
    name, extras = re.fullmatch(r'pip install "(\w+)\[([\w,]+)\]"', line).groups()
    package = metadata(name)
    assert set(extras.split(",")) <= set(package.get_all("Provides-Extra"))


def test_stream(reader):
    """The site starts, and the shell sees the first stream."""
    reader.follow("stream")


def test_page(reader, browser):
    """The page shows the metrics."""
    reader.follow("page")
    browser.get(reader.url)
    wait_text(browser, "#socket", "^open$")
    wait_text(browser, "#tasks", r"^\d+$")


def test_rooms(reader, browser):
    """People in two tabs hear one another in a room, and each tab has one socket."""
    reader.follow("rooms")
    browser.get(reader.url)
    enter(browser, "Ada")
    wait_text(browser, ".state", "You are in")
    browser.switch_to.new_window("tab")
    browser.get(reader.url)
    enter(browser, "Bob")
    wait_text(browser, ".state", "You are in")
    say(browser, "Hello")
    for window in browser.window_handles:
        browser.switch_to.window(window)
        wait_text(browser, "section li", "^Bob: Hello$")
    log = reader.running["manage.py runserver"].take_log()
    assert log.count("WebSocket CONNECT /ws/") == 2


@pytest.mark.parametrize(
    ("room", "state"),
    [
        ("the lobby", "^Closed with 4404: "),
        ("x" * 33, "^Closed with 4403: a room has 32 letters at most$"),
    ],
)
def test_refused_room(reader, browser, room, state):
    """A room that can't be entered says why."""
    reader.follow("rooms")
    browser.get(reader.url)
    enter(browser, "Ada", room)
    wait_text(browser, ".state", state)


def test_loss(reader, browser):
    """The page comes back by itself, and what was said meanwhile is said then."""
    reader.follow("rooms")
    browser.get(reader.url)
    enter(browser, "Ada")
    wait_text(browser, ".state", "You are in")
    reader.stop()
    wait_text(browser, ".state", "You will be back")
    wait_text(browser, "#socket", "^reconnecting$")
    say(browser, "Is anybody there?")
    reader.start()
    wait_text(browser, "section li", "^Ada: Is anybody there")
    wait_text(browser, "#socket", "^open$")


def test_program(reader, browser):
    """The robot answers in the page."""
    reader.follow("program")
    browser.get(reader.url)
    enter(browser, "Ada")
    wait_text(browser, ".state", "You are in")
    say(browser, "cpu?")
    wait_text(browser, "section li:last-child", r"^robot: It is at [\d.]+ %\.$")
    reader.running["robot.py"].wait_log("Ada says cpu")


def test_tests(reader):
    """The site's tests and checks pass."""
    reader.follow(PAGES[-1])
