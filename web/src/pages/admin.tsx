// Who may sign in, with what programs come, what was done by whom, and the server itself.
import { useQueryClient } from "@tanstack/react-query";
import { useLocation } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { type Schemas, send, useApi, useSend } from "../api/client";
import { useMay, useMe } from "../shell";
import { Code, Dialog, Empty, Loaded, Menu, Page, Panel, Problem, Status, Time, count, plural, Scroll, Tab } from "../ui/parts";

const ROLES: [string, string][] = [
  ["viewer", "sees what is declared and what became of it"],
  ["operator", "keeps it going, and sees logs and rows"],
  ["editor", "changes what is declared"],
  ["admin", "manages people, tokens and the server"],
];

type Place = "/admin/users" | "/admin/tokens" | "/admin/audit" | "/admin/system";

function Tabs() {
  const { pathname } = useLocation();
  const may = useMay("administer");
  const tabs: [Place, string][] = may ? [["/admin/users", "Users"], ["/admin/tokens", "Tokens"], ["/admin/audit", "Audit"], ["/admin/system", "System"]] : [["/admin/tokens", "Tokens"], ["/admin/system", "System"]];
  return <nav className="tabs" aria-label="Administration">{tabs.map(([to, word]) => <Tab isHere={pathname.endsWith(to)} key={to} to={to}>{word}</Tab>)}</nav>;
}

function Roles({ value }: { value?: string }) {
  return <label className="field"><span>Role</span><select className="input" name="role" defaultValue={value ?? "viewer"}>{ROLES.map(([role, what]) => <option key={role} value={role}>{role}: {what}</option>)}</select></label>;
}

export function Users() {
  const users = useApi("/api/v1/users");
  const me = useMe();
  const [adding, setAdding] = useState(false);
  const [changing, setChanging] = useState<Schemas["UserView"]>();
  const [removing, setRemoving] = useState<string>();
  const act = useSend();
  return (
    <Page title="Users" actions={<button type="button" className="button primary" onClick={() => setAdding(true)}>Add somebody</button>}>
      <Tabs />
      {act.error ? <Problem problem={act.error} /> : null}
      <Loaded query={users}>
        {(data) => (
          <div className="panel"><Scroll><table><thead><tr><th>Name</th><th>Role</th><th>May</th><th>State</th><th>Since</th><th /></tr></thead>
            <tbody>{data.items.map((user) => (
              <tr key={user.name}><td>{user.name}{user.name === me?.user ? <span className="muted"> (you)</span> : null}</td><td>{user.role}</td><td className="muted">{user.permissions.join(", ")}</td><td><Status status={user.is_off ? "off" : "active"} word={user.is_off ? "shut out" : "active"} /></td><td><Time at={user.created_at} /></td>
                <td className="right"><Menu name={`What to do with ${user.name}`} label="…"><button type="button" className="button" onClick={() => setChanging(user)}>Change…</button><button type="button" className="button" onClick={() => act.mutate({ method: "PATCH", path: `/api/v1/users/${encodeURIComponent(user.name)}`, body: { is_off: !user.is_off } })}>{user.is_off ? "Let in again" : "Shut out"}</button><button type="button" className="button danger" onClick={() => setRemoving(user.name)}>Remove…</button></Menu></td></tr>
            ))}</tbody></table></Scroll></div>
        )}
      </Loaded>
      <UserDialog open={adding} onClose={() => setAdding(false)} />
      <UserDialog open={changing !== undefined} user={changing} onClose={() => setChanging(undefined)} />
      <Remove name={removing} onClose={() => setRemoving(undefined)} />
    </Page>
  );
}

function Remove({ name, onClose }: { name: string | undefined; onClose: () => void }) {
  const [typed, setTyped] = useState("");
  const act = useSend(() => { setTyped(""); onClose(); });
  return (
    <Dialog open={name !== undefined} title="Remove somebody" onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); act.mutate({ method: "DELETE", path: `/api/v1/users/${encodeURIComponent(name ?? "")}` }); }}>
        <h2>Remove {name}</h2>
        <p className="muted">Their sessions and tokens end. What they did stays in the audit log.</p>
        <label className="field"><span>Type <code>{name}</code> to confirm</span><input className="input" value={typed} onChange={(event) => setTyped(event.target.value)} autoFocus /></label>
        {act.error ? <Problem problem={act.error} /> : null}
        <div className="row"><button type="submit" className="button danger" disabled={typed !== name}>Remove</button><span style={{ width: 24 }} /><button type="button" className="button" onClick={onClose}>Keep</button></div>
      </form>
    </Dialog>
  );
}

function UserDialog({ open, user, onClose }: { open: boolean; user?: Schemas["UserView"] | undefined; onClose: () => void }) {
  const queries = useQueryClient();
  const [problem, setProblem] = useState<unknown>();
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = new FormData(event.currentTarget);
    const password = String(said.get("password"));
    const body = { role: String(said.get("role")), logs: said.get("logs") !== null, data: said.get("data") !== null, ...(password ? { password } : {}) };
    try {
      await (user ? send("PATCH", `/api/v1/users/${encodeURIComponent(user.name)}`, body) : send("POST", "/api/v1/users", { ...body, name: String(said.get("name")) }));
      setProblem(undefined);
      await queries.invalidateQueries();
      onClose();
    } catch (error) {
      setProblem(error);
    }
  };
  return (
    <Dialog open={open} title={user ? `Change ${user.name}` : "Add somebody"} onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <h2>{user ? `Change ${user.name}` : "Add somebody"}</h2>
        {user ? null : <label className="field"><span>Name</span><input className="input" name="name" required autoFocus autoComplete="off" /></label>}
        <Roles value={user?.role ?? "viewer"} />
        <label className="row"><input type="checkbox" name="logs" defaultChecked={user?.logs ?? false} />may read logs, whatever the role</label>
        <label className="row"><input type="checkbox" name="data" defaultChecked={user?.data ?? false} />may see rows, whatever the role</label>
        <label className="field"><span>{user ? "Another password; nothing keeps the one they have" : "First password, 10 letters or more"}</span><input className="input" type="password" name="password" minLength={10} required={!user} autoComplete="new-password" /></label>
        {problem ? <Problem problem={problem} /> : null}
        <div className="row"><button type="submit" className="button primary">{user ? "Change" : "Add"}</button><button type="button" className="button" onClick={onClose}>Cancel</button></div>
      </form>
    </Dialog>
  );
}

export function Tokens() {
  const tokens = useApi("/api/v1/tokens");
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState<Schemas["TokenMade"]>();
  const act = useSend();
  return (
    <Page title="Tokens" sub="What programs send instead of a password." actions={<button type="button" className="button primary" onClick={() => setAdding(true)}>Make a token</button>}>
      <Tabs />
      {made ? <Panel title={`The secret of ${made.token.name}, which is told once`}><div className="stack"><Code text={made.secret} /><div className="row"><button type="button" className="button" onClick={() => void navigator.clipboard.writeText(made.secret)}>Copy</button><button type="button" className="button" onClick={() => setMade(undefined)}>I have it</button></div></div></Panel> : null}
      {act.error ? <Problem problem={act.error} /> : null}
      <Loaded query={tokens}>
        {(data) => data.items.length === 0 ? <Empty title="No tokens" text="A token may do no more than whoever made it, and ends by itself." action={<button type="button" className="button primary" onClick={() => setAdding(true)}>Make a token</button>} doc={{ topic: "reference/http-api", label: "The HTTP interface" }} /> : (
          <div className="panel"><Scroll><table><thead><tr><th>Name</th><th>State</th><th>User</th><th>May</th><th>Ends</th><th>Last used</th><th /></tr></thead>
            <tbody>{data.items.map((token) => <tr key={token.id}><td>{token.name} <span className="muted mono">{token.id}</span></td><td><Status status={token.status} /></td><td>{token.user}</td><td className="muted">{token.permissions.join(", ")}</td><td><Time at={token.expires_at} /></td><td><Time at={token.used_at} /></td><td className="right">{token.status === "active" ? <button type="button" className="button" onClick={() => act.mutate({ method: "DELETE", path: `/api/v1/tokens/${token.id}` })}>End it</button> : null}</td></tr>)}</tbody></table></Scroll></div>
        )}
      </Loaded>
      <TokenDialog open={adding} onClose={() => setAdding(false)} onMade={setMade} />
    </Page>
  );
}

function TokenDialog({ open, onClose, onMade }: { open: boolean; onClose: () => void; onMade: (made: Schemas["TokenMade"]) => void }) {
  const queries = useQueryClient();
  const [problem, setProblem] = useState<unknown>();
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = new FormData(event.currentTarget);
    try {
      onMade(await send<Schemas["TokenMade"]>("POST", "/api/v1/tokens", { name: String(said.get("name")), role: String(said.get("role")), days: Number(said.get("days")) }));
      setProblem(undefined);
      await queries.invalidateQueries();
      onClose();
    } catch (error) {
      setProblem(error);
    }
  };
  return (
    <Dialog open={open} title="Make a token" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <h2>Make a token</h2>
        <label className="field"><span>What it is for</span><input className="input" name="name" required autoFocus placeholder="prometheus" autoComplete="off" /></label>
        <Roles />
        <label className="field"><span>Days until it ends</span><input className="input" name="days" type="number" min={1} max={365} defaultValue={90} required /></label>
        {problem ? <Problem problem={problem} /> : null}
        <div className="row"><button type="submit" className="button primary">Make it</button><button type="button" className="button" onClick={onClose}>Cancel</button></div>
      </form>
    </Dialog>
  );
}

export function Audit() {
  const audit = useApi("/api/v1/audit", {}, { limit: 200 });
  return (
    <Page title="Audit" sub="What was done by whom. Each entry covers the one before it: subak audit verify shows whether one was changed.">
      <Tabs />
      <Loaded query={audit}>
        {(data) => data.items.length === 0 ? <Empty title="Nothing was done yet" text="Whatever changes something is entered here." /> : (
          <div className="panel"><Scroll><table><thead><tr><th>At</th><th>Who</th><th>What</th><th>About</th><th>More</th><th>From</th></tr></thead><tbody>{data.items.map((one) => <tr key={one.position}><td><Time at={one.at} exact /></td><td>{one.actor}</td><td className="mono">{one.action}</td><td className="mono">{one.object}</td><td>{one.detail}</td><td className="muted">{one.origin}</td></tr>)}</tbody></table></Scroll></div>
        )}
      </Loaded>
    </Page>
  );
}

export function System() {
  const project = useApi("/api/v1/project");
  const home = useApi("/api/v1/home");
  const problems = useApi("/api/v1/problems");
  return (
    <Page title="System">
      <Tabs />
      <Loaded query={project}>
        {(data) => (
          <div className="columns even">
            <Panel title="The server"><dl className="facts"><dt>Version</dt><dd>{data.version}</dd><dt>Clock</dt><dd><Time at={data.now} exact /></dd><dt>State</dt><dd>{home.data ? `${(home.data.store_bytes / 1048576).toFixed(1)} MiB` : "–"}</dd><dt>Waiting runs</dt><dd>{count(home.data?.queued_run_count)}</dd></dl></Panel>
            <Panel title="The project"><dl className="facts"><dt>Name</dt><dd>{data.name}</dd><dt>Profile</dt><dd>{data.profile ?? "none"}</dd><dt>Time zone</dt><dd>{data.timezone}</dd><dt>Warehouse</dt><dd>{data.warehouse}</dd><dt>Assets</dt><dd>{count(data.asset_count)}</dd><dt>Jobs</dt><dd>{count(data.job_count)}</dd></dl></Panel>
          </div>
        )}
      </Loaded>
      {problems.data?.items.length ? <Panel title={plural(problems.data.items.length, "problem")}><div className="stack">{problems.data.items.map((one) => <Code key={one.text} text={one.text} />)}</div></Panel> : null}
    </Page>
  );
}
