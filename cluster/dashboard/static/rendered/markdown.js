// Markdown -> a tree of plain objects, a small part of it: what models write when they answer. Nothing here makes an
// element: `view.js` does, of text nodes alone. Every loop goes forward, so that hostile text costs no more than long text.

const MAX_DEPTH = 6;
const MAX_MATH_LINES = 200; // in which the end of displayed math is looked for

/**
 * Text -> [{thinking: true | false, text, open}]: what stands between <think> and </think>, and what does not. A prompt may
 * end with <think>: then what is before a first </think> is thinking too. `open` says that it was cut off before its end.
 */
export function parts(text) {
  const found = [];
  const put = (thinking, from, to, open = false) => {
    if (text.slice(from, to).trim()) found.push({ thinking, text: text.slice(from, to), open });
  };
  let at = 0;
  const firstEnd = text.indexOf("</think>");
  const firstStart = text.indexOf("<think>");
  if (firstEnd >= 0 && (firstStart < 0 || firstStart > firstEnd)) {
    put(true, 0, firstEnd);
    at = firstEnd + "</think>".length;
  }
  while (at < text.length) {
    const start = text.indexOf("<think>", at);
    if (start < 0) break;
    put(false, at, start);
    const inside = start + "<think>".length;
    const end = text.indexOf("</think>", inside);
    put(true, inside, end < 0 ? text.length : end, end < 0);
    at = end < 0 ? text.length : end + "</think>".length;
  }
  put(false, at, text.length);
  return found;
}

/** Text -> blocks: {kind: heading | paragraph | code | math | quote | list | rule, ...}. */
export function blocks(text, depth = 0) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = blockAt(lines, at, depth);
    if (block) found.push(block);
    at = next;
  }
  return found;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const trimmed = line.trim();
  if (!trimmed) return [null, at + 1];
  const fence = /^ {0,3}(```+|~~~+)/.exec(line);
  if (fence) return fenced(lines, at, fence[1]);
  for (const [open, close] of [["$$", "$$"], ["\\[", "\\]"]]) {
    if (trimmed.startsWith(open)) {
      const math = displayed(lines, at, open, close);
      if (math) return math;
    }
  }
  const heading = /^ {0,3}(#{1,6}) +(.*)$/.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, inlines: inlines(heading[2].trimEnd().replace(/ #+$/, "").trimEnd()) }, at + 1];
  if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < MAX_DEPTH && /^ {0,3}>/.test(line)) return taken(lines, at, (each) => /^ {0,3}>/.test(each), (each) => each.replace(/^ {0,3}> ?/, ""), (inner) => ({ kind: "quote", blocks: blocks(inner, depth + 1) }));
  if (depth < MAX_DEPTH && itemOf(line)) return listAt(lines, at, depth);
  return paragraph(lines, at);
}

function fenced(lines, at, mark) {
  let end = at + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(mark) && !lines[end].trim().slice(mark.length).replaceAll(mark[0], ""))) end += 1;
  return [{ kind: "code", text: lines.slice(at + 1, end).join("\n") }, end + 1];
}

/** $$ ... $$ over one line or more; null where it does not end, and then it is text. */
function displayed(lines, at, open, close) {
  const first = lines[at].trim().slice(open.length);
  const inFirst = first.indexOf(close);
  if (inFirst >= 0) return first.slice(inFirst + close.length).trim() ? null : [{ kind: "math", text: first.slice(0, inFirst) }, at + 1];
  for (let end = at + 1; end < Math.min(lines.length, at + MAX_MATH_LINES) && lines[end].trim(); end += 1) {
    const found = lines[end].indexOf(close);
    if (found >= 0) return lines[end].slice(found + close.length).trim() ? null : [{ kind: "math", text: [first, ...lines.slice(at + 1, end), lines[end].slice(0, found)].join("\n") }, end + 1];
  }
  return null;
}

function taken(lines, at, belongs, stripped, made) {
  let end = at;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return [made(lines.slice(at, end).map(stripped).join("\n")), end];
}

function itemOf(line) {
  return /^( {0,8})([-*+]|\d{1,9}[.)]) +(?=\S)/.exec(line);
}

/** Items at the depth of the first; what is further in belongs to the item before it. */
function listAt(lines, at, depth) {
  const first = itemOf(lines[at]);
  if (!first) return paragraph(lines, at);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = itemOf(lines[end]);
    const isNext = item && item[1].length <= first[1].length + 1 && /\d/.test(item[2]) === ordered;
    const isInside = !isNext && (/^ {2,}\S/.test(lines[end]) || (!lines[end].trim() && /^ {2,}\S/.test(lines[end + 1] ?? "")));
    if (isNext) items.push([lines[end].slice(item[0].length)]);
    else if (isInside) items[items.length - 1].push(lines[end].replace(/^ {1,4}/, ""));
    else break;
    end += 1;
  }
  const start = ordered ? Number.parseInt(first[2], 10) : undefined;
  return [{ kind: "list", ordered, start, items: items.map((item) => blocks(item.join("\n"), depth + 1)) }, end];
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !/^ {0,3}(#{1,6} |>|```|~~~|\$\$|\\\[)/.test(lines[end]) && !itemOf(lines[end])) end += 1;
  return [{ kind: "paragraph", inlines: inlines(lines.slice(at, end).join("\n")) }, end];
}

const MARKS = [["**", "strong"], ["__", "strong"], ["*", "em"]];

/** Text of a line or more -> [{kind: text | code | math | strong | em, text}]. What does not end is text. */
export function inlines(text) {
  const found = [];
  let plain = "";
  let at = 0;
  const put = (part, next) => {
    if (plain) found.push({ kind: "text", text: plain });
    plain = "";
    found.push(part);
    at = next;
  };
  while (at < text.length) {
    const part = inlineAt(text, at);
    if (part) put(part[0], part[1]);
    else {
      // Up to the next character that may begin something: long text is not walked letter by letter.
      const next = text.slice(at + 1).search(/[`$*_\\]/);
      const to = next < 0 ? text.length : at + 1 + next;
      plain += text.slice(at, to);
      at = to;
    }
  }
  if (plain) found.push({ kind: "text", text: plain });
  return found;
}

const MAX_INLINE = 2000; // characters in which an end is looked for: a text of stars costs no square of its length

function inlineAt(text, at) {
  const ahead = text.slice(at, at + MAX_INLINE);
  if (ahead[0] === "`") return between(ahead, at, "`", "`", "code");
  if (ahead.startsWith("\\(")) return between(ahead, at, "\\(", "\\)", "math");
  if (ahead.startsWith("\\[")) return between(ahead, at, "\\[", "\\]", "math");
  if (ahead.startsWith("\\boxed{")) return boxed(ahead, at);
  if (ahead[0] === "$" && /^\$[^\s$]/.test(ahead)) {
    const end = /[^\s\\]\$(?!\d)/.exec(ahead.slice(1)); // "$5 and $6" is money
    return end ? [{ kind: "math", text: ahead.slice(1, end.index + 2) }, at + end.index + 3] : null;
  }
  for (const [mark, kind] of MARKS) {
    if (ahead.startsWith(mark) && /\S/.test(ahead[mark.length] ?? "") && !(mark === "__" && /\w/.test(text[at - 1] ?? ""))) return between(ahead, at, mark, mark, kind);
  }
  return null;
}

function between(ahead, at, open, close, kind) {
  const end = ahead.indexOf(close, open.length);
  return end > open.length ? [{ kind, text: ahead.slice(open.length, end) }, at + end + close.length] : null;
}

function boxed(ahead, at) {
  let depth = 0;
  for (let i = "\\boxed".length; i < ahead.length; i += 1) {
    depth += ahead[i] === "{" ? 1 : ahead[i] === "}" ? -1 : 0;
    if (depth === 0) return [{ kind: "math", text: ahead.slice(0, i + 1) }, at + i + 1];
  }
  return null;
}
