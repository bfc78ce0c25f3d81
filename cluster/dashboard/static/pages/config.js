// The configuration of the run: what differs from the defaults, all of it, and the file as it is.

import { Button, Empty, Loading, Panel, Problem, Segmented, fmt, html, useEffect, useMemo, useRef, useState } from "shoal/parts/ui.js";
import { useApi } from "shoal/frame/api.js";
import { useKeys } from "shoal/frame/keys.js";
import { replaceParams } from "shoal/frame/route.js";
import { Text } from "shoal/parts/text.js";

const VIEWS = [
  { value: "changed", label: "changed" },
  { value: "all", label: "all" },
  { value: "file", label: "file" },
];

/** {"a": {"b": 1}} -> [["a.b", 1]]; lists stay whole. */
function flattened(config, prefix = "") {
  return Object.entries(config).flatMap(([key, value]) => {
    const name = prefix + key;
    const isTable = value !== null && typeof value === "object" && !Array.isArray(value);
    return isTable && Object.keys(value).length ? flattened(value, name + ".") : [[name, value]];
  });
}

function Value({ value }) {
  return value === null || value === undefined ? html`<span class="muted">none</span>` : html`<${Text} value=${fmt.plain(value)} />`;
}

function Key({ name }) {
  const cut = name.lastIndexOf(".") + 1;
  return html`<code><span class="muted"><${Text} value=${name.slice(0, cut)} inline /></span><${Text} value=${name.slice(cut)} inline /></code>`;
}

function Table({ rows, withDefault, changedKeys }) {
  if (!rows.length) return html`<${Empty} title="Nothing of that name." />`;
  return html`<table class="plain config-table" data-testid="config-table">
    <thead><tr><th>key</th><th>value</th>${withDefault ? html`<th>default</th>` : null}</tr></thead>
    <tbody>${rows.map(({ key, value, default: usual }) => html`<tr key=${key} data-key=${key} class=${changedKeys?.has(key) ? "changed" : ""}>
      <td><${Key} name=${key} /></td><td><${Value} value=${value} /></td>${withDefault ? html`<td class="muted"><${Value} value=${usual} /></td>` : null}</tr>`)}</tbody>
  </table>`;
}

function About({ info }) {
  if (!info) return null;
  const facts = [["model", info.model], ["task", info.task], ["started", fmt.date(info.started_s)], ["last written", fmt.date(info.updated_s)], ["directory", info.path]];
  return html`<dl class="figures">${facts.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd><${Text} value=${value} inline /></dd></div>`)}</dl>`;
}

function CopyButton({ text }) {
  const [state, setState] = useState("Copy");
  const copy = () => navigator.clipboard?.writeText(text).then(() => setState("Copied"), () => setState("Not allowed here"));
  return html`<${Button} onClick=${copy} data-testid="copy-config">${state}<//>`;
}

export default function Config({ run, route, frame }) {
  const { data, error, refresh } = useApi(`/runs/${encodeURIComponent(run)}/config`, ["config"]);
  const search = useRef(null);
  const { params } = route;
  const view = VIEWS.some(({ value }) => value === params.view) ? params.view : data && !data.changed.length ? "all" : "changed";
  const wanted = (params.find ?? "").toLowerCase();
  const rows = useMemo(() => {
    if (!data) return [];
    const all = view === "changed" ? data.changed : flattened(data.config).map(([key, value]) => ({ key, value }));
    return all.filter(({ key, value }) => (key + " " + fmt.plain(value)).toLowerCase().includes(wanted));
  }, [data, view, wanted]);
  const changedKeys = useMemo(() => new Set(data?.changed.map(({ key }) => key)), [data]);
  useKeys({ "/": [() => search.current?.focus(), "find a key"] }, "Config");
  useEffect(() => {
    // While somebody types, the field is ahead of the address.
    if (search.current && search.current !== document.activeElement) search.current.value = params.find ?? "";
  }, [params.find, data === null, view]);
  const empty = data && !data.yaml && !Object.keys(data.config).length;
  return html`<div class="page" data-testid="config-page">
    <${About} info=${frame?.info} /><${Problem} error=${error} retry=${refresh} />
    ${empty ? html`<${Empty} title="This run has no configuration that can be read." />` : null}
    ${data || error ? null : html`<${Loading} index=${frame?.index} />`}
    ${data && !empty ? html`<${Panel} title=${view === "changed" ? `${data.changed.length} keys differ from their default` : view === "all" ? "All keys" : "config.yaml"}
      actions=${html`${view === "file" ? html`<${CopyButton} text=${data.yaml} />` : html`<input class="field" type="search" placeholder="Find (/)" aria-label="Find a key" ref=${search} data-testid="config-find"
          onInput=${(event) => replaceParams({ find: event.currentTarget.value || null })} />`}
        <${Segmented} label="What to show" options=${VIEWS} value=${view} onChange=${(to) => replaceParams({ view: to })} data-testid="config-view" />`}>
      ${data.note ? html`<p class="muted note">${data.note}</p>` : null}
      ${view === "file" ? html`<pre class="file" data-testid="config-file"><${Text} value=${data.yaml} /></pre>` : html`<${Table} rows=${rows} withDefault=${view === "changed"} changedKeys=${view === "all" ? changedKeys : null} />`}
    <//>` : null}
  </div>`;
}
