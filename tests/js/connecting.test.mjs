/** How the socket comes to be, and what happens when it doesn't. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Multiplex } from "../../channelsmultiplexer/static/channelsmultiplexer/multiplex.js";
import {
  V1,
  assertNothingLeft,
  clock,
  connected,
  event,
  log,
  multiplex,
  settled,
} from "./server.mjs";

test("no socket is made before the first stream", async () => {
  const { mux, network } = multiplex();
  await settled();
  assert.equal(network.sockets.length, 0);
  assert.equal(mux.readyState, mux.CLOSED);
});

test("streams share one socket", async () => {
  const { mux, network } = multiplex();
  mux.open("a");
  mux.stream("b");
  const socket = await network.accept();
  mux.open("c");
  await settled();
  assert.equal(network.sockets.length, 1);
  assert.deepEqual(
    socket.ops("open").map(({ path }) => path),
    ["a", "b", "c"],
  );
  mux.close();
});

test("v1 is offered before the protocols of the page", async () => {
  const { mux, network } = multiplex({ protocols: "token.abc" });
  mux.open("a");
  assert.deepEqual((await network.socket()).protocols, [V1, "token.abc"]);
  mux.close();
});

test("bare offers the protocols of the page alone", async () => {
  const { mux, network } = multiplex({ dialect: "bare", protocols: ["a", "b"] });
  mux.open("a");
  assert.deepEqual((await network.socket()).protocols, ["a", "b"]);
  mux.close();
});

test("an unknown dialect is refused", () => {
  assert.throws(() => new Multiplex("/ws/", { dialect: "v2" }), TypeError);
});

test("a relative url is of the page, with its scheme's WebSocket counterpart", async () => {
  globalThis.location = { href: "https://example.org/app/page?x=1" };
  const { mux, network } = multiplex({ url: "/ws/?y=2" });
  mux.open("a");
  assert.equal((await network.socket()).url, "wss://example.org/ws/?y=2");
  delete globalThis.location;
  mux.close();
});

test("an absolute http url becomes ws", async () => {
  const { mux, network } = multiplex({ url: "http://host:8000/ws/" });
  mux.open("a");
  assert.equal((await network.socket()).url, "ws://host:8000/ws/");
  mux.close();
});

test("a url function is called for each attempt", async (t) => {
  const timers = clock(t);
  let token = 0;
  const { mux, network } = multiplex({ url: async () => `ws://host/?token=${++token}` });
  mux.open("a");
  (await network.socket()).refuse();
  timers.tick(1000);
  await settled();
  assert.deepEqual(
    network.sockets.map(({ url }) => url),
    ["ws://host/?token=1", "ws://host/?token=2"],
  );
  mux.close();
});

test("a url function that rejects is called again later", async (t) => {
  const timers = clock(t);
  let calls = 0;
  const url = async () => {
    if (!calls++) throw new Error("no token");
    return "ws://host/";
  };
  const { mux, network } = multiplex({ url });
  const events = log(mux);
  mux.open("a");
  await settled();
  assert.deepEqual(events, [
    ["error", "connect"],
    ["reconnecting", 1006],
  ]);
  timers.tick(1000);
  assert.equal((await network.socket()).url, "ws://host/");
  mux.close();
});

test("a url function that never answers is called again, and no more listened to", async (t) => {
  const timers = clock(t);
  const answers = [];
  const url = () => new Promise((resolve) => answers.push(resolve));
  const { mux, network } = multiplex({ url });
  const reconnecting = event(mux, "reconnecting");
  mux.open("a");
  timers.tick(30000);
  assert.equal((await reconnecting).reason, "no answer");
  answers[0]("ws://host/late");
  timers.tick(1000);
  answers[1]("ws://host/");
  await network.accept();
  assert.deepEqual(network.sockets.map((socket) => socket.url), ["ws://host/"]);
  mux.close();
});

test("a url function that answers after close() makes no socket", async () => {
  let answer;
  const { mux, network } = multiplex({ url: () => new Promise((resolve) => (answer = resolve)) });
  mux.open("a");
  mux.close();
  answer("ws://host/");
  await settled();
  assert.equal(network.sockets.length, 0);
});

test("a socket that can't be constructed is told of and tried again", async (t) => {
  const timers = clock(t);
  let calls = 0;
  function WebSocket() {
    calls++;
    throw new DOMException("insecure", "SecurityError");
  }
  const { mux } = multiplex({ WebSocket });
  mux.open("a");
  const { detail } = await event(mux, "error");
  assert.equal(detail.error.name, "SecurityError");
  timers.tick(1000);
  await settled();
  assert.equal(calls, 2);
  mux.close();
});

test("a relative url without a page is an error, not a hang", async () => {
  const { mux } = multiplex({ url: "/ws/", shouldReconnect: () => false });
  const stream = mux.open("a");
  const { code, wasClean } = await event(stream, "close");
  assert.deepEqual([code, wasClean], [1006, false]);
  await assertNothingLeft(mux);
});

test("a server that doesn't select v1 ends the streams with 1002", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  const [events, muxEvents] = [log(stream), log(mux)];
  const socket = await network.socket();
  socket.accept("");
  await settled();
  assert.deepEqual(events, [
    ["error", 1002],
    ["close", 1002],
  ]);
  assert.deepEqual(muxEvents, [
    ["error", "dialect"],
    ["close", 1002],
  ]);
  assert.ok(socket.closed);
  await assertNothingLeft(mux);
});

test("a failed handshake in v1 hints at the dialect", async () => {
  const { mux, network } = multiplex();
  mux.open("a");
  const error = event(mux, "error");
  (await network.socket()).refuse();
  assert.match((await error).detail.message, /does the server speak channelsmultiplexer.v1/);
  await assertNothingLeft(mux);
});

test("a handshake without an answer is given up after 30 s", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const events = log(mux);
  mux.open("a");
  const socket = await network.socket();
  timers.tick(30000);
  assert.deepEqual(events, [["reconnecting", 1006]]);
  assert.ok(socket.closed);
  mux.close();
});

test("close() closes the streams, then the socket, with its code and reason", async () => {
  const { mux, stream, socket } = await connected();
  const events = [];
  stream.onclose = ({ code, reason, wasClean }) => events.push(["stream", code, reason, wasClean]);
  mux.onclose = ({ code, reason, wasClean }) => events.push(["mux", code, reason, wasClean]);
  mux.close(3001, "bye");
  await settled();
  assert.deepEqual(events, [
    ["stream", 3001, "bye", true],
    ["mux", 3001, "bye", true],
  ]);
  assert.deepEqual(socket.closed, { code: 3001, reason: "bye" });
  await assertNothingLeft(mux);
});

test("close() raises what a WebSocket's does, and changes nothing", async () => {
  const { mux, stream } = await connected();
  assert.throws(() => mux.close(1001), { name: "InvalidAccessError" });
  assert.throws(() => mux.close(1000, "é".repeat(62)), { name: "SyntaxError" });
  assert.equal(stream.readyState, stream.OPEN);
  mux.close();
});

test("close() twice is one close event", async () => {
  const { mux } = await connected();
  const events = log(mux);
  mux.close();
  mux.close();
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
});

test("a closed client starts anew with the next stream", async () => {
  const { mux, network } = await connected();
  mux.close();
  const stream = mux.open("again");
  await settled();
  await network.accept();
  assert.equal(network.sockets.length, 2);
  assert.equal(stream.readyState, stream.CONNECTING);
  assert.deepEqual(
    network.sockets[1].ops("open").map(({ stream }) => stream),
    ["1"],
  );
  mux.close();
});

test("what an abandoned socket says is ignored", async () => {
  const { mux, stream, socket } = await connected();
  mux.close();
  const events = log(stream);
  socket.say({ stream: "1", payload: 1 });
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
});
