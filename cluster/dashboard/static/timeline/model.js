// The arithmetic of the timeline, without a canvas: which row a span is in, what lies under the pointer, how a window
// of time zooms and pans. Times are Unix seconds, places are CSS pixels; a window is {from, to}.

export const KINDS = {
  generate: "samples completions",
  score: "scores completions",
  accumulate: "gradients of groups, while others are sampled",
  train: "one optimizer step",
  sync: "weights to the samplers",
  save: "writes a checkpoint",
  eval: "held-out evaluation",
  wait: "waits for another actor",
  down: "not running",
  stopped: "the whole run was not running",
  instant: "a moment: restart, state, warning",
};

// Work on many groups goes on side by side in one actor; all other kinds occupy it alone.
const CONCURRENT = new Set(["generate", "score"]);
const MAX_ROWS = 12;
const MAX_PART_ROWS = 32;
const LANE_GAP = 10;
const FOOT_HEIGHT = 12; // numbers of the steps
const RIBBON_HEIGHT = 22;
const AXIS_HEIGHT = 20;
export const TOP = RIBBON_HEIGHT + AXIS_HEIGHT;
export const RIBBON = { top: AXIS_HEIGHT, height: RIBBON_HEIGHT - 4 };
const SHORTEST_WINDOW_S = 0.002;
const REACH_PX = 3; // how far from a thin span the pointer still means it

// Rows for spans that overlap: each takes the first row that is free when it starts.
export function packRows(spans, maxRows = MAX_ROWS) {
  const ends = [];
  const rows = new Map();
  for (const span of [...spans].sort((a, b) => a.start - b.start || b.end - a.end)) {
    let row = ends.findIndex((end) => end <= span.start + 1e-9);
    if (row < 0) row = ends.length < maxRows ? ends.length : ends.indexOf(Math.min(...ends));
    ends[row] = Math.max(ends[row] ?? -Infinity, span.end);
    rows.set(span, row);
  }
  return { rows, count: ends.length };
}

// A lane of blocks that hold many groups is taller: each group is a line in its block.
function rowHeight(count, crowded) {
  if (count <= 1) return crowded ? 36 : 22;
  return Math.max(6, Math.min(crowded ? 24 : 14, Math.floor(84 / count)));
}

// `depths` (actor -> {rows, crowded}) is kept by the caller between windows, so that no lane shrinks while one zooms.
// `stops` are drawn in every lane.
export function layoutLanes(lanes, depths, stops = []) {
  let top = TOP;
  const placed = lanes.map((lane) => {
    const packed = packRows(lane.spans.filter((span) => CONCURRENT.has(span.kind)));
    const known = depths.get(lane.actor) ?? { rows: 1, crowded: false };
    const rows = Math.max(packed.count, known.rows);
    const crowded = known.crowded || Boolean(lane.cells) || lane.spans.some((span) => span.count > 1 || span.groups > 1 && CONCURRENT.has(span.kind));
    depths.set(lane.actor, { rows, crowded });
    const each = rowHeight(rows, crowded);
    const height = each * rows;
    const boxes = lane.spans.map((span) => {
      const row = packed.rows.get(span);
      return row === undefined ? { span, top, height } : { span, top: top + row * each, height: each - (rows > 1 ? 1 : 0), parts: partsOf(span) };
    });
    for (const stop of stops) boxes.push({ span: { ...stop, kind: "stopped", id: null, count: 1 }, top, height });
    // Waiting is background: what the actor did meanwhile is drawn, and met by the pointer, above it.
    boxes.sort((a, b) => (a.span.kind === "wait" ? 0 : 1) - (b.span.kind === "wait" ? 0 : 1));
    const result = { ...lane, cells: withSums(lane.cells), top, height, boxes };
    top += height + LANE_GAP;
    return result;
  });
  return { lanes: placed, height: top + FOOT_HEIGHT };
}

// The shares of a lane's pixels with `sums`: [kind, the sum of the shares before each pixel, and of all].
function withSums(cells) {
  if (!cells) return null;
  const sums = Object.entries(cells.kinds).map(([kind, shares]) => {
    const before = new Float64Array(shares.length + 1);
    shares.forEach((share, place) => (before[place + 1] = before[place] + share));
    return [kind, before];
  });
  return { ...cells, sums };
}

// The spans that a block holds, as {spans: [{start, end, row}], rows}; null for a single one.
function partsOf(block) {
  if (!block.parts) return null;
  const spans = block.parts.map(([, start, end]) => ({ start, end }));
  const { rows, count } = packRows(spans, MAX_PART_ROWS);
  return { rows: count, spans: spans.map((span) => ({ ...span, row: rows.get(span) })) };
}

export function toX(view, width, time) {
  return ((time - view.from) / (view.to - view.from)) * width;
}

export function toTime(view, width, x) {
  return view.from + (x / width) * (view.to - view.from);
}

// The window within the extent, as long as asked for where the extent is long enough.
export function clampView(view, extent) {
  const whole = Math.max(extent[1] - extent[0], SHORTEST_WINDOW_S);
  const length = Math.min(Math.max(view.to - view.from, SHORTEST_WINDOW_S), whole);
  const from = Math.min(Math.max(view.from, extent[0]), extent[0] + whole - length);
  return { from, to: from + length };
}

// factor < 1 zooms in; the time `at` stays where it is on the screen.
export function zoomView(view, extent, factor, at) {
  return clampView({ from: at - (at - view.from) * factor, to: at + (view.to - at) * factor }, extent);
}

export function panView(view, extent, seconds) {
  return clampView({ from: view.from + seconds, to: view.to + seconds }, extent);
}

export function isWhole(view, extent) {
  const slack = (extent[1] - extent[0]) * 1e-6;
  return view.from <= extent[0] + slack && view.to >= extent[1] - slack;
}

// Round times for the axis, counted from `origin` (the start of the run), about one for each 110 pixels.
export function axisTicks(view, width, origin) {
  const rough = ((view.to - view.from) / Math.max(width, 1)) * 110;
  const nice = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
  const hour = 3600;
  const step = nice.find((value) => value >= rough) ?? Math.ceil(rough / hour) * hour;
  const ticks = [];
  for (let k = Math.ceil((view.from - origin) / step - 1e-9); origin + k * step <= view.to; k++) {
    ticks.push({ time: origin + k * step, label: clock(k * step, step) });
  }
  return ticks;
}

function clock(seconds, step) {
  const sign = seconds < 0 ? "-" : "";
  const total = Math.abs(seconds);
  if (step < 1) return `${sign}${total.toFixed(step < 0.01 ? 3 : step < 0.1 ? 2 : 1)} s`;
  const whole = Math.round(total);
  if (whole < 60) return `${sign}${whole} s`;
  const pad = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${sign}${minutes}:${pad(whole % 60)}`;
  return `${sign}${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

// The steps of several answers, each once: [{step, start, end}] in order. A step is from the end of the one before it, or
// from when the run was resumed, until the last learner has trained it.
export function stepWindows(answers) {
  const known = new Map();
  for (const answer of answers) for (const step of answer?.steps ?? []) known.set(step.step, step);
  return [...known.values()].sort((a, b) => a.end - b.end);
}

// The window of one step; of a run of very many, where not all are told, of the last one told before it.
export function stepView(windows, step, extent) {
  const found = windows.findLast((each) => each.step <= step);
  return found ? clampView({ from: found.start, to: found.end }, extent) : null;
}

// What lies under (x, y): {lane, span} with span null beside all spans, or null outside the lanes.
export function hit(layout, view, width, x, y) {
  const lane = layout.lanes.find((each) => y >= each.top - LANE_GAP / 2 && y < each.top + each.height + LANE_GAP / 2);
  if (!lane) return null;
  let best = lane.cells ? cellAt(lane, toTime(view, width, x)) : null;
  let bestDistance = REACH_PX;
  for (const box of lane.boxes) {
    if (y < box.top - 0.5 || y > box.top + box.height + 0.5) continue;
    const left = toX(view, width, box.span.start);
    const right = toX(view, width, box.span.end);
    const distance = x < left ? left - x : x > right ? x - right : 0;
    if (distance < bestDistance || (distance === bestDistance && distance === 0)) {
      best = box.span;
      bestDistance = distance;
    }
  }
  return { lane, span: best };
}

// What a lane that is drawn by shares did around a time, like a span: `kinds` are [kind, share], the greatest first.
function cellAt({ cells }, time) {
  const count = Object.values(cells.kinds)[0]?.length ?? 0;
  const each = (cells.end - cells.start) / count;
  const place = Math.floor((time - cells.start) / each);
  if (!count || place < 0 || place >= count) return null;
  const kinds = Object.entries(cells.kinds).map(([kind, values]) => [kind, values[place]]).filter(([, share]) => share > 0);
  if (!kinds.length) return null;
  kinds.sort((a, b) => b[1] - a[1]);
  return { id: null, kind: kinds[0][0], start: cells.start + place * each, end: cells.start + (place + 1) * each, kinds };
}

// Versions as pieces of the ribbon: each lasts until the next one.
export function versionPieces(versions, extent) {
  return versions.map((each, index) => ({
    version: each.version,
    start: each.time_s,
    end: index + 1 < versions.length ? versions[index + 1].time_s : extent[1],
  }));
}
