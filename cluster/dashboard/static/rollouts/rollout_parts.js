// What the pages of rollouts share: a reward as a mark, a strip of samples, a row of figures.

import { fmt, html } from "shoal/parts/ui.js";
import { Text } from "shoal/parts/text.js";

/** Reward with the judgement beside it: ✓ and ✗ tell without colour. */
export function RewardMark({ reward, correct }) {
  const kind = correct === null || correct === undefined ? "unjudged" : correct ? "right" : "wrong";
  const glyphs = { right: "✓", wrong: "✗", unjudged: "○" };
  const titles = { right: "correct", wrong: "not correct", unjudged: "not judged" };
  return html`<span class=${`ro-reward ${kind}`} title=${titles[kind]}>
    <span aria-label=${titles[kind]}>${glyphs[kind]}</span>${reward === null ? "not scored" : fmt.number(reward)}
  </span>`;
}

/** The completions of a group as small marks, one of them being shown now. */
export function SampleStrip({ samples, current, hrefOf }) {
  return html`<nav class="ro-strip" aria-label="Completions of the group" data-testid="samples">
    ${(samples ?? []).map(
      ({ sample_index: index, reward, correct }) => html`<a
        key=${index}
        href=${hrefOf(index)}
        aria-current=${index === current ? "page" : undefined}
        class=${correct === null ? "unjudged" : correct ? "right" : "wrong"}
        title=${`sample ${index}, reward ${fmt.number(reward)}`}
        >${index}</a
      >`,
    )}
  </nav>`;
}

/** Labelled figures in one row that wraps; items [[label, content]]. */
export function Facts({ items }) {
  return html`<dl class="ro-facts">
    ${items.map(([label, content]) => html`<div key=${label}><dt><${Text} value=${label} inline /></dt><dd>${typeof content === "string" ? html`<${Text} value=${content} inline />` : content}</dd></div>`)}
  </dl>`;
}
