// What the page knows of the filter language: completions while one types, the place of an error, texts in quotes.
// The server alone decides what a filter means.

/** Short names and flags beside the fields that the server lists, with what they are. */
export const ALIASES = [
  { name: "adv", type: "number", help: "advantage" },
  { name: "len", type: "number", help: "length in tokens" },
  { name: "gap", type: "number", help: "largest sampler–learner gap of its tokens, nats" },
  { name: "group", type: "text", help: "group id" },
  { name: "sample", type: "number", help: "sample within the group" },
  { name: "text", type: "text", help: "the whole completion" },
  { name: "truncated", type: "flag", help: "ended by the length limit" },
  { name: "correct", type: "flag", help: "judged correct" },
];

const VALUES = {
  finish: ["stop", "length", "abort"],
  outcome: ["ok", "timeout", "error", "invalid"],
  phase: ["train", "eval"],
};

export const EXAMPLES = [
  ["reward<1 & gap>1 & step:400-412", "not right, and one token far off, in those steps"],
  ['correct & truncated', "right although it was cut off"],
  ['text~"\\\\boxed" & !correct', "a boxed answer that was not accepted"],
  ["answer=none & finish=stop", "ended by itself without an answer"],
  ['(outcome=timeout | outcome=error) & worker="sampler-1"', "grading failed for one sampler's completions"],
];

/** Text as the language quotes it. */
export function quoted(text) {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** The filter and the text search as one filter. */
export function combined(filter, search) {
  if (!search) return filter;
  return filter ? `(${filter}) & ${quoted(search)}` : quoted(search);
}

/** {start, word, before}: the word that ends at the caret, and what stands before it; null inside of quotes. */
export function wordAt(text, caret) {
  const head = text.slice(0, caret);
  if ((head.replace(/\\./g, "").match(/"/g) ?? []).length % 2) return null;
  const word = /[\w.]*$/.exec(head)[0];
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
  const { start } = wordAt(text, caret);
  return [text.slice(0, start) + insert + text.slice(caret), start + insert.length];
}

/** The character (from 0) at which the server's sentence says that a filter is wrong, or null. */
export function errorPosition(message, filter) {
  const found = /(?:position|character|column)\s+(\d+)/i.exec(message);
  return found ? Math.min(filter.length, Number(found[1])) : null;
}
