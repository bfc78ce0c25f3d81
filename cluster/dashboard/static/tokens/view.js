// One completion token by token: colours, legend, overview strip, the card at the pointer, the pinned token, outliers.

import { html, Segmented, useEffect, useMemo, useRef, useState } from "shoal/parts/ui.js";
import { useKeys } from "shoal/frame/keys.js";
import { replaceParams } from "shoal/frame/route.js";
import { deriveTokens } from "shoal/tokens/math.js";
import { chooseMode, levelClass, levels as levelsOf, MODES, outliers as outliersOf, trim, withScales } from "shoal/tokens/colours.js";
import { pieceNodes, TokenFlow } from "shoal/tokens/flow.js";
import { Minimap } from "shoal/charts/minimap.js";
import { PinnedToken, TokenCard } from "shoal/tokens/card.js";
import { Contribution, GapScatter } from "shoal/tokens/plots.js";

/** The colours, with the definition written out and the scale: nobody has to guess what orange means. */
function Legend({ mode, tokens, rollout }) {
  return html`<div class="tk-legend" data-testid="legend" data-colour=${mode.id}>
    <p>${mode.definition(rollout)}</p>
    <ul class="tk-scale" aria-label="Scale">
      ${mode.stops(tokens).map(({ label, level }) => html`<li key=${label}><i class=${`tk-swatch ${levelClass(mode, level)}`}></i>${label}</li>`)}
      ${tokens.clipped ? html`<li><i class="tk-swatch tk-clip">ab</i>clipped</li>` : null}
      ${rollout.episode ? html`<li><i class="tk-swatch tk-world">ab</i>said by the world, not sampled</li>` : null}
      ${rollout.episode && !tokens.mask.some((on, i) => !on && tokens.turn[i]) ? null : html`<li><i class="tk-swatch tk-mask">ab</i>masked</li>`}
      ${tokens.seams.length ? html`<li><i class="tk-swatch tk-seam">ab</i>newer weights</li>` : null}
    </ul>
  </div>`;
}

function Outliers({ mode, tokens, found, current, onPick }) {
  const values = mode.values(tokens);
  return html`<section class="tk-side-part">
    <h2>Stand out <span class="tk-dim">[ and ] step through</span></h2>
    ${found.length === 0
      ? html`<p class="tk-note">No token stands out in this colouring.</p>`
      : html`<ol class="tk-outliers" data-testid="outliers">
          ${found.slice(0, 12).map(
            (t) => html`<li key=${t}>
              <button type="button" class=${t === current ? "active" : ""} onClick=${() => onPick(t)}>
                <span class="tk-dim">${t}</span>
                <span class="tk-card-piece">${pieceNodes(tokens.pieces ? tokens.pieces[t] : null, tokens.ids[t])}</span>
                <span>${mode.categorical ? `v${values[t]}` : mode.id === "credit" ? `r ${trim(tokens.ratio[t])}${tokens.clipped?.[t] ? " clipped" : ""}` : trim(values[t])}</span>
              </button>
            </li>`,
          )}
        </ol>`}
  </section>`;
}

/** Why a colouring is missing, for each that is: in words, once. */
function Missing({ tokens, rollout }) {
  const reasons = new Map();
  for (const mode of MODES) {
    if (mode.values(tokens)) continue;
    const why = mode.why(rollout);
    reasons.set(why, [...(reasons.get(why) ?? []), mode.label]);
  }
  if (reasons.size === 0) return null;
  return html`<ul class="tk-missing" data-testid="missing">
    ${[...reasons].map(([why, labels]) => html`<li key=${why}>${why}: no ${labels.join(", ")}.</li>`)}
  </ul>`;
}

/** The position that the address names, or null; "most" is the one that stands out most in the colouring. */
function pinnedOf(params, count, found) {
  if (params.t === "most") return found[0] ?? null;
  const t = /^\d+$/.test(params.t ?? "") ? Number(params.t) : null;
  return t !== null && t < count ? t : null;
}

/** The next of `positions` after (`step` 1) or before (-1) `from`, around the ends. */
export function nextOf(positions, from, step) {
  if (positions.length === 0) return null;
  const sorted = [...positions].sort((a, b) => a - b);
  if (step > 0) return sorted.find((t) => from === null || t > from) ?? sorted[0];
  return sorted.findLast((t) => from === null || t < from) ?? sorted[sorted.length - 1];
}

function Colourings({ mode, tokens, rollout }) {
  return html`<div class="tk-bar">
    <${Segmented}
      label="Colour tokens by"
      data-testid="colouring"
      value=${mode.id}
      options=${MODES.map((one) => ({
        value: one.id,
        label: html`<kbd>${one.key}</kbd> ${one.label}`,
        title: one.values(tokens) ? one.definition(rollout) : one.why(rollout),
      }))}
      onChange=${(id) => MODES.find((one) => one.id === id)?.values(tokens) && replaceParams({ colour: id })}
    />
    <span class="tk-dim">${rollout.episode ? `${rollout.length.toLocaleString("en")} sampled of ` : ""}${tokens.count.toLocaleString("en")} tokens</span>
  </div>`;
}

function Side({ mode, tokens, rollout, run, found, pinned, onPick }) {
  return html`<aside class="tk-side" aria-label="Token details" data-colour=${mode.id}>
    <${Outliers} mode=${mode} tokens=${tokens} found=${found} current=${pinned} onPick=${onPick} />
    ${pinned === null
      ? html`<section class="tk-side-part"><h2>Token</h2><p class="tk-note">Hover for the numbers of a token; click, or step with ← and →, to pin it here.</p></section>`
      : html`<${PinnedToken} tokens=${tokens} rollout=${rollout} run=${run} t=${pinned} onUnpin=${() => onPick(null, false)} />`}
  </aside>`;
}

/** Keys of the tokens. */
function bindings({ root, tokens, found, pinned, pin, step }) {
  // The arrows belong to the text only while it has the focus, so that elsewhere they scroll as everywhere.
  const within = (act) => () => (root.current.contains(document.activeElement) ? act() : false);
  const colourings = MODES.map((one) => [one.key, [() => (one.values(tokens) ? replaceParams({ colour: one.id }) : false), `colour by ${one.label}`]]);
  return {
    "[": [() => pin(nextOf(found, pinned, -1)), "previous token that stands out"],
    "]": [() => pin(nextOf(found, pinned, 1)), "next token that stands out"],
    ArrowRight: [within(() => step(1)), "next token (with the tokens in focus)"],
    ArrowLeft: [within(() => step(-1)), "previous token (with the tokens in focus)"],
    Escape: [() => (pinned === null ? false : pin(null, false)), "unpin the token"],
    ...Object.fromEntries(colourings),
  };
}

export function TokenView({ rollout, run, params }) {
  const tokens = useMemo(() => withScales(deriveTokens(rollout)), [rollout]);
  const mode = chooseMode(params.colour, tokens);
  const levels = useMemo(() => levelsOf(mode, tokens), [mode, tokens]);
  const found = useMemo(() => outliersOf(mode, tokens), [mode, tokens]);
  const pinned = pinnedOf(params, tokens.count, found);
  const [hover, setHover] = useState(null);
  const [viewport, setViewport] = useState([0, tokens.count]);
  const [target, setTarget] = useState({ t: pinned });
  const root = useRef(null);
  useEffect(() => {
    setHover(null);
    setTarget({ t: pinned });
  }, [rollout.group_id, rollout.sample_index]);

  const pin = (t, scroll = true) => {
    replaceParams({ t });
    if (scroll) setTarget({ t });
  };
  const step = (by) => {
    if (tokens.count === 0) return;
    pin(Math.max(0, Math.min(tokens.count - 1, (pinned ?? (by > 0 ? -1 : 1)) + by)));
  };
  useKeys(bindings({ root, tokens, found, pinned, pin, step }), "Tokens");

  if (tokens.count === 0) return html`<p class="tk-note">This completion has no tokens.</p>`;
  return html`<div class="tk-view" ref=${root}>
    <div class="tk-main">
      <${Colourings} mode=${mode} tokens=${tokens} rollout=${rollout} />
      <${Legend} mode=${mode} tokens=${tokens} rollout=${rollout} />
      <div class="tk-colour" data-colour=${mode.id}>
        <${Minimap} tokens=${tokens} mode=${mode} levels=${levels} viewport=${viewport} current=${pinned} onJump=${(t) => setTarget({ t })} />
        <${TokenFlow}
          tokens=${tokens}
          mode=${mode}
          levels=${levels}
          current=${pinned}
          target=${target}
          onHover=${(t, rect) => setHover(t === null || !rect ? null : { t, rect })}
          onPick=${(t) => pin(t === pinned ? null : t, false)}
          onViewport=${(from, to) => setViewport((now) => (now[0] === from && now[1] === to ? now : [from, to]))}
        />
      </div>
      <${Missing} tokens=${tokens} rollout=${rollout} />
      ${tokens.gap
        ? html`<div class="tk-plots">
            <${GapScatter} tokens=${tokens} current=${pinned} onPick=${pin} />
            ${tokens.credit && rollout.objective?.clip ? html`<${Contribution} tokens=${tokens} current=${pinned} onPick=${pin} />` : null}
          </div>`
        : null}
    </div>
    <${Side} mode=${mode} tokens=${tokens} rollout=${rollout} run=${run} found=${found} pinned=${pinned} onPick=${pin} />
    ${hover && hover.t < tokens.count ? html`<${TokenCard} tokens=${tokens} rollout=${rollout} t=${hover.t} rect=${hover.rect} />` : null}
  </div>`;
}
