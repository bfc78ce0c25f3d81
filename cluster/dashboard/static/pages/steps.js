// One step in one glance: every completion as a cell, what became of the groups, how rewards and lengths are spread.

import { Empty, Loading, Panel, Problem, Segmented, fmt, html, useEffect, useMemo, useState } from "shoal/parts/ui.js";
import { Text } from "shoal/parts/text.js";
import { useApi } from "shoal/frame/api.js";
import { Histogram } from "shoal/charts/histogram.js";
import { useKeys } from "shoal/frame/keys.js";
import { go, href, replaceParams, replaceWith } from "shoal/frame/route.js";
import { StepGrid, sortedGroups } from "shoal/charts/step_grid.js";

const SORTS = [
  { value: "variance", label: "variance", title: "Most differing rewards first: what is learned from" },
  { value: "reward", label: "reward", title: "Worst groups first" },
  { value: "dispatch", label: "dispatch", title: "In the order in which they were sent out" },
];
const COLOURS = [
  { value: "reward", label: "reward" },
  { value: "advantage", label: "advantage" },
  { value: "length", label: "length" },
];
const PHASES = [
  { value: "train", label: "training" },
  { value: "eval", label: "evaluation" },
];

/** "#/r/RUN/steps" and an evaluation without a number lead to the newest step. */
function useNewest(run, route, phase) {
  const answer = useApi(`/runs/${encodeURIComponent(run)}/steps?phase=${phase}`, ["rollouts"]);
  const data = answer.stale ? null : answer.data; // those of the other phase are no steps of this one
  const named = route.page === "step" && /^\d+$/.test(route.parts[1] ?? "");
  const newest = data?.steps.at(-1);
  useEffect(() => {
    if (!named && newest !== undefined) replaceWith(href("step", [phase, newest], route.params, run));
  }, [named, newest]);
  return { steps: data?.steps ?? [], error: answer.error, loaded: data !== null, step: named ? Number(route.parts[1]) : null };
}

const ABOUT_STEP = "What the model answered in this step, how the answers were rewarded, and which of them it was trained on.";
const ABOUT_EVALUATION = "What the model answered to held-out questions, on which it is never trained.";

function StepPicker({ run, phase, step, steps, data, params }) {
  const kept = { ...params, live: null };
  const link = (to, label, sign) => to === null || to === undefined
    ? html`<span class="button disabled" aria-hidden="true">${sign}</span>`
    : html`<a class="button" href=${href("step", [phase, to], kept, run)} aria-label=${label} title=${label} data-testid=${sign === "←" ? "previous" : "next"}>${sign}</a>`;
  return html`<div class="step-picker">
    <h1>${phase === "eval" ? "Evaluation after step" : "Step"} <select class="field" aria-label="Step" value=${step} data-testid="step-select"
      onChange=${(event) => go("step", [phase, event.currentTarget.value], kept, run)}>
      ${(steps.includes(step) ? steps : [...steps, step]).map((known) => html`<option key=${known} value=${known} selected=${known === step}>${known}</option>`)}</select></h1>
    ${link(data?.previous, "Previous step (p)", "←")}${link(data?.next, "Next step (n)", "→")}
    <${Segmented} label="Phase" options=${PHASES} value=${phase} onChange=${(to) => go("step", [to, "latest"], kept, run)} data-testid="phase" />
    ${phase === "train" && step !== "" ? html`<a href=${href("timeline", [], ofStep(step), run)} data-testid="to-timeline">timeline of this step (t)</a>` : null}
  </div>
  <p class="muted step-about">${phase === "eval" ? ABOUT_EVALUATION : ABOUT_STEP}</p>`;
}

function Funnel({ stages }) {
  const most = Math.max(1, stages[0]?.count ?? 1);
  return html`<ol class="funnel" data-testid="funnel">
    ${stages.map(({ label, count, reasons }, i) => {
      // The last stage counts completions, the others groups: it has no place on their scale.
      const other = label.includes("completions");
      const lost = Object.entries(reasons);
      return html`<li key=${label} data-stage=${label}>
        <span class="funnel-label">${label}</span>
        <span class="funnel-bar" aria-hidden="true">${other ? null : html`<i style=${{ width: `${(100 * count) / most}%` }}></i>`}</span>
        <b>${fmt.count(count)}</b>
        ${lost.length ? html`<span class="funnel-lost">${lost.map(([reason, number]) => html`<span key=${reason}>−${fmt.count(number)} ${reason.replaceAll("_", " ")}</span>`)}</span>` : i === 0 ? html`<span class="muted">groups</span>` : null}
      </li>`;
    })}
  </ol>`;
}

/** @type {[string, string, (value: any) => any][]} */
const SHOWN_METRICS = [
  ["reward/mean", "reward", fmt.number], ["reward/accuracy", "accuracy", fmt.percent], ["eval/pass_at_1", "pass@1", fmt.percent],
  ["rollout/completion_tokens_mean", "mean length", fmt.number], ["rollout/truncated_fraction", "truncated", fmt.percent],
  ["train/entropy", "entropy", fmt.number], ["train/kl_rollout", "gap (k3)", fmt.number], ["train/grad_norm", "gradient norm", fmt.number],
  ["train/clip_fraction", "clipped", fmt.percent], ["lag/max", "largest lag", fmt.number], ["time/step_s", "took", fmt.seconds],
];

/** The window of the timeline that is a step. */
const ofStep = (step) => ({ from: step, to: step });

/** A figure; what a step took leads to where its time went. */
function Figure({ name, text, step, run }) {
  if (name !== "time/step_s") return text;
  return html`<a href=${href("timeline", [], ofStep(step), run)} title="Where the time of this step went" data-testid="took">${text}</a>`;
}

function Figures({ metrics, step, run }) {
  const [all, setAll] = useState(false);
  const chosen = SHOWN_METRICS.filter(([name]) => metrics[name] !== undefined);
  const rest = Object.entries(metrics);
  return html`<dl class="figures" data-testid="figures">
      ${chosen.map(([name, label, format]) => html`<div key=${name} title=${name}><dt>${label}</dt><dd><${Figure} name=${name} text=${format(metrics[name])} step=${step} run=${run} /></dd></div>`)}
      <div><dt><button type="button" class="link" aria-expanded=${all} onClick=${() => setAll(!all)} data-testid="all-metrics">${all ? "fewer" : `all ${rest.length}`}</button></dt></div>
    </dl>
    ${all ? html`<dl class="metric-list" data-testid="metric-list">${rest.map(([name, value]) => html`<div key=${name}><dt><${Text} value=${name} inline /></dt><dd>${fmt.metric(name, value)}</dd></div>`)}</dl>` : null}`;
}

function filterLink(run, phase, step, field, low, high, isLast) {
  const filter = `phase=${phase} & step:${step}-${step} & ${field}>=${low} & ${field}${isLast ? "<=" : "<"}${high}`;
  go("rollouts", [], { filter }, run);
}

function Histograms({ run, data }) {
  const { reward, length, advantage } = data.histograms;
  const pick = (field, { edges }) => (low, high) => filterLink(run, data.phase, data.step, field, low, high, high === edges.at(-1));
  return html`<div class="histograms">
    <${Histogram} title="Reward" edges=${reward.edges} counts=${reward.counts} onPick=${pick("reward", reward)} data-testid="histogram-reward" />
    <${Histogram} title="Length, tokens" edges=${length.edges} counts=${length.counts} parts=${length.truncated} onPick=${pick("length", length)} data-testid="histogram-length" />
    ${data.phase === "train" ? html`<${Histogram} title="Advantage" edges=${advantage.edges} counts=${advantage.counts} onPick=${pick("advantage", advantage)} data-testid="histogram-advantage" />` : null}
  </div>`;
}

function useStepKeys({ run, phase, data, params, groups, selected, setSelected }) {
  const kept = { ...params, live: null };
  const toStep = (to) => (to === null || to === undefined ? false : go("step", [phase, to], kept, run));
  const move = (groupBy, cellBy) => {
    if (!groups.length) return false;
    const [group, cell] = selected ?? [groupBy > 0 || cellBy ? 0 : groups.length, -1];
    const nextGroup = Math.min(groups.length - 1, Math.max(0, selected ? group + groupBy : group));
    const last = groups[nextGroup].cells.length - 1;
    return setSelected([nextGroup, Math.min(last, Math.max(cellBy ? 0 : -1, cell + cellBy))]);
  };
  const open = () => {
    if (!selected || !groups[selected[0]]) return false;
    const { group_id: group, cells } = groups[selected[0]];
    const cell = cells[selected[1]];
    const address = [data.phase, data.step, group];
    return cell ? go("rollout", [...address, cell.sample_index], {}, run) : go("group", address, {}, run);
  };
  useKeys({
    n: [() => toStep(data?.next), "next step"],
    p: [() => toStep(data?.previous), "previous step"],
    J: [() => move(1, 0), "next group"],
    K: [() => move(-1, 0), "previous group"],
    j: [() => move(0, 1), "next completion of the group"],
    k: [() => move(0, -1), "previous completion"],
    Enter: [open, "open the group or the completion"],
    t: [() => go("timeline", [], ofStep(data?.step), run), "this step in the timeline"],
    Escape: [() => (selected ? setSelected(null) : false), ""],
  }, "Step");
}

function GridPanel({ run, data, groups, params, sort, colour, selected }) {
  const trained = data.groups.filter(({ status }) => status === "trained").length;
  const equal = data.groups.filter(({ reward_std: std }) => std === 0).length;
  return html`<${Panel} class="grid-panel" title=${`${fmt.count(data.groups.length)} groups`} data-testid="grid-panel"
    help="A row is a group: the completions of one prompt. Beside them their mean reward, how many are right, the question. Orange is the lowest reward of the run, blue the highest. A group of one colour teaches nothing. A dot marks a truncated completion, a cross one that could not be scored."
    actions=${html`<label class="choice">colour <${Segmented} label="Colour" options=${data.phase === "train" ? COLOURS : COLOURS.filter(({ value }) => value !== "advantage")} value=${colour} onChange=${(to) => replaceParams({ colour: to === "reward" ? null : to })} data-testid="colour" /></label>
      <label class="choice">order <${Segmented} label="Order" options=${SORTS} value=${sort} onChange=${(to) => replaceParams({ sort: to === "variance" ? null : to })} data-testid="sort" /></label>`}>
    <p class="muted grid-note">${data.phase === "train" ? `${trained} trained on, ` : ""}${equal} with equal rewards${params.live ? ", following the run" : ""}</p>
    <${StepGrid} run=${run} data=${data} groups=${groups} colour=${colour} selected=${selected} />
  <//>`;
}

export default function Steps({ run, route, frame }) {
  const phase = route.parts[0] === "eval" ? "eval" : "train";
  const { steps, step, error: listError, loaded } = useNewest(run, route, phase);
  const path = step === null ? null : `/runs/${encodeURIComponent(run)}/steps/${phase}/${step}`;
  const { data, error, refresh } = useApi(path, ["rollouts", "ledger", "metrics", "evaluations"]);
  const { params } = route;
  const sort = SORTS.some(({ value }) => value === params.sort) ? params.sort : "variance";
  const colour = COLOURS.some(({ value }) => value === params.colour) && !(phase === "eval" && params.colour === "advantage") ? params.colour : "reward";
  const groups = useMemo(() => (data ? sortedGroups(data.groups, sort) : []), [data, sort]);
  const [selected, setSelected] = useState(null);
  useEffect(() => setSelected(null), [path, sort]);
  useStepKeys({ run, phase, data, params, groups, selected, setSelected });
  const none = step === null && loaded && !steps.length;
  return html`<div class="page step-page" data-testid="step-page" data-step=${data?.step} data-phase=${data?.phase}>
    <${StepPicker} run=${run} phase=${phase} step=${step ?? ""} steps=${steps} data=${data} params=${params} />
    <${Problem} error=${error ?? listError} retry=${refresh} />
    ${data || error || listError || none ? null : html`<${Loading} index=${frame?.index} />`}
    ${none ? html`<${Empty} title=${phase === "eval" ? "No evaluation with rollouts yet." : "No step with rollouts yet."}>
      ${frame?.index.ready === false ? "The rollouts are still being read." : frame?.info.status === "live" ? "This page fills with the first one." : "The run ended without one."}<//>` : null}
    ${data ? html`
      <${Figures} metrics=${data.metrics} step=${data.step} run=${run} />
      <div class="step-top">
        <${Panel} title="Rewards, lengths and advantages" help="How many completions have which. Click a bar for its completions. Hatched: truncated. The advantage is the reward less the mean of its group, over the group's spread: what a completion is trained with."><${Histograms} run=${run} data=${data} /><//>
        <${Panel} title="From dispatched to trained on" help="Groups from the moment they were sent out to the batch that was trained on; the last line counts completions whose advantage is not zero."><${Funnel} stages=${data.funnel} /><//>
      </div>
      <${GridPanel} run=${run} data=${data} groups=${groups} params=${params} sort=${sort} colour=${colour} selected=${selected} />` : null}
  </div>`;
}
