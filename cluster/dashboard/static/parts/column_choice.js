// A menu in which the columns of a table are chosen.

import { Button, html, useEffect, useRef } from "shoal/parts/ui.js";
import { useKeys } from "shoal/frame/keys.js";
import { Text } from "shoal/parts/text.js";

/** all: [{key, label, help}]; chosen, usual: keys; onChange(keys). Closed by Escape and by a click beside it. */
export function ColumnChoice({ all, chosen, usual, onChange }) {
  const menu = useRef(null);
  const close = () => {
    if (!menu.current?.open) return false;
    menu.current.open = false;
    menu.current.querySelector("summary").focus();
    return true;
  };
  useEffect(() => {
    const outside = (event) => {
      if (menu.current?.open && !menu.current.contains(event.target)) menu.current.open = false;
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, []);
  useKeys({ Escape: [close, ""] });
  return html`<details class="rl-columns" data-testid="column-choice" ref=${menu}>
    <summary>columns</summary>
    <div>
      ${all.map(
        ({ key, label, help }) => html`<label key=${key} title=${help}>
          <input type="checkbox" checked=${chosen.includes(key)} onChange=${() => onChange(chosen.includes(key) ? chosen.filter((one) => one !== key) : [...chosen, key])} />
          <${Text} value=${label} inline />
        </label>`,
      )}
      <${Button} onClick=${() => onChange(usual)}>usual columns<//>
    </div>
  </details>`;
}
