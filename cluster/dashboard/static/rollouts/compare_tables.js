// What differs between runs: their last figures, and the keys of their configurations.

import { series as colourOf } from "shoal/parts/colours.js";
import { Text } from "shoal/parts/text.js";
import { Empty, Panel, fmt, html, useState } from "shoal/parts/ui.js";

export function RunHeads({ runs }) {
  return runs.map((run, index) => html`<th class="right" key=${run}><i class="swatch" style=${{ background: colourOf(index) }}></i> <${Text} value=${run} inline /></th>`);
}

// table [{name, label, values: {run: value}, better}]; differences are against the first run.
export function Figures({ runs, table }) {
  return html`<${Panel} title="Last figures" help="Of training: the mean of the last ten steps, since a single one is mostly noise. Differences are against the first run, those of shares in points; below them what they are with 95 % confidence, and in colour where that leaves no doubt which run has more.">
    <div class="wide" tabindex="0" role="region" aria-label="Last figures"><table class="plain" data-testid="figures"><thead><tr><th>metric</th><${RunHeads} runs=${runs} /></tr></thead>
      <tbody>${table.map((row) => html`<tr key=${row.name} title=${row.name}><td>${row.label}${row.unit && !IN_VALUE.has(row.unit) ? html`<span class="faint"> ${row.unit}</span>` : null}</td>
        ${runs.map((run, index) => html`<td class="right" key=${run}><${Figure} row=${row} run=${run} base=${index === 0 ? null : row.values[runs[0]] ?? undefined} /></td>`)}</tr>`)}</tbody>
    </table></div>
  <//>`;
}

const IN_VALUE = new Set(["share", "points", "fraction", "%", "s", "seconds", "bytes"]); // units that belong to each figure

function shown(value, unit, digits = 3) {
  if (unit === "points") return fmt.points(value);
  return IN_VALUE.has(unit) ? fmt.withUnit(value, unit) : fmt.number(value, digits);
}

/** A difference of two figures: that of shares is in points. */
const apart = (value, unit) => shown(value, unit === "share" ? "points" : unit, 2);
const signed = (value, unit) => `${value > 0 ? "+" : ""}${apart(value, unit).replace(/ points?$/, "")}`;

function Figure({ row, run, base }) {
  const value = row.values[run];
  if (base === null) return shown(value, row.unit); // the first run, which the others are measured against
  const absent = [base, value].some((each) => each === null || each === undefined);
  if (absent || value === base) return html`${shown(value, row.unit)}<span class="figure-delta">${"\u00a0"}</span>`;
  const judged = row.better && (!row.judged || row.judged.includes(run)) ? ((value > base) === (row.better === "up") ? "good" : "bad") : "";
  const relative = base !== 0 ? `${value > base ? "+" : ""}${fmt.percent((value - base) / Math.abs(base), 0)}` : "";
  const interval = row.intervals?.[run];
  return html`${shown(value, row.unit)}<span class=${`figure-delta delta ${judged}`} title=${relative} data-testid="delta">
    ${value > base ? "↑" : "↓"} ${apart(Math.abs(value - base), row.unit)}</span>
    ${interval ? html`<span class="figure-interval" data-testid="interval">${signed(interval[0], row.unit)} to ${signed(interval[1], row.unit)}</span>` : null}`;
}

// config [{key, values: {run: value}}]: only keys whose values are not the same in all.
export function Differences({ runs, config }) {
  const [search, setSearch] = useState("");
  const shown = config.filter((row) => row.key.includes(search.trim()));
  const field = config.length > 8
    ? html`<input class="field" type="search" placeholder="find a key" aria-label="find a key" value=${search} onInput=${(event) => setSearch(event.currentTarget.value)} data-testid="key-search" />`
    : null;
  return html`<${Panel} title="Configuration" actions=${field} help="Only what is not the same in all of them.">
    ${config.length === 0 ? html`<${Empty} title="They have the same configuration." />` : null}
    ${config.length === 0 ? null : html`<div class="wide" tabindex="0" role="region" aria-label="What differs in the configuration"><table class="plain" data-testid="differences"><thead><tr><th>key</th><${RunHeads} runs=${runs} /></tr></thead>
      <tbody>${shown.map((row) => html`<tr key=${row.key}><td><code>${row.key}</code></td>
        ${runs.map((run) => html`<td class="right config-value" key=${run}>${run in row.values ? html`<${Text} value=${fmt.plain(row.values[run])} inline fold=${200} />` : html`<span class="faint">not set</span>`}</td>`)}</tr>`)}</tbody>
    </table></div>`}
  <//>`;
}
