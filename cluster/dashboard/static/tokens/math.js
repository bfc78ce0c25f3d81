// The numbers of one completion's tokens, derived from the arrays of the rollout's API answer. Pure functions.
//
// Every returned array has one entry for each token: a number, or null where it cannot be told.

const MAX_LOG_RATIO = 20; // as in the loss: beyond it the ratio is cut off

/** An array of the answer, or null where the run has none of that length (the learner computed none, or an older run). */
function column(values, length) {
  return Array.isArray(values) && values.length === length && length > 0 ? values : null;
}

function zip(a, b, f) {
  if (!a || !b) return null;
  return a.map((x, i) => (x === null || b[i] === null ? null : f(x, b[i])));
}

const limited = (d) => Math.max(-MAX_LOG_RATIO, Math.min(MAX_LOG_RATIO, d));

/** [count] of an answer: the number of the turn that sampled each token, from 1; 0 for what the world of an episode said.
 *  A single answer is one turn. */
export function turnsOfTokens(rollout) {
  if (!rollout.episode) return rollout.tokens.ids.map(() => 1);
  const found = rollout.tokens.ids.map(() => 0);
  rollout.episode.turns.forEach(({ start, end }, i) => found.fill(i + 1, Math.max(0, start), Math.max(0, end)));
  return found;
}

/** {count, ids, pieces, turn, turns, sampler, learner, reference, entropy, mask, version, gap, ratio, prob, kl, k3, credit, clipped}.
 *  Arrays of [count], or null where the run did not record what they need. Log-probabilities in nats. */
export function deriveTokens(rollout) {
  const t = rollout.tokens;
  const count = t.ids.length;
  const turn = turnsOfTokens(rollout);
  // What the world said has no probability of the sampler's, and is in no figure.
  const sampled = (values) => values && values.map((value, i) => (turn[i] ? value : null));
  const sampler = sampled(column(t.rollout_logprobs, count));
  const learner = sampled(column(t.policy_logprobs, count));
  const reference = sampled(column(t.ref_logprobs, count));
  const mask = column(t.loss_mask, count) ?? t.ids.map(() => true);
  const gap = zip(learner, sampler, (l, s) => l - s);
  const ratio = gap && gap.map((d) => (d === null ? null : Math.exp(limited(d))));
  const advantage = rollout.advantage;
  const clip = rollout.objective?.clip;
  const kl = zip(reference, learner, (r, l) => Math.expm1(limited(r - l)) - limited(r - l));
  const isTrained = ratio !== null && advantage !== null && advantage !== undefined;
  return {
    count,
    ids: t.ids,
    pieces: column(t.pieces, count),
    turn,
    turns: rollout.episode ? rollout.episode.turns.length : 1,
    sampler,
    learner,
    reference,
    entropy: sampled(column(t.entropies, count)),
    mask,
    version: column(t.versions, count),
    gap,
    ratio,
    prob: sampler && sampler.map((s) => (s === null ? null : Math.exp(s))),
    kl,
    k3: gap && gap.map((d) => (d === null ? null : Math.expm1(limited(d)) - d)),
    credit: isTrained ? creditOf(ratio, kl, mask, rollout) : null,
    clipped: isTrained && clip ? ratio.map((r, i) => mask[i] && r !== null && isClipped(advantage, r, ...clip)) : null,
  };
}

/** [count] what each token adds to the objective: its surrogate less the KL term. Null where the KL term is not known. Of
 *  a run with another objective (no clip is told): advantage x ratio. */
function creditOf(ratio, kl, mask, rollout) {
  const { clip, kl_coef: coef = 0 } = rollout.objective ?? {};
  const beta = clip ? coef : 0;
  if (beta > 0 && !kl) return null;
  return ratio.map((r, i) => {
    if (!mask[i]) return r === null ? null : 0;
    if (r === null || (beta > 0 && kl[i] === null)) return null;
    if (!clip) return rollout.advantage * r;
    return surrogate(rollout.advantage, r, ...clip) - (beta > 0 ? beta * kl[i] : 0);
  });
}

/** The token's part of the objective for the reward: the smaller of advantage x ratio and advantage x clipped ratio. */
export function surrogate(advantage, ratio, low, high) {
  return Math.min(advantage * ratio, advantage * Math.max(low, Math.min(high, ratio)));
}

/** Whether the clipped branch is the smaller one: the token then has no gradient. */
export function isClipped(advantage, ratio, low, high) {
  return (advantage > 0 && ratio > high) || (advantage < 0 && ratio < low);
}

/** First positions of each run of equal versions, without position 0: where new weights began to speak. */
export function versionSeams(versions) {
  if (!versions) return [];
  const seams = [];
  for (let i = 1; i < versions.length; i++) if (versions[i] !== versions[i - 1]) seams.push(i);
  return seams;
}

/** Positions of the `limit` tokens that stand out most by `score`, highest first; scores that are null or 0 are left out. */
export function topPositions(count, score, limit) {
  const found = [];
  for (let i = 0; i < count; i++) {
    const value = score(i);
    if (value > 0) found.push([value, i]);
  }
  found.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  return found.slice(0, limit).map(([, i]) => i);
}

/** Running sum; null entries add nothing. */
export function cumulative(values) {
  let sum = 0;
  return values.map((value) => (sum += value ?? 0));
}

/** [[start, end), ...) blocks of about `size` tokens, cut after a line break near there where there is one, so that
 *  blocks look like paragraphs. */
export function blocks(count, pieces, size = 200) {
  const out = [];
  let start = 0;
  while (start < count) {
    let end = Math.min(count, start + size);
    if (pieces && end < count) {
      for (let i = end; i > start + size / 2; i--) {
        if (pieces[i - 1].endsWith("\n")) {
          end = i;
          break;
        }
      }
    }
    out.push([start, end]);
    start = end;
  }
  return out;
}

const SPECIAL = /^(<\|[^\n]*\|>|<\/?(s|pad|unk|bos|eos|mask|think|tool_call|endoftext)>|\[(PAD|UNK|CLS|SEP|MASK|BOS|EOS)\])$/i;
const BYTE = /^<0x[0-9A-F]{2}>$/;

/** "byte" for a token that is no whole character, "special" for control tokens of the vocabulary, else "text". */
export function pieceKind(piece) {
  if (BYTE.test(piece)) return "byte";
  return SPECIAL.test(piece) ? "special" : "text";
}
