// Bars of counts; a part of each may be hatched (truncated completions in the histogram of lengths).

import { fmt, html, useId, useSize, useState } from "shoal/parts/ui.js";

const BOTTOM = 18;
const TOP = 16; // room for a count over the tallest bar
const FEW = 8; // so many bars have their counts written over them

function Bar({ index, x, width, count, part, top, scale, base, pattern, hovered, onHover }) {
  const height = count * scale;
  const hatched = part * scale;
  return html`<g class=${hovered ? "bar hovered" : "bar"} onMouseEnter=${() => onHover(index)}>
    <rect class="reach" x=${x} y=${top} width=${width} height=${base - top} />
    <rect class="fill" x=${x + 0.5} y=${base - height} width=${Math.max(1, width - 1)} height=${height} />
    ${part ? html`<rect x=${x + 0.5} y=${base - hatched} width=${Math.max(1, width - 1)} height=${hatched} fill=${`url(#${pattern})`} />` : null}
  </g>`;
}

function describe(edges, counts, parts, partLabel, format, index) {
  if (index === null) {
    const total = counts.reduce((sum, count) => sum + count, 0);
    const hatched = (parts ?? []).reduce((sum, count) => sum + count, 0);
    return `${fmt.count(total)} completions` + (hatched ? `, ${fmt.count(hatched)} ${partLabel}` : "");
  }
  const part = parts?.[index] ? `, ${fmt.count(parts[index])} ${partLabel}` : "";
  return `${format(edges[index])} to ${format(edges[index + 1])}: ${fmt.count(counts[index])}${part}`;
}

/** The bars to draw: all of them; of values that are only the least and the greatest, as rewards of 0 and 1 are, those two
 *  beside each other, named by their values. */
function shownBars(edges, counts, format) {
  const all = counts.map((_, index) => ({ index, label: "" }));
  const last = counts.length - 1;
  if (last < 2 || !counts[0] || !counts[last] || counts.slice(1, last).some((count) => count > 0)) return all;
  return [{ index: 0, label: format(edges[0]) }, { index: last, label: format(edges[last + 1]) }];
}

/**
 * edges [n + 1], counts [n], parts [n] of which are hatched. `onPick(low, high)`: a bar was clicked. Its height is
 * the same without data, so that nothing moves when they come.
 */
export function Histogram({ title, edges, counts, parts, partLabel = "truncated", height = 148, format = fmt.number, onPick, ...rest }) {
  const [box, { width }] = useSize();
  const [hovered, setHovered] = useState(null);
  const pattern = useId();
  const most = Math.max(1, ...(counts ?? []));
  const base = height - BOTTOM;
  const bars = shownBars(edges ?? [], counts ?? [], format);
  const step = bars.length ? width / bars.length : 0;
  const scale = (base - TOP) / most;
  // As in the charts: arrows go from bar to bar, Enter opens what one counts.
  const onKeyDown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const at = bars.findIndex(({ index }) => index === hovered);
    if (by) setHovered(bars[Math.min(bars.length - 1, Math.max(0, at + by))].index);
    else if (event.key === "Enter" && hovered !== null && onPick) onPick(edges[hovered], edges[hovered + 1]);
    else return;
    event.preventDefault();
  };
  return html`<figure class="histogram" ...${rest}>
    <figcaption><span>${title}</span><span class="muted">${counts?.length ? describe(edges, counts, parts, partLabel, format, hovered) : "none"}</span></figcaption>
    <div ref=${box} style=${{ height: `${height}px` }}>
      ${width && counts?.length
        ? html`<svg width=${width} height=${height} aria-label=${title} onMouseLeave=${() => setHovered(null)} onBlur=${() => setHovered(null)} onKeyDown=${onKeyDown}
            role="slider" tabindex="0" aria-valuemin="0" aria-valuemax=${bars.length - 1} aria-valuenow=${Math.max(0, bars.findIndex(({ index }) => index === hovered))}
            aria-valuetext=${describe(edges, counts, parts, partLabel, format, hovered)}
            class=${onPick ? "pickable" : ""} onClick=${() => hovered !== null && onPick?.(edges[hovered], edges[hovered + 1])}>
            <defs><pattern id=${pattern} width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
              <rect width="5" height="5" class="hatch-back" /><rect width="2" height="5" class="hatch-line" /></pattern></defs>
            ${bars.map(({ index, label }, place) => html`<${Bar} key=${index} index=${index} x=${(place + (label ? 0.2 : 0)) * step} width=${step * (label ? 0.6 : 1)} count=${counts[index]}
              part=${parts?.[index] ?? 0} top=${0} scale=${scale} base=${base} pattern=${pattern} hovered=${index === hovered} onHover=${setHovered} />`)}
            <line class="axis" x1="0" x2=${width} y1=${base + 0.5} y2=${base + 0.5} />
            ${bars.filter(({ index }) => counts[index] > 0).length <= FEW
              ? bars.map(({ index }, place) => counts[index] ? html`<text key=${index} class="bar-count" x=${(place + 0.5) * step} y=${base - counts[index] * scale - 4} text-anchor="middle">${fmt.count(counts[index])}</text>` : null)
              : html`<line class="axis faint" x1="0" x2=${width} y1=${TOP - 0.5} y2=${TOP - 0.5} /><text x="0" y=${TOP - 4}>${fmt.count(most)}</text>`}
            ${bars[0]?.label
              ? bars.map(({ index, label }, place) => html`<text key=${index} x=${(place + 0.5) * step} y=${height - 4} text-anchor="middle">${label}</text>`)
              : html`<text x="0" y=${height - 4}>${format(edges[0])}</text><text x=${width} y=${height - 4} text-anchor="end">${format(edges.at(-1))}</text>`}
          </svg>`
        : null}
    </div>
  </figure>`;
}
