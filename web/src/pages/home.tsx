// Is anything wrong, what goes on, is the data on time.
import { Link } from "@tanstack/react-router";
import { type Schemas, useApi } from "../api/client";
import { Code, Empty, Loaded, Mix, Page, Panel, Status, Time, Words, count, duration, plural, toneOf, useIcon, Scroll } from "../ui/parts";

type HomeView = Schemas["HomeView"];
type Attention = Schemas["AttentionView"];

export function Home() {
  const home = useApi("/api/v1/home", {}, {}, { refetchInterval: 15_000 });
  useIcon(home.data ? (home.data.attention.some((one) => one.status === "failed") ? "bad" : home.data.running_run_count > 0 ? "run" : "good") : undefined);
  return (
    <Page title="Home" heading={home.data ? <Words text={home.data.sentence} /> : "Home"} sub={home.data ? <>As of <Time at={home.data.at} /></> : undefined} actions={<Link className="button primary" to="/plan">Plan a run…</Link>}>
      <Loaded query={home}>{(data) => <Shown data={data} />}</Loaded>
    </Page>
  );
}

function Shown({ data }: { data: HomeView }) {
  const isNew = data.first_steps.some((step) => !step.is_done);
  return (
    <>
      <div className="numbers">
        <Number to="/runs" search={{ status: "failed", ended_within: "24" }} value={data.failed_run_count} word="failed in 24 h" />
        <Number to="/runs" search={{ status: "running,stopping" }} value={data.running_run_count} word="running" />
        <Number to="/runs" search={{ status: "queued" }} value={data.queued_run_count} word="queued" />
        {["failed", ...(data.asset_counts["late"] ? ["late"] : []), "stale", "missing", "fresh"].map((status) => (
          <Number key={status} to="/assets" search={{ status }} value={data.asset_counts[status] ?? 0} word={`assets ${status}`} />
        ))}
      </div>
      {isNew ? <FirstSteps steps={data.first_steps} /> : null}
      <div className="columns">
        <div className="stack" style={{ gap: 16 }}>
          <Panel title="Needs attention" flush extra={<span className="muted small">{data.attention.length + data.attention_more === 0 ? "nothing" : plural(data.attention.length + data.attention_more, "thing")}</span>}>
            {data.attention.length === 0 ? <p className="muted" style={{ padding: 12 }}>Nothing failed that was not made good since, and nothing waits for a person.</p> : (
              <Scroll><table><thead><tr><th>What</th><th>Why</th><th>Since</th></tr></thead>
                <tbody>{data.attention.map((one) => <tr key={`${one.kind} ${one.name}`}><td><Status status={one.status} word={one.kind} /> <Where one={one} /></td><td><Words text={one.cause} /></td><td className="muted"><Time at={one.since} /></td></tr>)}</tbody></table></Scroll>
            )}
          </Panel>
          <Timeline runs={data.timeline} next={data.next} at={data.at} />
        </div>
        <div className="stack" style={{ gap: 16 }}>
          <Panel title="Now" flush extra={<Link to="/queue" className="small">Queue</Link>}>
            {data.now.length === 0 ? <p className="muted" style={{ padding: 12 }}>Nothing runs.{data.next[0] ? <> Next is <Link to="/automation/$name" params={{ name: data.next[0].job }}>{data.next[0].job}</Link> <Time at={data.next[0].at} />.</> : null}</p> : (
              <table><tbody>{data.now.map((run) => <tr key={run.run}><td><Status status={run.status} /></td><td className="wide cut"><Link to="/runs/$run" params={{ run: run.run }}>{run.selection}</Link></td><td className="right muted nowrap">{duration(run.elapsed_ms)}</td></tr>)}</tbody></table>
            )}
          </Panel>
          <Panel title="Assets by group" flush>
            {data.groups.length === 0 ? <p className="muted" style={{ padding: 12 }}>There are no assets yet.</p> : (
              <Scroll><table><thead><tr><th>Group</th><th>Standing</th><th className="right">Assets</th></tr></thead>
                <tbody>{data.groups.map((group) => (
                  <tr key={group.group}><td><Link to="/assets" search={{ text: group.group }}>{group.group}</Link></td><td style={{ width: "50%" }}><Mix counts={group.counts} /></td><td className="right">{count(Object.values(group.counts).reduce((sum, one) => sum + one, 0))}</td></tr>
                ))}</tbody></table></Scroll>
            )}
          </Panel>
          <p className="muted small">State: {(data.store_bytes / 1048576).toFixed(1)} MiB.{data.queue_age_ms ? ` The oldest waiting run has waited ${duration(data.queue_age_ms)}.` : ""}</p>
        </div>
      </div>
    </>
  );
}

function Number({ to, search, value, word }: { to: string; search: Record<string, string>; value: number; word: string }) {
  return <div className="number"><Link to={to} search={search}><b>{count(value)}</b></Link><span className="muted">{word}</span></div>;
}

function Where({ one }: { one: Attention }) {
  if (one.kind === "run" || one.kind === "question") return <Link to="/runs/$run" params={{ run: one.name }}>{one.title}</Link>;
  if (one.kind === "asset") return <Link to="/assets/$asset" params={{ asset: one.name }}>{one.name}</Link>;
  if (one.kind === "backfill") return <Link to="/backfills/$backfill" params={{ backfill: one.name }}>{one.title}</Link>;
  return <Link to="/admin/system">{one.title}</Link>;
}

const STEPS: Record<string, { title: string; text: string; code?: string }> = {
  connect: { title: "Connect a source", text: "Connections stand in subak.yml.", code: "connections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }" },
  declare: { title: "Declare an asset", text: "A file below assets/ is one: its path is its name.", code: "-- assets/gold/hello.sql\nselect 1 as id" },
  run: { title: "Run it", text: "Plan a run here, or type subak run." },
  schedule: { title: "Let it run by itself", text: "A job with a schedule, or an asset with automation.", code: 'job: hourly\nselect: "*"\nschedule: "15 * * * *"' },
};

function FirstSteps({ steps }: { steps: HomeView["first_steps"] }) {
  const next = steps.find((step) => !step.is_done);
  const shown = next ? STEPS[next.step] : undefined;
  return (
    <Panel title="First steps" extra={<Link className="small" to="/docs/$topic" params={{ topic: "start" }}>The guide</Link>}>
      <div className="columns even">
        <div className="stack">{steps.map((step) => <Status key={step.step} status={step.is_done ? "done" : "pending"} word={STEPS[step.step]?.title ?? step.step} />)}</div>
        {shown ? <div className="stack"><h3>{shown.title}</h3><p className="muted">{shown.text}</p>{shown.code ? <Code text={shown.code} /> : null}</div> : null}
      </div>
    </Panel>
  );
}

/** All runs of the last day by job, whatever started them, and the ticks that come. */
function Timeline({ runs, next, at }: { runs: HomeView["timeline"]; next: HomeView["next"]; at: string }) {
  const now = new Date(at).getTime();
  const first = Math.min(...runs.map((run) => new Date(run.planned_at).getTime()), now - 3_600_000);
  const from = Math.max(first, now - 86_400_000);
  const span = (now - from) / 0.9;
  const until = from + span;
  const place = (moment: number) => (100 * (Math.min(Math.max(moment, from), until) - from)) / span;
  const lanes = new Map<string, typeof runs>();
  for (const run of runs) {
    const name = run.job ?? "selections";
    lanes.set(name, [...(lanes.get(name) ?? []), run]);
  }
  for (const one of next) if (new Date(one.at).getTime() < until && !lanes.has(one.job)) lanes.set(one.job, []);
  const hours = (until - from) / 3_600_000;
  return (
    <Panel title="Timeline" flush extra={<Link to="/runs" className="small">All runs</Link>}>
      {lanes.size === 0 ? <Empty title="No run yet" text="Runs show here, whatever started them: the command line, a schedule, a sensor, this app." action={<Link className="button primary" to="/plan">Plan a run…</Link>} doc={{ topic: "concepts/runs", label: "How runs work" }} /> : (
        <>
          <div className="timeline">
            {[...lanes].slice(0, 12).map(([name, own]) => (
              <div className="lane" key={name}>
                <span className="cut" title={name}>{name}</span>
                <div className="track">
                  {own.slice(0, 80).map((run) => {
                    const begin = place(new Date(run.started_at ?? run.planned_at).getTime());
                    const end = place(run.ended_at ? new Date(run.ended_at).getTime() : now);
                    return <Link key={run.run} to="/runs/$run" params={{ run: run.run }} className={`fill-${toneOf(run.status)}`} style={{ left: `${begin}%`, width: `max(6px, ${end - begin}%)` }} title={`${run.selection}: ${run.status}, ${duration(run.elapsed_ms)}`} aria-label={`${run.selection}: ${run.status}`} />;
                  })}
                  {next.filter((one) => one.job === name && new Date(one.at).getTime() < until).map((one) => <i key={one.at} style={{ left: `${place(new Date(one.at).getTime())}%` }} title={`next at ${one.at}`} />)}
                </div>
              </div>
            ))}
          </div>
          <div className="axis"><span>{hours < 3 ? `${Math.round((now - from) / 60_000)} min ago` : `${Math.round((now - from) / 3_600_000)} h ago`}</span><span>now ›</span></div>
        </>
      )}
    </Panel>
  );
}
