// The small parts that every page is made of, and the one place from which pages take Preact.

import { h, render, Fragment, Component, createContext } from "preact";
import { useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import htm from "htm";
import { fmt } from "shoal/parts/format.js";

export const html = htm.bind(h);
export { h, render, Fragment, Component, createContext, fmt };
export { useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState };

const GLYPHS = { ok: "●", live: "●", watch: "▲", alarm: "✖", none: "○", info: "ⓘ", warning: "▲", error: "✖" };

/** The glyph of a state or severity: never colour alone. */
export function glyph(state) {
  return GLYPHS[state] ?? GLYPHS.none;
}

/** A small label; `state` is ok, watch, alarm, none, info, warning or error. */
export function Badge({ state = "none", plain = false, title, children, ...rest }) {
  return html`<span class=${`badge ${state}`} title=${title} ...${rest}>
    ${plain ? null : html`<span class="glyph" aria-hidden="true">${glyph(state)}</span>`}${children}
  </span>`;
}

export function Button({ active = false, kind = "", children, ...rest }) {
  return html`<button type="button" class=${`button ${kind} ${active ? "active" : ""}`} ...${rest}>${children}</button>`;
}

/** A titled area. `actions` stand right in its heading, `help` behind a question mark. */
export function Panel({ title, help, actions, class: extra = "", children, ...rest }) {
  return html`<section class=${"panel " + extra} ...${rest}>
    ${title || actions
      ? html`<header class="panel-head">
          <h2>${title}${help ? html`<${Help} text=${help} />` : null}</h2>
          <div class="actions">${actions}</div>
        </header>`
      : null}
    ${children}
  </section>`;
}

/** A question mark that tells more on hover and focus. */
export function Help({ text }) {
  return html`<${Tooltip} text=${text}><span class="help" tabindex="0" role="note" aria-label=${text}>?</span><//>`;
}

/** Shows `text` beside its children on hover and focus. Placed by the script, so that no scrolling area cuts it. */
export function Tooltip({ text, children }) {
  const [place, setPlace] = useState(null);
  const show = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    setPlace({ x: box.left + box.width / 2, y: box.bottom });
  };
  const hide = () => setPlace(null);
  return html`<span class="tip" onMouseEnter=${show} onMouseLeave=${hide} onFocusIn=${show} onFocusOut=${hide}>
    ${children}${place && text ? html`<${HoverCard} ...${place} class="tooltip">${text}<//>` : null}
  </span>`;
}

/** A card near the point (x, y) of the window, kept within it. Takes no clicks. */
export function HoverCard({ x, y, class: extra = "", children, ...rest }) {
  const card = useRef(null);
  useLayoutEffect(() => {
    const { offsetWidth: width, offsetHeight: height } = card.current;
    const left = Math.min(Math.max(8, x + 12), innerWidth - width - 8);
    const below = y + 14 + height <= innerHeight - 8;
    card.current.style.left = `${Math.max(8, left)}px`;
    card.current.style.top = `${below ? y + 14 : Math.max(8, y - height - 10)}px`;
  });
  return html`<div class=${"hover-card " + extra} role="tooltip" ref=${card} ...${rest}>${children}</div>`;
}

/** One of a few choices: options [{value, label, title}] or plain words. */
export function Segmented({ options, value, onChange, label, ...rest }) {
  return html`<div class="segmented" role="radiogroup" aria-label=${label} ...${rest}>
    ${options.map((option) => {
      const { value: own, label: text = own, title } = typeof option === "object" ? option : { value: option };
      const chosen = own === value;
      return html`<button type="button" role="radio" aria-checked=${chosen} title=${title} key=${own} data-value=${own}
        class=${chosen ? "active" : ""} onClick=${() => onChange(own)}>${text}</button>`;
    })}
  </div>`;
}

/** Tabs that are links: items [{id, label, href, count}]. */
export function Tabs({ items, current, label, ...rest }) {
  return html`<nav class="tabs" aria-label=${label} ...${rest}>
    ${items.map(({ id, label: text, href, count }) => html`<a key=${id} href=${href} data-tab=${id}
      aria-current=${id === current ? "page" : undefined}>${text}${count === undefined ? null : html`<span class="count">${count}</span>`}</a>`)}
  </nav>`;
}

/**
 * What stands where an answer is on its way: never "nothing here" before anybody knows. `index`: how far the rollouts of
 * the run have been read, as the frame has it.
 *
 * @param {Record<string, any>} props
 */
export function Loading({ what = "Reading the run", index = null, ...rest }) {
  const files = index && !index.ready ? `, ${fmt.count(index.files_done)} of ${fmt.count(index.files_total)} files` : "";
  return html`<div class="loading" role="status" data-testid="loading" ...${rest}><span class="loading-bar" aria-hidden="true"></span>${what} …${files}</div>`;
}

/** What stands where there is nothing to show, in words. */
export function Empty({ title, children, ...rest }) {
  return html`<div class="empty" ...${rest}><p class="empty-title">${title}</p>${children ? html`<p>${children}</p>` : null}</div>`;
}

/** An error as the server told it; `error` is an Error or a sentence. */
export function Problem({ error, retry, ...rest }) {
  if (!error) return null;
  return html`<div class="problem" role="alert" ...${rest}>
    <span class="glyph" aria-hidden="true">✖</span><span>${error.message ?? error}</span>
    ${retry ? html`<${Button} onClick=${retry}>Try again<//>` : null}
  </div>`;
}

export function KeyHint({ keys }) {
  return html`<span class="keys">${keys.split(" ").map((key) => html`<kbd>${key}</kbd>`)}</span>`;
}

/** A figure that is to be read from afar: value, change, sparkline, state against its threshold. The change has a colour only
 *  where it is `judged`: within its threshold it is noise, whichever way it goes. */
export function Tile({ label, value, unit, delta, deltaText, better, judged = false, spark, state = "none", note, format = fmt.number, ...rest }) {
  return html`<div class=${`tile ${state}`} ...${rest}>
    <div class="tile-label"><span class="glyph" aria-hidden="true">${state === "none" ? "" : glyph(state)}</span>${label}</div>
    <div class="tile-value">${value}${unit ? html`<small>${unit}</small>` : null}</div>
    ${delta || deltaText ? html`<div class=${"tile-delta delta " + (judged ? judge(delta, better) : "")}>${delta ? html`${arrow(delta)} ${format(Math.abs(delta))} <span class="muted">${deltaText}</span>` : null}</div>` : null}
    ${note ? html`<div class="tile-note">${note}</div>` : null}
    <${Spark} values=${spark ?? []} state=${state} />
  </div>`;
}

const arrow = (delta) => (delta > 0 ? "↑" : "↓");

function judge(delta, better) {
  if (!delta || !better) return "";
  return delta > 0 === (better === "up") ? "good" : "bad";
}

/** A line without axes; gaps where a value is null. */
export function Spark({ values, state = "none", width = 120, height = 32 }) {
  const path = useMemo(() => sparkPath(values, width, height), [values, width, height]);
  return html`<svg class=${"spark " + state} viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
    <path d=${path} /></svg>`;
}

/**
 * Values -> an SVG path over `width` x `height`, `pad` pixels free above and below.
 *
 * @param {(number | null)[]} values
 * @param {number} width
 * @param {number} height
 * @param {number} [pad]
 * @param {number[] | null} [positions] of the values, from the left; evenly spread without
 */
export function sparkPath(values, width, height, pad = 2, positions = null) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (!known.length) return "";
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const y = (value) => (high > low ? height - pad - ((value - low) / (high - low)) * (height - 2 * pad) : height / 2);
  const x = (i) => (positions ? positions[i] : values.length > 1 ? (i / (values.length - 1)) * width : width);
  let path = "";
  let pen = "M";
  values.forEach((value, i) => {
    if (value === null || value === undefined) pen = "M";
    else {
      path += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    }
  });
  return path;
}

/**
 * [ref, {width, height}] of an element, followed as it changes.
 *
 * @returns {[{current: any}, {width: number, height: number}]}
 */
export function useSize() {
  const ref = useRef(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const measure = () => {
      const { clientWidth: width, clientHeight: height } = element;
      setSize((old) => (old.width === width && old.height === height ? old : { width, height }));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);
  return [ref, size];
}
