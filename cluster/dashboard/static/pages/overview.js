// Is the run all right? Six tiles, then everything that is measured, over one x axis with one crosshair.

import { Button, Empty, Loading, Problem, Segmented, Tile, fmt, html, useMemo, useState } from "shoal/parts/ui.js";
import { useApi } from "shoal/frame/api.js";
import { Chart } from "shoal/charts/chart.js";
import { series, useTheme } from "shoal/parts/colours.js";
import { go, href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { atSteps, axisOf, extentOf, smoothed } from "shoal/charts/smooth.js";

const POINTS = 400;
const AXES = [
  { value: "step", label: "step" },
  { value: "tokens", label: "tokens", title: "Sampled tokens so far" },
  { value: "time", label: "time", title: "Since the first step began" },
];
const GROUPS = [
  ["Learning", "Does the policy get better, and is there anything to learn from?"],
  ["Episodes", "How do they go, and what ends them?"],
  ["Stability", "Could the training go wrong?"],
  ["Off-policy", "How far were the weights that sampled from those that learn?"],
  ["System", "Where does the time go?"],
];
const FIRST_EVALUATION_COLOUR = 2; // another than that of the training beside it

function tileValue({ value, unit }) {
  return unit === "share" ? [fmt.percent(value), ""] : unit === "s" || unit === "bytes" ? [fmt.withUnit(value, unit), ""] : [fmt.number(value), value === null ? "" : unit];
}

function Tiles({ tiles }) {
  return html`<div class="tiles" data-testid="tiles">
    ${tiles.map((tile) => {
      const [value, unit] = tileValue(tile);
      const title = [tile.threshold, tile.delta_text && `change ${tile.delta_text}`].filter(Boolean).join("; ");
      return html`<${Tile} key=${tile.id} label=${tile.label} value=${value} unit=${unit} delta=${tile.delta} deltaText=${tile.delta_text}
        better=${tile.better} judged=${tile.judged} spark=${tile.spark} state=${tile.state} note=${tile.note} title=${title} data-state=${tile.state}
        format=${tile.unit === "share" ? fmt.points : (delta) => fmt.number(delta, 2)} data-testid=${"tile-" + tile.id} />`;
    })}
  </div>`;
}

// One sentence: whether it learns, by how much, whether anything is wrong. Each part leads to what shows it.
function Verdict({ verdict, run }) {
  if (!verdict) return null;
  return html`<p class=${`verdict ${verdict.learns}`} data-testid="verdict">
    ${verdict.parts.map((part, i) => html`<a key=${i} class=${part.state} href=${href(part.page, part.parts, {}, run)}><${Text} value=${part.text} inline /></a>${verdict.joints[i]}`)}
  </p>`;
}

function Controls({ params, range }) {
  const smooth = Number(params.smooth ?? 0);
  return html`<div class="toolbar" data-testid="controls">
    <${Segmented} label="x axis" options=${AXES} value=${params.x ?? "step"} onChange=${(x) => replaceParams({ x: x === "step" ? null : x })} data-testid="axis" />
    <label>smoothing
      <input type="range" min="0" max="0.95" step="0.05" value=${smooth} aria-label="Smoothing" data-testid="smooth"
        onInput=${(event) => replaceParams({ smooth: Number(event.currentTarget.value) || null })} />
      <span class="fixed-3">${smooth ? smooth.toFixed(2) : "off"}</span></label>
    <span class="muted">${range ? `steps ${range}` : "drag over a chart for a range, click for a step"}</span>
    ${range ? html`<${Button} onClick=${() => replaceParams({ from: null, to: null })} data-testid="whole-run">whole run<//>` : null}
  </div>`;
}

/** The held-out evaluations as a chart beside the others; they have steps of their own. */
function evaluationChart(evaluations, x, axis, theme) {
  if (!evaluations?.series.length) return null;
  return {
    chart: {
      id: "evaluations",
      title: "Held-out accuracy",
      unit: evaluations.series.some(({ name }) => name === "eval/reward_mean") ? "" : "share",
      scale: "linear",
      help: "On prompts that are never trained on. This is what counts: the reward while training may be gamed, memorised, or measured on easier prompts.",
      bands: [],
      series: evaluations.series.map((line, i) => ({ ...line, colour: series(FIRST_EVALUATION_COLOUR + i, theme), points: true, spanGaps: true })),
    },
    x: atSteps(evaluations.step, x, axis),
    steps: evaluations.step.map((step) => Math.max(0, step)),
    phase: "eval",
  };
}

function OneChart({ item, axis, smooth, run, domain }) {
  const { chart, x, steps, phase } = item;
  const lines = useMemo(() => chart.series.map((line) => ({ ...line, values: smoothed(line.values, smooth) })), [chart, smooth]);
  const pick = (index) => go("step", [phase, steps[index]], {}, run);
  const brush = (low, high) => {
    const within = steps.filter((_, i) => x[i] >= low && x[i] <= high);
    if (within.length) replaceParams({ from: within[0], to: within.at(-1), live: null });
  };
  return html`<${Chart} title=${chart.title} help=${chart.help} x=${x} series=${lines} bands=${chart.bands}
    scale=${chart.scale} unit=${chart.unit} domain=${domain} xLabel=${axis.label} formatX=${axis.format} sync=${"overview-" + axis.id}
    onClick=${pick} onRange=${brush} data-testid=${"chart-" + chart.id} />`;
}

/** Whether a chart has nothing to show but zeros: nothing was skipped, clipped, left over. */
function isAllZero({ chart }) {
  const values = chart.series.flatMap((line) => line.values);
  return values.some((value) => value === 0) && values.every((value) => !value);
}

/** The charts of a group; those that are zero all along are named, and drawn when somebody asks. */
function ChartGroup({ items, ...shared }) {
  const [open, setOpen] = useState(false);
  const still = items.filter(isAllZero);
  const shown = open ? items : items.filter((item) => !still.includes(item));
  return html`${shown.length ? html`<div class="chart-grid">${shown.map((item) => html`<${OneChart} key=${item.chart.id} item=${item} ...${shared} />`)}</div>` : null}
    ${still.length
      ? html`<p class="muted zero-charts">Zero all along: ${still.map(({ chart }) => chart.title.toLowerCase()).join(", ")}.${" "}
          <button type="button" class="link" aria-expanded=${open} onClick=${() => setOpen(!open)} data-testid="zero-charts">${open ? "hide" : "show"}</button></p>`
      : null}`;
}

/** Group -> its charts, the evaluations second in Learning. */
function arranged(data, axis, theme) {
  const x = axisOf(data.x, axis.id);
  const items = data.charts.map((chart) => ({ group: chart.group, item: { chart, x, steps: data.x.step, phase: "train" } }));
  const evaluations = evaluationChart(data.evaluations, data.x, axis.id, theme);
  if (evaluations) items.splice(1, 0, { group: "Learning", item: evaluations });
  return GROUPS.map(([name, question]) => ({ name, question, items: items.filter(({ group }) => group === name).map(({ item }) => item) }));
}

const AXIS_FORMATS = {
  step: { id: "step", label: "step", format: (x) => (Number.isInteger(x) ? String(x) : "") },
  tokens: { id: "tokens", label: "tokens", format: (x) => fmt.number(x) },
  time: { id: "time", label: "after", format: (x) => fmt.seconds(x) },
};

export default function Overview({ run, route, frame }) {
  const { params } = route;
  const query = new URLSearchParams({ points: String(POINTS) });
  for (const name of ["from", "to"]) if (params[name]) query.set(name, params[name]);
  const { data, error, refresh } = useApi(`/runs/${encodeURIComponent(run)}/overview?${query}`, ["metrics", "evaluations", "config"]);
  const axis = AXIS_FORMATS[params.x] ?? AXIS_FORMATS.step;
  const smooth = Math.min(0.95, Math.max(0, Number(params.smooth) || 0));
  const theme = useTheme();
  const groups = useMemo(() => (data ? arranged(data, axis, theme) : []), [data, axis, theme]);
  // The evaluations lie at other steps than the training: all charts show the same stretch of the run.
  const domain = useMemo(() => extentOf(groups.flatMap(({ items }) => items.map(({ x }) => x))), [groups]);
  const range = params.from || params.to ? `${params.from ?? 0} to ${params.to ?? "the end"}` : "";
  if (error && !data) return html`<${Problem} error=${error} retry=${refresh} />`;
  return html`<div class="page overview" data-testid="overview">
    <${Problem} error=${error} retry=${refresh} />
    <${Verdict} verdict=${data?.verdict} run=${run} />
    ${data ? html`<${Tiles} tiles=${data.tiles} /><${Controls} params=${params} range=${range} />` : html`<${Loading} index=${frame?.index} />`}
    ${data && !data.x.step.length ? html`<${Empty} title=${range ? "No step in this range." : "No training step yet."}>The charts begin with the first one.<//>` : null}
    ${groups.filter(({ items }) => items.length).map(({ name, question, items }) => html`<section class="chart-group" key=${name} data-testid=${"group-" + name.toLowerCase()}>
      <h2>${name}<span class="muted">${question}</span></h2>
      <${ChartGroup} items=${items} ...${{ axis, smooth, run, domain }} />
    </section>`)}
  </div>`;
}
