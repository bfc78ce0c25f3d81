// Metrics: every number that the run recorded, each as a chart, found by its name or by what it is called.

import { Chart } from "shoal/charts/chart.js";
import { smoothed } from "shoal/charts/smooth.js";
import { useApi } from "shoal/frame/api.js";
import { useKeys } from "shoal/frame/keys.js";
import { go, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Button, Empty, Loading, Problem, fmt, html, useEffect, useMemo, useRef, useState } from "shoal/parts/ui.js";

const POINTS = 400;
const AT_A_TIME = 48; // charts: a screenful of screens, and an address that every server takes
const SOON_MS = 200;

/** The metrics in whose name or label every word occurs, or the pattern does; {error} for a pattern that is none. */
export function matching(metrics, text, isPattern) {
  const searched = ({ name, label }) => `${name} ${label}`;
  if (isPattern) {
    try {
      const pattern = new RegExp(text, "i");
      return { found: metrics.filter((metric) => pattern.test(metric.name) || pattern.test(metric.label)) };
    } catch (error) {
      return { found: [], error: error instanceof Error ? error.message : String(error) };
    }
  }
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return { found: metrics.filter((metric) => words.every((word) => searched(metric).toLowerCase().includes(word))) };
}

/** Stage -> its metrics: what stands before the first slash. */
function byStage(metrics) {
  const stages = new Map();
  for (const metric of metrics) {
    const stage = metric.name.includes("/") ? metric.name.split("/")[0] : "other";
    stages.set(stage, [...(stages.get(stage) ?? []), metric]);
  }
  return [...stages];
}

function Search({ text, isPattern, error, count, total, inputRef }) {
  const [draft, setDraft] = useState(text);
  const timer = useRef(0);
  useEffect(() => setDraft(text), [text]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const soon = (value) => {
    setDraft(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => replaceParams({ q: value || null, more: null }), SOON_MS);
  };
  return html`<div class="toolbar metric-search">
    <input ref=${inputRef} type="search" data-testid="metric-search" aria-label="Find metrics" aria-invalid=${Boolean(error)} placeholder="find metrics ( / )" spellcheck=${false}
      value=${draft} onInput=${(event) => soon(event.currentTarget.value)} onKeyDown=${(event) => event.key === "Escape" && event.currentTarget.blur()} />
    <label><input type="checkbox" data-testid="metric-regex" checked=${isPattern} onChange=${() => replaceParams({ regex: isPattern ? null : 1, more: null })} />regular expression</label>
    <span class="muted" role="status" data-testid="metric-count">${error ? html`this is no regular expression: <${Text} value=${error} />` : `${fmt.count(count)} of ${fmt.count(total)} metrics`}</span>
  </div>`;
}

function Smoothing({ value }) {
  return html`<div class="toolbar"><label>smoothing
    <input type="range" min="0" max="0.95" step="0.05" value=${value} aria-label="Smoothing" onInput=${(event) => replaceParams({ smooth: Number(event.currentTarget.value) || null })} />
    <span class="fixed-3">${value ? value.toFixed(2) : "off"}</span></label></div>`;
}

function OneMetric({ metric, data, smooth, run }) {
  const isStep = metric.of === "steps";
  const values = isStep ? data.steps[metric.name] : data.evaluations.series[metric.name];
  const steps = isStep ? data.x.step : data.evaluations.step;
  const series = useMemo(
    () => [{ label: metric.name, values: smoothed(values ?? steps.map(() => null), smooth), points: !isStep, spanGaps: true }],
    [values, steps, smooth],
  );
  return html`<${Chart} title=${metric.label} help=${[metric.name, metric.help].filter(Boolean).join(". ")} x=${steps} series=${series} unit=${metric.unit} scale=${metric.scale}
    sync="metrics" formatX=${(x) => (Number.isInteger(x) ? String(x) : "")} onClick=${(index) => go("step", [isStep ? "train" : "eval", steps[index]], {}, run)} data-testid="metric-chart" data-metric=${metric.name} />`;
}

export default function MetricsPage({ run, route, frame }) {
  const { params } = route;
  const [text, isPattern] = [params.q ?? "", params.regex === "1"];
  const smooth = Math.min(0.95, Math.max(0, Number(params.smooth) || 0));
  const base = `/runs/${encodeURIComponent(run)}/metric-charts`;
  const sources = ["metrics", "evaluations", "config"];
  const known = useApi(`${base}?points=1`, sources);
  const all = known.data?.metrics ?? [];
  const { found, error } = useMemo(() => matching(all, text, isPattern), [known.data, text, isPattern]);
  const shown = found.slice(0, AT_A_TIME * (1 + (Number(params.more) || 0)));
  const parts = [];
  for (let at = 0; at < shown.length; at += AT_A_TIME) parts.push(shown.slice(at, at + AT_A_TIME));
  const input = useRef(null);
  useKeys({ "/": [() => (input.current?.focus(), input.current?.select()), "find metrics"] }, "Metrics");
  if (!known.data) return html`<div class="page"><${Problem} error=${known.error} retry=${known.refresh} />${known.error ? null : html`<${Loading} index=${frame?.index} />`}</div>`;
  return html`<div class="page overview" data-testid="metrics">
    <${Search} text=${text} isPattern=${isPattern} error=${error} count=${found.length} total=${all.length} inputRef=${input} />
    <${Smoothing} value=${smooth} />
    ${all.length === 0 ? html`<${Empty} title="No training step yet.">The charts begin with the first one.<//>` : null}
    ${all.length && !found.length && !error ? html`<${Empty} title="No metric has such a name."><${Button} onClick=${() => replaceParams({ q: null })}>show all<//><//>` : null}
    ${parts.map((metrics, index) => html`<${Part} key=${index} base=${base} sources=${sources} metrics=${metrics} smooth=${smooth} run=${run} />`)}
    ${found.length > shown.length ? html`<${Button} onClick=${() => replaceParams({ more: (Number(params.more) || 0) + 1 })} data-testid="more-metrics">${fmt.count(found.length - shown.length)} more<//>` : null}
  </div>`;
}

/** Some charts that are asked for together. */
function Part({ base, sources, metrics, smooth, run }) {
  const names = metrics.map(({ name }) => name).join("\n"); // a component's name may have a comma
  const { data, error, refresh } = useApi(`${base}?points=${POINTS}&names=${encodeURIComponent(names)}`, sources);
  if (!data) return html`<${Problem} error=${error} retry=${refresh} />`;
  return byStage(metrics).map(([stage, some]) => html`<section class="chart-group" key=${stage}>
    <h2><${Text} value=${stage} inline /></h2>
    <div class="chart-grid">${some.map((metric) => html`<${OneMetric} key=${metric.name} metric=${metric} data=${data} smooth=${smooth} run=${run} />`)}</div>
  </section>`);
}
