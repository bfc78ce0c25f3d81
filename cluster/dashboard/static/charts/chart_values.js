// The values of a chart in words: for its legend, for who hears it, and as a table.

import { fmt, html } from "shoal/parts/ui.js";
import { Text } from "shoal/parts/text.js";

/** Units that are part of the number; every other one stands beside the title. */
export const IN_NUMBER = new Set(["share", "%", "fraction", "s", "bytes"]);

/** A value as the legend has it: its unit stands beside the title where it is not part of the number. */
export function shownValue(value, unit) {
  return fmt.withUnit(value, IN_NUMBER.has(unit) ? unit : "");
}

/** "step 4: mean 0.5, longest 96": what the crosshair stands on. */
export function said({ x, series, unit, xLabel, formatX }, index) {
  if (x[index] === undefined) return "no values";
  const values = series.filter(isShown).map((line) => `${line.label} ${shownValue(line.values[index], unit)}`);
  return `${xLabel} ${formatX(x[index])}: ${values.join(", ")}${IN_NUMBER.has(unit) || !unit ? "" : ` ${unit}`}`;
}

/** Bounds of a spread are lines around the mean, no figures of their own. */
function isShown(line) {
  return line.role !== "low" && line.role !== "high";
}

/** Every point of a chart, the newest first. */
export function ChartTable({ title, x, xLabel, formatX, series, unit, height }) {
  const rows = x.map((_, i) => x.length - 1 - i).filter((i) => series.some((line) => line.values[i] !== null && line.values[i] !== undefined));
  return html`<div class="chart-table" style=${{ height: `${height}px` }} tabindex="0" role="region" aria-label=${`${title}, values`} data-testid="chart-table">
    <table class="plain"><thead><tr><th class="right">${xLabel}</th>${series.map((line) => html`<th class="right" key=${line.label}><${Text} value=${line.label} inline /></th>`)}</tr></thead>
      <tbody>${rows.map((i) => html`<tr key=${i}><td class="right">${formatX(x[i])}</td>${series.map((line) => html`<td class="right" key=${line.label}>${shownValue(line.values[i], unit)}</td>`)}</tr>`)}</tbody>
    </table>
  </div>`;
}
