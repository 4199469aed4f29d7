// What changes, as it changes. One tab of a browser listens for all of them; the others hear it from that one.
import type { QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import { base } from "./client";

type State = "live" | "connecting" | "offline";

let state: State = "connecting";
let since = Date.now();
const listeners = new Set<() => void>();

function set(next: State) {
  if (next === state) return;
  state = next;
  since = Date.now();
  for (const listener of listeners) listener();
}

/** Whether the page hears of changes, and since when that is so. */
export function useLive(): { state: State; since: number } {
  const subscribe = (listener: () => void) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  const now = useSyncExternalStore(subscribe, () => state);
  return { state: now, since };
}

const CHANGES_MS_MIN = 500;

/** What a run changes: nobody's session, no documentation, no list of people. */
const CHANGED = ["/api/v1/home", "/api/v1/assets", "/api/v1/lineage", "/api/v1/runs", "/api/v1/questions", "/api/v1/queue", "/api/v1/pools", "/api/v1/backfills", "/api/v1/automation"];

type Told = { kind: "changed" | State } | { kind: "ask" };

/** Begins to listen; ends with the signal. */
export function listen(queries: QueryClient, signal: AbortSignal): void {
  const channel = new BroadcastChannel(`subak-changes:${base}`);
  let last = 0;
  let waiting: ReturnType<typeof setTimeout> | undefined;
  let isLeader = false;
  const changed = () => {
    if (waiting !== undefined) return;
    const delay = Math.max(0, CHANGES_MS_MIN - (Date.now() - last));
    waiting = setTimeout(() => {
      waiting = undefined;
      last = Date.now();
      // What is being read is let come to its end: on a busy server it never would otherwise.
      void queries.invalidateQueries({ predicate: (query) => CHANGED.some((path) => String(query.queryKey[0]).startsWith(path)) }, { cancelRefetch: false });
    }, delay);
  };
  channel.onmessage = (message: MessageEvent<Told>) => {
    if (message.data.kind === "ask") {
      if (isLeader) channel.postMessage({ kind: state });
    } else if (message.data.kind === "changed") changed();
    else set(message.data.kind);
  };
  const tell = (kind: "changed" | State) => {
    channel.postMessage({ kind });
    if (kind === "changed") changed();
    else set(kind);
  };
  const ask: Told = { kind: "ask" };
  channel.postMessage(ask);
  void navigator.locks
    .request(`subak-stream:${base}`, { signal }, () => {
      isLeader = true;
      return new Promise<void>((done) => {
        signal.addEventListener("abort", () => done());
        follow(tell, signal);
      });
    })
    .catch(() => undefined);
  signal.addEventListener("abort", () => {
    clearTimeout(waiting);
    channel.close();
  });
}

/** Listens, and begins again when the server is gone for a while. */
function follow(tell: (kind: "changed" | State) => void, signal: AbortSignal): void {
  let was = false;
  let source: EventSource | undefined;
  let again: ReturnType<typeof setTimeout> | undefined;
  const open = () => {
    if (signal.aborted) return;
    source = new EventSource(`${base}/api/v1/stream`);
    source.onopen = () => {
      tell("live");
      // What was missed is read again.
      if (was) tell("changed");
      was = true;
    };
    source.onerror = () => {
      tell("offline");
      // A browser gives up where the answer is no stream.
      if (source?.readyState === EventSource.CLOSED) again = setTimeout(open, 2_000);
    };
    source.addEventListener("changed", (event) => {
      const data = JSON.parse((event as MessageEvent<string>).data) as { runs: unknown[]; assets: unknown[] };
      if (data.runs.length + data.assets.length > 0) tell("changed");
    });
    source.addEventListener("resync", () => tell("changed"));
  };
  open();
  signal.addEventListener("abort", () => {
    clearTimeout(again);
    source?.close();
  });
}
