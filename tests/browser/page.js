/**
 * What the tests' scripts find in the page: the module's names, and these.
 */

import * as channelsmultiplexer from "channelsmultiplexer";

/** The next event of that type. */
const next = (target, type) =>
  new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));

/** What *target* emits from now on: the type, then what the event says. */
function log(target) {
  const events = [];
  for (const type of ["open", "message", "reopening", "error", "close"])
    target.addEventListener(type, ({ data, code, reason, wasClean, reopened }) => {
      const what = [data, code, reason, wasClean, reopened];
      events.push([type, ...what.filter((value) => value !== undefined)]);
    });
  return events;
}

/** Bytes as an array, the name of their class ahead; anything else as it is. */
async function legible(data) {
  if (!(data instanceof Blob || data instanceof ArrayBuffer)) return data;
  return [data.constructor.name, ...new Uint8Array(await new Response(data).arrayBuffer())];
}

/** What the server has counted under that name. */
const report = async (name) => (await fetch(`/reports/${name}/`)).json();

Object.assign(globalThis, channelsmultiplexer, { next, log, legible, report });
