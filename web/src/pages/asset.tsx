// One asset: how it stands, what became of it, its partitions, checks, columns and definition.
import { Link, useParams, useSearch } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { ApiProblem, type Schemas, useApi, useSend } from "../api/client";
import { NotFound, useMay } from "../shell";
import { Code, Dialog, Empty, Glyph, Loaded, Page, Panel, Problem, Skeleton, Status, Time, Words, count, duration, plural, toneOf, useIcon, Scroll, Tab } from "../ui/parts";
import { StartBackfill } from "./backfills";
import { FailurePanel } from "./failure";
import { Sample } from "./sql";

type Detail = Schemas["AssetDetail"];
const TABS = ["overview", "rows", "partitions", "checks", "columns", "definition"] as const;

export function Asset() {
  const { asset: key = "" } = useParams({ strict: false }) as { asset?: string };
  const { tab = "overview" } = useSearch({ strict: false }) as { tab?: string };
  const asset = useApi("/api/v1/assets/{asset}", { asset: key });
  const maySee = useMay("data");
  useIcon(asset.data ? (asset.data.asset.status === "failed" ? "bad" : asset.data.asset.status === "fresh" ? "good" : undefined) : undefined);
  if (asset.error instanceof ApiProblem && asset.error.status === 404) return <NotFound what={`asset ${key}`} near={<p className="muted">{asset.error.error.help}</p>} />;
  if (!asset.data) return <Page title={key}>{asset.error ? <Problem problem={asset.error} /> : <Skeleton />}</Page>;
  const data = asset.data;
  const tabs = TABS.filter((one) => (one !== "partitions" || data.asset.partition_count !== undefined) && (one !== "rows" || (maySee && data.stored_in !== undefined)));
  return (
    <Page
      title={key}
      heading={<span className="row"><span className="grow">{key}</span></span>}
      sub={<span className="row"><Status status={data.asset.status} /><span><Words text={data.sentence} /></span></span>}
      actions={<><Link className="button" to="/lineage" search={{ focus: key, depth: "2" }}>Lineage</Link><Link className="button primary" to="/plan" search={{ select: key }}>Plan…</Link></>}
    >
      <nav className="tabs" aria-label="Parts of the asset">
        {tabs.map((one) => <Tab isHere={tab === one} key={one} to="/assets/$asset" params={{ asset: key }} search={one === "overview" ? {} : { tab: one }}>{one[0]?.toUpperCase()}{one.slice(1)}{one === "checks" && data.checks.length ? ` ${data.checks.length}` : ""}{one === "columns" && data.columns.length ? ` ${data.columns.length}` : ""}</Tab>)}
      </nav>
      {tab === "overview" ? <Overview data={data} /> : tab === "rows" && maySee && data.stored_in && data.relation ? <Sample table={data.relation} on={data.stored_in} /> : tab === "partitions" ? <Partitions asset={key} /> : tab === "checks" ? <Checks data={data} /> : tab === "columns" ? <Columns data={data} /> : <Definition data={data} />}
    </Page>
  );
}

function Overview({ data }: { data: Detail }) {
  const last = data.history.at(-1);
  const facts: [string, React.ReactNode][] = [
    ["About", data.description],
    ["Made from", <Words key="made" text={data.made_from} />],
    ["Rows", data.asset.row_count === undefined ? undefined : count(data.asset.row_count)],
    ["Changed", data.asset.changed_at ? <Time at={data.asset.changed_at} /> : undefined],
    ["Found up to date", data.asset.confirmed_at ? <Time at={data.asset.confirmed_at} /> : undefined],
    ["Partitions", data.asset.partition_count === undefined ? undefined : count(data.asset.partition_count)],
    ["By itself", data.automation ? <code>{data.automation}</code> : undefined],
    ["Freshness", data.freshness ? <><Status status={data.freshness.status} word={data.freshness.text} /> <span className="muted small">asked for: {data.freshness.asked}</span></> : undefined],
    ["Owner", data.asset.owner],
    ["Group", data.asset.group],
    ["Tags", data.asset.tags.length ? data.asset.tags.map((tag) => <span key={tag} className="tag">{tag}</span>) : undefined],
    ["File", <code key="path">{data.path}</code>],
  ];
  return (
    <>
      {data.failure ? <FailurePanel failure={data.failure} step={data.asset.asset} run={data.asset.run ?? undefined} /> : null}
      <div className="columns">
        <div className="stack" style={{ gap: 16 }}>
          <Panel title="Lately" flush>
            {data.history.length === 0 ? <Empty title="Never made" text="A run makes it, and whatever it reads." action={<Link className="button primary" to="/plan" search={{ select: `+${data.asset.asset}` }}>Plan it with what it reads…</Link>} /> : (
              <>
                <div style={{ padding: 12 }} className="stack"><Strip history={data.history} /><span className="muted small">Time that it took, the newest on the right; {last ? <>the last one {duration(last.elapsed_ms)}</> : null}.</span></div>
                <Scroll><table><thead><tr><th>When</th><th>Came to</th><th>Run</th><th className="right">Written</th><th className="right">Rejected</th><th className="right">Rows</th><th className="right">Took</th></tr></thead>
                  <tbody>{[...data.history].reverse().slice(0, 12).map((one) => (
                    <tr key={`${one.run} ${one.step} ${one.at}`}><td><Time at={one.at} /></td><td><Status status={one.status} /> {one.step === data.asset.asset ? null : <span className="tag">{one.step.slice(data.asset.asset.length)}</span>}</td><td><Link className="mono" to="/runs/$run" params={{ run: one.run }} search={{ step: one.step }}>{one.run.slice(-8)}</Link></td><td className="right">{count(one.written)}</td><td className="right">{one.rejected ? <b>{count(one.rejected)}</b> : count(one.rejected)}</td><td className="right">{count(one.row_count)}</td><td className="right nowrap">{duration(one.elapsed_ms)}</td></tr>
                  ))}</tbody></table></Scroll>
              </>
            )}
          </Panel>
        </div>
        <div className="stack" style={{ gap: 16 }}>
          <Panel title="What it is"><dl className="facts">{facts.filter(([, value]) => value).map(([name, value]) => <div key={name} style={{ display: "contents" }}><dt>{name}</dt><dd>{value}</dd></div>)}</dl></Panel>
          <Around title="Reads" list={data.upstream} none="It reads no other asset." />
          <Around title="Is read by" list={data.downstream} none="Nothing reads it." />
        </div>
      </div>
    </>
  );
}

function Around({ title, list, none }: { title: string; list: Schemas["AssetView"][]; none: string }) {
  return (
    <Panel title={title} flush>
      {list.length === 0 ? <p className="muted" style={{ padding: 12 }}>{none}</p> : <table><tbody>{list.slice(0, 20).map((one) => <tr key={one.asset}><td className="wide cut"><Link to="/assets/$asset" params={{ asset: one.asset }}>{one.asset}</Link></td><td><Status status={one.status} /></td><td className="right muted"><Time at={one.changed_at} /></td></tr>)}</tbody></table>}
      {list.length > 20 ? <p className="muted" style={{ padding: 12 }}>and {list.length - 20} more</p> : null}
    </Panel>
  );
}

function Strip({ history }: { history: Detail["history"] }) {
  const most = Math.max(1, ...history.map((one) => one.elapsed_ms));
  return (
    <div className="strip">
      {history.map((one) => (
        <Link key={`${one.run} ${one.step}`} to="/runs/$run" params={{ run: one.run }} title={`${one.status}, ${duration(one.elapsed_ms)}`} aria-label={`${one.status}, ${duration(one.elapsed_ms)}`}><i className={`fill-${one.status === "unchanged" ? "skip" : toneOf(one.status)}`} style={{ height: `${Math.max(8, (100 * one.elapsed_ms) / most)}%` }} /></Link>
      ))}
    </div>
  );
}

function Partitions({ asset }: { asset: string }) {
  const partitions = useApi("/api/v1/assets/{asset}/partitions", { asset });
  const [wanted, setWanted] = useState("");
  const [state, setState] = useState<string>();
  return (
    <Loaded query={partitions}>
      {(data) => {
        const shown = data.ranges.filter((range) => (!state || range.state === state) && (!wanted || range.first.includes(wanted) || range.last.includes(wanted) || (range.first <= wanted && wanted <= range.last)));
        return (
          <Panel title={plural(data.count, "partition")} extra={<span className="row">{data.sets.map((set) => <AddKeys key={set} set={set} />)}<Link className="button small" to="/plan" search={{ select: asset, partition: "latest" }}>Plan partitions…</Link><StartBackfill asset={asset} partition="missing" /></span>}>
            <div className="stack">
              <div className="parts" role="img" aria-label={Object.entries(data.counts).map(([word, many]) => `${many} ${word}`).join(", ")}>
                {data.ranges.slice(0, 600).map((range) => <i key={range.first} className={`fill-${toneOf(range.state)}`} style={{ flexGrow: range.count }} title={`${range.first} to ${range.last}: ${range.state}`} />)}
              </div>
              <div className="row">
                <div className="chips">{Object.entries(data.counts).map(([word, many]) => <button type="button" key={word} className="chip" aria-pressed={state === word} onClick={() => setState(state === word ? undefined : word)}><Status status={word} /><span className="muted">{count(many)}</span></button>)}</div>
                <input type="search" className="input" style={{ maxWidth: 220 }} placeholder="A key" aria-label="Find a partition" value={wanted} onChange={(event) => setWanted(event.target.value)} />
              </div>
              <Scroll><table><thead><tr><th>From</th><th>To</th><th className="right">Partitions</th><th>State</th><th /></tr></thead>
                <tbody>{shown.slice(-200).reverse().map((range) => <tr key={range.first}><td className="mono">{range.first}</td><td className="mono">{range.last}</td><td className="right">{count(range.count)}</td><td><Status status={range.state} /></td><td className="right">{range.state === "done" ? null : <Link className="button small" to="/plan" search={{ select: asset, partition: range.first === range.last ? range.first : `${range.first}..${range.last}` }}>Plan {count(range.count)}…</Link>}</td></tr>)}</tbody></table></Scroll>
              {shown.length > 200 ? <p className="muted">The newest 200 of {plural(shown.length, "range")}.</p> : null}
            </div>
          </Panel>
        );
      }}
    </Loaded>
  );
}

/** Adds keys to a set of partitions. */
function AddKeys({ set }: { set: string }) {
  const [open, setOpen] = useState(false);
  const act = useSend(() => setOpen(false));
  if (!useMay("operate")) return null;
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const keys = String(new FormData(event.currentTarget).get("keys") ?? "").split("\n").map((key) => key.trim()).filter(Boolean);
    act.mutate({ path: `/api/v1/partition-sets/${encodeURIComponent(set)}`, body: { keys } });
  };
  return (
    <>
      <button type="button" className="button small" onClick={() => setOpen(true)}>Add to {set}…</button>
      <Dialog open={open} title={`Add keys to ${set}`} onClose={() => setOpen(false)}>
        <form className="content" onSubmit={submit}>
          <h2>Add keys to {set}</h2>
          <p className="muted">Each key is a partition of every asset that has this set. Nothing is run for it by that alone.</p>
          <label className="stack" style={{ gap: 2 }}>Keys, one on each line<textarea className="input mono" name="keys" rows={4} required /></label>
          {act.error ? <Problem problem={act.error} /> : null}
          <div className="row"><button type="submit" className="button primary" disabled={act.isPending}>Add</button><button type="button" className="button" onClick={() => setOpen(false)}>Leave it</button></div>
        </form>
      </Dialog>
    </>
  );
}

function Checks({ data }: { data: Detail }) {
  if (data.checks.length === 0) return <Empty title="No checks" text="A check is a statement about the rows, such as not_null or unique. It runs before readers see the data." doc={{ topic: "guides/checks", label: "How to declare checks" }} />;
  return (
    <Panel title={plural(data.checks.length, "check")} flush>
      <Scroll><table><thead><tr><th>Check</th><th>Severity</th><th>Last</th><th>Lately</th><th className="right">Bad rows</th><th>Such as</th></tr></thead>
        <tbody>{data.checks.map((check) => (
          <tr key={check.name}><td>{check.name}</td><td className="muted">{check.severity}</td><td>{check.last ? <Status status={check.last.passed ? "passed" : "failed"} /> : <span className="muted">never evaluated</span>}</td>
            <td><span className="row" style={{ gap: 2, flexWrap: "nowrap" }}>{check.history.slice(-20).map((one, at) => <span key={at} className={`tone-${toneOf(one)}`} title={one}><Glyph tone={toneOf(one)} size={10} /></span>)}</span></td>
            <td className="right">{count(check.last?.bad_rows)}</td><td className="mono cut wide">{check.last?.sample[0] ?? ""}</td></tr>
        ))}</tbody></table></Scroll>
    </Panel>
  );
}

function Columns({ data }: { data: Detail }) {
  if (data.columns.length === 0) return <Empty title="Its columns are not known" text="Declare them under columns, or name them in the query instead of a star." doc={{ topic: "guides/sql-assets", label: "SQL assets" }} />;
  const link = (from: string) => {
    const at = from.lastIndexOf(".");
    return <Link key={from} className="mono" to="/assets/$asset" params={{ asset: from.slice(0, at) }} search={{ tab: "columns" }}>{from}</Link>;
  };
  return (
    <Panel title={plural(data.columns.length, "column")} flush>
      <Scroll><table><thead><tr><th>Column</th><th>Made from</th></tr></thead><tbody>{data.columns.map((column) => <tr key={column.name}><td className="mono">{column.name}</td><td>{column.from.length ? <span className="row">{column.from.map(link)}</span> : <span className="muted">nothing upstream</span>}</td></tr>)}</tbody></table></Scroll>
    </Panel>
  );
}

function Definition({ data }: { data: Detail }) {
  const isOther = data.made_version !== undefined && data.made_version !== data.version;
  return (
    <>
      {isOther ? <p className="status tone-stale"><Glyph tone="stale" /><span>The data were made by another version of this definition.</span></p> : null}
      <div className={data.sql ? "columns even" : ""}>
        <Panel title={<code>{data.path}</code>} flush>{data.source ? <Code text={data.source} numbers /> : <p className="muted" style={{ padding: 12 }}>The file is not text.</p>}</Panel>
        {data.sql ? <Panel title="As it is sent" flush><Code text={data.sql} numbers /></Panel> : null}
      </div>
    </>
  );
}

/** A switch for whoever may use it. */
export function Act({ path, word, primary }: { path: string; word: string; primary?: boolean }) {
  const may = useMay("operate");
  const act = useSend();
  if (!may) return null;
  return <><button type="button" className={`button ${primary ? "primary" : ""}`} disabled={act.isPending} onClick={() => act.mutate({ path })}>{word}</button>{act.error ? <span role="alert" className="tone-bad">{act.error.message}</span> : null}</>;
}
