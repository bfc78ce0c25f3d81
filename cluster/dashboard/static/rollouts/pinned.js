// The tray of pinned rollouts, and two or more of them side by side. Which ones is part of the address.

import { Button, Empty, html, Problem, useEffect, useState } from "shoal/parts/ui.js";
import { get } from "shoal/frame/api.js";
import { href } from "shoal/frame/route.js";
import { Columns, TwoUp } from "shoal/rollouts/group_columns.js";

export const MAX_PINS = 8;

/** Addresses in a param like "train/4/GID/3,train/5/GID/0". */
export function pinsOf(param) {
  return (param ?? "").split(",").filter((one) => one.split("/").length === 4).slice(0, MAX_PINS);
}

/** The pins with `address` taken away where it was there, else added; the oldest goes where there are too many. */
export function togglePin(pins, address) {
  return pins.includes(address) ? pins.filter((one) => one !== address) : [...pins, address].slice(-MAX_PINS);
}

const short = (address) => {
  const [phase, step, group, sample] = address.split("/");
  return `${phase === "eval" ? "eval " : ""}step ${step}, ${group.slice(0, 6)} #${sample}`;
};

export function PinTray({ pins, comparing, onChange, onCompare }) {
  return html`<div class="rl-tray" data-testid="pins" role="region" aria-label="Pinned rollouts">
    <b>${pins.length} pinned</b>
    ${pins.map(
      (address) => html`<span class="rl-pinned" key=${address}>
        <a href=${href("rollout", address.split("/"))}>${short(address)}</a>
        <button type="button" aria-label=${`Unpin ${short(address)}`} onClick=${() => onChange(togglePin(pins, address))}>×</button>
      </span>`,
    )}
    <span class="tray-actions">
      <${Button} disabled=${pins.length < 2} active=${comparing} data-testid="compare-pins" onClick=${onCompare}>${comparing ? "back to the table" : "compare (c)"}<//>
      <${Button} onClick=${() => onChange([])}>unpin all<//>
    </span>
  </div>`;
}

/** Two pinned rollouts with their differences, more as columns. */
export function PinnedSideBySide({ run, pins }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let wanted = true;
    setError(null);
    Promise.all(pins.map((address) => get(`/runs/${encodeURIComponent(run)}/rollouts/${address.split("/").map(encodeURIComponent).join("/")}`))).then(
      (all) => wanted && setFound(all),
      (problem) => wanted && setError(problem),
    );
    return () => (wanted = false);
  }, [run, pins.join(",")]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!found || found.length !== pins.length) return html`<${Empty} title="Reading the pinned rollouts …" />`;
  const partsOf = (rollout) => [rollout.phase, rollout.step, rollout.group_id, rollout.sample_index];
  const linkOf = (rollout) => href("rollout", partsOf(rollout));
  if (found.length === 2) return html`<${TwoUp} left=${found[0]} right=${found[1]} linkOf=${linkOf} titleOf=${(rollout) => short(partsOf(rollout).join("/"))} />`;
  const titled = (rollout) => short(partsOf(rollout).join("/"));
  return html`<${Columns} rollouts=${found} prefix=${0} open=${false} current=${null} chosen=${[]} linkOf=${linkOf} titleOf=${titled} flagged=${new Set()} />`;
}
