// What all nodes say, kept for some minutes: statuses (one a second) and consensus events.
//
// Times of other nodes are moved by the least difference seen between their sending and our node's receiving, so that
// an order of events across nodes means something even where clocks differ.

const KEPT_MS = 10 * 60 * 1000;
const EVENTS_MAX = 20000;
const STATUSES_MAX = 700;
const SWEEP_MS = 10000;
export const EVERYDAY = new Set(["appended", "matched", "committed"]);
const OFFSETS_KEPT = 20;
const DELAY_MS_MAX = 250;

export const SILENT_MS = 3500;

class NodeRecord {
  constructor(name) {
    this.name = name;
    this.statuses = [];
    this.offsets = [];
    this.heard_ms = 0;
    this.lastNumber = 0;
    this.lastTime_ms = 0;
  }

  get status() {
    return this.statuses.length ? this.statuses[this.statuses.length - 1].status : null;
  }

  offsetOf(message) {
    this.offsets.push(message.received_ms - message.sent_ms);
    if (this.offsets.length > OFFSETS_KEPT) this.offsets.shift();
    const least = Math.min(...this.offsets);
    // A delay on the way, not a clock that is off: most clusters have their clocks within a millisecond.
    return least >= 0 && least < DELAY_MS_MAX ? 0 : least;
  }

  // Events that were not seen yet: the first message of a page repeats some.
  fresh(events, offset_ms) {
    const found = [];
    for (const event of events) {
      const isNew = event.number > this.lastNumber || event.time_ms > this.lastTime_ms;
      if (!isNew) continue;
      this.lastNumber = event.number;
      this.lastTime_ms = event.time_ms;
      found.push({ ...event, node: this.name, at_ms: event.time_ms + offset_ms });
    }
    return found;
  }
}

export class Live extends EventTarget {
  constructor() {
    super();
    this.nodes = new Map();
    this.events = [];
    this.own = "";
    this.state = "connecting";
    this.skew_ms = 0;
    this.missed = 0;
    this.source = null;
  }

  // The browser's clock may be off: all shown times are those of the node that serves the page.
  now() {
    return Date.now() + this.skew_ms;
  }

  open() {
    this.close();
    this.source = new EventSource("/api/v1/live");
    this.source.addEventListener("hello", (event) => {
      this.own = JSON.parse(event.data).node;
      this.setState("open");
    });
    this.source.addEventListener("observation", (event) => this.take(JSON.parse(event.data)));
    this.source.addEventListener("error", () => this.setState("lost"));
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  setState(state) {
    if (state === "open" && this.state !== "open") this.dispatchEvent(new Event("reopened"));
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  // This node's own word comes first, then those it names; names sorted.
  names() {
    const names = new Set([...this.nodes.keys()]);
    for (const peer of this.nodes.get(this.own)?.status?.peers ?? []) names.add(peer.name);
    return [...names].sort();
  }

  isSilent(name, at_ms = this.now()) {
    const record = this.nodes.get(name);
    return !record || at_ms - record.heard_ms > SILENT_MS;
  }

  statusAt(name, at_ms) {
    const statuses = this.nodes.get(name)?.statuses ?? [];
    let low = 0;
    let high = statuses.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (statuses[middle].at_ms <= at_ms) low = middle + 1;
      else high = middle;
    }
    return low ? statuses[low - 1] : null;
  }

  take(message) {
    if (!this.nodes.has(message.node)) this.nodes.set(message.node, new NodeRecord(message.node));
    const record = this.nodes.get(message.node);
    if (message.node === this.own) {
      const skew = message.received_ms - Date.now();
      this.skew_ms = this.skew_ms ? Math.max(skew, this.skew_ms - 1) : skew;
    }
    const offset = record.offsetOf(message);
    record.heard_ms = message.received_ms;
    this.missed += message.missed_count;
    if (message.status) {
      record.statuses.push({ at_ms: message.sent_ms + offset, status: message.status });
      while (record.statuses.length > STATUSES_MAX) record.statuses.shift();
    }
    const fresh = record.fresh(message.events, offset);
    if (fresh.length) this.keep(fresh);
    if (message.status) this.dispatchEvent(new Event("status"));
  }

  // Everyday replication is kept for minutes; elections are few, and are kept as long as there is room.
  forget() {
    const oldest = this.now() - KEPT_MS;
    if (this.events.length <= EVENTS_MAX && (this.swept_ms ?? 0) > this.now() - SWEEP_MS) return;
    this.swept_ms = this.now();
    this.events = this.events.filter((event) => event.at_ms >= oldest || !EVERYDAY.has(event.kind)).slice(-EVENTS_MAX);
  }

  // Sorted by time; what comes late is put in its place.
  keep(fresh) {
    for (const event of fresh) {
      let place = this.events.length;
      while (place > 0 && this.events[place - 1].at_ms > event.at_ms) place -= 1;
      this.events.splice(place, 0, event);
    }
    this.forget();
    this.dispatchEvent(new CustomEvent("events", { detail: fresh }));
  }
}

export async function getJson(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) document.dispatchEvent(new Event("login"));
  if (!answer.ok) throw new Error(body.error ?? `the node answered ${answer.status}`);
  return body;
}
