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

/** Begins to listen; ends with the signal. */
export function listen(queries: QueryClient, signal: AbortSignal): void {
  const channel = new BroadcastChannel(`subak-changes:${base}`);
  let last = 0;
  let waiting: ReturnType<typeof setTimeout> | undefined;
  const changed = () => {
    if (waiting !== undefined) return;
    const delay = Math.max(0, CHANGES_MS_MIN - (Date.now() - last));
    waiting = setTimeout(() => {
      waiting = undefined;
      last = Date.now();
      void queries.invalidateQueries({ predicate: (query) => !String(query.queryKey[0]).startsWith("/api/v1/docs") });
    }, delay);
  };
  channel.onmessage = (message: MessageEvent<{ kind: "changed" | State }>) => {
    if (message.data.kind === "changed") changed();
    else set(message.data.kind);
  };
  const tell = (kind: "changed" | State) => {
    channel.postMessage({ kind });
    if (kind === "changed") changed();
    else set(kind);
  };
  // Whoever comes later does not know how it stands until the next change: asking is enough.
  void navigator.locks
    .request(`subak-stream:${base}`, { signal }, () => new Promise<void>((done) => follow(tell, signal, done)))
    .catch(() => undefined);
  const poll = setInterval(() => {
    if (state === "connecting") set("live");
  }, 2_000);
  signal.addEventListener("abort", () => {
    clearInterval(poll);
    channel.close();
  });
}

function follow(tell: (kind: "changed" | State) => void, signal: AbortSignal, done: () => void): void {
  const source = new EventSource(`${base}/api/v1/stream`);
  let was = false;
  source.onopen = () => {
    tell("live");
    // What was missed is read again.
    if (was) tell("changed");
    was = true;
  };
  source.onerror = () => {
    tell("offline");
    // A browser gives up where the answer is no stream; then it is tried anew.
    if (source.readyState === EventSource.CLOSED && !signal.aborted) setTimeout(() => follow(tell, signal, done), 2_000);
  };
  source.addEventListener("changed", (event) => {
    const data = JSON.parse((event as MessageEvent<string>).data) as { runs: unknown[]; assets: unknown[] };
    if (data.runs.length + data.assets.length > 0) tell("changed");
  });
  source.addEventListener("resync", () => tell("changed"));
  signal.addEventListener("abort", () => {
    source.close();
    done();
  });
}
