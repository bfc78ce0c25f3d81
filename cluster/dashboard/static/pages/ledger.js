import { Empty, html } from "shoal/ui.js";

export default function Page() {
  return html`<${Empty} title="ledger" />`;
}
