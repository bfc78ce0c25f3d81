// A pixel for each group of a run, in order of dispatch, coloured by where the group is.

import { token } from "shoal/parts/colours.js";
import { useCanvas } from "shoal/parts/paint.js";
import { HoverCard, html, useMemo, useSize, useState } from "shoal/parts/ui.js";

// Letter of the ledger -> [state, what it means].
export const LETTERS = {
  p: ["pending", "waits to be sampled"],
  l: ["leased", "is being sampled"],
  s: ["sampled", "waits for its reward"],
  o: ["scored", "waits to be trained on"],
  c: ["consumed", "was trained on"],
  r: ["rejected", "will not be trained on"],
};
const MOST_HEIGHT = 320;
const CELL_RANGE = [1, 12];
const FAINT = 0.15;

// The largest cells with which `count` of them fit: {cell, gap, across, height} in CSS pixels.
export function gridShape(count, width) {
  for (let cell = CELL_RANGE[1]; cell >= CELL_RANGE[0]; cell -= cell > 3 ? 1 : 0.5) {
    const across = Math.max(1, Math.floor(width / cell));
    const height = Math.ceil(count / across) * cell;
    if (height <= MOST_HEIGHT || cell === CELL_RANGE[0]) return { cell, gap: cell >= 4 ? 1 : 0, across, height: Math.max(height, cell) };
  }
  throw new Error("unreachable: the smallest cell is always taken");
}

// groups: a letter each; `only`: a letter whose groups stand out, or null; `marked`: place of a group to frame, or -1;
// onHover(place or null) and onOpen(place); children(place): what the card beside the pointer says.
export function PixelGrid({ groups, only, marked, onHover, onOpen, children }) {
  const [box, { width }] = useSize();
  const [pointer, setPointer] = useState(null);
  const shape = useMemo(() => gridShape(groups.length, Math.max(width, 200)), [groups.length, width]);
  const at = pointer?.place ?? -1;
  const canvas = useCanvas((context) => drawGrid(context, groups, shape, { only, at, marked }), [groups, shape, only, at, marked]);
  const move = (event) => {
    const bounds = canvas.current.getBoundingClientRect();
    const column = Math.floor((event.clientX - bounds.left) / shape.cell);
    const place = Math.floor((event.clientY - bounds.top) / shape.cell) * shape.across + column;
    const inside = column >= 0 && column < shape.across && place >= 0 && place < groups.length;
    setPointer(inside ? { place, x: event.clientX, y: event.clientY } : null);
    onHover(inside ? place : null);
  };
  const leave = () => {
    setPointer(null);
    onHover(null);
  };
  return html`<div class="pixel-grid" ref=${box} data-testid="pixel-grid">
    <canvas ref=${canvas} style=${{ height: `${shape.height}px`, width: "100%" }} role="img" data-cell=${shape.cell} data-across=${shape.across}
      aria-label=${`${groups.length} groups in order of dispatch; the table below has each of them`}
      onPointerMove=${move} onPointerLeave=${leave} onClick=${() => at >= 0 && onOpen(at)} />
    ${pointer ? html`<${HoverCard} x=${pointer.x} y=${pointer.y} data-testid="pixel-card">${children(pointer.place)}<//>` : null}
  </div>`;
}

function drawGrid(context, groups, shape, { only, at, marked }) {
  const { cell, gap, across } = shape;
  const colours = Object.fromEntries(Object.keys(LETTERS).map((letter) => [letter, token(`--letter-${letter}`)]));
  const size = cell - gap;
  for (let place = 0; place < groups.length; place++) {
    const letter = groups[place];
    context.globalAlpha = only === null || only === letter ? 1 : FAINT;
    context.fillStyle = colours[letter] ?? colours.p;
    const [x, y] = [(place % across) * cell, Math.floor(place / across) * cell];
    context.fillRect(x, y, size, size);
    if (letter === "r" && cell >= 5) notch(context, x, y, size);
  }
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  for (const [place, name] of [[marked, "--accent"], [at, "--text"]]) {
    if (place < 0 || place >= groups.length) continue;
    context.strokeStyle = token(name);
    context.strokeRect((place % across) * cell - 0.5, Math.floor(place / across) * cell - 0.5, size + 1, size + 1);
  }
}

// What was rejected has its corner cut, so that it is not told by colour alone.
function notch(context, x, y, size) {
  context.fillStyle = token("--surface");
  context.beginPath();
  context.moveTo(x + size * 0.4, y);
  context.lineTo(x + size, y);
  context.lineTo(x + size, y + size * 0.6);
  context.fill();
}
