// The catalog: every asset on one line, found by the language of the command line.
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useRef } from "react";
import { type Schemas, useApi } from "../api/client";
import { Empty, Glyph, Loaded, Page, Status, Time, Words, count, plural, toneOf, useTyped } from "../ui/parts";

const STATUSES = ["failed", "late", "missing", "stale", "fresh", "external"];
const COLUMNS: [string, string | undefined][] = [["Asset", "key"], ["Kind", undefined], ["Status", "status"], ["Why", undefined], ["Changed", "changed"], ["Rows", undefined], ["Checks", undefined], ["Group", "group"]];

export function Assets() {
  const search = useSearch({ strict: false }) as { text?: string; select?: string; status?: string; sort?: string };
  const navigate = useNavigate();
  const set = (next: Record<string, string | undefined>) => void navigate({ to: "/assets", search: (old) => ({ ...old, ...next }), replace: true });
  const said = search.select ?? search.text ?? "";
  const [text, type] = useTyped(said, (typed) => {
    // What looks like a selection is one; anything else is looked for in names, owners, groups, tags and descriptions.
    const isSelection = /[+*:@]|\.\*/.test(typed);
    set({ text: isSelection ? undefined : typed || undefined, select: isSelection ? typed : undefined });
  });
  const assets = useApi("/api/v1/assets", {}, { text: search.text, select: search.select, status: search.status, sort: search.sort, limit: 20_000 }, { keep: true });
  const chosen = new Set((search.status ?? "").split(",").filter(Boolean));
  const toggle = (status: string) => {
    const next = new Set(chosen);
    if (!next.delete(status)) next.add(status);
    set({ status: [...next].join(",") || undefined });
  };
  return (
    <Page title="Assets" sub={assets.data ? plural(assets.data.total, "asset") : undefined} actions={<Link className="button primary" to="/plan" search={search.select ? { select: search.select } : {}}>Plan…</Link>}>
      <div className="row">
        <input type="search" className="input" style={{ maxWidth: 420 }} value={text} onChange={(event) => type(event.target.value)} placeholder="Name, owner, tag, or a selection: +gold.sales tag:daily" aria-label="Find assets" />
        <div className="chips" role="group" aria-label="Status">
          {STATUSES.map((status) => (
            <button type="button" key={status} className="chip" aria-pressed={chosen.has(status)} onClick={() => toggle(status)}><Status status={status} /><span className="muted">{count(assets.data?.counts[status] ?? 0)}</span></button>
          ))}
        </div>
      </div>
      <Loaded query={assets} rows={12}>
        {(data) => data.items.length > 0 ? <Rows items={data.items} sort={search.sort ?? "key"} onSort={(sort) => set({ sort })} /> : (
          <Empty title={text || chosen.size ? "No asset is like that" : "There are no assets yet"} text={text || chosen.size ? "Another word or fewer filters may find it." : "An asset is a table that the project keeps up to date: a query, a file, a stream of a source. A file below assets/ declares one."} action={text || chosen.size ? <button type="button" className="button primary" onClick={() => { type(""); void navigate({ to: "/assets", search: {} }); }}>Show all</button> : <Link className="button primary" to="/docs/$topic" params={{ topic: "start" }}>Make the first</Link>} doc={{ topic: "concepts/selection", label: "How to select" }} />
        )}
      </Loaded>
    </Page>
  );
}

function Rows({ items, sort, onSort }: { items: Schemas["AssetView"][]; sort: string; onSort: (sort: string) => void }) {
  const scroll = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({ count: items.length, getScrollElement: () => scroll.current, estimateSize: () => 32, overscan: 12 });
  return (
    <div className="vtable" ref={scroll} role="table" aria-label="Assets" aria-rowcount={items.length + 1}>
      <div className="vrow vhead" role="row">
        {COLUMNS.map(([word, key]) => (
          <span key={word} role="columnheader" className={word === "Rows" ? "right" : ""} aria-sort={key && sort.replace("-", "") === key ? (sort.startsWith("-") ? "descending" : "ascending") : undefined}>
            {key ? <button type="button" onClick={() => onSort(sort === key ? `-${key}` : key)}>{word}{sort === key ? " ↑" : sort === `-${key}` ? " ↓" : ""}</button> : word}
          </span>
        ))}
      </div>
      <div className="vbody" style={{ height: rows.getTotalSize() }} role="rowgroup">
        {rows.getVirtualItems().map((row) => {
          const asset = items[row.index];
          if (!asset) return null;
          const passed = asset.check_count > 0 && asset.checks_passed === asset.check_count;
          return (
            <Link key={asset.asset} data-row to="/assets/$asset" params={{ asset: asset.asset }} className="vrow" role="row" aria-rowindex={row.index + 2} style={{ transform: `translateY(${row.start}px)` }}>
              <span role="cell" title={asset.asset}>{asset.asset}</span>
              <span role="cell" className="muted">{asset.kind}</span>
              <span role="cell"><Status status={asset.status} /></span>
              <span role="cell" className="muted" title={asset.reason ?? ""}><Words text={asset.reason} /></span>
              <span role="cell" className="muted"><Time at={asset.changed_at} /></span>
              <span role="cell" className="right">{count(asset.row_count)}</span>
              <span role="cell">{asset.check_count === 0 ? <span className="muted">none</span> : <span className={`status tone-${passed ? "good" : toneOf(asset.status) === "bad" ? "bad" : "idle"}`}><Glyph tone={passed ? "good" : toneOf(asset.status) === "bad" ? "bad" : "idle"} size={12} /><span>{asset.checks_passed} of {asset.check_count}</span></span>}</span>
              <span role="cell" className="muted">{asset.group}</span>
            </Link>
          );
        })}
      </div>
    </div>
  );
}
