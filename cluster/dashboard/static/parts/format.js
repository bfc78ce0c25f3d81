// Numbers, times and sizes as people read them. What is not there is a dash.

const NONE = "–";
const absent = (value) => value === null || value === undefined || Number.isNaN(value);

function trimmed(text) {
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}

/** 0.12345 -> "0.123", 12345 -> "12.3k", 0.00037 -> "3.7e-4"; `digits` are significant ones. */
function number(value, digits = 3) {
  if (absent(value)) return NONE;
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (size === 0) return "0";
  if (size >= 1e9) return trimmed((value / 1e9).toPrecision(digits)) + "G";
  if (size >= 1e6) return trimmed((value / 1e6).toPrecision(digits)) + "M";
  if (size >= 1e4) return trimmed((value / 1e3).toPrecision(digits)) + "k";
  if (Number.isInteger(value)) return String(value).replace("-", "−");
  if (size < 1e-3) return value.toExponential(Math.max(0, digits - 2)).replace(/^-/, "−").replace("e+", "e");
  const whole = String(Math.floor(size)).length;
  return trimmed(value.toPrecision(Math.max(digits, whole))).replace("-", "−");
}

/** 1234567 -> "1,234,567": for counts that are to be exact. */
function count(value) {
  return absent(value) ? NONE : Math.round(value).toLocaleString("en");
}

/** 0.1234 -> "12.3%". */
function percent(value, digits = 1) {
  if (absent(value)) return NONE;
  const text = (value * 100).toFixed(digits);
  return (Number(text) === 0 ? "0" : trimmed(text)).replace("-", "−") + "%";
}

/** A difference of two shares: 0.531 -> "53.1 points", since "53.1%" might be of the first of them. */
function points(value, digits = 1) {
  return absent(value) ? NONE : percent(value, digits).replace("%", Math.abs(value) === 0.01 ? " point" : " points");
}

/** 0.34 -> "340 ms", 75 -> "1m 15s", 11520 -> "3h 12m". */
function seconds(value) {
  if (absent(value)) return NONE;
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size === 0) return "0 s";
  if (size < 0.001) return sign + trimmed((size * 1e6).toPrecision(3)) + " µs";
  if (size < 1) return sign + trimmed((size * 1000).toPrecision(3)) + " ms";
  if (size < 60) return sign + trimmed(size.toPrecision(3)) + " s";
  const whole = Math.round(size);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${sign}${days}d ${hours}h`;
  if (hours) return `${sign}${hours}h ${String(minutes).padStart(2, "0")}m`;
  return `${sign}${minutes}m ${String(whole % 60).padStart(2, "0")}s`;
}

function bytes(value) {
  if (absent(value)) return NONE;
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return trimmed((value / 1000 ** power).toPrecision(3)) + " " + units[power];
}

/** Unix seconds -> "14:03:22". */
function time(value) {
  return absent(value) ? NONE : new Date(value * 1000).toLocaleTimeString("en-GB");
}

/** Unix seconds -> "22 Nov 14:03". */
function date(value) {
  if (absent(value)) return NONE;
  return new Date(value * 1000).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).replace(",", "");
}

/** Unix seconds -> "3m ago". */
function ago(value) {
  if (absent(value)) return NONE;
  const gone = Date.now() / 1000 - value;
  if (gone < 5) return "now";
  const [size, unit] = gone < 60 ? [gone, "s"] : gone < 3600 ? [gone / 60, "m"] : gone < 86400 ? [gone / 3600, "h"] : [gone / 86400, "d"];
  return `${Math.floor(size)}${unit} ago`;
}

/** A value with the unit that the API names: "%" and "fraction" are shares of 1, "s" seconds, "bytes" bytes. */
function withUnit(value, unit) {
  if (absent(value)) return NONE;
  if (unit === "%" || unit === "fraction" || unit === "share") return percent(value);
  if (unit === "s" || unit === "seconds") return seconds(value);
  if (unit === "bytes") return bytes(value);
  return number(value) + (unit ? " " + unit : "");
}

/** A metric by its name, which ends with its unit: "time/ended_s" is a time of day, "time/step_s" a duration. */
function metric(name, value, digits = 4) {
  if (absent(value)) return NONE;
  if (/(^|[/_])(ended|started)_s$/.test(name)) return `${date(value)}, ${time(value)}`.replace(/ \d\d:\d\d,/, ",");
  if (/_s$/.test(name) && !/_per_s$/.test(name)) return seconds(value);
  if (/_bytes$/.test(name)) return bytes(value);
  return number(value, digits);
}

/** Any value of a configuration or an extra as one line. */
function plain(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "number") return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

export const fmt = { number, count, percent, points, seconds, bytes, time, date, ago, withUnit, metric, plain };
