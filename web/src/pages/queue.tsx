// What waits and why, and who has what it waits for.
import { Link } from "@tanstack/react-router";
import { type Schemas, useApi } from "../api/client";
import { Empty, Loaded, Page, Panel, Status, Time, Words, count, duration, plural, Scroll } from "../ui/parts";
import { Act } from "./asset";

export function Queue() {
  const queue = useApi("/api/v1/queue", {}, {}, { refetchInterval: 5_000 });
  const pools = useApi("/api/v1/pools", {}, {}, { refetchInterval: 5_000 });
  return (
    <Page title="Queue" sub={queue.data ? `${plural(queue.data.waiting_count, "run")} waiting, ${queue.data.running.length} running` : undefined}>
      <Loaded query={queue}>
        {(data) => (
          <>
            <Panel title="Waiting" flush>
              {data.waiting.length === 0 ? <p className="muted" style={{ padding: 12 }}>Nothing waits.</p> : (
                <Scroll><table><thead><tr><th>What</th><th>Why it waits</th><th>Since</th><th /></tr></thead>
                  <tbody>{data.waiting.map((one) => <tr key={one.run.run}><td><Link data-row to="/runs/$run" params={{ run: one.run.run }}>{one.run.selection}</Link></td><td><Words text={one.why} /></td><td><Time at={one.run.planned_at} /></td><td className="right"><Act path={`/api/v1/runs/${one.run.run}/cancel`} word="Take it out" /></td></tr>)}</tbody></table></Scroll>
              )}
            </Panel>
            <Panel title="Running" flush>
              {data.running.length === 0 ? <p className="muted" style={{ padding: 12 }}>Nothing runs.</p> : (
                <Scroll><table><thead><tr><th>Status</th><th>What</th><th>Started by</th><th className="right">For</th></tr></thead><tbody>{data.running.map((run) => <tr key={run.run}><td><Status status={run.status} /></td><td><Link data-row to="/runs/$run" params={{ run: run.run }}>{run.selection}</Link></td><td className="muted">{run.trigger}</td><td className="right">{duration(run.elapsed_ms)}</td></tr>)}</tbody></table></Scroll>
              )}
            </Panel>
          </>
        )}
      </Loaded>
      <Loaded query={pools} rows={3}>
        {(data) => data.items.length === 0 ? (
          <Panel title="Pools" flush><Empty title="No pools" text="A pool bounds how many steps do the same kind of thing at a time, over all runs: requests to one service, for example." doc={{ topic: "guides/jobs", label: "How pools work" }} /></Panel>
        ) : (
          <Panel title="Pools" flush><Scroll><table><thead><tr><th>Pool</th><th>Slots</th><th>Has them</th><th>Waits for them</th></tr></thead><tbody>{data.items.map((pool) => <tr key={pool.pool}><td>{pool.pool}</td><td>{count(pool.taken)} of {count(pool.size)} taken</td><td><Takers list={pool.takers.filter((one) => one.has)} /></td><td><Takers list={pool.takers.filter((one) => !one.has)} /></td></tr>)}</tbody></table></Scroll></Panel>
        )}
      </Loaded>
    </Page>
  );
}

function Takers({ list }: { list: Schemas["TakerView"][] }) {
  if (list.length === 0) return <span className="muted">nobody</span>;
  return <>{list.slice(0, 8).map((one) => <div key={`${one.run} ${one.step}`}><Link to="/runs/$run" params={{ run: one.run }} search={{ step: one.step }}>{one.step}</Link> <span className="muted">{one.count} since <Time at={one.since} /></span></div>)}</>;
}
