/*
 * The demo's page: one WebSocket, a card for each of its four streams, and a log of
 * the frames.
 *
 * What arrives is only ever put in place as text, never as HTML.
 */

// The socket

/** One WebSocket that carries many streams. It is opened again when it is lost. */
class Multiplex {
  #url;
  #socket = null;
  #receivers = new Map();
  #onState;
  #onFrame;
  #losses = 0;

  /**
   * @param {URL} url
   * @param {(state: "open" | "lost") => void} onState
   * @param {(direction: "in" | "out", text: string, frame: object) => void} onFrame
   *   sees every frame, as it is on the wire and as what it says
   */
  constructor(url, onState, onFrame) {
    this.#url = url;
    this.#onState = onState;
    this.#onFrame = onFrame;
    this.#open();
  }

  /** Give every payload of a stream to a function. */
  receive(stream, receiver) {
    this.#receivers.set(stream, receiver);
  }

  /** Send a payload on a stream. Without a socket it is dropped. */
  send(stream, payload) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    const frame = { stream, payload };
    const text = JSON.stringify(frame);
    this.#socket.send(text);
    this.#onFrame("out", text, frame);
  }

  #open() {
    this.#socket = new WebSocket(this.#url);
    this.#socket.onopen = () => {
      this.#losses = 0;
      this.#onState("open");
    };
    this.#socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      this.#onFrame("in", data, frame);
      // An error has no stream: nobody receives it, it is for onFrame to show.
      this.#receivers.get(frame.stream)?.(frame.payload);
    };
    this.#socket.onclose = () => {
      this.#onState("lost");
      // 1, 2, 4, 8 s, and up to half as much again by chance, so that the tabs of a
      // server that comes back do not all arrive at once.
      const delay = 1000 * 2 ** Math.min(this.#losses++, 3);
      setTimeout(() => this.#open(), delay * (1 + Math.random() / 2));
    };
  }
}

// What the cards have in common

const byId = (id) => document.getElementById(id);

/** Make an element that holds texts and other elements. */
function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

/** Add a line below the others. Of more than 100, the oldest goes. */
function addLine(box, ...content) {
  box.append(make("li", ...content));
  if (box.childElementCount > 100) box.firstElementChild.remove();
  box.scrollTop = box.scrollHeight;
}

/** Call a function with a form's fields, by name, when it is submitted. */
function onSubmit(form, receiver) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    receiver(form.elements);
  });
}

// The state of the socket

const STATES = { open: "Connected", lost: "Reconnecting…" };

function showState(state) {
  document.body.dataset.socket = state;
  byId("status").textContent = STATES[state];
  // The fields stay enabled: who is typing when the socket is lost can go on.
  for (const button of document.querySelectorAll("main button")) {
    button.disabled = state !== "open";
  }
  // What was lost with the socket is neither answered nor measured later.
  echoesSentAt.length = 0;
  samples.length = 0;
}

// Frames

const FRAMES_KEPT = 200;
const FRAME_LENGTH_SHOWN = 400;

const frameCounts = { in: 0, out: 0 };
// Lines that wait to be shown, newest first: more than one only while paused.
const heldFrames = [];

function showFrame(direction, text, { stream, error }) {
  byId(`count-${direction}`).textContent = ++frameCounts[direction];
  const arrow = make("span", direction === "in" ? "↓" : "↑");
  arrow.role = "img";
  arrow.ariaLabel = direction === "in" ? "received" : "sent";
  const line = make("li", arrow, frameText(text, stream));
  line.dataset.direction = direction;
  if (error) line.className = "error";
  if (stream) {
    line.dataset.stream = stream;
    pulse(stream, direction);
  }
  heldFrames.unshift(line);
  heldFrames.splice(FRAMES_KEPT);
  if (byId("pause").ariaPressed === "false") releaseFrames();
}

/** Make the text of a frame, with the name of its stream set off. */
function frameText(text, stream) {
  const shown =
    text.length > FRAME_LENGTH_SHOWN ? `${text.slice(0, FRAME_LENGTH_SHOWN)}…` : text;
  const name = JSON.stringify(stream ?? "error");
  const [before, ...after] = shown.split(name);
  return make("code", before, make("b", name), after.join(name));
}

function releaseFrames() {
  const box = byId("frames");
  box.prepend(...heldFrames.splice(0));
  while (box.childElementCount > FRAMES_KEPT) box.lastElementChild.remove();
}

/** Let a frame run along its strand of the wire. */
function pulse(stream, direction) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const strand = document.querySelector(`.pulses [data-stream="${CSS.escape(stream)}"]`);
  // One dash of 4 on a path of 100: it is out of sight at 4 and at -100.
  const strokeDashoffset = direction === "in" ? [-100, 4] : [4, -100];
  strand?.animate({ strokeDashoffset }, { duration: 800, easing: "ease-in-out" });
}

byId("pause").addEventListener("click", ({ target }) => {
  const paused = target.ariaPressed === "false";
  target.ariaPressed = String(paused);
  target.textContent = paused ? "Resume" : "Pause";
  if (!paused) releaseFrames();
});

byId("shown-streams").addEventListener("change", ({ currentTarget }) => {
  const hidden = currentTarget.querySelectorAll("input:not(:checked)");
  byId("frames").dataset.hidden = Array.from(hidden, (box) => box.value).join(" ");
});

// The streams

const address = new URL("/ws/", location.href);
address.protocol = address.protocol === "https:" ? "wss:" : "ws:";

const multiplex = new Multiplex(address, showState, showFrame);

// echo

// When each echo still awaited was sent: a stream keeps its order.
const echoesSentAt = [];

/** Read JSON where there is some; any other text is a string. */
function readValue(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

multiplex.receive("echo", (payload) => {
  const milliseconds = performance.now() - echoesSentAt.shift();
  const duration = make("span", `${milliseconds.toFixed(1)} ms`);
  duration.className = "muted";
  addLine(byId("echo-replies"), make("span", JSON.stringify(payload)), duration);
});

onSubmit(byId("echo-form"), ({ value }) => {
  echoesSentAt.push(performance.now());
  multiplex.send("echo", readValue(value.value));
});

// metrics

const SAMPLES_SHOWN = 60;

const samples = [];
const rate = new Intl.NumberFormat("en", {
  style: "unit",
  unit: "byte-per-second",
  unitDisplay: "narrow",
  notation: "compact",
  maximumSignificantDigits: 3,
});

/** Draw percentages as a line that ends, now, at the right edge of the chart. */
function drawLine(selector, percentages) {
  const left = SAMPLES_SHOWN - percentages.length;
  const points = percentages.map((value, index) => `${left + index},${100 - value}`);
  byId("chart").querySelector(selector).setAttribute("points", points.join(" "));
}

multiplex.receive("metrics", (sample) => {
  samples.push(sample);
  samples.splice(0, samples.length - SAMPLES_SHOWN);
  drawLine(".cpu", samples.map(({ cpu }) => cpu));
  drawLine(".memory", samples.map(({ memory }) => memory));
  byId("cpu").textContent = `${sample.cpu.toFixed(1)} %`;
  byId("memory").textContent = `${sample.memory.toFixed(1)} %`;
  byId("received").textContent = rate.format(sample.received);
  byId("sent").textContent = rate.format(sample.sent);
});

// chat

const chat = byId("chat-form").elements;
// Each tab has a name of its own, and keeps it when it is reloaded.
chat.name.value =
  sessionStorage.getItem("name") ?? `guest-${Math.floor(1000 + 9000 * Math.random())}`;

multiplex.receive("chat", (payload) => {
  switch (payload.event) {
    case "welcome":
      byId("user").textContent = payload.user || "anonymous";
      break;
    case "message":
      addLine(byId("chat-messages"), make("b", payload.name), make("span", payload.text));
      break;
    case "refused":
      byId("chat-refusal").textContent = payload.reason;
      break;
  }
});

onSubmit(byId("chat-form"), ({ name, text }) => {
  byId("chat-refusal").textContent = "";
  sessionStorage.setItem("name", name.value);
  multiplex.send("chat", { name: name.value.trim(), text: text.value.trim() });
  text.value = "";
});

// notes

function noteLine({ id, text }) {
  const remove = make("button", "✕");
  remove.className = "delete";
  remove.ariaLabel = `Delete note: ${text}`;
  remove.addEventListener("click", () => {
    byId("notes-refusal").textContent = "";
    multiplex.send("notes", { action: "delete", id });
  });
  const line = make("li", make("span", text), remove);
  line.dataset.note = id;
  return line;
}

function noteLineOf(id) {
  return byId("notes-list").querySelector(`[data-note="${Number(id)}"]`);
}

multiplex.receive("notes", (payload) => {
  const list = byId("notes-list");
  switch (payload.event) {
    case "list":
      list.replaceChildren(...payload.notes.map(noteLine));
      break;
    case "added":
      if (!noteLineOf(payload.note.id)) list.prepend(noteLine(payload.note));
      break;
    case "deleted": {
      const line = noteLineOf(payload.id);
      // The focus would be lost with the button that was pressed.
      if (line?.contains(document.activeElement)) list.focus();
      line?.remove();
      break;
    }
    case "refused":
      byId("notes-refusal").textContent = payload.reason;
      break;
  }
});

onSubmit(byId("notes-form"), ({ text }) => {
  byId("notes-refusal").textContent = "";
  multiplex.send("notes", { action: "add", text: text.value.trim() });
  text.value = "";
});
