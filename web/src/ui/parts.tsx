// What every page is made of.
import { Link, useRouter } from "@tanstack/react-router";
import { type ReactNode, createContext, useContext, useEffect, useRef, useState } from "react";
import { ApiProblem, useSend } from "../api/client";

/* Status: colour, glyph and word, always together. */

export type Tone = "good" | "bad" | "run" | "warn" | "stale" | "idle" | "skip" | "missing";

const TONES: Record<string, Tone> = {
  succeeded: "good", fresh: "good", passed: "good", done: "good", active: "good", started: "good", unchanged: "good",
  failed: "bad", rejected: "bad", error: "bad",
  running: "run", stopping: "run", canceling: "run",
  late: "warn", warned: "warn", warning: "warn", waiting: "warn", paused: "warn", outdated: "warn", missed: "warn",
  stale: "stale",
  queued: "idle", pending: "idle", never: "missing", external: "idle", off: "idle", expired: "idle",
  skipped: "skip", canceled: "skip", revoked: "skip",
  missing: "missing",
};

export function toneOf(status: string): Tone {
  return TONES[status] ?? "idle";
}

export function Glyph({ tone, size = 14 }: { tone: Tone; size?: number }) {
  const common = { width: size, height: size, viewBox: "0 0 16 16", "aria-hidden": true } as const;
  const stroke = { fill: "none", stroke: "currentColor", strokeWidth: 2 } as const;
  switch (tone) {
    case "good":
      return <svg {...common}><circle cx="8" cy="8" r="7" fill="currentColor" /><path d="M4.5 8.2 7 10.7l4.5-5" fill="none" stroke="var(--surface)" strokeWidth="2" /></svg>;
    case "bad":
      return <svg {...common}><rect x="1" y="1" width="14" height="14" rx="2" fill="currentColor" /><path d="m5 5 6 6m0-6-6 6" stroke="var(--surface)" strokeWidth="2" /></svg>;
    case "run":
      return <svg {...common} className="spin"><circle cx="8" cy="8" r="6" {...stroke} opacity="0.3" /><path d="M8 2a6 6 0 0 1 6 6" {...stroke} /></svg>;
    case "warn":
      return <svg {...common}><path d="M8 1 15.5 14.5H.5Z" fill="currentColor" /><path d="M8 6v4m0 1.6v1.4" stroke="var(--surface)" strokeWidth="1.8" /></svg>;
    case "stale":
      return <svg {...common}><circle cx="8" cy="8" r="6" {...stroke} /><path d="M8 2a6 6 0 0 1 0 12Z" fill="currentColor" /></svg>;
    case "skip":
      return <svg {...common}><circle cx="8" cy="8" r="6" {...stroke} strokeWidth={1.5} /><path d="m3.8 12.2 8.4-8.4" {...stroke} strokeWidth={1.5} /></svg>;
    case "missing":
      return <svg {...common}><circle cx="8" cy="8" r="6" {...stroke} strokeDasharray="3 2.3" strokeWidth={1.5} /></svg>;
    default:
      return <svg {...common}><circle cx="8" cy="8" r="6" {...stroke} /></svg>;
  }
}

export function Status({ status, word }: { status: string; word?: string }) {
  const tone = toneOf(status);
  return <span className={`status tone-${tone}`}><Glyph tone={tone} /><span>{word ?? status}</span></span>;
}

/* Times */

export const Zone = createContext<{ isUtc: boolean; toggle: () => void }>({ isUtc: false, toggle: () => undefined });

const pad = (part: number) => String(part).padStart(2, "0");

export function clock(at: Date, isUtc: boolean): string {
  const parts = isUtc
    ? [at.getUTCFullYear(), at.getUTCMonth() + 1, at.getUTCDate(), at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()]
    : [at.getFullYear(), at.getMonth() + 1, at.getDate(), at.getHours(), at.getMinutes(), at.getSeconds()];
  const [year, month, day, hour, minute, second] = parts as [number, number, number, number, number, number];
  return `${year}-${pad(month)}-${pad(day)} ${pad(hour)}:${pad(minute)}:${pad(second)}`;
}

export function ago(at: Date, now: number): string {
  const seconds = Math.round((now - at.getTime()) / 1000);
  const size = Math.abs(seconds);
  const text = size < 5 ? "now" : size < 90 ? `${size} s` : size < 5400 ? `${Math.round(size / 60)} min` : size < 129600 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86400)} d`;
  if (text === "now") return text;
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

let now = Date.now();
const clocks = new Set<(now: number) => void>();
setInterval(() => {
  now = Date.now();
  for (const tick of clocks) tick(now);
}, 1000);

export function useNow(): number {
  const [value, set] = useState(now);
  useEffect(() => {
    clocks.add(set);
    return () => void clocks.delete(set);
  }, []);
  return value;
}

/** A moment: how long ago it was, or its place on the clock; the exact one stands in the hint. */
export function Time({ at, exact = false }: { at?: string | null | undefined; exact?: boolean }) {
  const { isUtc } = useContext(Zone);
  if (!at) return <span className="muted">–</span>;
  const moment = new Date(at);
  const full = clock(moment, isUtc);
  return <time dateTime={at} title={`${moment.toISOString()} (${isUtc ? "UTC" : "local time"}: ${full})`} className="nowrap">{exact ? full : <Ago at={moment} />}</time>;
}

/** Only what says how long ago something was goes on with the clock. */
function Ago({ at }: { at: Date }) {
  return <>{ago(at, useNow())}</>;
}

/** A verb that ends something: what it means is said before it is done. */
export function Confirm({ word, title, text, verb, path, body = {} }: { word: string; title: string; text: string; verb: string; path: string; body?: Record<string, unknown> }) {
  const [open, setOpen] = useState(false);
  const act = useSend(() => setOpen(false));
  return (
    <>
      <button type="button" className="button" onClick={() => setOpen(true)}>{word}</button>
      <Dialog open={open} title={title} onClose={() => setOpen(false)}>
        <div className="content">
          <h2>{title}</h2>
          <p className="muted">{text}</p>
          {act.error ? <Problem problem={act.error} /> : null}
          <div className="row"><button type="button" className="button danger" disabled={act.isPending} onClick={() => act.mutate({ path, body })}>{verb}</button><span style={{ width: 24 }} /><button type="button" className="button" onClick={() => setOpen(false)}>Leave it</button></div>
        </div>
      </Dialog>
    </>
  );
}

export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${ms} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad(Math.floor(seconds % 60))} s`;
  return `${Math.floor(seconds / 3600)} h ${pad(Math.floor((seconds % 3600) / 60))} min`;
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US").replace(/,/g, "\u202f");
}

export function plural(value: number, word: string): string {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let size = value;
  while (size >= 1024 && at < units.length - 1) {
    size /= 1024;
    at += 1;
  }
  return `${at === 0 ? size : size.toFixed(1)} ${units[at]}`;
}

/** A sentence of the server, in which names stand between backticks. */
export function Words({ text }: { text: string | null | undefined }) {
  return <>{(text ?? "").split("`").map((part, at) => (at % 2 === 1 ? <code key={at}>{part}</code> : part))}</>;
}

/** What stands in a field, and what an address says of it: the address follows what is typed a moment later, the field follows the address. */
export function useTyped(said: string, tell: (typed: string) => void): [string, (typed: string) => void] {
  const [text, setText] = useState(said);
  const sent = useRef(said);
  const waiting = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    if (said === sent.current) return;
    sent.current = said;
    setText(said);
  }, [said]);
  useEffect(() => () => clearTimeout(waiting.current), []);
  const type = (typed: string) => {
    setText(typed);
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => {
      sent.current = typed;
      tell(typed);
    }, 120);
  };
  return [text, type];
}

/** A part of a page: exactly one of them is here, whatever else an address says. */
export function Tab({ isHere, children, ...place }: { isHere: boolean; children: ReactNode; to: string; params?: Record<string, string>; search?: Record<string, string | undefined> }) {
  const router = useRouter();
  const href = router.history.createHref(router.buildLocation(place as never).publicHref);
  const go = (event: React.MouseEvent) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    void router.navigate(place as never);
  };
  return <a href={href} aria-current={isHere ? "page" : undefined} onClick={go}>{children}</a>;
}

/* Frames of a page */

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Subak`;
  }, [title]);
}

const ICON = { good: "23A26F", bad: "A32A12", run: "4584CC" } as const;

/** The icon of the tab follows how the thing stands that it shows. */
export function useIcon(tone: keyof typeof ICON | undefined): void {
  useEffect(() => {
    const icon = document.getElementById("icon");
    if (!icon) return;
    const before = icon.getAttribute("href") ?? "";
    if (tone) {
      const shape = tone === "bad" ? "%3Crect x='2' y='2' width='12' height='12' " : "%3Ccircle cx='8' cy='8' r='6' ";
      icon.setAttribute("href", `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E${shape}fill='%23${ICON[tone]}'/%3E%3C/svg%3E`);
    }
    return () => icon.setAttribute("href", before);
  }, [tone]);
}

export function Page({ title, heading, sub, actions, children }: { title: string; heading?: ReactNode; sub?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  useTitle(title);
  return (
    <>
      <div className="head">
        <div className="grow">
          <h1>{heading ?? title}</h1>
          {sub ? <div className="muted">{sub}</div> : null}
        </div>
        {actions ? <div className="row">{actions}</div> : null}
      </div>
      {children}
    </>
  );
}

export function Panel({ title, extra, tone, children, flush = false, id }: { title: ReactNode; extra?: ReactNode; tone?: "failure"; children: ReactNode; flush?: boolean; id?: string }) {
  return (
    <section className={`panel ${tone ?? ""}`} id={id}>
      <header><h2 className="grow">{title}</h2>{extra}</header>
      {flush ? children : <div className="body">{children}</div>}
    </section>
  );
}

export function Empty({ title, text, action, doc }: { title: string; text: string; action?: ReactNode; doc?: { topic: string; label: string } }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      <p>{text}</p>
      <div className="row">
        {action}
        {doc ? <Link className="button" to="/docs/$topic" params={{ topic: doc.topic.replaceAll("/", "~") }}>{doc.label}</Link> : null}
      </div>
    </div>
  );
}

export function Skeleton({ rows = 6 }: { rows?: number }) {
  return <div className="skeleton" aria-hidden="true">{Array.from({ length: rows }, (_, at) => <i key={at} />)}</div>;
}

/** What the server answered instead of what was asked for. */
export function Problem({ problem, retry }: { problem: unknown; retry?: () => void }) {
  const known = problem instanceof ApiProblem ? problem.error : { code: "", message: String(problem), help: "" };
  return (
    <section className="panel failure" role="alert">
      <header><h2 className="grow"><Words text={known.message} /></h2>{known.code ? <span className="mono">{known.code}</span> : null}</header>
      <div className="body stack">
        {known.causes?.map((cause) => <p key={cause}>{cause}</p>)}
        {known.data ? <p><Words text={known.data} /></p> : null}
        {known.help ? <p className="muted"><Words text={known.help} /></p> : null}
        <div className="row">
          {retry ? <button type="button" className="button" onClick={retry}>Try again</button> : null}
          {known.request_id ? <span className="muted small">request {known.request_id}</span> : null}
        </div>
      </div>
    </section>
  );
}

/** What is read, as long as it is not there, or what came instead. */
export function Loaded<T>({ query, children, rows }: { query: { data: T | undefined; error: unknown; refetch: () => unknown }; children: (data: T) => ReactNode; rows?: number }) {
  if (query.data !== undefined) return <>{children(query.data)}</>;
  if (query.error) return <Problem problem={query.error} retry={() => void query.refetch()} />;
  return <Skeleton rows={rows ?? 6} />;
}

/** What is wider than the page scrolls by itself; only then it can be reached by keyboard. */
export function Scroll({ children, label = "Table" }: { children: ReactNode; label?: string }) {
  const area = useRef<HTMLDivElement>(null);
  const [isWide, setWide] = useState(false);
  useEffect(() => {
    const element = area.current;
    if (!element) return;
    const look = () => setWide(element.scrollWidth > element.clientWidth);
    const watch = new ResizeObserver(look);
    watch.observe(element);
    look();
    return () => watch.disconnect();
  });
  return <div className="scroll" ref={area} {...(isWide ? { tabIndex: 0, role: "region", "aria-label": label } : {})}>{children}</div>;
}

export function Code({ text, numbers = false }: { text: string; numbers?: boolean }) {
  const lines = numbers ? text.replace(/\n$/, "").split("\n") : [];
  return (
    // biome-ignore lint: what scrolls can be reached by keyboard
    <div className="code" tabIndex={0} role="region" aria-label="Code">
      <pre>{numbers ? lines.map((line, at) => <div key={at}><span className="n">{at + 1}</span>{line}</div>) : text}</pre>
    </div>
  );
}

export function Dialog({ open, title, onClose, children, className, isNeeded = false }: { open: boolean; title: string; onClose: () => void; children: ReactNode; className?: string; isNeeded?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    if (!element) return;
    if (open && !element.open) element.showModal();
    if (!open && element.open) element.close();
  }, [open]);
  return (
    <dialog ref={dialog} aria-label={title} className={className} onClose={onClose} onCancel={(event) => isNeeded && event.preventDefault()} onClick={(event) => event.target === dialog.current && onClose()}>
      {open ? children : null}
    </dialog>
  );
}

/** A menu under a button; what it holds ends it. */
export function Menu({ label, children, name }: { label: ReactNode; children: ReactNode; name: string }) {
  const [open, set] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const close = (event: Event) => {
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !root.current?.contains(event.target as Node)) set(false);
    };
    document.addEventListener("mousedown", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("mousedown", close);
      document.removeEventListener("keydown", close);
    };
  }, [open]);
  return (
    <div className="menu" ref={root}>
      <button type="button" className="button" aria-haspopup="true" aria-expanded={open} aria-label={name} onClick={() => set(!open)}>{label}</button>
      {open ? <div onClick={() => set(false)}>{children}</div> : null}
    </div>
  );
}

/** A share of each status, as one bar. */
export function Mix({ counts, label }: { counts: Record<string, number>; label?: string }) {
  const all = Object.values(counts).reduce((sum, one) => sum + one, 0);
  const words = Object.entries(counts).map(([status, one]) => `${one} ${status}`).join(", ");
  return (
    <span className="mix" role="img" aria-label={label ?? words} title={words}>
      {Object.entries(counts).map(([status, one]) => <i key={status} className={`fill-${toneOf(status)}`} style={{ width: `${(100 * one) / Math.max(1, all)}%` }} />)}
    </span>
  );
}
