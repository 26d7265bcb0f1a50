// Time on the Raft page: it follows the present, some tenths of a second behind, stops, goes back, runs slowly; and
// waits at each step of an election, so that twenty milliseconds can be watched.

import { isStory } from "./explain.js";
import { placeOf } from "./moment.js";

const BEHIND_MS = 600;
const STORY_STEP_MS = 950;
const CATCH_UP = 4;
const LATE_MS_MAX = 60000;

// Steps that belong to one breath: both requests for votes go out together.
const SHORT_MS = { requested_vote: 150, disconnected: 350, connected: 150, became_candidate: 950, won_pre_vote: 600, checkpointed: 100, trimmed: 100, dropped: 100, adopted_term: 300 };

export class Player {
  constructor(live, { onEvent, onFrame }) {
    Object.assign(this, { live, onEvent, onFrame });
    this.isPaused = false;
    this.isLive = true;
    this.isSlowing = true;
    this.speed = 1;
    this.time = live.now() - BEHIND_MS;
    this.frame_ms = 0;
    this.free_ms = 0;
  }

  begin() {
    this.frame_ms = performance.now();
    const frame = (now) => {
      this.request = requestAnimationFrame(frame);
      const passed = Math.min(now - this.frame_ms, 500);
      this.frame_ms = now;
      if (!this.isPaused) this.advance(passed);
      this.onFrame(this.time);
    };
    this.request = requestAnimationFrame(frame);
  }

  end() {
    cancelAnimationFrame(this.request);
  }

  place() {
    return placeOf(this.live.events, this.time);
  }

  advance(passed_ms) {
    const present = this.live.now() - BEHIND_MS;
    const late = present - this.time;
    if (late > LATE_MS_MAX && this.isLive) this.time = present - 1000;
    const isCatchingUp = this.isLive && late > 300;
    const pace = this.speed * (isCatchingUp ? CATCH_UP : 1);
    this.runTo(Math.min(this.time + passed_ms * pace, present));
  }

  // On to a time, or to the first story event that the one before it leaves no room for yet.
  runTo(goal) {
    const events = this.live.events;
    for (let place = this.place(); place < events.length && events[place].at_ms <= goal; place += 1) {
      const event = events[place];
      if (this.isSlowing && isStory(event)) {
        if (performance.now() < this.free_ms) {
          this.time = Math.max(this.time, event.at_ms - 0.001);
          return;
        }
        this.free_ms = performance.now() + (SHORT_MS[event.kind] ?? STORY_STEP_MS);
      }
      // Just behind the event, and before the next one even if both have one time.
      this.time = Math.max(event.at_ms, this.time);
      this.onEvent(event);
      if (this.isSlowing && isStory(event)) {
        const next = events[place + 1];
        if (next && next.at_ms === event.at_ms) next.at_ms += 0.0005;
        if (next && next.at_ms <= goal && isStory(next)) return;
      }
    }
    this.time = Math.max(this.time, goal);
  }

  toggle() {
    this.isPaused = !this.isPaused;
    this.isLive = false;
  }

  setSpeed(speed) {
    this.speed = speed;
    if (speed !== 1) this.isLive = false;
  }

  goLive() {
    this.isPaused = false;
    this.isLive = true;
    this.time = this.live.now() - BEHIND_MS;
    this.free_ms = 0;
  }

  seek(time) {
    this.isLive = false;
    this.time = Math.min(time, this.live.now() - BEHIND_MS);
    this.free_ms = 0;
  }

  goTo(event) {
    this.isPaused = true;
    this.isLive = false;
    this.time = event.at_ms;
    this.onEvent(event);
  }

  // To the next event, or the one before, that is shown.
  step(by, isShown) {
    const events = this.live.events;
    let place = this.place() + (by > 0 ? 0 : -2);
    while (events[place] && !isShown(events[place])) place += by;
    if (events[place]) this.goTo(events[place]);
  }
}
