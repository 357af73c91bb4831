/** The wire format as both ends have it: the cases of tests/vectors/envelope.json. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { connected } from "./server.mjs";

/** A value with its generators replaced by what they generate. */
function expand(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(expand);
  if (value.repeat) return value.repeat[0].repeat(value.repeat[1]);
  if (value.join) return value.join.map(expand).join("");
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expand(item)]));
}

const file = new URL("../vectors/envelope.json", import.meta.url);
const vectors = expand(JSON.parse(readFileSync(file, "utf8")));

const bytes = (hex) => [...Buffer.from(hex, "hex")];
const wire = (frame) => (typeof frame === "string" ? frame : bytes(frame.hex));
const received = (data) => (data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data);

/** A stream of that name, by the dialect, and the messages it gets. */
async function listening(t, dialect, name) {
  const end = await connected({ dialect, method: "stream", path: name });
  t.after(() => end.mux.close());
  const messages = [];
  end.stream.binaryType = "arraybuffer";
  end.stream.onmessage = ({ data }) => messages.push(received(data));
  return { ...end, messages };
}

const read = { payload: JSON.parse, text: (value) => value, bytes };

for (const { name, dialects, to, frame, envelope } of vectors.decode)
  for (const dialect of to === "application" || !envelope ? [] : dialects)
    test(`decode, ${dialect}: ${name}`, async (t) => {
      const { socket, messages } = await listening(t, dialect, envelope.stream);
      socket.say(wire(frame));
      assert.deepEqual(messages, [read[envelope.kind](envelope.value)]);
    });

for (const { name, dialects, to, frame, error, control } of vectors.decode)
  for (const dialect of to === "application" || !(error || control) ? [] : dialects)
    test(`decode, ${dialect}: ${name}`, async (t) => {
      const { mux, stream, socket, messages } = await listening(t, dialect, "1");
      const codes = [];
      for (const end of [mux, stream])
        end.addEventListener("error", ({ detail }) => codes.push(detail.code));
      socket.say(wire(frame));
      assert.deepEqual(messages, []);
      if (error === "invalid-json") assert.deepEqual(codes, [error]);
      const { code } = socket.ops("error")[0] ?? {};
      assert.equal(code, error === "unknown-op" ? error : undefined);
    });

for (const { name, dialects, to, stream: path, text, hex, frame } of vectors.encode)
  for (const dialect of to === "client" ? [] : dialects)
    test(`encode, ${dialect}: ${name}`, async (t) => {
      const { mux, stream, socket } = await connected({ dialect, path });
      t.after(() => mux.close());
      stream.send(text ?? new Uint8Array(bytes(hex)));
      const expected = hex === undefined ? frame : bytes(frame.hex);
      assert.deepEqual(socket.frames.at(-1), expected);
    });

for (const { name, dialect, code, message, frame } of vectors.errors)
  test(`error: ${name}`, async (t) => {
    const { mux, socket, messages } = await listening(t, dialect, "1");
    const details = [];
    mux.addEventListener("error", ({ detail }) => details.push([detail.code, detail.message]));
    socket.say(frame);
    assert.deepEqual(messages, []);
    assert.deepEqual(details, [[code, message]]);
  });
