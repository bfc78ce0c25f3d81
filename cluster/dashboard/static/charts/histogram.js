// Bars of counts; a part of each may be hatched (truncated completions in the histogram of lengths).

import { fmt, html, useId, useSize, useState } from "shoal/parts/ui.js";

const BOTTOM = 18;

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
  const step = counts?.length ? width / counts.length : 0;
  const scale = (base - 6) / most;
  return html`<figure class="histogram" ...${rest}>
    <figcaption><span>${title}</span><span class="muted">${counts?.length ? describe(edges, counts, parts, partLabel, format, hovered) : "none"}</span></figcaption>
    <div ref=${box} style=${{ height: `${height}px` }}>
      ${width && counts?.length
        ? html`<svg width=${width} height=${height} role="img" aria-label=${title} onMouseLeave=${() => setHovered(null)}
            class=${onPick ? "pickable" : ""} onClick=${() => hovered !== null && onPick?.(edges[hovered], edges[hovered + 1])}>
            <defs><pattern id=${pattern} width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
              <rect width="5" height="5" class="hatch-back" /><rect width="2" height="5" class="hatch-line" /></pattern></defs>
            ${counts.map((count, i) => html`<${Bar} key=${i} index=${i} x=${i * step} width=${step} count=${count} part=${parts?.[i] ?? 0}
              top=${0} scale=${scale} base=${base} pattern=${pattern} hovered=${i === hovered} onHover=${setHovered} />`)}
            <line class="axis" x1="0" x2=${width} y1=${base + 0.5} y2=${base + 0.5} />
            <text x="0" y=${height - 4}>${format(edges[0])}</text>
            <text x=${width} y=${height - 4} text-anchor="end">${format(edges.at(-1))}</text>
          </svg>`
        : null}
    </div>
  </figure>`;
}
