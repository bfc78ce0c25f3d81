// Differences of two texts by words, for the two-up view. Pure, bounded: long texts that differ everywhere end as one
// changed block, never as a page that hangs.

const MAX_EDITS = 600;

/** Words and single other characters, each with the blanks behind it, and line breaks; joined they are the text again.
 *  Blanks alone would match everywhere and cut a changed sentence into confetti. */
export function words(text) {
  return text.match(/\n|[\p{L}\p{N}_]+[^\S\n]*|[^\s][^\S\n]*|[^\S\n]+/gu) ?? [];
}

/** [{kind: "same" | "left" | "right", text}] whose same+left texts are `a` and same+right texts are `b`. */
export function diffTexts(a, b) {
  const left = words(a);
  const right = words(b);
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start++;
  let end = 0;
  while (end < left.length - start && end < right.length - start && left[left.length - 1 - end] === right[right.length - 1 - end]) end++;
  const middleLeft = left.slice(start, left.length - end);
  const middleRight = right.slice(start, right.length - end);
  const parts = [];
  push(parts, "same", left.slice(0, start));
  for (const [kind, word] of editScript(middleLeft, middleRight)) push(parts, kind, [word]);
  push(parts, "same", left.slice(left.length - end));
  return parts;
}

function push(parts, kind, list) {
  if (list.length === 0) return;
  const last = parts[parts.length - 1];
  if (last && last.kind === kind) last.text += list.join("");
  else parts.push({ kind, text: list.join("") });
}

/** Myers' greedy algorithm (An O(ND) difference algorithm, 1986), with the frontier of each round kept for the way back. */
function editScript(a, b) {
  const trace = [];
  let frontier = new Map([[1, 0]]);
  for (let d = 0; d <= Math.min(MAX_EDITS, a.length + b.length); d++) {
    const next = new Map();
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (frontier.get(k - 1) ?? -1) < (frontier.get(k + 1) ?? -1));
      let x = down ? (frontier.get(k + 1) ?? 0) : (frontier.get(k - 1) ?? 0) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      next.set(k, x);
      if (x >= a.length && x - k >= b.length) return backtrack(a, b, [...trace, frontier], d);
    }
    trace.push(frontier);
    frontier = new Map([...frontier, ...next]);
  }
  return [...a.map((word) => ["left", word]), ...b.map((word) => ["right", word])];
}

function backtrack(a, b, trace, rounds) {
  const script = [];
  let x = a.length;
  let y = b.length;
  for (let d = rounds; d > 0; d--) {
    const frontier = trace[d];
    const k = x - y;
    const down = k === -d || (k !== d && (frontier.get(k - 1) ?? -1) < (frontier.get(k + 1) ?? -1));
    const previousK = down ? k + 1 : k - 1;
    const previousX = frontier.get(previousK) ?? 0;
    const previousY = previousX - previousK;
    while (x > previousX && y > previousY && x > 0 && y > 0 && a[x - 1] === b[y - 1]) {
      script.push(["same", a[--x]]);
      y--;
    }
    if (down) script.push(["right", b[--y]]);
    else script.push(["left", a[--x]]);
  }
  while (x > 0 && y > 0) {
    script.push(["same", a[--x]]);
    y--;
  }
  return script.reverse();
}
