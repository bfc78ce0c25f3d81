// Ledger: where every group is, whether each was trained on exactly once, how each prompt fares.

import { Faults } from "shoal/rollouts/ledger_faults.js";
import { Balance, Groups, Prompts, openGroup, useEntries } from "shoal/rollouts/ledger_parts.js";
import { usePacedApi } from "shoal/frame/paced.js";
import { LETTERS, PixelGrid } from "shoal/charts/pixel_grid.js";
import { replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Empty, Loading, Panel, Problem, fmt, html, useEffect, useRef, useState } from "shoal/parts/ui.js";

const HOVER_PAUSE_MS = 80; // what the pointer only passes over is not fetched

export default function LedgerPage({ run, route, frame }) {
  const { data, error } = usePacedApi(`/runs/${encodeURIComponent(run)}/ledger`, ["ledger", "rollouts", "checkpoints"]);
  const entries = useEntries(run, data);
  const [chosen, setChosen] = useState(-1);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  if (!data) return html`<div class="page"><${Problem} error=${error} />${error ? null : html`<${Loading} index=${frame?.index} />`}</div>`;
  const { groups, counts } = data;
  const { params } = route;
  const only = LETTERS[params.state] ? params.state : null;
  const hover = (place) => {
    clearTimeout(timer.current);
    if (place !== null) timer.current = setTimeout(() => entries.need(place, place + 1), HOVER_PAUSE_MS);
  };
  const open = (place) => {
    setChosen(place);
    const entry = entries.at(place);
    if (entry) openGroup(run, entry);
    else entries.need(place, place + 1);
  };
  if (!groups.length) {
    return html`<div class="page"><${Problem} error=${error} /><${Empty} title="No group was dispatched yet." data-testid="ledger-empty" /></div>`;
  }
  return html`<div class="page ledger" data-testid="ledger">
    <${Problem} error=${error ?? entries.error} />
    <${Panel} title="Every group" help="A pixel for each group, in order of dispatch. Click one that was trained on to open it."
        actions=${html`<${States} counts=${counts} only=${only} />`}>
      <${PixelGrid} groups=${groups} only=${only} marked=${chosen} onHover=${hover} onOpen=${open}>
        ${(place) => html`<${Card} place=${place} letter=${groups[place]} entry=${entries.at(place)} />`}
      <//>
    <//>
    <div class="ledger-columns">
      <${Balance} balance=${data.balance} checks=${data.checks} reasons=${data.reasons} />
      <${Prompts} run=${run} prompts=${data.prompts} side=${params.prompts === "easiest" ? "easiest" : "hardest"} chosen=${params.prompt ?? null}
        onSide=${(side) => replaceParams({ prompts: side === "easiest" ? side : null, prompt: null })} onChoose=${(prompt) => replaceParams({ prompt })} />
    </div>
    <${Faults} run=${run} late=${data.late} numLate=${data.late_results} retried=${data.retried} checkpoints=${data.checkpoints} />
    <${Groups} run=${run} total=${groups.length} entries=${entries} chosen=${chosen} onChoose=${setChosen} revision=${data} />
  </div>`;
}

// The legend with its counts; a click makes one state stand out.
function States({ counts, only }) {
  return html`<div class="states">${Object.entries(LETTERS).map(([letter, [state, meaning]]) => html`<button type="button" key=${letter} title=${meaning}
    class=${`state-chip ${only === letter ? "active" : ""}`} aria-pressed=${only === letter} data-testid=${`state-${state}`}
    onClick=${() => replaceParams({ state: only === letter ? null : letter })}>
    <span class=${`letter-mark letter-${letter}`}></span>${state}<b>${fmt.count(counts[state] ?? 0)}</b></button>`)}</div>`;
}

function Card({ place, letter, entry }) {
  const [state, meaning] = LETTERS[letter] ?? [letter, ""];
  return html`<div><b>#${place} ${state}</b><span class="muted"> ${meaning}</span></div>
    ${entry
      ? html`<div><${Text} value=${entry.group_id} inline /></div>
        <div class="muted">${entry.step === null ? "" : `step ${entry.step} · `}<${Text} value=${entry.worker || "no worker yet"} inline /> · attempt ${entry.attempt}</div>
        ${entry.reason ? html`<div><${Text} value=${entry.reason.replaceAll("_", " ")} inline /></div>` : null}`
      : html`<div class="muted">…</div><div> </div>`}`;
}
