// What a run would do and why, before it does anything.
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { type Schemas, send, useApi } from "../api/client";
import { useMay } from "../shell";
import { Loaded, Page, Panel, Problem, Words, duration, plural, Scroll } from "../ui/parts";

type PlanView = Schemas["PlanView"];

/** Steps that are drawn at once. */
const ROW_COUNT = 200;

export function Plan() {
  const search = useSearch({ strict: false }) as { select?: string; exclude?: string; partition?: string; job?: string; full?: string };
  const navigate = useNavigate();
  const jobs = useApi("/api/v1/jobs");
  const [params, setParams] = useState<Record<string, string>>({});
  const [plan, setPlan] = useState<PlanView>();
  const [problem, setProblem] = useState<unknown>();
  const [isBusy, setBusy] = useState(false);
  const job = jobs.data?.items.find((one) => one.job === search.job);
  const turn = useRef(0);
  const make = async () => {
    turn.current += 1;
    const own = turn.current;
    setBusy(true);
    try {
      const words = (text: string | undefined) => (text ?? "").split(/\s+/).filter(Boolean);
      const partition = (search.partition ?? "").split(",").map((one) => one.trim()).filter(Boolean);
      const body = search.job ? { job: search.job, params: Object.fromEntries(Object.entries(params).filter(([name, value]) => value !== "" && job?.params.some((param) => param.name === name))) } : { select: words(search.select), exclude: words(search.exclude), partition, full_refresh: search.full === "yes" };
      const made = await send<PlanView>("POST", "/api/v1/plans", body);
      // Whoever asked for another one meanwhile wants that.
      if (own !== turn.current) return;
      setPlan(made);
      setProblem(undefined);
    } catch (error) {
      if (own !== turn.current) return;
      setPlan(undefined);
      setProblem(error);
    } finally {
      if (own === turn.current) setBusy(false);
    }
  };
  // A plan is made at once of what an address says.
  const asked = JSON.stringify([search.select, search.exclude, search.partition, search.job, search.full]);
  useEffect(() => {
    if (search.job && !jobs.data) return;
    const needs = job?.params.some((param) => param.default === undefined || param.default === null);
    if (!needs) void make();
    else setPlan(undefined);
  }, [asked, search.job !== undefined && jobs.data !== undefined]);
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = new FormData(event.currentTarget);
    const text = (name: string) => String(said.get(name) ?? "").trim() || undefined;
    const next = { job: text("job"), select: text("job") ? undefined : text("select"), exclude: text("job") ? undefined : search.exclude, partition: text("job") ? undefined : text("partition"), full: said.get("full") && !text("job") ? "yes" : undefined };
    if (JSON.stringify([next.select, next.exclude, next.partition, next.job, next.full]) === asked) void make();
    else void navigate({ to: "/plan", search: next });
  };
  return (
    <Page title="Plan a run" sub="Nothing starts before you say so.">
      <form className="row" onSubmit={submit} key={asked} style={{ alignItems: "flex-end" }}>
        <label className="field"><span>Job</span><select className="input" name="job" defaultValue={search.job ?? ""} onChange={(event) => void navigate({ to: "/plan", search: event.target.value ? { job: event.target.value } : {} })}><option value="">none: a selection</option>{jobs.data?.items.map((one) => <option key={one.job}>{one.job}</option>)}</select></label>
        {search.job ? null : (
          <>
            <label className="field grow" style={{ minWidth: 220 }}><span>Assets</span><input className="input mono" name="select" defaultValue={search.select ?? ""} placeholder="everything; or +gold.sales tag:daily" /></label>
            <label className="field"><span>Partitions</span><input className="input mono" name="partition" defaultValue={search.partition ?? ""} placeholder="2024-01-01..2024-01-07" /></label>
            <label className="row" style={{ minHeight: 28 }}><input type="checkbox" name="full" defaultChecked={search.full === "yes"} />Make anew from nothing</label>
          </>
        )}
        <button type="submit" className="button" disabled={isBusy}>Show the plan</button>
      </form>
      {job && job.params.length ? (
        <Panel title="Parameters"><div className="row" style={{ alignItems: "flex-end" }}>
          {job.params.map((param) => (
            <label key={param.name} className="field"><span>{param.name} <span className="muted">({param.kind})</span></span>
              {param.choices.length ? <select className="input" value={params[param.name] ?? ""} onChange={(event) => setParams({ ...params, [param.name]: event.target.value })}><option value="">{param.default === undefined || param.default === null ? "" : String(param.default)}</option>{param.choices.map((choice) => <option key={String(choice)}>{String(choice)}</option>)}</select> : <input className="input" value={params[param.name] ?? ""} placeholder={param.default === undefined || param.default === null ? "needed" : String(param.default)} onChange={(event) => setParams({ ...params, [param.name]: event.target.value })} />}
              {param.description ? <span className="muted small">{param.description}</span> : null}
            </label>
          ))}
          <button type="button" className="button" onClick={() => void make()}>Show the plan</button>
        </div></Panel>
      ) : null}
      {problem ? <Problem problem={problem} /> : null}
      {plan ? <Shown plan={plan} again={() => void make()} /> : isBusy ? <Loaded query={{ data: undefined, error: undefined, refetch: () => undefined }}>{() => null}</Loaded> : null}
    </Page>
  );
}

function Shown({ plan, again }: { plan: PlanView; again: () => void }) {
  const may = useMay("operate");
  const navigate = useNavigate();
  const [typed, setTyped] = useState("");
  const [shown, setShown] = useState(ROW_COUNT);
  const [problem, setProblem] = useState<unknown>();
  const isConfirmed = !plan.confirmation || typed === plan.confirmation;
  const begin = async () => {
    try {
      const accepted = await send<Schemas["Accepted"]>("POST", `/api/v1/plans/${plan.plan}/accept`, plan.confirmation ? { confirmation: typed } : {});
      await navigate({ to: "/runs/$run", params: { run: accepted.run } });
    } catch (error) {
      setProblem(error);
    }
  };
  const left = Object.entries(plan.left);
  const why = !may ? "The role operator is needed to start runs." : plan.action_count === 0 ? "There is nothing to do." : !isConfirmed ? `Type ${plan.confirmation ?? ""} first.` : "";
  return (
    <>
      <Panel
        title={plan.action_count === 0 ? "Nothing to do" : `${plural(plan.action_count, "step")}${plan.expected_ms ? `, about ${duration(plan.expected_ms)} of work by last time` : ""}`}
        extra={<span className="muted">{plan.fresh_count > 0 ? `${plural(plan.fresh_count, "asset")} fresh, left alone` : ""}</span>}
      >
        <div className="stack">
          {left.map(([asset, many]) => <p key={asset} className="muted">{plural(many, "more partition")} of {asset} come with the runs after this one.</p>)}
          {plan.confirmation ? <label className="field" style={{ maxWidth: 420 }}><span>This throws away what is there and makes it anew. Type <code>{plan.confirmation}</code> to confirm.</span><input className="input mono" value={typed} onChange={(event) => setTyped(event.target.value)} /></label> : null}
          <div className="row">
            <button type="button" className="button primary" disabled={why !== ""} onClick={() => void begin()}>{plan.action_count > 0 ? `Run ${plural(plan.action_count, "step")}` : "Run"}</button>
            <button type="button" className="button" onClick={again}>Look again</button>
            {why ? <span className="muted">{why}</span> : null}
          </div>
          {problem ? <Problem problem={problem} retry={again} /> : null}
        </div>
      </Panel>
      {plan.actions.length ? (
        <Panel title="What it would do" flush>
          <Scroll><table><thead><tr><th>Step</th><th>Why</th><th>After</th><th className="right">Took last time</th></tr></thead>
            <tbody>{plan.actions.slice(0, shown).map((action) => <tr key={action.step}><td>{/^[a-z0-9_.]+$/.test(action.step) ? <Link to="/assets/$asset" params={{ asset: action.step }}>{action.step}</Link> : action.step}{action.is_full_refresh ? <> <span className="tag">from nothing</span></> : null}</td><td><Words text={action.why} /></td><td className="muted cut wide" title={action.needs.join(", ")}>{action.needs.join(", ")}</td><td className="right nowrap">{duration(action.expected_ms)}</td></tr>)}</tbody></table></Scroll>
          {plan.action_count > shown ? <p className="row muted" style={{ padding: 12 }}>The first {Math.min(shown, plan.actions.length)} of {plural(plan.action_count, "step")}.{plan.actions.length > shown ? <button type="button" className="button small" onClick={() => setShown(shown + ROW_COUNT)}>Show more</button> : null}</p> : null}
        </Panel>
      ) : null}
    </>
  );
}
