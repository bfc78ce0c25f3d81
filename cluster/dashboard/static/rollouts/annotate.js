// What a person notes of a completion: a label, a note, a bookmark. It is kept beside the run, and filters know it.

import { isReport, post } from "shoal/frame/api.js";
import { useKeys } from "shoal/frame/keys.js";
import { Text } from "shoal/parts/text.js";
import { Button, html, Problem, useEffect, useState } from "shoal/parts/ui.js";

const NOTHING = { label: null, note: null, bookmarked: false };

/** `address` is that of the completion, `annotation` what the server has of it. */
export function Annotate({ run, address, annotation }) {
  const [kept, setKept] = useState(annotation ?? NOTHING);
  const [draft, setDraft] = useState(annotation ?? NOTHING);
  const [state, setState] = useState({ busy: false, error: /** @type {any} */ (null) });
  const known = JSON.stringify(annotation ?? NOTHING);
  useEffect(() => {
    setKept(JSON.parse(known));
    setDraft(JSON.parse(known));
    setState({ busy: false, error: null });
  }, [known, address]);
  const save = async (next) => {
    setState({ busy: true, error: null });
    try {
      const now = await post(`/runs/${encodeURIComponent(run)}/annotations`, { address, ...next });
      setKept(now);
      setDraft(now);
      setState({ busy: false, error: null });
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  const bookmark = () => save({ ...draft, bookmarked: !kept.bookmarked });
  useKeys(isReport ? {} : { b: [bookmark, "bookmark"] }, "Completion");
  if (isReport) {
    return kept.label || kept.note || kept.bookmarked
      ? html`<p class="annotate" data-testid="annotation">${kept.bookmarked ? "★ " : ""}<${Text} value=${[kept.label, kept.note].filter(Boolean).join(": ")} /></p>`
      : null;
  }
  const isChanged = (draft.label ?? "") !== (kept.label ?? "") || (draft.note ?? "") !== (kept.note ?? "");
  return html`<form class="annotate" data-testid="annotation" onSubmit=${(event) => (event.preventDefault(), save(draft))}>
    <${Button} active=${kept.bookmarked} aria-pressed=${kept.bookmarked} disabled=${state.busy} onClick=${bookmark} title="bookmark (b)" data-testid="bookmark">${kept.bookmarked ? "★ bookmarked" : "☆ bookmark"}<//>
    <label>label <input type="text" maxlength="100" value=${draft.label ?? ""} data-testid="label" onInput=${(event) => setDraft({ ...draft, label: event.currentTarget.value })} /></label>
    <label class="annotate-note">note <input type="text" maxlength="4000" value=${draft.note ?? ""} data-testid="note" onInput=${(event) => setDraft({ ...draft, note: event.currentTarget.value })} /></label>
    <button type="submit" class="button" disabled=${state.busy || !isChanged} data-testid="save-annotation">save</button>
    <${Problem} error=${state.error} />
  </form>`;
}
