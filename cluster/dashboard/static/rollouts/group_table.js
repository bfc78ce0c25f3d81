// The groups of which a completion passes the filter, a row for each: what the completions of one prompt were worth.

import { fmt, html } from "shoal/parts/ui.js";
import { go, href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";

const FLAGS = {
  same_answer_different_reward: "graded apart",
  truth_called_wrong: "truth called wrong",
  not_scored: "not scored",
  right_but_truncated: "right but truncated",
  equal_rewards: "equal rewards",
};

/** The completions as small marks: right, wrong, not judged. */
function Cells({ row }) {
  return html`<span class="ro-strip gt-cells">${row.cells.map(({ sample_index: index, reward, correct }) => html`<a key=${index} tabindex="-1"
    class=${correct === null ? "unjudged" : correct ? "right" : "wrong"} href=${href("rollout", [row.phase, row.step, row.group_id, index])}
    title=${`sample ${index}, reward ${fmt.number(reward)}`} onClick=${(event) => event.stopPropagation()}>${index}</a>`)}</span>`;
}

const right = { align: "right" };
const COLUMNS = [
  { key: "step", label: "step", width: 78, ...right, sortable: true, render: (row) => html`${row.phase === "eval" ? html`<span class="tk-dim">eval </span>` : null}${row.step}` },
  { key: "group_id", label: "group", width: 76, sortable: true, title: "group id", render: (row) => html`<a href=${href("group", [row.phase, row.step, row.group_id])} onClick=${(event) => event.stopPropagation()}>${row.group_id.replace(/^0*(\d+)-.*$/, "$1").slice(0, 8)}</a>` },
  { key: "cells", label: "completions", width: 220, render: (row) => html`<${Cells} row=${row} />` },
  { key: "num_passing", label: "found", width: 64, ...right, title: "completions that pass the filter", render: (row) => `${row.num_passing}/${row.cells.length}` },
  { key: "reward_mean", label: "reward", width: 76, ...right, title: "mean of its completions", render: (row) => fmt.number(row.reward_mean) },
  { key: "reward_std", label: "spread", width: 76, ...right, sortable: true, title: "standard deviation of its rewards: at 0 nothing is learned", render: (row) => fmt.number(row.reward_std) },
  { key: "pass_rate", label: "right", width: 72, ...right, sortable: true, title: "share that was judged right", render: (row) => fmt.percent(row.pass_rate, 0) },
  { key: "flags", label: "what to look at", width: "200px", grow: 0.5, render: (row) => row.flags.map((flag) => FLAGS[flag] ?? flag).join(", ") },
  { key: "question", label: "question", width: "200px", sortable: true, render: (row) => html`<${Text} value=${row.question} inline fold=${200} />` },
  { key: "truth", label: "truth", width: 104, sortable: true, render: (row) => (row.truth === null ? html`<span class="tk-dim">none</span>` : html`<${Text} value=${row.truth} inline fold=${80} />`) },
];

/** What the table of groups needs of a VirtualTable. */
export const GROUP_TABLE = {
  label: "Groups",
  rowTestid: "group-table-row",
  columns: COLUMNS,
  onOpen: (row, index) => {
    replaceParams({ row: index }); // so that going back comes back to this row
    go("group", [row.phase, row.step, row.group_id]);
  },
};
