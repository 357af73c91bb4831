/** Signs of life, in v1. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, connected, log, settled } from "./server.mjs";

test("a silence as long as the hello's heartbeat is broken by a ping", async (t) => {
  const timers = clock(t);
  const { mux, socket } = await connected();
  timers.tick(24999);
  assert.equal(socket.ops("ping").length, 0);
  timers.tick(1);
  assert.equal(socket.ops("ping").length, 1);
  mux.close();
});

test("any message puts the ping off", async (t) => {
  const timers = clock(t);
  const { mux, socket } = await connected();
  for (const frame of [{ stream: "1", payload: 1 }, { op: "ping" }, [1, 49], "not JSON"]) {
    timers.tick(24000);
    socket.say(frame);
  }
  assert.equal(socket.ops("ping").length, 0);
  mux.close();
});

test("a pong keeps the socket", async (t) => {
  const timers = clock(t);
  const { mux, network, socket } = await connected();
  for (const pings of [1, 2, 3]) {
    timers.tick(25000);
    assert.equal(socket.ops("ping").length, pings);
    socket.say({ op: "pong" });
  }
  assert.equal(mux.socket, socket);
  assert.equal(network.sockets.length, 1);
  mux.close();
});

test("a missed pong drops the socket, even if it can't close, and reconnects", async (t) => {
  const timers = clock(t);
  const { mux, network, stream, socket } = await connected();
  socket.dead = true;
  const events = log(stream);
  timers.tick(25000);
  timers.tick(25000);
  assert.ok(socket.closed);
  assert.deepEqual(events, [["reopening", 1006]]);
  timers.tick(1000);
  (await network.accept()).opened("1");
  socket.lose();
  await settled();
  assert.deepEqual(events, [["reopening", 1006], ["open"]]);
  mux.close();
});

test("a ping of the server is answered", async (t) => {
  const { mux, socket } = await connected();
  socket.say({ op: "ping" });
  assert.deepEqual(socket.frames.at(-1), { op: "pong" });
  mux.close();
});

test("a hello without a heartbeat asks for none", async (t) => {
  const timers = clock(t);
  const { mux, socket } = await connected();
  socket.say({ op: "hello", max_streams: 1 });
  timers.tick(1000000);
  assert.equal(socket.ops("ping").length, 0);
  assert.equal(mux.socket, socket);
  mux.close();
});

test("in bare there are no pings", async (t) => {
  const timers = clock(t);
  const { mux, socket } = await connected({ dialect: "bare" });
  timers.tick(1000000);
  assert.deepEqual(socket.frames, []);
  assert.equal(mux.socket, socket);
  mux.close();
});

test("a v1 server that never says hello is given up", async (t) => {
  const timers = clock(t);
  const { mux, network } = await connected();
  mux.socket.lose();
  timers.tick(1000);
  const silent = await network.socket();
  silent.accept("channelsmultiplexer.v1");
  timers.tick(30000);
  assert.ok(silent.closed);
  mux.close();
});
