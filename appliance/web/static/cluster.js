// The cluster at a glance: what it is, what rings, each node, rates and latencies as they come.

import { colourOf, h, setClass, setText } from "./dom.js";
import * as format from "./format.js";
import { Plot } from "./plot.js";

const SPAN_S = 300;
const DAY_S = 86400;
const CERTIFICATE_SOON_S = 14 * DAY_S;

export function clusterPage(root, live) {
  const tiles = new Tiles();
  const alarms = h("section", { class: "card alarms", "aria-label": "Alarms", role: "status" });
  const list = h("ul", { class: "grid nodes", "aria-label": "Nodes" });
  const rateBox = h("div", { class: "plot", role: "img", "aria-label": "Readings a second of each node, the last five minutes" });
  const latencyBox = h("div", { class: "plot", role: "img", "aria-label": "Commit latency of each node, the last five minutes" });
  const legends = [h("div", { class: "legend" }), h("div", { class: "legend" })];
  root.append(
    h("h1", { class: "sr" }, "Cluster"), tiles.element, alarms, list,
    h("div", { class: "grid two" },
      h("section", { class: "card" }, h("h2", {}, "Readings a second"), legends[0], rateBox),
      h("section", { class: "card" }, h("h2", {}, "Commit latency (fsync of the journal, median)"), legends[1], latencyBox)));
  const cards = new Map();
  let plots = [];
  let plotted = "";

  function drawPlots(names) {
    if (plotted !== names.join()) {
      plotted = names.join();
      for (const plot of plots) plot.destroy();
      const series = names.map((name) => ({ label: name, colour: colourOf(name), spanGaps: false }));
      plots = [new Plot(rateBox, series, { format: (value) => (value < 10 && !Number.isInteger(value) ? "" : format.compact(value)) }), new Plot(latencyBox, series, { format: (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms` })];
      for (const plot of plots) plot.options.fromZero = true;
      for (const legend of legends) legend.replaceChildren(...names.map((name) => h("span", {}, h("i", { class: "dot", vars: { "--c": colourOf(name) } }), name)));
    }
    const end = Math.floor(live.now() / 1000);
    const times = Array.from({ length: SPAN_S + 1 }, (_, place) => end - SPAN_S + place);
    const column = (name, read) => times.map((time) => {
      const found = live.statusAt(name, time * 1000 + 999);
      return found && time * 1000 - found.at_ms < 2500 ? read(found.status) : null;
    });
    plots[0].set([times, ...names.map((name) => column(name, (status) => status.readings_per_second))], [end - SPAN_S, end]);
    plots[1].set([times, ...names.map((name) => column(name, (status) => status.commit_latency_us_median / 1000 || null))], [end - SPAN_S, end]);
  }

  function draw() {
    const own = live.nodes.get(live.own)?.status;
    if (!own) return;
    const names = live.names();
    tiles.show(live, names);
    showAlarms(alarms, live, names);
    for (const name of names) {
      if (!cards.has(name)) {
        cards.set(name, new NodeCard(name));
        list.replaceChildren(...[...cards.keys()].sort().map((each) => cards.get(each).element));
      }
      cards.get(name).show(live);
    }
    drawPlots(names);
  }

  live.addEventListener("status", draw);
  const timer = setInterval(draw, 1000);
  draw();
  return () => {
    live.removeEventListener("status", draw);
    clearInterval(timer);
    for (const plot of plots) plot.destroy();
  };
}

// The status of the node that knows most: the leader if it is heard, else the one that serves the page.
export function bestStatus(live) {
  const heard = live.names().filter((name) => !live.isSilent(name)).map((name) => live.nodes.get(name).status).filter(Boolean);
  const leading = heard.filter((status) => status.role === "leader").sort((a, b) => b.term - a.term);
  return leading[0] ?? live.nodes.get(live.own)?.status;
}

class Tiles {
  constructor() {
    this.parts = new Map();
    this.element = h("section", { class: "grid tiles", "aria-label": "Summary" });
    for (const label of ["Leader", "Quorum", "Readings a second", "Commit latency", "Readings stored", "Series"]) {
      const figure = h("div", { class: "figure" }, format.MISSING);
      const note = h("div", { class: "note" });
      this.parts.set(label, [figure, note]);
      this.element.append(h("div", { class: "card tile" }, h("div", { class: "label" }, label), figure, note));
    }
  }

  set(label, figure, note = "") {
    setText(this.parts.get(label)[0], figure);
    setText(this.parts.get(label)[1], note);
  }

  show(live, names) {
    const best = bestStatus(live);
    const heard = names.filter((name) => !live.isSilent(name));
    this.set("Leader", best.leader || "none", `term ${best.term}`);
    this.set("Quorum", best.has_quorum ? "yes" : "no", `${heard.length} of ${names.length} nodes heard`);
    this.set("Readings a second", format.compact(best.readings_per_second), "");
    this.set("Commit latency", format.latency(best.commit_latency_us_median), `longest lately ${format.latency(best.commit_latency_us_max)}`);
    this.set("Readings stored", format.compact(best.reading_count), `${format.bytes(best.store_size_bytes + best.journal_size_bytes)} on ${best.name}`);
    this.set("Series", format.count(best.series_count), `${format.count(best.key_count)} keys`);
  }
}

export function alarmsOf(live, names) {
  const found = [];
  for (const name of names) {
    const record = live.nodes.get(name);
    if (live.isSilent(name)) found.push(`${name} is not heard by ${live.own}${bestStatus(live)?.has_quorum ? "; the others are a majority, and writes go on" : ""}`);
    else for (const alarm of record.status?.alarms ?? []) found.push(`${name}: ${alarm}`);
    if (!live.isSilent(name) && record.status?.resources?.clock_synchronized === false && !isOneMachine(live)) {
      found.push(`${name}: its clock is kept by no time service`);
    }
  }
  return [...new Set(found)];
}

// On `raftberry dev` all nodes have one clock: nothing to compare.
const isOneMachine = (live) => (live.nodes.get(live.own)?.status?.peers ?? []).every((peer) => peer.peer_address.startsWith("127."));

function showAlarms(element, live, names) {
  const found = alarmsOf(live, names);
  const text = found.join("\n");
  if (element.dataset.shown === text) return;
  element.dataset.shown = text;
  setClass(element, found.length ? "card alarms ring" : "card alarms");
  element.replaceChildren(found.length
    ? h("div", {}, h("strong", {}, found.length === 1 ? "1 alarm" : `${found.length} alarms`), h("ul", {}, ...found.map((each) => h("li", {}, each))))
    : h("strong", {}, "No alarms"));
}

class NodeCard {
  constructor(name) {
    this.name = name;
    this.role = h("span", { class: "pill" });
    this.why = h("p", { class: "why", hidden: true });
    this.facts = new Map();
    this.list = h("dl", { class: "facts" });
    this.disk = h("meter", { min: 0, max: 1, low: 0.8, high: 0.9, optimum: 0, "aria-label": `Disk of ${name}` });
    this.element = h("li", { class: "card node" },
      h("h3", {}, h("span", { class: "dot", vars: { "--c": colourOf(name) } }), name, this.role), this.why, this.list);
  }

  set(label, text, extra) {
    if (!this.facts.has(label)) {
      const cell = h("dd", {});
      const words = h("span", {});
      cell.append(words, ...(extra ? [extra] : []));
      this.facts.set(label, words);
      this.list.append(h("dt", {}, label), cell);
    }
    setText(this.facts.get(label), text);
  }

  show(live) {
    const record = live.nodes.get(this.name);
    const isSilent = live.isSilent(this.name);
    setClass(this.element, isSilent ? "card node away" : "card node");
    this.why.hidden = !isSilent;
    if (isSilent) {
      setText(this.role, "not heard");
      setClass(this.role, "pill bad");
      setText(this.why, record?.heard_ms ? `Last heard ${format.ago(record.heard_ms - live.skew_ms)}. What follows is from then.` : `${live.own} has no link to it.`);
    }
    const status = record?.status;
    if (!status) return;
    if (!isSilent) {
      setText(this.role, status.role);
      setClass(this.role, `pill ${{ leader: "lead", follower: "good", quarantined: "bad", removed: "bad" }[status.role] ?? "warn"}`);
    }
    this.showFacts(live, status);
  }

  showFacts(live, status) {
    const best = bestStatus(live);
    const lag = Math.max(best.last_index - status.last_index, 0);
    const resources = status.resources ?? {};
    this.set("Term", format.count(status.term));
    this.set("Applied index", format.count(status.applied_index));
    this.set("Lag", status.role === "leader" ? "leads" : `${format.count(lag)} ${lag === 1 ? "entry" : "entries"}`);
    this.set("Commit latency", `${format.latency(status.commit_latency_us_median)} (max ${format.latency(status.commit_latency_us_max)})`);
    const used = resources.disk_size_bytes - resources.disk_free_bytes;
    this.set("Disk", Number.isFinite(used) ? `${format.bytes(resources.disk_free_bytes)} free of ${format.bytes(resources.disk_size_bytes)}` : format.MISSING, this.disk);
    if (Number.isFinite(used)) this.disk.value = used / resources.disk_size_bytes;
    this.set("Journal, store", `${format.bytes(status.journal_size_bytes)}, ${format.bytes(status.store_size_bytes)}`);
    this.set("Written", `${format.bytes(resources.written_bytes)} since its start`);
    this.set("Written a day", status.uptime_seconds < 60 ? "known after a minute" : `${format.bytes((resources.written_bytes / status.uptime_seconds) * DAY_S)} at this pace`);
    this.set("Memory", format.bytes(resources.memory_bytes));
    this.set("Clock", { true: "kept by a time service", false: "kept by no time service" }[resources.clock_synchronized] ?? "not known");
    this.set("Up", `${format.duration(status.uptime_seconds)}, start ${format.count(status.boot_count)}`);
    for (const [name, end_s] of Object.entries(status.certificates ?? {})) {
      const left = end_s - live.now() / 1000;
      this.set(`Certificate ${name}`, left > 0 ? `${format.duration(left)} left${left < CERTIFICATE_SOON_S ? " – renew it" : ""}` : "has ended");
    }
  }
}
