// The links to the pages, above each of them.

import { html, useLayoutEffect, useRef } from "shoal/parts/ui.js";

/**
 * On a narrow screen they are wider than it: the one that is open is brought into sight.
 *
 * @param {{pages: [string, string, string][], current: string}} props each page's name, its label and its address
 */
export function Nav({ pages, current }) {
  const nav = useRef(null);
  useLayoutEffect(() => {
    const open = nav.current.querySelector("[aria-current=page]")?.getBoundingClientRect();
    const seen = nav.current.getBoundingClientRect();
    // Only this row scrolls: scrollIntoView would move the page as well.
    if (open) nav.current.scrollLeft += open.left + open.width / 2 - (seen.left + seen.width / 2);
  }, [current]);
  return html`<nav class="nav" aria-label="Pages" ref=${nav}>
    ${pages.map(([page, label, address]) => html`<a key=${page} href=${address} aria-current=${page === current ? "page" : undefined} data-testid=${"nav-" + page}>${label}</a>`)}
  </nav>`;
}
