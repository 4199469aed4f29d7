// Backfills: many partitions over as many runs as it takes.
import { Link, useNavigate, useParams } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { ApiProblem, type Schemas, useApi, useSend } from "../api/client";
import { NotFound, useMay } from "../shell";
import { Code, Confirm, Dialog, Empty, Loaded, Page, Panel, Problem, Skeleton, Status, Time, count, plural, Scroll } from "../ui/parts";
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

/** Asks which partitions, says what that would be about, and begins it. */
export function StartBackfill({ asset = "", partition = "" }: { asset?: string; partition?: string }) {
  const [open, setOpen] = useState(false);
  const [seen, setSeen] = useState<Backfill>();
  const navigate = useNavigate();
  const look = useSend<Backfill>(setSeen);
  const begin = useSend<Backfill>((one) => {
    setOpen(false);
    void navigate({ to: "/backfills/$backfill", params: { backfill: one.backfill } });
  });
  const [said, setSaid] = useState<Record<string, unknown>>();
  if (!useMay("operate")) return null;
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const words = (name: string, between: RegExp) => String(form.get(name) ?? "").split(between).map((word) => word.trim()).filter(Boolean);
    const body = { select: words("select", /\s+/), partition: words("partition", /,/), newest_first: form.get("newest_first") === "on", per_run: Number(form.get("per_run") ?? 100) };
    setSaid(body);
    look.mutate({ path: "/api/v1/backfills", body: { ...body, dry_run: true } });
  };
  const close = () => {
    setOpen(false);
    setSeen(undefined);
  };
  return (
    <>
      <button type="button" className="button primary" onClick={() => setOpen(true)}>Backfill…</button>
      <Dialog open={open} title="Begin a backfill" onClose={close}>
        <form className="content" onSubmit={submit} onChange={() => { setSeen(undefined); setSaid(undefined); }}>
          <h2>Begin a backfill</h2>
          <label className="stack" style={{ gap: 2 }}>Assets with partitions<input className="input mono" name="select" required defaultValue={asset} placeholder="gold.daily" /></label>
          <label className="stack" style={{ gap: 2 }}>Partitions<input className="input mono" name="partition" required defaultValue={partition} placeholder="2024-01-01..2024-12-31, missing, failed or all" /></label>
          <div className="row"><label className="row">Partitions in one run <input className="input" style={{ width: 90 }} type="number" name="per_run" min={1} max={1000} defaultValue={100} /></label><label className="row"><input type="checkbox" name="newest_first" /> The last ones first</label></div>
          {look.error ? <Problem problem={look.error} /> : begin.error ? <Problem problem={begin.error} /> : null}
          {seen && said ? <p role="status"><b>{plural(seen.count, "partition")}</b> of {seen.targets.map((target) => `${target.asset} (${count(target.count)})`).join(", ")}. They are made anew, in order, over {plural(Math.ceil(seen.count / Number(said?.["per_run"] ?? 100)), "run")}.</p> : null}
          <div className="row">{seen && said ? <button type="button" className="button primary" disabled={begin.isPending} onClick={() => begin.mutate({ path: "/api/v1/backfills", body: said ?? {} })}>Begin</button> : <button type="submit" className="button primary" disabled={look.isPending}>What would it be about?</button>}<button type="button" className="button" onClick={close}>Leave it</button></div>
        </form>
      </Dialog>
    </>
  );
}

export function Backfills() {
  const backfills = useApi("/api/v1/backfills", {}, {}, { refetchInterval: 5_000 });
  return (
    <Page title="Backfills" sub="Many partitions, over as many runs as it takes." actions={<StartBackfill />}>
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
