/*
 * The debug page's console: one stream at a time, over a socket of its own.
 *
 * What arrives is only ever put in place as text, never as HTML.
 */

const byId = (id) => document.getElementById(id);

// The page says where the module is: only Django knows what its storage made of it.
const { Multiplex } = await import(byId("multiplex").href);

const MAX_LINES = 500;

let mux;
let stream;

/** Add a line to the log. Of too many, the oldest goes. */
function note(kind, text) {
  const line = document.createElement("li");
  line.className = kind;
  line.textContent = text;
  byId("log").append(line);
  if (byId("log").childElementCount > MAX_LINES) byId("log").firstElementChild.remove();
  byId("log").scrollTop = byId("log").scrollHeight;
}

function show(state) {
  byId("state").className = `state ${state}`;
  byId("state").textContent = state;
  for (const field of byId("send").elements) field.disabled = state !== "open";
  byId("close").disabled = state === "closed";
}

const legible = (data) =>
  typeof data === "string"
    ? data
    : `${data.byteLength} bytes: ` +
      Array.from(new Uint8Array(data, 0, Math.min(data.byteLength, 64)), (byte) =>
        byte.toString(16).padStart(2, "0"),
      ).join(" ");

function open(url, path) {
  // The one before, and what it may still say.
  mux?.close();
  const mine = (mux = new Multiplex(url));
  const on = (target, type, listener) =>
    target.addEventListener(type, (event) => mux === mine && listener(event));
  stream = mine.open(path);
  stream.binaryType = "arraybuffer";
  show("connecting");
  note("note", `opening ${path} on ${url}`);
  on(stream, "open", ({ reopened }) => {
    show("open");
    note("note", reopened ? "open again" : "open");
    byId("send").elements.text.focus();
  });
  on(stream, "message", ({ data }) => note("received", legible(data)));
  on(stream, "reopening", ({ code, reason }) => {
    show("reopening");
    note("note", `lost with ${code} ${reason}`.trimEnd());
  });
  on(stream, "error", ({ detail }) => note("note", `${detail.code} ${detail.message}`.trimEnd()));
  on(mine, "error", ({ detail }) => note("note", `${detail.code} ${detail.message}`.trimEnd()));
  on(stream, "close", ({ code, reason }) => {
    show("closed");
    note("note", `closed with ${code} ${reason}`.trimEnd());
    mine.close();
  });
}

byId("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const { url, path } = event.target.elements;
  open(url.value, path.value);
});

byId("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const { text } = event.target.elements;
  stream.send(text.value);
  note("sent", text.value);
  text.value = "";
});

// Enter sends; with Shift it breaks the line.
byId("send").elements.text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("send").requestSubmit();
});

byId("close").addEventListener("click", () => stream.close());

// The lists alone, so that the console goes on.
byId("refresh").addEventListener("click", async (event) => {
  event.preventDefault();
  const response = await fetch(location.href);
  // Logged out since: have the login page shown.
  if (!response.ok || response.redirected) return location.reload();
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  byId("live").replaceWith(page.getElementById("live"));
});
