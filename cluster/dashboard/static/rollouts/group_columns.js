// The completions of a group side by side: what all begin with folded away, where they part marked; or two of them
// with their differences.

import { Badge, fmt, html, useMemo } from "shoal/parts/ui.js";
import { Text } from "shoal/parts/text.js";
import { diffTexts } from "shoal/parts/diff.js";
import { RewardMark } from "shoal/rollouts/rollout_parts.js";

const MIN_FOLD = 24; // a shorter beginning is shown: folding it would take as much room

const ORDERS = {
  sample: (a, b) => a.sample_index - b.sample_index,
  reward: (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || a.sample_index - b.sample_index,
  advantage: (a, b) => (b.advantage ?? -Infinity) - (a.advantage ?? -Infinity) || a.sample_index - b.sample_index,
  length: (a, b) => a.length - b.length || a.sample_index - b.sample_index,
};
export const ORDER_NAMES = Object.keys(ORDERS);

/** The completions in the order named (by sample where the name is unknown). */
export function ordered(rollouts, name) {
  return [...rollouts].sort(ORDERS[name] ?? ORDERS.sample);
}

/** The head of a column: sample, reward, and the figures by which people compare; `apart` where the grader gave the same
 *  answer another reward elsewhere. */
export function ColumnHead({ rollout, link, title, apart, children }) {
  const components = Object.entries(rollout.components ?? {});
  return html`<header class="gr-col-head">
    <div class="gr-col-title">
      <a href=${link} data-testid="to-tokens" title="token by token">${title ?? `#${rollout.sample_index}`}</a>
      <${RewardMark} reward=${rollout.reward} correct=${rollout.correct} />
      <span class=${`gr-adv ${rollout.advantage > 0 ? "up" : rollout.advantage < 0 ? "down" : ""}`} title="How much better than the group's mean reward: above 0 its tokens are made more likely, below 0 less">
        advantage ${rollout.advantage > 0 ? "+" : ""}${fmt.number(rollout.advantage)}
      </span>
      <span class="gr-col-actions">${children}</span>
    </div>
    <div class="gr-col-facts">
      <span>${fmt.count(rollout.length)} tokens</span>
      ${rollout.turns === null || rollout.turns === undefined ? null : html`<span>${fmt.count(rollout.turns)} turn${rollout.turns === 1 ? "" : "s"}, ended with <${Text} value=${rollout.episode_outcome} inline /></span>`}
      ${apart ? html`<${Badge} state="alarm" title="the same answer as another, and another reward">graded apart<//>` : null}
      ${rollout.finish === "stop" ? null : html`<${Badge} state="watch">${rollout.finish}<//>`}
      ${rollout.outcome === "ok" ? null : html`<${Badge} state="alarm">${rollout.outcome}<//>`}
      ${components.length > 1 || components.some(([, value]) => value !== rollout.reward)
        ? components.map(([name, value]) => html`<span key=${name}><${Text} value=${name} inline />${" "}<span class="figure">${fmt.number(value)}</span></span>`)
        : null}
      ${rollout.max_gap === null ? null : html`<span title="largest gap of its tokens">gap ${fmt.number(rollout.max_gap)}</span>`}
    </div>
    <div class="gr-answer">
      <span class="tk-dim">answer</span>
      ${rollout.answer === null ? html`<span class="tk-dim">none</span>` : html`<${Text} value=${rollout.answer} inline fold=${120} />`}
    </div>
    ${rollout.detail ? html`<div class="gr-detail"><${Text} value=${rollout.detail} fold=${200} /></div>` : null}
  </header>`;
}

/** A completion's text with the common beginning folded, or dimmed while it is unfolded. */
function Body({ text, prefix, open, onToggle }) {
  const [before, after] = [text.slice(0, prefix), text.slice(prefix)];
  const count = prefix;
  return html`<div class="gr-body">
    ${count >= MIN_FOLD && !open
      ? html`<button type="button" class="gr-fold" data-testid="unfold" onClick=${onToggle} title="show what all of them begin with">
          ⋯ ${fmt.count(count)} characters in common
        </button>`
      : html`<span class="gr-common" onClick=${count >= MIN_FOLD ? onToggle : undefined}><${Text} value=${before} /></span>`}
    ${count > 0 ? html`<span class="gr-parting" data-testid="divergence" title=${`they part after ${count} characters`}>‸</span>` : null}
    ${after ? html`<${Text} value=${after} />` : html`<span class="tk-dim">(nothing more)</span>`}
  </div>`;
}

/** Props: rollouts in order, prefix (characters in common), open and onToggle of the fold, current and chosen sample
 *  indexes, onChoose(index), onCurrent(index), linkOf(rollout), titleOf(rollout), flagged (set of sample indexes).
 *  Without onChoose there is nothing to choose, without onCurrent no current one; pinned ones may share an index. */
export function Columns({ rollouts, prefix, open, onToggle, current, chosen, onChoose, onCurrent, linkOf, titleOf, flagged }) {
  return html`<div class="gr-columns" data-testid="columns" role="group" aria-label="Completions side by side">
    ${rollouts.map((rollout) => {
      const index = rollout.sample_index;
      const names = ["gr-col", index === current ? "current" : "", chosen.includes(index) ? "chosen" : "", flagged.has(index) ? "flagged" : ""];
      return html`<article key=${linkOf(rollout)} class=${names.filter(Boolean).join(" ")} data-testid="column" data-sample=${index} onClick=${() => onCurrent?.(index)}>
        <${ColumnHead} rollout=${rollout} link=${linkOf(rollout)} title=${titleOf && titleOf(rollout)} apart=${flagged.has(index)}>
          ${onChoose
            ? html`<button type="button" class="gr-choose" aria-pressed=${chosen.includes(index)}
                title="Choose two answers to see word by word where they differ (x)" onClick=${() => onChoose(index)}><span aria-hidden="true">${chosen.includes(index) ? "◆" : "◇"} </span>compare<span class="visually-hidden"> sample ${index}</span></button>`
            : null}
        <//>
        <${Body} text=${rollout.text} prefix=${prefix} open=${open} onToggle=${onToggle} />
      </article>`;
    })}
  </div>`;
}

/** Two completions with what only the left has, and what only the right has, marked. */
export function TwoUp({ left, right, linkOf, titleOf }) {
  const parts = useMemo(() => diffTexts(left.text, right.text), [left.text, right.text]);
  const side = (rollout, own, other) => html`<article class="gr-col" data-testid=${`diff-${own}`}>
    <${ColumnHead} rollout=${rollout} link=${linkOf(rollout)} title=${titleOf && titleOf(rollout)} />
    <div class="gr-body">
      ${parts
        .filter(({ kind }) => kind !== other)
        .map(({ kind, text }, i) =>
          kind === "same" ? html`<${Text} key=${i} value=${text} />` : html`<mark key=${i} class=${`df-${kind}`}><${Text} value=${text} /></mark>`,
        )}
    </div>
  </article>`;
  return html`<div class="gr-twoup" data-testid="twoup">${side(left, "left", "right")}${side(right, "right", "left")}</div>`;
}
