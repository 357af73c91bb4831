/** WebSocketBridge: pages written for Channels 1. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { WebSocketBridge } from "../../channelsmultiplexer/static/channelsmultiplexer/multiplex.js";
import { connected, event, multiplex, settled } from "./server.mjs";

/** A connected bridge, after *prepare* was called with it. */
async function bridged(prepare = () => {}) {
  const { network } = multiplex();
  const bridge = new WebSocketBridge();
  prepare(bridge);
  bridge.connect("ws://host/ws/", ["a"], { WebSocket: network.WebSocket });
  return { bridge, network, socket: await network.accept() };
}

test("connect() opens a bare socket at once, with the page's protocols", async () => {
  const { bridge, socket } = await bridged();
  assert.deepEqual([socket.url, socket.protocols, socket.frames], ["ws://host/ws/", ["a"], []]);
  bridge.socket.close();
});

test("listen() gets what names no stream, with null", async () => {
  const { bridge, socket } = await bridged();
  const seen = [];
  bridge.listen((...args) => seen.push(args));
  socket.say({ a: 1 });
  socket.say({ stream: "other", payload: 2 });
  assert.deepEqual(seen, [[{ a: 1 }, null]]);
  bridge.socket.close();
});

test("listen() needs no callback", async () => {
  const { bridge, socket } = await bridged();
  bridge.listen();
  socket.say({ a: 1 });
  bridge.socket.close();
});

for (const when of ["before", "after"])
  test(`demultiplex() ${when} connect() gets the stream's actions, with its name`, async () => {
    const seen = [];
    const demultiplex = (bridge) => bridge.demultiplex("echo", (...args) => seen.push(args));
    const { bridge, socket } = await bridged(when === "before" ? demultiplex : undefined);
    if (when === "after") demultiplex(bridge);
    await settled();
    socket.say({ stream: "echo", payload: { a: 1 } });
    socket.say({ stream: "other", payload: 2 });
    assert.deepEqual(seen, [[{ a: 1 }, "echo"]]);
    bridge.socket.close();
  });

test("demultiplex() again replaces the callback", async () => {
  const { bridge, socket } = await bridged();
  const seen = [];
  for (const name of ["first", "second"]) bridge.demultiplex("echo", () => seen.push(name));
  await settled();
  socket.say({ stream: "echo", payload: 1 });
  assert.deepEqual(seen, ["second"]);
  bridge.socket.close();
});

test("send() sends the message as it is", async () => {
  const { bridge, socket } = await bridged();
  bridge.send({ stream: "echo", payload: 1 });
  assert.deepEqual(socket.frames, [{ stream: "echo", payload: 1 }]);
  bridge.socket.close();
});

test("stream(name).send() sends in an envelope, also ahead of the socket", async () => {
  const { network } = multiplex();
  const bridge = new WebSocketBridge();
  bridge.connect("ws://host/ws/", undefined, { WebSocket: network.WebSocket });
  bridge.stream("echo").send({ a: 1 });
  const socket = await network.accept();
  assert.deepEqual(socket.frames, [{ stream: "echo", payload: { a: 1 } }]);
  bridge.socket.close();
});

test("stream() of one name is one stream", async () => {
  const { bridge } = await bridged();
  assert.equal(bridge.stream("echo"), bridge.stream("echo"));
  bridge.socket.close();
});

test("socket has open and close events and outlives the WebSocket", async () => {
  const { network } = multiplex();
  const bridge = new WebSocketBridge();
  bridge.connect("ws://host/ws/", undefined, { WebSocket: network.WebSocket });
  const open = event(bridge.socket, "open");
  await network.accept();
  await open;
  const close = event(bridge.socket, "close");
  bridge.socket.close();
  assert.equal((await close).code, 1000);
});

test("connect() again leaves the former socket", async () => {
  const { bridge, network, socket } = await bridged((bridge) =>
    bridge.demultiplex("echo", () => {}),
  );
  bridge.connect("ws://other/ws/", [], { WebSocket: network.WebSocket });
  await settled();
  assert.ok(socket.closed);
  assert.equal((await network.socket()).url, "ws://other/ws/");
  assert.equal(bridge.socket.streams.size, 2);
  bridge.socket.close();
});
