"""
The browser module in Chromium, against Daphne: pages under a strict
Content-Security-Policy. What needs neither is in tests/js.
"""

from __future__ import annotations

import functools

import pytest

from chromium import chromium
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
    Return Daphne, serving what the pages need.
    """
    with DaphneServer("browser_application:application") as server:
        yield server


def run(browser, script, *args):
    """
    Run the body of an asynchronous function in the page, and return what it returns.
    """
    return browser.execute_script(f"return (async () => {{{script}}})()", *args)


@pytest.fixture
def page(browser, server):
    """
    Return what runs a script in a new page that has the names of browser/page.js.
    """
    browser.get(f"http://127.0.0.1:{server.port}/pages/nonce/")
    return functools.partial(run, browser)


def test_open(page):
    """A stream opens, and says so once."""
    script = """
        const stream = new Multiplex("/ws/open/").open("echo");
        const events = log(stream);
        const before = stream.readyState;
        await next(stream, "open");
        return [before, stream.readyState, events];
    """
    assert page(script) == [0, 1, [["open", False]]]


def test_echo(page):
    """Text comes back as it was sent, JSON or not, also when sent before `open`."""
    script = """
        const stream = new Multiplex("/ws/echo/").open("echo");
        const events = log(stream);
        for (const text of arguments[0]) stream.send(text);
        while (events.length < arguments[0].length + 1) await next(stream, "message");
        return events;
    """
    texts = ["Grüße", '{"a":[1,null]}', "", "null", "\0\u2028😀"]
    # Daphne doesn't send empty text, which travels in an envelope here.
    assert page(script, texts) == [["open", False], *(["message", t] for t in texts)]


@pytest.mark.parametrize("kind", ["Blob", "ArrayBuffer"])
def test_binary(page, kind):
    """Bytes of every kind come back as `binaryType` says, in their order with text."""
    script = """
        const stream = new Multiplex("/ws/binary/").open("echo");
        stream.binaryType = arguments[0].toLowerCase();
        await next(stream, "open");
        const events = log(stream);
        const bytes = new Uint8Array([0, 128, 255]);
        const sent = [new Blob(["A"]), "1", bytes.buffer, "2", bytes.subarray(1), "3",
          new Blob([]), "4", new DataView(bytes.buffer, 2)];
        for (const data of sent) stream.send(data);
        while (events.length < sent.length) await next(stream, "message");
        return Promise.all(events.map(([, data]) => legible(data)));
    """
    sent = [[65], "1", [0, 128, 255], "2", [128, 255], "3", [], "4", [255]]
    expected = [x if isinstance(x, str) else [kind, *x] for x in sent]
    assert page(script, kind) == expected


def test_large(page):
    """Half a megabyte comes back as it was sent, as bytes and as text."""
    script = """
        const stream = new Multiplex("/ws/large/").open("echo");
        const bytes = Uint8Array.from({ length: 2 ** 19 }, (_, n) => n % 251);
        const text = "ü".repeat(2 ** 18);
        stream.send(bytes);
        const first = await legible((await next(stream, "message")).data);
        stream.send(text);
        const second = (await next(stream, "message")).data;
        return [first.slice(1).every((byte, n) => byte === bytes[n]), first.length - 1,
          second === text];
    """
    assert page(script) == [True, 2**19, True]


def test_refusal(page):
    """A refused stream errs and closes, with the application's code and reason."""
    script = """
        const stream = new Multiplex("/ws/refusal/").open("refuses");
        const events = log(stream);
        await next(stream, "close");
        return [stream.readyState, events];
    """
    closed = ["close", 4401, "not a member", True]
    assert page(script) == [3, [["error"], closed]]


def test_close_by_server(page):
    """A stream closed by its application has the code and the reason; others go on."""
    script = """
        const mux = new Multiplex("/ws/close/");
        const [stream, other] = [mux.stream("closes"), mux.stream("echo")];
        const events = log(stream);
        stream.send([4001, "as you wish"]);
        await next(stream, "close");
        return [events, await other.request({ request_id: 1 })];
    """
    events = [["open", False], ["close", 4001, "as you wish", True]]
    assert page(script) == [events, {"request_id": 1}]


def test_fifty_streams(page):
    """Fifty streams are one connection to the server, and each has its own answer."""
    script = """
        const mux = new Multiplex("/ws/fifty/");
        const streams = Array.from({ length: 50 }, () => mux.stream("echo"));
        const answers = await Promise.all(streams.map(
          (stream, n) => stream.request({ n, request_id: "same" })));
        return [answers.map(({ n }) => n), await report("fifty")];
    """
    assert page(script) == [list(range(50)), {"sockets": 1, "streams": 50}]


OPEN_FIFTY = """
    const mux = new Multiplex("/ws/restart/", { backoff: () => 50 });
    globalThis.streams = Array.from({ length: 50 }, () => mux.open("echo"));
    globalThis.logs = streams.map(log);
    globalThis.slept = false;
    document.addEventListener("freeze", () => (slept = true));
    globalThis.reopened = Promise.all(streams.map(async (stream) => {
      await next(stream, "reopening");
      await next(stream, "open");
      stream.send("again");
      await next(stream, "message");
    }));
    await Promise.all(streams.map((stream) => next(stream, "open")));
"""


@pytest.mark.parametrize("state", ["active", "frozen"])
def test_restart(page, browser, server, state):
    """After a restart each stream comes back exactly once, in a sleeping tab too."""
    page(OPEN_FIFTY)
    browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": state})
    server.kill()
    server.start()
    browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    script = "await reopened; return [slept, await report('restart'), logs]"
    slept, counts, logs = page(script)
    assert slept == (state == "frozen")
    assert counts == {"sockets": 1, "streams": 50}
    lost = ["reopening", 1006, "", False]
    events = [["open", False], lost, ["open", True], ["message", "again"]]
    assert logs == [events] * 50


WAIT_AN_HOUR = """
    const mux = new Multiplex("/ws/wake/", { backoff: () => 3600000 });
    globalThis.stream = mux.open("echo");
    globalThis.events = log(stream);
    await next(stream, "open");
    mux.socket.close();
    await next(mux, "reconnecting");
"""

REOPENED = "if (stream.readyState !== 1) await next(stream, 'open'); return events"


def test_online(page, browser):
    """A socket that waits to be opened again is, when the browser comes online."""
    page(WAIT_AN_HOUR)
    browser.set_network_conditions(offline=True, latency=0, throughput=-1)
    browser.delete_network_conditions()
    events = page(REOPENED)
    assert events == [["open", False], ["reopening", 1000, "", True], ["open", True]]


def test_visible(page, browser):
    """A socket that waits to be opened again is, when the page becomes visible."""
    page(WAIT_AN_HOUR)
    tab = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.close()
    browser.switch_to.window(tab)
    events = page(REOPENED)
    assert events == [["open", False], ["reopening", 1000, "", True], ["open", True]]


def test_back(page, browser, server):
    """A page that is left and come back to has its streams again."""
    page("""
        const mux = new Multiplex("/ws/back/", { backoff: () => 0 });
        globalThis.stream = mux.open("echo");
        globalThis.events = log(stream);
        await next(stream, "open");
    """)
    browser.get(f"http://127.0.0.1:{server.port}/pages/self/")
    browser.back()
    events = page("if (events.length < 3) await next(stream, 'open'); return events")
    assert events == [["open", False], ["reopening", 1006, "", False], ["open", True]]


def test_nonce(page):
    """A policy that trusts nothing but a nonce lets page.js import by the map."""
    script = """
        await next(new Multiplex("/ws/nonce/").open("echo"), "open");
        // That policy is in force.
        const script = document.createElement("script");
        script.textContent = "globalThis.trusted = true";
        const violation = next(document, "securitypolicyviolation");
        document.head.append(script);
        return [(await violation).effectiveDirective, globalThis.trusted];
    """
    assert page(script) == ["script-src-elem", None]


def test_self(browser, server):
    """A policy that trusts the page's own files lets ours be imported by its URL."""
    browser.get(f"http://127.0.0.1:{server.port}/pages/self/")
    script = """
        const { Multiplex } = await import(document.querySelector("link").href);
        const stream = new Multiplex("/ws/self/").stream("visitor");
        for await (const visitor of stream) return visitor;
    """
    assert run(browser, script) == "Ann"


def test_worker(browser, server):
    """A worker has streams too."""
    browser.get(f"http://127.0.0.1:{server.port}/pages/self/")
    script = """
        const worker = new Worker("/static/worker.js", { type: "module" });
        return new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(message);
        });
    """
    assert run(browser, script) == "from a worker"


def test_session(page):
    """The session that a page has by its cookie is the streams' too."""
    script = """
        const stream = new Multiplex("/ws/session/").stream("visitor");
        return [document.cookie, (await next(stream, "message")).data];
    """
    # The cookie is none of the script's business.
    assert page(script) == ["", "Ann"]


def test_request(page):
    """A request resolves with its own answer."""
    script = """
        const stream = new Multiplex("/ws/request/").stream("echo");
        const answers = await Promise.all([1, 2].map((n) => stream.request({ n })));
        return answers.map(({ n }) => n);
    """
    assert page(script) == [1, 2]


def test_for_await(page):
    """A loop over a stream has every message, and ends with the stream."""
    script = """
        const numbers = [];
        for await (const { number } of new Multiplex("/ws/loop/").stream("ticker"))
          numbers.push(number);
        return numbers;
    """
    assert page(script) == [1, 2, 3]


SAME = """
    const socket = connect(arguments[0]);
    socket.binaryType = "arraybuffer";
    const events = [];
    // Not `wasClean`, which is false on a WebSocket that Daphne closes.
    const note = (event) => events.push([event.type, event.constructor.name, event.data,
      event.code, event.reason, event.target === socket, socket.readyState]);
    for (const type of ["open", "message", "error", "close"])
      socket[`on${type}`] = note;
    await next(socket, "open");
    %s
    await next(socket, "close");
    return Promise.all(events.map((event) => Promise.all(event.map(legible))));
"""

ECHO = """
    const sent = ["Grüße", '{"a":[1,null]}', new Uint8Array([0, 255]), new Blob(["b"])];
    for (const data of sent) socket.send(data);
    while (events.length < 1 + sent.length) await next(socket, "message");
    socket.close();
"""


@pytest.mark.parametrize(
    ("path", "script", "types"),
    [
        ("/text/", ECHO, ["open", *["message"] * 4, "close"]),
        ("/closes/", "socket.send('[4001]');", ["open", "close"]),
    ],
)
def test_same(page, path, script, types):
    """Code written for a WebSocket sees the same events from a stream."""
    script = SAME % script
    expected = page("const connect = (path) => new WebSocket(path);" + script, path)
    assert [event[0] for event in expected] == types
    mux = "const connect = (path) => new Multiplex('/ws/same/').open(path);"
    assert page(mux + script, path) == expected


def test_bare(page):
    """Text and bytes come back from a server that is talked to in bare, too."""
    script = """
        const stream = new Multiplex("/bare/", { dialect: "bare" }).open("echo");
        const events = log(stream);
        for (const data of ["one", new Uint8Array([2]), "[3]"]) stream.send(data);
        while (events.length < 4) await next(stream, "message");
        return Promise.all(events.slice(1).map(([, data]) => legible(data)));
    """
    assert page(script) == ["one", ["Blob", 2], "[3]"]


def test_bridge(page):
    """A page written for WebSocketBridge gets the messages of each stream."""
    script = """
        const bridge = new WebSocketBridge();
        bridge.connect("/bare/");
        const heard = new Promise((resolve) =>
          bridge.demultiplex("echo", (...message) => resolve(message)));
        bridge.stream("echo").send({ hello: "world" });
        return await heard;
    """
    assert page(script) == [{"hello": "world"}, "echo"]
