// An episode as a conversation: what the model said, turn by turn, and what the world said to it.

import { Badge, Button, fmt, html, useState } from "shoal/parts/ui.js";
import { href } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";

const SHOWN_TURNS = 100;
const FOLD = 800;

/** The text of tokens from `start` to `end`; null where the run has no vocabulary. */
function spelled({ pieces }, start, end) {
  return pieces ? pieces.slice(start, end).join("") : null;
}

/** What stands between a turn and the next, of an older run that noted no words: as the model read it. */
function readBetween(rollout, turn, next) {
  if (!rollout.tokens || !next || next.start <= turn.end) return [];
  return [{ role: "world", name: "", text: spelled(rollout.tokens, turn.end, next.start) }];
}

/** [{turn, text, heard, tokens}] of an episode, words from its tokens where none were noted. Pure. */
export function turnsOf(rollout) {
  const { turns } = rollout.episode;
  return turns.map((turn, i) => {
    const noted = turn.text !== null;
    const own = rollout.tokens ? spelled(rollout.tokens, turn.start, turn.end) : null;
    return { ...turn, number: i + 1, text: noted ? turn.text : own, heard: noted ? turn.heard : readBetween(rollout, turn, turns[i + 1]), tokens: turn.end - turn.start };
  });
}

/** How the episode ended, as a badge: the world's own end is the good one, whatever its scores. */
export function EpisodeEnd({ outcome }) {
  const state = outcome === "done" ? "ok" : outcome === "failed" || outcome === "engine" ? "alarm" : "watch";
  return html`<${Badge} state=${state}><${Text} value=${outcome} inline /><//>`;
}

function Said({ role, name = "", text, children, ...rest }) {
  return html`<li class=${`cv-said ${role === "assistant" ? "cv-model" : "cv-world"}`} ...${rest}>
    <div class="cv-head"><b><${Text} value=${role === "assistant" ? "model" : role} inline /></b>${name ? html`<code><${Text} value=${name} inline /></code>` : null}${children}</div>
    <div class="cv-text">${text === null ? html`<span class="tk-dim">its words were not noted, and the run has no vocabulary</span>` : text === "" ? html`<span class="tk-dim">nothing</span>` : html`<${Text} value=${text} fold=${FOLD} />`}</div>
  </li>`;
}

function Turn({ turn, rollout, parts, params }) {
  const cut = turn.finish === "length";
  return html`<${Said} role="assistant" text=${turn.text} data-testid="turn">
      <span class="tk-dim">turn ${turn.number}</span>
      <span class="tk-dim">${fmt.count(turn.tokens)} token${turn.tokens === 1 ? "" : "s"}</span>
      ${turn.finish ? html`<span class=${cut ? "rl-cell-warn" : "tk-dim"} title=${cut ? "cut off at its limit of tokens" : "how the reply ended"}><${Text} value=${turn.finish} inline /></span>` : null}
      ${turn.calls.map(({ name, arguments: given }) => html`<span class="cv-call" title=${given}>calls <code><${Text} value=${name} inline fold=${60} /></code></span>`)}
      ${rollout.tokens ? html`<a class="cv-tokens" href=${href("rollout", parts, { ...params, view: "tokens", t: turn.start })} aria-label=${`tokens of turn ${turn.number}`}>tokens</a>` : null}
    <//>
    ${turn.heard.map((message) => html`<${Said} ...${message} data-testid="heard" />`)}`;
}

function Scores({ scores }) {
  const all = Object.entries(scores);
  if (!all.length) return html`<span class="tk-dim">no scores</span>`;
  return html`<span class="cv-scores" data-testid="scores">${all.map(([name, value]) => html`<span><${Text} value=${name} inline fold=${60} /> <b>${fmt.number(value)}</b></span>`)}</span>`;
}

export function Conversation({ rollout, parts, params }) {
  const { episode } = rollout;
  const [whole, setWhole] = useState(false);
  const turns = turnsOf(rollout);
  const shown = whole ? turns : turns.slice(0, SHOWN_TURNS);
  return html`<ol class="cv" data-testid="conversation">
    <${Said} role="opening" text=${episode.opening} data-testid="opening" />
    ${shown.map((turn) => html`<${Turn} key=${turn.number} turn=${turn} rollout=${rollout} parts=${parts} params=${params} />`)}
    ${turns.length ? null : html`<${Said} role="world" text=${rollout.text} data-testid="failure" />`}
    ${shown.length < turns.length ? html`<li><${Button} onClick=${() => setWhole(true)}>show all ${fmt.count(turns.length)} turns<//></li>` : null}
    <li class="cv-end" data-testid="episode-end">ended with <${EpisodeEnd} outcome=${episode.outcome} /> after ${turns.length} turn${turns.length === 1 ? "" : "s"} <${Scores} scores=${episode.scores} /></li>
  </ol>`;
}

/** [[label, content]] for the figures above a completion. */
export function episodeFacts({ episode, length, tokens }) {
  if (!episode) return [];
  const all = tokens ? tokens.ids.length : null;
  return [
    ["ended with", html`<${EpisodeEnd} outcome=${episode.outcome} />`],
    ["turns", fmt.count(episode.turns.length)],
    ...(episode.num_tool_calls ? [["tool calls", fmt.count(episode.num_tool_calls)]] : []),
    ["the world said", all === null ? "–" : `${fmt.count(all - length)} tokens`],
    ...(episode.num_attempts > 1 ? [["worlds", `${fmt.count(episode.num_attempts)}, the others failed`]] : []),
    ...(episode.seconds === null ? [] : [["took", `${fmt.seconds(episode.seconds)}, ${fmt.seconds(episode.world_s)} of it the world`]]),
    ["scores", html`<${Scores} scores=${episode.scores} />`],
  ];
}
