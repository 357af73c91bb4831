/** The file as Django's static files serve it. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const file = new URL(
  "../../channelsmultiplexer/static/channelsmultiplexer/multiplex.js",
  import.meta.url,
);

test("the exports are the public names", async () => {
  assert.deepEqual(Object.keys(await import(file)), ["Multiplex", "WebSocketBridge", "backoff"]);
});

test("importing sets nothing global", async () => {
  const before = Reflect.ownKeys(globalThis);
  await import(`${file}?again`);
  assert.deepEqual(Reflect.ownKeys(globalThis), before);
});

test("static storage finds nothing to rewrite: no import, no source map", async () => {
  const source = await readFile(file, "utf8");
  const code = source.replace(/\/\*\*[^]*?\*\/|\/\/.*/g, "");
  assert.doesNotMatch(code, /\bimport\b/);
  assert.doesNotMatch(source, /sourceMappingURL/);
});
