// What a span tells, in words: beside the pointer and in the panel below the timeline.

import { KINDS } from "shoal/timeline/model.js";
import { Text } from "shoal/parts/text.js";
import { HoverCard, fmt, html } from "shoal/parts/ui.js";

export function seconds(value) {
  return value >= 1 && value < 60 ? `${value.toFixed(2)} s` : fmt.seconds(value);
}

// Lines of [name, text] about a span; `origin` is time 0 of the axis.
export function spanLines(span, origin) {
  const lines = [["from", `${(span.start - origin).toFixed(2)} s`]];
  if (span.end > span.start) lines.push([span.kinds ? "of" : "lasted", seconds(span.end - span.start)]);
  if (span.step != null) lines.push(["step", `${span.step}`]);
  if (span.for) lines.push(["waits for", span.for]);
  if (span.groups) lines.push(["groups", `${span.groups}`]);
  return lines;
}

export function KindMark({ kind }) {
  return html`<span class=${`kind-mark span-${kind}`} title=${KINDS[kind] ?? kind}></span>`;
}

export function Facts({ lines }) {
  return html`<dl class="facts">
    ${lines.map(([name, value]) => html`<dt><${Text} value=${name} inline /></dt><dd><${Text} value=${value} inline /></dd>`)}
  </dl>`;
}

// pointer: {left, top, span, lane} as the timeline's canvas knows it.
export function SpanCard({ pointer, origin }) {
  const { span, lane, left, top } = pointer;
  return html`<${HoverCard} x=${left} y=${top} class="span-card" data-testid="span-card">
    <div class="span-card-head"><${KindMark} kind=${span.kind} /><b>${span.kind}</b><span class="muted"><${Text} value=${lane.actor} inline /></span></div>
    ${span.label && span.label !== span.kind ? html`<div><${Text} value=${span.label} inline /></div>` : null}
    <${Facts} lines=${spanLines(span, origin)} />
    ${span.kinds ? html`<${Facts} lines=${span.kinds.map(([kind, share]) => [kind, fmt.percent(share)])} />
        <div class="muted">zoom in for its spans</div>` : null}
    ${span.groups > 0 ? html`<div class="muted">click for its groups</div>` : null}
  <//>`;
}
