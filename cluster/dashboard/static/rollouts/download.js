// The filtered rollouts as a file: a link for each form, which the browser saves.

import { fmt, html } from "shoal/parts/ui.js";
import { canonical, isReport } from "shoal/frame/api.js";

/** Label, what it is, parameters. */
const FORMS = [
  ["JSON lines", "every column, a line for each completion", { format: "jsonl" }],
  ["JSON lines with tokens", "also what there is for each token", { format: "jsonl", tokens: 1 }],
  ["CSV", "for a spreadsheet", { format: "csv" }],
  ["Parquet", "for pandas, polars, DuckDB", { format: "parquet" }],
  ["SFT", "prompt and completion as turns, for TRL's SFTTrainer", { format: "jsonl", as: "sft" }],
  ["DPO", "the best and the worst of each group, for TRL's DPOTrainer", { format: "jsonl", as: "dpo" }],
];

/** The menu beside the filter; `asked` is the whole filter of the table that is shown, `what` its rows are. */
export function Download({ run, asked, total, what: rows }) {
  if (isReport) return null; // the report has a part of the rollouts and no server
  const address = (params) => "." + canonical(`/runs/${encodeURIComponent(run)}/export?${new URLSearchParams({ filter: asked, ...params })}`);
  const close = (event) => event.currentTarget.closest("details").removeAttribute("open");
  return html`<details class="rl-columns" data-testid="download" onKeyDown=${(event) => event.key === "Escape" && close(event)}>
    <summary title="Save the rollouts that pass the filter">download</summary>
    <div class="rl-download">
      ${total
        ? FORMS.map(([label, what, params]) => html`<a key=${label} href=${address(params)} download onClick=${close}><b>${label}</b><span class="muted">${what}</span></a>`)
        : html`<span class="muted">No rollout passes the filter.</span>`}
      ${total ? html`<span class="muted">${rows === "groups" ? "the completions that pass, of " : ""}${fmt.count(total)} ${rows}; in a terminal: <code>shoal rollouts</code></span>` : null}
    </div>
  </details>`;
}
