// What each kind of event means, for who has never read the paper; and where it is read in full.
//
// Paper: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (extended version), 2014.
// Thesis: Ongaro, Consensus: Bridging Theory and Practice, 2014.

const PAPER = "Raft paper";
const THESIS = "Ongaro’s thesis";

// kind: [story?, words of the caption (node, peer, event), title, explanation, source]
// A story event is one that an election, a link or a rescue is made of; the others are everyday replication.
const KINDS = {
  started_pre_vote: [true, (e) => `${e.node} has not heard a leader for a while and asks the others whether they would vote for it.`,
    "Would you vote for me?",
    "Every node waits a random time to hear from a leader. Whose time runs out first asks around, before anything changes. A node that was only cut off for a moment finds out here that nobody needs an election.", `${THESIS}, section 9.6 (pre-vote); timeouts: ${PAPER}, section 5.2`],
  granted_pre_vote: [true, (e) => `${e.node} would vote for ${e.peer}: it hears no leader either.`,
    "Yes, I would", "A promise of nothing yet: the node says that it hears no leader, and that the asker’s log is at least as complete as its own.", `${THESIS}, section 9.6`],
  refused_pre_vote: [true, (e) => `${e.node} would not vote for ${e.peer}: it hears a leader, stands itself, or its own log is more complete.`,
    "No, I would not", "The node hears a living leader, stands itself, or has entries that the asker lacks. A leader must have everything that was ever acknowledged, so such an asker must not win.", `${THESIS}, section 9.6; ${PAPER}, section 5.4.1`],
  won_pre_vote: [true, (e) => `A majority would vote for ${e.node}: the election begins.`,
    "An election is worth it", "Only now does the term rise. Terms are Raft’s clock: each has one leader at most.", `${THESIS}, section 9.6`],
  became_candidate: [true, (e) => `${e.node} stands for election in a new term. It votes for itself.`,
    "Candidate", "The node raises the term by one and votes for itself. It writes term and vote to disk before it asks anybody: after a crash it must not vote twice in one term.", `${PAPER}, section 5.2`],
  requested_vote: [true, (e) => `${e.node} asks ${e.peer} for its vote in term ${e.term}.`,
    "Please vote for me", "The request says how far the candidate’s log goes, so that the other can compare.", `${PAPER}, sections 5.2 and 5.4.1; RequestVote in figure 2`],
  granted_vote: [true, (e) => `${e.node} gives its vote of term ${e.term} to ${e.peer}.`,
    "A vote", "Each node has one vote in a term, first come, first served, and only for a candidate whose log is at least as complete as its own. The vote is on disk before it is sent.", `${PAPER}, sections 5.2 and 5.4.1`],
  became_leader: [true, (e) => `${e.node} has a majority and leads term ${e.term}.`,
    "Leader", "More than half have voted for it. Any two majorities share a node, so no second leader can exist in this term. It tells everybody at once, with heartbeats, and appends an empty entry: when that is committed, so is everything before.", `${PAPER}, sections 5.2, 5.3 and 8`],
  became_follower: [true, (e) => `${e.node} follows.`,
    "Follower", "It takes entries from the leader, answers, and votes when there is none. Whoever sees a higher term than its own becomes a follower.", `${PAPER}, section 5.1`],
  adopted_term: [true, (e) => `${e.node} learns from ${e.peer} that term ${e.term} has begun.`,
    "A newer term", "Terms are on every message. A node that sees a higher one takes it over; a leader of an older term steps down.", `${PAPER}, section 5.1`],
  stepped_down: [true, (e) => `${e.node} gives up leading: ${e.attributes?.reason === "disk_stalled" ? "its disk does not answer" : "it is cut off"}.`,
    "Gives up", "A leader that cannot write, or reaches no majority, makes everybody wait. It steps down so that another can lead.", `${THESIS}, section 6.2`],
  asked_to_take_over: [true, (e) => `${e.node} hands leadership over to ${e.peer}.`,
    "Take over, please", "The leader stops taking writes, brings the other up to date and tells it to stand at once. That is how a node leaves without a pause.", `${THESIS}, section 3.10 (TimeoutNow)`],
  connected: [true, (e) => `${e.node} has a link to ${e.peer}.`, "Connected", "Both streams between the two are open. Each has checked who the other is and that it comes back with nothing less than it had acknowledged.", "Raftberry’s ARCHITECTURE.md, Peers"],
  disconnected: [true, (e) => `${e.node} has lost its link to ${e.peer}.`, "Link lost",
    "The connection broke: a process ended, a machine stopped, a cable is out. If that was the leader, somebody stands for election soon, without waiting for the timeout.", "Raftberry’s ARCHITECTURE.md, Consensus"],
  appended: [false, (e) => `${e.node} takes entries up to index ${e.index} from ${e.peer}.`,
    "Entries arrive", "The leader sends new entries with the position of the one before them. The follower takes them only if it has that one too: so two logs that agree at an index agree in everything before.", `${PAPER}, section 5.3 (log matching)`],
  matched: [false, (e) => `${e.peer} has everything up to index ${e.index} on disk, and ${e.node} knows it.`,
    "Acknowledged", "The follower answers only when the entries are on its disk, not before. The leader counts these answers.", `${PAPER}, section 5.3; matchIndex in figure 2`],
  committed: [false, (e) => `On ${e.node} index ${e.index} is committed and applied.`,
    "Committed", "A majority has the entry on disk. Now it can’t be lost any more, every node applies it to its state, and the client hears that its reading is kept.", `${PAPER}, sections 5.3 and 5.4.2`],
  rejected: [true, (e) => `${e.node} can’t take what ${e.peer} sent: something before it is missing.`,
    "Something is missing", "The follower lacks the entry before, or has another one there. It says where to try next and the leader goes back to where both agree.", `${PAPER}, section 5.3`],
  truncated: [true, (e) => `${e.node} drops its entries from index ${e.index}: the leader has others there.`,
    "Entries dropped", "Entries that a former leader never got onto a majority. No client was told that they were kept, so they may go.", `${PAPER}, section 5.3`],
  configured: [true, (e) => `${e.node} goes by the members of version ${e.attributes?.version ?? "?"}: ${e.attributes?.voters ?? "?"} vote, ${e.attributes?.learners ?? 0} learn.`,
    "Members", "Who belongs to the cluster is an entry of the log like any other, and in effect as soon as a node has it, committed or not. Only one node is added or removed at a time: so any majority of before and any of after share a node.", `${PAPER}, section 6; ${THESIS}, section 4.1`],
  installed: [true, (e) => `${e.node} has installed a snapshot up to index ${e.index}.`,
    "Snapshot", "The node was away so long that the log it needs is trimmed. It got the whole state instead, and goes on from there.", `${PAPER}, section 7`],
  checkpointed: [true, (e) => `${e.node} has written a checkpoint of its state up to index ${e.index}.`, "Checkpoint", "What the log has been protecting goes into the store in one transaction; the log before it may be trimmed.", `${PAPER}, section 7`],
  trimmed: [true, (e) => `${e.node} has trimmed its log up to index ${e.index}.`, "Log trimmed", "Entries that the checkpoint holds, and that no other node waits for, are removed, so that the log stays small.", `${PAPER}, section 7`],
  dropped_oldest: [true, (e) => `${e.node} makes room: the oldest readings go.`, "Oldest readings dropped", "The store is near its quota and its policy says that the oldest go first. The leader proposes it as an entry of the log, so that every node drops the same.", "Raftberry’s ARCHITECTURE.md"],
  scrubbed: [true, (e) => `${e.node} has read its whole store again and checked it.`, "Store checked", "Cards lose bits where nobody reads. Every record has a checksum, and now and then a node reads them all.", "Raftberry’s ARCHITECTURE.md, Storage"],
  quarantined: [true, (e) => `${e.node} is in doubt about its own data and stands aside.`, "Quarantine", "Something it had promised is missing, or a checksum is wrong. It neither votes nor answers: a node in doubt could break what the others promised.", "Raftberry’s ARCHITECTURE.md, What a node refuses"],
  removed: [true, (e) => `${e.node} is no member any more and stands aside.`, "Removed", "The cluster goes on without it. Its id never comes back: a removed node can’t disturb those who remain.", `${PAPER}, section 6; ${THESIS}, section 4.2.2`],
  stopped: [true, (e) => `${e.node} is stopping.`, "Stopping", "It has handed leadership over if it led, written a checkpoint, and says nothing any more.", "Raftberry’s ARCHITECTURE.md"],
  dropped: [true, (e) => `The guard on ${e.node} drops a message of ${e.peer} (${(e.attributes?.reason ?? "").replaceAll("_", " ")}).`,
    "Dropped by the guard", "A message of an older term, of a former life or of a stranger. Taking it could count a vote or an acknowledgement that is none.", "Raftberry’s docs/hazards.md"],
};

export const isStory = (event) => KINDS[event.kind]?.[0] ?? true;

export function sentence(event) {
  const words = KINDS[event.kind]?.[1];
  const text = words ? words(event) : `${event.node}: ${event.kind.replaceAll("_", " ")}${event.peer ? ` (${event.peer})` : ""}.`;
  return event.count > 1 ? `${text} (The last of ${event.count} alike.)` : text;
}

export function explanation(event) {
  const found = KINDS[event.kind];
  return found ? { title: found[2], text: found[3], source: found[4] } : { title: event.kind.replaceAll("_", " "), text: "This node reports a decision that the page does not know: its version is newer.", source: "" };
}

// What moves on the picture: [from, to, look, tag], or nothing.
export function movement(event) {
  const { node, peer } = event;
  switch (event.kind) {
    case "granted_pre_vote": return [node, peer, "yes", "I would"];
    case "refused_pre_vote": return [node, peer, "no", "no"];
    case "requested_vote": return [node, peer, "vote", "vote?"];
    case "granted_vote": return [node, peer, "yes", "vote"];
    case "asked_to_take_over": return [node, peer, "vote", "take over"];
    case "appended": return [peer, node, "entries", String(event.index)];
    case "matched": return [peer, node, "ack", ""];
    case "rejected": return [node, peer, "no", "missing"];
    default: return null;
  }
}
