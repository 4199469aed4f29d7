// What checks found, and rows that were refused: what is wrong with the data, and what becomes of it.
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { ApiProblem, type Schemas, useApi, useSend } from "../api/client";
import { NotFound, useMay } from "../shell";
import { Confirm, Dialog, Empty, Glyph, Loaded, Page, Panel, Problem, Scroll, Status, Tab, Time, count, plural, toneOf, useTyped } from "../ui/parts";

type Check = Schemas["QualityCheck"];
type Reject = Schemas["RejectView"];

const STATUSES = ["failed", "warned", "passed", "never"];
const LATELY = 20;

/** The last evaluations, each with the run that it belongs to. */
function Lately({ check }: { check: Check }) {
  return (
    <span className="row lately">
      {check.history.slice(-LATELY).map((one) => (
        <Link key={`${one.run} ${one.at}`} to="/runs/$run" params={{ run: one.run }} className={`tone-${toneOf(one.status)}`} aria-label={`${one.status} at ${one.at}`} title={`${one.status}, ${plural(one.bad_rows, "bad row")}, ${one.at}`}><Glyph tone={toneOf(one.status)} size={10} /></Link>
      ))}
    </span>
  );
}

export function Quality() {
  const search = useSearch({ strict: false }) as { q?: string; status?: string; severity?: string };
  const navigate = useNavigate();
  const set = (next: Record<string, string | undefined>) => void navigate({ to: "/quality", search: (old) => ({ ...old, ...next }), replace: true });
  const [text, type] = useTyped(search.q ?? "", (typed) => set({ q: typed || undefined }));
  const checks = useApi("/api/v1/checks", {}, { q: search.q, status: search.status, severity: search.severity }, { keep: true, refetchInterval: 30_000 });
  const isFiltered = Boolean(search.q || search.status || search.severity);
  const wrong = checks.data?.items.filter((one) => one.status === "failed" || one.status === "warned").length ?? 0;
  return (
    <Page title="Quality" sub={checks.data && !isFiltered ? (wrong > 0 ? `${plural(wrong, "check")} of ${checks.data.items.length} found something.` : `${plural(checks.data.items.length, "check")}, and nothing found.`) : "What checks found, and rows that were refused."}>
      <Quarantine />
      <div className="row">
        <input type="search" className="input" style={{ maxWidth: 320 }} value={text} onChange={(event) => type(event.target.value)} placeholder="Check or asset" aria-label="Find checks" />
        <div className="chips" role="group" aria-label="Status">{STATUSES.map((status) => <button type="button" key={status} className="chip" aria-pressed={search.status === status} onClick={() => set({ status: search.status === status ? undefined : status })}><Status status={status} /></button>)}</div>
        <label className="row">Severity <select className="input" style={{ width: "auto" }} value={search.severity ?? ""} onChange={(event) => set({ severity: event.target.value || undefined })}><option value="">all</option><option>error</option><option>warn</option></select></label>
        {isFiltered ? <button type="button" className="button plain" onClick={() => { type(""); void navigate({ to: "/quality", search: {} }); }}>Show all</button> : null}
      </div>
      <Loaded query={checks} rows={10}>
        {(data) => data.items.length === 0 ? (
          <Empty title={isFiltered ? "No check is like that" : "No checks yet"} text={isFiltered ? "Fewer filters may find it." : "A check is a statement about the rows, such as not_null or unique. It is evaluated before readers see the data."} doc={{ topic: "guides/checks", label: "How to declare checks" }} />
        ) : (
          <div className="panel"><Scroll label="Checks"><table className="checks">
            <thead><tr><th>Status</th><th>Check</th><th>Asset</th><th>If it fails</th><th>Lately</th><th>Since</th><th className="right">Bad rows</th><th>Such as</th></tr></thead>
            <tbody>{data.items.map((one) => (
              <tr key={`${one.asset ?? ""} ${one.check}`}>
                <td><Status status={one.status} /></td>
                <td className="cut what" title={`${one.check}, in ${one.path}`}>{one.asset ? <Link data-row to="/assets/$asset" params={{ asset: one.asset }} search={{ tab: "checks" }}>{one.check}</Link> : one.check}</td>
                <td className="nowrap">{one.asset ?? <span className="muted">a query of its own</span>}</td>
                <td className="muted nowrap">{one.severity === "warn" ? "says so" : one.blocking ? "holds the data back" : "fails the run"}</td>
                <td><Lately check={one} /></td>
                <td>{one.since ? <Time at={one.since} /> : null}</td>
                <td className="right">{one.last ? count(one.last.bad_rows) : ""}</td>
                <td className="mono cut wide" title={one.last?.sample[0] ?? ""}>{one.last && !one.last.passed ? one.last.sample[0] : ""}</td>
              </tr>
            ))}</tbody>
          </table></Scroll></div>
        )}
      </Loaded>
    </Page>
  );
}

function Quarantine() {
  const tables = useApi("/api/v1/quarantine", {}, {}, { refetchInterval: 60_000 });
  const maySee = useMay("data");
  const found = tables.data?.items ?? [];
  if (found.length === 0) return tables.error ? <Problem problem={tables.error} /> : null;
  return (
    <Panel title="Refused rows" flush>
      <Scroll label="Refused rows"><table>
        <thead><tr><th>Asset</th><th className="right">Open</th><th className="right">Loaded after all</th><th className="right">Discarded</th><th>Kept in</th></tr></thead>
        <tbody>{found.map((one) => (
          <tr key={one.asset}>
            <td>{maySee ? <Link data-row to="/quarantine/$asset" params={{ asset: one.asset }}>{one.asset}</Link> : one.asset}</td>
            {one.problem ? <td colSpan={3} className="tone-warn">{one.problem}</td> : <><td className={`right ${one.open > 0 ? "tone-bad" : ""}`}>{count(one.open)}</td><td className="right">{count(one.replayed)}</td><td className="right">{count(one.discarded)}</td></>}
            <td className="mono">{one.table}</td>
          </tr>
        ))}</tbody>
      </table></Scroll>
    </Panel>
  );
}

const WORDS: Record<string, string> = { open: "Open", replayed: "Loaded after all", discarded: "Discarded" };

export function Rejects() {
  const { asset = "" } = useParams({ strict: false }) as { asset?: string };
  const { status = "open" } = useSearch({ strict: false }) as { status?: string };
  // What was chosen of one list says nothing of another one.
  return <RejectList key={`${asset} ${status}`} asset={asset} status={status} />;
}

function RejectList({ asset, status }: { asset: string; status: string }) {
  const may = useMay("operate");
  const rejects = useApi("/api/v1/quarantine/{asset}", { asset }, { status, limit: 500 });
  const [chosen, choose] = useState<ReadonlySet<string>>(new Set());
  if (rejects.error instanceof ApiProblem && rejects.error.status === 404) return <NotFound what={`asset ${asset}`} />;
  const items = rejects.data?.items ?? [];
  const picked = items.filter((one) => chosen.has(one.reject));
  const toggle = (id: string) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    choose(next);
  };
  const isOpen = status === "open";
  return (
    <Page title={`Refused rows of ${asset}`} sub={<span className="row"><Link to="/assets/$asset" params={{ asset }}>{asset}</Link></span>}>
      <nav className="tabs" aria-label="What became of them">{Object.entries(WORDS).map(([one, word]) => <Tab key={one} isHere={status === one} to="/quarantine/$asset" params={{ asset }} search={{ status: one === "open" ? undefined : one }}>{word}</Tab>)}</nav>
      {isOpen && may && items.length > 0 ? (
        <div className="row">
          <Replay asset={asset} picked={picked} onDone={() => choose(new Set())} />
          <span style={{ width: 24 }} />
          {picked.length > 0 ? <Confirm word="Discard…" title={`Discard ${plural(picked.length, "row")}`} text="Nobody wants these rows. They stay in the table of refused rows, and are not offered again." verb="Discard them" path={`/api/v1/quarantine/${encodeURIComponent(asset)}/discard`} body={{ rejects: picked.map((one) => one.reject) }} /> : null}
        </div>
      ) : null}
      <Loaded query={rejects}>
        {(data) => data.items.length === 0 ? (
          <Empty title={isOpen ? "No refused rows are open" : "None"} text={isOpen ? "Rows that do not fit are kept here until somebody decides about them, where the stream says on_reject: quarantine." : "What is decided about refused rows is listed here."} doc={{ topic: "guides/quarantine", label: "How rows are refused, mended and loaded" }} />
        ) : (
          <div className="panel"><Scroll label="Refused rows"><table>
            <thead><tr>{isOpen && may ? <th><span className="hidden">Choose</span></th> : null}<th>Where</th><th>Why</th><th>Row</th><th>Run</th><th>Refused</th></tr></thead>
            <tbody>{data.items.map((one) => (
              <tr key={one.reject}>
                {isOpen && may ? <td><input type="checkbox" aria-label={`Choose ${one.place}`} checked={chosen.has(one.reject)} onChange={() => toggle(one.reject)} /></td> : null}
                <td className="mono nowrap">{one.place}</td>
                <td style={{ minWidth: "24ch" }}>{one.reason}</td>
                <td><Row one={one} /></td>
                <td className="mono nowrap"><Link to="/runs/$run" params={{ run: one.run }}>{one.run.slice(-8)}</Link></td>
                <td className="nowrap"><Time at={one.rejected_at} /></td>
              </tr>
            ))}</tbody>
          </table></Scroll></div>
        )}
      </Loaded>
    </Page>
  );
}

/** A row as it came, with the value marked that did not fit. */
function Row({ one }: { one: Reject }) {
  const shown = (value: unknown) => (value === null ? "null" : typeof value === "string" ? value : JSON.stringify(value));
  const has = one.row.some((cell) => cell.column === one.column);
  // A column of the table may come from one of the source that has another name.
  const isWrong = (name: string, value: unknown) => name === one.column || (!has && typeof one.column === "string" && typeof one.value === "string" && shown(value) === one.value);
  return <span className="cells mono">{one.row.map(({ column: name, value }) => (isWrong(name, value) ? <mark key={name}>{name ? `${name}=` : ""}{shown(value)}</mark> : <span key={name}><span className="muted">{name ? `${name}=` : ""}</span>{shown(value)}</span>))}</span>;
}

function Replay({ asset, picked, onDone }: { asset: string; picked: Reject[]; onDone: () => void }) {
  // Those that were chosen when it was opened, whatever the list shows meanwhile.
  const [chosen, setChosen] = useState<Reject[]>();
  const [changed, setChanged] = useState<Record<string, string>>({});
  const navigate = useNavigate();
  const close = () => {
    setChosen(undefined);
    setChanged({});
  };
  const act = useSend<Schemas["Replayed"]>((done) => {
    close();
    onDone();
    void navigate({ to: "/runs/$run", params: { run: done.run } });
  });
  const rows = chosen ?? picked;
  const broken = rows.filter((one) => !one.may_be_replayed);
  // Of one row everything can be mended; of several they are loaded as they are.
  const [first] = rows;
  const columns: [string, unknown][] = rows.length === 1 && first ? first.row.map((cell) => [cell.column, cell.value]) : [];
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const which = rows.length === 0 ? { all: true } : { rejects: rows.map((one) => one.reject) };
    act.mutate({ path: `/api/v1/quarantine/${encodeURIComponent(asset)}/replay`, body: { ...which, set: changed } });
  };
  const title = rows.length === 0 ? "Load all open rows again" : `Load ${plural(rows.length, "row")} again`;
  return (
    <>
      <button type="button" className="button primary" onClick={() => setChosen(picked)}>{picked.length === 0 ? "Load all again…" : "Load again…"}</button>
      <Dialog open={chosen !== undefined} title={title} onClose={close}>
        <form className="content" onSubmit={submit}>
          <h2>{title}</h2>
          <p className="muted">A run loads them as the project is declared now. What still does not fit stays open, and the run says why.</p>
          {broken.length > 0 ? <p className="tone-warn">{plural(broken.length, "row")} could not be taken apart: correct the file and load it, then discard them.</p> : null}
          {columns.length > 0 ? (
            <div className="stack fields">{columns.map(([name, value]) => (
              <label key={name} className="stack" style={{ gap: 2 }}><span className={name === first?.column ? "tone-bad" : "muted"}>{name}{name === first?.column ? `: ${first.reason}` : ""}</span><input className="input mono" name={name} defaultValue={value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)} onChange={(event) => setChanged({ ...changed, [name]: event.target.value })} /></label>
            ))}</div>
          ) : null}
          {act.error ? <Problem problem={act.error} /> : null}
          <div className="row"><button type="submit" className="button primary" disabled={act.isPending || broken.length > 0}>Load</button><button type="button" className="button" onClick={close}>Leave it</button></div>
        </form>
      </Dialog>
    </>
  );
}
