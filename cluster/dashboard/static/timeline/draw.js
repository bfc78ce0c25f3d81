// Draws the timeline on a canvas. Each kind of work has a colour, a pattern and, where there is room, its label, so
// that none depends on colour alone.

import { RIBBON, TOP, axisTicks, toX, versionPieces } from "shoal/timeline/model.js";

const PATTERNS = {
  generate: "plain",
  score: "dots",
  accumulate: "dots",
  train: "plain",
  sync: "diagonal",
  save: "vertical",
  eval: "horizontal",
  wait: "sparse",
  down: "cross",
  stopped: "gaps",
};
const OPEN = new Set(["wait", "down", "stopped"]); // nothing was done: drawn on the background
const TILE = 8;
const GAP_FROM_PX = 25; // from here on a gap after a bar takes no more of it than the eye can tell
const LEAST_STEP_PX = 8;
const LABEL_FONT = "11px system-ui, sans-serif";

// Paths of a pattern within a tile of 8 x 8, in CSS pixels.
function traceTile(context, pattern) {
  const lines = {
    diagonal: [[-2, 6, 2, 10], [0, 8, 8, 0], [6, -2, 10, 2], [-4, 4, 4, -4], [4, 12, 12, 4]],
    sparse: [[0, 8, 8, 0], [-2, 2, 2, -2], [6, 10, 10, 6]],
    vertical: [[2, 0, 2, 8], [6, 0, 6, 8]],
    horizontal: [[0, 2, 8, 2], [0, 6, 8, 6]],
    cross: [[0, 8, 8, 0], [0, 0, 8, 8]],
    gaps: [[0, 4, 3, 4]],
  }[pattern];
  context.beginPath();
  if (pattern === "dots") {
    for (const [x, y] of [[2, 2], [6, 6]]) context.rect(x - 0.75, y - 0.75, 1.5, 1.5);
    context.fill();
    return;
  }
  for (const [x1, y1, x2, y2] of lines) {
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
  }
  context.stroke();
}

// Fill styles for all kinds in this theme; `colours` are CSS colours by kind plus `ink` and `paper`.
export function makeFills(context, colours, ratio) {
  const fills = {};
  for (const [kind, pattern] of Object.entries(PATTERNS)) {
    if (pattern === "plain") {
      fills[kind] = colours[kind];
      continue;
    }
    const tile = document.createElement("canvas");
    tile.width = tile.height = TILE * ratio;
    const paint = /** @type {CanvasRenderingContext2D} */ (tile.getContext("2d"));
    paint.scale(ratio, ratio);
    const open = OPEN.has(kind);
    if (!open) {
      paint.fillStyle = colours[kind];
      paint.fillRect(0, 0, TILE, TILE);
    }
    paint.strokeStyle = paint.fillStyle = open ? colours[kind] : colours.paper;
    paint.globalAlpha = { down: 0.9, wait: 0.55, stopped: 0.55 }[kind] ?? 0.45;
    paint.lineWidth = kind === "down" ? 1.2 : 1;
    traceTile(paint, pattern);
    const repeated = context.createPattern(tile, "repeat");
    repeated.setTransform(new DOMMatrix().scale(1 / ratio, 1 / ratio));
    fills[kind] = repeated;
  }
  return fills;
}

function drawAxis(scene) {
  const { context, view, width, height, colours, origin } = scene;
  context.font = LABEL_FONT;
  context.textBaseline = "middle";
  for (const tick of axisTicks(view, width, origin)) {
    const x = Math.round(toX(view, width, tick.time)) + 0.5;
    context.fillStyle = colours.line;
    context.fillRect(x - 0.5, 14, 1, height - 14);
    context.fillStyle = colours.faint;
    const room = context.measureText(tick.label).width;
    if (x + room / 2 < width && x - room / 2 > 0) context.fillText(tick.label, x - room / 2, 8);
  }
}

function drawSteps(scene) {
  const { context, view, width, height, colours, steps } = scene;
  context.font = LABEL_FONT;
  let lastLabel = -Infinity;
  const shown = steps.filter((each) => each.end >= view.from && each.end <= view.to);
  const lines = shown.length * LEAST_STEP_PX < width; // of more of them than that nothing would be seen but lines
  for (const each of shown) {
    const x = Math.round(toX(view, width, each.end));
    context.fillStyle = colours.step;
    if (lines) for (let y = TOP; y < height - 2; y += 4) context.fillRect(x, y, 1, 2);
    const label = `${each.step}`;
    const room = context.measureText(label).width;
    if (x - room - 4 > lastLabel && x - room - 3 > 0) {
      context.fillText(label, x - room - 3, height - 7);
      lastLabel = x;
    }
  }
}

function drawRibbon(scene) {
  const { context, view, width, colours, versions, extent } = scene;
  context.font = LABEL_FONT;
  context.textBaseline = "middle";
  for (const piece of versionPieces(versions, extent)) {
    if (piece.end < view.from || piece.start > view.to) continue;
    const left = Math.max(0, toX(view, width, piece.start));
    const right = Math.min(width, toX(view, width, piece.end));
    context.fillStyle = piece.version % 2 ? colours.ribbonOdd : colours.ribbonEven;
    context.fillRect(left, RIBBON.top, Math.max(right - left - 1, 1), RIBBON.height);
    const label = right - left > 76 ? `version ${piece.version}` : `${piece.version}`;
    if (context.measureText(label).width + 8 < right - left) {
      context.fillStyle = colours.muted;
      context.fillText(label, left + 5, RIBBON.top + RIBBON.height / 2 + 0.5);
    }
  }
}

function labelOf(span) {
  if (span.label && span.label !== span.kind) return span.label;
  return span.step == null ? span.kind : `${span.kind} ${span.step}`;
}

function drawBox(scene, box, dimmed) {
  const { context, view, width, colours, fills } = scene;
  const { span, top, height } = box;
  if (span.end < view.from || span.start > view.to) return;
  const left = Math.max(-2, toX(view, width, span.start));
  const right = Math.min(width + 2, toX(view, width, span.end));
  if (span.kind === "instant") {
    drawInstant(scene, left, top, height);
    return;
  }
  const long = Math.max(right - left, 1);
  const shade = dimmed ? 0.22 : 1;
  context.fillStyle = fills[span.kind] ?? colours.faint;
  if (box.parts && long > 12) drawParts(scene, box, shade);
  else {
    context.globalAlpha = shade;
    context.fillRect(left, top, long > GAP_FROM_PX ? long - 0.5 : long, height);
  }
  context.globalAlpha = shade;
  if (OPEN.has(span.kind) && long > 14) {
    context.strokeStyle = colours[span.kind];
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, top + 0.5, long - 1.5, height - 1);
  }
  if (height >= 16 && long > 34) drawLabel(scene, span, left, long, top + height / 2 + 0.5);
  context.globalAlpha = 1;
}

// A lane with more spans than can be drawn one by one: in each pixel the share of each kind is its share of the height, so
// that what is drawn is as much as was done. Column by column: two bars that meet within a pixel would leave a seam.
function drawCells({ context, view, width, ratio, colours, fills }, lane, dimmed) {
  const { start, end, sums } = lane.cells;
  const count = (sums[0]?.[1].length ?? 0) - 1;
  const cellAt = (x) => Math.max(0, Math.min(count, ((view.from + (x / width) * (view.to - view.from) - start) / (end - start)) * count));
  context.globalAlpha = dimmed ? 0.22 : 1;
  for (let left = 0; left < width; left += 1 / ratio) {
    const [from, to] = [cellAt(left), cellAt(left + 1 / ratio)];
    const shares = sums.map(([, before]) => (to > from ? (upTo(before, to) - upTo(before, from)) / (to - from) : 0));
    let share = shares.reduce((sum, each) => sum + each, 0);
    const height = lane.height / Math.max(1, share);
    // The whole height first, in the topmost kind's colour, and over it the rest.
    for (let place = sums.length - 1; place >= 0; place--) {
      if (shares[place] > 0) {
        context.fillStyle = fills[sums[place][0]] ?? colours.faint;
        context.fillRect(left, lane.top + lane.height - share * height, 1 / ratio, share * height);
      }
      share -= shares[place];
    }
  }
  context.globalAlpha = 1;
}

// The sum of so many cells, the last of them in part; before: their sums from 0 on.
function upTo(before, cells) {
  const whole = Math.floor(cells);
  return cells > whole ? before[whole] + (cells - whole) * (before[whole + 1] - before[whole]) : before[whole];
}

// A block of groups that ran together: how long it lasted in a pale tone, each group as a line in it.
function drawParts({ context, view, width }, box, shade) {
  const { span, top, height, parts } = box;
  const left = toX(view, width, span.start);
  context.globalAlpha = 0.25 * shade;
  context.fillRect(left, top, toX(view, width, span.end) - left - 0.5, height);
  context.globalAlpha = shade;
  const each = height / parts.rows;
  for (const part of parts.spans) {
    if (part.end < view.from || part.start > view.to) continue;
    const from = toX(view, width, part.start);
    const room = each > 3 ? 1 : each > 1.5 ? 0.4 : 0;
    context.fillRect(from, top + part.row * each, Math.max(toX(view, width, part.end) - from - 0.5, 0.7), each - room);
  }
}

function drawLabel(scene, span, left, long, middle) {
  const { context, colours } = scene;
  context.font = LABEL_FONT;
  const label = [labelOf(span), span.kind].find((text) => context.measureText(text).width + 12 < long);
  if (!label) return;
  const room = context.measureText(label).width;
  const open = OPEN.has(span.kind);
  // A label that would be off the screen on the left moves in with its span.
  const x = Math.max(left, 0) + 5;
  context.fillStyle = open ? colours.paper : colours[span.kind];
  if (open || span.count > 1 || PATTERNS[span.kind] !== "plain") context.fillRect(x - 3, middle - 7, room + 6, 14);
  context.fillStyle = open ? colours.muted : colours[`${span.kind}Ink`];
  context.fillText(label, x, middle);
}

function drawInstant(scene, x, top, height) {
  const { context, colours } = scene;
  context.fillStyle = colours.down;
  context.fillRect(x - 0.5, top - 3, 1, height + 6);
  context.beginPath();
  context.moveTo(x - 4, top - 5);
  context.lineTo(x + 4, top - 5);
  context.lineTo(x, top + 2);
  context.fill();
}

function outline(scene, box, colour, thickness) {
  const { context, view, width } = scene;
  const left = toX(view, width, box.span.start);
  const long = Math.max(toX(view, width, box.span.end) - left, 2);
  context.strokeStyle = colour;
  context.lineWidth = thickness;
  context.strokeRect(left - 1, box.top - 1, long + 2, box.height + 2);
}

function drawMeasure(scene) {
  const { context, view, width, height, colours, measure } = scene;
  const [left, right] = [measure.from, measure.to].map((time) => toX(view, width, time)).sort((a, b) => a - b);
  context.globalAlpha = 0.16;
  context.fillStyle = colours.accent;
  context.fillRect(left, TOP, right - left, height - TOP);
  context.globalAlpha = 1;
  context.fillRect(left, TOP, 1, height - TOP);
  context.fillRect(right, TOP, 1, height - TOP);
}

// The chain of work that each step had to wait for: a line under its stretches, joined where it goes to another lane.
function drawPath({ context, view, width, colours, layout, path }) {
  const lanes = new Map(layout.lanes.map((lane) => [lane.actor, lane]));
  context.strokeStyle = context.fillStyle = colours.accent;
  for (const { path: stretches } of path) {
    let before = null;
    for (const stretch of stretches) {
      const lane = lanes.get(stretch.actor);
      if (!lane || stretch.end < view.from || stretch.start > view.to) continue;
      const bottom = lane.top + lane.height + 2;
      const [left, right] = [stretch.start, stretch.end].map((time) => toX(view, width, time));
      context.fillRect(left, bottom, Math.max(right - left, 1), 3);
      if (before !== null && before !== bottom) context.fillRect(left - 0.5, Math.min(before, bottom), 1, Math.abs(bottom - before) + 3);
      before = bottom;
    }
  }
}

// scene: {context, view, extent, origin, width, height, ratio, colours, fills, layout, versions, steps, hovered (span),
// selected (span id), highlight ({actor, for} or null), measure ({from, to} or null), path (critical paths or null),
// pointer (time or null)}
export function drawScene(scene) {
  const { context, layout, width, height, ratio, colours, highlight } = scene;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  drawAxis(scene);
  for (const lane of layout.lanes) {
    context.fillStyle = colours.lane;
    context.fillRect(0, lane.top, width, lane.height);
  }
  drawRibbon(scene);
  for (const lane of layout.lanes) {
    if (lane.cells) drawCells(scene, lane, highlight && highlight.actor !== lane.actor && highlight.for !== lane.actor);
    for (const box of lane.boxes) drawBox(scene, box, highlight && !inHighlight(highlight, lane, box.span));
  }
  drawSteps(scene);
  for (const lane of layout.lanes) {
    for (const box of lane.boxes) {
      if (box.span === scene.hovered) outline(scene, box, colours.ink, 1);
      if (scene.selected != null && box.span.id === scene.selected) outline(scene, box, colours.accent, 2);
    }
  }
  if (scene.path) drawPath(scene);
  if (scene.measure) drawMeasure(scene);
  if (scene.pointer != null) {
    context.fillStyle = colours.step;
    context.fillRect(Math.round(toX(scene.view, width, scene.pointer)), TOP, 1, height - TOP);
  }
}

// A row of "who waited for whom" lights the waits of one actor and all that the other one did.
function inHighlight(highlight, lane, span) {
  if (lane.actor === highlight.actor) return span.kind === "wait" && span.for === highlight.for;
  return lane.actor === highlight.for && span.kind !== "wait";
}
