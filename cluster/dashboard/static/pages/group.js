// One prompt and its G answers: side by side, clustered by answer, two of them compared; the prompt's past and future.

import { Badge, Button, Empty, fmt, html, Loading, Problem, Segmented, useEffect, useState } from "shoal/parts/ui.js";
import { isReport, useApi } from "shoal/frame/api.js";
import { addressParts, go, href, replaceParams } from "shoal/frame/route.js";
import { useKeys } from "shoal/frame/keys.js";
import { Text } from "shoal/parts/text.js";
import { Columns, ORDER_NAMES, ordered, TwoUp } from "shoal/rollouts/group_columns.js";
import { History, LedgerLife, lifeSpan } from "shoal/rollouts/group_history.js";

/** Sample indexes in a param like "0,3". */
export function indexes(text) {
  return (text ?? "").split(",").filter((word) => /^\d+$/.test(word)).map(Number);
}

function Clusters({ clusters, chosen, onChoose }) {
  return html`<div class="gr-clusters" role="group" aria-label="Answers" data-testid="clusters">
    ${clusters.map((cluster, i) => {
      const kind = cluster.num_correct > 0 ? (cluster.num_correct === cluster.count ? "right" : "mixed") : "wrong";
      return html`<button type="button" key=${i} class=${`gr-cluster ${kind} ${chosen === i ? "active" : ""}`} aria-pressed=${chosen === i}
        onClick=${() => onChoose(chosen === i ? null : i)} title=${`mean reward ${fmt.number(cluster.reward_mean)}, samples ${cluster.samples.join(", ")}`}>
        <b>${cluster.count}×</b>
        ${cluster.answer === null ? html`<i>no answer</i>` : html`<${Text} value=${cluster.answer} inline fold=${60} />`}
        <span aria-label=${kind}>${{ right: "✓", mixed: "±", wrong: "✗" }[kind]}</span>
      </button>`;
    })}
  </div>`;
}

function Prompt({ group }) {
  return html`<section class="gr-prompt">
    <div class="gr-question">
      <span class="tk-dim">prompt</span>
      <div class="ro-foreign" data-testid="question"><${Text} value=${group.question} fold=${2000} /></div>
      <details>
        <summary>as the model read it</summary>
        <div class="ro-foreign"><${Text} value=${group.prompt_text} /></div>
      </details>
    </div>
    <div class="gr-truth">
      <span class="tk-dim">truth</span>
      <div class="ro-foreign" data-testid="truth">
        ${group.truth === null ? html`<span class="tk-dim">none given</span>` : html`<${Text} value=${group.truth} fold=${400} />`}
      </div>
      <dl class="gr-meta">
        <dt>task</dt><dd><${Text} value=${group.task} inline /></dd>
        <dt>epoch</dt><dd>${group.epoch}</dd>
        <dt>sampled by</dt><dd><${Text} value=${group.worker} inline />${group.attempt > 1 ? `, attempt ${group.attempt}` : ""}</dd>
      </dl>
    </div>
  </section>`;
}

/** Flags that accuse the grader, not the model. */
const GRADER_FLAGS = new Set(["same_answer_different_reward", "truth_called_wrong", "not_scored"]);

/** What a person should look at, each as a sentence with its samples. */
function Flags({ flags, size }) {
  if (flags.length === 0) return null;
  return html`<ul class="gr-flags">
    ${flags.map(({ kind, text, samples }) => html`<li key=${kind + samples} data-testid="flag" data-kind=${kind}>
      <${Badge} state=${GRADER_FLAGS.has(kind) ? "alarm" : "watch"}>${kind.replaceAll("_", " ")}<//>
      <span>${text}</span>
      <span class="tk-dim">${samples.length === size ? "all samples" : `samples ${samples.map((index) => `#${index}`).join(", ")}`}</span>
    </li>`)}
  </ul>`;
}

function Head({ group, parts, stale, onGo }) {
  const trained = group.status === "trained";
  return html`<header class="ro-head">
    <nav class="ro-crumbs" aria-label="Where this is">
      <a href=${href("step", parts.slice(0, 2))}>${group.phase} step ${group.step}</a>
      <span aria-hidden="true">/</span>
      <b>group ${group.group_id}</b>
    </nav>
    ${group.phase === "train" ? html`<${Badge} state=${trained ? "ok" : "watch"}>${group.status}${group.reason ? `: ${group.reason}` : ""}<//>` : null}
    <span class="ro-steps">
      <${Button} disabled=${stale || !group.previous} onClick=${() => onGo(group.previous)} title="K">previous group<//>
      <${Button} disabled=${stale || !group.next} onClick=${() => onGo(group.next)} title="J">next group<//>
    </span>
  </header>`;
}

/** Where the group comes from: its prompt in other steps, and its life in this one. */
function Below({ group }) {
  return html`<div class="gr-below">
    <section class="gr-section">
      <h2>This prompt over time <span class="tk-dim">${group.history.length} ${group.history.length === 1 ? "group" : "groups"}, pass rate by step</span>
        ${isReport ? null : html`<a href=${href("rollouts", [], { filter: `uid="${group.uid}"`, sort: "step" })} data-testid="of-this-prompt">all answers to this question</a>
          <a href=${href("prompt", [group.uid], { right: [group.phase, group.step, group.group_id].join("/") })} data-testid="to-prompt">two steps or runs side by side</a>`}</h2>
      <${History} history=${group.history} current=${group} />
    </section>
    <section class="gr-section">
      <h2>
        Its life in the ledger
        ${lifeSpan(group.ledger) ? html`<a href=${href("timeline", [], lifeSpan(group.ledger))} data-testid="to-timeline">on the timeline (t)</a>` : null}
      </h2>
      <${LedgerLife} entries=${group.ledger} />
    </section>
  </div>`;
}

/** Keys of the page; `now` is what is on it. */
function bindings({ shown, current, setCurrent, chosen, choose, toggleDiff, group, onGo, linkParts, toggleFold }) {
  const move = (by) => {
    if (shown.length === 0) return false;
    const at = shown.findIndex((one) => one.sample_index === current);
    setCurrent(shown[Math.max(0, Math.min(shown.length - 1, at + by))].sample_index);
    return true;
  };
  return {
    j: [() => move(1), "next completion"],
    k: [() => move(-1), "previous completion"],
    Enter: [() => (current === null ? false : go("rollout", linkParts(current))), "open the completion's tokens"],
    x: [() => (current === null ? false : choose(current)), "choose the completion for the comparison"],
    c: [() => (chosen.length === 2 ? toggleDiff() : false), "compare the two chosen"],
    t: [() => (group && lifeSpan(group.ledger) ? go("timeline", [], lifeSpan(group.ledger)) : false), "the group on the timeline"],
    e: [toggleFold, "unfold the common beginning"],
    J: [() => onGo(group?.next), "next group"],
    K: [() => onGo(group?.previous), "previous group"],
  };
}

export default function GroupPage({ run, route }) {
  const { parts, params } = route;
  const address = parts.slice(0, 3);
  const { data: group, error, stale } = useApi(`/runs/${encodeURIComponent(run)}/groups/${address.map(encodeURIComponent).join("/")}`, ["rollouts", "ledger"]);
  const [current, setCurrent] = useState(null);
  const [open, setOpen] = useState(false);
  const order = ORDER_NAMES.includes(params.order) ? params.order : "sample";
  const chosen = indexes(params.pick);
  const cluster = group && /^\d+$/.test(params.cluster ?? "") ? Number(params.cluster) : null;
  const shown = group ? ordered(group.rollouts, order).filter((one) => cluster === null || one.cluster === cluster) : [];
  const pair = group && params.diff && chosen.length === 2 ? chosen.map((index) => group.rollouts.find((one) => one.sample_index === index)) : [];
  useEffect(() => setCurrent(null), [address.join("/")]);
  useEffect(() => {
    if (current === null) return;
    document.querySelector(`.gr-col[data-sample="${current}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [current]);

  const onGo = (to) => (to && !stale ? go("group", addressParts(to), { order: params.order }) : false);
  const linkParts = (index) => [...address, index];
  const linkOf = (rollout) => href("rollout", linkParts(rollout.sample_index));
  // The third choice takes the place of the older one, so that two are always enough.
  const choose = (index) => {
    const next = chosen.includes(index) ? chosen.filter((one) => one !== index) : [...chosen, index].slice(-2);
    replaceParams({ pick: next.join(","), diff: next.length === 2 ? params.diff : null });
  };
  const toggleDiff = () => replaceParams({ diff: params.diff ? null : 1 });
  const toggleFold = () => setOpen(!open);
  useKeys(bindings({ shown, current, setCurrent, chosen, choose, toggleDiff, group, onGo, linkParts, toggleFold }), "Group");

  if (!group) return error ? html`<${Problem} error=${error} />` : html`<${Loading} what="Reading the group" />`;
  const flagged = new Set(group.flags.filter((flag) => flag.kind === "same_answer_different_reward").flatMap((flag) => flag.samples));
  return html`<div class="gr-page" data-testid="group-page">
    <${Head} group=${group} parts=${address} stale=${stale} onGo=${onGo} />
    ${error ? html`<${Problem} error=${error} />` : null}
    <${Flags} flags=${group.flags} size=${group.rollouts.length} />
    <${Prompt} group=${group} />
    <div class="gr-bar">
      <${Clusters} clusters=${group.clusters} chosen=${cluster} onChoose=${(i) => replaceParams({ cluster: i })} />
      <span class="gr-bar-right">
        <${Segmented} label="Order of the columns" data-testid="order" options=${ORDER_NAMES} value=${order} onChange=${(name) => replaceParams({ order: name === "sample" ? null : name })} />
        <${Button} data-testid="diff" active=${pair.length === 2} disabled=${chosen.length !== 2} onClick=${toggleDiff}
          title="Choose two answers with ◇ compare (x), then see word by word where they differ (c)">${chosen.length === 2 ? `compare #${chosen[0]} and #${chosen[1]}` : `choose ${chosen.length ? "one more" : "two"} to compare`}<//>
      </span>
    </div>
    ${pair.length === 2 && pair.every(Boolean)
      ? html`<${TwoUp} left=${pair[0]} right=${pair[1]} linkOf=${linkOf} />`
      : shown.length
        ? html`<${Columns} rollouts=${shown} prefix=${group.common_prefix} open=${open} onToggle=${toggleFold} current=${current} chosen=${chosen}
            onChoose=${choose} onCurrent=${setCurrent} linkOf=${linkOf} flagged=${flagged} />`
        : html`<${Empty} title="No completion has this answer" />`}
    <${Below} group=${group} />
  </div>`;
}
