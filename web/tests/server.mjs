// A project with a bit of everything, the real server on it, and a browser.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { chromium } from "playwright-core";

const binary = process.env.SUBAK_BINARY;
if (!binary || !existsSync(binary)) throw new Error("SUBAK_BINARY names no file: run the tests with `make web-test`");
const browserPath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));
if (!browserPath) throw new Error("there is no Chromium: apt install chromium");

export const PASSWORD = "a password of tests";

const FILES = {
  "subak.yml": "project: shown\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n  files: { type: files, path: input }\npools: { api: 1 }\n",
  "input/payouts.csv": "id,amount\n1,10.5\n2,\"1.250,00\"\n3,=7\n4,9.25\n",
  "assets/bronze/files.yml": "ingest:\n  from: files\n  defaults: { on_reject: quarantine }\n  streams:\n    payouts: { path: payouts.csv, primary_key: id, columns: { id: bigint, amount: 'decimal(18,2)' } }\n",
  "assets/gold/regions.sql": "/* subak\nstored_as: incremental\nunique_key: region\npartition: { dynamic: regions, column: region }\n*/\nselect {{ partition.key }} as region, 1 as amount\n",
  "checks/amounts.sql": "/* subak\nseverity: warn\n*/\nselect * from bronze.payouts where amount > 10\n",
  "assets/bronze/events.sql": "/* subak\nstored_as: table\nowner: mai\ntags: [daily]\n*/\nselect i as id, i * 2 as amount from range(1000) t(i)\n",
  "assets/silver/orders.sql": "/* subak\nstored_as: table\ndescription: \"<img src=x onerror=alert(1)> \\u202eevil\"\nchecks: [ { not_null: id }, { unique: id } ]\n*/\nselect id, amount from bronze.events\n",
  "assets/gold/sales.sql": "/* subak\nstored_as: table\nowner: finance\nchecks: [ { not_null: total } ]\n*/\nselect sum(amount) as total from silver.orders\n",
  "assets/gold/broken.sql": "/* subak\nstored_as: table\n*/\nselect cast('no number' as integer) as amount from silver.orders limit 1\n",
  "assets/gold/daily.sql": "/* subak\nstored_as: incremental\nunique_key: day\npartition: { daily: day, start: 2024-01-01 }\n*/\nselect cast({{ partition.start }} as date) as day, 1 as amount\n",
  "jobs/jobs.yml": `job: nightly
description: Fetches and fails
params: { day: { type: text, default: today } }
tasks:
  fetch: { run: [ sh, -c, "for i in $(seq 1 3000); do echo line $i; done; printf 'loading 1%%\\\\rloading 50%%\\\\rloading 100%%\\\\n'; echo 'ValueError: no such file: report.csv'; seq 1 500; exit 3" ] }
  send: { needs: fetch, run: [ sh, -c, "echo sent" ] }
---
job: asking
tasks:
  ask: { approve: { message: "Publish the figures?" } }
---
job: slow
tasks:
  wait: { run: [ sh, -c, "echo begun; sleep 3; echo ended" ] }
---
job: yearly
select: gold.sales
schedule: "0 0 1 1 *"
`,
};

export class Server {
  constructor(files = FILES) {
    this.folder = mkdtempSync(join(tmpdir(), "subak-web-"));
    for (const [path, text] of Object.entries(files)) this.write(path, text);
  }

  write(path, text) {
    mkdirSync(dirname(join(this.folder, path)), { recursive: true });
    writeFileSync(join(this.folder, path), text);
  }

  /** A command on the project; its output. */
  run(words, input = "") {
    const done = spawnSync(binary, ["-C", this.folder, ...words], { input, encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } });
    return { code: done.status, out: done.stdout, err: done.stderr };
  }

  user(name, role) {
    const made = this.run(["user", "add", name, "--role", role], `${PASSWORD}\n`);
    if (made.code !== 0) throw new Error(made.err);
  }

  /** Starts it; once it was started it comes back at the same place. */
  async start() {
    const address = `127.0.0.1:${this.port ?? 0}`;
    this.child = spawn(binary, ["-C", this.folder, "server", "start", "--wait", "20", "--listen", address], { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    await new Promise((done, failed) => {
      this.child.stderr.on("data", (text) => {
        said += text;
        const found = /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(said);
        if (found) {
          this.port = Number(found[1]);
          done();
        }
      });
      this.child.on("exit", () => failed(new Error(`the server ended: ${said}`)));
    });
    this.said = () => said;
    this.base = `http://127.0.0.1:${this.port}`;
  }

  async kill() {
    const ended = new Promise((done) => this.child.once("exit", done));
    this.child.removeAllListeners("exit");
    this.child.once("exit", () => undefined);
    this.child.kill("SIGKILL");
    await Promise.race([ended, new Promise((done) => setTimeout(done, 500))]);
  }

  async end() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export async function launch() {
  return chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
}

/** A browser of somebody who has signed in, and everything that goes wrong in it. */
export async function session(browser, server, name, { theme = "light", width = 1440 } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 900 } });
  await context.addInitScript((chosen) => {
    if (location.protocol !== "about:") localStorage.setItem("subak-theme", chosen);
  }, theme);
  const wrong = [];
  const watch = (page) => {
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) wrong.push(`${page.url()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => wrong.push(`${page.url()}: ${error}`));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && url.origin !== server.base) wrong.push(`asks elsewhere: ${request.url()}`);
    });
  };
  context.on("page", watch);
  const page = await context.newPage();
  await page.goto(server.base);
  await page.fill("input[name=name]", name);
  await page.fill("input[name=password]", PASSWORD);
  await page.click("button[type=submit]");
  await page.waitForSelector("nav.rail");
  const api = (path, options) =>
    page.evaluate(
      async ([to, how]) => {
        const response = await fetch(to, how);
        return response.json();
      },
      [path, options],
    );
  /** Plans a selection or a job, begins it, and waits for its end where that is wanted. */
  const start = async (body, wait = true) => {
    const headers = { "Content-Type": "application/json" };
    const plan = await api("/api/v1/plans", { method: "POST", headers, body: JSON.stringify(body) });
    const { run } = await api(`/api/v1/plans/${plan.plan}/accept`, { method: "POST", headers, body: "{}" });
    for (let turn = 0; wait && turn < 300; turn += 1) {
      const { run: now } = await api(`/api/v1/runs/${run}`);
      if (["succeeded", "failed", "canceled"].includes(now.status)) return run;
      await page.waitForTimeout(50);
    }
    return run;
  };
  return { context, page, wrong, api, start };
}
