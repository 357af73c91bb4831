"""
The demo in a real browser, against a server that dies and returns.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from requirement import program

TESTPROJECT = Path(__file__).parent.parent / "testproject"


class Server:
    """
    The demo under Daphne, on a free port that it returns to.
    """

    def __init__(self, database, redis_url=""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._environment = {
            **os.environ,
            "DEMO_DATABASE": str(database),
            "DJANGO_SETTINGS_MODULE": "demo.settings",
            # The package that is tested here, not another one.
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONUNBUFFERED": "1",
            "REDIS_URL": redis_url,
        }
        self._run("django", "migrate", "--verbosity=0").communicate()

    def start(self):
        """
        Start it and wait until it listens.
        """
        self._process = self._run("daphne", f"-p{self.port}", "demo.asgi:application")
        output = ""
        for line in self._process.stdout:
            output += line
            if "Listening on" in line:
                return
        pytest.fail(output)

    def kill(self):
        """
        Kill it, and return how many WebSockets it has had.
        """
        self._process.kill()
        return self._process.communicate()[0].count("WSCONNECT /ws/")

    def _run(self, module, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=TESTPROJECT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "demo.sqlite3")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "google-chrome")
    service = webdriver.ChromeService(program("chromedriver"))
    arguments = [
        "headless=new",
        # Its sandbox needs a user who isn't root, which CI often is.
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ]
    for argument in arguments:
        options.add_argument(f"--{argument}")
    browser = webdriver.Chrome(options, service)
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, server):
    """
    The page in a tab of its own, connected and in the lobby.
    """
    first, *_ = browser.window_handles
    open_page(browser, server)
    yield browser
    for window in browser.window_handles:
        if window != first:
            browser.switch_to.window(window)
            browser.close()
    browser.switch_to.window(first)


def open_page(browser, server):
    """
    Open the page in a new tab, and wait until it is connected and in the lobby.
    """
    browser.switch_to.new_window("tab")
    browser.get(f"http://127.0.0.1:{server.port}/")
    wait_for(browser, '#rooms [data-state="open"]')


def wait_for(browser, selector, count=1):
    """
    Wait until so many elements match, and return them.
    """

    def matching(browser):
        elements = browser.find_elements(By.CSS_SELECTOR, selector)
        return len(elements) == count and (elements or True)

    return WebDriverWait(browser, 20, 0.05).until(matching, f"{count} {selector}")


def submit(browser, form, text):
    """
    Send a text by a form.
    """
    browser.find_element(By.CSS_SELECTOR, f"{form} input").send_keys(text)
    browser.find_element(By.CSS_SELECTOR, f"{form} button").click()


def test_come_back(page, server):
    """
    Two tabs have three rooms each on one socket each; the server is killed and
    started again, and all six are back without a reload.
    """
    tabs = [page.current_window_handle]
    open_page(page, server)
    tabs.append(page.current_window_handle)
    for tab in tabs:
        page.switch_to.window(tab)
        submit(page, "#join-form", "kitchen")
        submit(page, "#join-form", "garden")
        wait_for(page, '#rooms [data-state="open"]', 3)
        page.execute_script("window.loadedOnce = true")
    assert server.kill() == 2
    for tab in tabs:
        page.switch_to.window(tab)
        wait_for(page, '[data-socket="reconnecting"]')
    server.start()
    for tab in tabs:
        page.switch_to.window(tab)
        wait_for(page, '#rooms [data-state="open"]', 3)
        assert page.execute_script("return window.loadedOnce")
    assert server.kill() == 2
    server.start()


def test_cut(page):
    """What is said while the socket is cut is heard once it is back."""
    page.find_element(By.ID, "cut").click()
    wait_for(page, '[data-socket="reconnecting"]')
    submit(page, "#rooms form", "Hello")
    wait_for(page, '[data-socket="open"]')
    wait_for(page, "#rooms li b")


def test_leave(page):
    """A room that is left goes, and the others stay."""
    submit(page, "#join-form", "kitchen")
    wait_for(page, '#rooms [data-state="open"]', 2)
    page.find_element(By.CSS_SELECTOR, '[aria-label="Leave lobby"]').click()
    wait_for(page, "#rooms article")
    assert wait_for(page, "#rooms h3")[0].text == "kitchen"


def test_refused_room(page):
    """A room that refuses says why, and the others stay."""
    submit(page, "#join-form", "staff")
    notice = wait_for(page, '#rooms [data-state="refused"] .notice p')[0]
    assert notice.text == "Refused with 4403: This room is for staff."
    wait_for(page, '#rooms [data-state="open"]')


def test_prices_without_redis(page):
    """Without Redis the card of the prices says what is missing."""
    box = page.find_element(By.ID, "prices")
    wait_for(page, '#prices[data-empty*="REDIS_URL"]')
    assert not box.find_elements(By.TAG_NAME, "table")


def test_prices(browser, redis, tmp_path):
    """Prices come in a table, by name, with the change since the last."""
    server = Server(tmp_path / "demo.sqlite3", redis.url)
    server.start()
    try:
        open_page(browser, server)
        wait_for(browser, 'main > [data-kind="prices"][data-state="open"]')
        for name, price in [("tea", 2), ("cocoa", 8), ("anise", "?"), ("tea", 1.95)]:
            redis.call("PUBLISH", f"prices.{name}", price)
        wait_for(browser, "#prices .down")
        rows = [row.text for row in wait_for(browser, "#prices tbody tr", 3)]
        assert rows == ["anise ?", "cocoa 8", "tea 1.95 -2.50 %"]
    finally:
        browser.close()
        browser.switch_to.window(browser.window_handles[0])
        server.kill()


def test_console(page):
    """The browser has nothing to say against the page, nor has its CSP."""
    # Reading empties it, of the other tests' losses too.
    page.get_log("browser")
    page.refresh()
    wait_for(page, '#rooms [data-state="open"]')
    assert page.get_log("browser") == []
