// Raft, live: the cluster's consensus as it happens, slowly enough to follow, with the last minutes to step back into.

import { colourOf, h, s, setClass, setText } from "./dom.js";
import { ElectionSteps } from "./election.js";
import { explanation, isStory, movement, sentence } from "./explain.js";
import * as format from "./format.js";
import { linkUp, Moment } from "./moment.js";
import { Player } from "./player.js";

const WIDE = 640;
const NARROW = 430;
const HEIGHT = 390;
const RADIUS = 56;
const MESSAGE_MS = 750;
const MESSAGES_MAX = 40;
const BEAT_MS = 1100;
const CELLS = 9;
const STORY_MAX = 120;

export function raftPage(root, live) {
  const page = new RaftPage(live);
  root.append(page.element);
  page.begin();
  return () => page.end();
}

class RaftPage {
  constructor(live) {
    this.live = live;
    this.player = new Player(live, { onEvent: (event) => this.onEvent(event), onFrame: (time) => this.draw(time) });
    this.messages = [];
    this.beat_ms = 0;
    this.names = [];
    this.lines = [];
    this.hasSaid = false;
    this.shapes = new Map();
    this.rows = new Map();
    this.narrow = matchMedia("(max-width: 40rem)");
    this.isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.build();
  }

  begin() {
    this.player.begin();
  }

  end() {
    this.player.end();
  }

  build() {
    this.caption = h("p", { class: "caption", "aria-live": "polite" }, "Asking the nodes …");
    this.steps = new ElectionSteps();
    this.links = s("g", {});
    this.nodes = s("g", {});
    this.moving = s("g", {});
    this.svg = s("svg", { role: "img" }, this.links, this.nodes, this.moving);
    this.logs = h("tbody", {});
    this.story = h("ol", { class: "story", "aria-label": "What happened, the latest first" });
    this.explain = h("section", { class: "card explain", "aria-live": "off" },
      h("h2", {}, "What is this?"),
      h("p", {}, "The nodes of this cluster agree on one log of writes. One leads: it takes the writes and copies them to the others. What more than half have on disk is committed and can’t be lost. If the leader goes, the others elect a new one: that takes some hundredths of a second, and is slowed down here so that you can follow."),
      h("p", { class: "paper" }, "Choose an event in the list to have it explained."));
    this.everyday = h("input", { type: "checkbox", id: "everyday", onchange: () => this.showStory(true) });
    this.element = h("div", {},
      h("h1", {}, "Raft, live"),
      h("div", { class: "grid raft" },
        h("div", { class: "grid" },
          h("section", { class: "card stage", "aria-label": "The cluster" }, this.caption, this.svg, this.steps.element, this.controls()),
          h("section", { class: "card" }, h("h2", {}, "The log on each node"),
            h("table", { class: "logs" }, h("caption", { class: "sr" }, "The latest entries on each node and whether they are committed there"), h("colgroup", {}, h("col", {}), h("col", {})), this.logs),
            h("p", { class: "keys muted" }, "Green: committed, it can’t be lost any more. Yellow: on this node, not known to be committed. Dashed: not here yet."))),
        h("div", { class: "grid" }, this.explain,
          h("section", { class: "card" }, h("h2", {}, "What happened"),
            h("p", {}, this.everyday, " ", h("label", { for: "everyday" }, "with everyday replication")), this.story),
          keys())));
  }

  controls() {
    this.play = h("button", { type: "button", class: "primary", onclick: () => this.player.toggle() }, "Pause");
    this.scrub = h("input", { type: "range", min: -600, max: 0, step: 0.1, value: 0, "aria-label": "Seconds before now", oninput: () => this.player.seek(this.live.now() + Number(this.scrub.value) * 1000) });
    this.speed = h("select", { id: "speed", onchange: () => this.player.setSpeed(Number(this.speed.value)) },
      ...[["1", "real time"], ["0.1", "10 × slower"], ["0.02", "50 × slower"], ["0.005", "200 × slower"]].map(([value, text]) => h("option", { value }, text)));
    this.slow = h("input", { type: "checkbox", id: "slow", checked: true, onchange: () => (this.player.isSlowing = this.slow.checked) });
    this.toLive = h("button", { type: "button", onclick: () => this.player.goLive() }, "Live");
    this.when = h("span", { class: "when muted" });
    return h("div", { class: "player", role: "group", "aria-label": "Playback" },
      this.play,
      h("button", { type: "button", "aria-label": "Step back to the event before", onclick: () => this.player.step(-1, this.isShown()) }, "‹ Step"),
      h("button", { type: "button", "aria-label": "Step on to the next event", onclick: () => this.player.step(1, this.isShown()) }, "Step ›"),
      this.scrub, this.when, this.toLive,
      h("label", { for: "speed", class: "sr" }, "Speed"), this.speed,
      h("span", {}, this.slow, " ", h("label", { for: "slow" }, "slow down for elections")));
  }

  isShown() {
    return this.everyday.checked ? () => true : isStory;
  }

  // what happens -----------------------------------------------------------------------------------------------

  onEvent(event) {
    if (isStory(event) || !this.player.isLive) this.say(event);
    if (isStory(event)) this.explainEvent(event);
    if (this.isStill) return;
    if (event.kind === "started_pre_vote") {
      for (const name of this.names) if (name !== event.node) this.send(event.node, name, "vote", "would you?");
      return;
    }
    const found = movement(event);
    if (found) this.send(...found);
    if (event.kind === "became_leader" || event.kind === "became_candidate") this.burst(event.node);
  }

  // Until something happens: what there is to see.
  sayRest(moment) {
    const away = this.names.filter((name) => moment.of(name).isAway);
    const leader = this.names.find((name) => moment.of(name).role === "leader" && !moment.of(name).isAway);
    if (!leader) setText(this.caption, "No leader is seen from here.");
    else if (away.length) setText(this.caption, `${away.join(", ")} ${away.length === 1 ? "is" : "are"} not heard. ${leader} still leads: it reaches more than half, so writes go on.`);
    else setText(this.caption, `All is well: ${leader} leads, and its heartbeats (grey) tell the others that it lives. End its process, or type “raftberry transfer”, and watch them elect a new one.`);
  }

  say(event) {
    this.hasSaid = true;
    const summary = event.kind === "became_leader" ? this.summary(event) : "";
    this.caption.replaceChildren(h("strong", {}, explanation(event).title), ` – ${sentence(event)}${summary}`);
  }

  // How long there was no leader: from the first sign of its loss to this.
  summary(event) {
    const earlier = this.live.events.filter((each) => each.at_ms <= event.at_ms && each.at_ms > event.at_ms - 10000);
    const last = earlier.findLastIndex((each) => each.kind === "became_leader" && each !== event);
    const first = earlier.slice(last + 1).find((each) => each.kind === "disconnected" || each.kind === "started_pre_vote" || each.kind === "stepped_down");
    const voters = earlier.filter((each) => each.kind === "granted_vote" && each.peer === event.node && each.term === event.term).map((each) => each.node);
    const votes = voters.length ? ` Votes: its own, and ${[...new Set(voters)].join(", ")}.` : "";
    return first ? ` It took ${Math.round(event.at_ms - first.at_ms)} ms from the first sign.${votes}` : votes;
  }

  explainEvent(event) {
    const { title, text, source } = explanation(event);
    const key = `${event.node} ${event.number} ${event.at_ms}`;
    if (this.explained === key) return;
    this.explained = key;
    this.explain.replaceChildren(h("h2", {}, title), h("p", {}, h("strong", {}, sentence(event))), h("p", {}, text),
      h("p", { class: "paper" }, `${source ? `Read on: ${source}. ` : ""}Term ${event.term}, index ${format.count(event.index)}, ${format.clock(event.at_ms)} on ${event.node}.`));
  }

  // the picture ------------------------------------------------------------------------------------------------

  place(name) {
    const count = Math.max(this.names.length, 1);
    const turn = -Math.PI / 2 + (2 * Math.PI * this.names.indexOf(name)) / count;
    if (count === 1) return [this.width / 2, HEIGHT / 2];
    return [this.width / 2 + Math.cos(turn) * (this.width === WIDE ? 220 : 142), HEIGHT / 2 + (count === 3 ? 30 : 13) + Math.sin(turn) * (count === 3 ? 145 : 140)];
  }

  send(from, to, look, tag) {
    if (!this.names.includes(from) || !this.names.includes(to) || this.messages.length >= MESSAGES_MAX) return;
    const [x1, y1] = this.place(from);
    const [x2, y2] = this.place(to);
    const length = Math.hypot(x2 - x1, y2 - y1);
    const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
    // To the right of the line, so that question and answer do not meet.
    const [ox, oy] = [-dy * 9, dx * 9];
    const dot = s("circle", { r: look === "beat" ? 5 : 9, class: `message ${look}` });
    const text = tag ? s("text", { class: "tag", "aria-hidden": "true" }, tag) : null;
    this.moving.append(dot, ...(text ? [text] : []));
    this.messages.push({ dot, text, begun_ms: performance.now(), from: [x1 + dx * RADIUS + ox, y1 + dy * RADIUS + oy], to: [x2 - dx * RADIUS + ox, y2 - dy * RADIUS + oy] });
  }

  burst(name) {
    const [x, y] = this.place(name);
    const ring = s("circle", { cx: x, cy: y, r: RADIUS, class: "burst", stroke: "var(--accent)" });
    this.moving.append(ring);
    this.messages.push({ ring, begun_ms: performance.now() });
  }

  moveMessages() {
    const now = performance.now();
    this.messages = this.messages.filter((each) => {
      const part = (now - each.begun_ms) / MESSAGE_MS;
      if (part >= 1) {
        for (const element of [each.dot, each.text, each.ring]) element?.remove();
        return false;
      }
      if (each.ring) {
        each.ring.setAttribute("r", RADIUS + part * 40);
        each.ring.setAttribute("opacity", 1 - part);
        return true;
      }
      const eased = part * part * (3 - 2 * part);
      const [x, y] = each.from.map((from, axis) => from + (each.to[axis] - from) * eased);
      each.dot.setAttribute("cx", x);
      each.dot.setAttribute("cy", y);
      each.text?.setAttribute("x", x);
      each.text?.setAttribute("y", y - 14);
      return true;
    });
  }

  sendBeats(moment) {
    if (this.isStill || this.player.isPaused || performance.now() - this.beat_ms < BEAT_MS) return;
    this.beat_ms = performance.now();
    const leader = this.names.find((name) => moment.of(name).role === "leader" && !moment.of(name).isAway);
    if (!leader) return;
    for (const name of this.names) if (name !== leader && !moment.of(name).isAway && linkUp(this.live, leader, name, moment.time)) this.send(leader, name, "beat", "");
  }

  draw(time) {
    const names = this.live.names();
    const isNarrow = this.narrow.matches;
    if (names.join() !== this.names.join() || this.wasNarrow !== isNarrow) {
      this.wasNarrow = isNarrow;
      this.names = names;
      this.frame();
    }
    const moment = new Moment(this.live, names, time);
    for (const name of names) this.drawNode(name, moment.of(name));
    for (const [a, b, line] of this.lines) setClass(line, linkUp(this.live, a, b, time) ? "link" : "link cut");
    this.sendBeats(moment);
    this.moveMessages();
    if (!this.hasSaid && names.length) this.sayRest(moment);
    this.steps.draw(this.live, names, time);
    this.drawLogs(moment);
    this.drawControls(time);
    this.showStory(false);
    const label = names.map((name) => `${name}: ${moment.of(name).isAway ? "not heard" : moment.of(name).role}, term ${moment.of(name).term}`).join("; ");
    if (this.svg.getAttribute("aria-label") !== label) this.svg.setAttribute("aria-label", label);
  }

  frame() {
    this.width = this.narrow.matches ? NARROW : WIDE;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.lines = [];
    for (const [place, a] of this.names.entries()) {
      for (const b of this.names.slice(place + 1)) {
        const [[x1, y1], [x2, y2]] = [this.place(a), this.place(b)];
        this.lines.push([a, b, s("line", { x1, y1, x2, y2, class: "link" })]);
      }
    }
    this.links.replaceChildren(...this.lines.map(([, , line]) => line));
    this.shapes = new Map(this.names.map((name) => {
      const [x, y] = this.place(name);
      const role = s("text", { class: "role", y: 12 });
      const term = s("text", { class: "term", y: 30 });
      const group = s("g", { transform: `translate(${x} ${y})` }, s("circle", { r: RADIUS, class: "body" }), s("text", { class: "name", y: -8 }, name.length > 13 ? `${name.slice(0, 12)}…` : name), role, term);
      group.style.setProperty("--c", colourOf(name));
      return [name, { group, role, term }];
    }));
    this.nodes.replaceChildren(...[...this.shapes.values()].map((shape) => shape.group));
    this.rows = new Map(this.names.map((name) => {
      const cells = Array.from({ length: CELLS }, () => h("span", { class: "cell" }));
      return [name, { cells, row: h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, h("div", { class: "cells" }, ...cells))) }];
    }));
    this.logs.replaceChildren(...[...this.rows.values()].map((each) => each.row));
  }

  drawNode(name, state) {
    const { group, role, term } = this.shapes.get(name);
    setClass(group, state.isAway ? "away" : state.role === "leader" ? "lead" : state.role);
    setText(role, state.isAway ? "not heard" : state.role);
    setText(term, state.term ? `term ${state.term}` : "");
  }

  drawLogs(moment) {
    const last = Math.max(...this.names.map((name) => moment.of(name).last), 0);
    for (const name of this.names) {
      const state = moment.of(name);
      this.rows.get(name).cells.forEach((cell, place) => {
        const index = last - CELLS + 1 + place;
        const look = index < 1 ? "cell missing" : index <= state.commit ? "cell committed" : index <= state.last ? "cell held" : "cell missing";
        setClass(cell, look);
        setText(cell, index < 1 ? "" : String(index));
      });
    }
  }

  drawControls(time) {
    const behind = (time - this.live.now()) / 1000;
    if (document.activeElement !== this.scrub || this.player.isLive) this.scrub.value = Math.min(Math.max(behind, -600), 0);
    setText(this.when, this.player.isLive && behind > -1.5 ? "now" : `${behind.toFixed(1)} s  ${format.clock(time).slice(0, 8)}`);
    setText(this.play, this.player.isPaused ? "Play" : "Pause");
    this.toLive.setAttribute("aria-pressed", String(this.player.isLive));
  }

  showStory(isForced) {
    const until = this.player.place();
    const key = `${until} ${this.live.events.length} ${this.live.events[until - 1]?.at_ms}`;
    if (!isForced && (key === this.told || performance.now() - (this.told_ms ?? 0) < 300)) return;
    this.told = key;
    this.told_ms = performance.now();
    const shown = this.isShown();
    const found = [];
    for (let place = until - 1; place >= 0 && found.length < STORY_MAX; place -= 1) if (shown(this.live.events[place])) found.push(this.live.events[place]);
    // A list that is being read or pressed is not moved away.
    if (!isForced && this.story.matches(":hover, :focus-within") && this.player.isLive && this.story.childElementCount) return;
    this.story.replaceChildren(...found.map((event, place) => h("li", {},
      h("button", { type: "button", class: place === 0 ? "now" : "", onclick: () => this.player.goTo(event) },
        h("time", {}, format.clock(event.at_ms)), h("span", { class: "dot", vars: { "--c": colourOf(event.node) } }), h("span", {}, sentence(event))))));
    if (!found.length) this.story.replaceChildren(h("li", { class: "muted" }, "Nothing yet."));
  }
}

function keys() {
  const entries = [["var(--n5)", "asks for votes"], ["var(--good)", "yes: a vote"], ["var(--bad)", "no"], ["var(--n1)", "entries"], ["var(--n6)", "acknowledged: on disk there"], ["var(--soft)", "heartbeat (drawn once a second; real ones come every 150 ms)"]];
  return h("section", { class: "card keys" }, h("h2", {}, "Colours"), ...entries.map(([colour, text]) => h("div", {}, h("span", { class: "swatch", vars: { "--c": colour } }), text)));
}
