// Backfills: many partitions over as many runs as it takes.
import { Link, useParams } from "@tanstack/react-router";
import { ApiProblem, type Schemas, useApi } from "../api/client";
import { NotFound, useMay } from "../shell";
import { Code, Confirm, Empty, Loaded, Page, Panel, Problem, Skeleton, Status, Time, count, plural, Scroll } from "../ui/parts";
import { Act } from "./asset";

type Backfill = Schemas["BackfillView"];

function Progress({ one }: { one: Backfill }) {
  const rest = Math.max(0, one.count - one.done - one.failed - one.blocked);
  const parts: [string, number, string][] = [["good", one.done, "done"], ["bad", one.failed, "failed"], ["warn", one.blocked, "blocked"], ["missing", rest, "to do"]];
  const words = parts.filter(([, many]) => many > 0).map(([, many, word]) => `${many} ${word}`).join(", ");
  return <div className="parts" style={{ minWidth: 120, height: 12 }} role="img" aria-label={words} title={words}>{parts.map(([tone, many]) => (many > 0 ? <i key={tone} className={`fill-${tone}`} style={{ flexGrow: many }} /> : null))}</div>;
}

function Actions({ one }: { one: Backfill }) {
  const path = `/api/v1/backfills/${one.backfill}`;
  if (!useMay("operate")) return null;
  return <span className="row">{one.status === "running" ? <Act path={`${path}/pause`} word="Pause" /> : null}{one.status === "paused" ? <Act path={`${path}/resume`} word="Go on" primary /> : null}{one.status === "running" || one.status === "paused" ? <Confirm word="Cancel…" title="Cancel the backfill" text="Partitions that are done stay. What is left is not made, and a canceled backfill does not go on: pause it for that." verb="Cancel it" path={`${path}/cancel`} /> : null}</span>;
}

export function Backfills() {
  const backfills = useApi("/api/v1/backfills", {}, {}, { refetchInterval: 5_000 });
  return (
    <Page title="Backfills" sub="Many partitions, over as many runs as it takes.">
      <Loaded query={backfills}>
        {(data) => data.items.length === 0 ? (
          <><Empty title="No backfill yet" text="A backfill makes many partitions of an asset, in order and bounded, and can be paused." action={<Link className="button primary" to="/assets">Find an asset with partitions</Link>} doc={{ topic: "guides/partitions", label: "Partitions and backfills" }} /><Code text="subak backfill start gold.daily --partition 2024-01-01..2024-12-31" /></>
        ) : (
          <div className="panel"><Scroll><table><thead><tr><th>Status</th><th>What</th><th>Begun</th><th>Progress</th><th className="right">Done</th><th className="right">Failed</th><th /></tr></thead>
            <tbody>{data.items.map((one) => <tr key={one.backfill}><td><Status status={one.status} /></td><td><Link data-row to="/backfills/$backfill" params={{ backfill: one.backfill }}>{one.selection}</Link></td><td><Time at={one.created_at} /></td><td><Progress one={one} /></td><td className="right nowrap">{count(one.done)} of {count(one.count)}</td><td className="right">{count(one.failed)}</td><td><Actions one={one} /></td></tr>)}</tbody></table></Scroll></div>
        )}
      </Loaded>
    </Page>
  );
}

export function BackfillPage() {
  const { backfill: id = "" } = useParams({ strict: false }) as { backfill?: string };
  const found = useApi("/api/v1/backfills/{backfill}", { backfill: id }, {}, { refetchInterval: 3_000 });
  if (found.error instanceof ApiProblem && found.error.status === 404) return <NotFound what={`backfill ${id}`} />;
  const one = found.data;
  if (!one) return <Page title="Backfill">{found.error ? <Problem problem={found.error} /> : <Skeleton />}</Page>;
  return (
    <Page title={`Backfill ${one.selection}`} heading={one.selection} sub={<span className="row"><Status status={one.status} /><span>begun <Time at={one.created_at} /></span>{one.run ? <Link to="/runs/$run" params={{ run: one.run }}>the run that goes on</Link> : null}</span>} actions={<Actions one={one} />}>
      <Panel title={`${count(one.done)} of ${plural(one.count, "partition")} done`}><div className="stack"><Progress one={one} /><p className="muted">{count(one.failed)} failed, {count(one.blocked)} not made because of one that failed.</p></div></Panel>
      <Panel title="Assets" flush><Scroll><table><thead><tr><th>Asset</th><th>Partitions</th><th className="right">Planned</th></tr></thead><tbody>{one.targets.map((target) => <tr key={target.asset}><td><Link to="/assets/$asset" params={{ asset: target.asset }} search={{ tab: "partitions" }}>{target.asset}</Link></td><td className="mono">{target.ranges.map(([first, last]) => (first === last ? first : `${first} to ${last}`)).join(", ")}</td><td className="right">{count(target.planned)} of {count(target.count)}</td></tr>)}</tbody></table></Scroll></Panel>
    </Page>
  );
}
