// Colours: the theme, CSS tokens as the canvas needs them, and scales that colour-blind eyes can read.
// Blue is good, up, reinforced; orange is bad, down, discouraged: everywhere.

import { useEffect, useState } from "preact/hooks";

const listeners = new Set();
const resolved = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Okabe-Ito without black and yellow, which are lost on one of the two backgrounds; on the dark one a shade lighter. */
const CATEGORICAL = {
  light: ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7ae6", "#7f8c8d"],
  dark: ["#4da3dd", "#e8ab2e", "#2fb48d", "#d98fb8", "#8ecdf0", "#ef7b3a", "#a99bf0", "#9aa6a8"],
};

/** Colour of the series number `index`, "#rrggbb". */
export function series(index, now = theme()) {
  return CATEGORICAL[now][index % CATEGORICAL[now].length];
}

/** "light" or "dark": what was chosen, else what the system prefers. */
export function theme() {
  return document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
}

export function toggleTheme() {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  remember(next);
  changed();
}

function remember(value) {
  try {
    localStorage.setItem("shoal-theme", value);
  } catch {
    // Storage is refused (private window, file://): the choice lasts as long as the page.
  }
}

/** Puts the theme of the last visit in place; called once, before anything is drawn. */
export function restoreTheme() {
  let kept = null;
  try {
    kept = localStorage.getItem("shoal-theme");
  } catch {
    // As above: the system's preference it is.
  }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
}

function changed() {
  resolved.clear();
  for (const listener of listeners) listener(theme());
}

dark.addEventListener("change", changed);

/** The theme, anew when it changes: for whatever draws with colours of its own. */
export function useTheme() {
  const [value, setValue] = useState(theme());
  useEffect(() => {
    setValue(theme());
    listeners.add(setValue);
    return () => listeners.delete(setValue);
  }, []);
  return value;
}

/** The CSS token `name` ("--line") as a colour that a canvas takes: a probe element resolves light-dark(). */
export function token(name) {
  if (!resolved.has(name)) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    resolved.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return resolved.get(name);
}

const STOPS = {
  // [at -1, at 0, at +1]: the middle is the page's own grey, so that nothing shouts where nothing is.
  diverging: { light: [[211, 104, 36], [236, 233, 227], [46, 113, 179]], dark: [[232, 122, 48], [43, 51, 60], [88, 158, 226]] },
  // [at 0, at 1/2, at 1]
  sequential: { light: [[240, 239, 234], [120, 168, 204], [16, 62, 112]], dark: [[30, 38, 47], [52, 112, 164], [168, 214, 250]] },
};

function mix(stops, share) {
  const place = Math.min(1, Math.max(0, share)) * 2;
  const [from, to] = place <= 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
  const part = place <= 1 ? place : place - 1;
  return from.map((channel, i) => Math.round(channel + (to[i] - channel) * part));
}

const rgb = (channels) => `rgb(${channels.join(" ")})`;

/** Colour of a signed value in [-1, 1]; null is transparent. */
export function diverging(value, now = theme()) {
  return value === null || value === undefined ? "transparent" : rgb(mix(STOPS.diverging[now], (value + 1) / 2));
}

/** Colour of a share in [0, 1]; null is transparent. */
export function sequential(share, now = theme()) {
  return share === null || share === undefined ? "transparent" : rgb(mix(STOPS.sequential[now], share));
}

/** Colour of a reward within [low, high]: orange for the lowest, blue for the highest. */
export function rewardColour(reward, [low, high] = [0, 1], now = theme()) {
  if (reward === null || reward === undefined) return "transparent";
  const share = high > low ? (reward - low) / (high - low) : 0.5;
  return diverging(share * 2 - 1, now);
}

/** Text colour that is legible on `colour` (as the scales give it). */
export function textOn(colour) {
  const [r, g, b] = (colour.match(/\d+(\.\d+)?/g) ?? [255, 255, 255]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#14181c" : "#f4f6f8";
}

/** Colour of a state: "ok", "watch", "alarm" or "none". */
export function stateColour(state) {
  return token({ ok: "--ok", watch: "--watch", alarm: "--alarm" }[state] ?? "--faint");
}
