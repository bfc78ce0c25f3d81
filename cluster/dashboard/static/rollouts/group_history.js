// What is known of a group beyond its completions: how its prompt fared before and after, and its life in the ledger.

import { Empty, fmt, html } from "shoal/parts/ui.js";
import { href } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";

const SIZE = { width: 560, height: 96, left: 34, right: 10, top: 8, bottom: 20 };

/** [{x, y, visit}] in pixels: x by order, y by pass rate (by mean reward where nothing was judged). Pure. */
export function historyPoints(history) {
  const inner = SIZE.width - SIZE.left - SIZE.right;
  const judged = history.some((visit) => visit.pass_rate !== null);
  const values = history.map((visit) => (judged ? visit.pass_rate : visit.reward_mean));
  const known = values.filter((value) => value !== null);
  const [low, high] = judged ? [0, 1] : [Math.min(0, ...known), Math.max(1, ...known)];
  return history
    .map((visit, i) => ({
      visit,
      value: values[i],
      x: SIZE.left + (history.length > 1 ? (i / (history.length - 1)) * inner : inner / 2),
      y: values[i] === null ? null : SIZE.height - SIZE.bottom - ((values[i] - low) / (high - low)) * (SIZE.height - SIZE.top - SIZE.bottom),
    }))
    .filter((point) => point.y !== null);
}

/** The prompt's pass rate over its groups, each a link. Training steps are round, evaluations square. */
export function History({ history, current }) {
  const points = historyPoints(history);
  if (points.length === 0) return html`<${Empty} title="No group of this prompt was scored yet" />`;
  const line = points.map(({ x, y }, i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const bottom = SIZE.height - SIZE.bottom;
  return html`<svg class="gr-history" viewBox=${`0 0 ${SIZE.width} ${SIZE.height}`} role="group" aria-label="Pass rate of this prompt over time" data-testid="history">
    <line class="axis" x1=${SIZE.left} x2=${SIZE.width - SIZE.right} y1=${bottom} y2=${bottom} />
    <line class="axis" x1=${SIZE.left} x2=${SIZE.width - SIZE.right} y1=${SIZE.top} y2=${SIZE.top} />
    <text x=${SIZE.left - 6} y=${SIZE.top + 4} text-anchor="end">100%</text>
    <text x=${SIZE.left - 6} y=${bottom + 3} text-anchor="end">0%</text>
    <path d=${line} />
    ${points.map(({ x, y, value, visit }, i) => {
      const here = visit.group_id === current.group_id && visit.step === current.step && visit.phase === current.phase;
      const label = `${visit.phase} step ${visit.step}, epoch ${visit.epoch}: ${fmt.percent(value)}`;
      return html`<a key=${i} href=${href("group", [visit.phase, visit.step, visit.group_id])} class=${here ? "here" : ""} aria-label=${label}>
        <title>${label}</title>
        <circle class="reach" cx=${x} cy=${y} r="10" />
        ${visit.phase === "eval" ? html`<rect x=${x - 4} y=${y - 4} width="8" height="8" />` : html`<circle cx=${x} cy=${y} r=${here ? 5.5 : 4} />`}
        ${here || i === 0 || i === points.length - 1
          ? html`<text x=${x} y=${SIZE.height - 5} text-anchor=${i === 0 && !here ? "start" : "middle"}>${visit.step}</text>`
          : null}
      </a>`;
    })}
  </svg>`;
}

/** {from, to} for the timeline: the life of the group with some room around it; null where the ledger knows no times. */
export function lifeSpan(entries) {
  const times = entries.map((entry) => entry.time_s).filter((time) => typeof time === "number");
  if (times.length === 0) return null;
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const room = Math.max(1, (last - first) / 4);
  return { from: (first - room).toFixed(3), to: (last + room).toFixed(3) };
}

/** The group's lines in the ledger: state, when, since the line before, by whom, why. */
export function LedgerLife({ entries }) {
  if (entries.length === 0) return html`<${Empty} title="The ledger has no lines of this group" />`;
  return html`<table class="gr-ledger" data-testid="ledger-life">
    <tbody>
      ${entries.map(
        (entry, i) => html`<tr key=${i}>
          <td><b><${Text} value=${entry.state ?? (entry.event ?? "").replaceAll("_", " ")} inline /></b></td>
          <td>${fmt.time(entry.time_s)}</td>
          <td class="tk-dim">${i ? `+${fmt.seconds(entry.time_s - entries[i - 1].time_s)}` : ""}</td>
          <td><${Text} value=${entry.worker} inline /></td>
          <td>${entry.attempt > 1 ? `attempt ${entry.attempt}` : ""}</td>
          <td>${entry.step === null || entry.step === undefined ? "" : `step ${entry.step}`}</td>
          <td>${entry.reason ? html`<${Text} value=${entry.reason} inline fold=${160} />` : ""}</td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}
