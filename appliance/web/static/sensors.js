// Every series with its last value; a search; the way to its chart.

import { h, setText } from "./dom.js";
import * as format from "./format.js";
import { getJson } from "./live.js";

const PAGE = 50;
const REFRESH_MS = 2000;

// A list is for a glance: the whole figure is in the chart.
const shown = (value) => (Math.abs(value) >= 1e6 && Math.abs(value) < 1e15 ? format.compact(value) : format.value(value));

export const chartLink = (sensor, metric) => `#/chart?${new URLSearchParams([["s", `${sensor}\n${metric}`]])}`;

export function sensorsPage(root, live, parameters) {
  let offset = 0;
  let asked = 0;
  const search = h("input", { type: "search", id: "search", class: "grow", placeholder: "Part of a sensor or metric", value: parameters.get("q") ?? "", autocomplete: "off" });
  const total = h("p", { class: "muted", role: "status" });
  const error = h("p", { class: "error", role: "alert" });
  const body = h("tbody", {});
  const back = h("button", { type: "button", onclick: () => turn(-PAGE) }, "‹ Previous");
  const on = h("button", { type: "button", onclick: () => turn(PAGE) }, "Next ›");
  const pages = h("div", { class: "bar after" }, back, on);
  root.append(
    h("h1", {}, "Sensors"),
    h("form", { class: "bar", role: "search", onsubmit: (event) => event.preventDefault() }, h("label", { class: "sr", for: "search" }, "Search"), search),
    total, error,
    h("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": "Series" },
      h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Sensor"), h("th", { scope: "col", class: "wide" }, "Metric"), h("th", { scope: "col", class: "num" }, "Last value"), h("th", { scope: "col", class: "num" }, "Time"), h("th", { scope: "col", class: "num wide" }, "Readings"), h("th", { scope: "col", class: "num wide" }, "Sealed on disk"))),
        body)),
    pages);

  function turn(by) {
    offset = Math.max(offset + by, 0);
    load();
  }

  async function load() {
    asked += 1;
    const mine = asked;
    try {
      const found = await getJson(`/api/v1/series?${new URLSearchParams({ q: search.value, offset, limit: PAGE })}`);
      if (mine !== asked) return;
      setText(error, "");
      show(found);
    } catch (failure) {
      setText(error, `The list could not be had: ${failure.message}`);
    }
  }

  function show({ total: count, series }) {
    const until = offset + series.length;
    setText(total, count === 0 ? (search.value ? "No series has that in its name." : "No series yet: write a reading, and it is here.") : `${format.count(offset + 1)} to ${format.count(until)} of ${format.count(count)} series`);
    back.disabled = offset === 0;
    on.disabled = until >= count;
    pages.hidden = back.disabled && on.disabled;
    const rows = series.map((each) => `${each.sensor}\n${each.metric}`).join("\n\n");
    if (body.dataset.rows !== rows) {
      body.dataset.rows = rows;
      body.replaceChildren(...series.map(row));
    }
    series.forEach((each, place) => update(body.children[place], each));
  }

  const row = (each) => h("tr", {},
    h("td", {}, h("a", { href: chartLink(each.sensor, each.metric) }, each.sensor), h("span", { class: "narrow muted" }, ` ${each.metric}`)),
    h("td", { class: "wide" }, each.metric), h("td", { class: "num" }), h("td", { class: "num muted" }), h("td", { class: "num wide" }), h("td", { class: "num wide" }));

  function update(element, each) {
    const [, , value, time, readings, size] = element.children;
    const hasReading = each.time_ms !== undefined;
    setText(value, hasReading ? `${shown(each.value)}${each.unit ? ` ${each.unit}` : ""}` : format.MISSING);
    setText(time, hasReading ? format.ago(each.time_ms) : format.MISSING);
    if (hasReading) time.title = format.when(each.time_ms);
    setText(readings, format.count(each.reading_count));
    setText(size, format.bytes(each.size_bytes));
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      offset = 0;
      load();
    }, 150);
  });
  const timer = setInterval(() => document.hidden || load(), REFRESH_MS);
  load();
  return () => {
    clearInterval(timer);
    clearTimeout(waiting);
    asked += 1;
  };
}
