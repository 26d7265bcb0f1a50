// Charts of any series over any span: raw readings where they are few, windows with minimum, mean and maximum where not.

import { h, setText } from "./dom.js";
import * as format from "./format.js";
import { getJson } from "./live.js";
import { Plot } from "./plot.js";
import { remarksOn } from "./remarks.js";

const HOUR = 3600e3;
const SPANS = [["15 min", HOUR / 4], ["1 h", HOUR], ["6 h", 6 * HOUR], ["1 d", 24 * HOUR], ["1 w", 168 * HOUR], ["30 d", 720 * HOUR], ["1 y", 8766 * HOUR]];
const SERIES_MAX = 6;
const TAIL_MS = 1000;
const SPAN_MS_MIN = 10;
const COLOURS = ["var(--n1)", "var(--n2)", "var(--n3)", "var(--n4)", "var(--n5)", "var(--n6)"];

export function chartPage(root, live, parameters) {
  const page = new ChartPage(live, parameters);
  root.append(page.element);
  page.begin();
  return () => page.end();
}

class ChartPage {
  constructor(live, parameters) {
    this.live = live;
    this.names = parameters.getAll("s").map((each) => each.split("\n")).filter((each) => each.length === 2).slice(0, SERIES_MAX);
    this.span = Number(parameters.get("span")) || 0;
    this.end_ms = Number(parameters.get("end")) || 0;
    this.isLive = !this.end_ms;
    this.asked = 0;
    this.answers = [];
    this.plot = null;
    this.bounds = null;
    this.build();
  }

  build() {
    this.chips = h("ul", { class: "chips", "aria-label": "Series shown" });
    this.search = h("input", { type: "search", id: "add", placeholder: "Add a series", list: "found", autocomplete: "off", class: "grow" });
    this.found = h("datalist", { id: "found" });
    this.spans = SPANS.map(([label, span]) => h("button", { type: "button", onclick: () => this.goLive(span) }, label));
    this.all = h("button", { type: "button", onclick: () => this.showAll() }, "All");
    this.tail = h("button", { type: "button", onclick: () => (this.isLive ? this.stop() : this.goLive(this.span)) }, "Live");
    this.box = h("div", { class: "plot", tabindex: 0, role: "img" });
    this.note = h("p", { class: "muted", role: "status" });
    this.error = h("p", { class: "error", role: "alert" });
    this.under = h("p", { class: "muted under", "aria-hidden": "true" });
    this.figures = h("tbody", {});
    this.element = h("div", {},
      h("h1", {}, "Chart"),
      h("div", { class: "bar" }, this.chips, h("label", { class: "sr", for: "add" }, "Add a series"), this.search, this.found),
      h("div", { class: "bar", role: "group", "aria-label": "Span" }, ...this.spans, this.all, this.tail,
        h("button", { type: "button", "aria-label": "Earlier", onclick: () => this.pan(-0.5) }, "←"),
        h("button", { type: "button", "aria-label": "Later", onclick: () => this.pan(0.5) }, "→"),
        h("button", { type: "button", "aria-label": "Zoom in", onclick: () => this.zoom(0.5) }, "+"),
        h("button", { type: "button", "aria-label": "Zoom out", onclick: () => this.zoom(2) }, "−")),
      this.error,
      h("section", { class: "card" }, this.note, this.box, this.under),
      h("section", { class: "card after" },
        h("h2", {}, "In this span"),
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures of the span" }, h("table", {},
          h("thead", {}, h("tr", {}, ...["Series", "Minimum", "Mean", "Maximum", "Last", "Points"].map((each, place) => h("th", { scope: "col", class: place ? "num" : "" }, each)))),
          this.figures))));
    this.search.addEventListener("input", () => this.suggest());
    this.search.addEventListener("change", () => this.add());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("dblclick", () => this.zoom(2));
  }

  async begin() {
    this.showChips();
    this.timer = setInterval(() => this.follow(), TAIL_MS);
    if (!this.span) await this.chooseSpan();
    await this.load();
  }

  // As often as something new can be seen, and never more than a tenth of the node's time.
  follow() {
    const step_ms = Math.min(...this.answers.map((each) => each.step_ms), 60000);
    const pause_ms = Math.max(step_ms / 2, 10 * (this.took_ms ?? 0));
    const isDue = performance.now() - (this.loaded_ms ?? 0) >= pause_ms;
    if (this.isLive && isDue && !this.isLoading && !document.hidden && this.names.length) this.load();
  }

  end() {
    clearInterval(this.timer);
    this.asked += 1;
    this.plot?.destroy();
  }

  // A sensor that is silent for long is shown whole; one that lives, its last hour.
  async chooseSpan() {
    this.span = HOUR;
    await this.findBounds();
    if (this.bounds && this.live.now() - this.bounds[1] > HOUR) this.showAll(false);
  }

  async findBounds() {
    const rows = (await Promise.all(this.names.map(([sensor, metric]) => getJson(`/api/v1/series?${new URLSearchParams({ q: `${sensor} ${metric}`, limit: 50 })}`).catch(() => ({ series: [] })))))
      .flatMap((answer) => answer.series)
      .filter((row) => row.time_ms !== undefined && this.names.some(([sensor, metric]) => sensor === row.sensor && metric === row.metric));
    this.rows = rows;
    this.bounds = rows.length ? [Math.min(...rows.map((row) => row.first_time_ms)), Math.max(...rows.map((row) => row.time_ms))] : null;
  }

  async showAll(isLoading = true) {
    if (isLoading) await this.findBounds();
    if (!this.bounds) return;
    const room = Math.max((this.bounds[1] - this.bounds[0]) * 0.01, 1000);
    this.span = this.bounds[1] - this.bounds[0] + 2 * room;
    this.end_ms = this.bounds[1] + room;
    this.isLive = false;
    if (isLoading) this.load();
  }

  goLive(span) {
    this.span = span;
    this.isLive = true;
    this.load();
  }

  stop() {
    this.end_ms = this.live.now();
    this.isLive = false;
    this.load();
  }

  get end_at() {
    return this.isLive ? this.live.now() : this.end_ms;
  }

  pan(part) {
    this.end_ms = this.end_at + part * this.span;
    this.isLive = false;
    this.load();
  }

  zoom(factor) {
    const middle = this.end_at - this.span / 2;
    this.span = Math.min(Math.max(this.span * factor, SPAN_MS_MIN), 3e12);
    if (!this.isLive) this.end_ms = middle + this.span / 2;
    this.load();
  }

  select(start_s, end_s) {
    this.end_ms = end_s * 1000;
    this.span = Math.max((end_s - start_s) * 1000, SPAN_MS_MIN);
    this.isLive = false;
    this.load();
  }

  onKey(event) {
    const action = { ArrowLeft: () => this.pan(-0.25), ArrowRight: () => this.pan(0.25), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), l: () => this.goLive(this.span), a: () => this.showAll() }[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  }

  async suggest() {
    const text = this.search.value.trim();
    const found = await getJson(`/api/v1/series?${new URLSearchParams({ q: text, limit: 20 })}`).catch(() => ({ series: [] }));
    this.suggested = found.series;
    this.found.replaceChildren(...found.series.map((each) => h("option", { value: `${each.sensor} ${each.metric}` })));
    this.add();
  }

  // Chosen from the list, or typed in full.
  add() {
    const found = (this.suggested ?? []).find((each) => `${each.sensor} ${each.metric}` === this.search.value.trim());
    if (!found || this.names.length >= SERIES_MAX) return;
    this.search.value = "";
    if (!this.names.some(([sensor, metric]) => sensor === found.sensor && metric === found.metric)) this.names.push([found.sensor, found.metric]);
    this.changed();
  }

  remove(place) {
    this.names.splice(place, 1);
    this.changed();
  }

  // The address can be kept and shared.
  async changed() {
    history.replaceState(null, "", `#/chart?${new URLSearchParams(this.names.map((each) => ["s", each.join("\n")]))}`);
    this.showChips();
    this.plot?.destroy();
    this.plot = null;
    if (!this.answers.length) await this.chooseSpan();
    await this.load();
  }

  showChips() {
    this.chips.replaceChildren(...this.names.map(([sensor, metric], place) => h("li", {},
      h("span", { class: "dot", vars: { "--c": COLOURS[place] } }), `${sensor} ${metric}`,
      h("button", { type: "button", "aria-label": `Remove ${sensor} ${metric}`, onclick: () => this.remove(place) }, "×"))));
  }

  async load() {
    SPANS.forEach(([, span], place) => this.spans[place].setAttribute("aria-pressed", String(this.isLive && this.span === span)));
    this.tail.setAttribute("aria-pressed", String(this.isLive));
    this.asked += 1;
    const mine = this.asked;
    if (!this.names.length) {
      setText(this.note, "Choose a series above, or one from the Sensors page.");
      this.answers = [];
      this.figures.replaceChildren();
      return;
    }
    const end = this.end_at;
    const points = Math.min(Math.max(Math.round(this.box.clientWidth / 1.5), 100), 1500);
    const begun_ms = performance.now();
    this.isLoading = true;
    try {
      const answers = await Promise.all(this.names.map(([sensor, metric]) => getJson(`/api/v1/chart?${new URLSearchParams({ sensor, metric, start: (end - this.span).toFixed(3), end: end.toFixed(3), points })}`)));
      if (mine !== this.asked) return;
      setText(this.error, "");
      this.answers = answers;
      this.draw([(end - this.span) / 1000, end / 1000]);
    } catch (failure) {
      if (mine === this.asked) setText(this.error, `The chart could not be had: ${failure.message}`);
    } finally {
      if (mine === this.asked) this.isLoading = false;
      this.loaded_ms = performance.now();
      this.took_ms = this.loaded_ms - begun_ms;
    }
  }

  draw(range) {
    const span = `${format.when(range[0] * 1000)} to ${format.when(range[1] * 1000)}`;
    const remarks = remarksOn(this.answers).join(" ");
    if (this.answers.some((each) => each.times_ms.length)) this.drawPlot(range, `${span}. ${this.kindOfPoints()} ${remarks}`.trimEnd());
    else this.drawNothing(`${span}. ${remarks}${this.answers.some((each) => each.exists) ? " Press All to see where there are some." : ""}`);
    this.box.setAttribute("aria-label", `Chart of ${this.names.map((each) => each.join(" ")).join(", ")}, ${span}. ${remarks} Arrow keys move, plus and minus zoom, A shows all, L follows. The table below has the figures.`);
    this.showFigures();
  }

  kindOfPoints() {
    const steps = [...new Set(this.answers.map((each) => each.step_ms))].filter(Boolean);
    const kind = steps.length ? `Mean, and the band from minimum to maximum, of windows of ${steps.map((step) => format.duration(step / 1000).replace(/^0 s$/, `${step} ms`)).join(" and ")}.` : "Every reading.";
    return `${kind} Drag to zoom in, double-click to zoom out.`;
  }

  // An empty grid would look like a series of zeros.
  drawNothing(text) {
    this.plot?.destroy();
    this.plot = null;
    setText(this.note, text);
    setText(this.under, "\u00a0");
  }

  drawPlot(range, text) {
    const { series, bands, data } = columnsOf(this.answers);
    const shape = JSON.stringify(series.map((each) => [each.label, each.width, each.points]));
    if (!this.plot || this.shape !== shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new Plot(this.box, series, { height: 360, format: format.value, onSelect: (low, high) => this.select(low, high) });
      this.plot.options.bands = bands;
      this.plot.options.onCursor = (place) => this.showCursor(place);
      this.plot.make();
    }
    this.plot.set(data, range);
    setText(this.note, text);
  }

  showCursor(place) {
    if (place === null || place === undefined || !this.plot) {
      setText(this.under, "\u00a0");
      return;
    }
    const data = this.plot.data;
    const values = this.plot.options.series.map((each, column) => (each.points === undefined || each.isEdge ? null : data[column + 1][place] === null || data[column + 1][place] === undefined ? null : `${each.label}: ${format.value(data[column + 1][place])}`)).filter(Boolean);
    setText(this.under, `${format.when(data[0][place] * 1000)}   ${values.join("   ")}`);
  }

  showFigures() {
    const rows = this.answers.map((answer) => {
      const raw = answer.step_ms === 0;
      const known = (column) => column.filter((each) => each !== null);
      const [low, mean, high] = raw ? [answer.values, answer.values, answer.values].map(known) : [answer.min, answer.mean, answer.max].map(known);
      const sum = mean.reduce((total, each) => total + each, 0);
      const figures = mean.length ? [low.reduce((a, b) => Math.min(a, b)), sum / mean.length, high.reduce((a, b) => Math.max(a, b)), mean[mean.length - 1]].map(format.value) : Array(4).fill(format.MISSING);
      return h("tr", {}, h("td", {}, `${answer.sensor} ${answer.metric}`), ...figures.map((each) => h("td", { class: "num" }, each)), h("td", { class: "num" }, `${format.count(mean.length)}${raw ? "" : " windows"}`));
    });
    this.figures.replaceChildren(...rows);
  }
}

// All series on one time axis, as uPlot wants it: holes where one has no point at another's time.
function columnsOf(answers) {
  const holes = new Map(answers.map((answer) => [answer, holesOf(answer.times_ms)]));
  const times = [...new Set(answers.flatMap((answer) => [...answer.times_ms, ...holes.get(answer)]))].sort((a, b) => a - b);
  const places = new Map(times.map((time, place) => [time, place]));
  const spread = (answer, values) => {
    // undefined: no reading at this time, the line goes on; null: a value that is no number, the line is cut.
    const column = Array(times.length).fill(undefined);
    answer.times_ms.forEach((time, place) => (column[places.get(time)] = values[place]));
    for (const time of holes.get(answer)) column[places.get(time)] = null;
    return column;
  };
  const series = [];
  const bands = [];
  const data = [times.map((time) => time / 1000)];
  answers.forEach((answer, place) => {
    const colour = COLOURS[place];
    const label = `${answer.sensor} ${answer.metric}`;
    const isSparse = answer.times_ms.length < 80;
    if (answer.step_ms !== 0) {
      bands.push({ series: [data.length, data.length + 1], colour });
      series.push({ label, colour, width: 0, points: false, isEdge: true }, { label, colour, width: 0, points: false, isEdge: true });
      data.push(spread(answer, answer.max), spread(answer, answer.min));
    }
    series.push({ label, colour, width: 1.8, points: isSparse });
    data.push(spread(answer, answer.step_ms === 0 ? answer.values : answer.mean));
  });
  return { series, bands, data };
}

// Where a sensor was silent much longer than it uses to be, the line is cut.
function holesOf(times) {
  const distances = times.slice(1).map((time, place) => time - times[place]);
  const usual = [...distances].sort((a, b) => a - b)[distances.length >> 1] ?? 0;
  return distances.flatMap((distance, place) => (distance > 5 * usual ? [times[place] + distance / 2] : []));
}
