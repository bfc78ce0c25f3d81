// What failed and was mended, on the ledger page: leases that were given up, answers that came late, checkpoints that are
// not there to go on from.

import { href } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Badge, Empty, Panel, fmt, html } from "shoal/parts/ui.js";

export function Faults({ run, late, numLate, retried, checkpoints }) {
  return html`<div class="ledger-columns">
    <${Saved} checkpoints=${checkpoints} />
    <${Leases} run=${run} late=${late} numLate=${numLate} retried=${retried} />
  </div>`;
}

function Saved({ checkpoints }) {
  const { newest, steps_done: done, trained, trained_held: held, troubles } = checkpoints;
  const lacks = done - (newest?.step ?? 0);
  return html`<${Panel} title="Checkpoints" data-testid="checkpoints" help="What a run that is resumed goes on from. A damaged one is set aside and never loaded."
      actions=${troubles.length ? html`<${Badge} state="watch" data-testid="checkpoint-troubles">${counted(troubles)}<//>` : null}>
    <p data-testid="checkpoint-newest">${newest
      ? html`The newest is <b><${Text} value=${newest.name} inline /></b>: it holds <b>${fmt.count(held)}</b> of ${fmt.count(trained)} trained groups${
          lacks > 0 ? html`; ${fmt.count(lacks)} of ${fmt.count(done)} steps came after it` : ""}.`
      : html`There is none${done > 0 ? html`: none of ${fmt.count(done)} steps is held` : ""}.`}</p>
    ${troubles.length ? html`<ul class="faults">${troubles.map((each, index) => html`<li key=${index} data-testid="checkpoint-trouble">
      <span class="glyph" aria-hidden="true">▲</span>
      <span><b>${each.step === null ? "" : `step ${each.step} `}${each.what}</b><span class="muted"> ${fmt.time(each.time_s)}</span><br /><${Text} value=${each.reason} fold=${400} /></span></li>`)}</ul>` : null}
  <//>`;
}

// "1 set aside, 2 not written"
function counted(troubles) {
  const kinds = [...new Set(troubles.map((each) => each.what))];
  return kinds.map((kind) => `${troubles.filter((each) => each.what === kind).length} ${kind}`).join(", ");
}

function Leases({ run, late, numLate, retried }) {
  const nothing = retried.total === 0 && numLate === 0;
  return html`<${Panel} title="Leases given up" data-testid="leases"
      help="A group whose sampler fails, or takes too long, is leased again with a higher attempt. What an attempt that was given up delivers later is refused."
      actions=${nothing ? null : html`<span class="muted" data-testid="lease-counts">${fmt.count(retried.total)} sampled again, ${fmt.count(numLate)} late ${numLate === 1 ? "answer" : "answers"} refused</span>`}>
    ${nothing ? html`<${Empty} title="Every lease was answered." />` : null}
    <ul class="faults">
      ${retried.groups.map((each) => html`<li key=${each.group_id} data-testid="retried"><span class="glyph" aria-hidden="true">↻</span>
        <span><${Text} value=${each.group_id} inline /><span class="muted"> ${now(each)}</span><br />
          <span class="muted">${fmt.time(each.time_s)}, given up by </span><${Text} value=${each.given_up_by} inline />: <${Text} value=${each.reason} fold=${400} /></span></li>`)}
    </ul>
    ${late.length ? html`<h3 class="late-head">Late answers, refused</h3><ul class="faults">${late.map((each, index) => html`<li key=${index} data-testid="late">
      <span class="glyph" aria-hidden="true">✓</span><span><${Text} value=${each.group_id} inline />
      <span class="muted"> attempt ${each.attempt}, came ${fmt.time(each.time_s)}</span></span></li>`)}</ul>` : null}
    ${nothing ? null : html`<p><a href=${href("fleet", [], { order: "trouble" }, run)}>who failed</a></p>`}
  <//>`;
}

// Where the group is since: with whom, or waiting.
function now(each) {
  return each.attempt > 1 ? html`attempt ${each.attempt} by <${Text} value=${each.worker} inline />` : "waits for its next lease";
}
