// The filter: a line that completes names, shows an error at its place, explains its language and remembers.

import { html, useEffect, useId, useRef, useState } from "shoal/parts/ui.js";
import { completed, completions, errorPosition, EXAMPLES } from "shoal/rollouts/filter_language.js";

const STORE = "shoal.filters";
const MAX_REMEMBERED = 20;

/** Filters used before, newest first; none where the browser keeps nothing (a private window, a file). */
export function remembered() {
  try {
    const list = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return Array.isArray(list) ? list.filter((one) => typeof one === "string") : [];
  } catch {
    return [];
  }
}

export function remember(filter) {
  if (!filter) return;
  try {
    localStorage.setItem(STORE, JSON.stringify([filter, ...remembered().filter((one) => one !== filter)].slice(0, MAX_REMEMBERED)));
  } catch {
    // Nothing is kept: the box works without a history.
  }
}

function FilterError({ message, filter, shift }) {
  const position = errorPosition(message);
  const caret = position === null ? null : Math.max(0, Math.min(filter.length, position - shift));
  return html`<div class="rl-error" role="alert" data-testid="filter-error" data-position=${caret}>
    ${caret === null ? null : html`<pre aria-hidden="true">${`${" ".repeat(caret)}▲`}</pre>`}
    ${message}
  </div>`;
}

/** What can be asked, with examples that a click tries. */
export function FilterHelp({ fields, onTry }) {
  return html`<div class="rl-help" data-testid="filter-help">
    <p>
      Comparisons <code>field operator value</code> with <code>${"< <= > >= = != ~ !~"}</code> (<code>~</code> contains), joined by${" "}
      <code>&</code>, <code>|</code>, <code>!</code> and parentheses. <code>step:400-412</code> is a range, <code>answer=none</code> an absence; flags${" "}
      such as <code>correct</code> stand alone; <code>reward.NAME</code> is a component. A word alone searches the completions. Enter applies.
    </p>
    <p>
      ${EXAMPLES.map(
        ([example, meaning]) => html`<div key=${example}>
          <button type="button" class="tk-link" onClick=${() => onTry(example)}><code>${example}</code></button> <span class="tk-dim">${meaning}</span>
        </div>`,
      )}
    </p>
    <dl>
      ${fields.map(({ name, type, help }) => html`<div key=${name}><dt>${name}</dt><dd>${help}${type === "flag" ? " (flag)" : ""}</dd></div>`)}
    </dl>
  </div>`;
}

const usedBefore = () => remembered().map((filter) => ({ filter, help: "used before" }));

function Choices({ id, list, active, onTake }) {
  return html`<ul class="rl-list" id=${id} role="listbox" data-testid="filter-list">
    ${list.map(
      (choice, i) => html`<li key=${choice.insert ?? choice.filter} id=${`${id}-${i}`} role="option" aria-selected=${i === active} class=${i === active ? "active" : ""}
        onMouseDown=${(event) => {
          event.preventDefault(); // the field keeps the focus
          onTake(choice);
        }}>
        <code>${choice.insert ?? choice.filter}</code><span class="tk-dim">${choice.help}</span>
      </li>`,
    )}
  </ul>`;
}

/** A key in the field: arrows go through the choices, Tab takes one, Enter takes it or applies, Escape leaves. */
function pressed(event, { draft, list, active, input, setList, setActive, take, apply, close }) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && list.length) {
    event.preventDefault();
    setActive((now) => (now + step + list.length + (now < 0 && step < 0 ? 1 : 0)) % list.length);
  } else if (step === -1 && !list.length) {
    event.preventDefault();
    setList(usedBefore());
  } else if (event.key === "Tab" && list.length && !event.shiftKey && draft !== "") {
    event.preventDefault();
    take(list[Math.max(0, active)]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (active >= 0) take(list[active]);
    else apply(draft);
  } else if (event.key === "Escape") {
    event.stopPropagation();
    if (list.length) close();
    else input.blur();
  }
}

/** Props: value (applied), error (sentence or null), shift (characters that stand before the filter in what was asked),
 *  fields, onApply(filter), inputRef, helpOpen, onHelp(). */
export function FilterBox({ value, error, shift, fields, onApply, inputRef, helpOpen, onHelp }) {
  const [draft, setDraft] = useState(value);
  const [list, setList] = useState(/** @type {{insert?: string, filter?: string, help: string}[]} */ ([]));
  const [active, setActive] = useState(-1);
  const caret = useRef(null);
  const id = useId();
  useEffect(() => setDraft(value), [value]);
  useEffect(() => {
    if (caret.current === null) return;
    inputRef.current.setSelectionRange(caret.current, caret.current);
    caret.current = null;
  }, [draft]);

  const close = () => {
    setList([]);
    setActive(-1);
  };
  const suggest = (input) => {
    setActive(-1);
    const typed = input.value;
    if (typed === "") setList(usedBefore());
    else setList(completions(typed, input.selectionStart, fields));
  };
  const take = (choice) => {
    const input = inputRef.current;
    const [next, at] = choice.filter !== undefined ? [choice.filter, choice.filter.length] : completed(draft, input.selectionStart, choice.insert);
    caret.current = at;
    setDraft(next);
    close();
    input.focus();
  };
  const apply = (filter) => {
    close();
    remember(filter.trim());
    onApply(filter.trim());
  };
  const onKeyDown = (event) => pressed(event, { draft, list, active, input: inputRef.current, setList, setActive, take, apply, close });
  return html`<div class="rl-field">
    <input ref=${inputRef} class="with-help" type="text" data-testid="filter" value=${draft} placeholder="filter: reward<1 & gap>1" spellcheck=${false} autocomplete="off"
      role="combobox" aria-label="Filter" aria-expanded=${list.length > 0} aria-controls=${id} aria-invalid=${Boolean(error)}
      aria-activedescendant=${active >= 0 ? `${id}-${active}` : undefined}
      onInput=${(event) => {
        setDraft(event.currentTarget.value);
        suggest(event.currentTarget);
      }}
      onFocus=${(event) => event.currentTarget.value === "" && suggest(event.currentTarget)}
      onBlur=${close} onKeyDown=${onKeyDown} />
    <span class="rl-inside">
      ${draft ? html`<button type="button" aria-label="Clear the filter" onClick=${() => apply("")}>×</button>` : null}
      <button type="button" aria-label="How to filter" aria-expanded=${helpOpen} data-testid="filter-help-button" onClick=${onHelp}>?</button>
    </span>
    ${list.length ? html`<${Choices} id=${id} list=${list} active=${active} onTake=${take} />` : null}
    ${error ? html`<${FilterError} message=${error} filter=${value} shift=${shift} />` : null}
  </div>`;
}
