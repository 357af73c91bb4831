/**
 * Stands in for the browser's WebSocket and for the server behind it.
 *
 * A test plays the server by hand, frame by frame, so that any order of events
 * can be had without waiting for time to pass.
 */

import assert from "node:assert/strict";
import { once } from "node:events";
import { Multiplex } from "../../channelsmultiplexer/static/channelsmultiplexer/multiplex.js";

export const V1 = "channelsmultiplexer.v1";

/**
 * Let everything happen that needs no message and no timer.
 *
 * Promises settle before the event loop turns; there is no event for "none left".
 */
export const settled = () => new Promise(setImmediate);

/** A WebSocket, seen from the client by its own methods, from the server by ours. */
class Socket extends EventTarget {
  readyState = 0;
  bufferedAmount = 0;
  protocol = "";
  binaryType = "blob";
  // What the client sent, JSON decoded; binary as an array of bytes.
  frames = [];
  // The client's close(), once it was called.
  closed;
  // No closing handshake, as when the network is gone.
  dead = false;

  constructor(url, protocols) {
    super();
    this.url = url;
    this.protocols = protocols;
  }

  send(data) {
    if (this.readyState === 0) throw new DOMException("still connecting", "InvalidStateError");
    if (this.readyState === 1)
      this.frames.push(typeof data === "string" ? JSON.parse(data) : [...data]);
  }

  close(code = 1005, reason = "") {
    this.closed ??= { code, reason };
    if (this.readyState > 1) return;
    this.readyState = 2;
    if (!this.dead) queueMicrotask(() => this.lose(code, reason, true));
  }

  /** Complete the handshake. */
  accept(protocol) {
    this.readyState = 1;
    this.protocol = protocol;
    this.dispatchEvent(new Event("open"));
  }

  /** Fail the handshake. */
  refuse() {
    this.dispatchEvent(new Event("error"));
    this.lose();
  }

  /** Send a frame to the client: an object, bytes, or text as it is. */
  say(frame) {
    let data = frame;
    if (Array.isArray(frame)) data = new Uint8Array(frame).buffer;
    else if (typeof frame === "object") data = JSON.stringify(frame);
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  opened(stream, subprotocol = null) {
    this.say({ op: "opened", stream, subprotocol });
  }

  end(stream, code = 1000, reason = "") {
    this.say({ op: "closed", stream, code, reason });
  }

  /** Close the socket, or lose it. */
  lose(code = 1006, reason = "", wasClean = false) {
    this.readyState = 3;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason, wasClean }));
  }

  /** The frames with that op; undefined finds data. */
  ops(op) {
    return this.frames.filter((frame) => frame.op === op);
  }
}

/** Where sockets are made: a WebSocket class for the client, `sockets` for the test. */
class Network {
  sockets = [];
  hello = { op: "hello", heartbeat: 25, max_streams: 100 };

  WebSocket = ((network) =>
    class extends Socket {
      constructor(url, protocols) {
        super(url, protocols);
        network.sockets.push(this);
      }
    })(this);

  /** The latest socket, once the client has asked for it. */
  async socket() {
    await settled();
    return this.sockets.at(-1);
  }

  /** Accept the latest socket as the server of the client's dialect does. */
  async accept() {
    const socket = await this.socket();
    const v1 = socket.protocols.includes(V1);
    socket.accept(v1 ? V1 : "");
    if (v1) socket.say(this.hello);
    await settled();
    return socket;
  }
}

/** A Multiplex and the network it lives in. Retry number n comes after n seconds. */
export function multiplex({ url = "ws://host/ws/", ...options } = {}) {
  const network = new Network();
  const { WebSocket } = network;
  const mux = new Multiplex(url, { WebSocket, backoff: (attempt) => 1000 * attempt, ...options });
  return { mux, network };
}

/** The same with a stream open: `mux[method](path)`, known to a v1 server as "1". */
export async function connected({ path = "echo", method = "open", ...options } = {}) {
  const { mux, network } = multiplex(options);
  const stream = mux[method](path);
  const socket = await network.accept();
  if (options.dialect !== "bare") socket.opened("1");
  return { mux, network, stream, socket };
}

/** What *target* emits from now on: the type, then the data, code or message. */
export function log(target) {
  const events = [];
  for (const type of ["open", "message", "reopening", "reconnecting", "error", "close"])
    target.addEventListener(type, ({ data, code, detail }) => {
      const what = data ?? code ?? detail?.code;
      events.push(what === undefined ? [type] : [type, what]);
    });
  return events;
}

/** The next event of that type. */
export const event = async (target, type) => (await once(target, type))[0];

/**
 * Timers that the test turns, to be had before any is set: a real one could not
 * be cleared any more.
 */
export function clock(t) {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  return t.mock.timers;
}

/** The socket is lost, a second goes by, and the next one is open. */
export async function reconnected(timers, { network, socket }) {
  socket.lose();
  timers.tick(1000);
  return network.accept();
}

/** After its end a client holds no stream and has no timer; for tests without a clock(). */
export async function assertNothingLeft(mux) {
  mux.close();
  await settled();
  assert.equal(mux.streams.size, 0);
  assert.equal(mux.socket, null);
  assert.deepEqual(
    process.getActiveResourcesInfo().filter((kind) => kind === "Timeout"),
    [],
  );
}
