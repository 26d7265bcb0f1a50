// Draws the two charts of the report, in the colours of the page, with the faults as numbered bands.

const record = JSON.parse(document.getElementById("record").textContent);
const { at_s: at, writes_per_second: rate, p50_ms: p50, p99_ms: p99 } = record.timeline;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const sync = uPlot.sync("drill");

function bands(plot) {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  record.faults.forEach((fault, number) => {
    const [from, lifted, until] = ["began_s", "lifted_s", "until_s"].map((key) => plot.valToPos(fault[key], "x", true));
    ctx.fillStyle = colour("--band-soft");
    ctx.fillRect(from, top, until - from, height);
    ctx.fillStyle = colour("--band");
    ctx.fillRect(from, top, Math.max(lifted - from, 2), height);
    ctx.fillStyle = colour("--soft");
    ctx.font = `600 ${12 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textBaseline = "top";
    ctx.fillText(String(number + 1), from + 4 * devicePixelRatio, top + 3 * devicePixelRatio);
  });
  ctx.restore();
}

function draw(id, series, columns, scale, format) {
  const decades = (_, splits) => splits.map((value) => (scale.distr && Math.log10(value) % 1 !== 0 ? null : value));
  const box = document.getElementById(id);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const plot = new uPlot({
    width: Math.max(box.clientWidth, 100),
    height: 230,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: sync.key }, drag: { x: true, y: false }, points: { size: 6 } },
    scales: { x: { time: false }, y: scale },
    axes: [
      { ...axis, size: 30, space: 60, values: (_, values) => values.map((value) => `${value} s`) },
      { ...axis, size: 62, grid: { ...axis.grid, filter: decades }, values: (_, values) => values.map((value) => (value === null ? "" : format(value))) },
    ],
    series: [{}, ...series.map((each) => ({ label: each.label, stroke: colour(each.colour), width: 1.6, fill: each.fill && colour(each.colour) + "22", points: { show: each.points ?? false, size: 3 } }))],
    hooks: { drawClear: [bands] },
  }, [at, ...columns], box);
  sync.sub(plot);
  return { plot, box };
}

let charts = [];
function drawAll() {
  charts.forEach(({ plot }) => plot.destroy());
  charts = [
    draw("rate", [{ label: "writes/s", colour: "--rate", fill: true }], [rate], { range: (_, low, high) => [0, (high || 1) * 1.15] }, (value) => String(value)),
    draw("latency", [{ label: "p50", colour: "--p50", points: true }, { label: "p99", colour: "--p99", points: true }], [p50, p99], { distr: 3, log: 10 }, (value) => (value >= 1000 ? `${value / 1000} s` : `${value} ms`)),
  ];
}
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
new ResizeObserver(() => charts.forEach(({ plot, box }) => plot.setSize({ width: Math.max(box.clientWidth, 100), height: 230 }))).observe(document.body);
