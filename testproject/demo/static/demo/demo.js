/*
 * The demo's page: one WebSocket, a card for each of its streams, and a log of the
 * frames.
 *
 * What arrives is only ever put in place as text, never as HTML.
 */

const byId = (id) => document.getElementById(id);

// The page says where the module is: only Django knows what its storage made of it.
const { Multiplex, backoff } = await import(byId("multiplex").href);

/** The browser's WebSocket. It has no event for what is sent, so send() tells. */
class ObservedWebSocket extends WebSocket {
  send(data) {
    super.send(data);
    showFrame("out", data);
  }
}

// All that the page needs to share one socket; both options are for show.
const mux = new Multiplex("/ws/", {
  WebSocket: ObservedWebSocket,
  // A second longer than it would be, so that there is something to watch.
  backoff: (attempt) => 1000 + backoff(attempt),
});

// Elements

/** Make an element that holds texts and other elements. */
function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

/** Make an element from the template of the page that has this id. */
function makeFrom(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}

/** Add a line below the others. Of more than 100, the oldest goes. */
function addLine(box, ...content) {
  const line = make("li", ...content);
  box.append(line);
  if (box.childElementCount > 100) box.firstElementChild.remove();
  box.scrollTop = box.scrollHeight;
  return line;
}

/** Call a function with a form's fields, by name, when it is submitted. */
function onSubmit(form, receiver) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    receiver(form.elements);
  });
}

const bytes = new Intl.NumberFormat("en", {
  style: "unit",
  unit: "byte",
  unitDisplay: "narrow",
  notation: "compact",
  maximumSignificantDigits: 3,
});

// The socket

const STATUSES = {
  connecting: "Connecting…",
  open: "Connected",
  reconnecting: "Reconnecting",
  closed: "Closed",
};

// The retry to come: its number, and when it is due.
let retry;

function showSocket(state, detail = "") {
  document.body.dataset.socket = state;
  byId("status").textContent = STATUSES[state];
  byId("status-detail").textContent = detail;
  byId("socket-count").textContent = state === "open" ? "1" : "no";
  byId("cut").disabled = state !== "open";
}

function showCountdown() {
  if (document.body.dataset.socket !== "reconnecting") return;
  const seconds = Math.max(0, retry.due - performance.now()) / 1000;
  const when = seconds > 0 ? `in ${seconds.toFixed(1)} s` : "is under way";
  byId("status-detail").textContent =
    `Lost with ${retry.code}. Attempt ${retry.attempt} ${when}.`;
}

mux.onopen = () => {
  showSocket("open", "Cut it, or stop the server for a while, and watch it come back.");
  // Another socket after every loss.
  mux.socket.addEventListener("message", ({ data }) => showFrame("in", data));
};

mux.onreconnecting = ({ attempt, delay, code }) => {
  retry = { attempt, code, due: performance.now() + delay };
  showSocket("reconnecting");
  showCountdown();
};

mux.onclose = ({ code }) => {
  showSocket("closed", `Closed with ${code}. The next stream opens it again.`);
};

byId("cut").addEventListener("click", () => {
  // Behind the module's back, which takes it for a loss: mux.close() would be the end.
  mux.socket.close(4000, "cut by hand");
});

// The streams

// Each has a path of its own on this page.
const cards = new Map();

const NOTICES = {
  reopening: "Opening again after",
  refused: "Refused with",
  ended: "Ended with",
};

/** A card, and a row among the streams of the socket, that live by one stream. */
class Card {
  /**
   * @param {string} path
   * @param {HTMLElement} element
   * @param {(data: any) => void} receive gets every message
   * @param {(event: {reopened: boolean}) => void} opened is called at every opening
   */
  constructor(path, element, receive = () => {}, opened = () => {}) {
    this.path = path;
    this.element = element;
    this.receive = receive;
    this.opened = opened;
    this.notice = makeFrom("notice-template");
    this.notice.querySelector("button").addEventListener("click", () => this.open());
    this.element.querySelector(".content").append(this.notice);
    this.row = makeFrom("row-template");
    this.row.dataset.kind = element.dataset.kind;
    this.row.querySelector(".path").textContent = path;
    this.row.querySelector("button").addEventListener("click", () => {
      if (this.hasEnded) this.open();
      else this.close();
    });
    byId("streams").append(this.row);
    cards.set(path, this);
    this.open();
  }

  get hasEnded() {
    return this.stream.readyState === this.stream.CLOSED;
  }

  open() {
    this.stream = mux.stream(this.path);
    this.stream.onopen = (event) => {
      this.show("open");
      this.opened(event);
    };
    this.stream.onmessage = ({ data }) => this.receive(data);
    // It opens again by itself, on the next socket or a little later on this one.
    this.stream.onreopening = (event) => this.show("reopening", event);
    // It doesn't.
    this.stream.onclose = (event) => {
      const wasOpen = ["open", "closing"].includes(this.element.dataset.state);
      this.show(wasOpen ? "ended" : "refused", event);
    };
    this.show("connecting");
    // A socket that is closed for good opens with the first stream, without an event.
    if (document.body.dataset.socket === "closed") showSocket("connecting");
  }

  close() {
    this.stream.close();
    this.show("closing");
  }

  /** Close the stream if need be, and take the card away. */
  leave() {
    if (this.hasEnded) return this.remove();
    this.stream.addEventListener("close", () => this.remove());
    this.close();
  }

  remove() {
    // The focus would be lost with the button that was pressed.
    if (this.element.contains(document.activeElement)) byId("rooms-title").focus();
    this.element.remove();
    this.row.remove();
    cards.delete(this.path);
    showCounts();
  }

  show(state, { code, reason } = {}) {
    this.element.dataset.state = this.row.dataset.state = state;
    const why = reason ? `${code}: ${reason}` : code;
    this.notice.firstElementChild.textContent =
      state in NOTICES ? `${NOTICES[state]} ${why}` : "";
    this.row.querySelector(".state").textContent = state;
    const action = this.hasEnded ? "Open" : "Close";
    const button = this.row.querySelector("button");
    button.textContent = action;
    button.ariaLabel = `${action} ${this.path}`;
    showCounts();
  }

  showCounts() {
    const { framesSent, bytesSent, framesReceived, bytesReceived } = this.stream;
    const count = (name, frames, size) => {
      this.row.querySelector(name).textContent = `${frames} · ${bytes.format(size)}`;
    };
    count(".sent", framesSent, bytesSent);
    count(".received", framesReceived, bytesReceived);
  }

  /** Let a frame run along the branch. */
  pulse(direction) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    // One dash of 30 on a path of 100: it is out of sight at 30 and at -100.
    const strokeDashoffset = direction === "in" ? [30, -100] : [-100, 30];
    const options = { duration: 600, easing: "ease-in-out" };
    this.row.querySelector(".pulse").animate({ strokeDashoffset }, options);
  }
}

function showCounts() {
  byId("stream-count").textContent = mux.streams.size;
  for (const card of cards.values()) card.showCounts();
}

// Neither the counts of frames nor the time to the next retry has an event.
setInterval(() => {
  showCounts();
  showCountdown();
}, 200);

// Frames

const FRAMES_KEPT = 200;
const FRAME_LENGTH_SHOWN = 400;

const frameCounts = { in: 0, out: 0 };
// On the wire a stream goes by a number, new on every socket.
const paths = new Map();
// Lines that wait to be shown, newest first: more than one only while paused.
const heldFrames = [];

/** Log a frame. This page's are all text; a stream's bytes would come as bytes. */
function showFrame(direction, text) {
  const { op, stream, path = paths.get(stream) } = JSON.parse(text);
  if (op === "open") paths.set(stream, path);
  byId(`count-${direction}`).textContent = ++frameCounts[direction];
  const arrow = make("span", direction === "in" ? "↓" : "↑");
  arrow.role = "img";
  arrow.ariaLabel = direction === "in" ? "received" : "sent";
  const shown =
    text.length > FRAME_LENGTH_SHOWN ? `${text.slice(0, FRAME_LENGTH_SHOWN)}…` : text;
  const line = make("li", arrow, make("code", make("b", path ?? "socket"), " ", shown));
  line.dataset.direction = direction;
  line.dataset.kind = path?.split("/")[0] ?? "socket";
  if (op === "error") line.className = "error";
  cards.get(path)?.pulse(direction);
  heldFrames.unshift(line);
  heldFrames.splice(FRAMES_KEPT);
  if (byId("pause").ariaPressed === "false") releaseFrames();
}

function releaseFrames() {
  const box = byId("frames");
  box.prepend(...heldFrames.splice(0));
  while (box.childElementCount > FRAMES_KEPT) box.lastElementChild.remove();
}

byId("pause").addEventListener("click", ({ target }) => {
  const paused = target.ariaPressed === "false";
  target.ariaPressed = String(paused);
  target.textContent = paused ? "Resume" : "Pause";
  if (!paused) releaseFrames();
});

byId("shown-kinds").addEventListener("change", ({ currentTarget }) => {
  const hidden = currentTarget.querySelectorAll("input:not(:checked)");
  byId("frames").dataset.hidden = Array.from(hidden, (box) => box.value).join(" ");
});

/** The card that stands on the page from the start. */
const cardElement = (kind) => document.querySelector(`main > [data-kind="${kind}"]`);

// metrics

const SAMPLES_SHOWN = 60;

const samples = [];

/** Draw percentages as a line that ends, now, at the right edge of the chart. */
function drawLine(selector, percentages) {
  const left = SAMPLES_SHOWN - percentages.length;
  const points = percentages.map((value, index) => `${left + index},${100 - value}`);
  byId("chart").querySelector(selector).setAttribute("points", points.join(" "));
}

function showSample(sample) {
  samples.push(sample);
  samples.splice(0, samples.length - SAMPLES_SHOWN);
  drawLine(".cpu", samples.map(({ cpu }) => cpu));
  drawLine(".memory", samples.map(({ memory }) => memory));
  byId("process").textContent = sample.process;
  byId("cpu").textContent = `${sample.cpu.toFixed(1)} %`;
  byId("memory").textContent = `${sample.memory.toFixed(1)} %`;
  byId("received").textContent = `${bytes.format(sample.received)}/s`;
  byId("sent").textContent = `${bytes.format(sample.sent)}/s`;
}

// The line begins anew with every opening: it has no gap for what wasn't measured.
new Card("metrics", cardElement("metrics"), showSample, () => samples.splice(0));

// prices

const change = new Intl.NumberFormat("en", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
  signDisplay: "exceptZero",
});

// A row of the table for each name.
const priceRows = new Map();

function receivePrice(content) {
  switch (content.event) {
    case "price":
      showPrice(content);
      break;
    case "unavailable":
      byId("prices").dataset.empty = content.reason;
      break;
  }
}

function showPrice({ name, price }) {
  const row = priceRows.get(name) ?? addPriceRow(name);
  const [, priceCell, changeCell] = row.cells;
  // No number for the first price, nor after one that is none itself.
  const percent = 100 * (price / (priceCell.textContent || NaN) - 1);
  priceCell.textContent = price;
  changeCell.textContent = Number.isFinite(percent) ? `${change.format(percent)} %` : "";
  changeCell.className = percent > 0 ? "up" : percent < 0 ? "down" : "muted";
}

/** Add a row where the alphabet has it. */
function addPriceRow(name) {
  const box = byId("prices");
  if (priceRows.size === 0) box.append(makeFrom("prices-template"));
  const heading = make("th", name);
  heading.scope = "row";
  const row = make("tr", heading, make("td"), make("td"));
  priceRows.set(name, row);
  const body = box.querySelector("tbody");
  const next = Array.from(body.rows).find((other) => other.cells[0].textContent > name);
  body.insertBefore(row, next ?? null);
  return row;
}

new Card("prices", cardElement("prices"), receivePrice);

// notes

const notes = new Card("notes", cardElement("notes"), receiveNotes);

function receiveNotes(content) {
  const list = byId("notes-list");
  switch (content.event) {
    case "list":
      list.replaceChildren(...content.notes.map(noteLine));
      break;
    case "added":
      if (!noteLineOf(content.note.id)) list.prepend(noteLine(content.note));
      break;
    case "deleted": {
      const line = noteLineOf(content.id);
      // The focus would be lost with the button that was pressed.
      if (line?.contains(document.activeElement)) list.focus();
      line?.remove();
      break;
    }
    case "refused":
      byId("notes-refusal").textContent = content.reason;
      break;
  }
}

function noteLine({ id, text }) {
  const remove = make("button", "✕");
  remove.className = "icon";
  remove.ariaLabel = `Delete note: ${text}`;
  remove.addEventListener("click", () => {
    byId("notes-refusal").textContent = "";
    notes.stream.send({ action: "delete", id });
  });
  const line = make("li", make("span", text), remove);
  line.dataset.note = id;
  return line;
}

function noteLineOf(id) {
  return byId("notes-list").querySelector(`[data-note="${Number(id)}"]`);
}

onSubmit(byId("notes-form"), ({ text }) => {
  byId("notes-refusal").textContent = "";
  notes.stream.send({ action: "add", text: text.value.trim() });
  text.value = "";
});

// echo

const echo = new Card("echo", cardElement("echo"));

/** Read JSON where there is some; any other text is a string. */
function readValue(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

onSubmit(byId("echo-form"), async ({ value }) => {
  const start = performance.now();
  const replies = byId("echo-replies");
  try {
    // What is echoed has the request's id, and so is its answer.
    const request = { value: readValue(value.value) };
    const answer = await echo.stream.request(request, { timeout: 10_000 });
    const duration = make("span", `${(performance.now() - start).toFixed(1)} ms`);
    duration.className = "muted";
    addLine(replies, make("span", JSON.stringify(answer.value)), duration);
  } catch (error) {
    addLine(replies, error.message).className = "refusal";
  }
});

// rooms

// Each tab has a name of its own, and keeps it when it is reloaded.
byId("name").value =
  sessionStorage.getItem("name") ?? `guest-${Math.floor(1000 + 9000 * Math.random())}`;

byId("name").addEventListener("change", ({ target }) => {
  sessionStorage.setItem("name", target.value);
});

function openRoom(name) {
  const path = `rooms/${name}/`;
  const there = cards.get(path);
  if (there?.hasEnded) there.open();
  if (there) return there.element.querySelector("input").focus();

  const element = makeFrom("room-template");
  const box = element.querySelector(".box");
  const refusal = element.querySelector(".refusal");
  const note = (text) => (addLine(box, text).className = "muted");
  const receive = (content) => {
    switch (content.event) {
      case "welcome":
        note(`You are in, as ${content.user || "an anonymous visitor"}.`);
        break;
      case "message":
        addLine(box, make("b", content.name), make("span", content.text));
        break;
      case "refused":
        refusal.textContent = content.reason;
        break;
    }
  };
  const opened = ({ reopened }) => reopened && note("What was said meanwhile is gone.");
  element.querySelector("h3").textContent = name;
  const card = new Card(path, element, receive, opened);
  const leave = element.querySelector("header button");
  leave.ariaLabel = `Leave ${name}`;
  leave.addEventListener("click", () => card.leave());
  onSubmit(element.querySelector("form"), ({ text }) => {
    refusal.textContent = "";
    // Not open? Then it waits in the stream until it is.
    card.stream.send({ name: byId("name").value.trim(), text: text.value.trim() });
    text.value = "";
  });
  byId("rooms").append(element);
}

onSubmit(byId("join-form"), ({ room }) => {
  openRoom(room.value);
  room.value = "";
});

openRoom("lobby");
