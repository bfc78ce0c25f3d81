// The runs there are, newest first; some of them can be chosen and compared.

import { Button, Empty, Loading, Panel, Problem, fmt, html, useEffect, useMemo, useRef } from "shoal/parts/ui.js";
import { useApi } from "shoal/frame/api.js";
import { Status } from "shoal/frame/frame.js";
import { useKeys } from "shoal/frame/keys.js";
import { go, href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";

const MOST_COMPARED = 8;
/** @type {[string, string, (info: any) => any, string][]} */
const COLUMNS = [
  ["run", "run", (info) => info.run, ""],
  ["status", "status", (info) => info.status, ""],
  ["step", "step", (info) => info.step, "right"],
  ["reward", "reward", (info) => info.reward, "right"],
  ["accuracy", "held-out accuracy", (info) => info.accuracy, "right"],
  ["model", "model", (info) => info.model, ""],
  ["task", "task", (info) => info.task, ""],
  ["rollouts", "rollouts", (info) => info.num_rollouts, "right"],
  ["started", "started", (info) => info.started_s, "right"],
  ["took", "took", (info) => took(info), "right"],
  ["updated", "last written", (info) => info.updated_s, "right"],
];

function sorted(runs, order) {
  const descending = order.startsWith("-");
  const column = COLUMNS.find(([key]) => key === order.replace("-", ""));
  if (!column) return runs;
  const [, , value] = column;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * (descending ? -1 : 1);
  };
  return [...runs].sort(compare);
}

function Head({ order }) {
  return html`<thead><tr><th class="check"><span class="visually-hidden">compare</span></th>
    ${COLUMNS.map(([key, label, , align]) => {
      const direction = order === key ? "ascending" : order === "-" + key ? "descending" : undefined;
      return html`<th key=${key} class=${align} aria-sort=${direction}><button type="button" class="sort" data-sort=${key}
        onClick=${() => replaceParams({ sort: direction === "descending" ? key : "-" + key })}>${label}<span class="sort-mark">${direction === "ascending" ? "↑" : direction ? "↓" : ""}</span></button></th>`;
    })}</tr></thead>`;
}

/** Seconds from the run's first event to the end of its last step. */
function took({ started_s: from, step_ended_s: to }) {
  return from === null || to === null || to === undefined ? null : Math.max(0, to - from);
}

function Accuracy({ before, now, step }) {
  if (step === 0 && now !== null) return html`${fmt.percent(now)} <span class="muted" title="There was no evaluation since: this is what the model could do without training">before training</span>`;
  const change = before !== null && before !== undefined && now !== null && now !== undefined ? now - before : null;
  return html`${fmt.percent(now)}${change ? html`<span class=${"delta " + (change > 0 ? "good" : "bad")}> ${change > 0 ? "↑" : "↓"} ${fmt.points(Math.abs(change))}</span>` : null}`;
}

function Row({ info, chosen, full, focused, onChoose }) {
  const open = (event) => {
    if (!event.target.closest("a, input, label")) go("overview", [], {}, info.run);
  };
  return html`<tr class=${(chosen ? "chosen " : "") + (focused ? "selected" : "")} data-testid="run-row" data-run=${info.run} onClick=${open}>
    <td class="check"><input type="checkbox" checked=${chosen} disabled=${full && !chosen} onChange=${() => onChoose(info.run)} aria-label=${`Compare ${info.run}`} /></td>
    <td class="run-name"><a href=${href("overview", [], {}, info.run)} title=${info.note || undefined}><${Text} value=${info.run} inline /></a>${(info.tags ?? []).map((tag) => html`<span class="run-tag" key=${tag}><${Text} value=${tag} inline /></span>`)}${info.problems ? html`<span class="run-problems" title=${`${info.problems} files could not be read whole`}>▲</span>` : null}</td>
    <td><${Status} status=${info.status} error=${info.error} /></td>
    <td class="right">${fmt.number(info.step)}${info.steps ? html`<span class="muted"> / ${fmt.number(info.steps)}</span>` : null}</td>
    <td class="right">${fmt.number(info.reward)}</td>
    <td class="right"><${Accuracy} before=${info.accuracy_before} now=${info.accuracy} step=${info.accuracy_step} /></td>
    <td class="run-model"><${Text} value=${info.model} inline /></td>
    <td><${Text} value=${info.task} inline /></td>
    <td class="right">${fmt.number(info.num_rollouts)}</td>
    <td class="right">${fmt.date(info.started_s)}</td>
    <td class="right">${fmt.seconds(took(info))}</td>
    <td class="right muted" title=${fmt.date(info.updated_s)}>${fmt.ago(info.updated_s)}</td>
  </tr>`;
}

function useRowKeys(runs, focused, choose) {
  const move = (by) => {
    if (!runs.length) return false;
    const at = runs.findIndex(({ run }) => run === focused);
    return replaceParams({ at: runs[Math.min(runs.length - 1, Math.max(0, at + by))].run });
  };
  useKeys({
    j: [() => move(1), "next run"],
    k: [() => move(-1), "previous run"],
    Enter: [() => (focused ? go("overview", [], {}, focused) : false), "open the run"],
    x: [() => (focused ? choose(focused) : false), "choose for comparison"],
  }, "Runs");
}

export default function Runs({ route }) {
  const { data, error, refresh } = useApi("/runs", null);
  const search = useRef(null);
  const { sort = "", find = "", pick = "", at = "" } = route.params;
  const archived = route.params.archived === "1";
  const chosen = pick ? pick.split(",") : [];
  const runs = useMemo(() => {
    const needle = find.toLowerCase();
    const listed = (data?.runs ?? []).filter((info) => archived || !info.archived);
    const found = listed.filter(({ run, model, task, status, tags = [] }) => [run, model, task, status, ...tags].join(" ").toLowerCase().includes(needle));
    return sorted(found, sort);
  }, [data, sort, find, archived]);
  const numArchived = (data?.runs ?? []).filter((info) => info.archived).length;
  const choose = (run) => {
    const next = chosen.includes(run) ? chosen.filter((other) => other !== run) : [...chosen, run].slice(0, MOST_COMPARED);
    replaceParams({ pick: next.join(",") || null });
  };
  useRowKeys(runs, at, choose);
  const compare = () => (chosen.length > 1 ? go("compare", [], { runs: chosen.join(",") }) : false);
  useKeys({ "/": [() => search.current?.focus(), "find a run"], c: [compare, "compare the chosen runs"] }, "Runs");
  useEffect(() => {
    // While somebody types, the field is ahead of the address.
    if (search.current && search.current !== document.activeElement) search.current.value = find;
  }, [find]);
  return html`<div class="page" data-testid="runs-page">
    <${Problem} error=${error} retry=${refresh} />
    <${Panel} title=${data ? `${fmt.count(data.runs.length)} runs` : "Runs"}
      actions=${html`<input class="field" type="search" placeholder="Find (/)" aria-label="Find a run" ref=${search} data-testid="runs-find" onInput=${(event) => replaceParams({ find: event.currentTarget.value || null })} />
        ${numArchived ? html`<${Button} active=${archived} aria-pressed=${archived} onClick=${() => replaceParams({ archived: archived ? null : 1 })} data-testid="archived">${fmt.count(numArchived)} archived<//>` : null}
        <${Button} kind=${chosen.length > 1 ? "primary" : ""} disabled=${chosen.length < 2} onClick=${compare} data-testid="compare-button">
          ${chosen.length > 1 ? `Compare ${chosen.length} runs` : "Choose runs to compare"}<//>`}>
      ${data || error ? null : html`<${Loading} what="Looking for runs" />`}
      ${data && !data.runs.length ? html`<${Empty} title="No runs here yet.">A run appears as soon as its directory does: ${data.folders.join(", ")}.<//>` : null}
      ${data?.runs.length ? html`<div class="scroll-x"><table class="plain runs-table"><${Head} order=${sort} />
        <tbody>${runs.map((info) => html`<${Row} key=${info.run} info=${info} chosen=${chosen.includes(info.run)} full=${chosen.length >= MOST_COMPARED} focused=${info.run === at} onChoose=${choose} />`)}</tbody></table></div>` : null}
      ${data?.runs.length && !runs.length ? html`<${Empty} title="No run of that name." />` : null}
    <//>
  </div>`;
}
