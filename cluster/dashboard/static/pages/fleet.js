// Fleet: a card for each actor.

import { usePacedApi } from "shoal/frame/paced.js";
import { href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Badge, Empty, Loading, Problem, Segmented, Spark, fmt, html, useEffect, useState } from "shoal/parts/ui.js";

// State -> [glyph, how it is coloured, what it means].
const STATES = {
  busy: ["●", "ok", "worked in the last minute"],
  idle: ["○", "none", "has nothing to do"],
  ended: ["■", "none", "the run is over"],
  HEALTHY: ["●", "ok", "answers"],
  SUSPECT: ["▲", "watch", "failed, or was late to answer: gets no new work"],
  STALE: ["▲", "watch", "has not verified the newest weights, serves nothing"],
  RESTARTING: ["↻", "watch", "is being started again"],
  DEAD: ["✖", "alarm", "was given up"],
};
const UNKNOWN = ["○", "none", ""];

export default function FleetPage({ run, route, frame }) {
  const { data, error } = usePacedApi(`/runs/${encodeURIComponent(run)}/fleet`, ["events", "ledger", "summary", "metrics"]);
  const live = frame?.info?.status === "live";
  useClock(live);
  const order = route.params.order === "trouble" ? "trouble" : "role";
  if (!data) return html`<div class="page"><${Problem} error=${error} />${error ? null : html`<${Loading} index=${frame?.index} />`}</div>`;
  const actors = order === "trouble" ? [...data.actors].sort((a, b) => trouble(b) - trouble(a)) : data.actors;
  const fastest = fastestByRole(data.actors);
  return html`<div class="page">
    <${Problem} error=${error} />
    <div class="toolbar fleet-bar">
      <${Roles} actors=${data.actors} /><${Restarts} restarts=${data.restarts} /><span class="spring"></span>
      <${Segmented} label="order" value=${order} data-testid="fleet-order" onChange=${(value) => replaceParams({ order: value === "role" ? null : value })}
        options=${[{ value: "role", label: "by role" }, { value: "trouble", label: "trouble first" }]} />
    </div>
    ${actors.length === 0 ? html`<${Empty} title="No actor has written anything yet." />` : null}
    <div class="fleet" data-testid="fleet">
      ${actors.map((actor) => html`<${Actor} key=${actor.actor} run=${run} actor=${actor} fastest=${fastest.get(actor.role)} live=${live} />`)}
    </div>
  </div>`;
}

// Redraws every second while the run is live, for the "ago"s.
function useClock(live) {
  const [, tick] = useState(0);
  useEffect(() => {
    if (!live) return undefined;
    const timer = setInterval(() => tick((count) => count + 1), 1000);
    return () => clearInterval(timer);
  }, [live]);
}

function stateOf(actor) {
  return STATES[actor.state] ?? UNKNOWN;
}

function trouble(actor) {
  const weight = { alarm: 4, watch: 2 }[stateOf(actor)[1]] ?? 0;
  return weight + (actor.last_error ? 3 : 0) + Math.min(1, actor.restarts / 10) + Math.min(0.5, actor.retried / 100);
}

// Role -> tokens per second of its fastest actor, for roles that have several that differ.
function fastestByRole(actors) {
  const fastest = new Map();
  for (const { role, tokens_per_s: rate } of actors) {
    if (rate) fastest.set(role, Math.max(rate, fastest.get(role) ?? 0));
  }
  for (const [role, rate] of fastest) {
    if (actors.every((actor) => actor.role !== role || actor.tokens_per_s === rate)) fastest.delete(role);
  }
  return fastest;
}

// One line that says how the parts of the system fare: "2 samplers: 520 to 1830 tokens/s".
function Roles({ actors }) {
  const roles = [...new Set(actors.map((actor) => actor.role))];
  return html`<span class="fleet-roles" data-testid="fleet-roles">${roles.map((role) => {
    const own = actors.filter((actor) => actor.role === role);
    const rates = own.map((actor) => actor.tokens_per_s).filter((rate) => rate !== null && rate !== undefined && rate > 0);
    const [low, high] = [Math.min(...rates), Math.max(...rates)];
    const speed = rates.length === 0 ? "" : low === high ? `${fmt.number(high)} tokens/s` : `${fmt.number(low)} to ${fmt.number(high)} tokens/s`;
    return html`<span key=${role}><b>${own.length}</b> <${Text} value=${own.length > 1 ? `${role}s` : role} inline /> <span class="muted">${speed}</span></span>`;
  })}</span>`;
}

// All actors share one budget of restarts; what a run that was resumed used before does not count.
function Restarts({ restarts: { used, most } }) {
  if (!used) return null;
  return html`<${Badge} state=${used >= most ? "alarm" : "watch"} title="recovery.max_restarts; one more failure than that ends the run"
    data-testid="fleet-restarts">${fmt.count(used)} of ${fmt.count(most)} restarts used<//>`;
}

function Actor({ run, actor, fastest, live }) {
  const [sign, colour, meaning] = stateOf(actor);
  const { tokens_per_s: rate, policy_version: version } = actor;
  return html`<section class=${`panel actor ${colour}`} data-testid=${`actor-${actor.actor}`} aria-label=${actor.actor}>
    <header>
      <span class="glyph" aria-hidden="true">${sign}</span><h2><${Text} value=${actor.actor} inline /></h2>
      <span class="actor-state" title=${meaning} data-testid="actor-state"><${Text} value=${actor.state} inline /></span><span class="spring"></span>
      ${version === null || version === undefined ? null : html`<span class="actor-version" title="version of its weights">version ${version}</span>`}
    </header>
    <div class="actor-rate">
      <div>${rate
        ? html`<span class="actor-number">${fmt.number(rate)}</span><span class="muted"> tokens/s</span>`
        : html`<span class="actor-number">${fmt.count(actor.groups)}</span><span class="muted"> groups</span>`}</div>
      <${Spark} values=${actor.spark ?? []} width=${140} height=${36} />
    </div>
    <${Meter} label="busy" share=${actor.busy} text=${fmt.percent(actor.busy, 0)} />
    ${fastest && rate ? html`<${Meter} label="speed" share=${rate / fastest} text=${`${fmt.percent(rate / fastest, 0)} of the fastest`} />` : null}
    <dl class="actor-facts">
      <${Fact} name="groups" value=${fmt.count(actor.groups)} />
      <${Fact} name="restarts" value=${fmt.count(actor.restarts)} loud=${actor.restarts > 0} />
      <${Fact} name="retried" value=${fmt.count(actor.retried)} loud=${actor.retried > 0} />
      <${Fact} name="last event" value=${lastEvent(actor.last_event, live)} />
    </dl>
    <${Leases} actor=${actor} live=${live} />
    <${Changes} actor=${actor} />
    <div class="actor-error">${actor.last_error ? html`<span class="glyph" aria-hidden="true">✖</span><${Text} value=${actor.last_error} fold=${240} />` : null}</div>
    <footer><a href=${href("timeline", [], {}, run)}>timeline</a>
      ${actor.role === "sampler" ? html`<a href=${href("rollouts", [], { filter: `worker=${quoted(actor.actor)}` }, run)}>its rollouts</a>` : null}</footer>
  </section>`;
}

function Leases({ actor, live }) {
  const { leases, num_leases: number } = actor;
  if (!number) return null;
  return html`<div class="actor-list" data-testid="actor-leases"><h3>${live ? "holds" : "held"} ${fmt.count(number)} ${number === 1 ? "lease" : "leases"}</h3>
    <ul>${leases.map((lease) => html`<li key=${lease.group_id}><${Text} value=${lease.group_id} inline /><span class="muted"> attempt ${lease.attempt}${lease.deadline_s ? `, ${until(lease.deadline_s, live)}` : ""}</span></li>`)}
    ${number > leases.length ? html`<li class="muted">and ${fmt.count(number - leases.length)} more</li>` : null}</ul></div>`;
}

function until(deadline, live) {
  if (!live || deadline * 1000 > Date.now()) return `until ${fmt.time(deadline)}`;
  return `ran out ${fmt.time(deadline)}`;
}

// How it came to its state, the newest first.
function Changes({ actor }) {
  const { changes, num_changes: number } = actor;
  if (!number) return null;
  return html`<div class="actor-list" data-testid="actor-changes"><h3>${fmt.count(number)} ${number === 1 ? "change" : "changes"} of state</h3>
    <ul>${changes.map((change, index) => html`<li key=${index} title=${stateOf(change)[2]}>
      <span class="muted">${fmt.time(change.time_s)}${change.step === null ? "" : ` step ${change.step}`}</span> <b><${Text} value=${change.state} inline /></b>
      ${change.reason ? html` <${Text} value=${change.reason} fold=${200} />` : null}</li>`)}</ul></div>`;
}

function quoted(word) {
  return /^[\w.-]+$/.test(word) ? word : `"${word.replace(/(["\\])/g, "\\$1")}"`;
}

function lastEvent(event, live) {
  if (!event) return "none";
  return `${event.kind}, ${live ? fmt.ago(event.end_s) : fmt.time(event.end_s)}`;
}

function Fact({ name, value, loud = false }) {
  return html`<div class=${loud ? "loud" : ""}><dt>${name}</dt><dd>${value}</dd></div>`;
}

function Meter({ label, share, text }) {
  return html`<div class="meter"><span class="muted">${label}</span>
    <span class="meter-bar"><i style=${{ width: `${100 * Math.min(1, Math.max(0, share ?? 0))}%` }}></i></span><span class="num">${text}</span></div>`;
}
