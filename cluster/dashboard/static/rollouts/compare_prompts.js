// One prompt in several runs: what each of them answers to it, side by side.

import { useApi } from "shoal/frame/api.js";
import { series as colourOf } from "shoal/parts/colours.js";
import { addressParts, href } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Empty, Panel, Problem, fmt, html, useState } from "shoal/parts/ui.js";

const ANSWERS_AT_FIRST = 4;

// prompts [{uid, question, runs: {run: {pass_rate, num_groups, last}}}], those that differ most first.
export function SharedPrompts({ runs, prompts, total, chosen, onChoose }) {
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const shown = wanted ? prompts.filter((prompt) => prompt.question.toLowerCase().includes(wanted) || prompt.uid.includes(wanted)) : prompts;
  const current = prompts.find((prompt) => prompt.uid === chosen);
  const field = html`<input class="field" type="search" placeholder="find in the questions" aria-label="find a prompt" value=${search}
    onInput=${(event) => setSearch(event.currentTarget.value)} data-testid="prompt-search" />`;
  return html`<${Panel} title="The same prompt" data-testid="shared-prompts" actions=${field}
      help="Prompts that all of these runs have trained on, the largest difference in pass rate first.">
    ${prompts.length === 0 ? html`<${Empty} title="No prompt is in all of these runs." />` : null}
    <div class="shared-prompts" role="listbox" aria-label="shared prompts">
      ${shown.map((prompt) => html`<${PromptRow} key=${prompt.uid} runs=${runs} prompt=${prompt} active=${prompt.uid === chosen}
        onChoose=${() => onChoose(prompt.uid === chosen ? null : prompt.uid)} />`)}
    </div>
    <p class="muted">${fmt.count(total)} prompts are in all of them${shown.length < total ? `, ${fmt.count(shown.length)} are listed` : ""}.</p>
    ${chosen && !current ? html`<${Empty} title="That prompt is not among those that are listed." />` : null}
    ${current
      ? html`<div class="beside" data-testid="beside">${runs.map((run, index) => html`<${Answers} key=${run} run=${run} index=${index} seen=${current.runs[run]} />`)}</div>`
      : null}
  <//>`;
}

function PromptRow({ runs, prompt, active, onChoose }) {
  return html`<button type="button" role="option" aria-selected=${active} class=${`shared-prompt ${active ? "active" : ""}`} onClick=${onChoose} data-testid="shared-prompt">
    <span class="prompt-question"><${Text} value=${prompt.question} inline /></span>
    <span class="rates">${runs.map((run, index) => html`<span class="rate" key=${run} title=${run}><i class="swatch" style=${{ background: colourOf(index) }}></i>
      ${fmt.percent(prompt.runs[run]?.pass_rate, 0)}</span>`)}</span>
  </button>`;
}

// What one run answered the last time that it had the prompt.
function Answers({ run, index, seen }) {
  const [all, setAll] = useState(false);
  const parts = seen ? addressParts(seen.last) : null;
  const { data, error } = useApi(parts ? `/runs/${encodeURIComponent(run)}/groups/${parts.map(encodeURIComponent).join("/")}` : null);
  const rollouts = data ? (all ? data.rollouts : data.rollouts.slice(0, ANSWERS_AT_FIRST)) : [];
  return html`<section class="answers" data-testid=${`answers-${run}`}>
    <header><i class="swatch" style=${{ background: colourOf(index) }}></i><b><${Text} value=${run} inline /></b>
      ${parts ? html`<a href=${href("group", parts, {}, run)}>step ${parts[1]}</a>` : null}
      <span class="muted">${seen ? `${fmt.percent(seen.pass_rate, 0)} of ${seen.num_groups} ${seen.num_groups === 1 ? "group" : "groups"}` : "never had it"}</span></header>
    <${Problem} error=${error} />
    ${rollouts.map((rollout) => html`<${Answer} key=${rollout.sample_index} run=${run} parts=${parts} rollout=${rollout} />`)}
    ${data && data.rollouts.length > ANSWERS_AT_FIRST
      ? html`<button type="button" class="link" onClick=${() => setAll(!all)} data-testid="all-answers">${all ? "show fewer" : `show all ${data.rollouts.length}`}</button>`
      : null}
  </section>`;
}

function Answer({ run, parts, rollout }) {
  const { sample_index: sample, correct } = rollout;
  const [sign, word] = correct === null ? ["○", "not judged"] : correct ? ["✓", "correct"] : ["✗", "wrong"];
  return html`<article class=${`answer ${correct === null ? "" : correct ? "correct" : "wrong"}`}>
    <header><a href=${href("rollout", [...parts, sample], {}, run)}>#${sample}</a><span class="verdict" title=${word} aria-label=${word}>${sign}</span>
      <span>reward ${fmt.number(rollout.reward)}</span><span class="muted">${fmt.count(rollout.length)} tokens${rollout.finish === "length" ? ", truncated" : ""}</span></header>
    <${Text} value=${rollout.text} fold=${1200} />
  </article>`;
}
