/** The bare dialect: names for streams, and no control frames. */

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

const bare = (options) => connected({ dialect: "bare", method: "stream", ...options });

test("the socket's open is the stream's, and nothing is sent for it", async () => {
  const { mux, network } = multiplex({ dialect: "bare" });
  const stream = mux.stream("echo");
  const events = log(stream);
  const socket = await network.accept();
  assert.deepEqual(events, [["open"]]);
  assert.deepEqual(socket.frames, []);
  mux.close();
});

test("a stream on an open socket opens once its caller could add listeners", async () => {
  const { mux } = await bare();
  const stream = mux.stream("other");
  assert.equal(stream.readyState, stream.CONNECTING);
  await event(stream, "open");
  mux.close();
});

test("frames carry the application's name", async () => {
  const { mux, stream, socket } = await bare({ path: 'users."org"' });
  stream.send({ a: 1 });
  assert.deepEqual(socket.frames, [{ stream: 'users."org"', payload: { a: 1 } }]);
  const next = event(stream, "message");
  socket.say({ stream: 'users."org"', payload: 2 });
  assert.equal((await next).data, 2);
  mux.close();
});

test("bytes go both ways behind the name in UTF-8", async () => {
  const { mux, stream, socket } = await bare({ path: "é", method: "open" });
  stream.binaryType = "arraybuffer";
  stream.send(new Uint8Array([7]));
  assert.deepEqual(socket.frames, [[2, 0xc3, 0xa9, 7]]);
  const next = event(stream, "message");
  socket.say([2, 0xc3, 0xa9, 8]);
  assert.deepEqual((await next).data, new Uint8Array([8]).buffer);
  mux.close();
});

test("streams of one name each get every message", async () => {
  const { mux, stream, socket } = await bare();
  const other = mux.open("echo");
  await settled();
  const [first, second] = [event(stream, "message"), event(other, "message")];
  socket.say({ stream: "echo", payload: { a: 1 } });
  assert.deepEqual([(await first).data, (await second).data], [{ a: 1 }, '{"a":1}']);
  mux.close();
});

test("close() of a stream is local", async () => {
  const { mux, stream, socket } = await bare();
  const other = mux.stream("echo");
  await settled();
  stream.close(4000, "done");
  const { code, reason, wasClean } = await event(stream, "close");
  assert.deepEqual([code, reason, wasClean], [4000, "done", true]);
  assert.deepEqual([socket.frames, other.readyState], [[], other.OPEN]);
  await assertNothingLeft(mux);
});

test("an error frame is told on the client and on the stream it names", async () => {
  const { mux, stream, socket } = await bare();
  const detail = { code: "unknown-stream", message: "it has ended", stream: "echo" };
  const told = Promise.all([event(mux, "error"), event(stream, "error")]);
  socket.say({ error: detail });
  for (const error of await told) assert.deepEqual(error.detail, detail);
  mux.close();
});

test("a payload with a key `error` or `op` is data", async () => {
  const { mux, stream, socket } = await bare();
  const events = log(stream);
  socket.say({ stream: "echo", payload: { error: 1 } });
  socket.say({ stream: "echo", payload: 2, op: "closed", error: {} });
  assert.deepEqual(events, [
    ["message", { error: 1 }],
    ["message", 2],
  ]);
  mux.close();
});

test('the stream "" sends and receives frames without an envelope', async () => {
  const { mux, stream, socket } = await bare({ path: "" });
  stream.send({ a: 1 });
  assert.deepEqual(socket.frames, [{ a: 1 }]);
  const next = event(stream, "message");
  socket.say({ stream: "echo", payload: 1 });
  socket.say({ b: 2 });
  assert.deepEqual((await next).data, { b: 2 });
  mux.close();
});

test("a lost socket is replaced and the stream is reopened", async (t) => {
  const timers = clock(t);
  const world = await bare();
  const events = log(world.stream);
  const opens = [];
  world.stream.onopen = ({ reopened }) => opens.push(reopened);
  await reconnected(timers, world);
  assert.deepEqual(events, [["reopening", 1006], ["open"]]);
  assert.deepEqual(opens, [true]);
  world.mux.close();
});

test("sends before the socket go out before the open event", async () => {
  const { mux, network } = multiplex({ dialect: "bare" });
  const stream = mux.stream("echo");
  stream.onopen = () => stream.send("second");
  stream.send("first");
  const socket = await network.accept();
  assert.deepEqual(
    socket.frames.map(({ payload }) => payload),
    ["first", "second"],
  );
  mux.close();
});

test("request() works by application name", async () => {
  const { mux, stream, socket } = await bare();
  const answer = stream.request({ action: "list" });
  const [{ payload }] = socket.frames;
  socket.say({ stream: "echo", payload: { ...payload, response_status: 200 } });
  assert.equal((await answer).response_status, 200);
  mux.close();
});

test("the socket's final code is the stream's", async () => {
  const { mux, stream, socket } = await bare();
  socket.lose(4403, "refused", true);
  assert.equal((await event(stream, "close")).code, 4403);
  await assertNothingLeft(mux);
});
