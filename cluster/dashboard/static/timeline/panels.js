// Below the timeline: who waited for whom, and the span that was clicked with its groups.

import { useApi } from "shoal/frame/api.js";
import { Facts, KindMark, seconds, spanLines } from "shoal/timeline/card.js";
import { KINDS } from "shoal/timeline/model.js";
import { addressParts, href } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Button, Empty, Panel, Problem, fmt, html } from "shoal/parts/ui.js";

const MOST_LINKS = 200; // a span of more groups is a merged one: zooming in takes it apart

export function Legend({ lanes, stops }) {
  const seen = new Set(lanes.flatMap((lane) => [...lane.spans.map((span) => span.kind), ...Object.keys(lane.cells?.kinds ?? {})]));
  if (stops?.length) seen.add("stopped");
  return html`<div class="legend" data-testid="legend">
    ${Object.entries(KINDS).map(
      ([kind, help]) => html`<span class=${seen.has(kind) ? "legend-item" : "legend-item absent"} title=${help} key=${kind}>
        <${KindMark} kind=${kind} />${kind}</span>`,
    )}
  </div>`;
}

// waits: [{actor, for, seconds}]; a row lights its spans while the pointer or the focus is on it, a click keeps them lit.
// Shares are of the time that the run was running.
export function Waits({ waits, window: [from, to], whole, stops, pinned, onHover, onPin }) {
  const part = to - from < 0.98 * (whole[1] - whole[0]);
  const stopped = (stops ?? []).reduce((sum, stop) => sum + Math.max(0, Math.min(to, stop.end) - Math.max(from, stop.start)), 0);
  const length = to - from - stopped;
  const most = Math.max(...waits.map((wait) => wait.seconds), 1e-9);
  const same = (wait) => pinned && pinned.actor === wait.actor && pinned.for === wait.for;
  const act = (wait) => onPin(same(wait) ? null : { actor: wait.actor, for: wait.for });
  return html`<${Panel} title="Who waited for whom" data-testid="waits"
      help="A gap in a lane is charged to the work that had to end before it could: the actor on the right is the one to make faster.">
    ${part ? html`<p class="muted">Of the last ${seconds(to - from)} of the window, which was read in full; zoom in for others.</p>` : null}
    ${waits.length === 0 ? html`<${Empty} title="Nobody waited in this window." />` : null}
    <div class="wait-rows">
      ${waits.slice(0, 12).map(
        (wait) => html`<button type="button" key=${`${wait.actor}>${wait.for}`} aria-pressed=${Boolean(same(wait))} data-testid="wait"
          class=${`wait-row ${same(wait) ? "active" : ""}`} onClick=${() => act(wait)}
          onMouseEnter=${() => onHover(wait)} onMouseLeave=${() => onHover(null)} onFocus=${() => onHover(wait)} onBlur=${() => onHover(null)}>
          <span class="wait-who"><${Text} value=${wait.actor} inline /></span><span class="muted">for</span><span class="wait-who"><${Text} value=${wait.for} inline /></span>
          <span class="wait-bar"><i style=${{ width: `${(100 * wait.seconds) / most}%` }}></i></span>
          <span class="num">${seconds(wait.seconds)}</span>
          <span class="num muted">${length > 0 ? fmt.percent(wait.seconds / length, 0) : ""}</span>
        </button>`,
      )}
    </div>
  <//>`;
}

const MOST_STEPS = 8;

// What the steps in sight spent their time on, along their critical paths: one bar for each, on one scale.
export function StepTimes({ critical, view, step, onStep }) {
  const within = critical.filter((each) => each.end > view.from && each.end <= view.to + 1e-3);
  const shown = within.slice(-MOST_STEPS);
  if (!shown.length) return null;
  const longest = Math.max(...shown.map((each) => each.end - each.start));
  const more = within.length - shown.length;
  return html`<${Panel} title="What the steps took" data-testid="step-times"
      help="Along the critical path: each second is charged to the work that nothing could go on without.">
    ${more > 0 ? html`<p class="muted">The last ${shown.length} of ${within.length} steps in sight.</p>` : null}
    <div class="step-times">
      ${shown.map((each) => html`<${StepTime} key=${each.step} each=${each} longest=${longest} current=${each.step === step} onStep=${onStep} />`)}
    </div>
  <//>`;
}

function StepTime({ each, longest, current, onStep }) {
  const total = each.end - each.start;
  const told = each.seconds.filter((part) => part.seconds > 0.02 * total).slice(0, 3);
  const words = told.map((part) => `${part.kind} ${seconds(part.seconds)} (${part.actor})`).join(", ");
  return html`<button type="button" class=${`step-time ${current ? "active" : ""}`} onClick=${() => onStep(each.step)} data-testid="step-time" title=${words}>
    <span class="num">step ${each.step}</span>
    <span class="step-bar"><span class="step-parts" style=${{ width: `${(100 * total) / longest}%` }}>
      ${each.seconds.map((part) => html`<i key=${`${part.actor} ${part.kind}`} class=${`span-${part.kind}`} style=${{ flexGrow: `${part.seconds}` }}></i>`)}
    </span></span>
    <span class="num">${seconds(total)}</span>
    <span class="step-words muted"><${Text} value=${words} inline /></span>
  </button>`;
}

export function SpanPanel({ run, id, origin, onClose }) {
  const { data, error, stale } = useApi(id === null ? null : `/runs/${encodeURIComponent(run)}/spans/${id}`, ["rollouts"]);
  const span = stale ? null : data;
  const close = html`<${Button} kind="quiet" onClick=${onClose} aria-label="close the span">✕<//>`;
  if (id === null) return null; // an empty box would tell nothing
  return html`<${Panel} title="Span" actions=${close} data-testid="span-panel">
    <${Problem} error=${error} />
    ${span
      ? html`<div class="span-title"><${KindMark} kind=${span.kind} /><b>${span.kind}</b><span class="muted"><${Text} value=${span.actor} inline /></span></div>
          <${Facts} lines=${[...spanLines({ ...span, groups: null }, origin), ...extraLines(span.extra)]} />
          <${GroupLinks} run=${run} groups=${span.groups} ids=${span.ids} />`
      : null}
  <//>`;
}

function extraLines(extra) {
  return Object.entries(extra ?? {}).map(([name, value]) => [name.replaceAll("_", " "), fmt.plain(value)]);
}

// Groups that are in no table yet (still being trained, or rejected) are named without a link.
function GroupLinks({ run, groups, ids }) {
  const addresses = (groups ?? []).map(addressParts);
  const linked = new Set(addresses.map((parts) => parts[2]));
  const others = (ids ?? []).filter((id) => !linked.has(id));
  if (!addresses.length && !others.length) return null;
  return html`<div class="group-links" data-testid="span-groups">
    <div class="muted">${fmt.count(addresses.length + others.length)} ${addresses.length + others.length === 1 ? "group" : "groups"}</div>
    ${addresses.slice(0, MOST_LINKS).map(
      (parts) => html`<a key=${parts.join("/")} href=${href("group", parts, {}, run)}><${Text} value=${parts[2]} inline /></a>`,
    )}
    ${others.slice(0, MOST_LINKS).map((id) => html`<span class="muted" key=${id}><${Text} value=${id} inline /></span>`)}
  </div>`;
}
