/** Types of multiplex.js; what the names do is said there. */

/** A value that JSON can carry. */
export type JSONValue =
  string | number | boolean | null | JSONValue[] | { [key: string]: JSONValue };

/** Something, or a function that returns or promises it, called for each attempt. */
export type Fresh<T> = T | (() => T | Promise<T>);

/** Code and reason of an end, or of a loss. */
export interface Ending {
  readonly code: number;
  readonly reason: string;
  readonly wasClean: boolean;
}

/**
 * What went wrong.
 *
 * The server's codes are those of the wire protocol. Ours, on the client:
 * "connect" (the url, or making the socket), "socket", "dialect",
 * "invalid-json", "callback" (an option that raised); on a stream: "path",
 * "blob", and the number that closes it.
 */
export interface Fault {
  readonly code: string | number;
  readonly message: string;
  /** The name on the wire of the stream concerned. */
  readonly stream?: string | null;
  /** What was thrown here, if something was. */
  readonly error?: unknown;
}

export interface FaultEvent extends Event {
  readonly detail: Fault;
}

export interface EndingEvent extends Event, Ending {}

export interface StreamOpenEvent extends Event {
  /** An earlier opening reached the server; what was sent to it is gone. */
  readonly reopened: boolean;
}

export interface ReconnectingEvent extends Event, Ending {
  /** Counts from 1, and from 1 again after five seconds up. */
  readonly attempt: number;
  /** Milliseconds until then. */
  readonly delay: number;
}

export interface StreamEventMap<T> {
  open: StreamOpenEvent;
  message: MessageEvent<T>;
  /** Lost, or closed with a code that means "later": it opens again by itself. */
  reopening: EndingEvent;
  error: FaultEvent;
  close: CloseEvent;
}

export interface MultiplexEventMap {
  open: Event;
  reconnecting: ReconnectingEvent;
  error: FaultEvent;
  close: CloseEvent;
}

/** addEventListener and its like, with the events of *Map*. */
interface Emitter<Map> extends EventTarget {
  addEventListener<K extends keyof Map & string>(
    type: K,
    listener: ((event: Map[K]) => unknown) | { handleEvent(event: Map[K]): unknown } | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof Map & string>(
    type: K,
    listener: ((event: Map[K]) => unknown) | { handleEvent(event: Map[K]): unknown } | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** What the two kinds of stream have in common. */
interface AnyStream<T> extends Emitter<StreamEventMap<T>> {
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSING: 2;
  readonly CLOSED: 3;

  readonly readyState: 0 | 1 | 2 | 3;
  /** The path last asked for; "" before a function has given one. */
  readonly url: string;
  /** The subprotocol the application chose, or "". */
  readonly protocol: string;
  readonly extensions: string;
  binaryType: BinaryType;
  /** Bytes that wait in the stream and in the socket all streams share. */
  readonly bufferedAmount: number;

  /** Frames of data, and their bytes on the socket, envelope included. */
  readonly framesSent: number;
  readonly bytesSent: number;
  readonly framesReceived: number;
  readonly bytesReceived: number;

  // What our events have beyond a WebSocket's is optional in these handlers, so that
  // a stream is a WebSocket to code that wants one.
  onopen: ((event: Event & Partial<StreamOpenEvent>) => unknown) | null;
  onmessage: ((event: MessageEvent<T>) => unknown) | null;
  onreopening: ((event: EndingEvent) => unknown) | null;
  onerror: ((event: Event & Partial<FaultEvent>) => unknown) | null;
  onclose: ((event: CloseEvent) => unknown) | null;

  /**
   * @throws DOMException InvalidAccessError: *code* isn't 1000 or 3000 to 4999.
   * @throws DOMException SyntaxError: *reason* is over 123 bytes of UTF-8.
   */
  close(code?: number, reason?: string): void;
}

/** What open() returns: used as a WebSocket. */
export interface Stream extends AnyStream<any> {
  /** @throws DOMException QuotaExceededError: `maxQueue` frames are waiting. */
  send(data: string | ArrayBufferLike | ArrayBufferView | Blob): void;
}

export interface RequestOptions {
  /** Milliseconds; without it a request waits as long as the stream lives. */
  timeout?: number;
  signal?: AbortSignal;
}

/** What a request or a reader fails with when the stream closes or is lost. */
export interface StreamError extends Error {
  /** The code of the end; "overflow" for a reader that fell behind. */
  readonly code: number | "overflow";
  readonly reason: string;
}

/** What stream() returns: JSON values. */
export interface JSONStream<T = any> extends AnyStream<T>, AsyncIterable<T> {
  /**
   * @throws TypeError: JSON has no form for *value*.
   * @throws DOMException QuotaExceededError: `maxQueue` frames are waiting.
   */
  send(value: unknown): void;
  /** Resolves with the first message that has the same `request_id`. */
  request<R = T>(value: object, options?: RequestOptions): Promise<R>;
  [Symbol.asyncIterator](): AsyncGenerator<T, void, undefined>;
}

export interface MultiplexOptions {
  /** "v1" by default. */
  dialect?: "v1" | "bare";
  /** Subprotocols offered besides the dialect's own. */
  protocols?: string | string[];
  /** The class of the socket; the environment's by default. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocket;
  /** Delay in ms before a retry, given its number from 1; `backoff` by default. */
  backoff?: (attempt: number) => number;
  /** Frames that may wait in each stream, each way; 1000 by default. */
  maxQueue?: number;
  /**
   * Whether a socket, or a stream the server closed, is opened again; undefined
   * leaves it to the default.
   */
  shouldReconnect?: (event: Ending, stream?: Stream | JSONStream) => boolean | undefined;
}

export class Multiplex extends EventTarget {
  constructor(url: Fresh<string | URL>, options?: MultiplexOptions);

  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSING: 2;
  readonly CLOSED: 3;

  /** CONNECTING from the first stream on and between two sockets; never CLOSING. */
  readonly readyState: 0 | 1 | 3;
  /** The WebSocket, or null while there is none. */
  readonly socket: WebSocket | null;
  /** The streams that haven't ended, in the order they were made. */
  readonly streams: ReadonlySet<Stream | JSONStream>;

  onopen: ((event: Event) => unknown) | null;
  onreconnecting: ((event: ReconnectingEvent) => unknown) | null;
  onerror: ((event: FaultEvent) => unknown) | null;
  onclose: ((event: CloseEvent) => unknown) | null;

  open(path: Fresh<string>, protocols?: string | string[]): Stream;
  stream<T = any>(path: Fresh<string>, protocols?: string | string[]): JSONStream<T>;
  /** @throws As a stream's close(). */
  close(code?: number, reason?: string): void;

  addEventListener: Emitter<MultiplexEventMap>["addEventListener"];
  removeEventListener: Emitter<MultiplexEventMap>["removeEventListener"];
}

/** Milliseconds before retry number *attempt*, which counts from 1. */
export function backoff(attempt: number, random?: () => number): number;

export class WebSocketBridge {
  /** Null before connect(). */
  readonly socket: Multiplex | null;
  connect(
    url?: Fresh<string | URL>,
    protocols?: string | string[],
    options?: Omit<MultiplexOptions, "dialect" | "protocols">,
  ): void;
  listen(callback?: (action: any, stream: null) => unknown): void;
  demultiplex(stream: string, callback: (action: any, stream: string) => unknown): void;
  send(message: unknown): void;
  stream(name: string): JSONStream;
}

export {};
