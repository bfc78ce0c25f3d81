// The tokens of a completion as running text, in blocks of about 200 that are drawn only near the part on screen, so
// that 32 000 tokens scroll as easily as 32.

import { Component, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "shoal/parts/ui.js";
import { Text } from "shoal/parts/text.js";
import { blocks, pieceKind } from "shoal/tokens/math.js";
import { levelClass } from "shoal/tokens/colours.js";

/* The fast path: ranges without invisible, combining or direction-changing characters. Anything else goes to <Text>. */
const PLAIN = /^[\x20-\x7E\u00A1-\u00AC\u00AE-\u024F\u0370-\u03FF\u2010-\u2027\u2030-\u205E\u2190-\u22FF\u4E00-\u9FFF]*$/;

/** The visible form of a token: chips for special tokens and bytes, line breaks as ↵, hostile characters by <Text>. */
export function pieceNodes(piece, id) {
  if (piece === null || piece === undefined) return html`<span class="tk-chip">${id}</span>`;
  const kind = pieceKind(piece);
  if (kind === "byte") return html`<span class="tk-chip" title="a byte of a character">${piece.slice(3, 5)}</span>`;
  if (kind === "special") return html`<span class="tk-chip tk-special">${piece}</span>`;
  if (piece === "") return html`<span class="tk-chip">empty</span>`;
  const parts = piece.split("\n");
  return parts.map((part, i) => [
    i > 0 && html`<span class="tk-nl" aria-label="line break">↵</span>${"\n"}`,
    part && (PLAIN.test(part) ? part : html`<${Text} value=${part} />`),
  ]);
}

class Block extends Component {
  shouldComponentUpdate(next) {
    const now = this.props;
    return ["tokens", "levels", "drawn", "height", "current"].some((name) => now[name] !== next[name]);
  }

  render({ index, from, to, tokens, mode, levels, drawn, height, current }) {
    return html`<div class="tk-block" data-block=${index} style=${drawn ? { minHeight: "0px" } : { minHeight: `${height}px` }}>
      <span class="tk-gutter" aria-hidden="true">${from}</span>
      <div class="tk-run">${drawn && this.spans(from, to, tokens, mode, levels, current)}</div>
    </div>`;
  }

  spans(from, to, tokens, mode, levels, current) {
    const out = [];
    for (let i = from; i < to; i++) {
      const seam = i > 0 && tokens.version && tokens.version[i] !== tokens.version[i - 1];
      const names = [
        "tk",
        levelClass(mode, levels[i]),
        tokens.clipped && tokens.clipped[i] ? "tk-clip" : "",
        tokens.turn[i] ? (tokens.mask[i] ? "" : "tk-mask") : "tk-world",
        seam ? "tk-seam" : "",
        i === current ? "tk-cur" : "",
      ];
      const piece = tokens.pieces ? tokens.pieces[i] : null;
      if (tokens.turn[i] && tokens.turns > 1 && tokens.turn[i] !== tokens.turn[i - 1]) out.push(html`<span class="tk-turn">turn ${tokens.turn[i]}</span>`);
      out.push(html`<span class=${names.filter(Boolean).join(" ")} data-t=${i}>${pieceNodes(piece, tokens.ids[i])}</span>`);
    }
    return out;
  }
}

/** [numbers of the blocks that are near the part on screen, its setter, heights of those that were drawn before]. */
function useDrawn(box, parts) {
  const heights = useRef(new Map());
  const [drawn, setDrawn] = useState(() => new Set([0]));

  useEffect(() => {
    heights.current = new Map();
    setDrawn(new Set([0]));
    const observer = new IntersectionObserver(
      (entries) =>
        setDrawn((before) => {
          const after = new Set(before);
          for (const { target: element, isIntersecting, boundingClientRect } of entries) {
            const index = Number(/** @type {HTMLElement} */ (element).dataset.block);
            if (isIntersecting) after.add(index);
            else {
              if (after.has(index)) heights.current.set(index, boundingClientRect.height);
              after.delete(index);
            }
          }
          return after;
        }),
      { root: box.current, rootMargin: "700px 0px" },
    );
    for (const element of box.current.children) observer.observe(element);
    return () => observer.disconnect();
  }, [parts]);
  return /** @type {const} */ ([drawn, setDrawn, heights]);
}

/** Scrolls to `target.t` whenever `target` is a new object; `draw(index)` has a block drawn. */
function useScrollTo(box, parts, target, count, draw) {
  useLayoutEffect(() => {
    if (!target || target.t === null || target.t >= count) return;
    const index = parts.findIndex(([, to]) => target.t < to);
    const element = box.current.children[index];
    // Only this container scrolls: scrollIntoView would move the page as well.
    const show = () => {
      const token = box.current && box.current.querySelector(`[data-t="${target.t}"]`);
      const inner = (token ?? element).getBoundingClientRect();
      const outer = box.current.getBoundingClientRect();
      if (inner.top < outer.top + 24 || inner.bottom > outer.bottom - 24) {
        box.current.scrollTop += inner.top - outer.top - outer.height / 3;
      }
      return token !== null;
    };
    if (!show()) {
      draw(index);
      // Twice: drawing the block may change the heights above it.
      requestAnimationFrame(() => {
        show();
        requestAnimationFrame(show);
      });
    }
  }, [target]);
}

/** [from, to]: the tokens that are on screen. */
function inSight(box, parts) {
  const outer = box.getBoundingClientRect();
  let from = null;
  let to = 0;
  [...box.children].forEach((element, i) => {
    const inner = element.getBoundingClientRect();
    if (inner.bottom <= outer.top || inner.top >= outer.bottom || inner.height === 0) return;
    const [start, end] = parts[i];
    const share = (y) => Math.max(0, Math.min(1, (y - inner.top) / inner.height));
    if (from === null) from = start + share(outer.top) * (end - start);
    to = start + share(outer.bottom) * (end - start);
  });
  return [Math.floor(from ?? 0), Math.ceil(to)];
}

/** Props: tokens, mode, levels, current (position or null), onHover(position or null, rectangle), onPick(position),
 *  onViewport(from, to), target {t} (a new object scrolls there). */
export function TokenFlow({ tokens, mode, levels, current, target, onHover, onPick, onViewport }) {
  const box = useRef(null);
  const parts = useMemo(() => blocks(tokens.count, tokens.pieces), [tokens]);
  const [drawn, setDrawn, heights] = useDrawn(box, parts);
  useScrollTo(box, parts, target, tokens.count, (index) => setDrawn((before) => new Set(before).add(index)));
  const viewport = () => {
    onViewport(...inSight(box.current, parts));
  };
  useEffect(viewport, [drawn, parts]);

  const positionOf = (event) => {
    const element = event.target.closest && event.target.closest("[data-t]");
    return element ? [Number(element.dataset.t), element] : [null, null];
  };
  return html`<div
    ref=${box}
    class="tk-flow"
    data-testid="tokens"
    data-colour=${mode.id}
    tabindex="0"
    role="group"
    aria-label="Tokens of the completion; arrow keys move, brackets jump to outliers"
    onScroll=${viewport}
    onMouseOver=${(event) => {
      const [position, element] = positionOf(event);
      onHover(position, element && element.getClientRects()[0]);
    }}
    onMouseLeave=${() => onHover(null, null)}
    onClick=${(event) => {
      const [position] = positionOf(event);
      if (position !== null && !String(getSelection())) onPick(position);
    }}
  >
    ${parts.map(
      ([from, to], index) =>
        html`<${Block}
          key=${index}
          index=${index}
          from=${from}
          to=${to}
          tokens=${tokens}
          mode=${mode}
          levels=${levels}
          drawn=${drawn.has(index)}
          height=${heights.current.get(index) ?? estimate(tokens, from, to)}
          current=${current !== null && current >= from && current < to ? current : -1}
        />`,
    )}
  </div>`;
}

/** Pixels that a block that was never drawn will take, roughly: 20 to a line of 110 characters. */
function estimate(tokens, from, to) {
  if (!tokens.pieces) return Math.ceil((to - from) / 18) * 20;
  let lines = 1;
  let width = 0;
  for (let i = from; i < to; i++) {
    width += tokens.pieces[i].length;
    if (width > 110 || tokens.pieces[i].includes("\n")) {
      lines++;
      width = 0;
    }
  }
  return lines * 20;
}
