/** mux.open(): a stream used as a WebSocket. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { assertNothingLeft, clock, connected, event, log, multiplex, settled } from "./server.mjs";

test("a stream has the constants and the initial state of a WebSocket", () => {
  const { mux } = multiplex();
  const stream = mux.open("rooms/42/");
  assert.ok(stream instanceof EventTarget);
  assert.deepEqual([stream.CONNECTING, stream.OPEN, stream.CLOSING, stream.CLOSED], [0, 1, 2, 3]);
  const { readyState, url, protocol, extensions, binaryType, bufferedAmount, onopen } = stream;
  assert.deepEqual(
    [readyState, url, protocol, extensions, binaryType, bufferedAmount, onopen],
    [0, "rooms/42/", "", "", "blob", 0, null],
  );
  mux.close();
});

test("open names the path and the subprotocols, and `opened` has the chosen one", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("rooms/42/?since=9", ["a", "b"]);
  const socket = await network.accept();
  assert.deepEqual(socket.frames, [
    { op: "open", stream: "1", path: "rooms/42/?since=9", subprotocols: ["a", "b"] },
  ]);
  socket.opened("1", "b");
  assert.deepEqual([stream.readyState, stream.protocol], [1, "b"]);
  mux.close();
});

test("a single subprotocol may be a string", async () => {
  const { mux, network } = multiplex();
  mux.open("a", "p");
  assert.deepEqual((await network.accept()).frames[0].subprotocols, ["p"]);
  mux.close();
});

test("a path may be a function that promises one", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open(async () => "rooms/42/?token=1");
  assert.equal(stream.url, "");
  const socket = await network.accept();
  assert.equal(socket.frames[0].path, "rooms/42/?token=1");
  assert.equal(stream.url, "rooms/42/?token=1");
  mux.close();
});

test("a path function that rejects is told of and called again later", async (t) => {
  const timers = clock(t);
  let calls = 0;
  const { mux, network } = multiplex();
  const stream = mux.open(async () => {
    if (!calls++) throw new Error("no token");
    return "rooms/42/";
  });
  const events = log(stream);
  const socket = await network.accept();
  assert.deepEqual(events, [["error", "path"]]);
  timers.tick(1000);
  await settled();
  assert.deepEqual(
    socket.ops("open").map(({ path }) => path),
    ["rooms/42/"],
  );
  mux.close();
});

for (const [text, frame] of [
  ['{"a":1}', { payload: { a: 1 } }],
  ["null", { payload: null }],
  ["12", { payload: 12 }],
  [' [1,"x"] ', { payload: [1, "x"] }],
  ["hello", { text: "hello" }],
  ["", { text: "" }],
  ["{'a':1}", { text: "{'a':1}" }],
  ['a"\\\u2028', { text: 'a"\\\u2028' }],
])
  test(`send(${JSON.stringify(text)}) is ${JSON.stringify(frame)}`, async () => {
    const { mux, stream, socket } = await connected();
    stream.send(text);
    assert.deepEqual(socket.frames.at(-1), { stream: "1", ...frame });
    mux.close();
  });

test("JSON is spliced into the frame as it is written", async () => {
  const { mux, stream, socket } = await connected();
  let wire;
  socket.send = (data) => (wire = data);
  stream.send('{"n": 12345678901234567890, "x": 1.0}');
  assert.equal(wire, '{"stream":"1","payload":{"n": 12345678901234567890, "x": 1.0}}');
  mux.close();
});

test("send() converts what isn't text or bytes to text", async () => {
  const { mux, stream, socket } = await connected();
  stream.send({});
  assert.equal(socket.frames.at(-1).text, "[object Object]");
  mux.close();
});

for (const [name, data] of [
  ["an ArrayBuffer", new Uint8Array([7, 8]).buffer],
  ["a view", new Uint8Array([7, 8])],
  ["a part of a buffer", new Uint8Array([6, 7, 8, 9]).subarray(1, 3)],
  ["a DataView", new DataView(new Uint8Array([6, 7, 8]).buffer, 1)],
])
  test(`${name} is sent behind the stream's name`, async () => {
    const { mux, stream, socket } = await connected();
    stream.send(data);
    assert.deepEqual(socket.frames.at(-1), [1, 49, 7, 8]);
    mux.close();
  });

test("bytes are those at the time of send()", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  const bytes = new Uint8Array([1]);
  stream.send(bytes);
  bytes[0] = 2;
  assert.deepEqual((await network.accept()).frames.at(-1), [1, 49, 1]);
  mux.close();
});

test("what follows a Blob waits for its bytes, on that stream alone", async () => {
  const { mux, stream, socket } = await connected();
  const other = mux.open("other");
  await settled();
  const blob = new Blob(["x"]);
  let read;
  blob.arrayBuffer = () => new Promise((resolve) => (read = resolve));
  stream.send(blob);
  stream.send("after");
  other.send("beside");
  assert.deepEqual(socket.frames.slice(2), [{ stream: "2", text: "beside" }]);
  read(new Uint8Array([120]).buffer);
  await settled();
  assert.deepEqual(socket.frames.slice(3), [[1, 49, 120], { stream: "1", text: "after" }]);
  mux.close();
});

test("close() goes out behind a Blob", async () => {
  const { mux, stream, socket } = await connected();
  let read;
  const blob = new Blob();
  blob.arrayBuffer = () => new Promise((resolve) => (read = resolve));
  stream.send(blob);
  stream.close();
  assert.equal(socket.frames.length, 1);
  read(new ArrayBuffer(0));
  await settled();
  assert.deepEqual(socket.frames.slice(1), [
    [1, 49],
    { op: "close", stream: "1", code: 1000, reason: "" },
  ]);
  mux.close();
});

test("a Blob that can't be read is told of and holds nothing up", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  const blob = new Blob(["x"]);
  blob.arrayBuffer = () => Promise.reject(new DOMException("gone", "NotFoundError"));
  stream.send(blob);
  stream.send("after");
  await settled();
  assert.deepEqual(events, [["error", "blob"]]);
  assert.deepEqual(socket.frames.slice(1), [{ stream: "1", text: "after" }]);
  mux.close();
});

for (const [frame, data] of [
  [{ payload: { a: [1] } }, '{"a":[1]}'],
  [{ payload: null }, "null"],
  [{ payload: "x" }, '"x"'],
  [{ text: "x" }, "x"],
  [{ text: "" }, ""],
])
  test(`${JSON.stringify(frame)} arrives as the text ${JSON.stringify(data)}`, async () => {
    const { mux, stream, socket } = await connected();
    const next = event(stream, "message");
    socket.say({ stream: "1", ...frame });
    assert.equal((await next).data, data);
    mux.close();
  });

test("bytes arrive as a Blob by default", async () => {
  const { mux, stream, socket } = await connected();
  const next = event(stream, "message");
  socket.say([1, 49, 7, 8]);
  const { data } = await next;
  assert.ok(data instanceof Blob);
  assert.deepEqual([...new Uint8Array(await data.arrayBuffer())], [7, 8]);
  mux.close();
});

test("bytes arrive as an ArrayBuffer if asked for", async () => {
  const { mux, stream, socket } = await connected();
  stream.binaryType = "arraybuffer";
  const next = event(stream, "message");
  socket.say([1, 49]);
  assert.deepEqual((await next).data, new ArrayBuffer(0));
  mux.close();
});

test("message is a MessageEvent", async () => {
  const { mux, stream, socket } = await connected();
  const next = event(stream, "message");
  socket.say({ stream: "1", payload: 1 });
  assert.ok((await next) instanceof MessageEvent);
  mux.close();
});

test("handlers are called with the stream as this", async () => {
  const { mux, stream, socket } = await connected();
  const seen = [];
  stream.onmessage = function ({ data }) {
    seen.push(this === stream, data);
  };
  socket.say({ stream: "1", payload: 1 });
  stream.onmessage = null;
  socket.say({ stream: "1", payload: 2 });
  assert.deepEqual(seen, [true, "1"]);
  mux.close();
});

test("close() is answered by the server's closed, whose code and reason count", async () => {
  const { mux, stream, socket } = await connected();
  stream.close(4000, "enough");
  assert.deepEqual(socket.frames.at(-1), {
    op: "close",
    stream: "1",
    code: 4000,
    reason: "enough",
  });
  assert.equal(stream.readyState, stream.CLOSING);
  const closed = event(stream, "close");
  socket.end("1", 4001, "as you wish");
  const { code, reason, wasClean } = await closed;
  assert.deepEqual([code, reason, wasClean, stream.readyState], [4001, "as you wish", true, 3]);
  await assertNothingLeft(mux);
});

test("close() without a code is 1000", async () => {
  const { mux, stream, socket } = await connected();
  stream.close();
  assert.deepEqual(socket.frames.at(-1), { op: "close", stream: "1", code: 1000, reason: "" });
  mux.close();
});

for (const code of [0, 999, 1001, 1005, 1006, 2999, 5000, 70000, NaN, null, "x"])
  test(`close(${code}) raises InvalidAccessError and changes nothing`, async () => {
    const { mux, stream, socket } = await connected();
    assert.throws(() => stream.close(code), { name: "InvalidAccessError", code: 15 });
    assert.equal(stream.readyState, stream.OPEN);
    assert.equal(socket.ops("close").length, 0);
    mux.close();
  });

for (const code of [undefined, 1000, 3000, 4999, "4000"])
  test(`close(${code}) is allowed`, async () => {
    const { mux, stream } = await connected();
    stream.close(code);
    assert.equal(stream.readyState, stream.CLOSING);
    mux.close();
  });

test("a reason over 123 bytes of UTF-8 raises SyntaxError, one of 123 is sent", async () => {
  const { mux, stream, socket } = await connected();
  const reason = "é".repeat(61) + "e";
  assert.throws(() => stream.close(1000, reason + "e"), { name: "SyntaxError", code: 12 });
  stream.close(1000, reason);
  assert.equal(socket.frames.at(-1).reason, reason);
  mux.close();
});

test("a closed stream still refuses a bad code", async () => {
  const { mux, stream } = await connected();
  mux.close();
  assert.throws(() => stream.close(1), { name: "InvalidAccessError" });
});

test("send() after close() is dropped without a word", async () => {
  const { mux, stream, socket } = await connected();
  stream.close();
  const { length } = socket.frames;
  stream.send("late");
  stream.send(new Blob(["late"]));
  await settled();
  assert.equal(socket.frames.length, length);
  mux.close();
});

test("a refusal is error, then close", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  const events = log(stream);
  (await network.accept()).end("1", 4403, "not a member");
  await settled();
  assert.deepEqual(events, [
    ["error", 4403],
    ["close", 4403],
  ]);
  await assertNothingLeft(mux);
});

test("an end after opened is close alone, with its reason", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  const closed = event(stream, "close");
  socket.end("1", 4001, "moved");
  assert.equal((await closed).reason, "moved");
  assert.deepEqual(events, [["close", 4001]]);
  await assertNothingLeft(mux);
});

test("close is a CloseEvent where there is such a class", async () => {
  globalThis.CloseEvent = class CloseEvent extends Event {
    constructor(type, { code, reason, wasClean }) {
      super(type);
      Object.assign(this, { code, reason, wasClean });
    }
  };
  const { mux, stream } = await connected();
  const closed = event(stream, "close");
  mux.close(4000, "x");
  const { constructor, code, reason, wasClean } = await closed;
  assert.deepEqual([constructor, code, reason, wasClean], [CloseEvent, 4000, "x", true]);
  delete globalThis.CloseEvent;
});

test("bufferedAmount counts what waits here and what waits in the socket", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  stream.send("é");
  stream.send(new Uint8Array(3));
  stream.send(new Blob(["four"]));
  assert.equal(stream.bufferedAmount, 2 + 3 + 4);
  const socket = await network.accept();
  await settled();
  assert.equal(stream.bufferedAmount, 0);
  socket.bufferedAmount = 5;
  assert.equal(stream.bufferedAmount, 5);
  mux.close();
});

test("bufferedAmount is zero once the stream is closed", async () => {
  const { mux } = multiplex();
  const stream = mux.open("a");
  stream.send("never");
  mux.close();
  assert.equal(stream.bufferedAmount, 0);
});

test("frames and bytes are counted as they travel", async () => {
  const { mux, stream, socket } = await connected();
  stream.send("1");
  stream.send(new Uint8Array(3));
  socket.say({ stream: "1", payload: "é" });
  const { framesSent, bytesSent, framesReceived, bytesReceived } = stream;
  assert.deepEqual(
    [framesSent, bytesSent, framesReceived, bytesReceived],
    [2, '{"stream":"1","payload":1}'.length + 5, 1, '{"stream":"1","payload":"é"}'.length + 1],
  );
  mux.close();
});

test("an error of the server is told on the client and on its stream", async () => {
  const { mux, stream, socket } = await connected();
  const other = mux.open("other");
  const [events, others, muxEvents] = [log(stream), log(other), log(mux)];
  socket.say({ op: "error", stream: "1", code: "frame-too-large", message: "over 1 MiB" });
  const told = [["error", "frame-too-large"]];
  assert.deepEqual([events, others, muxEvents], [told, [], told]);
  assert.equal(stream.readyState, stream.OPEN);
  mux.close();
});

for (const code of ["invalid-envelope", "stream-in-use", "unknown-stream"])
  for (const state of ["CONNECTING", "CLOSING"])
    test(`an open answered with ${code} ends the stream, ${state}: no closed will come`, async () => {
      const { mux, network } = multiplex();
      const stream = mux.open("x".repeat(9000));
      const socket = await network.accept();
      if (state === "CLOSING") stream.close();
      assert.equal(stream.readyState, stream[state]);
      const events = log(stream);
      socket.say({ op: "error", stream: "1", code, message: "expected a shorter path" });
      socket.say({ op: "error", stream: "1", code: "unknown-stream", message: "of data" });
      await settled();
      assert.deepEqual(events, [["error", 1006], ["close", 1006]]);
      assert.equal(mux.streams.size, 0);
      mux.close();
    });
