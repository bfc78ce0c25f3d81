// One completion: its figures, then its tokens, its text, or everything as JSON.

import { Badge, Button, fmt, html, Loading, Problem, Tabs, useState } from "shoal/parts/ui.js";
import { get, useApi } from "shoal/frame/api.js";
import { addressParts, go, href } from "shoal/frame/route.js";
import { useKeys } from "shoal/frame/keys.js";
import { Text } from "shoal/parts/text.js";
import { TokenView } from "shoal/tokens/view.js";
import { Annotate } from "shoal/rollouts/annotate.js";
import { Conversation, episodeFacts } from "shoal/rollouts/conversation.js";
import { Rendered } from "shoal/rendered/view.js";
import { lifeSpan } from "shoal/rollouts/group_history.js";
import { Facts, RewardMark, SampleStrip } from "shoal/rollouts/rollout_parts.js";

const CONVERSATION = { id: "conversation", label: "Conversation" };
const VIEWS = [
  { id: "tokens", label: "Tokens" },
  { id: "text", label: "Text" },
  { id: "drawn", label: "Drawn" },
  { id: "raw", label: "Raw JSON" },
];

// Beyond loopback a page over http has no clipboard of its own; what is selected can still be copied.
function copySelected(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  field.style.position = "fixed";
  field.style.opacity = "0";
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied ? Promise.resolve() : Promise.reject(new Error("not copied"));
}

function CopyButton({ label, text }) {
  const [done, setDone] = useState("");
  const copy = () =>
    (navigator.clipboard ? navigator.clipboard.writeText(text) : copySelected(text)).then(
      () => setDone("copied"),
      () => setDone("the browser refused"),
    );
  return html`<${Button} onClick=${copy}>${label}${done ? html` <span class="tk-dim" role="status">${done}</span>` : null}<//>`;
}

function TextTab({ rollout }) {
  return html`<div class="ro-text" data-testid="text-tab">
    ${rollout.prompt_text === null ? null : html`<h2>Prompt, as the model read it</h2>
    <div class="ro-foreign"><${Text} value=${rollout.prompt_text} /></div>`}
    <h2>Completion</h2>
    <div class="ro-foreign"><${Text} value=${rollout.text} /></div>
    ${rollout.detail ? html`<h2>What the grader said</h2><div class="ro-foreign"><${Text} value=${rollout.detail} /></div>` : null}
  </div>`;
}

function RawTab({ rollout }) {
  const json = JSON.stringify(rollout, null, 1);
  return html`<div class="ro-text" data-testid="raw-tab">
    <div class="ro-actions">
      <${CopyButton} label="Copy JSON" text=${json} />
      <${CopyButton} label="Copy token ids" text=${JSON.stringify(rollout.tokens.ids)} />
      <${CopyButton} label="Copy prompt ids" text=${JSON.stringify(rollout.prompt_tokens.ids)} />
      <${CopyButton} label="Copy address" text=${addressOf(rollout).join("/")} />
    </div>
    <div class="ro-foreign"><${Text} value=${json} /></div>
  </div>`;
}

const addressOf = (rollout) => [rollout.phase, rollout.step, rollout.group_id, rollout.sample_index];

/** Where the completion stands; `beside(1)` goes to the next one, `beside(-1)` to the one before. */
function Head({ rollout, parts, kept, beside }) {
  return html`<header class="ro-head">
    <nav class="ro-crumbs" aria-label="Where this is">
      <a href=${href("step", [rollout.phase, rollout.step])}>${rollout.phase} step ${rollout.step}</a>
      <span aria-hidden="true">/</span>
      ${rollout.tokens ? html`<a href=${href("group", parts.slice(0, 3))} data-testid="to-group">group ${rollout.group_id}</a>` : html`<span>group ${rollout.group_id}</span>`}
      <span aria-hidden="true">/</span>
      <b>sample ${rollout.sample_index}</b>
    </nav>
    <${SampleStrip} samples=${rollout.siblings} current=${rollout.sample_index}
      hrefOf=${(index) => href("rollout", [...parts.slice(0, 3), index], kept)} />
    <span class="ro-steps">
      <${Button} disabled=${!rollout.previous} onClick=${() => beside(-1)} title="previous completion (k)">← previous<//>
      <${Button} disabled=${!rollout.next} onClick=${() => beside(1)} title="next completion (j)">next →<//>
    </span>
  </header>`;
}

function factsOf(rollout) {
  return [
    ["reward", html`<${RewardMark} reward=${rollout.reward} correct=${rollout.correct} />`],
    ...Object.entries(rollout.components ?? {}).map(([name, value]) => [name, fmt.number(value)]),
    ["advantage", fmt.number(rollout.advantage)],
    ["answer", rollout.answer === null ? "none" : html`<${Text} value=${rollout.answer} inline fold=${80} />`],
    ["truth", rollout.truth === null ? "none" : html`<${Text} value=${rollout.truth} inline fold=${80} />`],
    ["length", `${fmt.count(rollout.length)} tokens`],
    ...episodeFacts(rollout),
    ["finish", html`<${Badge} state=${rollout.finish === "stop" ? "ok" : "watch"}>${rollout.finish}<//>`],
    ["graded", html`<${Badge} state=${rollout.outcome === "ok" ? "ok" : "alarm"}>${rollout.outcome}<//> ${rollout.score_s === null ? "" : fmt.seconds(rollout.score_s)}`],
    ["entropy", fmt.number(rollout.entropy)],
    ["largest gap", fmt.number(rollout.max_gap)],
    ["k3", fmt.number(rollout.k3)],
    ["repetition", fmt.percent(rollout.repetition)],
    ["lag", rollout.lag === null ? "–" : fmt.number(rollout.lag)],
    ["by", `${[rollout.worker, rollout.reward_worker].filter(Boolean).join(", ")}${rollout.attempt > 1 ? `, attempt ${rollout.attempt}` : ""}`],
  ];
}

export default function RolloutPage({ run, route }) {
  const { parts, params } = route;
  const path = `/runs/${encodeURIComponent(run)}/rollouts/${parts.slice(0, 4).map(encodeURIComponent).join("/")}`;
  const { data: rollout, error, stale } = useApi(path, ["rollouts", "vocabulary", "annotations"]);
  const [refused, setRefused] = useState(null);
  const kept = { colour: params.colour, view: params.view };
  const to = (address) => (address ? go("rollout", addressParts(address), kept) : false);
  // By the address, not by the answer at hand: of two quick presses the second comes before the first one's answer.
  const beside = (by) => {
    const group = rollout?.group_id === parts[2] ? rollout.siblings : [];
    const next = group[group.findIndex((one) => String(one.sample_index) === parts[3]) + by];
    if (next) return go("rollout", [...parts.slice(0, 3), next.sample_index], kept);
    return stale ? false : to(by > 0 ? rollout?.next : rollout?.previous);
  };
  // A rollout knows the rollouts beside it; the group beside its own is asked for when somebody wants to go there.
  const withGroup = (act) => {
    const group = parts.slice(0, 3).map(encodeURIComponent).join("/");
    get(`/runs/${encodeURIComponent(run)}/groups/${group}`).then(act, (problem) => setRefused(problem));
  };
  const toGroup = (side) => withGroup((group) => group[side] && go("rollout", [...addressParts(group[side]), parts[3]], kept));
  const toTimeline = () => withGroup((group) => lifeSpan(group.ledger) && go("timeline", [], lifeSpan(group.ledger)));
  useKeys(
    {
      j: [() => beside(1), "next completion"],
      k: [() => beside(-1), "previous completion"],
      J: [() => toGroup("next"), "same sample of the next group"],
      K: [() => toGroup("previous"), "same sample of the previous group"],
      t: [toTimeline, "its group on the timeline"],
      u: [() => go("group", parts.slice(0, 3)), "up to the group"],
    },
    "Rollout",
  );
  if (!rollout) return error ? html`<${Problem} error=${error} />` : html`<${Loading} what="Reading the completion" />`;
  // In an exported report some completions have no more than their text.
  const ofTokens = rollout.tokens ? VIEWS : VIEWS.filter((one) => one.id === "text" || one.id === "drawn");
  const views = rollout.episode ? [CONVERSATION, ...ofTokens] : ofTokens;
  // Whoever asks for a colour or a token wants to see the tokens.
  const usual = rollout.episode && rollout.tokens && (params.colour || params.t) ? "tokens" : views[0].id;
  const view = views.some((one) => one.id === params.view) ? params.view : usual;
  const named = (id) => (id === "tokens" && !rollout.episode ? null : id);
  return html`<div class="ro-page" data-testid="rollout-page">
    <${Head} rollout=${rollout} parts=${parts} kept=${kept} beside=${beside} />
    <${Problem} error=${error ?? refused} />
    ${view === "conversation" ? null : html`<div class="ro-question"><span class="tk-dim">asked</span> <${Text} value=${rollout.question} fold=${400} /></div>`}
    <${Facts} items=${factsOf(rollout)} />
    <${Annotate} run=${run} address=${addressOf(rollout).join("/")} annotation=${rollout.annotation} />
    <${Tabs} label="Views of the completion" current=${view} data-testid="rollout-tabs"
      items=${views.map((one) => ({ ...one, href: href("rollout", parts, { ...params, view: named(one.id) }) }))} />
    ${view === "conversation" ? html`<${Conversation} rollout=${rollout} parts=${parts} params=${params} />` : null}
    ${view === "tokens" ? html`<${TokenView} rollout=${rollout} run=${run} params=${params} />` : null}
    ${view === "text" ? html`<${TextTab} rollout=${rollout} />` : null}
    ${view === "drawn" ? html`<${Rendered} text=${rollout.text} />` : null}
    ${view === "raw" ? html`<${RawTab} rollout=${rollout} />` : null}
  </div>`;
}
