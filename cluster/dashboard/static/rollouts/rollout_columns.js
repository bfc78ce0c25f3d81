// The columns that the table of rollouts can have, and how each shows its figure.

import { fmt, html } from "shoal/parts/ui.js";
import { isThere } from "shoal/frame/api.js";
import { href, parse } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { RewardMark } from "shoal/rollouts/rollout_parts.js";
import { logShare } from "shoal/tokens/colours.js";

const number = (name) => (row) => fmt.number(row[name]);
const foreign = (name, mark) => (row) =>
  row[name] === null || row[name] === "" ? html`<span class="tk-dim">none</span>` : html`<${Text} value=${row[name]} inline mark=${mark} fold=${200} />`;

/** A figure with a fill that grows with it, so that the large ones are found without reading. */
function heat(share, text) {
  const level = Math.round(Math.max(0, Math.min(1, share)) * 8);
  return html`<span class=${`rl-heat ${level ? `tk-s${level}` : ""}`} data-colour="gap">${text}</span>`;
}

/** Links open in a new tab like any other; a plain click on one must not also open the row. */
function link(page, parts, text, title) {
  const answer = `/runs/${encodeURIComponent(parse(location.hash).run ?? "")}/${page}s/${parts.map(encodeURIComponent).join("/")}`;
  if (!isThere(answer)) return html`<span title=${title}>${text}</span>`; // an exported report has a part of them
  return html`<a href=${href(page, parts)} title=${title} onClick=${(event) => event.stopPropagation()}>${text}</a>`;
}

/** [{key, label, width, align, render, help}] of everything there is. `mark` is highlighted in completions, `pins` are the
 *  addresses of the pinned ones, `components` the names of the reward's parts. */
export function allColumns({ mark, pins, components }) {
  const right = { align: "right" };
  return [
    { key: "phase", label: "phase", width: 56, render: (row) => row.phase, help: "train or eval" },
    { key: "step", label: "step", width: 78, ...right, help: "training step; of an evaluation: the steps before it", render: (row) =>
      html`${row.phase === "eval" ? html`<span class="tk-dim">eval </span>` : null}${link("step", [row.phase, row.step], row.step)}` },
    { key: "group_id", label: "group", width: 76, help: "group id", render: (row) =>
      link("group", [row.phase, row.step, row.group_id], row.group_id.replace(/^0*(\d+)-.*$/, "$1").slice(0, 8), row.group_id) },
    { key: "sample_index", label: "sample", width: 76, ...right, help: "sample within the group", render: (row) => html`
      ${pins.includes(addressOf(row)) ? html`<span class="rl-pin" title="pinned">◆ </span>` : null}${row.sample_index}` },
    { key: "reward", label: "reward", width: 104, ...right, render: (row) => html`<${RewardMark} reward=${row.reward} correct=${row.correct} />`, help: "✓ judged correct, ✗ not" },
    ...components.map((name) => ({ key: `reward.${name}`, label: name, width: 84, ...right, render: (row) => fmt.number(row.components[name]), help: `reward component ${name}` })),
    { key: "advantage", label: "adv", width: 72, ...right, help: "advantage", render: (row) => html`<span class=${`gr-adv ${row.advantage > 0 ? "up" : row.advantage < 0 ? "down" : ""}`}>${fmt.number(row.advantage)}</span>` },
    { key: "length", label: "len", width: 64, ...right, render: number("length"), help: "sampled tokens" },
    { key: "finish", label: "finish", width: 64, help: "how sampling ended", render: (row) => (row.finish === "stop" ? row.finish : html`<span class="rl-cell-warn">${row.finish}</span>`) },
    { key: "turns", label: "turns", width: 64, ...right, render: number("turns"), help: "replies of an episode" },
    { key: "tool_calls", label: "calls", width: 64, ...right, render: number("tool_calls"), help: "calls of tools in an episode" },
    { key: "episode_outcome", label: "ended", width: 84, help: "how an episode ended", render: (row) =>
      row.episode_outcome === null || row.episode_outcome === undefined ? html`<span class="tk-dim">–</span>` : html`<${Text} value=${row.episode_outcome} inline />` },
    { key: "outcome", label: "graded", width: 70, help: "how grading ended", render: (row) => (row.outcome === "ok" ? row.outcome : html`<span class="rl-cell-warn">${row.outcome}</span>`) },
    { key: "entropy", label: "entropy", width: 82, ...right, render: number("entropy"), help: "mean over its tokens, nats" },
    { key: "max_gap", label: "max gap", width: 92, ...right, help: "largest |log p(learner) − log p(sampler)|, nats", render: (row) => heat(row.max_gap === null ? 0 : logShare(row.max_gap, 0.03, 3), fmt.number(row.max_gap)) },
    { key: "k3", label: "k3", width: 76, ...right, render: number("k3"), help: "mean k3 between sampler and learner" },
    { key: "repetition", label: "repeats", width: 84, ...right, help: "share of its 4-grams that occurred before", render: (row) => heat(row.repetition, fmt.percent(row.repetition)) },
    { key: "lag", label: "lag", width: 54, ...right, render: number("lag"), help: "versions between sampling and training" },
    { key: "epoch", label: "epoch", width: 60, ...right, render: number("epoch"), help: "pass over the data" },
    { key: "worker", label: "sampler", width: 92, render: (row) => row.worker, help: "who sampled it" },
    { key: "annotation", label: "noted", width: 120, help: "label and bookmark", render: (row) => html`
      ${row.annotation?.bookmarked ? html`<span class="rl-pin" title="bookmarked">★ </span>` : null}${row.annotation?.label ? html`<${Text} value=${row.annotation.label} inline />` : null}` },
    { key: "question", label: "question", width: "140px", grow: 0.25, render: foreign("question"), help: "its first 120 characters" },
    { key: "answer", label: "answer", width: 104, render: foreign("answer"), help: "final answer that was extracted" },
    { key: "truth", label: "truth", width: 104, render: foreign("truth"), help: "what is right" },
    { key: "preview", label: "completion", width: "320px", render: foreign("preview", mark), help: "its first 160 characters" },
  ];
}

const DEFAULT_COLUMNS = ["step", "group_id", "sample_index", "reward", "advantage", "length", "finish", "entropy", "max_gap", "question", "answer", "truth", "preview"];

const EPISODE_COLUMNS = ["turns", "episode_outcome"];

/** Names of the columns that are shown unless others are chosen: of episodes also how they went. */
export function usualColumns(rows) {
  if (!rows.some((row) => row.turns !== null && row.turns !== undefined)) return DEFAULT_COLUMNS;
  return DEFAULT_COLUMNS.flatMap((name) => (name === "finish" ? [name, ...EPISODE_COLUMNS] : [name]));
}

/** "train/4/GID/3": the address of a rollout as text. */
export function addressOf(row) {
  return `${row.phase}/${row.step}/${row.group_id}/${row.sample_index}`;
}

/** Names of the columns in a param, in the order of the table; the usual ones where it names none. */
export function chosenColumns(param, all, usual) {
  const wanted = (param ?? "").split(",").filter(Boolean);
  const names = wanted.length ? wanted : usual;
  return all.filter((column) => names.includes(column.key));
}
