// Where an election stands at one moment, from the events of the seconds before it; and the four steps that show it.

import { h, setClass, setText } from "./dom.js";
import { SILENT_MS } from "./live.js";
import { placeOf } from "./moment.js";

// An election is over in a tenth of a second; its end stays to be read.
const SHOWN_MS = 30000;
const DRAWN_EVERY_MS = 150;

const nothing = () => ({ step: 0, gone: "", isHandedOver: false, asker: "", would: new Map(), candidate: "", term: 0, votes: new Set(), leader: "" });

export function electionAt(live, time) {
  let found = nothing();
  const events = live.events;
  for (let place = placeOf(events, time - SHOWN_MS); place < events.length && events[place].at_ms <= time; place += 1) found = after(found, events[place], live);
  return found;
}

function after(found, event, live) {
  const { kind, node, peer, term } = event;
  switch (kind) {
    case "disconnected":
      // Who led before the leader that is known now may be lost as often as it likes.
      return isUnderWay(found) || (found.leader && found.leader !== peer) || !ledThen(live, peer, event.at_ms) ? found : { ...nothing(), step: 1, gone: peer };
    case "stepped_down":
      return { ...nothing(), step: 1, gone: node };
    case "asked_to_take_over":
      return { ...nothing(), step: 1, gone: node, isHandedOver: true };
    case "started_pre_vote": {
      // Two may ask at once; the first is shown until one of them has won.
      const under = isUnderWay(found) ? found : { ...nothing(), gone: found.step === 1 ? found.gone : "" };
      under.would.set(node, new Set([node]));
      return { ...under, step: Math.max(under.step, 2), asker: under.asker || node };
    }
    case "granted_pre_vote":
      found.would.get(peer)?.add(node);
      return found;
    case "won_pre_vote":
      return found.step === 2 ? { ...found, asker: node } : found;
    case "became_candidate":
      return { ...(found.step === 4 ? nothing() : found), step: 3, candidate: node, term, votes: new Set([node]) };
    case "granted_vote":
      if (peer === found.candidate && term === found.term) found.votes.add(node);
      return found;
    case "became_leader":
      return { ...found, step: 4, leader: node, term };
    default:
      return found;
  }
}

const isUnderWay = ({ step }) => step === 2 || step === 3;

function ledThen(live, name, at_ms) {
  const known = live.statusAt(name, at_ms);
  return known !== null && at_ms - known.at_ms < SILENT_MS && known.status.role === "leader";
}

function votersOf(live, names) {
  const peers = live.nodes.get(live.own)?.status?.peers ?? [];
  return peers.filter((peer) => peer.voter).length || names.length;
}

// The four steps: title, what to say of an election among so many voters, and what the step is while there is none.
const needed = (voters) => `${Math.floor(voters / 2) + 1} are needed`;
const STEPS = [
  ["The leader is gone", ({ gone, isHandedOver }) => (isHandedOver ? `${gone} hands over on purpose.` : `Nobody hears ${gone || "a leader"} any more. Writes wait.`), "Its heartbeats stop."],
  ["Ask around first", ({ asker, would }, voters) => (asker ? `“Would you vote for me?” asks ${asker}. ${would.get(asker)?.size ?? 1} of ${voters} would; ${needed(voters)}.` : "Not needed this time."), "Is an election worth it?"],
  ["The vote", ({ candidate, term, votes }, voters) => (candidate ? `${candidate} stands in term ${term}: ${votes.size} of ${voters} votes; ${needed(voters)}.` : "Seen by others only."), "More than half must say yes."],
  ["A new leader", ({ leader, term }) => `${leader} leads term ${term}. Writes go on.`, "It takes the writes."],
];

export class ElectionSteps {
  constructor() {
    this.drawn_ms = 0;
    this.items = STEPS.map(([title]) => {
      const text = h("span", {});
      return { text, item: h("li", {}, h("b", {}, title), text) };
    });
    this.element = h("ol", { class: "steps", "aria-label": "The latest election, step by step" }, ...this.items.map((each) => each.item));
  }

  draw(live, names, time) {
    const now = performance.now();
    if (now - this.drawn_ms < DRAWN_EVERY_MS) return;
    this.drawn_ms = now;
    const election = electionAt(live, time);
    const voters = votersOf(live, names);
    this.items.forEach(({ item, text }, place) => {
      const step = place + 1;
      setClass(item, step < election.step ? "done" : step === election.step ? "now" : "");
      const [, say, meanwhile] = STEPS[place];
      setText(text, step <= election.step ? say(election, voters) : election.step === 0 ? meanwhile : "");
    });
  }
}
