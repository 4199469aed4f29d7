// What starts by itself, when it comes next, and what it last came to.
import { Link, useParams } from "@tanstack/react-router";
import { ApiProblem, useApi } from "../api/client";
import { NotFound } from "../shell";
import { Code, Empty, Loaded, Page, Panel, Status, Time, Words, plural, Scroll } from "../ui/parts";
import { Act } from "./asset";

export function Automation() {
  const automation = useApi("/api/v1/automation", {}, {}, { refetchInterval: 10_000 });
  return (
    <Page title="Automation" sub={automation.data ? `${plural(automation.data.items.length, "thing")} that start by themselves` : undefined}>
      <Loaded query={automation}>
        {(data) => data.items.length === 0 ? (
          <><Empty title="Nothing starts by itself" text="A job gets a schedule, a sensor looks for something new, an asset says when it should be fresh." doc={{ topic: "guides/schedules", label: "Schedules" }} /><Code text={'job: hourly\nselect: "*"\nschedule: "15 * * * *"'} /></>
        ) : (
          <div className="panel"><Scroll><table><thead><tr><th>Name</th><th>Kind</th><th>When</th><th>Starts</th><th>State</th><th>Next</th><th>Last</th><th>Came to</th><th /></tr></thead>
            <tbody>{data.items.map((one) => (
              <tr key={`${one.kind} ${one.name}`}><td><Link data-row to="/automation/$name" params={{ name: one.name }}>{one.name}</Link></td><td className="muted">{one.kind}</td><td className="mono">{one.when}</td><td>{one.kind === "asset" ? <Link to="/assets/$asset" params={{ asset: one.starts }}>{one.starts}</Link> : one.starts}</td><td><Status status={one.is_on ? "active" : "off"} word={one.is_on ? "on" : "off"} /></td><td><Time at={one.next} /></td><td><Time at={one.last} /></td><td><Words text={one.came_to} /></td><td className="right"><Act path={`/api/v1/automation/${encodeURIComponent(one.name)}/${one.is_on ? "off" : "on"}`} word={one.is_on ? "Switch off" : "Switch on"} /></td></tr>
            ))}</tbody></table></Scroll></div>
        )}
      </Loaded>
    </Page>
  );
}

export function Ticks() {
  const { name = "" } = useParams({ strict: false }) as { name?: string };
  const ticks = useApi("/api/v1/automation/{name}/ticks", { name }, {}, { refetchInterval: 10_000 });
  const automation = useApi("/api/v1/automation");
  const own = automation.data?.items.find((one) => one.name === name);
  if (ticks.error instanceof ApiProblem && ticks.error.status === 404) return <NotFound what={`schedule, sensor or automated asset ${name}`} />;
  return (
    <Page title={name} sub={own ? <span className="row"><Status status={own.is_on ? "active" : "off"} word={own.is_on ? "on" : "off"} /><span>{own.kind}, {own.when}</span>{own.next ? <span>· next <Time at={own.next} /></span> : null}</span> : undefined} actions={own ? <><Act path={`/api/v1/automation/${encodeURIComponent(name)}/${own.is_on ? "off" : "on"}`} word={own.is_on ? "Switch off" : "Switch on"} />{own.kind === "schedule" ? <Link className="button primary" to="/plan" search={{ job: own.starts }}>Start it now…</Link> : null}</> : null}>
      {own?.came_to ? <p>Last, <Time at={own.last} />: {own.came_to}</p> : null}
      <Loaded query={ticks}>
        {(data) => data.items.length === 0 ? <Empty title="No tick yet" text="Each evaluation that comes to something is kept here, with the reason when it started nothing." doc={{ topic: "guides/schedules", label: "Ticks" }} /> : (
          <Panel title={plural(data.items.length, "tick")} flush><Scroll><table><thead><tr><th>For</th><th>Evaluated</th><th>Outcome</th><th>Text</th><th>Runs</th></tr></thead><tbody>{data.items.map((tick) => <tr key={`${tick.at} ${tick.recorded_at}`}><td><Time at={tick.at} exact /></td><td><Time at={tick.recorded_at} /></td><td><Status status={tick.outcome} /></td><td><Words text={tick.text} /></td><td>{tick.runs.slice(0, 5).map((run) => <Link key={run} className="mono" to="/runs/$run" params={{ run }}>{run.slice(-8)} </Link>)}</td></tr>)}</tbody></table></Scroll></Panel>
        )}
      </Loaded>
    </Page>
  );
}
