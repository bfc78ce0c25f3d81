// A table of any length: only the rows in sight exist. Its header sorts; j and k, Home and End move, Enter opens.

import { html, useEffect, useLayoutEffect, useRef, useState } from "shoal/parts/ui.js";
import { useKeys } from "shoal/frame/keys.js";
import { Text } from "shoal/parts/text.js";

export const ROW_HEIGHT = 26;
const OVERSCAN = 8;
const MAX_PIXELS = 8_000_000; // browsers lose count of taller elements: beyond, a scrolled pixel is more than a pixel

function Header({ columns, sort, onSort }) {
  return html`<div class="vt-row vt-head" role="row">
    ${columns.map(({ key, label, width, grow, align, title, sortable }) => {
      const direction = sort === key ? "ascending" : sort === "-" + key ? "descending" : undefined;
      const style = cellStyle(width, grow);
      if (!sortable) return html`<div role="columnheader" class=${"vt-cell " + (align ?? "")} style=${style} title=${title} key=${key}><${Text} value=${label} inline /></div>`;
      return html`<div role="columnheader" aria-sort=${direction} class=${"vt-cell " + (align ?? "")} style=${style} key=${key}>
        <button type="button" title=${title} data-sort=${key} onClick=${() => onSort?.(direction === "descending" ? key : "-" + key)}>
          <${Text} value=${label} inline /><span class="sort-mark">${direction === "ascending" ? "↑" : direction === "descending" ? "↓" : ""}</span>
        </button></div>`;
    })}
  </div>`;
}

function cellStyle(width, grow = 1) {
  return typeof width === "number" ? { flex: `0 0 ${width}px` } : { flex: `${grow} 1 ${width ?? "120px"}` };
}

function Row({ row, index, columns, selected, onSelect, onOpen, testid }) {
  return html`<div class=${"vt-row" + (selected ? " selected" : "") + (row ? "" : " pending")} role="row" aria-rowindex=${index + 1}
    aria-selected=${selected} data-testid=${testid} data-index=${index}
    onClick=${() => row && (onOpen ? onOpen(row, index) : onSelect?.(index))}>
    ${columns.map(({ key, width, grow, align, render }) => html`<div role="gridcell" class=${"vt-cell " + (align ?? "")} style=${cellStyle(width, grow)} key=${key}>
      ${row ? (render ? render(row, index) : row[key]) : null}</div>`)}
  </div>`;
}

/** Which rows are in sight: {first, last, shift}; `shift` is where the first one stands, in pixels. */
function windowOf(scrollTop, height, total) {
  const full = total * ROW_HEIGHT;
  const pixels = Math.min(full, MAX_PIXELS);
  const ratio = pixels > height ? Math.max(0, full - height) / (pixels - height) : 1;
  const top = scrollTop * ratio;
  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(total, Math.ceil((top + height) / ROW_HEIGHT) + OVERSCAN);
  return { first, last, ratio, pixels, shift: scrollTop - (top - first * ROW_HEIGHT) };
}

/**
 * columns: [{key, label, width (pixels, or a CSS basis that grows, `grow` times as much as others), align: "right",
 * render(row), sortable, title}].
 * rowAt(index) -> row, or undefined while it is on its way; onVisible(first, last) tells which ones are needed.
 * sort: "key" or "-key"; selected: index; onSelect(index) by keys, onOpen(row, index) by click or Enter.
 */
export function VirtualTable({ columns, total, rowAt, onVisible, sort, onSort, selected = -1, onSelect, onOpen, height = 480, label, keys = true, rowTestid = "row", ...rest }) {
  const scroller = useRef(null);
  const [scrollTop, setScrollTop] = useState(0);
  const view = windowOf(scrollTop, height, total);
  useEffect(() => {
    onVisible?.(view.first, view.last);
  }, [view.first, view.last, total]);
  useLayoutEffect(() => {
    if (selected >= 0) reveal(scroller.current, selected, view.ratio, height);
  }, [selected]);
  const move = (by) => {
    if (!onSelect || !total) return false;
    onSelect(Math.min(total - 1, Math.max(0, selected + by)));
    return true;
  };
  const open = () => {
    const row = selected >= 0 ? rowAt(selected) : undefined;
    if (!row || !onOpen) return false;
    onOpen(row, selected);
    return true;
  };
  useKeys(keys ? tableKeys(move, open, total, selected, height) : {}, "Table");
  return html`<div class="vtable" ...${rest}>
    <div class="vt-scroll" ref=${scroller} role="grid" aria-label=${label} aria-rowcount=${total} tabindex="0" style=${{ height: `${height}px` }}
        onScroll=${(event) => setScrollTop(event.currentTarget.scrollTop)}>
      <div class="vt-headgroup" role="rowgroup"><${Header} columns=${columns} sort=${sort} onSort=${onSort} /></div>
      <div class="vt-body" role="rowgroup" style=${{ height: `${view.pixels}px` }}>
        <div class="vt-window" role="presentation" style=${{ transform: `translateY(${view.shift}px)` }}>
          ${Array.from({ length: view.last - view.first }, (_, i) => view.first + i).map(
            (index) => html`<${Row} key=${index} index=${index} row=${rowAt(index)} columns=${columns} selected=${index === selected}
              onSelect=${onSelect} onOpen=${onOpen} testid=${rowTestid} />`,
          )}
        </div>
      </div>
    </div>
  </div>`;
}

function tableKeys(move, open, total, selected, height) {
  const page = Math.max(1, Math.floor(height / ROW_HEIGHT) - 2);
  return {
    j: [() => move(1), "next row"],
    k: [() => move(-1), "previous row"],
    PageDown: [() => move(page), ""],
    PageUp: [() => move(-page), ""],
    Home: [() => move(-total), "first row"],
    End: [() => move(total), "last row"],
    Enter: [open, "open the row"],
  };
}

function reveal(element, index, ratio, height) {
  const top = (index * ROW_HEIGHT) / ratio;
  const visible = height - ROW_HEIGHT; // the header covers one row
  if (top < element.scrollTop) element.scrollTop = top;
  else if (top + ROW_HEIGHT > element.scrollTop + visible) element.scrollTop = top + ROW_HEIGHT - visible;
}
