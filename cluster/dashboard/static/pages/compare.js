// Compare: up to eight runs, over steps, tokens or time; what they were told, what they reached, what they answer.

import { useApi } from "shoal/frame/api.js";
import { Chart } from "shoal/charts/chart.js";
import { series as colourOf } from "shoal/parts/colours.js";
import { extentOf, smoothed } from "shoal/charts/smooth.js";
import { aligned, placesOf } from "shoal/rollouts/compare_align.js";
import { SharedPrompts } from "shoal/rollouts/compare_prompts.js";
import { Differences, Figures } from "shoal/rollouts/compare_tables.js";
import { usePacedApi } from "shoal/frame/paced.js";
import { href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Empty, Loading, Panel, Problem, Segmented, fmt, html, useMemo } from "shoal/parts/ui.js";

const MOST_RUNS = 8;
const POINTS = 400;
const AXES = {
  step: { label: "step", format: (x) => (Number.isInteger(x) ? String(x) : "") },
  tokens: { label: "tokens", format: (x) => fmt.number(x) },
  time: { label: "after", format: (x) => fmt.seconds(x) },
};
const AXIS_OPTIONS = [
  { value: "step", label: "step" },
  { value: "tokens", label: "tokens", title: "Sampled tokens so far" },
  { value: "time", label: "time", title: "Since each run's first step began" },
];

export default function ComparePage({ route }) {
  const { params } = route;
  const chosen = [...new Set((params.runs ?? "").split(",").filter(Boolean))].slice(0, MOST_RUNS);
  const known = useApi("/runs", ["summary", "config"]);
  const path = chosen.length ? `/compare?points=${POINTS}&runs=${encodeURIComponent(chosen.join(","))}` : null;
  const { data, error, stale } = usePacedApi(path, ["metrics", "evaluations", "rollouts", "config"]);
  const choose = (runs) => replaceParams({ runs: runs.join(",") });
  const axis = AXES[params.x] ? params.x : "step";
  const smooth = Math.min(0.95, Math.max(0, Number(params.smooth) || 0));
  // The runs of the answer, not of the address: while another answer is on its way, names and values stay together.
  const runs = path && data ? data.runs.map((info) => info.run) : [];
  return html`<div class="page compare" data-testid="compare">
    <${Picker} chosen=${chosen} known=${known.data?.runs ?? []} onChoose=${choose} axis=${axis} />
    <${Problem} error=${error} />
    ${chosen.length && !data && !error ? html`<${Loading} what=${chosen.length > 1 ? "Reading the runs" : "Reading the run"} />` : null}
    ${chosen.length === 0 ? html`<${Empty} title="Choose two runs to compare.">Up to ${MOST_RUNS}; the first is what the others are measured against.<//>` : null}
    ${runs.length
      ? html`<div class=${`page ${stale ? "stale" : ""}`}>
          <div class=${`compare-tables ${runs.length > 2 ? "stacked" : ""}`}><${Differences} runs=${runs} config=${data.config} /><${Figures} runs=${runs} table=${data.table} /></div>
          <${Charts} charts=${data.charts} runs=${runs} axis=${axis} smooth=${smooth} />
          <${SharedPrompts} runs=${runs} prompts=${data.prompts} total=${data.num_shared} chosen=${params.prompt ?? null} onChoose=${(prompt) => replaceParams({ prompt })} />
        </div>`
      : null}
  </div>`;
}

function Picker({ chosen, known, onChoose, axis }) {
  const others = known.filter((info) => !chosen.includes(info.run));
  const add = (event) => {
    if (event.currentTarget.value) onChoose([...chosen, event.currentTarget.value]);
    event.currentTarget.value = "";
  };
  return html`<div class="toolbar picker" data-testid="picker">
    ${chosen.map((run, index) => html`<span class="picked" key=${run} data-testid=${`picked-${run}`}>
      <i class="swatch" style=${{ background: colourOf(index) }}></i><a href=${href("overview", [], {}, run)}><${Text} value=${run} inline /></a>
      ${index === 0 ? html`<span class="faint" title="differences are against this one">base</span>` : html`<button type="button" class="link faint" title="measure the others against this one"
        onClick=${() => onChoose([run, ...chosen.filter((each) => each !== run)])}>make base<span class="visually-hidden"> ${run}</span></button>`}
      <button type="button" class="icon" aria-label=${`remove ${run}`} onClick=${() => onChoose(chosen.filter((each) => each !== run))}>✕</button></span>`)}
    ${chosen.length < MOST_RUNS && others.length
      ? html`<select class="field" aria-label="add a run" onChange=${add} data-testid="add-run"><option value="">add a run …</option>
          ${others.map((info) => html`<option key=${info.run} value=${info.run}>${info.run} (${info.status}, step ${info.step ?? 0})</option>`)}</select>`
      : null}
    <span class="spring"></span>
    <${Segmented} label="x axis" options=${AXIS_OPTIONS} value=${axis} onChange=${(x) => replaceParams({ x: x === "step" ? null : x })} data-testid="axis" />
  </div>`;
}

/** The charts without those whose curves are those of one before: a reward of 0 and 1 alone is the accuracy. */
function distinct(charts) {
  const curves = charts.map((chart) => JSON.stringify(chart.series));
  return charts.filter((_, i) => curves.indexOf(curves[i]) === i);
}

function Charts({ charts, runs, axis, smooth }) {
  const key = html`<span class="compare-legend" data-testid="legend">${runs.map((run, index) => html`<span class="chart-key" key=${run}>
    <i class="swatch" style=${{ background: colourOf(index) }}></i><${Text} value=${run} inline /></span>`)}</span>`;
  const smoothing = html`<label class="choice">smoothing
    <input type="range" min="0" max="0.95" step="0.05" value=${smooth} aria-label="Smoothing" data-testid="smooth" onInput=${(event) => replaceParams({ smooth: Number(event.currentTarget.value) || null })} /></label>`;
  const domain = useMemo(() => extentOf(charts.flatMap((chart) => chart.series.map((line) => placesOf(line.x, axis)))), [charts, axis]);
  return html`<${Panel} title="Curves" actions=${html`${smoothing}${key}`}>
    <div class="chart-grid">${distinct(charts).map((chart) => html`<${Overlay} key=${chart.id} chart=${chart} runs=${runs} axis=${axis} smooth=${smooth} domain=${domain} />`)}</div>
  <//>`;
}

function Overlay({ chart, runs, axis, smooth, domain }) {
  // Before they are laid on one axis: a run that measured rarely is not smoothed over places where it has no value.
  const { x, values } = useMemo(
    () => aligned(chart.series.map((line) => ({ ...line, values: smoothed(line.values, smooth) })), axis),
    [chart, axis, smooth],
  );
  const series = useMemo(
    () => chart.series.map((line, i) => ({ label: line.run, values: values[i], colour: colourOf(runs.indexOf(line.run)), points: chart.series[i].values.length <= 16 })),
    [chart, values, runs.join()],
  );
  return html`<${Chart} title=${chart.title} x=${x} series=${series} scale=${chart.scale} unit=${chart.unit} domain=${domain} xLabel=${AXES[axis].label} formatX=${AXES[axis].format}
    sync=${`compare-${axis}`} data-testid=${`compare-${chart.id}`} />`;
}
