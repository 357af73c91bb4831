/** Frames that cross on the wire. Each stream ends with one close, and nothing is left. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertNothingLeft,
  clock,
  connected,
  event,
  log,
  multiplex,
  reconnected,
  settled,
} from "./server.mjs";

test("open then close at once: nothing goes out", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  const events = log(stream);
  stream.close();
  assert.equal(stream.readyState, stream.CLOSING);
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
  assert.equal(network.sockets.length, 0);
  await assertNothingLeft(mux);
});

test("open then close at once on an open socket: nothing goes out", async () => {
  const { mux, socket } = await connected();
  const stream = mux.open("b");
  const events = log(stream);
  stream.close(4000, "never mind");
  await settled();
  assert.deepEqual(events, [["close", 4000]]);
  assert.equal(socket.frames.length, 1);
  await assertNothingLeft(mux);
});

test("close between open and opened: the acceptance is ignored", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  const events = log(stream);
  const socket = await network.accept();
  stream.close();
  assert.deepEqual(socket.frames.at(-1), { op: "close", stream: "1", code: 1000, reason: "" });
  socket.opened("1");
  socket.say({ stream: "1", payload: 1 });
  socket.end("1", 1000);
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
  await assertNothingLeft(mux);
});

test("close crossing close: one close, with the server's code", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  stream.close();
  socket.end("1", 4001);
  socket.end("1", 1000);
  await settled();
  assert.deepEqual(events, [["close", 4001]]);
  await assertNothingLeft(mux);
});

test("close crossing a code that means later: the stream stays closed", async (t) => {
  const timers = clock(t);
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  stream.close();
  socket.end("1", 1013);
  timers.tick(100000);
  await settled();
  assert.deepEqual(events, [["close", 1013]]);
  assert.equal(socket.ops("open").length, 1);
  mux.close();
});

test("close() twice sends one close", async () => {
  const { mux, stream, socket } = await connected();
  stream.close();
  stream.close(4000);
  assert.equal(socket.ops("close").length, 1);
  await assertNothingLeft(mux);
});

test("close() in the close event does nothing", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  stream.onclose = () => stream.close();
  socket.end("1");
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
  await assertNothingLeft(mux);
});

test("data behind closed is dropped", async () => {
  const { mux, stream, socket } = await connected();
  const [events, muxEvents] = [log(stream), log(mux)];
  socket.end("1");
  socket.say({ stream: "1", payload: 1 });
  socket.say([1, 49, 1]);
  socket.opened("1");
  await settled();
  assert.deepEqual([events, muxEvents], [[["close", 1000]], []]);
  await assertNothingLeft(mux);
});

test("data sent when closed is on its way is dropped by the server, and isn't sent again", async () => {
  const { mux, stream, socket } = await connected();
  stream.send("crossing");
  socket.end("1", 1000);
  stream.send("late");
  await settled();
  assert.deepEqual(socket.ops(undefined), [{ stream: "1", text: "crossing" }]);
  await assertNothingLeft(mux);
});

test("open, close, open of one path: two streams that don't hear one another", async () => {
  const { mux, stream: first, socket } = await connected();
  first.close();
  const second = mux.open("echo");
  const [firsts, seconds] = [log(first), log(second)];
  await settled();
  assert.deepEqual(
    socket.ops("open").map(({ stream }) => stream),
    ["1", "2"],
  );
  socket.opened("2");
  socket.say({ stream: "1", payload: "late" });
  socket.end("1", 1000);
  socket.say({ stream: "2", payload: "new" });
  await settled();
  assert.deepEqual(firsts, [["close", 1000]]);
  assert.deepEqual(seconds, [["open"], ["message", '"new"']]);
  await assertNothingLeft(mux);
});

test("open, close, open before there is a socket: one opening", async () => {
  const { mux, network } = multiplex();
  mux.open("echo").close();
  const second = mux.open("echo");
  const socket = await network.accept();
  assert.deepEqual(socket.frames.length, 1);
  socket.opened("1");
  assert.equal(second.readyState, second.OPEN);
  await assertNothingLeft(mux);
});

test("refusal behind pipelined data: the data is gone, and told by close", async () => {
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  stream.send("early");
  const events = log(stream);
  const socket = await network.accept();
  assert.deepEqual(socket.frames[1], { stream: "1", text: "early" });
  socket.end("1", 4403, "no");
  await settled();
  assert.deepEqual(events, [
    ["error", 4403],
    ["close", 4403],
  ]);
  await assertNothingLeft(mux);
});

test("over max_streams behind pipelined data: the retry says it is a reopening", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  stream.send("early");
  const socket = await network.accept();
  socket.end("1", 4429);
  stream.send("waiting");
  timers.tick(1000);
  await settled();
  const open = event(stream, "open");
  socket.opened("2");
  assert.equal((await open).reopened, true);
  const texts = socket.ops(undefined).map(({ stream, text }) => [stream, text]);
  assert.deepEqual(texts, [
    ["1", "early"],
    ["2", "waiting"],
  ]);
  mux.close();
});

test("a hundred opens in one go, answered in any order, each get their own", async () => {
  const { mux, network } = multiplex();
  const streams = Array.from({ length: 100 }, (_, n) => mux.stream(`rooms/${n}/`));
  const socket = await network.accept();
  const opens = socket.ops("open");
  assert.equal(opens.length, 100);
  // 37 and 100 have no common factor: every index once, out of order.
  for (let n = 0; n < 100; n++) socket.opened(opens[(n * 37) % 100].stream);
  const got = streams.map((stream) => event(stream, "message"));
  for (const { stream, path } of opens.reverse()) socket.say({ stream, payload: path });
  assert.deepEqual(
    (await Promise.all(got)).map(({ data }) => data),
    streams.map(({ url }) => url),
  );
  await assertNothingLeft(mux);
});

test("socket loss before opened: the stream is opened on the next, without its lost data", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  stream.send("early");
  const events = log(stream);
  const socket = await network.accept();
  const next = await reconnected(timers, { network, socket });
  next.opened("1");
  assert.deepEqual(next.frames.length, 1);
  assert.deepEqual(events, [["reopening", 1006], ["open"]]);
  mux.close();
});

test("socket loss while a path is awaited: it is asked for anew, and opened once", async (t) => {
  const timers = clock(t);
  const answers = [];
  const { mux, network } = multiplex();
  mux.open(() => new Promise((resolve) => answers.push(resolve)));
  const socket = await network.accept();
  const next = await reconnected(timers, { network, socket });
  answers[0]("old");
  answers[1]("new");
  await settled();
  assert.deepEqual(
    next.ops("open").map(({ path }) => path),
    ["new"],
  );
  assert.deepEqual(socket.frames, []);
  mux.close();
});

test("a path that rejects after close() is told to nobody", async () => {
  let reject;
  const { mux, stream: other } = await connected();
  const stream = mux.open(() => new Promise((_, no) => (reject = no)));
  const events = log(stream);
  stream.close();
  reject(new Error("no token"));
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
  assert.equal(other.readyState, other.OPEN);
  await assertNothingLeft(mux);
});

test("a url that rejects after close() is told to nobody", async () => {
  let reject;
  const { mux } = multiplex({ url: () => new Promise((_, no) => (reject = no)) });
  const muxEvents = log(mux);
  mux.open("a");
  mux.close();
  reject(new Error("no token"));
  await settled();
  assert.deepEqual(muxEvents, [["close", 1000]]);
  await assertNothingLeft(mux);
});

test("socket loss after close: one close, with the socket's code", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  stream.close();
  socket.lose(1006);
  await settled();
  assert.deepEqual(events, [
    ["error", 1006],
    ["close", 1006],
  ]);
  assert.equal(mux.readyState, mux.CLOSED);
  await assertNothingLeft(mux);
});

test("a close frame isn't sent on the next socket", async (t) => {
  const timers = clock(t);
  const world = await connected();
  world.mux.open("other");
  await settled();
  world.stream.close();
  const next = await reconnected(timers, world);
  assert.deepEqual(
    next.frames.map(({ op, path }) => [op, path]),
    [["open", "other"]],
  );
  world.mux.close();
});

test("open while the socket is closing: on the next one", async (t) => {
  const timers = clock(t);
  const { mux, network, socket } = await connected();
  socket.dead = true;
  mux.socket.close();
  const events = log(mux.open("b"));
  await settled();
  assert.equal(socket.ops("open").length, 1);
  socket.lose();
  timers.tick(1000);
  const next = await network.accept();
  assert.deepEqual(
    next.ops("open").map(({ path }) => path),
    ["echo", "b"],
  );
  next.opened("2");
  assert.deepEqual(events, [["open"]]);
  mux.close();
});

test("max_streams: the stream too many waits, the others don't notice", async () => {
  const { mux, network } = multiplex();
  const [first, second] = [mux.open("a"), mux.open("b")];
  const socket = await network.accept();
  socket.opened("1");
  socket.end("2", 4429);
  assert.deepEqual([first.readyState, second.readyState], [1, 0]);
  second.close();
  await event(second, "close");
  assert.equal(mux.streams.size, 1);
  await assertNothingLeft(mux);
});

test("closing a stream that waits for its retry needs no answer", async () => {
  const { mux, stream, socket } = await connected();
  socket.end("1", 1011);
  stream.close();
  assert.equal((await event(stream, "close")).code, 1000);
  assert.equal(socket.ops("close").length, 0);
  await assertNothingLeft(mux);
});

test("a listener of reopening may close the stream", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  stream.addEventListener("reopening", () => stream.close());
  socket.end("1", 1011);
  await settled();
  assert.deepEqual(events, [
    ["reopening", 1011],
    ["close", 1000],
  ]);
  await assertNothingLeft(mux);
});

test("ids only grow, and none is used twice on a socket", async (t) => {
  const timers = clock(t);
  const { mux, stream, socket } = await connected();
  stream.close();
  socket.end("1");
  const second = mux.open("b");
  await settled();
  socket.end("2", 1011);
  timers.tick(1000);
  mux.open("c");
  await settled();
  assert.deepEqual(
    socket.ops("open").map(({ stream }) => stream),
    ["1", "2", "3", "4"],
  );
  assert.equal(second.readyState, second.CONNECTING);
  mux.close();
});

test("opened twice is one open", async () => {
  const { mux, stream, socket } = await connected();
  const events = log(stream);
  socket.opened("1");
  assert.deepEqual(events, []);
  await assertNothingLeft(mux);
});

test("data before opened is no message", async () => {
  const { mux, network } = multiplex();
  const events = log(mux.open("a"));
  const socket = await network.accept();
  socket.say({ stream: "1", payload: 1 });
  assert.deepEqual(events, []);
  await assertNothingLeft(mux);
});

test("frames of no stream, of nothing, and not JSON, end nothing", async () => {
  const { mux, stream, socket } = await connected();
  const muxEvents = log(mux);
  const unknown = [{ stream: "9", payload: 1 }, { op: "closed", stream: "9" }, [1, 57]];
  for (const frame of [...unknown, "null", "1", "[]", [], [9, 1]]) socket.say(frame);
  assert.deepEqual(muxEvents, []);
  socket.say("{");
  assert.deepEqual(muxEvents, [["error", "invalid-json"]]);
  assert.equal(stream.readyState, stream.OPEN);
  await assertNothingLeft(mux);
});

test("an op that isn't known is answered, and nothing ends", async () => {
  const { mux, stream, socket } = await connected();
  socket.say({ op: "credit", stream: "1", bytes: 1 });
  const answer = { op: "error", stream: "1", code: "unknown-op", message: "credit" };
  assert.deepEqual(socket.frames.at(-1), answer);
  assert.equal(stream.readyState, stream.OPEN);
  await assertNothingLeft(mux);
});
