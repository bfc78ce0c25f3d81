// Parts of the ledger page: does the account balance, how did each prompt fare, the table of all groups.

import { useApi, get } from "shoal/frame/api.js";
import { go, href } from "shoal/frame/route.js";
import { VirtualTable } from "shoal/parts/table.js";
import { Text } from "shoal/parts/text.js";
import { Badge, Empty, Panel, Segmented, Spark, fmt, html, useEffect, useRef, useState } from "shoal/parts/ui.js";

const CHUNK = 200;
const TABLE_HEIGHT = 420;

export function Balance({ balance, checks, reasons }) {
  const { dispatched, trained, rejected, in_flight: flying } = balance;
  const parts = [["trained", trained, "c"], ["rejected", rejected, "r"], ["in flight", flying, "l"]];
  const well = balance.ok && checks.every((check) => check.ok);
  const total = Math.max(1, trained + rejected + flying);
  return html`<${Panel} title="Exactly once" data-testid="balance" help="Every group that was dispatched is trained on once, rejected for a reason, or still under way."
      actions=${html`<${Badge} state=${well ? "ok" : "alarm"} data-testid="exactly-once">${well ? "exactly once" : "does not balance"}<//>`}>
    <p class="balance-words" data-testid="balance-words"><b>${fmt.count(dispatched)}</b> dispatched ${balance.ok ? "=" : "≠"}
      <b> ${fmt.count(trained)}</b> trained + <b>${fmt.count(rejected)}</b> rejected + <b>${fmt.count(flying)}</b> in flight</p>
    <div class="balance-bar" aria-hidden="true">${parts.map(([name, count, letter]) =>
      html`<i key=${name} class=${`letter-${letter}`} title=${`${count} ${name}`} style=${{ width: `${(100 * count) / total}%` }}></i>`)}</div>
    <ul class="checks">${checks.filter((check) => check.name !== "balance" || !check.ok).map((check) => html`<li key=${check.name} class=${check.ok ? "" : "broken"} data-testid="check">
      <span class="glyph" aria-label=${check.ok ? "holds" : "broken"}>${check.ok ? "✓" : "✖"}</span><${Text} value=${check.text} inline /></li>`)}</ul>
    <${Reasons} reasons=${reasons} />
  <//>`;
}

function Reasons({ reasons }) {
  const rows = Object.entries(reasons).sort((a, b) => b[1] - a[1]);
  if (!rows.length) return null;
  const most = rows[0][1];
  return html`<div class="reasons" data-testid="reasons"><h3>Rejected, by reason</h3>
    ${rows.map(([reason, count]) => html`<div class="reason" key=${reason}><${Text} value=${reason.replaceAll("_", " ")} inline />
      <span class="meter-bar"><i class="letter-r" style=${{ width: `${(100 * count) / most}%` }}></i></span><span class="num">${fmt.count(count)}</span></div>`)}
  </div>`;
}

// The prompts that are answered worst, or best, with their pass rate from visit to visit.
export function Prompts({ run, prompts, side, onSide, chosen, onChoose }) {
  const rows = prompts[side];
  return html`<${Panel} title="Prompts" data-testid="prompts" help="Pass rate: the share of a prompt's completions that were judged correct, over all its groups."
      actions=${html`<${Segmented} label="prompts" value=${side} onChange=${onSide} data-testid="prompt-side"
        options=${[{ value: "hardest", label: "hardest" }, { value: "easiest", label: "easiest" }]} />`}>
    ${rows.length === 0 ? html`<${Empty} title="No prompt was scored yet." />` : null}
    <div class="prompt-rows">${rows.map((row) => html`<${PromptRow} key=${row.uid} run=${run} row=${row} open=${row.uid === chosen}
      onToggle=${() => onChoose(row.uid === chosen ? null : row.uid)} />`)}</div>
    <p class="muted">${fmt.count(prompts.total)} prompts so far.</p>
  <//>`;
}

// [ref, whether the element has ever been in sight]: what nobody scrolls to is not fetched.
function useSeen() {
  const ref = useRef(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        setSeen(true);
        observer.disconnect();
      }
    });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, seen];
}

function PromptRow({ run, row, open, onToggle }) {
  const [line, seen] = useSeen();
  const path = `/runs/${encodeURIComponent(run)}/prompts/${encodeURIComponent(row.uid)}`;
  const { data } = useApi(seen || open ? path : null, open ? ["rollouts"] : []);
  const history = data?.history ?? [];
  return html`<div class=${`prompt ${open ? "open" : ""}`} ref=${line}>
    <button type="button" class="prompt-row" aria-expanded=${open} onClick=${onToggle} data-testid="prompt">
      <span class="prompt-question"><${Text} value=${row.question} inline /></span>
      <span class="prompt-rate"><i style=${{ width: `${100 * (row.pass_rate ?? 0)}%` }}></i></span>
      <span class="num">${fmt.percent(row.pass_rate, 0)}</span>
      <${Spark} values=${history.map((visit) => visit.pass_rate)} width=${72} height=${18} />
      <span class="num muted">${row.num_groups}×</span>
    </button>
    ${open ? html`<div class="visits" data-testid="visits">${history.map((visit) => html`<a key=${`${visit.step} ${visit.group_id}`} class="visit"
      href=${href("group", [visit.phase, visit.step, visit.group_id], {}, run)}>${visit.phase === "eval" ? "evaluation at " : ""}step ${visit.step}
      <b>${fmt.percent(visit.pass_rate, 0)}</b></a>`)}</div>` : null}
  </div>`;
}

// The ledger's entries by their place, fetched in chunks as they are needed; anew when `revision` changes.
export function useEntries(run, revision) {
  const chunks = useRef(new Map());
  const [, redraw] = useState(0);
  const [error, setError] = useState(null);
  const need = (first, last) => {
    for (let chunk = Math.floor(first / CHUNK); chunk <= Math.floor(Math.max(first, last - 1) / CHUNK); chunk++) {
      const known = chunks.current.get(chunk);
      if (known?.revision === revision) continue;
      chunks.current.set(chunk, { revision, groups: known?.groups ?? [] });
      get(`/runs/${encodeURIComponent(run)}/ledger/groups?offset=${chunk * CHUNK}&limit=${CHUNK}`)
        .then((answer) => {
          chunks.current.set(chunk, { revision, groups: answer.groups });
          setError(null);
        }, setError)
        .then(() => redraw((count) => count + 1));
    }
  };
  const at = (place) => chunks.current.get(Math.floor(place / CHUNK))?.groups[place % CHUNK];
  return { at, need, error };
}

export function openGroup(run, entry) {
  if (entry && entry.step !== null && entry.step !== undefined) go("group", ["train", entry.step, entry.group_id], {}, run);
}

const COLUMNS = [
  { key: "place", label: "#", width: 72, align: "right", render: (row, index) => index },
  { key: "group_id", label: "group", width: "220px", render: (row) => html`<${Text} value=${row.group_id} inline />` },
  { key: "state", label: "state", width: 116, render: (row) => html`<span class=${`letter-mark letter-${row.state === "scored" ? "o" : row.state[0]}`}></span> ${row.state}` },
  { key: "step", label: "step", width: 64, align: "right", render: (row) => row.step ?? "–" },
  { key: "attempt", label: "attempt", width: 72, align: "right" },
  { key: "worker", label: "worker", width: 120, render: (row) => html`<${Text} value=${row.worker} inline />` },
  { key: "reason", label: "reason", width: "160px", render: (row) => html`<${Text} value=${(row.reason ?? "").replaceAll("_", " ")} inline />` },
  { key: "first_s", label: "dispatched", width: 88, align: "right", render: (row) => fmt.time(row.first_s) },
  { key: "deadline_s", label: "deadline", width: 88, align: "right", render: (row) => (row.deadline_s ? fmt.time(row.deadline_s) : "") },
  { key: "took", label: "took", width: 88, align: "right", render: (row) => fmt.seconds(row.last_s - row.first_s) },
];

export function Groups({ run, total, entries, chosen, onChoose, revision }) {
  const visible = useRef([0, CHUNK]);
  useEffect(() => {
    if (total) entries.need(...visible.current);
  }, [revision, total]);
  const see = (first, last) => {
    visible.current = [first, last];
    if (total) entries.need(first, last);
  };
  return html`<${Panel} title="Groups" data-testid="ledger-groups">
    <${VirtualTable} label="groups in order of dispatch" columns=${COLUMNS} total=${total} rowAt=${entries.at} onVisible=${see} selected=${chosen}
      onSelect=${onChoose} onOpen=${(row) => openGroup(run, row)} height=${Math.min(TABLE_HEIGHT, 28 + 26 * Math.max(1, total))} rowTestid="ledger-row" />
  <//>`;
}

