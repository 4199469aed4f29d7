// One run: why it failed first, then its steps over time, then what happened and what programs wrote.
import { useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { ApiProblem, type Schemas, send, useApi } from "../api/client";
import { NotFound, useMay } from "../shell";
import { Loaded, Page, Panel, Problem, Skeleton, Status, Confirm, Time, Words, bytes, count, duration, plural, toneOf, useIcon, useNow, Scroll, Tab } from "../ui/parts";
import { Act } from "./asset";
import { FailurePanel } from "./failure";
import { Log } from "./log";

type Detail = Schemas["RunDetail"];
type Step = Schemas["StepView"];

export function Run() {
  const { run: id = "" } = useParams({ strict: false }) as { run?: string };
  const search = useSearch({ strict: false }) as { step?: string; tab?: string };
  const run = useApi("/api/v1/runs/{run}", { run: id }, {}, { refetchInterval: 10_000 });
  const status = run.data?.run.status;
  useIcon(status === "failed" ? "bad" : status === "succeeded" ? "good" : status ? "run" : undefined);
  if (run.error instanceof ApiProblem && run.error.status === 404) return <NotFound what={`run ${id}`} />;
  if (!run.data) return <Page title={`Run ${id.slice(-8)}`}>{run.error ? <Problem problem={run.error} /> : <Skeleton />}</Page>;
  return <Shown data={run.data} search={search} />;
}

function Shown({ data, search }: { data: Detail; search: { step?: string; tab?: string } }) {
  const { run } = data;
  const navigate = useNavigate();
  const chosen = data.steps.find((step) => step.step === search.step) ?? data.steps.find((step) => step.step === data.failed_step) ?? data.steps.find((step) => step.status === "running");
  const choose = (step: string) => void navigate({ to: "/runs/$run", params: { run: run.run }, search: { ...search, step }, replace: true, resetScroll: false });
  const failed = data.steps.find((step) => step.step === data.failed_step);
  const more = data.counts.find((one) => one.status === "failed");
  const tab = search.tab ?? "steps";
  return (
    <Page
      title={`${run.selection}: ${run.status}`}
      heading={run.selection}
      sub={<span className="row"><Status status={run.status} /><span>planned <Time at={run.planned_at} /> by {run.trigger}</span>{run.elapsed_ms !== undefined && run.elapsed_ms !== null ? <span>· took {duration(run.elapsed_ms)}</span> : null}<span>· {data.counts.map((one) => `${one.count} ${one.status}`).join(", ")}</span><code>{run.run}</code></span>}
      actions={<>{data.can_resume ? <Act path={`/api/v1/runs/${run.run}/resume`} word="Go on with the rest" primary /> : null}{data.can_cancel ? <Stop run={run.run} /> : null}<Link className="button" to="/plan" search={run.job ? { job: run.job } : again(run.selection)}>Plan it again…</Link></>}
    >
      {failed?.failure ? <FailurePanel failure={failed.failure} step={failed.step} run={run.run} actions={<>{failed.log_bytes ? <button type="button" className="button" onClick={() => { choose(failed.step); document.getElementById("log")?.scrollIntoView(); }}>Read its log</button> : null}{more && more.count > 1 ? <span className="muted">{plural(more.count - 1, "more step")} failed.</span> : null}</>} /> : failed?.checks.some((check) => !check.passed) ? <FailedChecks step={failed} /> : run.status === "failed" ? <section className="panel failure" aria-label="Why it failed"><header><h2><Words text={data.sentence} /></h2></header></section> : run.status === "queued" || run.status === "running" ? <p className="muted"><Words text={data.sentence} /></p> : null}
      <Questions run={run.run} open={data.can_cancel} />
      <nav className="tabs" aria-label="Parts of the run">
        {["steps", "events"].map((one) => <Tab isHere={tab === one} key={one} to="/runs/$run" params={{ run: run.run }} search={{ ...search, tab: one === "steps" ? undefined : one }}>{one === "steps" ? "Steps" : "Events"}</Tab>)}
      </nav>
      {tab === "events" ? <Events run={run.run} /> : (
        <>
          <Gantt data={data} chosen={chosen?.step} choose={choose} />
          {chosen ? <StepPanel run={run.run} step={chosen} /> : null}
          <Facts data={data} />
        </>
      )}
    </Page>
  );
}

function FailedChecks({ step }: { step: Step }) {
  const failed = step.checks.filter((check) => !check.passed);
  return (
    <section className="panel failure" aria-label="Why it failed">
      <header><h2 className="grow">{failed.length === 1 ? `The check ${failed[0]?.check} found ${plural(failed[0]?.bad_rows ?? 0, "bad row")}` : `${plural(failed.length, "check")} failed`}</h2></header>
      <div className="body stack">{failed.map((check) => <div key={check.check}><b>{check.check}</b> <span className="muted">in {step.step}</span>{check.sample.slice(0, 3).map((row) => <pre key={row} className="cut">{row}</pre>)}</div>)}<p className="muted">The data were published all the same, because the checks do not block.</p></div>
    </section>
  );
}

/** A selection as it was typed, as what it takes and what it leaves out. */
function again(selection: string): Record<string, string> {
  const [select = "", ...exclude] = selection.split(" --exclude ");
  return { ...(select === "all" ? {} : { select }), ...(exclude.length ? { exclude: exclude.join(" ") } : {}) };
}

function Stop({ run }: { run: string }) {
  if (!useMay("operate")) return null;
  return <Confirm word="Stop…" title="Stop the run" text="Steps that go on are asked to end; what they have published stays. The run can go on with the rest later." verb="Stop it" path={`/api/v1/runs/${run}/cancel`} />;
}

const ROWS_MAX = 200;

/** When each step waited, began and ended. */
function Gantt({ data, chosen, choose }: { data: Detail; chosen: string | undefined; choose: (step: string) => void }) {
  const now = useNow();
  const [all, setAll] = useState(false);
  const moment = (at: string | null | undefined, otherwise: number) => (at ? new Date(at).getTime() : otherwise);
  const from = moment(data.run.started_at, moment(data.run.planned_at, now));
  const until = Math.max(moment(data.run.ended_at, now), from + 1);
  const place = (at: number) => (100 * Math.min(Math.max(at - from, 0), until - from)) / (until - from);
  const steps = all ? data.steps : data.steps.slice(0, ROWS_MAX);
  return (
    <Panel title={plural(data.steps.length, "step")} flush extra={<span className="muted small">0 to {duration(until - from)}</span>}>
      <div className="gantt">
        {steps.map((step) => {
          const begin = step.started_at ? place(new Date(step.started_at).getTime()) : undefined;
          const end = begin === undefined ? undefined : place(moment(step.ended_at, now));
          const ms = step.started_at ? moment(step.ended_at, now) - new Date(step.started_at).getTime() : undefined;
          const selected = step.step === chosen;
          return [
            <div key={`${step.step} name`} data-selected={selected}><button type="button" className="name" data-row onClick={() => choose(step.step)} aria-pressed={selected}><Status status={step.status} word="" /><span className="visually-hidden">{step.status}</span><span className="cut" title={step.step}>{step.step}</span></button></div>,
            <div key={`${step.step} lane`} className="lane" data-selected={selected} onClick={() => choose(step.step)} onKeyDown={() => undefined} role="presentation">
              {begin !== undefined && end !== undefined ? <>{begin > 0.5 ? <i className="wait" style={{ left: 0, width: `${begin}%`, opacity: 0.5 }} /> : null}<i className={`block fill-${toneOf(step.status)}`} style={{ left: `${begin}%`, width: `max(3px, ${end - begin}%)` }} title={`${step.status}, ${duration(ms)}`} /></> : <span className="muted small cut" style={{ padding: "0 8px" }}><Words text={step.note ?? step.reason} /></span>}
            </div>,
            <div key={`${step.step} time`} className="right nowrap muted" data-selected={selected} style={{ justifyContent: "flex-end" }}>{ms === undefined ? step.status : duration(ms)}</div>,
          ];
        })}
      </div>
      {data.steps.length > steps.length ? <div style={{ padding: 12 }}><button type="button" className="button" onClick={() => setAll(true)}>Show all {plural(data.steps.length, "step")}</button></div> : null}
    </Panel>
  );
}

function StepPanel({ run, step }: { run: string; step: Step }) {
  const mayLogs = useMay("logs");
  const facts: [string, React.ReactNode][] = [
    ["Why it is here", <Words key="reason" text={step.reason} />],
    ["Note", step.note ? <Words key="note" text={step.note} /> : undefined],
    ["Rows", step.read === undefined || step.read === null ? undefined : `read ${count(step.read)} = written ${count(step.written)} + rejected ${count(step.rejected)} + filtered ${count(step.filtered)}`],
    ["Rows of the table", step.row_count === undefined || step.row_count === null ? undefined : count(step.row_count)],
    ["Attempts", step.attempt_count > 1 ? step.attempt_count : undefined],
    ["Tried again", step.retry_at ? <Time at={step.retry_at} /> : undefined],
    ["Processor time", step.cpu_ms ? duration(step.cpu_ms) : undefined],
    ["Memory", step.memory_bytes_max ? bytes(step.memory_bytes_max) : undefined],
    ["Value", step.value !== undefined && step.value !== null ? <code>{JSON.stringify(step.value)}</code> : undefined],
    ["Waits for", step.needs.length ? step.needs.slice(0, 12).join(", ") : undefined],
    ["Warnings", step.warnings.length ? step.warnings.map((one) => <p key={one}>{one}</p>) : undefined],
    ...Object.entries(step.metadata ?? {}).map(([name, value]): [string, React.ReactNode] => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  ];
  return (
    <Panel id="step" title={<span className="row"><Status status={step.status} /><span>{step.step}</span></span>} extra={step.asset ? <Link to="/assets/$asset" params={{ asset: step.asset }}>The asset</Link> : null}>
      <div className="stack" style={{ gap: 12 }}>
        {step.failure ? <p><b><Words text={step.failure.message} /></b></p> : null}
        <dl className="facts">{facts.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([name, value]) => <div key={name} style={{ display: "contents" }}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
        {step.checks.length ? <table><thead><tr><th>Check</th><th>Came to</th><th className="right">Bad rows</th></tr></thead><tbody>{step.checks.map((check) => <tr key={check.check}><td>{check.check}</td><td><Status status={check.passed ? "passed" : check.severity === "warn" ? "warned" : "failed"} /></td><td className="right">{count(check.bad_rows)}</td></tr>)}</tbody></table> : null}
        {step.log_bytes ? <Log key={step.step} run={run} step={step.step} attempts={step.attempt_count} open={step.status === "running" || step.status === "stopping"} /> : step.kind === "task" && !mayLogs ? <p className="muted">What programs wrote is shown to those who have the permission logs; an admin grants it.</p> : null}
      </div>
    </Panel>
  );
}

function Events({ run }: { run: string }) {
  const events = useApi("/api/v1/runs/{run}/events", { run });
  return (
    <Loaded query={events}>
      {(data) => (
        <Panel title={data.items.length > 300 ? `The newest 300 of ${plural(data.items.length, "event")}` : plural(data.items.length, "event")} flush>
          <Scroll><table><thead><tr><th>At</th><th>Event</th><th>Step</th><th>Text</th></tr></thead>
            <tbody>{data.items.slice(-300).map((event) => <tr key={event.sequence}><td><Time at={event.at} exact /></td><td className="nowrap">{event.event}</td><td>{event.step}</td><td><Words text={event.text} /></td></tr>)}</tbody></table></Scroll>
        </Panel>
      )}
    </Loaded>
  );
}

function Facts({ data }: { data: Detail }) {
  const params = Object.entries(data.params ?? {});
  if (params.length === 0) return null;
  return <Panel title="Parameters"><dl className="facts">{params.map(([name, value]) => <div key={name} style={{ display: "contents" }}><dt>{name}</dt><dd><code>{JSON.stringify(value)}</code></dd></div>)}</dl></Panel>;
}

/** What the run asks people. */
function Questions({ run, open }: { run: string; open: boolean }) {
  const questions = useApi("/api/v1/questions", {}, {}, { enabled: open });
  const own = questions.data?.items.filter((question) => question.run === run) ?? [];
  return <>{own.map((question) => <Question key={question.task} question={question} />)}</>;
}

function Question({ question }: { question: Schemas["QuestionView"] }) {
  const may = useMay("operate");
  const queries = useQueryClient();
  const [input, setInput] = useState<Record<string, string>>({});
  const [problem, setProblem] = useState<unknown>();
  const answer = async (approved: boolean) => {
    try {
      await send("POST", `/api/v1/runs/${question.run}/answer`, { task: question.task, approved, input });
      setProblem(undefined);
      await queries.invalidateQueries();
    } catch (error) {
      setProblem(error);
    }
  };
  return (
    <Panel title={`${question.task} waits for an answer`} extra={<span className="muted"><Time at={question.since} /></span>}>
      <div className="stack">
        <p>{question.message}</p>
        {question.input.map((one) => (
          <label key={one.name} className="field" style={{ maxWidth: 360 }}><span>{one.name} <span className="muted">({one.kind})</span></span>
            {one.choices.length ? <select className="input" value={input[one.name] ?? ""} onChange={(event) => setInput({ ...input, [one.name]: event.target.value })}><option value="" />{one.choices.map((choice) => <option key={String(choice)}>{String(choice)}</option>)}</select> : <input className="input" value={input[one.name] ?? ""} placeholder={one.default === undefined || one.default === null ? "" : String(one.default)} onChange={(event) => setInput({ ...input, [one.name]: event.target.value })} />}
          </label>
        ))}
        {problem ? <Problem problem={problem} /> : null}
        {may ? <div className="row"><button type="button" className="button primary" onClick={() => void answer(true)}>Approve</button><span style={{ width: 24 }} /><button type="button" className="button danger" onClick={() => void answer(false)}>Reject</button></div> : <p className="muted">Somebody with the role operator answers it.</p>}
      </div>
    </Panel>
  );
}
