// Runs, whatever started them.
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useApi } from "../api/client";
import { Empty, Loaded, Page, Status, Time, Words, count, duration, plural, Scroll, useTyped } from "../ui/parts";

const STATUSES = ["failed", "running", "stopping", "queued", "succeeded", "canceled"];

export function Runs() {
  const search = useSearch({ strict: false }) as { status?: string; text?: string; job?: string; ended_within?: string; after?: string };
  const navigate = useNavigate();
  const set = (next: Record<string, string | undefined>) => void navigate({ to: "/runs", search: (old) => ({ ...old, after: undefined, ...next }), replace: !("after" in next) });
  const [text, type] = useTyped(search.text ?? "", (typed) => set({ text: typed || undefined }));
  const runs = useApi("/api/v1/runs", {}, { ...search, limit: 50 }, { keep: true, refetchInterval: 30_000 });
  const chosen = new Set((search.status ?? "").split(",").filter(Boolean));
  const toggle = (status: string) => {
    const next = new Set(chosen);
    if (!next.delete(status)) next.add(status);
    set({ status: [...next].join(",") || undefined });
  };
  const isFiltered = Boolean(search.status || search.text || search.job || search.ended_within);
  return (
    <Page title="Runs" sub={runs.data ? `${plural(runs.data.total ?? 0, "run")}${search.ended_within ? ` that ended in the last ${search.ended_within} h` : ""}${search.job ? ` of ${search.job}` : ""}` : undefined} actions={<Link className="button primary" to="/plan">Plan a run…</Link>}>
      <div className="row">
        <input type="search" className="input" style={{ maxWidth: 320 }} value={text} onChange={(event) => type(event.target.value)} placeholder="Selection, trigger, cause or id" aria-label="Find runs" />
        <div className="chips" role="group" aria-label="Status">{STATUSES.map((status) => <button type="button" key={status} className="chip" aria-pressed={chosen.has(status)} onClick={() => toggle(status)}><Status status={status} /></button>)}</div>
        {isFiltered ? <button type="button" className="button plain" onClick={() => { type(""); void navigate({ to: "/runs", search: {} }); }}>Show all</button> : null}
      </div>
      <Loaded query={runs} rows={12}>
        {(data) => data.items.length === 0 ? (
          <Empty title={isFiltered ? "No run is like that" : "No run yet"} text={isFiltered ? "Fewer filters may find it." : "A run brings assets up to date, or does the tasks of a job. Plan one here, or type subak run."} action={<Link className="button primary" to={isFiltered ? "/runs" : "/plan"} search={{}}>{isFiltered ? "Show all" : "Plan a run…"}</Link>} doc={{ topic: "concepts/runs", label: "How runs work" }} />
        ) : (
          <div className="panel"><Scroll><table>
            <thead><tr><th>Status</th><th>What</th><th>Started by</th><th className="right">Steps</th><th>Planned</th><th className="right">Took</th><th>Cause</th><th>Run</th></tr></thead>
            <tbody>{data.items.map((run) => (
              <tr key={run.run}>
                <td><Status status={run.status} /></td>
                <td className="cut what" title={run.selection}><Link data-row to="/runs/$run" params={{ run: run.run }}>{run.selection}</Link></td>
                <td className="muted nowrap">{run.trigger}</td><td className="right">{count(run.step_count)}</td><td><Time at={run.planned_at} /></td><td className="right nowrap">{duration(run.elapsed_ms)}</td>
                <td className="wide cut" title={run.cause ?? ""}><Words text={run.cause} /></td><td className="mono nowrap">{run.run.slice(-8)}</td>
              </tr>
            ))}</tbody>
          </table></Scroll></div>
        )}
      </Loaded>
      <div className="row">
        {search.after ? <button type="button" className="button" onClick={() => history.back()}>Newer</button> : null}
        {runs.data?.next ? <button type="button" className="button" onClick={() => void navigate({ to: "/runs", search: { ...search, after: runs.data?.next } })}>Older</button> : null}
      </div>
    </Page>
  );
}
