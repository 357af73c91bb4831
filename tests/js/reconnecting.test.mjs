/** What survives the socket, and when the next one is asked for. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff } from "../../channelsmultiplexer/static/channelsmultiplexer/multiplex.js";
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

test("the ceiling of the default backoff doubles from 0.5 s to 30 s", () => {
  const ceilings = [1, 2, 3, 6, 7, 8, 2000].map((attempt) => backoff(attempt, () => 1));
  assert.deepEqual(ceilings, [500, 1000, 2000, 16000, 30000, 30000, 30000]);
});

test("the default backoff is anything from zero to the ceiling", () => {
  assert.equal(
    backoff(3, () => 0),
    0,
  );
  assert.equal(
    backoff(3, () => 0.25),
    500,
  );
  assert.ok(backoff(1) < 500);
});

test("a lost socket is replaced after the delay, and the stream says what happens", async (t) => {
  const timers = clock(t);
  const { mux, network, stream, socket } = await connected();
  const [events, muxEvents] = [log(stream), log(mux)];
  socket.lose();
  assert.deepEqual([stream.readyState, mux.readyState, mux.socket], [0, 0, null]);
  timers.tick(999);
  await settled();
  assert.equal(network.sockets.length, 1);
  timers.tick(1);
  (await network.accept()).opened("1");
  assert.deepEqual(events, [["reopening", 1006], ["open"]]);
  assert.deepEqual(muxEvents, [["reconnecting", 1006], ["open"]]);
  mux.close();
});

test("`reconnecting` has the attempt and the delay", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const seen = [];
  mux.addEventListener("reconnecting", ({ attempt, delay }) => seen.push([attempt, delay]));
  mux.open("a");
  for (const delay of [1000, 2000, 3000]) {
    (await network.socket()).refuse();
    timers.tick(delay);
  }
  assert.deepEqual(seen, [
    [1, 1000],
    [2, 2000],
    [3, 3000],
  ]);
  mux.close();
});

test("`open` says whether the stream is reopened", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const stream = mux.open("a");
  const seen = [];
  stream.onopen = ({ reopened }) => seen.push(reopened);
  const socket = await network.accept();
  socket.opened("1");
  (await reconnected(timers, { network, socket })).opened("1");
  assert.deepEqual(seen, [false, true]);
  mux.close();
});

test("a path function is called for each opening", async (t) => {
  const timers = clock(t);
  let since = 0;
  const world = await connected({ path: () => `rooms/42/?since=${++since}` });
  const next = await reconnected(timers, world);
  assert.equal(next.ops("open")[0].path, "rooms/42/?since=2");
  world.mux.close();
});

test("ids start again on each socket", async (t) => {
  const timers = clock(t);
  const world = await connected();
  world.mux.open("b");
  await settled();
  const next = await reconnected(timers, world);
  assert.deepEqual(
    next.ops("open").map(({ stream }) => stream),
    ["1", "2"],
  );
  world.mux.close();
});

test("sends while away go out in order after the open", async (t) => {
  const timers = clock(t);
  const world = await connected();
  const { mux, network, stream, socket } = world;
  socket.lose();
  for (const text of ["a", "b"]) stream.send(text);
  stream.send(new Uint8Array([7]));
  timers.tick(1000);
  const next = await network.accept();
  const texts = ["a", "b"].map((text) => ({ stream: "1", text }));
  assert.deepEqual(next.frames.slice(1), [...texts, [1, 49, 7]]);
  mux.close();
});

test("what was sent before the loss isn't sent again", async (t) => {
  const timers = clock(t);
  const world = await connected();
  world.stream.send("once");
  const next = await reconnected(timers, world);
  next.opened("1");
  assert.deepEqual(next.ops(undefined), []);
  world.mux.close();
});

test("a socket that is closing takes nothing: frames wait for the next", async (t) => {
  const timers = clock(t);
  const { mux, network, stream, socket } = await connected();
  socket.close();
  stream.send("a");
  await settled();
  timers.tick(1000);
  const next = await network.accept();
  assert.deepEqual(next.ops(undefined), [{ stream: "1", text: "a" }]);
  mux.close();
});

test("send() raises when the queue is full, and what waited still goes out", async () => {
  const { mux, network } = multiplex({ maxQueue: 2 });
  const stream = mux.open("a");
  stream.send("1");
  stream.send("2");
  for (const data of ["3", new Uint8Array(1), new Blob(["3"])])
    assert.throws(() => stream.send(data), { name: "QuotaExceededError" });
  const socket = await network.accept();
  assert.deepEqual(
    socket.ops(undefined).map(({ payload }) => payload),
    [1, 2],
  );
  mux.close();
});

test("a full queue doesn't keep close() back", async () => {
  const { mux } = multiplex({ maxQueue: 0 });
  const stream = mux.open("a");
  stream.close();
  await event(stream, "close");
  await assertNothingLeft(mux);
});

test("retries are counted from one again after five seconds up", async (t) => {
  const timers = clock(t);
  const { mux, network } = multiplex();
  const attempts = [];
  mux.addEventListener("reconnecting", ({ attempt, delay }) => {
    attempts.push(attempt);
    timers.tick(delay);
  });
  mux.open("a");
  for (const uptime of [0, 4999, 5000, 0]) {
    const socket = await network.accept();
    timers.tick(uptime);
    socket.lose();
  }
  assert.deepEqual(attempts, [1, 2, 1, 2]);
  mux.close();
});

test("retries after a steady time count up as well", async (t) => {
  const timers = clock(t);
  const { mux, network, socket } = await connected();
  const attempts = [];
  mux.addEventListener("reconnecting", ({ attempt }) => attempts.push(attempt));
  timers.tick(10000);
  socket.lose();
  for (const delay of [1000, 2000]) {
    timers.tick(delay);
    (await network.socket()).refuse();
  }
  assert.deepEqual(attempts, [1, 2, 3]);
  mux.close();
});

for (const code of [1008, 4400, 4401, 4499])
  test(`a socket closed with ${code} stays closed, and every stream with it`, async () => {
    const { mux, network, stream, socket } = await connected();
    const [events, muxEvents] = [log(stream), log(mux)];
    socket.lose(code, "go away", true);
    await settled();
    assert.deepEqual([events, muxEvents], [[["close", code]], [["close", code]]]);
    assert.equal(network.sockets.length, 1);
    await assertNothingLeft(mux);
  });

for (const code of [1000, 1001, 1006, 1012, 4000, 4399, 4500])
  test(`a socket closed with ${code} is replaced`, async () => {
    const { mux, stream, socket } = await connected();
    const events = log(stream);
    socket.lose(code);
    await settled();
    assert.deepEqual(events, [["reopening", code]]);
    await assertNothingLeft(mux);
  });

test("an unclean end of the socket for good is error and close on its streams", async () => {
  const { mux, stream, socket } = await connected({ shouldReconnect: () => false });
  const events = log(stream);
  socket.lose();
  await settled();
  assert.deepEqual(events, [
    ["error", 1006],
    ["close", 1006],
  ]);
  await assertNothingLeft(mux);
});

test("shouldReconnect is asked about the socket, and about a stream with the stream", async () => {
  const asked = [];
  const shouldReconnect = ({ code, reason, wasClean }, stream) => {
    asked.push([code, reason, wasClean, stream?.url]);
  };
  const { mux, socket } = await connected({ shouldReconnect });
  mux.open("other");
  await settled();
  socket.end("1", 4001, "moved");
  socket.lose(1006, "", false);
  assert.deepEqual(asked, [
    [4001, "moved", true, "echo"],
    [1006, "", false, undefined],
  ]);
  mux.close();
});

test("shouldReconnect overrides the default either way", async () => {
  const { mux, socket } = await connected({
    shouldReconnect: ({ code }, stream) => (stream ? code === 4001 : false),
  });
  const other = mux.open("other");
  await settled();
  socket.end("1", 4001);
  socket.end("2", 1011);
  assert.deepEqual(
    [...mux.streams].map(({ url }) => url),
    ["echo"],
  );
  assert.equal(other.readyState, other.CLOSING);
  socket.lose();
  assert.equal(mux.readyState, mux.CLOSED);
  await assertNothingLeft(mux);
});

test("shouldReconnect isn't asked about a stream that our side closed", async () => {
  const { mux, stream, socket } = await connected({ shouldReconnect: () => assert.fail() });
  stream.close();
  socket.end("1", 1011);
  assert.equal((await event(stream, "close")).code, 1011);
  await assertNothingLeft(mux);
});

for (const what of ["stream", "socket"])
  test(`shouldReconnect may close the client when asked about a ${what}`, async () => {
    const world = await connected({ shouldReconnect: () => (world.mux.close(4000), true) });
    const [events, muxEvents] = [log(world.stream), log(world.mux)];
    if (what === "stream") world.socket.end("1", 1011);
    else world.socket.lose();
    await settled();
    assert.deepEqual([events, muxEvents], [[["close", 4000]], [["close", 4000]]]);
    await assertNothingLeft(world.mux);
  });

for (const code of [1011, 1012, 1013, 4429])
  test(`a stream closed with ${code} is asked for again later, on the same socket`, async (t) => {
    const timers = clock(t);
    const { mux, stream, socket } = await connected();
    const events = log(stream);
    socket.end("1", code);
    timers.tick(1000);
    await settled();
    assert.deepEqual(
      socket.ops("open").map(({ stream }) => stream),
      ["1", "2"],
    );
    socket.opened("2");
    assert.deepEqual(events, [["reopening", code], ["open"]]);
    mux.close();
  });

for (const code of [1000, 1001, 1009, 4000, 4403, 4404])
  test(`a stream closed with ${code} isn't asked for again`, async (t) => {
    const timers = clock(t);
    const world = await connected();
    const other = world.mux.open("other");
    await settled();
    world.socket.end("1", code);
    const next = await reconnected(timers, world);
    assert.deepEqual(
      next.ops("open").map(({ path }) => path),
      ["other"],
    );
    assert.equal(world.stream.readyState, other.CLOSED);
    world.mux.close();
  });

test("a stream that keeps failing is asked for less and less", async (t) => {
  const timers = clock(t);
  const { mux, socket } = await connected();
  for (const [id, delay] of [
    ["1", 1000],
    ["2", 2000],
    ["3", 3000],
  ]) {
    socket.opened(id);
    socket.end(id, 1011);
    timers.tick(delay - 1);
    await settled();
    assert.equal(socket.ops("open").length, +id);
    timers.tick(1);
    await settled();
  }
  assert.equal(socket.ops("open").length, 4);
  mux.close();
});

test("a stream that waits for its retry is opened once on the next socket", async (t) => {
  const timers = clock(t);
  const { mux, network, socket } = await connected();
  socket.end("1", 1011);
  socket.lose();
  timers.tick(1000);
  const next = await network.accept();
  timers.tick(10000);
  await settled();
  assert.equal(next.ops("open").length, 1);
  mux.close();
});

test("without streams a lost socket isn't replaced", async () => {
  const { mux, network, stream, socket } = await connected();
  const events = log(mux);
  stream.close();
  socket.end("1");
  assert.equal(mux.readyState, mux.OPEN);
  socket.lose();
  await settled();
  assert.deepEqual(events, [["close", 1006]]);
  assert.equal(network.sockets.length, 1);
  await assertNothingLeft(mux);
});

test("closing the last stream while away ends the waiting", async () => {
  const { mux, stream, socket } = await connected();
  socket.lose();
  stream.close();
  await event(mux, "close");
  assert.equal(mux.readyState, mux.CLOSED);
  await assertNothingLeft(mux);
});

test("close() while away ends the waiting", async () => {
  const { mux, stream, socket } = await connected();
  socket.lose();
  const events = log(stream);
  mux.close();
  await settled();
  assert.deepEqual(events, [["close", 1000]]);
  await assertNothingLeft(mux);
});

test("a listener may close the client from any event of a loss", async () => {
  const { mux, stream, socket } = await connected();
  stream.addEventListener("reopening", () => mux.close());
  const muxEvents = log(mux);
  socket.lose();
  await settled();
  assert.deepEqual(muxEvents, [["close", 1000]]);
  await assertNothingLeft(mux);
});

/** Stands in for the window and the document of a page. */
function page(t, visibilityState = "visible") {
  const window = new EventTarget();
  const listening = [];
  globalThis.document = { visibilityState };
  globalThis.addEventListener = (type, listener) => {
    listening.push(type);
    window.addEventListener(type, listener);
  };
  globalThis.removeEventListener = (type, listener) => {
    listening.splice(0);
    window.removeEventListener(type, listener);
  };
  t.after(() => {
    for (const name of ["document", "addEventListener", "removeEventListener"])
      delete globalThis[name];
  });
  return { window, listening };
}

for (const type of ["online", "visibilitychange"])
  test(`${type} reconnects at once, and once`, async (t) => {
    const timers = clock(t);
    const { window } = page(t);
    const { mux, network, socket } = await connected();
    socket.lose();
    window.dispatchEvent(new Event(type));
    window.dispatchEvent(new Event(type));
    timers.tick(10000);
    await settled();
    assert.equal(network.sockets.length, 2);
    mux.close();
  });

test("becoming hidden doesn't reconnect", async (t) => {
  const { window } = page(t, "hidden");
  const { mux, network, socket } = await connected();
  socket.lose();
  window.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.equal(network.sockets.length, 1);
  await assertNothingLeft(mux);
});

test("the page's events are listened to only while there is something to reconnect", async (t) => {
  const { listening } = page(t);
  const { mux, network, socket } = await connected();
  assert.deepEqual(listening, []);
  socket.lose();
  assert.deepEqual(listening, ["online", "visibilitychange"]);
  mux.close();
  assert.deepEqual(listening, []);
  assert.equal(network.sockets.length, 1);
});

test("a shouldReconnect that raises leaves it to the default, and is told of", async (t) => {
  const timers = clock(t);
  const fault = new Error("hook");
  const world = await connected({
    shouldReconnect: () => {
      throw fault;
    },
  });
  const errors = [];
  world.mux.onerror = ({ detail }) => errors.push(detail.code, detail.error);
  world.socket.end("1", 1011);
  assert.equal(world.stream.readyState, world.stream.CONNECTING);
  const socket = await reconnected(timers, world);
  assert.notEqual(socket, world.socket);
  assert.deepEqual(errors, ["callback", fault, "callback", fault]);
  socket.opened("1");
  socket.end("1", 4403);
  assert.equal((await event(world.stream, "close")).code, 4403);
  world.mux.close();
});

for (const what of ["raises", "gives no number"])
  test(`a backoff that ${what} leaves it to the default`, async (t) => {
    const timers = clock(t);
    const world = await connected({
      backoff: () => {
        if (what === "raises") throw new Error("hook");
      },
    });
    let delay;
    world.mux.onreconnecting = (event) => (delay = event.delay);
    world.socket.lose();
    assert.ok(delay > 0);
    timers.tick(500);
    assert.notEqual(await world.network.accept(), world.socket);
    world.mux.close();
  });
