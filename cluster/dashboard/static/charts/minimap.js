// The whole completion in one strip: the strongest level of the tokens under each pixel, marks of clipped tokens above,
// seams between versions, the part that is on screen. Click or drag jumps.

import { html, useRef } from "shoal/parts/ui.js";
import { useCanvas } from "shoal/parts/paint.js";
import { LEVELS } from "shoal/tokens/colours.js";

/** Per pixel column: {level (the strongest of its tokens, with sign), clipped}. Pure. */
export function columns(levels, clipped, count, width) {
  const out = Array.from({ length: width }, () => ({ level: /** @type {number | null} */ (null), clipped: false }));
  for (let i = 0; i < count; i++) {
    const first = Math.floor((i / count) * width);
    const last = Math.max(first, Math.ceil(((i + 1) / count) * width) - 1);
    for (let x = first; x <= Math.min(last, width - 1); x++) {
      const level = levels[i];
      const strongest = out[x].level;
      if (level !== null && (strongest === null || Math.abs(level) > Math.abs(strongest))) out[x].level = level;
      if (clipped && clipped[i]) out[x].clipped = true;
    }
  }
  return out;
}

/** level -> colour; each looked up once. */
function fillOf(mode, colour) {
  if (mode.categorical) {
    const all = [0, 1, 2, 3, 4, 5, 6].map((i) => colour(`cat${i}`));
    return (level) => all[level];
  }
  const [up, down] = mode.signed ? [colour("pos"), colour("neg")] : [colour(mode.id), colour(mode.id)];
  return (level) => (level < 0 ? down : up);
}

function paintMap(context, width, height, colour, { tokens, mode, levels, viewport, current }) {
  const ink = colour("ink");
  const fill = fillOf(mode, colour);
  const top = 6;
  columns(levels, tokens.clipped, tokens.count, width).forEach(({ level, clipped }, x) => {
    if (clipped) {
      context.globalAlpha = 0.9;
      context.fillStyle = ink;
      context.fillRect(x, 0, 1, 3);
    }
    if (level === null) return;
    context.globalAlpha = mode.categorical ? 0.55 : 0.12 + (0.88 * Math.abs(level)) / LEVELS;
    context.fillStyle = fill(level);
    const share = mode.categorical || mode.signed ? 1 : Math.abs(level) / LEVELS;
    const size = Math.max(1, share * (height - top));
    context.fillRect(x, height - size, 1, size);
  });
  context.globalAlpha = 0.9;
  context.fillStyle = ink;
  for (const seam of tokens.seams) context.fillRect(Math.round((seam / tokens.count) * width), 3, 1, height - 3);
  context.globalAlpha = 1;
  const [from, to] = viewport;
  if (to - from < tokens.count) {
    context.strokeStyle = ink;
    const x = (from / tokens.count) * width;
    context.strokeRect(x + 0.5, top - 1.5, Math.max(3, ((to - from) / tokens.count) * width) - 1, height - top + 1);
  }
  if (current !== null) {
    const x = ((current + 0.5) / tokens.count) * width;
    context.fillStyle = ink;
    context.beginPath();
    context.moveTo(x - 4, 0);
    context.lineTo(x + 4, 0);
    context.lineTo(x, 6);
    context.fill();
  }
}

export function Minimap({ tokens, mode, levels, viewport, current, onJump }) {
  const dragging = useRef(false);
  const draw = (context, width, height, colour) => paintMap(context, width, height, colour, { tokens, mode, levels, viewport, current });
  const ref = useCanvas(draw, [tokens, mode, levels, viewport[0], viewport[1], current]);
  const jump = (event) => {
    const box = ref.current.getBoundingClientRect();
    const share = Math.max(0, Math.min(0.999999, (event.clientX - box.left) / box.width));
    onJump(Math.floor(share * tokens.count));
  };
  return html`<canvas
    ref=${ref}
    class="tk-minimap"
    data-testid="minimap"
    role="img"
    aria-label=${`Overview of ${tokens.count} tokens coloured by ${mode.label}; click to jump`}
    onPointerDown=${(event) => {
      dragging.current = true;
      event.currentTarget.setPointerCapture(event.pointerId);
      jump(event);
    }}
    onPointerMove=${(event) => dragging.current && jump(event)}
    onPointerUp=${() => (dragging.current = false)}
    onPointerCancel=${() => (dragging.current = false)}
  />`;
}
