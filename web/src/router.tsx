// Every address of the app. Each page stands in a part of its own, which is loaded when somebody goes there.
import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import { base } from "./api/client";
import { NotFound, Shell } from "./shell";

const root = createRootRoute({ component: Shell, notFoundComponent: () => <NotFound /> });

type Search = Record<string, string | undefined>;
/** What an address says after its question mark, as texts. */
const search = (raw: Record<string, unknown>): Search =>
  Object.fromEntries(Object.entries(raw).map(([name, value]) => [name, value === undefined || value === null ? undefined : String(value)]));

const at = <P extends string>(path: P, load: () => Promise<Record<string, unknown>>, name: string) =>
  createRoute({ getParentRoute: () => root, path, validateSearch: search, component: lazyRouteComponent(load as () => Promise<Record<string, never>>, name) });

const routes = [
  at("/", () => import("./pages/home"), "Home"),
  at("/assets", () => import("./pages/assets"), "Assets"),
  at("/assets/$asset", () => import("./pages/asset"), "Asset"),
  at("/lineage", () => import("./pages/lineage"), "Lineage"),
  at("/runs", () => import("./pages/runs"), "Runs"),
  at("/runs/$run", () => import("./pages/run"), "Run"),
  at("/queue", () => import("./pages/queue"), "Queue"),
  at("/plan", () => import("./pages/plan"), "Plan"),
  at("/backfills", () => import("./pages/backfills"), "Backfills"),
  at("/backfills/$backfill", () => import("./pages/backfills"), "BackfillPage"),
  at("/quality", () => import("./pages/quality"), "Quality"),
  at("/quarantine/$asset", () => import("./pages/quality"), "Rejects"),
  at("/automation", () => import("./pages/automation"), "Automation"),
  at("/automation/$name", () => import("./pages/automation"), "Ticks"),
  at("/connections", () => import("./pages/connections"), "Connections"),
  at("/sql", () => import("./pages/sql"), "Sql"),
  at("/docs", () => import("./pages/docs"), "Docs"),
  at("/docs/$topic", () => import("./pages/docs"), "Doc"),
  at("/admin/users", () => import("./pages/admin"), "Users"),
  at("/admin/tokens", () => import("./pages/admin"), "Tokens"),
  at("/admin/audit", () => import("./pages/admin"), "Audit"),
  at("/admin/system", () => import("./pages/admin"), "System"),
  at("/setup", () => import("./pages/home"), "Home"),
  at("/sign-in", () => import("./pages/home"), "Home"),
];

export const router = createRouter({
  routeTree: root.addChildren(routes),
  basepath: base || "/",
  defaultPreload: "intent",
  scrollRestoration: true,
  // Texts stay texts: an id that looks like a number is none.
  parseSearch: (text) => Object.fromEntries(new URLSearchParams(text)),
  stringifySearch: (values) => {
    const said = Object.entries(values as Search).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== "");
    const text = new URLSearchParams(said).toString();
    return text ? `?${text}` : "";
  },
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
