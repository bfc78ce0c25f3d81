// One prompt over the steps of this run and of others: how it fared, and two of its answers side by side with a diff.

import { useApi } from "shoal/frame/api.js";
import { href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Empty, Loading, Panel, Problem, fmt, html } from "shoal/parts/ui.js";
import { TwoUp } from "shoal/rollouts/group_columns.js";
import { History } from "shoal/rollouts/group_history.js";

const keyOf = ({ phase, step, group_id: group }) => [phase, step, group].join("/");
const apiOf = (run, rest) => `/runs/${encodeURIComponent(run)}/${rest}`;

/** One side: what is known of the prompt in a run, and the completion that is chosen, else `usual` of its groups. */
function useSide({ run, uid, chosen, usual }) {
  const prompt = useApi(apiOf(run, `prompts/${encodeURIComponent(uid)}`), ["rollouts"]);
  const history = prompt.stale ? [] : (prompt.data?.history ?? []);
  const [wanted, sample] = [chosen.split("/").slice(0, 3).join("/"), Number(chosen.split("/")[3])];
  const visit = history.find((one) => keyOf(one) === wanted) ?? history.at(usual);
  const group = useApi(visit ? apiOf(run, `groups/${[visit.phase, visit.step, visit.group_id].map(encodeURIComponent).join("/")}`) : null, ["rollouts"]);
  const rollouts = visit && !group.stale ? (group.data?.rollouts ?? []) : [];
  return { run, prompt, history, visit, rollouts, rollout: rollouts.find((one) => one.sample_index === sample) ?? rollouts[0], error: prompt.error ?? group.error };
}

/** Which completion stands on a side; `name` is that of its two params. */
function Choice({ side, name, runs, label }) {
  const { run, history, visit, rollouts, rollout } = side;
  return html`<fieldset class="prompt-choice" data-testid=${`choice-${name}`}>
    <legend>${label}</legend>
    <label>run <select value=${run} data-testid=${`${name}-run`} onChange=${(event) => replaceParams({ [`${name}_run`]: event.currentTarget.value, [name]: null })}>
      ${runs.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
    </select></label>
    <label>group <select value=${visit ? keyOf(visit) : ""} disabled=${!history.length} data-testid=${`${name}-visit`} onChange=${(event) => replaceParams({ [name]: event.currentTarget.value })}>
      ${history.map((each) => html`<option key=${keyOf(each)} value=${keyOf(each)}>${each.phase} step ${each.step}, ${each.pass_rate === null ? "not judged" : `${fmt.percent(each.pass_rate)} right`}</option>`)}
    </select></label>
    <label>sample <select value=${rollout?.sample_index ?? ""} disabled=${!rollout} data-testid=${`${name}-sample`} onChange=${(event) => replaceParams({ [name]: `${keyOf(visit)}/${event.currentTarget.value}` })}>
      ${rollouts.map((each) => html`<option key=${each.sample_index} value=${each.sample_index}>#${each.sample_index}, reward ${fmt.number(each.reward)}</option>`)}
    </select></label>
  </fieldset>`;
}

export default function PromptPage({ run, route, frame }) {
  const [uid = ""] = route.parts;
  const { params } = route;
  const left = useSide({ run: params.left_run || run, uid, chosen: params.left ?? "", usual: 0 });
  const right = useSide({ run: params.right_run || run, uid, chosen: params.right ?? "", usual: -1 });
  const known = useApi("/runs").data?.runs.map((info) => info.run) ?? [];
  const runs = [...new Set([run, left.run, right.run, ...known])];
  const own = left.run === run ? left : right.run === run ? right : null;
  if (!left.prompt.data && !left.error) return html`<div class="page"><${Loading} index=${frame?.index} /></div>`;
  const question = left.prompt.data?.question || right.prompt.data?.question || "";
  const of = (side) => (side === left ? "left" : "right");
  const missing = [left, right].filter((side) => side.error?.status === 404);
  return html`<div class="page" data-testid="prompt-page">
    <${Panel} title="The question"><p><${Text} value=${question} fold=${1000} /></p>${own?.history.length ? html`<${History} history=${own.history} current=${own.visit ?? {}} />` : null}<//>
    <div class="prompt-choices"><${Choice} side=${left} name="left" runs=${runs} label="left" /><${Choice} side=${right} name="right" runs=${runs} label="right" /></div>
    ${[left, right].filter((side) => side.error && side.error.status !== 404).map((side) => html`<${Problem} error=${side.error} />`)}
    ${missing.length ? html`<${Empty} title=${`The run on the ${missing.map(of).join(" and the ")} was never asked this.`} />` : null}
    ${left.rollout && right.rollout
      ? html`<${TwoUp} left=${{ ...left.rollout, side: "left" }} right=${{ ...right.rollout, side: "right" }}
          linkOf=${(one) => { const side = one.side === "left" ? left : right; return href("rollout", [side.visit.phase, side.visit.step, side.visit.group_id, one.sample_index], {}, side.run); }}
          titleOf=${(one) => { const side = one.side === "left" ? left : right; return `${side.run === run && left.run === right.run ? "" : `${side.run}, `}${side.visit.phase} step ${side.visit.step} #${one.sample_index}`; }} />`
      : null}
  </div>`;
}
