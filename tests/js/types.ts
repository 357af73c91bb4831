/** Never run, only type-checked: the whole public API, as a page would use it. */

import {
  Multiplex,
  WebSocketBridge,
  backoff,
  type JSONStream,
  type MultiplexOptions,
  type Stream,
  type StreamError,
} from "../../channelsmultiplexer/static/channelsmultiplexer/multiplex.js";

const options: MultiplexOptions = {
  dialect: "v1",
  protocols: ["token.abc"],
  WebSocket,
  backoff: (attempt) => backoff(attempt, () => 0.5),
  maxQueue: 10,
  shouldReconnect: ({ code }, stream) => (stream?.url === "a" ? code !== 4001 : undefined),
};
const mux = new Multiplex(async () => new URL("/ws/", location.href), options);
new Multiplex("/ws/");

// @ts-expect-error there is no such dialect
new Multiplex("/ws/", { dialect: "v2" });

const room: Stream = mux.open(() => "rooms/42/", "chat");
room.binaryType = "arraybuffer";
room.onopen = ({ reopened }) => room.send(reopened ? "again" : new Uint8Array(1));
room.onclose = ({ code, reason, wasClean }) => console.log(code, reason, wasClean);
room.addEventListener("reopening", ({ code }) => console.log(code.toFixed()));
room.addEventListener("error", ({ detail }) => console.log(detail.code, detail.stream), {
  once: true,
});
room.close(4000, "enough");
if (room.readyState === room.CLOSED) console.log(room.bufferedAmount, room.bytesSent);

// What takes a WebSocket's methods and events takes a stream.
const socket: Pick<WebSocket, "readyState" | "send" | "close" | "binaryType" | "url" | "protocol"> =
  room;
socket.send(new Blob());

interface Tick {
  price: number;
}
const ticker: JSONStream<Tick> = mux.stream<Tick>("ticker");
ticker.addEventListener("message", ({ data }) => data.price.toFixed());

export async function read() {
  try {
    for await (const { price } of ticker) console.log(price.toFixed());
  } catch (error) {
    console.log((error as StreamError).code);
  }
  const { data } = await ticker.request<{ data: number[] }>(
    { action: "list" },
    { timeout: 5000, signal: AbortSignal.timeout(5000) },
  );
  return data.length;
}

mux.addEventListener("reconnecting", ({ attempt, delay }) => console.log(attempt + delay));
mux.onerror = ({ detail }) => console.log(detail.message);
for (const { url, framesSent } of mux.streams) console.log(url, framesSent);
mux.socket?.close();
mux.close(1000);

// @ts-expect-error the state is the client's to set
mux.readyState = 1;

// For code that wants a WebSocket a stream is one.
const like: WebSocket = mux.open("rooms/1/");
like.onerror = (event) => console.log(event.type);

const bridge = new WebSocketBridge();
bridge.connect("/ws/", undefined, { maxQueue: 1 });
bridge.listen((action, stream) => console.log(action, stream));
bridge.demultiplex("echo", (action, stream) => console.log(action, stream.length));
bridge.stream("echo").send({ a: 1 });
bridge.send({ a: 1 });
bridge.socket?.addEventListener("open", () => {});
