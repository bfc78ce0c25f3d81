// A completion as it was meant: Markdown and LaTeX drawn, thinking folded. Elements are made here and nowhere else, and
// every text goes through <Text>: no link, no image, no HTML of the model's own.

import { latex } from "shoal/rendered/latex.js";
import { blocks, parts } from "shoal/rendered/markdown.js";
import { Text } from "shoal/parts/text.js";
import { fmt, html, useMemo } from "shoal/parts/ui.js";

const MAX_CHARACTERS = 200_000;
const plain = (text) => html`<${Text} value=${text} inline />`;

function Maths({ pieces }) {
  return pieces.map((piece) => {
    if (piece.kind === "frac" || piece.kind === "binom") {
      const fraction = html`<span class=${`md-frac ${piece.kind}`}><span><${Maths} pieces=${piece.top} /></span><span class="md-over" aria-label=${piece.kind === "frac" ? "over" : "choose"}></span><span><${Maths} pieces=${piece.bottom} /></span></span>`;
      return piece.kind === "binom" ? html`(${fraction})` : fraction;
    }
    if (piece.kind === "sqrt") return html`<span class="md-sqrt">${piece.root ? html`<sup>${plain(piece.root)}</sup>` : null}√<span><${Maths} pieces=${piece.parts} /></span></span>`;
    if (piece.kind === "sup") return html`<sup><${Maths} pieces=${piece.parts} /></sup>`;
    if (piece.kind === "sub") return html`<sub><${Maths} pieces=${piece.parts} /></sub>`;
    if (piece.kind === "box") return html`<span class="md-box"><${Maths} pieces=${piece.parts} /></span>`;
    return plain(piece.text);
  });
}

function Inlines({ inlines }) {
  return inlines.map(({ kind, text }) => {
    if (kind === "code") return html`<code>${plain(text)}</code>`;
    if (kind === "strong") return html`<strong>${plain(text)}</strong>`;
    if (kind === "em") return html`<em>${plain(text)}</em>`;
    if (kind === "math") return html`<span class="md-math" title=${text.slice(0, 400)}><${Maths} pieces=${latex(text)} /></span>`;
    return plain(text);
  });
}

function Block({ piece }) {
  if (piece.kind === "heading") return html`<p class=${`md-heading level-${piece.level}`} role="heading" aria-level=${Math.min(6, piece.level + 2)}><${Inlines} inlines=${piece.inlines} /></p>`;
  if (piece.kind === "code") return html`<pre tabindex="0"><${Text} value=${piece.text} /></pre>`;
  if (piece.kind === "math") return html`<p class="md-math md-display" title=${piece.text.slice(0, 400)}><${Maths} pieces=${latex(piece.text)} /></p>`;
  if (piece.kind === "rule") return html`<hr />`;
  if (piece.kind === "quote") return html`<blockquote><${Blocks} all=${piece.blocks} /></blockquote>`;
  if (piece.kind === "list") {
    const items = piece.items.map((item) => html`<li><${Blocks} all=${item} /></li>`);
    return piece.ordered ? html`<ol start=${piece.start}>${items}</ol>` : html`<ul>${items}</ul>`;
  }
  return html`<p><${Inlines} inlines=${piece.inlines} /></p>`;
}

function Blocks({ all }) {
  return all.map((piece) => html`<${Block} piece=${piece} />`);
}

/** What the model wrote, drawn. */
export function Rendered({ text }) {
  const pieces = useMemo(() => (text.length > MAX_CHARACTERS ? null : parts(text).map((part) => ({ ...part, all: blocks(part.text) }))), [text]);
  if (pieces === null) return html`<p class="tk-dim" data-testid="too-long">${fmt.count(text.length)} characters are too many to be drawn; Text has them.</p>`;
  return html`<div class="md" data-testid="rendered">
    ${pieces.map((piece) => piece.thinking
      ? html`<details class="md-thinking" data-testid="thinking"><summary>thinking, ${fmt.count(piece.text.trim().length)} characters${piece.open ? ", not ended" : ""}</summary><${Blocks} all=${piece.all} /></details>`
      : html`<div><${Blocks} all=${piece.all} /></div>`)}
    ${pieces.length ? null : html`<p class="tk-dim">The completion is empty.</p>`}
  </div>`;
}
