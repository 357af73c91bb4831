/** mux.stream(): a stream of JSON values. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import {
  assertNothingLeft,
  clock,
  connected,
  event,
  multiplex,
  reconnected,
  settled,
} from "./server.mjs";

const json = (options) => connected({ method: "stream", ...options });

/** Fails if a request or a reader of *stream* has left listeners behind. */
function assertReleased(stream) {
  // One each is the stream's own, for its on... handler.
  for (const type of ["message", "close", "reopening"])
    assert.equal(getEventListeners(stream, type).length, 1, type);
}

test("send() takes a value", async () => {
  const { mux, stream, socket } = await json();
  stream.send({ a: [1, null] });
  stream.send("text");
  assert.deepEqual(socket.frames.slice(1), [
    { stream: "1", payload: { a: [1, null] } },
    { stream: "1", payload: "text" },
  ]);
  mux.close();
});

for (const value of [undefined, () => {}, Symbol("x")])
  test(`send(${String(value)}) raises TypeError and sends nothing`, async () => {
    const { mux, stream, socket } = await json();
    assert.throws(() => stream.send(value), TypeError);
    assert.equal(socket.frames.length, 1);
    mux.close();
  });

for (const [frame, data] of [
  [{ payload: { a: 1 } }, { a: 1 }],
  [{ payload: null }, null],
  [{ text: "not JSON" }, "not JSON"],
])
  test(`${JSON.stringify(frame)} arrives as ${JSON.stringify(data)}`, async () => {
    const { mux, stream, socket } = await json();
    const next = event(stream, "message");
    socket.say({ stream: "1", ...frame });
    assert.deepEqual((await next).data, data);
    mux.close();
  });

test("bytes arrive by binaryType", async () => {
  const { mux, stream, socket } = await json();
  stream.binaryType = "arraybuffer";
  const next = event(stream, "message");
  socket.say([1, 49, 5]);
  assert.deepEqual((await next).data, new Uint8Array([5]).buffer);
  mux.close();
});

test("request() resolves with the first message that has its request_id", async () => {
  const { mux, stream, socket } = await json();
  const answer = stream.request({ action: "list" });
  const { payload } = socket.frames.at(-1);
  assert.equal(payload.action, "list");
  socket.say({ stream: "1", payload: { request_id: "other" } });
  socket.say({ stream: "1", payload: null });
  socket.say({ stream: "1", payload: { request_id: payload.request_id, data: 1 } });
  socket.say({ stream: "1", payload: { request_id: payload.request_id, data: 2 } });
  assert.equal((await answer).data, 1);
  assertReleased(stream);
  mux.close();
});

test("request() keeps a request_id of the caller's, and leaves the value alone", async () => {
  const { mux, stream, socket } = await json();
  const value = Object.freeze({ request_id: 0 });
  const answer = stream.request(value);
  assert.deepEqual(socket.frames.at(-1).payload, { request_id: 0 });
  socket.say({ stream: "1", payload: { request_id: 0, ok: true } });
  assert.deepEqual(await answer, { request_id: 0, ok: true });
  mux.close();
});

test("requests have ids of their own and may be answered in any order", async () => {
  const { mux, stream, socket } = await json();
  const answers = Promise.all([1, 2, 3].map((n) => stream.request({ n })));
  for (const { payload } of socket.ops(undefined).reverse()) socket.say({ stream: "1", payload });
  assert.deepEqual(
    (await answers).map(({ n }) => n),
    [1, 2, 3],
  );
  assertReleased(stream);
  mux.close();
});

test("an answer is dispatched as a message too", async () => {
  const { mux, stream, socket } = await json();
  const [answer, message] = [stream.request({ request_id: 1 }), event(stream, "message")];
  socket.say({ stream: "1", payload: { request_id: 1 } });
  assert.equal((await message).data, await answer);
  mux.close();
});

test("request() rejects with TimeoutError after its timeout", async (t) => {
  const timers = clock(t);
  const { mux, stream } = await json();
  const answer = stream.request({}, { timeout: 500 });
  timers.tick(500);
  await assert.rejects(answer, { name: "TimeoutError" });
  assertReleased(stream);
  mux.close();
});

test("request() rejects with the reason of its signal", async () => {
  const { mux, stream } = await json();
  const controller = new AbortController();
  const answer = stream.request({}, { signal: controller.signal });
  controller.abort(new Error("changed my mind"));
  await assert.rejects(answer, /changed my mind/);
  assertReleased(stream);
  mux.close();
});

test("request() with an aborted signal sends nothing", async () => {
  const { mux, stream, socket } = await json();
  await assert.rejects(stream.request({}, { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(socket.frames.length, 1);
  mux.close();
});

test("request() leaves nothing on a signal that outlives it", async () => {
  const { mux, stream, socket } = await json();
  const { signal } = new AbortController();
  const answer = stream.request({ request_id: 1 }, { signal, timeout: 5000 });
  socket.say({ stream: "1", payload: { request_id: 1 } });
  await answer;
  assert.equal(getEventListeners(signal, "abort").length, 0);
  await assertNothingLeft(mux);
});

test("request() rejects with code and reason when the stream closes", async () => {
  const { mux, stream, socket } = await json();
  const answer = stream.request({});
  socket.end("1", 4001, "moved");
  await assert.rejects(answer, { code: 4001, reason: "moved" });
  assertReleased(stream);
  mux.close();
});

test("request() rejects when the socket is lost: the answer can't come", async () => {
  const { mux, stream, socket } = await json();
  const answer = stream.request({});
  socket.lose();
  await assert.rejects(answer, { code: 1006 });
  assertReleased(stream);
  mux.close();
});

test("request() on a closed stream rejects at once", async () => {
  const { mux, stream } = await json();
  mux.close(4000);
  await settled();
  await assert.rejects(stream.request({}), { code: 4000 });
  assertReleased(stream);
});

test("request() rejects with what send() raises", async () => {
  const { mux } = multiplex({ maxQueue: 0 });
  const stream = mux.stream("a");
  await assert.rejects(stream.request({}), { name: "QuotaExceededError" });
  await assert.rejects(stream.request({ n: 1n }), TypeError);
  await assert.rejects(stream.request(null), TypeError);
  assertReleased(stream);
  mux.close();
});

test("a request made while away is sent on the next socket, once", async (t) => {
  const timers = clock(t);
  const { mux, network, stream, socket } = await json();
  socket.lose();
  const answer = stream.request({ request_id: 7 });
  timers.tick(1000);
  const next = await network.accept();
  next.opened("1");
  next.say({ stream: "1", payload: { request_id: 7 } });
  await answer;
  assert.equal(next.ops(undefined).length, 1);
  mux.close();
});

test("a request that is given up while away is never sent", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const stream = mux.stream("a");
  const answer = stream.request({ action: "pay" }, { timeout: 10 });
  timers.tick(10);
  await assert.rejects(answer, { name: "TimeoutError" });
  assert.equal((await network.accept()).ops(undefined).length, 0);
  mux.close();
});

/** Read *count* messages of *stream*, and stop. */
async function read(stream, count) {
  const values = [];
  for await (const value of stream) if (values.push(value) === count) break;
  return values;
}

test("for await reads messages in order, and those that come meanwhile", async () => {
  const { mux, stream, socket } = await json();
  const values = read(stream, 3);
  socket.say({ stream: "1", payload: 1 });
  socket.say({ stream: "1", payload: 2 });
  await settled();
  socket.say({ stream: "1", payload: 3 });
  assert.deepEqual(await values, [1, 2, 3]);
  assertReleased(stream);
  mux.close();
});

test("leaving the loop doesn't close the stream", async () => {
  const { mux, stream, socket } = await json();
  const values = read(stream, 1);
  socket.say({ stream: "1", payload: 1 });
  await values;
  assert.equal(stream.readyState, stream.OPEN);
  mux.close();
});

test("each reader gets every message", async () => {
  const { mux, stream, socket } = await json();
  const readers = Promise.all([read(stream, 1), read(stream, 2)]);
  for (const payload of [1, 2]) socket.say({ stream: "1", payload });
  assert.deepEqual(await readers, [[1], [1, 2]]);
  mux.close();
});

for (const code of [1000, 1001])
  test(`for await gives what it holds and ends on ${code}`, async () => {
    const { mux, stream, socket } = await json();
    const values = read(stream);
    socket.say({ stream: "1", payload: 1 });
    socket.end("1", code);
    assert.deepEqual(await values, [1]);
    assertReleased(stream);
    mux.close();
  });

test("for await ends when our side closes, whatever the code", async () => {
  const { mux, stream, socket } = await json();
  const values = read(stream);
  stream.close(4000);
  socket.end("1", 4000);
  assert.deepEqual(await values, []);
  mux.close();
});

test("for await ends when the client is closed, whatever the code", async () => {
  const { mux, stream } = await json();
  const values = read(stream);
  mux.close(4000);
  assert.deepEqual(await values, []);
});

test("for await raises code and reason of any other end, after what it holds", async () => {
  const { mux, stream, socket } = await json();
  const reader = stream[Symbol.asyncIterator]();
  const first = reader.next();
  for (const payload of [1, 2]) socket.say({ stream: "1", payload });
  socket.end("1", 4001, "moved");
  assert.deepEqual([(await first).value, (await reader.next()).value], [1, 2]);
  await assert.rejects(reader.next(), { code: 4001, reason: "moved" });
  assertReleased(stream);
  mux.close();
});

test("for await on a closed stream ends, or raises, at once", async () => {
  const { mux, stream, socket } = await json();
  const other = mux.stream("other");
  await settled();
  socket.end("1", 1000);
  socket.end("2", 4403);
  await settled();
  assert.deepEqual(await read(stream), []);
  await assert.rejects(read(other), { code: 4403 });
  mux.close();
});

test("for await goes on across a reopening", async (t) => {
  const timers = clock(t);
  const world = await json();
  const values = read(world.stream, 2);
  world.socket.say({ stream: "1", payload: 1 });
  const next = await reconnected(timers, world);
  next.opened("1");
  next.say({ stream: "1", payload: 2 });
  assert.deepEqual(await values, [1, 2]);
  world.mux.close();
});

test("a reader that overflows gets what it holds, then an error; the stream goes on", async () => {
  const { mux, stream, socket } = await json({ maxQueue: 2 });
  const reader = stream[Symbol.asyncIterator]();
  const first = reader.next();
  for (const payload of [1, 2, 3]) socket.say({ stream: "1", payload });
  assert.equal((await first).value, 1);
  socket.say({ stream: "1", payload: 4 });
  assert.equal((await reader.next()).value, 2);
  await assert.rejects(reader.next(), { code: "overflow" });
  assertReleased(stream);
  assert.equal(stream.readyState, stream.OPEN);
  mux.close();
});
