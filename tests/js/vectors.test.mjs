/** The wire format as both ends have it: the cases of tests/vectors/envelope.json. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { connected } from "./server.mjs";

const file = new URL("../vectors/envelope.json", import.meta.url);

// The form of a case, and the one place that knows it:
//   {"name", "frame": text or {"hex"}, "stream", and "payload" or "text" or "bytes" (hex)}
//   {"name", "frame", "error": code}
const bytes = (hex) => [...Buffer.from(hex, "hex")];
const wire = ({ frame }) => (typeof frame === "string" ? frame : bytes(frame.hex));
const received = (data) => (data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data);
const expected = (vector) =>
  "bytes" in vector ? bytes(vector.bytes) : "text" in vector ? vector.text : vector.payload;

if (!existsSync(file))
  test("vectors", { skip: "tests/vectors/envelope.json isn't there" }, () => {});
else
  for (const vector of JSON.parse(readFileSync(file, "utf8")))
    test(`vector: ${vector.name}`, async () => {
      const { mux, stream, socket } = await connected({
        dialect: "bare",
        method: "stream",
        path: vector.stream ?? "echo",
      });
      stream.binaryType = "arraybuffer";
      const messages = [];
      stream.onmessage = ({ data }) => messages.push(received(data));
      socket.say(wire(vector));
      assert.deepEqual(messages, "error" in vector ? [] : [expected(vector)]);
      mux.close();
    });
