// The runs there are, newest first; some of them can be chosen and compared.

import { Badge, Button, Empty, Loading, Panel, Problem, Spark, fmt, html, useEffect, useMemo, useRef } from "shoal/parts/ui.js";
import { useApi } from "shoal/frame/api.js";
import { Status } from "shoal/frame/frame.js";
import { useKeys } from "shoal/frame/keys.js";
import { go, href, replaceParams } from "shoal/frame/route.js";
import { ColumnChoice } from "shoal/parts/column_choice.js";
import { Text } from "shoal/parts/text.js";

const MOST_COMPARED = 8;
const CONFIG = "config."; // before the keys of configurations, which are columns too
const UNREAD_MS = 300;
const SEVERITIES = ["error", "warning"];

/** [{key, label, value(info) that is sorted by, cell(info), align, help}] of what every list of runs can show. */
const COLUMNS = [
  { key: "run", label: "run", value: (info) => info.run },
  { key: "status", label: "status", value: (info) => info.status, cell: (info) => html`<${Status} status=${info.status} error=${info.error} />` },
  { key: "doctor", label: "doctor", value: badness, cell: (info) => html`<${Doctor} info=${info} />`, help: "what the doctor found" },
  { key: "step", label: "step", value: (info) => info.step, cell: (info) => html`${fmt.number(info.step)}${info.steps ? html`<span class="muted"> / ${fmt.number(info.steps)}</span>` : null}`, align: "right" },
  { key: "reward", label: "reward", value: (info) => info.reward, cell: (info) => fmt.number(info.reward), align: "right", help: "mean of the last step" },
  { key: "curve", label: "over steps", cell: (info) => html`<${Spark} values=${info.curve ?? []} width=${96} height=${22} />`, help: "the reward from the first step to the last" },
  { key: "accuracy", label: "held-out accuracy", value: (info) => info.accuracy, cell: (info) => html`<${Accuracy} before=${info.accuracy_before} now=${info.accuracy} step=${info.accuracy_step} />`, align: "right" },
  { key: "model", label: "model", value: (info) => info.model, cell: (info) => html`<${Text} value=${info.model} inline />` },
  { key: "task", label: "task", value: (info) => info.task, cell: (info) => html`<${Text} value=${info.task} inline />` },
  { key: "rollouts", label: "rollouts", value: (info) => info.num_rollouts, cell: (info) => fmt.number(info.num_rollouts), align: "right", help: "completions, of runs that somebody opened" },
  { key: "started", label: "started", value: (info) => info.started_s, cell: (info) => fmt.date(info.started_s), align: "right" },
  { key: "took", label: "took", value: took, cell: (info) => fmt.seconds(took(info)), align: "right" },
  { key: "updated", label: "last written", value: (info) => info.updated_s, cell: (info) => html`<span class="muted" title=${fmt.date(info.updated_s)}>${fmt.ago(info.updated_s)}</span>`, align: "right" },
];
const USUAL = COLUMNS.map(({ key }) => key).filter((key) => key !== "rollouts");

/** A key of the configuration as a column. */
function configColumn(key) {
  const value = (info) => info.values?.[key];
  const text = (info) => (value(info) === null || value(info) === undefined ? "–" : fmt.plain(value(info)));
  return { key: CONFIG + key, label: key, value, cell: (info) => html`<${Text} value=${text(info)} inline fold=${60} />`, align: "right", help: "of the configuration" };
}

/** The columns named in `param` (without one the usual ones), those of configurations behind the others. */
function columnsOf(param) {
  const names = (param ?? "").split(",").filter(Boolean);
  const wanted = names.length ? names : USUAL;
  const chosen = COLUMNS.filter(({ key }) => key === "run" || wanted.includes(key));
  return [...chosen, ...wanted.filter((name) => name.startsWith(CONFIG)).map((name) => configColumn(name.slice(CONFIG.length)))];
}

function sorted(runs, order, columns) {
  const descending = order.startsWith("-");
  const value = columns.find(({ key }) => key === order.replace("-", ""))?.value;
  if (!value) return runs;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * (descending ? -1 : 1);
  };
  return [...runs].sort(compare);
}

function Head({ order, columns }) {
  return html`<thead><tr><th class="check"><span class="visually-hidden">compare</span></th>
    ${columns.map(({ key, label, value, align, help }) => {
      const direction = order === key ? "ascending" : order === "-" + key ? "descending" : undefined;
      const name = html`<${Text} value=${label} inline />`;
      if (!value) return html`<th key=${key} class=${align} title=${help}>${name}</th>`;
      return html`<th key=${key} class=${align} title=${help} aria-sort=${direction}><button type="button" class="sort" data-sort=${key}
        onClick=${() => replaceParams({ sort: direction === "descending" ? key : "-" + key })}>${name}<span class="sort-mark">${direction === "ascending" ? "↑" : direction ? "↓" : ""}</span></button></th>`;
    })}</tr></thead>`;
}

/** Seconds from the run's first event to the end of its last step. */
function took({ started_s: from, step_ended_s: to }) {
  return from === null || to === null || to === undefined ? null : Math.max(0, to - from);
}

/** An error is worse than any number of warnings. */
function badness({ doctor }) {
  return doctor ? 1e6 * doctor.error + doctor.warning : null;
}

function Doctor({ info }) {
  if (!info.doctor) return html`<span class="muted" title="Open the run: its doctor looks at everything">–</span>`;
  const found = SEVERITIES.filter((severity) => info.doctor[severity]);
  const of = info.is_opened ? "" : "By its metrics alone; of rollouts, events and ledger the doctor tells when the run is opened";
  if (!found.length) return html`<span class="muted" title=${of}>● nothing</span>`;
  return html`<a href=${href("doctor", [], {}, info.run)} title=${of} class="doctor-found">${found.map((severity) => html`<${Badge} state=${severity} key=${severity}>${info.doctor[severity]} ${severity}${info.doctor[severity] > 1 ? "s" : ""}<//>`)}</a>`;
}

function Accuracy({ before, now, step }) {
  if (step === 0 && now !== null) return html`${fmt.percent(now)} <span class="muted" title="There was no evaluation since: this is what the model could do without training">before training</span>`;
  const change = before !== null && before !== undefined && now !== null && now !== undefined ? now - before : null;
  return html`${fmt.percent(now)}${change ? html`<span class=${"delta " + (change > 0 ? "good" : "bad")}> ${change > 0 ? "↑" : "↓"} ${fmt.points(Math.abs(change))}</span>` : null}`;
}

function Name({ info }) {
  return html`<a href=${href("overview", [], {}, info.run)} title=${info.note || undefined}><${Text} value=${info.run} inline /></a>${(info.tags ?? []).map((tag) => html`<span class="run-tag" key=${tag}><${Text} value=${tag} inline /></span>`)}${info.problems ? html`<span class="run-problems" title=${`${info.problems} files could not be read whole`}>▲</span>` : null}`;
}

function Row({ info, columns, chosen, full, focused, onChoose }) {
  const open = (event) => {
    if (!event.target.closest("a, input, label")) go("overview", [], {}, info.run);
  };
  return html`<tr class=${(chosen ? "chosen " : "") + (focused ? "selected" : "")} data-testid="run-row" data-run=${info.run} onClick=${open}>
    <td class="check"><input type="checkbox" checked=${chosen} disabled=${full && !chosen} onChange=${() => onChoose(info.run)} aria-label=${`Compare ${info.run}`} /></td>
    ${columns.map(({ key, cell, align }) => html`<td key=${key} class=${`run-${key.startsWith(CONFIG) ? "config" : key === "run" ? "name" : key} ${align ?? ""}`} data-column=${key}>${key === "run" ? html`<${Name} info=${info} />` : cell(info)}</td>`)}
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
  const columns = useMemo(() => columnsOf(route.params.cols), [route.params.cols]);
  const keys = columns.map(({ key }) => key).filter((key) => key.startsWith(CONFIG)).map((key) => key.slice(CONFIG.length));
  const { data, error, refresh } = useApi(keys.length ? `/runs?keys=${encodeURIComponent(keys.join(","))}` : "/runs", null);
  useEffect(() => {
    // Of hundreds of runs the metrics are read a part at a time.
    if (!data?.unread) return undefined;
    const timer = setTimeout(refresh, UNREAD_MS);
    return () => clearTimeout(timer);
  }, [data]);
  const search = useRef(null);
  const { sort = "", find = "", pick = "", at = "" } = route.params;
  const archived = route.params.archived === "1";
  const chosen = pick ? pick.split(",") : [];
  const runs = useMemo(() => {
    const needle = find.toLowerCase();
    const listed = (data?.runs ?? []).filter((info) => archived || !info.archived);
    const found = listed.filter(({ run, model, task, status, tags = [] }) => [run, model, task, status, ...tags].join(" ").toLowerCase().includes(needle));
    return sorted(found, sort, columns);
  }, [data, sort, find, archived, columns]);
  const all = [...COLUMNS.slice(1), ...[...new Set([...keys, ...(data?.keys ?? [])])].map(configColumn)];
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
        <${ColumnChoice} all=${all} chosen=${columns.map(({ key }) => key)} usual=${USUAL}
          onChange=${(names) => replaceParams({ cols: names.join(",") === USUAL.join(",") ? null : names.join(",") })} />
        <${Button} kind=${chosen.length > 1 ? "primary" : ""} disabled=${chosen.length < 2} onClick=${compare} data-testid="compare-button">
          ${chosen.length > 1 ? `Compare ${chosen.length} runs` : "Choose runs to compare"}<//>`}>
      ${data || error ? null : html`<${Loading} what="Looking for runs" />`}
      ${data && !data.runs.length ? html`<${Empty} title="No runs here yet.">A run appears as soon as its directory does: ${data.folders.join(", ")}.<//>` : null}
      ${data?.runs.length ? html`<div class="scroll-x"><table class="plain runs-table"><${Head} order=${sort} columns=${columns} />
        <tbody>${runs.map((info) => html`<${Row} key=${info.run} info=${info} columns=${columns} chosen=${chosen.includes(info.run)} full=${chosen.length >= MOST_COMPARED} focused=${info.run === at} onChoose=${choose} />`)}</tbody></table></div>` : null}
      ${data?.runs.length && !runs.length ? html`<${Empty} title="No run of that name." />` : null}
    <//>
  </div>`;
}
