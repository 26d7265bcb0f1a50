// What each node was at one moment: its last status before it, moved on by the events since.

import { SILENT_MS } from "./live.js";

// The number of events at or before a time: they are sorted.
export function placeOf(events, time) {
  let low = 0;
  let high = events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle].at_ms <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

const ROLES = { became_leader: "leader", became_follower: "follower", became_candidate: "candidate", quarantined: "quarantined", stepped_down: "follower" };

export class Moment {
  constructor(live, names, time) {
    this.time = time;
    this.states = new Map(names.map((name) => [name, this.stateOf(live, names, name)]));
  }

  of(name) {
    return this.states.get(name);
  }

  stateOf(live, names, name) {
    const base = live.statusAt(name, this.time);
    const status = base?.status ?? {};
    const state = { role: status.role ?? "", term: status.term ?? 0, commit: status.commit_index ?? 0, last: status.last_index ?? 0, isAway: base ? this.time - base.at_ms > SILENT_MS : !isBeforePage(live, name, this.time) };
    for (const event of since(live, this.time, base?.at_ms ?? this.time - SILENT_MS)) {
      if (event.node !== name) continue;
      state.isAway = false;
      state.role = ROLES[event.kind] ?? state.role;
      state.term = Math.max(state.term, event.term);
      if (event.kind === "committed") state.commit = Math.max(state.commit, event.index);
      if (event.kind === "truncated") state.last = event.index - 1;
      else if (["appended", "matched", "committed", "installed"].includes(event.kind)) state.last = Math.max(state.last, event.index);
      if (event.kind === "stopped") state.isAway = true;
    }
    const others = names.filter((each) => each !== name);
    if (others.length && name !== live.own && others.every((each) => !linkUp(live, each, name, this.time))) state.isAway = true;
    return state;
  }
}

// Before the page was opened only events are known.
function isBeforePage(live, name, time) {
  const first = live.nodes.get(name)?.statuses[0];
  return first !== undefined && time < first.at_ms;
}

// Events after `from` up to `time`, oldest first.
function since(live, time, from) {
  const found = [];
  for (let place = placeOf(live.events, time) - 1; place >= 0 && live.events[place].at_ms > from; place -= 1) found.push(live.events[place]);
  return found.reverse();
}

// Up when everybody of the two that can be asked says so.
export function linkUp(live, a, b, time) {
  const words = [saysUp(live, a, b, time), saysUp(live, b, a, time)].filter((each) => each !== null);
  return words.length > 0 ? words.every(Boolean) : isBeforePage(live, a, time) || isBeforePage(live, b, time);
}

function saysUp(live, viewer, other, time) {
  const base = live.statusAt(viewer, time);
  if (!base || time - base.at_ms > SILENT_MS) return null;
  let isUp = base.status.peers.find((peer) => peer.name === other)?.connected ?? false;
  for (const event of since(live, time, base.at_ms)) {
    if (event.node !== viewer || event.peer !== other) continue;
    if (event.kind === "connected") isUp = true;
    if (event.kind === "disconnected") isUp = false;
  }
  return isUp;
}
