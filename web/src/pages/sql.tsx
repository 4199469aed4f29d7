// Queries of people: one text, one table, nothing that writes.
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { type Schemas, send, useApi } from "../api/client";
import { useMay } from "../shell";
import { Empty, Page, Panel, Problem, duration, plural, Scroll } from "../ui/parts";

type Answer = Schemas["QueryAnswer"];
type Cell = string | number | boolean | null;

/** Texts that were asked lately stay in the browser. */
const KEPT = "subak-queries";
const KEPT_COUNT = 20;

function kept(): string[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(found) ? found.filter((one): one is string => typeof one === "string") : [];
  } catch {
    return [];
  }
}

export function Sql() {
  const search = useSearch({ strict: false }) as { c?: string; q?: string };
  const may = useMay("data");
  if (!may) return <Page title="SQL"><Empty title="Rows are not yours to see" text="Queries need the right to see rows. Whoever administers this server can give it to you." doc={{ topic: "guides/web-app", label: "Who may see what" }} /></Page>;
  return <Desk key={`${search.c ?? ""} ${search.q ?? ""}`} on={search.c} text={search.q ?? ""} />;
}

function Desk({ on, text }: { on: string | undefined; text: string }) {
  const navigate = useNavigate();
  const connections = useApi("/api/v1/connections");
  const asking = connections.data?.items.filter((one) => one.runs_sql) ?? [];
  const warehouse = asking.find((one) => one.is_warehouse)?.name;
  const [answer, setAnswer] = useState<Answer>();
  const [problem, setProblem] = useState<unknown>();
  const [isBusy, setBusy] = useState(false);
  const [history, setHistory] = useState(kept);
  const form = useRef<HTMLFormElement>(null);
  const ask = async (sql: string, connection: string | undefined) => {
    setBusy(true);
    try {
      setAnswer(await send<Answer>("POST", "/api/v1/query", { sql, ...(connection ? { on: connection } : {}) }));
      setProblem(undefined);
      const next = [sql, ...kept().filter((one) => one !== sql)].slice(0, KEPT_COUNT);
      localStorage.setItem(KEPT, JSON.stringify(next));
      setHistory(next);
    } catch (error) {
      setAnswer(undefined);
      setProblem(error);
    } finally {
      setBusy(false);
    }
  };
  // What an address says is asked at once: it only reads.
  useEffect(() => {
    if (text) void ask(text, on);
  }, []);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = new FormData(event.currentTarget);
    const sql = String(said.get("sql") ?? "").trim();
    const connection = String(said.get("on") ?? "") || undefined;
    if (!sql) return;
    if (sql === text && connection === (on ?? warehouse)) void ask(sql, connection);
    else void navigate({ to: "/sql", search: { c: connection === warehouse ? undefined : connection, q: sql } });
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.current?.requestSubmit();
    }
  };
  return (
    <Page title="SQL" sub="One query that reads; the system itself refuses everything else.">
      <form ref={form} className="panel" onSubmit={submit}>
        <div className="body stack">
          <textarea name="sql" className="input mono" rows={6} spellCheck={false} aria-label="Query" placeholder="select * from …" defaultValue={text} onKeyDown={keys} />
          <div className="row">
            <label className="row">on <select name="on" className="input" style={{ width: "auto" }} key={`${on} ${warehouse}`} defaultValue={on ?? warehouse}>{asking.map((one) => <option key={one.name}>{one.name}</option>)}</select></label>
            <button type="submit" className="button primary" disabled={isBusy}>{isBusy ? "Asking…" : "Ask"}</button>
            <span className="muted small">Ctrl Enter</span>
            <span className="grow" />
            {history.length > 0 ? <label className="row"><span className="muted small">Lately</span><select className="input" style={{ width: 220 }} value="" onChange={(event) => void navigate({ to: "/sql", search: { c: on, q: event.target.value } })}><option value="" />{history.map((one) => <option key={one} value={one}>{one.replace(/\s+/g, " ").slice(0, 80)}</option>)}</select></label> : null}
          </div>
        </div>
      </form>
      <div aria-live="polite">{problem ? <Problem problem={problem} /> : answer ? <Rows answer={answer} /> : null}</div>
    </Page>
  );
}

const plain = (value: Cell) => (value === null ? "" : String(value));

/** A table as text for spreadsheets: what begins like a formula is text there. */
function csv(answer: Answer): string {
  const cell = (value: Cell) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) && !/^-?\d+(\.\d+)?$/.test(value) ? `'${value}` : plain(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [answer.columns, ...(answer.rows as Cell[][])].map((row) => row.map(cell).join(",")).join("\r\n");
}

export function Rows({ answer }: { answer: Answer }) {
  const rows = answer.rows as Cell[][];
  const isNumber = answer.columns.map((_, at) => rows.length > 0 && rows.every((row) => row[at] === null || typeof row[at] === "number"));
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv(answer)], { type: "text/csv" }));
    link.download = "rows.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <Panel flush title={plural(rows.length, "row")} extra={<span className="row"><span className="muted small">{answer.is_cut ? "the first of more; " : ""}{duration(answer.elapsed_ms)}</span>{rows.length > 0 ? <button type="button" className="button small" onClick={save}>Save as CSV</button> : null}</span>}>
      {rows.length === 0 ? <p className="muted" style={{ padding: 12 }}>No rows. The columns are {answer.columns.join(", ") || "none"}.</p> : (
        <Scroll label="Rows">
          <table className="rows">
            <thead><tr>{answer.columns.map((name, at) => <th key={`${at} ${name}`} className={isNumber[at] ? "right" : ""}>{name}</th>)}</tr></thead>
            <tbody>{rows.map((row, at) => <tr key={at}>{row.map((value, place) => <td key={place} className={isNumber[place] ? "right mono" : "mono"}>{value === null ? <span className="muted">null</span> : plain(value)}</td>)}</tr>)}</tbody>
          </table>
        </Scroll>
      )}
    </Panel>
  );
}

/** The first rows of a table. */
export function Sample({ table, on }: { table: string; on: string }) {
  const [answer, setAnswer] = useState<Answer>();
  const [problem, setProblem] = useState<unknown>();
  const sql = `select * from ${table} limit 100`;
  useEffect(() => {
    let isHere = true;
    send<Answer>("POST", "/api/v1/query", { sql, on, limit: 100 }).then((found) => isHere && setAnswer(found), (error: unknown) => isHere && setProblem(error));
    return () => {
      isHere = false;
    };
  }, [sql, on]);
  if (problem) return <Problem problem={problem} />;
  if (!answer) return <p className="muted">Reading rows…</p>;
  return <div className="stack"><Rows answer={answer} /><p><Link className="button" to="/sql" search={{ c: on, q: sql }}>Ask more…</Link></p></div>;
}
