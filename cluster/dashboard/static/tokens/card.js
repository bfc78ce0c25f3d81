// The numbers of one token: the card at the pointer, the panel of the pinned token, and what the other completions of
// the group have at its position.

import { html, useEffect, useLayoutEffect, useRef, useState } from "shoal/parts/ui.js";
import { get } from "shoal/frame/api.js";
import { pieceNodes } from "shoal/tokens/flow.js";
import { trim } from "shoal/tokens/colours.js";
import { turnsOfTokens } from "shoal/tokens/math.js";

/** [{label, value, note}] of a token. Pure; values are text. */
export function facts(tokens, rollout, t) {
  const at = (array) => (array ? array[t] : null);
  const first = rollout.updates_per_batch > 1 ? ", first update" : ""; // the learner recorded that one alone
  const rows = [
    ["sampler log p", trim(at(tokens.sampler)), at(tokens.prob) === null ? "" : `p ${trim(at(tokens.prob))}`],
    [`learner log p${first}`, trim(at(tokens.learner)), at(tokens.learner) === null ? "" : `p ${trim(Math.exp(at(tokens.learner)))}`],
    ["gap", trim(at(tokens.gap)), at(tokens.k3) === null ? "" : `k3 ${trim(at(tokens.k3))}`],
    [`ratio${first}`, trim(at(tokens.ratio)), tokens.clipped ? (tokens.clipped[t] ? "clipped: no gradient" : "not clipped") : ""],
    ["entropy", trim(at(tokens.entropy)), at(tokens.entropy) === null ? "" : "nats"],
  ];
  if (tokens.reference) rows.push(["reference log p", trim(at(tokens.reference)), `k3 ${trim(at(tokens.kl))}`]);
  rows.push(["advantage", trim(rollout.advantage), ""]);
  if (tokens.credit) rows.push([`${rollout.objective?.clip ? "adds to objective" : "advantage × ratio"}${first}`, trim(at(tokens.credit)), tokens.mask[t] ? "" : "masked"]);
  return rows.map(([label, value, note]) => ({ label, value, note }));
}

function TokenFacts({ tokens, rollout, t }) {
  const rows = facts(tokens, rollout, t);
  return html`<div>
    <div class="tk-card-head">
      <span class="tk-card-piece">${pieceNodes(tokens.pieces ? tokens.pieces[t] : null, tokens.ids[t])}</span>
      <span class="tk-dim">
        id ${tokens.ids[t]} · position ${t}${tokens.version ? ` · v${tokens.version[t]}` : ""}${tokens.turns > 1 && tokens.turn[t] ? ` · turn ${tokens.turn[t]}` : ""}${tokens.turn[t] ? (tokens.mask[t] ? "" : " · not trained on") : " · said by the world"}
      </span>
    </div>
    <dl class="tk-facts">
      ${rows.map(
        ({ label, value, note }) => html`<dt>${label}</dt>
          <dd>${value}</dd>
          <dd class="tk-dim">${note}</dd>`,
      )}
    </dl>
  </div>`;
}

/** The floating card: below the token, above it where there is no room. Reads only: it never takes the pointer. */
export function TokenCard({ tokens, rollout, t, rect }) {
  const ref = useRef(null);
  useLayoutEffect(() => {
    const card = ref.current;
    const { width, height } = card.getBoundingClientRect();
    const below = rect.bottom + 6 + height < innerHeight;
    card.style.left = `${Math.max(8, Math.min(rect.left, innerWidth - width - 8))}px`;
    card.style.top = `${below ? rect.bottom + 6 : Math.max(8, rect.top - height - 6)}px`;
  });
  return html`<div ref=${ref} class="tk-card" role="tooltip" data-testid="token-card">
    <${TokenFacts} tokens=${tokens} rollout=${rollout} t=${t} />
  </div>`;
}

/** The pinned token, with the same position in the other completions on demand. */
export function PinnedToken({ tokens, rollout, run, t, onUnpin }) {
  return html`<section class="tk-side-part" data-testid="pinned-token" aria-live="polite">
    <h2>
      Token ${t}
      <button class="tk-link" onClick=${onUnpin} aria-label="Unpin the token">unpin</button>
    </h2>
    <${TokenFacts} tokens=${tokens} rollout=${rollout} t=${t} />
    <${SamePosition} tokens=${tokens} rollout=${rollout} run=${run} t=${t} />
  </section>`;
}

/** [{sample_index, reward, piece, id, prob, samePrefix}] of the others at position t; `piece` and `id` null beyond their end. */
export function samePosition(own, others, t) {
  return others.map((other) => {
    const ids = other.tokens.ids;
    let shared = 0;
    while (shared < t && shared < ids.length && ids[shared] === own.ids[shared]) shared++;
    const there = t < ids.length;
    const sampler = turnsOfTokens(other)[t] ? other.tokens.rollout_logprobs : null;
    return {
      sample_index: other.sample_index,
      reward: other.reward,
      id: there ? ids[t] : null,
      piece: there && other.tokens.pieces ? other.tokens.pieces[t] : null,
      prob: there && sampler && sampler[t] !== null && sampler[t] !== undefined ? Math.exp(sampler[t]) : null,
      samePrefix: shared >= t,
    };
  });
}

function SamePosition({ tokens, rollout, run, t }) {
  const [open, setOpen] = useState(false);
  const [others, setOthers] = useState(null);
  const [error, setError] = useState(null);
  const group = `/api/runs/${encodeURIComponent(run)}/rollouts/${rollout.phase}/${rollout.step}/${encodeURIComponent(rollout.group_id)}`;
  const indexes = rollout.siblings.map((one) => one.sample_index).filter((index) => index !== rollout.sample_index);
  useEffect(() => {
    if (!open) return undefined;
    let wanted = true;
    setOthers(null);
    setError(null);
    Promise.all(indexes.map((index) => get(`${group}/${index}`))).then(
      (found) => wanted && setOthers(found),
      (problem) => wanted && setError(problem.message),
    );
    return () => (wanted = false);
  }, [open, `${group}/${rollout.sample_index}`]);
  if (indexes.length === 0) return null;
  return html`<div class="tk-same">
    <button class="tk-link" data-testid="same-position" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      ${open ? "▾" : "▸"} same position in the other ${indexes.length}
    </button>
    ${open && error && html`<p class="tk-note">The other completions could not be read: ${error}</p>`}
    ${open && !error && !others && html`<p class="tk-note">reading …</p>`}
    ${open && others && html`<table class="tk-same-table" data-testid="same-position-table">
      <tbody>
        ${samePosition(tokens, others, t).map(
          (one) => html`<tr key=${one.sample_index} class=${one.samePrefix ? "" : "tk-dim"}>
            <td>#${one.sample_index}</td>
            <td class="tk-card-piece">${one.id === null ? html`<span class="tk-dim">ended</span>` : pieceNodes(one.piece, one.id)}</td>
            <td>${one.prob === null ? "" : `p ${trim(one.prob)}`}</td>
            <td>${one.samePrefix ? "same before" : "differs before"}</td>
            <td>reward ${trim(one.reward)}</td>
          </tr>`,
        )}
      </tbody>
    </table>`}
  </div>`;
}
