// What a program wrote: read part by part, only the lines that are seen are drawn, the first error is what is looked at first.
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef, useState } from "react";
import { type Schemas, base, get } from "../api/client";
import { bytes, count, plural } from "../ui/parts";

const LINE_LENGTH_MAX = 8_192;
const BYTES_MAX = 16 * 1024 * 1024;
const ERROR = /error|exception|traceback|fatal|panicked/i;
// biome-ignore lint: an escape is what is looked for
const ANSI = /\u001b\[([0-9;]*)([A-Za-z])/g;

/** How long somebody types before lines are looked for. */
const TYPING_MS = 250;
/** Lines before the one that an address names, which are read with it. */
const BEFORE = 500;

type Found = Schemas["LinesView"];
type Part = { text: string; from: number; until: number; total: number; open: boolean };

async function read(run: string, step: string, attempt: number, from: number | undefined): Promise<Part> {
  const query = new URLSearchParams({ step, attempt: String(attempt), ...(from === undefined ? {} : { from: String(from) }) });
  const response = await fetch(`${base}/api/v1/runs/${run}/log?${query}`, { credentials: "same-origin" });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const number = (name: string) => Number(response.headers.get(name) ?? 0);
  return { text: await response.text(), from: number("x-log-from"), until: number("x-log-until"), total: number("x-log-bytes"), open: response.headers.get("x-log-open") === "true" };
}

/** Lines as they would stand on a terminal: what a progress bar wrote over itself is one line. */
function linesOf(text: string): string[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((line) => {
    const last = line.replace(/\r$/, "").split("\r").at(-1) ?? "";
    return last.length > LINE_LENGTH_MAX ? `${last.slice(0, LINE_LENGTH_MAX)}… (${count(last.length)} letters)` : last;
  });
}

function Coloured({ line }: { line: string }) {
  if (!line.includes("\u001b")) return <>{line}</>;
  const parts: { text: string; name: string }[] = [];
  let at = 0;
  let name = "";
  for (const match of line.matchAll(ANSI)) {
    parts.push({ text: line.slice(at, match.index), name });
    if (match[2] === "m") name = (match[1] ?? "").split(";").filter((code) => code && code !== "0").map((code) => `ansi-${code}`).join(" ");
    at = (match.index ?? 0) + match[0].length;
  }
  parts.push({ text: line.slice(at), name });
  return <>{parts.map((part, place) => (part.text ? <span key={place} className={part.name}>{part.text}</span> : null))}</>;
}

export function Log({ run, step, attempts, open }: { run: string; step: string; attempts: number; open: boolean }) {
  const [attempt, setAttempt] = useState(attempts);
  const [part, setPart] = useState<Part>();
  const [problem, setProblem] = useState<string>();
  const [wanted, setWanted] = useState("");
  const [level, setLevel] = useState("");
  const [found, setFound] = useState<Found>();
  // The number of the first line that was read, where that is known.
  const [begins, setBegins] = useState<number>();
  const named = useRef(Number(/^#L(\d+)$/.exec(location.hash)?.[1] ?? 0));
  const [marked, setMarked] = useState(named.current);
  const [follow, setFollow] = useState(open && !named.current);
  useEffect(() => {
    setAttempt(attempts);
  }, [attempts, step]);
  const isFiltered = wanted !== "" || level !== "";
  // Lines are looked for where all of them are.
  useEffect(() => {
    if (!isFiltered) {
      setFound(undefined);
      return;
    }
    const ended = new AbortController();
    const look = () => get("/api/v1/runs/{run}/log/lines", { run }, { step, attempt, q: wanted, level, limit: 5_000 }, ended.signal).then(setFound, (error: unknown) => ended.signal.aborted || setProblem(String(error)));
    const timer = setTimeout(() => void look(), TYPING_MS);
    const again = open ? setInterval(() => void look(), 2_000) : undefined;
    return () => {
      ended.abort();
      clearTimeout(timer);
      clearInterval(again);
    };
  }, [run, step, attempt, wanted, level, isFiltered, open]);
  useEffect(() => {
    let ended = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let known: Part | undefined;
    setBegins(undefined);
    const turn = async () => {
      try {
        let from = known?.until;
        if (!known && named.current > 0) {
          const lines = await get("/api/v1/runs/{run}/log/lines", { run }, { step, attempt, from_line: Math.max(1, named.current - BEFORE), limit: 1 });
          from = lines.lines[0]?.offset;
        }
        const next = await read(run, step, attempt, from);
        if (ended) return;
        if (!known && next.from > 0) {
          void get("/api/v1/runs/{run}/log/lines", { run }, { step, attempt, from: next.from, limit: 1 }).then((lines) => ended || setBegins(lines.lines[0]?.number), () => undefined);
        }
        const text = (known?.text ?? "") + next.text;
        const cut = text.length > BYTES_MAX ? text.indexOf("\n", text.length - BYTES_MAX) + 1 : 0;
        if (cut > 0) setBegins(undefined);
        known = { ...next, from: (known?.from ?? next.from) + cut, text: text.slice(cut) };
        setPart(known);
        setProblem(undefined);
        if (next.until < next.total && next.until > next.from) timer = setTimeout(() => void turn(), 0);
        else if (next.open) timer = setTimeout(() => void turn(), 700);
      } catch (error) {
        if (ended) return;
        setProblem(String(error));
        timer = setTimeout(() => void turn(), 3_000);
      }
    };
    void turn();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [run, step, attempt, open]);
  const lines = useMemo(() => linesOf(part?.text ?? ""), [part?.text]);
  const shown = useMemo(() => {
    if (isFiltered) return (found?.lines ?? []).map((one) => ({ line: one.text, number: one.number }));
    // Where the beginning was cut off meanwhile, nobody knows the numbers.
    const first = !part || part.from === 0 ? 1 : begins;
    return lines.map((line, at) => ({ line, number: first === undefined ? 0 : first + at }));
  }, [lines, found, isFiltered, part?.from, begins]);
  const scroll = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({ count: shown.length, getScrollElement: () => scroll.current, estimateSize: () => 18, overscan: 20 });
  const first = useMemo(() => shown.findIndex((one) => ERROR.test(one.line)), [shown]);
  const jumped = useRef("");
  useEffect(() => {
    if (shown.length === 0) return;
    const key = `${run} ${step} ${attempt}`;
    const place = named.current > 0 && !isFiltered ? shown.findIndex((one) => one.number === named.current) : -1;
    if (place >= 0) {
      rows.scrollToIndex(place, { align: "center" });
      named.current = 0;
    } else if (named.current > 0 && !isFiltered) return;
    else if (follow) rows.scrollToIndex(shown.length - 1, { align: "end" });
    else if (jumped.current !== key) rows.scrollToIndex(first >= 0 ? first : shown.length - 1, { align: first >= 0 ? "center" : "end" });
    jumped.current = key;
  }, [shown.length, follow, attempt, step, begins, isFiltered]);
  /** All of it, part by part, as one file. */
  const download = async () => {
    const parts: string[] = [];
    let next = await read(run, step, attempt, 0);
    parts.push(next.text);
    while (next.until < next.total && next.until > next.from) {
      next = await read(run, step, attempt, next.until);
      parts.push(next.text);
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(parts, { type: "text/plain" }));
    link.download = `${step}.log`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <div className="stack" id="log">
      <div className="row">
        <h3>Log</h3>
        {attempts > 1 ? <label className="row">Attempt <select className="input" style={{ width: "auto" }} value={attempt} onChange={(event) => setAttempt(Number(event.target.value))}>{Array.from({ length: attempts }, (_, at) => <option key={at} value={at + 1}>{at + 1}</option>)}</select></label> : null}
        <input type="search" className="input" style={{ maxWidth: 240 }} placeholder="Lines that say" aria-label="Lines that say" value={wanted} onChange={(event) => setWanted(event.target.value)} />
        <select className="input" style={{ width: "auto" }} aria-label="Level" value={level} onChange={(event) => setLevel(event.target.value)}><option value="">all lines</option><option value="warning">warnings and errors</option><option value="error">errors</option></select>
        {first >= 0 ? <button type="button" className="button" onClick={() => { setFollow(false); rows.scrollToIndex(first, { align: "center" }); }}>First error</button> : null}
        {part?.open ? <label className="row"><input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} />Follow</label> : null}
        <button type="button" className="button" onClick={() => rows.scrollToIndex(shown.length - 1, { align: "end" })}>End</button>
        <button type="button" className="button" onClick={() => void navigator.clipboard.writeText(shown.map((one) => one.line).join("\n"))}>Copy</button>
        <button type="button" className="button" onClick={() => void download().catch((error) => setProblem(String(error)))}>Download</button>
        <span className="muted small">{part ? `${plural(lines.length, "line")}, ${bytes(part.total)}` : ""}</span>
      </div>
      {problem ? <p role="alert" className="tone-bad">The log cannot be read: {problem}</p> : null}
      <div className="log">
        {isFiltered && found ? <div className="bar">{plural(found.total - found.matched, "line")} hidden by the filter{found.lines.length < found.matched ? `, the first ${count(found.lines.length)} of ${count(found.matched)} shown` : ""} <button type="button" className="button small" onClick={() => { setWanted(""); setLevel(""); }}>Show all</button></div> : null}
        {part && part.from > 0 && !isFiltered ? <div className="bar">The first {bytes(part.from)} are not shown; download it for all of it.</div> : null}
        <div className="lines" ref={scroll} tabIndex={0} role="log" aria-label={`Log of ${step}`} aria-live="off" onWheel={(event) => event.deltaY < 0 && setFollow(false)}>
          <div style={{ height: rows.getTotalSize(), position: "relative" }}>
            {rows.getVirtualItems().map((row) => {
              const one = shown[row.index];
              return one ? <div key={row.index} className={`line ${one.number > 0 && one.number === marked ? "here" : ERROR.test(one.line) ? "hit" : ""}`} style={{ transform: `translateY(${row.start}px)` }}><a className="n" href={`#L${one.number}`} tabIndex={-1} onClick={(event) => { event.preventDefault(); setMarked(one.number); history.replaceState(history.state, "", `#L${one.number}`); }}>{one.number || "…"}</a><span><Coloured line={one.line} /></span></div> : null;
            })}
          </div>
        </div>
      </div>
    </div>
  );
}
