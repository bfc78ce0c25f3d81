// How tokens are coloured: six modes, each with its definition in words, its scale and its levels.
//
// A level is an integer: -8..8 for the signed mode (0 = no fill), 0..8 for the others; the class of a level is
// defined in rollouts.css for both themes, so that changing the theme draws nothing anew.

import { topPositions, versionSeams } from "shoal/tokens/math.js";

export const LEVELS = 8;
const NO_LEARNER = "The learner computed no log-probabilities for this completion";
const NO_REFERENCE = "The learner computed no reference log-probabilities for this completion";

const clampLevel = (share) => Math.max(0, Math.min(LEVELS, Math.round(share * LEVELS)));

/** 0 below `low`, full at `high`, logarithmic between. */
export function logShare(value, low, high) {
  if (!(value > low)) return 0;
  return Math.min(1, Math.log(value / low) / Math.log(high / low));
}

const linear = (value, high) => (high > 0 ? Math.max(0, Math.min(1, value / high)) : 0);

/** Fields: id, key (of the keyboard), label, definition, unit, values(tokens) -> array or null, why(rollout) it is null,
 *  level(value, tokens, position), stops [{label, level}] of the legend, score(value, tokens, position) by which tokens
 *  stand out, digits. */
export const MODES = [
  {
    id: "credit",
    key: "1",
    label: "Advantage × ratio",
    definition: (rollout) => {
      const { clip, kl_coef: coef, differs = [] } = rollout.objective ?? {};
      const first = rollout.updates_per_batch > 1 ? ` in the first of ${rollout.updates_per_batch} updates` : "";
      const parts = `A is the advantage ${trim(rollout.advantage ?? 0)} of this completion, r = p(learner) / p(sampler)`;
      if (!clip) return `A·r${first}. ${parts}. What a token adds to the objective of this run is something else: ${differs.join("; ") || "not known"}.`;
      const kl = coef ? ` − ${trim(coef)}·k3` : "";
      return `min(A·r, A·clip(r))${kl}: what the token adds to the objective${first}, before tokens are averaged. ${parts}, clipped to ${trim(clip[0])} … ${trim(
        clip[1],
      )}${kl ? ", k3 the divergence from the reference" : ""}. Underlined: clipped, no gradient.`;
    },
    signed: true,
    values: (tokens) => tokens.credit,
    why: (rollout) =>
      rollout.advantage === null
        ? "This completion was not trained on: it has no advantage"
        : rollout.advantage === 0
          ? "The advantage is zero (all rewards of the group were equal): there was nothing to learn, so the learner computed no ratio"
          : rollout.objective?.kl_coef && rollout.tokens.policy_logprobs
            ? NO_REFERENCE
            : NO_LEARNER,
    level: (value, tokens) => Math.sign(value) * Math.max(value ? 1 : 0, clampLevel(Math.abs(value) / tokens.creditMax)),
    stops: (tokens) => [-1, -0.5, 0, 0.5, 1].map((s) => ({ label: trim(s * tokens.creditMax), level: s * LEVELS })),
    // Every token has the advantage; what stands out is where the ratio departs from 1.
    score: (value, tokens, i) => Math.abs(tokens.gap[i] ?? 0) + (tokens.clipped?.[i] ? 100 : 0),
  },
  {
    id: "entropy",
    key: "2",
    label: "Entropy",
    definition: () => "Entropy of the learner's distribution at this position, in nats: where the model was choosing. 0 is certain, 2.3 is ten equal choices.",
    values: (tokens) => tokens.entropy,
    why: () => "The learner recorded no entropies for this completion",
    level: (value) => clampLevel(linear(value, 3)),
    stops: () => [0, 0.75, 1.5, 2.25, 3].map((v) => ({ label: v === 3 ? "≥ 3" : trim(v), level: clampLevel(v / 3) })),
    score: (value) => value,
  },
  {
    id: "gap",
    key: "3",
    label: "Gap",
    definition: () => "|log p(learner) − log p(sampler)| in nats, log scale: how much the two programs disagree about the token that was sampled. Above 1 something is wrong: stale weights, precision, or a different prompt.",
    values: (tokens) => tokens.gap && tokens.gap.map((d) => (d === null ? null : Math.abs(d))),
    why: () => NO_LEARNER,
    level: (value) => clampLevel(logShare(value, 0.001, 1)),
    stops: () => [["< .001", 0], [".01", 0.01], [".1", 0.1], ["≥ 1", 1]].map(([label, v]) => ({ label, level: clampLevel(logShare(v, 0.001, 1)) })),
    score: (value) => value,
  },
  {
    id: "kl",
    key: "4",
    label: "KL to reference",
    definition: () => "k3 = exp(d) − d − 1 with d = log p(reference) − log p(learner), log scale, in nats: how far the policy has moved from the frozen reference at this token.",
    values: (tokens) => tokens.kl,
    why: (rollout) => (rollout.objective?.has_reference ? NO_REFERENCE : "The run has no reference model (kl.coef is 0)"),
    level: (value) => clampLevel(logShare(value, 0.0001, 1)),
    stops: () => [["< 1e-4", 0], ["1e-3", 0.001], [".01", 0.01], [".1", 0.1], ["≥ 1", 1]].map(([label, v]) => ({ label, level: clampLevel(logShare(v, 0.0001, 1)) })),
    score: (value) => value,
  },
  {
    id: "prob",
    key: "5",
    label: "Probability",
    definition: () => "p(sampler) of the token that was sampled: the stronger the fill, the less likely it was. No fill is near 1, full is 0.001 and below.",
    values: (tokens) => tokens.prob,
    why: () => "The sampler recorded no log-probabilities",
    level: (value) => clampLevel(logShare(1 / Math.max(value, 1e-9), 1.05, 1000)),
    stops: () => [1, 0.3, 0.1, 0.01, 0.001].map((v) => ({ label: v === 0.001 ? "≤ .001" : trim(v), level: clampLevel(logShare(1 / v, 1.05, 1000)) })),
    score: (value) => 1 - value,
  },
  {
    id: "version",
    key: "6",
    label: "Version",
    definition: () => "Version of the weights that sampled the token; a bar ┊ marks a seam, where newer weights took over in the middle of the completion.",
    categorical: true,
    values: (tokens) => tokens.version,
    why: () => "The sampler recorded no versions",
    level: (value, tokens) => tokens.versionIndex.get(value) % 7,
    stops: (tokens) => [...tokens.versionIndex].slice(0, 12).map(([v, i]) => ({ label: `v${v}`, level: i % 7 })),
    score: (value, tokens, i) => (tokens.seams.includes(i) ? 1 : 0),
  },
];

/** Adds what the modes need of the whole completion: creditMax, seams, versionIndex. */
export function withScales(tokens) {
  const seams = versionSeams(tokens.version);
  const versions = [...new Set(tokens.version ?? [])].sort((a, b) => a - b);
  let creditMax = 0;
  for (const value of tokens.credit ?? []) if (value !== null) creditMax = Math.max(creditMax, Math.abs(value));
  // A scale of at least half a unit, so that an advantage of 0.01 does not look like one of 2.
  return { ...tokens, seams, versionIndex: new Map(versions.map((v, i) => [v, i])), creditMax: Math.max(0.5, creditMax) };
}

/** Of what a completion has, in this order, where no colour is named. Not the advantage times the ratio: unless the
 *  weights have moved on, it is the same for every token. */
const PREFERRED = ["entropy", "gap", "prob"];

/** The mode named, if this completion has its numbers, else the one preferred of those that it has. */
export function chooseMode(id, tokens) {
  const found = [id, ...PREFERRED].map((one) => MODES.find((mode) => mode.id === one));
  return found.find((mode) => mode?.values(tokens)) ?? MODES[4];
}

/** [count] levels, null where the token has no number. */
export function levels(mode, tokens) {
  const values = mode.values(tokens);
  if (!values) return tokens.ids.map(() => null);
  return values.map((value, i) => (value === null || !tokens.turn[i] ? null : mode.level(value, tokens, i)));
}

/** The CSS class of a level. */
export function levelClass(mode, level) {
  if (level === null || (level === 0 && !mode.categorical)) return "";
  if (mode.categorical) return `tk-v${level}`;
  if (mode.signed) return level > 0 ? `tk-p${level}` : `tk-n${-level}`;
  return `tk-s${level}`;
}

/** Positions of the tokens that stand out in this mode, most first: at most 24. */
export function outliers(mode, tokens) {
  const values = mode.values(tokens);
  if (!values) return [];
  return topPositions(tokens.count, (i) => (values[i] === null || !tokens.turn[i] ? 0 : mode.score(values[i], tokens, i)), 24);
}

/** A number in at most three significant digits, without trailing zeros; "–" for null. */
export function trim(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (!Number.isFinite(size)) return value > 0 ? "∞" : "−∞";
  const text = size >= 1000 ? size.toFixed(0) : size < 0.001 ? size.toExponential(1) : String(Number(size.toPrecision(3)));
  return value < 0 ? `−${text}` : text;
}
