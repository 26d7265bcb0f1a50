// uPlot in our colours: sized by its box, redrawn when the theme changes.

import uPlot from "./vendor/uPlot.js";
import { cssColour, plainColour } from "./dom.js";

const HEIGHT = 190;

// uPlot's own, with 24 hours: [least step in seconds, text, and what is below it when year, month, day, ... begin].
const TIMES = [
  [31536000, "{YYYY}", null, null, null, null, null, null, 1],
  [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [0.001, "{ss}.{fff}", "\n{D} {MMM} {YYYY} {HH}:{mm}", null, "\n{D} {MMM} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];

// series: [{label, colour, band}]; data: uPlot's columns; colours are references such as var(--n1).
export class Plot {
  constructor(box, series, { height = HEIGHT, format, onSelect, isLog = false } = {}) {
    this.box = box;
    this.options = { series, height, format, onSelect, isLog };
    this.data = [[], ...series.map(() => [])];
    this.plot = null;
    this.range = null;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(box);
    this.redraw = () => this.make();
    document.addEventListener("themechange", this.redraw);
    this.make();
  }

  make() {
    this.plot?.destroy();
    const { series, height, format, onSelect, bands } = this.options;
    const axis = { stroke: cssColour("--soft"), grid: { stroke: cssColour("--line"), width: 1 }, ticks: { show: false } };
    this.plot = new uPlot({
      width: Math.max(this.box.clientWidth, 100),
      height,
      padding: [8, 8, 0, 0],
      cursor: { drag: { x: Boolean(onSelect), y: false, setScale: false }, points: { size: 6 }, y: false },
      select: { show: Boolean(onSelect) },
      legend: { show: false },
      scales: { x: { time: true, range: (_, low, high) => this.range ?? [low, high] }, y: { range: (_, low, high) => padded(low, high, this.options.fromZero) } },
      axes: [{ ...axis, size: 40, space: 70, values: TIMES }, { ...axis, size: 62, values: format ? (_, values) => values.map((value) => (value === null ? "" : format(value))) : undefined }],
      series: [{}, ...series.map((each) => ({
        label: each.label,
        stroke: plainColour(each.colour),
        width: each.width ?? 1.8,
        fill: each.fill ? `${plainColour(each.colour)}22` : undefined,
        points: { show: each.points },
        spanGaps: each.spanGaps ?? false,
      }))],
      bands: (bands ?? []).map((band) => ({ series: band.series, fill: `${plainColour(band.colour)}33` })),
      hooks: {
        setSelect: onSelect ? [(plot) => {
          if (plot.select.width < 6) return;
          onSelect(plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x"));
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }] : [],
        setCursor: [(plot) => this.options.onCursor?.(plot.cursor.idx)],
      },
    }, this.data, this.box);
  }

  set(data, range = null) {
    this.data = data;
    this.range = range;
    this.plot.setData(data);
  }

  resize() {
    if (this.box.clientWidth > 0) this.plot.setSize({ width: this.box.clientWidth, height: this.options.height });
  }

  destroy() {
    this.observer.disconnect();
    document.removeEventListener("themechange", this.redraw);
    this.plot.destroy();
  }
}

function padded(low, high, fromZero) {
  if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
  if (fromZero) return [0, high > 0 ? high * 1.08 : 1];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - room, high + room];
}
