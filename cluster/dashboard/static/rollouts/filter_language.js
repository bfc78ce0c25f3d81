// What the page knows of the filter language: completions while one types, the place of an error, texts in quotes.
// The server alone decides what a filter means.

/** Short names of fields, which the server does not list. */
export const ALIASES = [
  { name: "adv", type: "number", help: "advantage" },
  { name: "calls", type: "number", help: "calls of tools in an episode" },
  { name: "episode", type: "text", help: "how an episode ended" },
  { name: "len", type: "number", help: "length in sampled tokens" },
  { name: "gap", type: "number", help: "largest gap of its tokens, nats" },
  { name: "group", type: "text", help: "the group" },
  { name: "sample", type: "number", help: "which of the group's completions" },
];

const ENDS = ["done", "turns", "tool_calls", "tokens", "seconds", "failed", "engine", "invalid_calls"];
const VALUES = {
  episode: ENDS,
  episode_outcome: ENDS,
  finish: ["stop", "length", "abort", "error"],
  outcome: ["ok", "timeout", "error", "invalid"],
  phase: ["train", "eval"],
};

export const EXAMPLES = [
  ["reward<1 & gap>1 & step:400-412", "not right, and one token far off, in those steps"],
  ['correct & truncated', "right although it was cut off"],
  ['text~"\\\\boxed" & !correct', "a boxed answer that was not accepted"],
  ["turns>=3 & episode!=done", "episodes of three turns or more that their world did not end"],
  ["answer=none & finish=stop", "ended by itself without an answer"],
  ['(outcome=timeout | outcome=error) & worker="sampler-1"', "grading failed for one sampler's completions"],
];

/** Text as the language quotes it. */
export function quoted(text) {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** {text, shift}: the filter with a text search and a range of steps ("step:3-9", or "") as one filter; `shift` is how
 *  many characters stand before the filter's own. The filter comes last, so that an error at its end is told as that. */
export function combined(filter, search, range) {
  const others = [range, search && quoted(search)].filter(Boolean).join(" & ");
  if (!others || !filter) return { text: filter || others, shift: 0 };
  const before = `${others} & ${filter.includes("|") ? "(" : ""}`; // only | binds less than what is put before it
  return { text: before + filter + (before.endsWith("(") ? ")" : ""), shift: before.length };
}

/** {start, word, before}: the word that ends at the caret, and what stands before it; null inside of quotes. */
export function wordAt(text, caret) {
  const head = text.slice(0, caret);
  if ((head.replace(/\\./g, "").match(/"/g) ?? []).length % 2) return null;
  const word = /[\w.]*$/.exec(head)?.[0] ?? "";
  return { start: caret - word.length, word, before: head.slice(0, head.length - word.length).trimEnd() };
}

/** [{insert, help}] for the word at the caret: names where a comparison begins, values after `finish=` and the like. */
export function completions(text, caret, fields) {
  const at = wordAt(text, caret);
  if (!at) return [];
  const value = /(\w+)\s*!?=$/.exec(at.before);
  if (value) return (VALUES[value[1]] ?? ["none"]).filter((one) => one.startsWith(at.word)).map((insert) => ({ insert, help: `${value[1]} is ${insert}` }));
  if (/[<>=~:]$/.test(at.before)) return [];
  const known = new Map([...(fields ?? []), ...ALIASES].map((field) => [field.name, field]));
  const lower = at.word.toLowerCase();
  const found = [...known.values()].filter(({ name }) => name.toLowerCase().startsWith(lower) && name !== at.word);
  return found.slice(0, 12).map(({ name, help, type }) => ({ insert: name, help, type }));
}

/** [text, caret] after the completion took the place of the word at the caret. */
export function completed(text, caret, insert) {
  const start = wordAt(text, caret)?.start ?? caret;
  return [text.slice(0, start) + insert + text.slice(caret), start + insert.length];
}

/** The character (from 0) at which the server's sentence says that a filter is wrong, or null. */
export function errorPosition(message) {
  const found = /(?:position|character|column)\s+(\d+)/i.exec(message);
  return found ? Math.max(0, Number(found[1]) - 1) : null; // the server counts from 1
}
