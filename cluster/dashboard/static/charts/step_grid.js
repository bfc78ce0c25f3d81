// The completions of a step: a row for each group, a cell for each completion.

import { HoverCard, fmt, html, useMemo, useState } from "shoal/parts/ui.js";
import { diverging, rewardColour, sequential, textOn, useTheme } from "shoal/parts/colours.js";
import { isThere } from "shoal/frame/api.js";
import { href } from "shoal/frame/route.js";
import { named, Text } from "shoal/parts/text.js";

const known = (value) => value !== null && value !== undefined;

/** Groups of the API's step in the order asked for: "variance", "reward" or "dispatch". */
export function sortedGroups(groups, order) {
  const by = (key) => [...groups].sort((a, b) => key(a) - key(b));
  if (order === "variance") return by((group) => -(group.reward_std ?? -1));
  if (order === "reward") return by((group) => group.reward_mean ?? -Infinity);
  return groups;
}

function painter(data, colour, theme) {
  if (colour === "reward") return (cell) => rewardColour(cell.reward, data.reward_range, theme);
  const cells = data.groups.flatMap((group) => group.cells);
  if (colour === "advantage") {
    const greatest = Math.max(1e-9, ...cells.map((cell) => Math.abs(cell.advantage ?? 0)));
    return (cell) => diverging(known(cell.advantage) ? cell.advantage / greatest : null, theme);
  }
  const longest = Math.max(1, ...cells.map((cell) => cell.length));
  return (cell) => sequential(cell.length / longest, theme);
}

/** Failed first: a completion that was not scored has nothing else to tell. */
function sign(cell) {
  if (cell.outcome && cell.outcome !== "ok") return "×";
  return cell.finish === "length" ? "•" : "";
}

function Scale({ data, colour, theme }) {
  const paint = painter(data, colour, theme);
  const cells = data.groups.flatMap((group) => group.cells);
  const ends = {
    reward: data.reward_range,
    advantage: (() => {
      const greatest = Math.max(0, ...cells.map((cell) => Math.abs(cell.advantage ?? 0)));
      return [-greatest, greatest];
    })(),
    length: [0, Math.max(1, ...cells.map((cell) => cell.length))],
  }[colour];
  const steps = Array.from({ length: 24 }, (_, i) => ends[0] + ((ends[1] - ends[0]) * i) / 23);
  return html`<div class="scale" data-testid="scale"><span>${fmt.number(ends[0])}</span>
    <span class="scale-bar" aria-hidden="true">${steps.map((value) => html`<i style=${{ background: paint({ reward: value, advantage: value, length: value }) }}></i>`)}</span>
    <span>${fmt.number(ends[1])}</span><span class="muted">${colour}</span>
    <span class="muted scale-signs">• truncated</span><span class="muted">× not scored</span></div>`;
}

function CellCard({ group, cell, x, y }) {
  return html`<${HoverCard} x=${x} y=${y} class="cell-card" data-testid="cell-card">
    <p class="card-question"><${Text} value=${group.question} fold=${160} /></p>
    <dl>
      <div><dt>sample</dt><dd>${cell.sample_index}</dd></div>
      <div><dt>reward</dt><dd>${fmt.number(cell.reward)}${cell.outcome === "ok" ? "" : html` (<${Text} value=${cell.outcome} inline />)`}</dd></div>
      <div><dt>advantage</dt><dd>${fmt.number(cell.advantage)}</dd></div>
      <div><dt>length</dt><dd>${fmt.count(cell.length)}${cell.finish === "stop" ? "" : `, ${cell.finish === "length" ? "truncated" : named(cell.finish)}`}</dd></div>
      <div><dt>answer</dt><dd><${Text} value=${cell.answer ?? "none"} inline /></dd></div>
      <div><dt>truth</dt><dd><${Text} value=${group.truth ?? "none"} inline /></dd></div>
    </dl>
    <p class="card-preview"><${Text} value=${cell.preview} fold=${240} /></p>
  <//>`;
}

/** The address of a page; none where an exported report does not have it. */
function there(page, parts, run) {
  const answer = `/runs/${encodeURIComponent(run)}/${page}s/${parts.map(encodeURIComponent).join("/")}`;
  return isThere(answer) ? href(page, parts, {}, run) : undefined;
}

function cellStyle(colour) {
  return { backgroundColor: colour, color: colour === "transparent" ? "inherit" : textOn(colour) };
}

function GroupRow({ run, data, group, index, paint, selected }) {
  const address = [data.phase, data.step, group.group_id];
  const judged = group.cells.some((cell) => known(cell.correct));
  return html`<div class=${"grid-row" + (selected ? " selected" : "") + (group.status === "rejected" ? " rejected" : "")} data-testid="group-row" data-group=${group.group_id} data-row=${index}>
    <span class="cells">${group.cells.map((cell, i) => html`<a key=${cell.sample_index} class=${"cell" + (selected?.[1] === i ? " chosen" : "")} style=${cellStyle(paint(cell))}
      href=${there("rollout", [...address, cell.sample_index], run)} data-cell=${i} tabindex="-1" role=${there("rollout", [...address, cell.sample_index], run) ? undefined : "img"}
      aria-label=${`completion ${cell.sample_index}, reward ${fmt.number(cell.reward)}`}>${sign(cell)}</a>`)}</span>
    <a class="grid-link" href=${there("group", address, run)} data-testid="group-link">
      <span class="grid-mean">${fmt.number(group.reward_mean, 2)}</span>
      <span class="grid-right muted">${judged ? `${group.num_correct}/${group.cells.length}` : ""}</span>
      <span class="grid-question"><${Text} value=${group.question} inline />${group.status === "rejected" ? html`<span class="grid-reason">${group.reason.replaceAll("_", " ")}</span>` : null}</span>
    </a>
  </div>`;
}

/** Pixels that the cells of a group take: the head stands over what it names. */
function headWidth(groups) {
  return 4 + 20 * Math.max(4, ...groups.map((group) => group.cells.length));
}

/** `groups` in the order to show; `selected`: [row, cell or -1] of the keyboard, or null. */
export function StepGrid({ run, data, groups, colour, selected }) {
  const theme = useTheme();
  const [hover, setHover] = useState(null);
  const paint = useMemo(() => painter(data, colour, theme), [data, colour, theme]);
  const onOver = (event) => {
    const cell = event.target.closest("[data-cell]");
    const row = event.target.closest("[data-row]");
    if (!cell || !row) return setHover(null);
    const box = cell.getBoundingClientRect();
    return setHover({ row: Number(row.dataset.row), cell: Number(cell.dataset.cell), x: box.right, y: box.bottom });
  };
  const group = hover && groups[hover.row];
  const cell = group?.cells[hover.cell];
  return html`<div class="step-grid">
    <${Scale} data=${data} colour=${colour} theme=${theme} />
    <div class="grid-rows" onMouseOver=${onOver} onMouseLeave=${() => setHover(null)} data-testid="grid">
      <div class="grid-row grid-head muted" aria-hidden="true"><span class="cells" style=${{ width: `${headWidth(groups)}px` }}>completions</span>
        <span class="grid-link"><span class="grid-mean">mean</span><span class="grid-right">right</span><span class="grid-question">question</span></span></div>
      ${groups.map((one, index) => html`<${GroupRow} key=${one.group_id} run=${run} data=${data} group=${one} index=${index} paint=${paint} selected=${selected?.[0] === index ? selected : null} />`)}
    </div>
    ${cell ? html`<${CellCard} group=${group} cell=${cell} x=${hover.x} y=${hover.y} />` : null}
  </div>`;
}
