// Log: what happened to the run and its actors, and what every process was doing when one hung.

import { useApi } from "shoal/frame/api.js";
import { useKeys } from "shoal/frame/keys.js";
import { href, replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";
import { Badge, Button, Empty, Loading, Panel, Problem, fmt, html, useEffect, useRef, useState } from "shoal/parts/ui.js";

const AT_A_TIME = 200;

function Entry({ run, entry }) {
  const { time_s: time, actor, what, severity, text, step } = entry;
  return html`<tr data-testid="log-entry" data-what=${what}>
    <td class="num">${fmt.date(time)}</td>
    <td>${step === null ? null : html`<a href=${href("step", ["train", step], {}, run)}>step ${step}</a>`}</td>
    <td><${Text} value=${actor} inline /></td>
    <td>${severity === "info" ? html`<span class="muted">${what.replaceAll("_", " ")}</span>` : html`<${Badge} state=${severity} plain>${what.replaceAll("_", " ")}<//>`}</td>
    <td><${Text} value=${text} /></td>
  </tr>`;
}

/** What every thread of a process was doing, asked for when it is opened. */
function Stack({ run, file }) {
  const [open, setOpen] = useState(false);
  const { data, error } = useApi(open ? `/runs/${encodeURIComponent(run)}/stacks/${encodeURIComponent(file.name)}` : null);
  return html`<details data-testid="stack" onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary><code><${Text} value=${file.name} inline /></code> <span class="muted">${fmt.date(file.time_s)}, ${fmt.withUnit(file.bytes, "bytes")}</span></summary>
    <${Problem} error=${error} />
    ${data ? html`<pre class="stack" tabindex="0" aria-label=${file.name}><${Text} value=${data.text} /></pre>` : null}
    ${data?.is_cut ? html`<p class="muted">The file is longer; this is its beginning.</p>` : null}
  </details>`;
}

export default function LogPage({ run, route, frame }) {
  const { data, error, refresh } = useApi(`/runs/${encodeURIComponent(run)}/log`, ["events"]);
  const [more, setMore] = useState(0);
  const input = useRef(null);
  const wanted = (route.params.find ?? "").toLowerCase();
  useEffect(() => setMore(0), [wanted]);
  useKeys({ "/": [() => input.current?.focus(), "find in the log"] }, "Log");
  if (!data) return html`<div class="page"><${Problem} error=${error} retry=${refresh} />${error ? null : html`<${Loading} index=${frame?.index} />`}</div>`;
  const found = data.entries.filter(({ actor, what, text }) => `${actor} ${what.replaceAll("_", " ")} ${text}`.toLowerCase().includes(wanted)).reverse();
  const shown = found.slice(0, AT_A_TIME * (1 + more));
  return html`<div class="page" data-testid="log">
    <${Problem} error=${error} retry=${refresh} />
    <${Panel} title="What happened, the newest first" actions=${html`<input ref=${input} type="search" aria-label="Find in the log" placeholder="find ( / )" value=${route.params.find ?? ""} data-testid="log-search"
      onInput=${(event) => replaceParams({ find: event.currentTarget.value || null })} />`}>
      ${shown.length
        ? html`<div class="wide"><table class="plain log-table"><thead><tr><th>when</th><th>step</th><th>actor</th><th>what</th><th></th></tr></thead>
            <tbody>${shown.map((entry, index) => html`<${Entry} key=${`${entry.time_s} ${index}`} run=${run} entry=${entry} />`)}</tbody></table></div>`
        : html`<${Empty} title=${data.entries.length ? "Nothing in the log has these words." : "Nothing out of the ordinary was recorded."} />`}
      ${found.length > shown.length ? html`<${Button} onClick=${() => setMore(more + 1)}>${fmt.count(found.length - shown.length)} more<//>` : null}
      ${data.left_out ? html`<p class="muted">${fmt.count(data.left_out)} older ones are in events.jsonl.</p>` : null}
    <//>
    <${Panel} title=${`Stacks (${data.stacks.length})`} help="What every thread was doing when the run stalled, or an actor did not answer in time. The files of one moment have the same number.">
      ${data.stacks.length ? data.stacks.map((file) => html`<${Stack} key=${file.name} run=${run} file=${file} />`) : html`<${Empty} title="No process hung." />`}
    <//>
  </div>`;
}
