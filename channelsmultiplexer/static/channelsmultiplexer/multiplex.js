/**
 * One WebSocket, many streams; each is used as a WebSocket of its own.
 *
 *     import { Multiplex } from "{% static 'channelsmultiplexer/multiplex.js' %}";
 *
 *     const mux = new Multiplex("/ws/");
 *     const room = mux.open("rooms/42/");        // instead of new WebSocket(...)
 *     for await (const value of mux.stream("ticker")) show(value);
 *
 * Speaks both dialects of the wire protocol. One file without imports, since
 * Django's static storage doesn't rewrite them. Sets no global name; `document`,
 * `location` and `window` may be missing (workers, Node). multiplex.d.ts has
 * the types. A leading underscore marks what the classes here share.
 */

const V1 = "channelsmultiplexer.v1";
const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];

// What was up this long failed by accident: count retries from one again. If
// opening were enough, a server that accepts and then closes would be called
// without pause.
const STEADY = 5000;

// For a handshake that hangs after a change of network; browsers wait minutes.
const HANDSHAKE = 30000;

// Codes of a stream after which asking again can help: wire protocol, Codes.
const LATER = [1011, 1012, 1013, 4429];

// Errors that answer an open, and then nothing else does.
const UNOPENED = ["invalid-envelope", "stream-in-use", "unknown-stream"];

const WAKING = ["online", "visibilitychange"];

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const size = (data) => data.size ?? data.byteLength ?? encoder.encode(data).length;
const evaluate = (value) => (typeof value === "function" ? value() : value);

/**
 * The delay in ms before retry number *attempt*, which counts from 1: anything
 * from zero to a ceiling that doubles from 0.5 s to 30 s ("full jitter"), so
 * that the clients of a restarted server spread out.
 */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(30000, 250 * 2 ** attempt);
}

/** The close event these arguments ask for; raises what WebSocket.close() does. */
function ending(code = 1000, reason = "") {
  if (+code !== 1000 && !(code >= 3000 && code <= 4999))
    throw new DOMException(`code must be 1000 or 3000 to 4999, not ${code}`, "InvalidAccessError");
  if (size(`${reason}`) > 123)
    throw new DOMException("reason must be at most 123 bytes of UTF-8", "SyntaxError");
  return { code: +code, reason: `${reason}`, wasClean: true };
}

/** What a reader or a request fails with when its stream is gone. */
const failure = ({ code, reason }) =>
  Object.assign(new Error(`stream closed with ${code} ${reason}`), { code, reason });

/** A text frame with *json*, encoded already. The stream "" has no envelope. */
const encode = (id, key, json) => (id ? `{"stream":${JSON.stringify(id)},"${key}":${json}}` : json);

function encodeBinary(id, bytes) {
  const name = encoder.encode(id);
  const frame = new Uint8Array(1 + name.length + bytes.length);
  frame.set([name.length, ...name]);
  frame.set(bytes, 1 + name.length);
  return frame;
}

/** What a socket's end and a stream have in common: states, events, retries. */
class Endpoint extends EventTarget {
  // Retries since the last steady time.
  _tries = 0;
  // When it opened; NaN once a loss has been counted against it.
  _since = NaN;
  // The retry to come.
  _timer;

  constructor(...types) {
    super();
    // Listeners rather than calls: EventTarget reports an exception in one, and
    // the code that emits the event goes on.
    for (const type of types) {
      this["on" + type] = null;
      this.addEventListener(type, (event) => this["on" + type]?.(event));
    }
  }

  _emit(type, fields = {}) {
    // Node 20 has no CloseEvent; an Event with its fields will do.
    const Kind = globalThis[{ message: "MessageEvent", close: "CloseEvent" }[type]] ?? Event;
    const event = new Kind(type, fields);
    for (const name in fields) if (!(name in event)) event[name] = fields[name];
    this.dispatchEvent(event);
  }

  _fail(code, error) {
    this._emit("error", { detail: { code, message: `${error}`, error } });
  }

  _retry(backoff, again) {
    if (Date.now() - this._since >= STEADY) this._tries = 0;
    this._since = NaN;
    const attempt = ++this._tries;
    const delay = backoff(attempt);
    this._timer = setTimeout(again, delay);
    return { attempt, delay };
  }
}

Object.assign(Endpoint.prototype, { CONNECTING, OPEN, CLOSING, CLOSED });

/**
 * A stream with the face of a WebSocket. It differs from one in this:
 *
 * - When the socket is lost, or the server closes the stream with a code that
 *   means "later", it goes back to CONNECTING, says so by `reopening` (`code`,
 *   `reason`), and opens again: another `open`, whose `reopened` is true. The
 *   application at the other end is a new one, so subscribe in `open`.
 * - `send()` while CONNECTING waits, in a queue of `maxQueue` frames; raises
 *   QuotaExceededError when that is full. Nothing is sent twice: what had gone
 *   out when the stream was lost is lost, and so is what had gone out ahead of
 *   an acceptance that turned out to be a refusal.
 * - `message` has a payload's text as JSON.stringify() writes it.
 * - `url` is the path last asked for; `bufferedAmount` includes the socket's.
 *
 * `close` comes exactly once, at the true end, and nothing after it.
 */
class Stream extends Endpoint {
  readyState = CONNECTING;
  protocol = "";
  extensions = "";
  binaryType = "blob";
  framesSent = 0;
  bytesSent = 0;
  framesReceived = 0;
  bytesReceived = 0;
  // Its name on the present socket, from the moment it is asked for there.
  _id;
  // How it ended, and whether that was our side's wish.
  _ended;
  _left = false;

  #path;
  #protocols;
  // Frames the socket hasn't got yet, in order. One without `encode` is a Blob
  // whose bytes are being read; it holds up those behind it.
  #queue = [];
  // Identity of the opening under way. Another one after an await means that
  // the stream was lost or closed meanwhile.
  #attempt;
  // An earlier opening reached the wire.
  #reopened = false;

  constructor(mux, path, protocols = []) {
    super("open", "message", "error", "close", "reopening");
    this._mux = mux;
    this.#path = path;
    this.#protocols = [].concat(protocols);
    this.url = typeof path === "function" ? "" : path;
  }

  get bufferedAmount() {
    const own = this.#queue.reduce((sum, { data = "" }) => sum + size(data), 0);
    return own + (this._mux.socket?.bufferedAmount ?? 0);
  }

  send(data) {
    if (data instanceof Blob) {
      const entry = this._post(data);
      data
        .arrayBuffer()
        .then((buffer) => (entry.encode = (id) => encodeBinary(id, new Uint8Array(buffer))))
        .catch((error) => (this._withdraw(entry), this._fail("blob", error)))
        .then(() => this.#flush());
    } else if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
      // A copy: the caller may write to the buffer as soon as send() returns.
      const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength).slice();
      this._post(bytes, (id) => encodeBinary(id, bytes));
    } else {
      const text = `${data}`;
      let key = "payload";
      let json = text;
      try {
        JSON.parse(text);
      } catch {
        key = "text";
        json = JSON.stringify(text);
      }
      this._post(text, (id) => encode(id, key, json));
    }
  }

  close(code, reason) {
    const event = ending(code, reason);
    if (this.readyState >= CLOSING) return;
    this.readyState = CLOSING;
    this._left = true;
    // In bare the server knows nothing of one stream's end, and what isn't on
    // this socket has no answer to wait for.
    if (!this._mux._v1 || !this._id) return this._finish(event);
    const { wasClean, ...fields } = event;
    this.#queue.push({ encode: (id) => JSON.stringify({ op: "close", stream: id, ...fields }) });
    this.#flush();
  }

  /** Queue a frame; *encode* gives its wire form from the stream's name there. */
  _post(data, encode) {
    const entry = { data, encode };
    // As a WebSocket does: what is sent after close() is dropped.
    if (this.readyState > OPEN) return entry;
    this.#queue.push(entry);
    this.#flush();
    const { _maxQueue } = this._mux;
    if (this.#queue.length > _maxQueue) {
      this.#queue.pop();
      throw new DOMException(`${_maxQueue} frames are waiting already`, "QuotaExceededError");
    }
    return entry;
  }

  _withdraw(entry) {
    this.#queue = this.#queue.filter((other) => other !== entry);
  }

  #flush() {
    // A socket that is CLOSING discards what it is given, without a word.
    const { socket } = this._mux;
    while (this._id !== undefined && socket?.readyState === OPEN && this.#queue[0]?.encode) {
      const { data, encode } = this.#queue.shift();
      const frame = encode(this._id);
      socket.send(frame);
      if (data === undefined) continue;
      this.framesSent++;
      this.bytesSent += size(frame);
    }
  }

  /** Ask for the stream on the socket, which is open. */
  async _begin() {
    const attempt = (this.#attempt = {});
    const mux = this._mux;
    let path;
    try {
      path = await evaluate(this.#path);
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this._lost({}, true);
      return this._fail("path", error);
    }
    if (attempt !== this.#attempt || mux.socket.readyState !== OPEN) return;
    this.url = path;
    this._id = mux._v1 ? `${++mux._lastId}` : path;
    if (mux._v1) mux._send({ op: "open", stream: this._id, path, subprotocols: this.#protocols });
    this.#flush();
    // In bare the connection itself has started every application.
    if (!mux._v1) this._opened({});
  }

  _opened({ subprotocol }) {
    // When CLOSING, the acceptance and our close crossed: `closed` will follow.
    if (this.readyState !== CONNECTING) return;
    this.readyState = OPEN;
    this.protocol = subprotocol ?? "";
    this._since = Date.now();
    this._emit("open", { reopened: this.#reopened });
  }

  _deliver(frame, bytes) {
    if (this.readyState !== OPEN) return;
    this.framesReceived++;
    this.bytesReceived += bytes;
    let data = frame;
    if (!(frame instanceof ArrayBuffer)) data = this._decode(frame);
    else if (this.binaryType === "blob") data = new Blob([frame]);
    this._emit("message", { data });
  }

  _decode({ text, payload }) {
    return text ?? JSON.stringify(payload);
  }

  _closed({ code, reason = "" }) {
    const event = { code, reason, wasClean: true };
    if (!this._left && this._mux._shouldReconnect(event, this)) this._lost(event, true);
    else this._finish(event);
  }

  /** Back to CONNECTING, for a retry of its own (*later*) or for the next socket. */
  _lost(event, later) {
    if (this._left) return this._finish(event);
    const sent = this._id !== undefined;
    this.#rest();
    this.readyState = CONNECTING;
    if (later) this._retry(this._mux._backoff, () => this._begin());
    if (!sent) return;
    this.#reopened = true;
    // Last, since a listener may close the stream.
    this._emit("reopening", event);
  }

  _finish(event) {
    if (this._ended) return;
    this._ended = event;
    // Where a WebSocket fires `error` too: refused, or cut off.
    const failed = !event.wasClean || (this.readyState === CONNECTING && !this._left);
    this.readyState = CLOSING;
    this.#queue = [];
    this.#rest();
    this._mux._forget(this, event);
    // Never from within close(), whose caller may yet add listeners.
    queueMicrotask(() => {
      this.readyState = CLOSED;
      if (failed) this._emit("error", { detail: { code: event.code, message: event.reason } });
      this._emit("close", event);
    });
  }

  #rest() {
    this._id = this.#attempt = undefined;
    clearTimeout(this._timer);
  }
}

/**
 * A stream of JSON values. As Stream, but `send()` takes any value that JSON
 * has a form for (else TypeError) and `message` has the value as its `data`.
 * Text that isn't JSON arrives as a string, bytes by `binaryType`.
 */
class JSONStream extends Stream {
  send(value) {
    this.#write(value);
  }

  #write(value) {
    const json = JSON.stringify(value);
    if (json === undefined) throw new TypeError(`JSON has no form for ${typeof value}`);
    return this._post(json, (id) => encode(id, "payload", json));
  }

  _decode({ text, payload }) {
    return text ?? payload;
  }

  /**
   * Send *value*, an object, and promise the first message with its
   * `request_id`, which is added unless it has one. The message is dispatched
   * as well.
   *
   * Rejects with a TimeoutError after *timeout* ms; with the reason of *signal*
   * when it is aborted; with what `send()` raises; and when the stream closes
   * or is lost with an Error that has `code` and `reason`: whether the request
   * was carried out is unknown then. One that still waits to be sent when the
   * promise settles isn't sent.
   */
  request(value, { timeout, signal } = {}) {
    const settled = new AbortController();
    let entry, timer;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this._ended) throw failure(this._ended);
      const request_id = value.request_id ?? Math.random().toString(36).slice(2);
      const options = { signal: settled.signal };
      const on = (target, type, act) => target?.addEventListener(type, act, options);
      const fail = (event) => reject(failure(event));
      on(this, "message", ({ data }) => data?.request_id === request_id && resolve(data));
      on(this, "reopening", fail);
      on(this, "close", fail);
      on(signal, "abort", () => reject(signal.reason));
      const expire = () => reject(new DOMException(`no answer in ${timeout} ms`, "TimeoutError"));
      if (timeout !== undefined) timer = setTimeout(expire, timeout);
      entry = this.#write({ ...value, request_id });
    }).finally(() => {
      settled.abort();
      clearTimeout(timer);
      this._withdraw(entry);
    });
  }

  /**
   * Read messages from now on, across reopenings.
   *
   * Ends when our side closed the stream, or on the codes 1000, 1001 and 1005;
   * any other raises an Error with `code` and `reason`. The buffer holds
   * `maxQueue` messages and its policy is *fail*: a reader that falls further
   * behind gets those, and then an Error with the code "overflow". The stream
   * goes on. To skip messages instead, use a `message` listener.
   */
  async *[Symbol.asyncIterator]() {
    const inbox = [];
    const finished = new AbortController();
    const options = { signal: finished.signal };
    let overflow = false;
    let wake;
    const take = ({ data }) => {
      overflow ||= inbox.length >= this._mux._maxQueue;
      if (!overflow) inbox.push(data);
      wake?.();
    };
    this.addEventListener("message", take, options);
    this.addEventListener("close", () => wake?.(), options);
    try {
      for (;;) {
        while (inbox.length) yield inbox.shift();
        if (overflow)
          throw failure({ code: "overflow", reason: "for its reader, which fell behind" });
        if (this.readyState === CLOSED) break;
        await new Promise((resolve) => (wake = resolve));
      }
      if (!this._left && ![1000, 1001, 1005].includes(this._ended.code)) throw failure(this._ended);
    } finally {
      finished.abort();
    }
  }
}

/**
 * The client's end of a socket.
 *
 * The first `open()` or `stream()` opens the socket, and it stays until
 * `close()`. If it is lost while streams are left, it is opened again after a
 * delay, or at once when the browser comes online or the page becomes visible,
 * and the streams on it.
 *
 * Events: `open`; `reconnecting` (`attempt`, `delay` in ms, `code`, `reason`);
 * `error` (`detail`: `code`, `message`, and, where there is one, `stream` or
 * `error`); `close` (`code`, `reason`, `wasClean`) when it won't come back by
 * itself. The next `open()` starts anew even then.
 */
export class Multiplex extends Endpoint {
  readyState = CLOSED;
  // The WebSocket, or null between two.
  socket = null;
  // Every stream that hasn't ended.
  streams = new Set();
  // The greatest id used on the present socket.
  _lastId = 0;

  #url;
  #protocols;
  #WebSocket;
  #hook;
  // Silence in ms before a ping, from the server's hello; 0 is no limit.
  #heartbeat = 0;
  // What to do about silence.
  #alarm;
  // Identity of the connecting under way, as Stream's.
  #attempt;

  /**
   * Args:
   *   url: Relative ("/ws/"), absolute, or a function that returns or promises
   *     one, called for each attempt.
   *   dialect: "v1", or "bare" for a server that speaks no protocol of ours.
   *   protocols: Offered after the dialect's own.
   *   WebSocket: The class of the socket.
   *   backoff: Gives the delay in ms before a retry from its number, from 1.
   *   maxQueue: How many frames may wait in a stream, each way.
   *   shouldReconnect: Called with `{code, reason, wasClean}` of the socket, or
   *     of a stream, its second argument. Undefined leaves it to the default: a
   *     socket comes back unless the code is 1008 or 4400 to 4499; a stream
   *     that the server closed, only after 1011, 1012, 1013 and 4429.
   */
  constructor(url, options = {}) {
    super("open", "close", "error", "reconnecting");
    const { dialect = "v1", protocols, maxQueue = 1000 } = options;
    if (dialect !== "v1" && dialect !== "bare")
      throw new TypeError(`dialect must be "v1" or "bare", not ${dialect}`);
    this._v1 = dialect === "v1";
    this._backoff = (attempt) => this.#ask(options.backoff, attempt) ?? backoff(attempt);
    this._maxQueue = maxQueue;
    this.#url = url;
    this.#protocols = (this._v1 ? [V1] : []).concat(protocols ?? []);
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#hook = options.shouldReconnect;
  }

  /**
   * Open a stream; *path* is a string, or a function that returns or promises
   * one, called for each opening. In bare it is an application's name, and ""
   * stands for frames without an envelope.
   */
  open(path, protocols) {
    return this.#start(new Stream(this, path, protocols));
  }

  /** Open a stream of JSON values. */
  stream(path, protocols) {
    return this.#start(new JSONStream(this, path, protocols));
  }

  /** Close every stream, and the socket, with *code* and *reason*. */
  close(code, reason) {
    const event = ending(code, reason);
    const { socket } = this;
    for (const stream of this.streams) stream._left = true;
    this.#end(event);
    socket?.close(event.code, event.reason);
  }

  #start(stream) {
    this.streams.add(stream);
    if (this.readyState === OPEN) stream._begin();
    else if (this.readyState === CLOSED) this.#connect();
    return stream;
  }

  async #connect() {
    const attempt = (this.#attempt = {});
    this.#rest();
    this.readyState = CONNECTING;
    this.#watch(HANDSHAKE, () => this.#drop("no answer"));
    let socket;
    try {
      const url = new URL(await evaluate(this.#url), globalThis.location?.href);
      if (attempt !== this.#attempt) return;
      socket = new this.#WebSocket(url.href.replace(/^http/, "ws"), this.#protocols);
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this._fail("connect", error);
      return this.#lost({ code: 1006, reason: `${error}`, wasClean: false });
    }
    // A socket we have given up may go on to speak for minutes.
    const on = (type, act) =>
      socket.addEventListener(type, (event) => this.socket === socket && act(event));
    on("open", () => this.#opened());
    on("message", ({ data }) => this.#receive(data));
    on("error", () => {
      const hint = this._v1 && this.readyState < OPEN ? `; does the server speak ${V1}?` : "";
      this._fail("socket", `the socket failed${hint}`);
    });
    on("close", (event) => this.#lost(event));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
  }

  #opened() {
    const { socket } = this;
    // Some browsers fail a handshake that selects nothing of what was offered;
    // others leave it to us, and a server may select another one.
    if (this._v1 && socket.protocol !== V1) {
      const reason = `the server doesn't speak ${V1}; try dialect "bare"`;
      this._fail("dialect", reason);
      this.#end({ code: 1002, reason, wasClean: false });
      return socket.close();
    }
    this.readyState = OPEN;
    this._since = Date.now();
    this._lastId = 0;
    // In v1 the alarm stays set for the hello. The opens don't wait for that:
    // it has nothing they need, as the server answers each one too many.
    if (!this._v1) this.#watch();
    for (const stream of this.streams) stream._begin();
    this._emit("open");
  }

  #receive(data) {
    this.#beat();
    const bytes = size(data);
    if (typeof data !== "string") {
      const start = 1 + new Uint8Array(data)[0];
      const id = decoder.decode(data.slice(1, start));
      return this.#route(id, (stream) => stream._deliver(data.slice(start), bytes));
    }
    let frame;
    try {
      frame = JSON.parse(data);
    } catch (error) {
      return this._fail("invalid-json", error);
    }
    const { op, stream: id, error } = frame ?? {};
    if (this._v1 && op) this.#control(op, id, frame);
    else if (id) this.#route(id, (stream) => stream._deliver(frame, bytes));
    else if (error) this.#complain(error);
    else this.#route("", (stream) => stream._deliver({ payload: frame }, bytes));
  }

  #control(op, id, frame) {
    switch (op) {
      case "hello":
        this.#heartbeat = frame.heartbeat * 1000;
        return this.#beat();
      case "opened":
        return this.#route(id, (stream) => stream._opened(frame));
      case "closed":
        return this.#route(id, (stream) => stream._closed(frame));
      case "error":
        return this.#complain(frame);
      case "ping":
        return this._send({ op: "pong" });
      case "pong":
        return;
      default:
        // The protocol asks it of a receiver, so that ops can be added.
        this._send({ op: "error", stream: id ?? null, code: "unknown-op", message: op });
    }
  }

  #complain({ code, message, stream: id }) {
    const fields = { detail: { code, message, stream: id } };
    this._emit("error", fields);
    this.#route(id, (stream) => {
      // Before opened, or behind our close, one of these means that the server
      // doesn't know the stream: it took the open for a bad frame.
      if (stream.readyState !== OPEN && UNOPENED.includes(code))
        stream._finish({ code: 1006, reason: message, wasClean: false });
      else stream._emit("error", fields);
    });
  }

  // Looks at each stream rather than keep a map by id: at most `max_streams`
  // comparisons, less than parsing the frame takes, and nothing to keep right.
  // In bare several streams may share a name. A name of none belongs to a
  // stream that has ended, while the frame was on the wire.
  #route(id, act) {
    for (const stream of this.streams) if (stream._id === id) act(stream);
  }

  /** Any message is a sign of life. After a silence ask for one; after two, give up. */
  #beat() {
    this.#watch(this.#heartbeat, () => {
      this._send({ op: "ping" });
      this.#watch(this.#heartbeat, () => this.#drop("no pong"));
    });
  }

  #watch(delay, act) {
    clearTimeout(this.#alarm);
    if (delay) this.#alarm = setTimeout(act, delay);
  }

  /** Leave the socket without its closing handshake, which would need the network. */
  #drop(reason) {
    const { socket } = this;
    this.#lost({ code: 1006, reason, wasClean: false });
    socket?.close();
  }

  #lost({ code, reason, wasClean }) {
    const event = { code, reason, wasClean };
    this.#rest();
    this.socket = this.#attempt = null;
    // In this order: the page's shouldReconnect may close streams, or us.
    if (!this._shouldReconnect(event) || !this.streams.size) return this.#end(event);
    this.readyState = CONNECTING;
    const retry = this._retry(this._backoff, () => this.#connect());
    for (const type of WAKING) globalThis.addEventListener?.(type, this.#wake);
    const timer = this._timer;
    for (const stream of this.streams) stream._lost(event);
    // Unless a listener has ended the last stream, and us with it.
    if (timer === this._timer) this._emit("reconnecting", { ...event, ...retry });
  }

  #wake = ({ type }) => {
    if (type === "online" || globalThis.document?.visibilityState === "visible") this.#connect();
  };

  #end(event) {
    if (this.readyState === CLOSED) return;
    this.#rest();
    this.readyState = CLOSED;
    this.socket = this.#attempt = null;
    for (const stream of this.streams) stream._finish(event);
    queueMicrotask(() => this._emit("close", event));
  }

  /** Nothing to retry, nothing to wait for. */
  #rest() {
    this.#watch();
    this._timer = clearTimeout(this._timer);
    for (const type of WAKING) globalThis.removeEventListener?.(type, this.#wake);
  }

  _forget(stream, event) {
    this.streams.delete(stream);
    // Between two sockets, and nothing to open the next one for.
    if (!this.streams.size && !this.socket) this.#end(event);
  }

  _send(control) {
    if (this.socket.readyState === OPEN) this.socket.send(JSON.stringify(control));
  }

  _shouldReconnect(event, stream) {
    const { code } = event;
    const fatal = code === 1008 || (code >= 4400 && code <= 4499);
    return this.#ask(this.#hook, event, stream) ?? (stream ? LATER.includes(code) : !fatal);
  }

  /** What a callback of the page says; nothing if it raises, or retries would end. */
  #ask(callback, ...args) {
    try {
      return callback?.(...args);
    } catch (error) {
      // Later, since a listener may close us, and we are in the middle of a loss.
      queueMicrotask(() => this._fail("callback", error));
    }
  }
}

/**
 * The client that came with Channels 1, for pages written for it; speaks bare.
 *
 * `socket` is the Multiplex: it has the `open`, `close` and `error` of the
 * reconnecting socket of that time, and like it outlives the WebSocket.
 */
export class WebSocketBridge {
  socket = null;
  #callbacks = new Map();
  #streams = new Map();

  /** Connect; *options* are Multiplex's. */
  connect(url = "", protocols, options) {
    this.socket?.close();
    this.#streams.clear();
    this.socket = new Multiplex(url, { ...options, protocols, dialect: "bare" });
    for (const name of ["", ...this.#callbacks.keys()]) this.stream(name);
  }

  /** Call *callback* with each message that names no stream, and null. */
  listen(callback) {
    this.#callbacks.set("", (action) => callback?.(action, null));
  }

  /** Call *callback* with each message of *stream*, and its name. */
  demultiplex(stream, callback) {
    this.#callbacks.set(stream, callback);
    if (this.socket) this.stream(stream);
  }

  /** Send *message* as it is, without an envelope. */
  send(message) {
    this.stream("").send(message);
  }

  /** The stream of that name, made once; `send(action)` sends to it. */
  stream(name) {
    if (!this.#streams.has(name)) {
      const stream = this.socket.stream(name);
      stream.onmessage = ({ data }) => this.#callbacks.get(name)?.(data, name);
      this.#streams.set(name, stream);
    }
    return this.#streams.get(name);
  }
}
