// What stands around every page: the rail, the bar, the palette, who has signed in, what is wrong with the project.
import { useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useLocation, useNavigate } from "@tanstack/react-router";
import { type FormEvent, type ReactNode, createContext, useContext, useEffect, useMemo, useRef, useState } from "react";
import { ApiProblem, type Schemas, base, send, useApi } from "./api/client";
import { listen, useLive } from "./api/live";
import { Code, Dialog, Empty, Menu, Page, Problem, Skeleton, Zone, ago, plural, useNow, useTitle } from "./ui/parts";

type Me = Schemas["Me"];

const WhoAmI = createContext<Me | undefined>(undefined);

/** Whether whoever has signed in may do something. */
export function useMay(permission: string): boolean {
  return useContext(WhoAmI)?.permissions.includes(permission) ?? false;
}

export function useMe(): Me | undefined {
  return useContext(WhoAmI);
}

const icon = (path: string) => <svg width="16" height="16" viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.5" aria-hidden="true"><path d={path} /></svg>;

export const PLACES: { to: string; word: string; keys: string; icon: ReactNode; may?: string }[] = [
  { to: "/", word: "Home", keys: "h", icon: icon("M2 8 8 2.5 14 8M4 7v6.5h8V7") },
  { to: "/assets", word: "Assets", keys: "a", icon: icon("M2 4.5 8 2l6 2.5L8 7ZM2 8l6 2.5L14 8M2 11.5 8 14l6-2.5") },
  { to: "/lineage", word: "Lineage", keys: "l", icon: icon("M2 3h4v4H2ZM10 9h4v4h-4ZM10 2h4v4h-4ZM6 5h4M6 6l4 5") },
  { to: "/runs", word: "Runs", keys: "r", icon: icon("M4 2.5v11l9-5.5Z") },
  { to: "/queue", word: "Queue", keys: "q", icon: icon("M2 3.5h12M2 8h12M2 12.5h7") },
  { to: "/backfills", word: "Backfills", keys: "b", icon: icon("M2 3h3v3H2ZM6.5 3h3v3h-3ZM11 3h3v3h-3ZM2 7.5h3v3H2ZM6.5 7.5h3v3h-3Z") },
  { to: "/automation", word: "Automation", keys: "u", icon: icon("M8 2a6 6 0 1 1-6 6M8 4.5V8l2.5 1.5M2 4v4h4") },
  { to: "/quality", word: "Quality", keys: "y", icon: icon("M8 2 3 4v4c0 3 2 5 5 6 3-1 5-3 5-6V4ZM5.5 8l2 2 3.500-3.500") },
  { to: "/connections", word: "Connections", keys: "c", icon: icon("M6 10 3.5 12.5M10 6l2.5-2.5M5 7l4 4-1.5 1.5a2.8 2.8 0 0 1-4-4ZM11 9 7 5l1.5-1.5a2.8 2.8 0 0 1 4 4Z") },
  { to: "/sql", word: "SQL", keys: "s", icon: icon("M2 3h12v10H2ZM4.5 6l2 2-2 2M8 10h3.5"), may: "data" },
  { to: "/docs", word: "Docs", keys: "d", icon: icon("M3 2.5h7l3 3v8H3ZM5.5 7h5M5.5 10h5") },
  { to: "/admin/users", word: "Admin", keys: "m", icon: icon("M8 8a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM3 13.5c.5-2.5 2.4-4 5-4s4.500 1.500 5 4"), may: "administer" },
];

/* Theme and time zone are kept by the browser: they are nobody else's business. */

type Theme = "system" | "light" | "dark" | "contrast";

function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, set] = useState<Theme>(() => (localStorage.getItem("subak-theme") as Theme | null) ?? "system");
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const apply = () => {
      document.documentElement.dataset["theme"] = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
    };
    apply();
    localStorage.setItem("subak-theme", theme);
    dark.addEventListener("change", apply);
    return () => dark.removeEventListener("change", apply);
  }, [theme]);
  return [theme, set];
}

export function Shell() {
  const [theme, setTheme] = useTheme();
  const [isUtc, setUtc] = useState(() => localStorage.getItem("subak-zone") === "utc");
  const zone = useMemo(
    () => ({
      isUtc,
      toggle: () => {
        localStorage.setItem("subak-zone", isUtc ? "local" : "utc");
        setUtc(!isUtc);
      },
    }),
    [isUtc],
  );
  const { pathname } = useLocation();
  const [isKnown, setKnown] = useState(() => document.querySelector("meta[name=known]")?.getAttribute("content") === "yes");
  const me = useApi("/api/v1/session", {}, {}, { refetchInterval: 60_000, enabled: isKnown });
  const isStranger = !isKnown || (me.error instanceof ApiProblem && me.error.status === 401);
  const queries = useQueryClient();
  const before = useRef<string>(undefined);
  const ask = async () => {
    setKnown(true);
    const now = await me.refetch();
    // Nobody sees what somebody else has read.
    if (before.current !== undefined && now.data?.user !== before.current) queries.clear();
    else await queries.invalidateQueries();
  };
  // Whoever was here before the session ended finds what they wrote below the question who they are.
  const was = useRef<Me>(undefined);
  if (me.data && !isStranger) {
    was.current = me.data;
    before.current = me.data.user;
  }
  if (isStranger && !was.current) {
    return pathname === "/setup" ? <SetUp onDone={() => void ask()} /> : <SignInPage onDone={() => void ask()} />;
  }
  if (!was.current) {
    return <div className="sign-in">{me.error ? <Problem problem={me.error} retry={() => void me.refetch()} /> : <Skeleton />}</div>;
  }
  return (
    <Zone.Provider value={zone}>
      <WhoAmI.Provider value={was.current}>
        <Framed theme={theme} setTheme={setTheme} />
        <Dialog open={isStranger} title="Sign in again" onClose={() => undefined} isNeeded>
          <div className="content">
            <h2>Your session has ended</h2>
            <p className="muted">Sign in again: this page stays as it is.</p>
            <SignIn onDone={() => void ask()} />
          </div>
        </Dialog>
      </WhoAmI.Provider>
    </Zone.Provider>
  );
}

function Framed({ theme, setTheme }: { theme: Theme; setTheme: (theme: Theme) => void }) {
  const queries = useQueryClient();
  useEffect(() => {
    const ends = new AbortController();
    listen(queries, ends.signal);
    return () => ends.abort();
  }, [queries]);
  const project = useApi("/api/v1/project", {}, {}, { refetchInterval: 30_000 });
  const [palette, setPalette] = useState(false);
  const [help, setHelp] = useState(false);
  const [problems, setProblems] = useState(false);
  useKeys(setPalette, setHelp);
  const { pathname } = useLocation();
  const main = useRef<HTMLElement>(null);
  const zone = useContext(Zone);
  const me = useMe();
  const may = useMay("administer");
  const isProduction = /^prod/.test(project.data?.profile ?? "");
  const isAt = (to: string) => (to === "/" ? pathname === "/" : pathname === to || pathname.startsWith(`${to}/`) || (to.startsWith("/admin") && pathname.startsWith("/admin")));
  const signOut = async () => {
    await send("DELETE", "/api/v1/session");
    location.assign(`${base}/`);
  };
  return (
    <div className={`frame ${isProduction ? "prod" : ""}`}>
      <a className="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>Skip to content</a>
      <header className="top">
        <Link to="/" className="brand">
          <svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true"><path d="M2 6c3-3 5 3 8 0s5 3 8 0M2 11c3-3 5 3 8 0s5 3 8 0M2 16c3-3 5 3 8 0s5 3 8 0" fill="none" stroke="var(--accent)" strokeWidth="2" /></svg>
          <span className="cut">{project.data?.name ?? "Subak"}</span>
        </Link>
        {project.data?.profile ? <span className="tag">{project.data.profile}</span> : null}
        <span className="grow" />
        <button type="button" className="button" onClick={() => setPalette(true)} title="Find assets, jobs, runs and pages"><span>Find</span><kbd className="muted small hide-narrow">Ctrl K</kbd></button>
        <Live />
        <button type="button" className="button plain hide-narrow" onClick={zone.toggle} title="Switch between your time and UTC">{zone.isUtc ? "UTC" : "Local time"}</button>
        <Menu name={`Signed in as ${me?.user ?? ""}`} label={<span className="cut">{me?.user}</span>}>
          <span className="muted small" style={{ padding: "4px 12px" }}>Role: {me?.role}</span>
          {(["system", "light", "dark", "contrast"] as Theme[]).map((one) => (
            <button type="button" key={one} className="button" aria-pressed={theme === one} onClick={() => setTheme(one)}>{theme === one ? "● " : "○ "}{{ system: "Theme of the system", light: "Light", dark: "Dark", contrast: "High contrast" }[one]}</button>
          ))}
          <button type="button" className="button" onClick={zone.toggle}>Show times in {zone.isUtc ? "local time" : "UTC"}</button>
          <Link className="button" to="/admin/tokens">Tokens</Link>
          <button type="button" className="button" onClick={() => setHelp(true)}>Keyboard</button>
          <button type="button" className="button" onClick={() => void signOut()}>Sign out</button>
        </Menu>
      </header>
      <nav className="rail" aria-label="Main">
        {PLACES.filter((place) => !place.may || may).map((place) => (
          <Link key={place.to} to={place.to} aria-current={isAt(place.to) ? "page" : undefined} activeOptions={{ exact: true }}>{place.icon}<span>{place.word}</span></Link>
        ))}
        <span className="gap" />
        <span className="muted small hide-narrow" style={{ padding: "0 8px" }}>Subak {project.data?.version}</span>
      </nav>
      <div style={{ minWidth: 0 }}>
        <Offline />
        {project.data && project.data.problem_count > 0 ? (
          <div className="bar bad" role="status">
            <span className="grow"><b>The files have {plural(project.data.problem_count, "problem")}.</b> {project.data.is_broken ? "Everything goes on as it was when they could last be loaded." : ""}</span>
            <button type="button" className="button" onClick={() => setProblems(true)}>Show {plural(project.data.problem_count, "problem")}</button>
          </div>
        ) : null}
        <main id="main" tabIndex={-1} ref={main}><Outlet /></main>
      </div>
      <Palette open={palette} onClose={() => setPalette(false)} />
      <Help open={help} onClose={() => setHelp(false)} />
      <Problems open={problems} onClose={() => setProblems(false)} />
    </div>
  );
}

function Live() {
  const { state } = useLive();
  const words = { live: "Live", connecting: "Connecting", offline: "Offline" };
  return <span className={`live ${state === "live" ? "" : "off"}`} role="status"><i aria-hidden="true" /><span className="hide-narrow">{words[state]}</span><span className="visually-hidden">{words[state]}</span></span>;
}

function Offline() {
  const { state, since } = useLive();
  const now = useNow();
  if (state !== "offline" || now - since < 1500) return null;
  return <div className="bar warn"><span role="status">The server does not answer. Connecting again…</span><span aria-hidden="true">This is how things stood {ago(new Date(since), now)}.</span></div>;
}

/* Keys: a letter alone does something unless somebody writes. */

function useKeys(setPalette: (open: boolean) => void, setHelp: (open: boolean) => void) {
  const navigate = useNavigate();
  useEffect(() => {
    let chord = 0;
    const press = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setPalette(true);
        return;
      }
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.closest("dialog")) return;
      if (localStorage.getItem("subak-keys") === "off") return;
      if (Date.now() - chord < 1000) {
        chord = 0;
        const place = PLACES.find((one) => one.keys === event.key);
        if (place) void navigate({ to: place.to });
        return;
      }
      if (event.key === "g") chord = Date.now();
      else if (event.key === "?") setHelp(true);
      else if (event.key === "p") void navigate({ to: "/plan" });
      else if (event.key === "/") {
        const field = document.querySelector<HTMLInputElement>("input[type=search]");
        if (field) {
          event.preventDefault();
          field.focus();
        }
      } else if (event.key === "j" || event.key === "k") {
        const rows = [...document.querySelectorAll<HTMLElement>("[data-row]")];
        const at = rows.indexOf(document.activeElement as HTMLElement);
        const next = rows[event.key === "j" ? Math.min(rows.length - 1, at + 1) : Math.max(0, at - 1)];
        next?.focus();
      }
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [navigate, setPalette, setHelp]);
}

function Help({ open, onClose }: { open: boolean; onClose: () => void }) {
  const [off, setOff] = useState(() => localStorage.getItem("subak-keys") === "off");
  const rows: [string, string][] = [["Ctrl K", "find or do something"], ["/", "search on this page"], ...PLACES.map((place): [string, string] => [`g ${place.keys}`, `go to ${place.word}`]), ["j, k", "next and previous row"], ["Enter", "open it"], ["p", "plan a run"], ["?", "this list"], ["Esc", "close"]];
  return (
    <Dialog open={open} title="Keyboard" onClose={onClose}>
      <div className="content">
        <h2>Keyboard</h2>
        <dl className="facts">{rows.map(([key, what]) => <div key={key} style={{ display: "contents" }}><dt><kbd className="mono">{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
        <label className="row"><input type="checkbox" checked={off} onChange={(event) => { localStorage.setItem("subak-keys", event.target.checked ? "off" : "on"); setOff(event.target.checked); }} />Switch single letters off</label>
        <div className="row"><button type="button" className="button" onClick={onClose}>Close</button></div>
      </div>
    </Dialog>
  );
}

function Problems({ open, onClose }: { open: boolean; onClose: () => void }) {
  const problems = useApi("/api/v1/problems", {}, {}, { enabled: open });
  return (
    <Dialog open={open} title="Problems of the project" onClose={onClose}>
      <div className="content">
        <h2>Problems of the project</h2>
        {problems.data?.items.map((one) => <div key={one.text} className="stack"><p><b>{one.message}</b></p><Code text={one.text} /></div>)}
        <div className="row"><button type="button" className="button" onClick={onClose}>Close</button></div>
      </div>
    </Dialog>
  );
}

/** Finds assets, jobs, runs and pages, and goes there. */
function Palette({ open, onClose }: { open: boolean; onClose: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const navigate = useNavigate();
  const assets = useApi("/api/v1/assets", {}, { text, limit: 20 }, { enabled: open && text.length > 0, keep: true });
  const runs = useApi("/api/v1/runs", {}, { text, limit: 5 }, { enabled: open && text.length > 3, keep: true });
  const jobs = useApi("/api/v1/jobs", {}, {}, { enabled: open });
  useEffect(() => {
    if (open) {
      setText("");
      setAt(0);
    }
  }, [open]);
  const wanted = text.toLowerCase();
  const options: { kind: string; word: string; go: () => void }[] = [
    ...PLACES.map((place) => ({ kind: "go to", word: place.word, go: () => void navigate({ to: place.to }) })),
    { kind: "do", word: "Plan a run", go: () => void navigate({ to: "/plan" }) },
    ...(jobs.data?.items ?? []).map((job) => ({ kind: "start job", word: job.job, go: () => void navigate({ to: "/plan", search: { job: job.job } }) })),
  ].filter((option) => option.word.toLowerCase().includes(wanted) || `${option.kind} ${option.word}`.toLowerCase().includes(wanted));
  if (wanted) {
    for (const asset of assets.data?.items ?? []) {
      options.push({ kind: "asset", word: asset.asset, go: () => void navigate({ to: "/assets/$asset", params: { asset: asset.asset } }) });
    }
    if (text.length > 3) {
      for (const run of runs.data?.items ?? []) {
        options.push({ kind: "run", word: `${run.selection}, ${run.status}, ${run.run}`, go: () => void navigate({ to: "/runs/$run", params: { run: run.run } }) });
      }
    }
  }
  const shown = options.slice(0, 30);
  const choose = (place: number) => {
    shown[place]?.go();
    onClose();
  };
  return (
    <Dialog open={open} title="Find or do something" onClose={onClose} className="palette">
      <div className="content">
        <input
          type="search" className="input" role="combobox" aria-expanded="true" aria-controls="palette-options" aria-activedescendant={`option-${at}`} aria-label="Find assets, jobs, runs and pages"
          placeholder="Find assets, jobs, runs and pages" autoFocus value={text}
          onChange={(event) => { setText(event.target.value); setAt(0); }}
          onKeyDown={(event) => {
            if (event.key === "ArrowDown") { event.preventDefault(); setAt(Math.min(shown.length - 1, at + 1)); }
            else if (event.key === "ArrowUp") { event.preventDefault(); setAt(Math.max(0, at - 1)); }
            else if (event.key === "Enter") { event.preventDefault(); choose(at); }
          }}
        />
        <div className="options" role="listbox" id="palette-options" aria-label="Found">
          {shown.map((option, place) => (
            <div key={`${option.kind} ${option.word}`} id={`option-${place}`} role="option" aria-selected={place === at} tabIndex={-1} onMouseMove={() => setAt(place)} onClick={() => choose(place)} onKeyDown={() => undefined}>
              <span className="tag">{option.kind}</span><span className="cut">{option.word}</span>
            </div>
          ))}
          {shown.length === 0 ? <p className="muted" style={{ padding: 8 }}>Nothing is called that.</p> : null}
        </div>
      </div>
    </Dialog>
  );
}

/* Signing in, and the first of all */

function SignIn({ onDone }: { onDone: () => void }) {
  const [problem, set] = useState<unknown>();
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = new FormData(event.currentTarget);
    try {
      await send("POST", "/api/v1/session", { name: String(said.get("name")), password: String(said.get("password")) });
      set(undefined);
      onDone();
    } catch (error) {
      set(error);
    }
  };
  return (
    <form className="stack" onSubmit={(event) => void submit(event)}>
      <label className="field"><span>Name</span><input className="input" name="name" autoComplete="username" required autoFocus /></label>
      <label className="field"><span>Password</span><input className="input" name="password" type="password" autoComplete="current-password" required /></label>
      {problem ? <Problem problem={problem} /> : null}
      <div className="row"><button type="submit" className="button primary">Sign in</button></div>
    </form>
  );
}

function SignInPage({ onDone }: { onDone: () => void }) {
  useTitle("Sign in");
  return (
    <main className="sign-in">
      <h1>Sign in to Subak</h1>
      <SignIn onDone={onDone} />
      <p className="muted">Nobody can sign in yet? The server said at its start where the first admin is made; <code>subak user add NAME --role admin</code> does it too.</p>
    </main>
  );
}

function SetUp({ onDone }: { onDone: () => void }) {
  useTitle("Set up");
  const [problem, set] = useState<unknown>();
  const token = useMemo(() => location.hash.slice(1), []);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = new FormData(event.currentTarget);
    try {
      await send("POST", "/api/v1/setup", { token: token || String(said.get("token")), name: String(said.get("name")), password: String(said.get("password")) });
      history.replaceState(null, "", `${base}/`);
      location.assign(`${base}/`);
      onDone();
    } catch (error) {
      set(error instanceof ApiProblem && error.status === 404 ? new ApiProblem(404, { code: error.error.code, message: "this link has been used, or is older than 15 minutes", help: "start the server again for another one, or use `subak user add NAME --role admin`" }) : error);
    }
  };
  return (
    <main className="sign-in">
      <h1>The first admin</h1>
      <p className="muted">They add everybody else. Nothing leaves this server.</p>
      <form className="stack" onSubmit={(event) => void submit(event)}>
        {token ? null : <label className="field"><span>Token that the server printed</span><input className="input mono" name="token" required /></label>}
        <label className="field"><span>Name</span><input className="input" name="name" autoComplete="username" required autoFocus /></label>
        <label className="field"><span>Password, 10 letters or more</span><input className="input" name="password" type="password" autoComplete="new-password" minLength={10} required /></label>
        {problem ? <Problem problem={problem} /> : null}
        <div className="row"><button type="submit" className="button primary">Add the first admin</button></div>
      </form>
    </main>
  );
}

/** No such page, asset or run. */
export function NotFound({ what, near }: { what?: string; near?: ReactNode }) {
  const { pathname } = useLocation();
  return (
    <Page title={what ? `No ${what}` : "No such page"}>
      <Empty title={what ? `There is no ${what}` : `There is no page ${pathname}`} text="It may have been renamed or removed." action={<><Link className="button primary" to="/">Home</Link><Link className="button" to="/assets">All assets</Link></>} />
      {near}
    </Page>
  );
}
