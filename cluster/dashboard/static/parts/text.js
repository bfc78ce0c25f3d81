// Text that a model wrote, or anybody: shown as text and nothing else. What the eye cannot see becomes a chip.

import { options } from "preact";
import { html, useMemo, useState } from "shoal/parts/ui.js";

const FOLD_CHARACTERS = 20_000;
const MAX_SEGMENTS = 4_000; // a megabyte of control characters must not become a million elements

const ANSI = "\\u001b\\[[0-9:;<=>?]*[ -/]*[@-~]|\\u001b\\][^\\u0007\\u001b]{0,200}(?:\\u0007|\\u001b\\\\)|\\u001b[@-Z\\\\^_]";
const CONTROL = "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]";
const BIDI = "[\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]";
const INVISIBLE = "[\\u00ad\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-\\u200d\\u2028\\u2029\\u2060-\\u2065\\u206a-\\u206f\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\u{e0000}-\\u{e0fff}]";
/** Blanks of other kinds than the one on the keyboard: they look like it, and a grader or a tokenizer tells them apart. */
const BLANK = "[\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u2800\\u3000]";
const SURROGATE = "[\\ud800-\\udfff]";
const PILED_MARKS = "\\p{M}{5,}";
const HIDDEN = new RegExp(`(${ANSI})|(${CONTROL}|${BIDI}|${INVISIBLE}|${BLANK}|${SURROGATE})|(${PILED_MARKS})`, "gu");
const HIDDEN_RUNS = new RegExp(`(?:${CONTROL}|${BIDI}|${INVISIBLE}|${BLANK}|${SURROGATE}|${PILED_MARKS})+`, "gu");
/** What must stand nowhere as it is; our own texts have blanks that do not break. */
const HARMFUL = new RegExp(`${CONTROL}|${BIDI}|${INVISIBLE}|${SURROGATE}`, "u");

const NAMES = {
  0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x0b: "VT", 0x0c: "FF", 0x0d: "CR", 0x1b: "ESC", 0x7f: "DEL", 0x85: "NEL",
  0xad: "SHY", 0x61c: "ALM", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM", 0x2028: "LS",
  0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO", 0x2060: "WJ", 0x2066: "LRI",
  0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM", 0xa0: "NBSP", 0x202f: "NNBSP", 0x2800: "blank braille",
  0x3000: "wide blank",
};

const BLANK_ALONE = new RegExp(`^${BLANK}$`, "u");

function codeOf(character) {
  const code = character.codePointAt(0);
  return { code, hex: "U+" + code.toString(16).toUpperCase().padStart(4, "0") };
}

function chipFor([whole, ansi, hidden, marks]) {
  if (ansi) return { chip: "ESC" + ansi.slice(1, 24).replace(/[\u0000-\u001f]/g, ""), title: "terminal escape sequence", key: whole };
  if (marks) return { chip: `${[...marks].length} marks`, title: "combining marks piled on one character", key: whole };
  const { code, hex } = codeOf(hidden);
  const kind =
    code >= 0xd800 && code <= 0xdfff ? "half of a surrogate pair"
    : code < 0xa0 ? "control character"
    : BLANK_ALONE.test(hidden) ? "a blank that is not the ordinary one"
    : "invisible character";
  return { chip: NAMES[code] ?? hex, title: `${hex}, ${kind}`, key: whole };
}

/**
 * Text -> [{text} | {chip, title, count}]: pieces to show as they are, and what is named since it cannot be seen.
 *
 * @returns {{text?: string, chip?: string, title?: string, key?: string, count?: number}[]}
 */
export function segments(value, limit = MAX_SEGMENTS) {
  /** @type {ReturnType<typeof segments>} */
  const parts = [];
  let at = 0;
  for (const match of value.matchAll(HIDDEN)) {
    if (parts.length >= limit) break;
    if (match.index > at) parts.push({ text: value.slice(at, match.index) });
    at = match.index + match[0].length;
    const chip = chipFor(match);
    const last = parts.at(-1);
    if (last && last.key === chip.key) last.count = (last.count ?? 0) + 1;
    else parts.push({ ...chip, count: 1 });
  }
  const rest = value.slice(at);
  if (rest) parts.push({ text: parts.length >= limit ? rest.replace(HIDDEN_RUNS, "\ufffd") : rest });
  return parts;
}

/** Text for where there can be no chips: what the eye cannot see is named in brackets. */
export function named(value) {
  if (!value.search || value.search(HIDDEN) < 0) return value;
  return segments(value).map((part) => part.text ?? `[${part.chip}]`).join("");
}

/** Text that reached an element past <Text>: a name of a metric, an option of a menu. What it hides is named. */
function plainChild(child) {
  if (Array.isArray(child)) return child.map(plainChild);
  return typeof child === "string" && HARMFUL.test(child) ? named(child) : child;
}

// Whatever becomes a title or a label: the browser shows it by itself, so it can have no chips.
const before = options.vnode;
options.vnode = (vnode) => {
  const { type, props } = vnode;
  if (typeof type === "string") {
    for (const name of ["title", "aria-label", "aria-valuetext", "placeholder"]) if (typeof props[name] === "string") props[name] = named(props[name]);
    if (props.children !== undefined) props.children = plainChild(props.children);
  }
  before?.(vnode);
};

/** A chip that names what cannot be shown. */
export function Chip({ label, title, kind = "" }) {
  return html`<span class=${"chip " + kind} title=${title}>${label}</span>`;
}

function marked(text, mark) {
  if (!mark) return text;
  const lower = text.toLowerCase();
  const needle = mark.toLowerCase();
  // Some letters change their length in lower case; then places no longer agree and nothing is marked.
  if (lower.length !== text.length || !needle) return text;
  const parts = [];
  let at = 0;
  for (let found = lower.indexOf(needle); found >= 0 && parts.length < 1000; found = lower.indexOf(needle, at)) {
    parts.push(text.slice(at, found), html`<mark>${text.slice(found, found + needle.length)}</mark>`);
    at = found + needle.length;
  }
  return [...parts, text.slice(at)];
}

function renderSegment(part, mark, inline) {
  if (part.chip) {
    const label = part.count > 1 ? `${part.chip} ×${part.count}` : part.chip;
    return html`<${Chip} label=${label} title=${part.title} />`;
  }
  if (!inline || !/[\n\t]/.test(part.text)) return marked(part.text, mark);
  return part.text.split(/(\n|\t)/).map((piece) => {
    if (piece === "\n") return html`<span class="newline" title="line break">↵</span>`;
    return piece === "\t" ? " " : marked(piece, mark);
  });
}

function cut(value, length) {
  const code = value.charCodeAt(length - 1);
  return value.slice(0, code >= 0xd800 && code <= 0xdbff ? length - 1 : length); // not in the middle of a pair
}

/**
 * Foreign text as text nodes. `mark`: a text to highlight; `inline`: one line, for a cell of a table (the caller's CSS cuts it);
 * `fold`: characters shown before "show all".
 */
export function Text({ value, mark = "", inline = false, fold = FOLD_CHARACTERS }) {
  const [open, setOpen] = useState(false);
  const whole = value === null || value === undefined ? "" : String(value);
  const folded = whole.length > fold && !open;
  const shown = folded ? cut(whole, fold) : whole;
  const parts = useMemo(() => segments(shown).map((part) => renderSegment(part, mark, inline)), [shown, mark, inline]);
  if (inline) return html`<bdi class="foreign inline">${parts}${folded ? "…" : null}</bdi>`;
  return html`<bdi class="foreign" dir="auto">${parts}${
    whole.length > fold
      ? html`<button class="fold" type="button" onClick=${() => setOpen(!open)}>
          ${folded ? `show all ${whole.length.toLocaleString("en")} characters` : "show less"}
        </button>`
      : null
  }</bdi>`;
}
