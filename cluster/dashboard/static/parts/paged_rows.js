// The rows of a query that may have a million: pages of 200 around what is in sight, kept while the run goes on.

import { useEffect, useReducer, useRef } from "shoal/parts/ui.js";
import { get, useApi } from "shoal/frame/api.js";

export const PAGE_ROWS = 200;
const MAX_PAGES = 40;
const SETTLE_MS = 60; // somebody who drags the scroll bar over a million rows wants the last page, not all of them

const rowKey = (row) => `${row.phase}/${row.step}/${row.group_id}/${row.sample_index}`;

/** Whether two first pages show the same rows as far as the older one goes. Pure. */
export function sameStart(before, after) {
  return before.every((row, i) => after[i] && rowKey(row) === rowKey(after[i]));
}

/** {head, total, rowAt(index), onVisible(first, last), fresh, showFresh()} of the query `base` ("/runs/R/rollouts?filter=..").
 *
 *  New rows while the run goes on: where they come at the end, or the first row is in sight, they are shown at once; else
 *  the rows stay where they are and `fresh` tells how many more there are until showFresh() is called. */
export function usePagedRows(base) {
  const head = useApi(`${base}&offset=0&limit=${PAGE_ROWS}`, ["rollouts"]);
  const store = useRef({ base: null, pages: new Map(), asked: new Set(), total: 0, fresh: 0, seen: null, visible: [0, 0], timer: 0 });
  const [, redraw] = useReducer((/** @type {number} */ count, /** @type {void} */ _) => count + 1, 0);
  const now = store.current;

  const restart = (data) => Object.assign(now, { base, pages: new Map([[0, data.rows]]), asked: new Set(), total: data.total, fresh: 0 });
  if (head.data && !head.stale && head.data !== now.seen) {
    now.seen = head.data;
    if (now.base !== base) restart(head.data);
    else if (now.visible[0] === 0 || sameStart(now.pages.get(0) ?? [], head.data.rows)) restart(head.data);
    else now.fresh = head.data.total - now.total;
  }

  const fetchVisible = () => {
    const [first, last] = now.visible;
    for (let page = Math.floor(first / PAGE_ROWS); page * PAGE_ROWS < Math.min(last, now.total); page++) {
      if (now.pages.has(page) || now.asked.has(page)) continue;
      const asked = now.asked;
      asked.add(page);
      get(`${base}&offset=${page * PAGE_ROWS}&limit=${PAGE_ROWS}`).then(
        (data) => {
          if (now.asked !== asked) return; // the table has begun anew since
          keep(now, page, data.rows);
          redraw();
        },
        () => asked.delete(page), // asked again when it is next in sight; the head tells what is wrong
      );
    }
  };
  const onVisible = (first, last) => {
    now.visible = [first, last];
    clearTimeout(now.timer);
    now.timer = setTimeout(fetchVisible, SETTLE_MS);
  };
  useEffect(() => {
    fetchVisible();
    return () => clearTimeout(now.timer);
  }, [now.asked]);
  return {
    head,
    total: now.total,
    fresh: now.fresh,
    rowAt: (index) => now.pages.get(Math.floor(index / PAGE_ROWS))?.[index % PAGE_ROWS],
    onVisible,
    showFresh: () => {
      restart(now.seen);
      redraw();
    },
  };
}

/** Keeps a page, and drops the one furthest from it where there are too many; the first one stays. */
function keep(store, page, rows) {
  store.pages.set(page, rows);
  if (store.pages.size <= MAX_PAGES) return;
  const far = [...store.pages.keys()].filter((one) => one !== 0).sort((a, b) => Math.abs(b - page) - Math.abs(a - page))[0];
  store.pages.delete(far);
  store.asked.delete(far);
}
