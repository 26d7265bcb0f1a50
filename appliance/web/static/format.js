// Figures for people.

export const MISSING = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

export const count = (value) => (Number.isFinite(value) ? whole.format(value) : MISSING);

export function compact(value) {
  if (!Number.isFinite(value)) return MISSING;
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e4]]) {
    if (value >= size) return `${short.format(value / (unit === "k" ? 1e3 : size))} ${unit}`;
  }
  return whole.format(value);
}

export function bytes(value) {
  if (!Number.isFinite(value)) return MISSING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? whole.format(value) : value.toFixed(1)} ${units[unit]}`;
}

export function latency(microseconds) {
  if (!Number.isFinite(microseconds) || microseconds <= 0) return MISSING;
  if (microseconds >= 1e6) return `${(microseconds / 1e6).toFixed(1)} s`;
  return microseconds < 1000 ? `${Math.round(microseconds)} µs` : `${(microseconds / 1000).toFixed(1)} ms`;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return MISSING;
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

export function ago(milliseconds) {
  const seconds = (Date.now() - milliseconds) / 1000;
  if (Math.abs(seconds) > 60 * 86400) return new Date(milliseconds).toLocaleDateString("en-GB", { dateStyle: "medium" });
  if (seconds < -2) return `in ${duration(-seconds)}`;
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

export function value(number) {
  if (typeof number === "string") return number;
  if (!Number.isFinite(number)) return MISSING;
  if (Number.isInteger(number) && Math.abs(number) < 1e15) return whole.format(number);
  const size = Math.abs(number);
  return size >= 1e9 || (size < 1e-3 && size > 0) ? number.toExponential(3) : new Intl.NumberFormat("en", { maximumSignificantDigits: 6 }).format(number);
}

export const clock = (milliseconds) => {
  const date = new Date(milliseconds);
  const two = (part) => String(part).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
};

export const when = (milliseconds) => new Date(milliseconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
