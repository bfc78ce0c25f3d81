// Every rollout of the run as one table: filter, search, saved views, columns by choice, pins.

import { Button, Empty, fmt, html, Loading, Problem, Segmented, useEffect, useLayoutEffect, useRef, useState } from "shoal/parts/ui.js";
import { Text } from "shoal/parts/text.js";
import { isReport, useApi } from "shoal/frame/api.js";
import { go, replaceParams } from "shoal/frame/route.js";
import { useKeys } from "shoal/frame/keys.js";
import { ColumnChoice } from "shoal/parts/column_choice.js";
import { VirtualTable } from "shoal/parts/table.js";
import { GROUP_TABLE } from "shoal/rollouts/group_table.js";
import { Download } from "shoal/rollouts/download.js";
import { FilterBox, FilterHelp } from "shoal/rollouts/filter_box.js";
import { combined } from "shoal/rollouts/filter_language.js";
import { addressOf, allColumns, chosenColumns, usualColumns } from "shoal/rollouts/rollout_columns.js";
import { usePagedRows } from "shoal/parts/paged_rows.js";
import { PinnedSideBySide, pinsOf, PinTray, togglePin } from "shoal/rollouts/pinned.js";

const DEFAULT_SORT = "-step";
const ROWS = [
  { value: "completions", label: "completions" },
  { value: "groups", label: "groups", title: "A row for each group of which a completion passes" },
];
const SEARCH_DELAY_MS = 300;

function SearchBox({ value, onSearch, inputRef }) {
  const [draft, setDraft] = useState(value);
  const timer = useRef(0);
  useEffect(() => setDraft(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const soon = (text) => {
    setDraft(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onSearch(text), SEARCH_DELAY_MS);
  };
  return html`<div class="rl-field">
    <input ref=${inputRef} type="search" data-testid="search" aria-label="Search the completions" placeholder="search completions ( / )" spellcheck=${false} value=${draft}
      onInput=${(event) => soon(event.currentTarget.value)}
      onKeyDown=${(event) => {
        if (event.key === "Enter") {
          clearTimeout(timer.current);
          onSearch(draft);
        }
        if (event.key === "Escape") event.currentTarget.blur();
      }} />
  </div>`;
}

function SavedViews({ views, filter, sort, onChoose }) {
  return html`<nav class="rl-views" aria-label="Saved views" data-testid="views">
    <button type="button" class=${filter === "" && sort === DEFAULT_SORT ? "active" : ""} onClick=${() => onChoose({ filter: "", sort: DEFAULT_SORT })}>all</button>
    ${views.map((view) => {
      const active = view.filter === filter && (view.sort || DEFAULT_SORT) === sort;
      return html`<button type="button" key=${view.name} title=${`${view.help ?? ""}\n${view.filter}`} class=${active ? "active" : ""} aria-pressed=${active} onClick=${() => onChoose(view)}>${view.name}</button>`;
    })}
  </nav>`;
}

/** What the rollouts that pass the filter have in common. */
function Means({ reward, correct, length }) {
  return html`<span class="rl-means" data-testid="means">
    ${reward === null ? null : html`<span>mean reward <b>${fmt.number(reward)}</b></span>`}
    ${correct === null ? null : html`<span>correct <b>${fmt.percent(correct)}</b></span>`}
    ${length === null ? null : html`<span>mean length <b>${fmt.number(length)}</b> tokens</span>`}
  </span>`;
}

/** How much of the run an exported report has. */
function InReport({ rows, of, filter }) {
  return html`<span class="tk-dim" data-testid="in-report">of the ${fmt.count(rows)} in this report; the run has ${fmt.count(of)}${filter ? html`; exported were those that pass <code><${Text} value=${filter} inline /></code>` : null}</span>`;
}

function Status({ rows, frame, stale, groups }) {
  const { head, total, fresh, showFresh } = rows;
  const told = head.data && "means" in head.data === !groups; // not the total of the other table, while this one is on its way
  const index = frame?.index;
  return html`<div class="rl-status" role="status" data-testid="status">
    ${told ? html`<span class=${stale ? "rl-stale" : ""}><b data-testid="total">${fmt.count(total)}</b> ${groups ? "group" : "rollout"}${total === 1 ? "" : "s"}</span>` : null}
    ${told && head.data.total && !groups ? html`<${Means} ...${head.data.means} />` : null}
    ${head.data?.in_report ? html`<${InReport} ...${head.data.in_report} />` : null}
    ${index && !index.ready ? html`<span class="tk-dim">still reading: ${index.files_done} of ${index.files_total} files</span>` : null}
    ${fresh > 0 ? html`<${Button} data-testid="fresh" onClick=${showFresh}>show ${fmt.count(fresh)} new<//>` : null}
    <span class="tk-dim rl-keyline">j k move · Enter open${groups ? "" : " · x pin · c compare"} · / search · f filter</span>
  </div>`;
}

/** Height that the table can have: from its top to the end of the window, no less than a dozen rows. */
function useTableHeight(below) {
  const ref = useRef(null);
  const [height, setHeight] = useState(480);
  useLayoutEffect(() => {
    const measure = () => {
      const top = ref.current ? ref.current.getBoundingClientRect().top + scrollY : 320;
      setHeight(Math.max(338, Math.floor(innerHeight - top - below)));
    };
    measure();
    addEventListener("resize", measure);
    const observer = new ResizeObserver(measure); // the help above it opens and closes
    observer.observe(document.body);
    return () => {
      removeEventListener("resize", measure);
      observer.disconnect();
    };
  }, [below]);
  return [ref, height];
}

/** Names of the reward's components in the rows at hand: more than one, or one that is not the reward itself. */
function componentNames(rows) {
  return [...new Set(rows.slice(0, 50).flatMap((row) => Object.keys(row.components ?? {})))].sort().slice(0, 12);
}

/** A row, unless it is one of the other table, which stays in sight until the answer is there. */
const ofKind = (row, label) => (row && ("cells" in row) === (label === "Groups") ? row : undefined);

/** The table; in its place the pinned ones side by side, or why there is nothing to see. `change` changes the question. */
function TableOrWhyNot({ run, rows, index, pins, comparing, refused, asked, change, table }) {
  const { head } = rows;
  if (comparing) return html`<${PinnedSideBySide} run=${run} pins=${pins} />`;
  if (refused && rows.total === 0) return html`<${Empty} title="The filter cannot be read" >What is wrong stands under it.<//>`;
  if (head.data === null && !head.error) return html`<${Loading} what="Reading the rollouts" index=${index} />`;
  if (rows.total === 0 && !head.stale && !head.loading && !head.error) {
    return html`<${Empty} title=${`No ${table.label === "Groups" ? "group" : "rollout"} passes this filter`} data-testid="none">
      ${asked ? html`<${Button} onClick=${() => change({ filter: null, q: null, from: null, to: null })}>show all<//>` : "The run has not finished a step yet."}
    <//>`;
  }
  return html`<${VirtualTable} key=${table.label + asked + table.sort} data-testid="rollouts" total=${rows.total} rowAt=${(index) => ofKind(rows.rowAt(index), table.label)}
    onVisible=${rows.onVisible} onSort=${(name) => change({ sort: name })} ...${table} />`;
}

/** The colour of the tokens that shows what the table is sorted by, and whether the token that stands out most is opened. */
const COLOUR_OF_SORT = { max_gap: "gap", k3: "gap", entropy: "entropy", advantage: "credit" };

function opener(sort) {
  const colour = COLOUR_OF_SORT[sort.replace(/^[-+]/, "")];
  return (row, index) => {
    replaceParams({ row: index }); // so that going back comes back to this row
    go("rollout", [row.phase, row.step, row.group_id, row.sample_index], colour ? { colour, t: colour === "gap" ? "most" : null } : {});
  };
}

/** What the address asks for. */
function questionOf(params) {
  const [filter, search] = [params.filter ?? "", params.q ?? ""];
  // A range that was dragged on the scrubber narrows the table like every other page.
  const range = /^\d+$/.test(params.from ?? "") && /^\d+$/.test(params.to ?? "") ? `step:${params.from}-${params.to}` : "";
  const { text: asked, shift } = combined(filter, search, range);
  return { filter, search, sort: params.sort || DEFAULT_SORT, asked, shift };
}

/** [names of the usual columns, those that are shown]; those that are fields of the index can be sorted by. */
function shownColumns(names, all, rows, fields) {
  const sortable = new Set(fields.map(({ name }) => name));
  const usual = usualColumns(rows);
  const shown = chosenColumns(names, all, usual).map((column) => ({ ...column, title: column.help, sortable: sortable.has(column.key) || column.key.startsWith("reward.") }));
  return /** @type {const} */ ([usual, shown]);
}

const focus = (input) => () => {
  input.current?.focus();
  input.current?.select();
};

function Pins({ pins, comparing }) {
  const change = (next) => replaceParams({ pins: next.join(","), ...(next.length < 2 ? { compare: null } : {}) });
  return html`<${PinTray} pins=${pins} comparing=${comparing} onChange=${change} onCompare=${() => replaceParams({ compare: comparing ? null : 1 })} />`;
}

export default function RolloutsPage({ run, route, frame }) {
  const { params } = route;
  const { filter, search, sort, asked, shift } = questionOf(params);
  const groups = params.view === "groups" && !isReport; // an exported report lists completions alone
  const pins = pinsOf(params.pins);
  const comparing = params.compare === "1" && pins.length >= 2 && !groups;
  const rows = usePagedRows(`/runs/${encodeURIComponent(run)}/${groups ? "group-table" : "rollouts"}?filter=${encodeURIComponent(asked)}&sort=${encodeURIComponent(sort)}`);
  const { data: saved } = useApi("/views");
  const [selected, setSelected] = useState(/^\d+$/.test(params.row ?? "") ? Number(params.row) : -1);
  const [help, setHelp] = useState(false);
  const [filterInput, searchInput] = [useRef(null), useRef(null)];
  const [tableRef, height] = useTableHeight(pins.length ? 76 : 24);
  const { rows: listed = [], fields = [] } = rows.head.data ?? {};
  const all = allColumns({ mark: search, pins, components: componentNames(listed) });
  const [usual, shown] = shownColumns(params.cols, all, listed, fields);

  const change = (patch) => {
    setSelected(-1);
    replaceParams({ ...patch, row: null });
  };
  const pin = () => {
    const row = selected >= 0 ? rows.rowAt(selected) : undefined;
    if (!row || groups) return false;
    replaceParams({ pins: togglePin(pins, addressOf(row)).join(",") });
    return true;
  };
  useKeys(
    {
      "/": [focus(searchInput), "search the completions"],
      f: [focus(filterInput), "filter"],
      x: [pin, "pin the row"],
      c: [() => (pins.length < 2 ? false : replaceParams({ compare: comparing ? null : 1 })), "compare what is pinned"],
    },
    "Rollouts",
  );

  const { head } = rows;
  const refused = head.error && head.error.status === 400;
  const stale = head.stale || head.loading;
  return html`<div class="rl-page" data-testid="rollouts-page">
    <${SavedViews} views=${saved?.views ?? []} filter=${filter} sort=${sort} onChoose=${(view) => change({ filter: view.filter, sort: view.sort || null, view: view.groups ? "groups" : null })} />
    <div class="rl-bar">
      <${FilterBox} value=${filter} error=${refused ? head.error.message : null} shift=${shift} fields=${fields}
        inputRef=${filterInput} helpOpen=${help} onHelp=${() => setHelp(!help)} onApply=${(text) => change({ filter: text })} />
      <${SearchBox} value=${search} inputRef=${searchInput} onSearch=${(text) => change({ q: text })} />
      ${isReport ? null : html`<${Segmented} label="Rows" options=${ROWS} value=${groups ? "groups" : "completions"} onChange=${(to) => change({ view: to === "groups" ? to : null })} data-testid="rows" />`}
      ${groups ? null : html`<${ColumnChoice} all=${all} chosen=${shown.map(({ key }) => key)} usual=${usual} onChange=${(names) => replaceParams({ cols: names.join(",") === usual.join(",") ? null : names.join(",") })} />`}
      <${Download} run=${run} asked=${asked} total=${rows.total} what=${groups ? "groups" : "rollouts"} />
    </div>
    ${help ? html`<${FilterHelp} fields=${fields} onTry=${(text) => change({ filter: text })} />` : null}
    ${head.error && !refused ? html`<${Problem} error=${head.error} retry=${head.refresh} />` : null}
    <${Status} rows=${rows} frame=${frame} stale=${stale} groups=${groups} />
    <div ref=${tableRef} class=${stale && rows.total ? "rl-stale-table" : ""}>
      <${TableOrWhyNot} run=${run} rows=${rows} index=${frame?.index} pins=${pins} comparing=${comparing} refused=${refused} asked=${asked} change=${change}
        table=${{ label: "Rollouts", rowTestid: "rollout-row", columns: shown, onOpen: opener(sort), ...(groups ? GROUP_TABLE : {}), sort, selected, onSelect: setSelected, height }} />
    </div>
    ${pins.length && !groups ? html`<${Pins} pins=${pins} comparing=${comparing} />` : null}
  </div>`;
}
