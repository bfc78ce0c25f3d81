// Two small plots of a completion: sampler against learner, and what its tokens add to the objective, summed up.

import { html, useMemo } from "shoal/parts/ui.js";
import { useCanvas } from "shoal/parts/paint.js";
import { cumulative } from "shoal/tokens/math.js";
import { trim } from "shoal/tokens/colours.js";

const PAD = { left: 34, right: 8, top: 8, bottom: 18 };

/** Log-probabilities of both programs, -12 .. 0 nats or wider; on the diagonal they agree. Click picks the nearest token. */
export function GapScatter({ tokens, current, onPick }) {
  const low = useMemo(() => {
    let least = -4;
    for (let i = 0; i < tokens.count; i++) least = Math.min(least, tokens.sampler[i] ?? 0, tokens.learner[i] ?? 0);
    return Math.max(-30, Math.floor(least));
  }, [tokens]);
  const place = (value, size, from, to) => from + ((Math.max(low, value) - low) / -low) * (to - from);
  /** @type {(i: number, width: number, height: number) => [number, number]} */
  const point = (i, width, height) => [
    place(tokens.sampler[i] ?? 0, width, PAD.left, width - PAD.right),
    place(tokens.learner[i] ?? 0, height, height - PAD.bottom, PAD.top),
  ];
  const draw = (context, width, height, colour) => {
    const [ink, hair, faint, neg] = ["ink", "hair", "faint", "neg"].map(colour);
    axes(context, width, height, hair, faint, [String(low).replace("-", "−"), "0"], [String(low).replace("-", "−"), "0"]);
    context.strokeStyle = hair;
    line(context, [PAD.left, height - PAD.bottom], [width - PAD.right, PAD.top]);
    context.fillStyle = faint;
    context.fillText("sampler", (width + PAD.left) / 2, height - 5);
    for (let i = 0; i < tokens.count; i++) {
      if (!tokens.turn[i]) continue; // said by the world
      const [x, y] = point(i, width, height);
      const far = Math.abs(tokens.gap[i] ?? 0) > 0.1;
      context.fillStyle = far ? neg : ink;
      context.globalAlpha = far ? 0.9 : 0.28;
      context.fillRect(x - 1.5, y - 1.5, 3, 3);
    }
    context.globalAlpha = 1;
    if (current !== null && tokens.turn[current]) ring(context, point(current, width, height), ink);
  };
  const ref = useCanvas(draw, [tokens, current, low]);
  const pick = (event) => {
    const box = ref.current.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    /** @type {[number, number | null]} */
    let best = [Infinity, null];
    for (let i = 0; i < tokens.count; i++) {
      if (!tokens.turn[i]) continue;
      const [px, py] = point(i, box.width, box.height);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < best[0]) best = [distance, i];
    }
    if (best[0] < 400) onPick(best[1]);
  };
  return html`<figure class="tk-plot">
    <figcaption>log p, learner over sampler</figcaption>
    <canvas ref=${ref} data-testid="scatter" role="img" aria-label="Learner against sampler log-probability for each token" onClick=${pick} />
  </figure>`;
}

/** The running sum of the tokens' terms; where it bends, the completion is pushed. Click picks a position. */
export function Contribution({ tokens, current, onPick }) {
  const sums = useMemo(() => cumulative(tokens.credit), [tokens]);
  const [low, high] = useMemo(() => sums.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [0, 0]), [sums]);
  const span = high - low || 1;
  const draw = (context, width, height, colour) => {
    const [ink, hair, faint, pos, neg] = ["ink", "hair", "faint", "pos", "neg"].map(colour);
    axes(context, width, height, hair, faint, ["0", String(tokens.count)], [trim(low), trim(high)]);
    const x = (i) => PAD.left + (i / Math.max(1, tokens.count)) * (width - PAD.left - PAD.right);
    const y = (v) => height - PAD.bottom - ((v - low) / span) * (height - PAD.top - PAD.bottom);
    context.strokeStyle = hair;
    line(context, [PAD.left, y(0)], [width - PAD.right, y(0)]);
    context.strokeStyle = sums[sums.length - 1] < 0 ? neg : pos;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x(0), y(0));
    sums.forEach((v, i) => context.lineTo(x(i + 1), y(v)));
    context.stroke();
    context.lineWidth = 1;
    if (current !== null) ring(context, [x(current + 1), y(sums[current])], ink);
  };
  const ref = useCanvas(draw, [sums, current]);
  const pick = (event) => {
    const box = ref.current.getBoundingClientRect();
    const share = (event.clientX - box.left - PAD.left) / (box.width - PAD.left - PAD.right);
    onPick(Math.max(0, Math.min(tokens.count - 1, Math.floor(share * tokens.count))));
  };
  return html`<figure class="tk-plot">
    <figcaption>added to the objective, summed over tokens</figcaption>
    <canvas ref=${ref} data-testid="contribution" role="img" aria-label="Cumulative contribution of the tokens" onClick=${pick} />
  </figure>`;
}

function axes(context, width, height, hair, faint, [left, right], [bottom, top]) {
  context.strokeStyle = hair;
  line(context, [PAD.left, PAD.top], [PAD.left, height - PAD.bottom]);
  line(context, [PAD.left, height - PAD.bottom], [width - PAD.right, height - PAD.bottom]);
  context.fillStyle = faint;
  context.font = "10px system-ui, sans-serif";
  context.textAlign = "left";
  context.fillText(left, PAD.left, height - 5);
  context.textAlign = "right";
  context.fillText(right, width - PAD.right, height - 5);
  context.fillText(bottom, PAD.left - 4, height - PAD.bottom);
  context.fillText(top, PAD.left - 4, PAD.top + 8);
  context.textAlign = "center";
}

function line(context, [x0, y0], [x1, y1]) {
  context.beginPath();
  context.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
  context.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
  context.stroke();
}

function ring(context, [x, y], colour) {
  context.strokeStyle = colour;
  context.beginPath();
  context.arc(x, y, 4.5, 0, 2 * Math.PI);
  context.stroke();
}
