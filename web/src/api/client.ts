// The one way to the server: a client made from its description.
import { type QueryKey, type UseQueryResult, keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** Where the app stands below its host: "" or "/data/subak". */
export const base = new URL(document.baseURI).pathname.replace(/\/$/, "");

/** What the server answered instead: its code, what failed and what to do. */
export class ApiProblem extends Error {
  constructor(
    readonly status: number,
    readonly error: Schemas["ApiError"],
  ) {
    super(error.message);
  }
}

type Json = Record<string, unknown>;
type GetPath = { [P in keyof paths]: paths[P] extends { get: unknown } ? P : never }[keyof paths];
type Ok<P extends GetPath> = paths[P] extends { get: { responses: { 200: { content: { "application/json": infer A } } } } } ? A : never;

async function problemOf(response: Response): Promise<ApiProblem> {
  const text = await response.text().catch(() => "");
  try {
    return new ApiProblem(response.status, (JSON.parse(text) as { error: Schemas["ApiError"] }).error);
  } catch {
    const message = response.status === 0 ? "the server does not answer" : `the server answered ${response.status}`;
    return new ApiProblem(response.status, { code: "", message, help: "try it again" });
  }
}

function address(path: string, parts: Record<string, string>, query: Json): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(parts[name] ?? ""));
  const said = Object.entries(query).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  const search = new URLSearchParams(said.map(([name, value]) => [name, String(value)])).toString();
  return `${base}${filled}${search ? `?${search}` : ""}`;
}

export async function get<P extends GetPath>(path: P, parts: Record<string, string> = {}, query: Json = {}, signal?: AbortSignal): Promise<Ok<P>> {
  const response = await fetch(address(path, parts, query), { credentials: "same-origin", ...(signal ? { signal } : {}) });
  if (!response.ok) throw await problemOf(response);
  return (await response.json()) as Ok<P>;
}

export async function send<A = Schemas["Done"]>(method: string, path: string, body?: Json): Promise<A> {
  const response = await fetch(`${base}${path}`, {
    method,
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (!response.ok) throw await problemOf(response);
  return (await response.json()) as A;
}

/** Reads something and keeps it up to date: what changes on the server is read again. */
export function useApi<P extends GetPath>(
  path: P,
  parts: Record<string, string> = {},
  query: Json = {},
  options: { enabled?: boolean; refetchInterval?: number | false; keep?: boolean } = {},
): UseQueryResult<Ok<P>, ApiProblem> {
  const queryKey: QueryKey = [path, parts, query];
  const found = useQuery({
    queryKey,
    queryFn: ({ signal }) => get(path, parts, query, signal),
    enabled: options.enabled ?? true,
    refetchInterval: options.refetchInterval ?? false,
    ...(options.keep ? { placeholderData: keepPreviousData } : {}),
  });
  // Nothing but what the server answers instead is thrown.
  return found as UseQueryResult<Ok<P>, ApiProblem>;
}

/** Does something, then reads everything again that is on the screen. */
export function useSend<A = Schemas["Done"]>(onDone?: (answer: A) => void) {
  const queries = useQueryClient();
  return useMutation<A, ApiProblem, { method?: string; path: string; body?: Json }>({
    mutationFn: ({ method = "POST", path, body }) => send<A>(method, path, body),
    onSuccess: (answer) => {
      void queries.invalidateQueries();
      onDone?.(answer);
    },
  });
}
