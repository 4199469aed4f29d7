// The app in a real browser, against the real server. Numbers are those of the acceptance checks of the interface.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { PASSWORD, Server, launch, session } from "./server.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const server = new Server();
let browser;
let admin;
let failed;
let broken;
let asking;

before(async () => {
  server.user("mai", "admin");
  server.user("vik", "viewer");
  await server.start();
  browser = await launch();
  admin = await session(browser, server, "mai");
  await admin.start({ select: ["gold.sales", "+gold.sales"] });
  failed = await admin.start({ job: "nightly" });
  broken = await admin.start({ select: ["gold.broken"] });
  await admin.start({ select: ["gold.daily"], partition: ["2024-01-01..2024-01-05"] });
  await admin.start({ select: ["bronze.payouts"] });
  asking = await admin.start({ job: "asking" }, false);
});

after(async () => {
  await browser?.close();
  await server.end();
});

const addresses = () => [
  "/", "/assets", "/assets/gold.sales", "/assets/gold.broken", "/assets/silver.orders?tab=checks", "/assets/silver.orders?tab=columns",
  "/assets/gold.sales?tab=definition", "/assets/gold.daily?tab=partitions", "/lineage", "/lineage?focus=gold.sales&depth=1", "/runs", "/runs?status=failed",
  `/runs/${failed}`, `/runs/${failed}?tab=events`, `/runs/${broken}`, `/runs/${asking}`, "/queue", "/plan", "/plan?select=gold.sales", "/plan?job=nightly", "/backfills",
  "/assets/gold.sales?tab=rows", "/sql", "/sql?q=select%20id%2C%20amount%20from%20silver.orders%20limit%203", "/quality", "/quality?status=failed", "/quarantine/bronze.payouts", "/quarantine/bronze.payouts?status=discarded", "/automation", "/automation/yearly", "/connections", "/docs", "/docs/guides~jobs", "/admin/users", "/admin/tokens", "/admin/audit", "/admin/system",
];

/** Goes somewhere and waits until what is there has come. */
async function go(page, address) {
  const response = await page.goto(server.base + address);
  await page.waitForSelector("h1");
  await page.waitForFunction(() => document.querySelectorAll(".skeleton").length === 0);
  return response;
}

const sent = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const ask = (api, sql) => api("/api/v1/query", sent({ sql }));

const settled = (own) => own.wrong.filter((one) => !one.includes("404"));

for (const [theme, width] of [["light", 1440], ["dark", 1440], ["contrast", 1024], ["light", 390], ["dark", 390]]) {
  test(`UI-01, UI-02, UI-41, UI-42: every page, ${theme}, ${width} px`, async () => {
    const own = await session(browser, server, "mai", { theme, width });
    const titles = new Map();
    for (const address of addresses()) {
      const response = await go(own.page, address);
      assert.equal(response.status(), 200, address);
      const seen = await own.page.evaluate(() => ({
        title: document.title,
        heads: document.querySelectorAll("h1").length,
        nodes: document.querySelectorAll("*").length,
        isWide: document.documentElement.scrollWidth > window.innerWidth,
        current: [...document.querySelectorAll("nav")].map((nav) => nav.querySelectorAll("[aria-current=page]").length),
        isPolite: document.querySelectorAll("main").length === 1 && document.querySelectorAll("nav[aria-label]").length >= 1,
      }));
      assert.equal(seen.heads, 1, `${address}: one heading`);
      assert.ok(seen.title.endsWith("· Subak") && seen.title.length > 10, `${address}: ${seen.title}`);
      assert.ok(!seen.isWide, `${address} scrolls sideways at ${width}`);
      assert.ok(seen.nodes <= 3000, `${address}: ${seen.nodes} nodes`);
      assert.ok(seen.isPolite, `${address}: landmarks`);
      // Planning is no place of the rail.
      assert.ok(seen.current.every((count, at) => count === 1 || (at === 0 && count === 0)), `${address}: one place of each list is here: ${seen.current}`);
      titles.set(seen.title, address);
      await own.page.evaluate(axe);
      const found = await own.page.evaluate(async () => (await window.axe.run(document, { resultTypes: ["violations"] })).violations);
      const grave = found.filter((one) => ["serious", "critical"].includes(one.impact));
      assert.deepEqual(grave.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`), [], address);
    }
    assert.deepEqual(settled(own), []);
    await own.context.close();
  });
}

test("UI-04, UI-05: nothing opens by itself, and an address of nothing says so", async () => {
  const { page } = admin;
  for (const [address, word] of [["/nothing/here", "/nothing/here"], ["/assets/gold.salse", "gold.salse"], ["/runs/01NONE", "01NONE"], ["/backfills/01NONE", "01NONE"], ["/docs/no~page", "no/page"]]) {
    const response = await go(page, address);
    assert.equal(response.status(), 404, address);
    await page.waitForFunction((text) => document.querySelector("main").innerText.includes(text), word);
    assert.ok(page.url().endsWith(address), "no redirect");
  }
  await go(page, "/assets/gold.salse");
  assert.match(await page.innerText("main"), /did you mean gold\.sales|did you mean `gold\.sales`/);
  assert.equal(await page.locator("dialog[open]").count(), 0);
});

test("queries are asked, kept in the address, and only read", async () => {
  const { page } = admin;
  await go(page, "/sql");
  await page.fill("textarea", "select id, amount, 'a,b' as text, null as nothing from silver.orders order by id limit 2");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("table.rows tbody tr");
  assert.equal(await page.locator("table.rows tbody tr").count(), 2);
  assert.deepEqual(await page.locator("table.rows tbody tr").nth(1).locator("td").allInnerTexts(), ["1", "2", "a,b", "null"]);
  assert.match(page.url(), /\/sql\?q=select/);
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save as CSV" }).click()]);
  assert.equal(file.suggestedFilename(), "rows.csv");
  await page.fill("textarea", "drop table silver.orders");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.waitForSelector("section.failure");
  assert.match(await page.innerText("section.failure"), /SBK0309/);
  await page.goBack();
  await page.waitForSelector("table.rows tbody tr");
  await go(page, "/assets/gold.sales?tab=rows");
  await page.waitForSelector("table.rows tbody tr");
  assert.equal(await page.locator("table.rows tbody tr").count(), 1);
});

test("refused rows are seen, mended, loaded and discarded", async () => {
  const { page, api } = admin;
  await go(page, "/quality");
  await page.getByRole("link", { name: "bronze.payouts" }).click();
  await page.waitForSelector("tbody tr");
  assert.equal(await page.locator("tbody tr").count(), 2);
  assert.deepEqual(await page.locator("mark").allInnerTexts(), ["amount=1.250,00", "amount==7"]);
  assert.equal(await page.locator("tbody tr").first().locator("td").nth(1).innerText(), "input/payouts.csv:3");
  await page.getByLabel("payouts.csv:3").check();
  await page.getByRole("button", { name: "Load again…" }).click();
  await page.fill("dialog[open] input[name=amount]", "1250.00");
  await page.getByRole("button", { name: "Load", exact: true }).click();
  await page.waitForURL(/\/runs\//);
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("succeeded"));
  const rows = await ask(api, "select amount::text as amount from bronze.payouts order by id");
  assert.deepEqual(rows.rows.flat(), ["10.50", "1250.00", "9.25"]);
  await go(page, "/quarantine/bronze.payouts");
  await page.waitForSelector("tbody tr");
  assert.equal(await page.locator("tbody tr").count(), 1);
  await page.locator("tbody input[type=checkbox]").check();
  await page.getByRole("button", { name: "Discard…" }).click();
  await page.getByRole("button", { name: "Discard them" }).click();
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("No refused rows are open"));
  await go(page, "/quarantine/bronze.payouts?status=discarded");
  await page.waitForSelector("tbody tr");
  assert.equal(await page.locator("tbody tr").count(), 1);
  const audit = await api("/api/v1/audit");
  assert.deepEqual(audit.items.map((one) => one.action).filter((one) => one.startsWith("quarantine.")), ["quarantine.discard", "quarantine.replay"]);
});

test("what checks found is a list, worst first, and can be narrowed", async () => {
  const { page } = admin;
  await go(page, "/quality");
  await page.waitForSelector("tbody tr");
  await page.getByRole("button", { name: "passed" }).click();
  await page.waitForFunction(() => {
    const rows = [...document.querySelectorAll("table.checks tbody tr")];
    return rows.length >= 3 && rows.every((row) => row.innerText.includes("passed"));
  });
  assert.match(page.url(), /status=passed/);
  await page.getByRole("button", { name: "Show all" }).click();
  await page.waitForFunction(() => document.querySelector("table.checks tbody").innerText.includes("a query of its own"));
});

test("keys are added, and a backfill is looked at before it begins", async () => {
  const { page, api } = admin;
  await go(page, "/assets/gold.regions?tab=partitions");
  await page.getByRole("button", { name: "Add to regions…" }).click();
  await page.fill("textarea[name=keys]", "bali\njava\n");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("2 partitions"));
  await page.getByRole("button", { name: "Backfill…" }).click();
  await page.getByRole("button", { name: "What would it be about?" }).click();
  await page.waitForSelector("dialog[open] [role=status]");
  assert.match(await page.innerText("dialog[open] [role=status]"), /2 partitions of gold\.regions/);
  await page.getByRole("button", { name: "Begin", exact: true }).click();
  await page.waitForURL(/\/backfills\//);
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("2 of 2 partitions done"));
  const rows = await ask(api, "select region from gold.regions order by 1");
  assert.deepEqual(rows.rows.flat(), ["bali", "java"]);
  const refused = await api("/api/v1/backfills", sent({ select: ["gold.sales"], partition: ["all"] }));
  assert.ok(refused.error?.help, JSON.stringify(refused));
});

test("UI-06: the counter is the list that proves it", async () => {
  const { page, api } = admin;
  await go(page, "/");
  const counter = page.locator(".number a").first();
  const shown = Number(await counter.innerText());
  await counter.click();
  await page.waitForSelector("table tbody tr");
  assert.equal(await page.locator("table tbody tr").count(), shown);
  assert.equal((await api("/api/v1/runs?status=failed&ended_within=24")).total, shown);
  assert.ok(shown >= 2);
});

test("UI-08, UI-09, UI-44: from home to why it failed, and to the line", async () => {
  const { page } = admin;
  await go(page, "/");
  await page.getByRole("link", { name: "job nightly" }).first().click();
  await page.waitForSelector("section.failure");
  const panel = page.locator("section.failure").first();
  const box = await panel.boundingBox();
  assert.ok(box.y + 60 < 900, "in the first view");
  const text = await panel.innerText();
  for (const word of ["the program ended with code 3", "SBK0328", "task:fetch", "Data", "What to do"]) assert.ok(text.includes(word), word);
  assert.match(await page.getAttribute("#icon", "href"), /A32A12/);
  assert.match(await page.title(), /failed/);
  await page.waitForSelector(".log .line.hit");
  const line = await page.locator(".log .line.hit").first().innerText();
  assert.ok(line.includes("ValueError: no such file"), line);
  assert.ok(await page.locator(".log .line.hit").first().isVisible());
});

test("UI-16: a line has an address, and is found there by others", async () => {
  const own = await session(browser, server, "mai");
  await go(own.page, `/runs/${failed}#L2500`);
  await own.page.waitForSelector(".log .line.here");
  assert.match(await own.page.innerText(".log .line.here"), /2500\s*line 2500/);
  await own.page.selectOption("select[aria-label=Level]", "error");
  await own.page.waitForFunction(() => document.querySelector(".log .bar")?.innerText.includes("hidden by the filter"));
  assert.equal(await own.page.locator(".log .line").count(), 1);
  assert.match(await own.page.innerText(".log .line"), /ValueError/);
  assert.deepEqual(settled(own), []);
  await own.context.close();
});

test("UI-12, UI-14, UI-15: the log draws what is seen, folds progress, and says what a filter hides", async () => {
  const { page } = admin;
  await go(page, `/runs/${failed}?step=task%3Afetch`);
  await page.waitForSelector(".log .line");
  assert.ok((await page.locator(".log .line").count()) < 100);
  const search = page.getByLabel("Lines that say");
  await search.fill("loading");
  await page.waitForFunction(() => document.querySelectorAll(".log .line").length === 1);
  assert.match(await page.locator(".log .line").innerText(), /loading 100%/);
  assert.match(await page.locator(".log .bar").innerText(), /3.501 lines hidden by the filter/);
  await page.locator(".log .bar button").click();
  await page.waitForFunction(() => document.querySelectorAll(".log .line").length > 10);
});

test("UI-10: what changes shows by itself", async () => {
  const { page, start } = admin;
  await go(page, "/runs");
  const run = await start({ job: "slow" }, false);
  const row = page.locator("tr", { hasText: run.slice(-8) });
  await row.waitFor({ timeout: 3000 });
  await page.waitForFunction((id) => [...document.querySelectorAll("tr")].some((one) => one.innerText.includes(id) && one.innerText.includes("succeeded")), run.slice(-8), { timeout: 15_000 });
});

test("UI-20, UI-19: the graph is walked by keyboard, and a list says the same", async () => {
  const { page, api } = admin;
  await go(page, "/lineage?focus=bronze.events&depth=9");
  await page.locator("canvas").focus();
  assert.match(await page.getAttribute("canvas", "aria-label"), /Chosen: bronze\.events/);
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(() => document.querySelector("canvas").getAttribute("aria-label").includes("silver.orders"));
  const graph = await api("/api/v1/lineage");
  assert.equal(graph.groups.find((group) => group.group === "gold").status, "failed");
  await go(page, "/lineage");
  await page.locator("summary").click();
  const listed = await page.locator("details li").count();
  assert.equal(listed, graph.nodes.length);
  await page.locator("canvas").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/assets\//);
});

test("UI-21, UI-22, UI-23: the catalog speaks the language of the command line, and its address says all", async () => {
  const { page, context } = admin;
  for (const expression of ["+gold.sales", "tag:daily", "silver.*", "gold.sales+", "owner:finance"]) {
    await go(page, `/assets?select=${encodeURIComponent(expression)}`);
    const shown = await page.locator(".vbody [role=row]").evaluateAll((rows) => rows.map((row) => row.firstElementChild.textContent));
    const listed = server.run(["list", expression, "--output", "csv"]).out.trim().split("\n").slice(1).map((line) => line.split(",")[0]);
    assert.deepEqual(shown.sort(), listed.sort(), expression);
  }
  await go(page, "/assets");
  await page.fill("input[type=search]", "finan");
  await page.waitForFunction(() => document.querySelectorAll(".vbody [role=row]").length === 1);
  await page.getByRole("button", { name: /fresh/ }).click();
  await page.waitForURL(/status=fresh/);
  const other = await context.newPage();
  await go(other, page.url().slice(server.base.length));
  assert.equal(await other.locator(".vbody [role=row]").count(), 1);
  assert.equal(await other.inputValue("input[type=search]"), "finan");
  await other.close();
});

test("UI-25, UI-26: a plan says what it would do, and what throws data away is typed", async () => {
  const { page } = admin;
  await go(page, "/plan?select=gold.sales&full=yes");
  const button = page.getByRole("button", { name: /^Run / });
  await button.waitFor();
  assert.match(await button.innerText(), /^Run \d+ steps?$/);
  assert.ok(await button.isDisabled());
  assert.match(await page.innerText("main"), /Type gold\.sales first/);
  await page.locator("label.field input.mono").last().fill("gold.sales");
  assert.ok(!(await button.isDisabled()));
  await button.click();
  await page.waitForURL(/\/runs\//);
});

test("UI-38: a viewer sees nothing that they may not do", async () => {
  const own = await session(browser, server, "vik");
  await go(own.page, `/runs/${failed}`);
  assert.equal(await own.page.getByRole("button", { name: "Go on with the rest" }).count(), 0);
  assert.equal(await own.page.locator(".log").count(), 0);
  await go(own.page, "/plan?select=gold.broken");
  await own.page.getByRole("button", { name: /^Run / }).waitFor();
  assert.ok(await own.page.getByRole("button", { name: /^Run / }).isDisabled());
  assert.match(await own.page.innerText("main"), /role operator is needed/);
  assert.equal(await own.page.getByRole("link", { name: "Admin" }).count(), 0);
  assert.deepEqual(settled(own), []);
  await own.context.close();
});

test("UI-39: what was written stays when a session ends", async () => {
  const own = await session(browser, server, "mai");
  await go(own.page, "/plan");
  const field = own.page.locator("input[name=select]");
  await field.fill("half a word");
  await own.context.clearCookies();
  // Whoever comes back to a tab finds out; what was read a moment ago is not asked for again.
  await own.page.waitForFunction(() => {
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    return document.querySelector("dialog[open] input[name=password]") !== null;
  }, undefined, { polling: 500 });
  await own.page.fill("dialog[open] input[name=name]", "mai");
  await own.page.fill("dialog[open] input[name=password]", PASSWORD);
  await own.page.click("dialog[open] button[type=submit]");
  await own.page.waitForFunction(() => !document.querySelector("dialog[open]"));
  assert.equal(await field.inputValue(), "half a word");
  await own.context.close();
});

test("UI-43: names and texts are texts", async () => {
  const { page } = admin;
  await go(page, "/assets/silver.orders");
  assert.match(await page.innerText("main"), /<img src=x onerror=alert\(1\)>/);
  assert.equal(await page.locator("main img").count(), 0);
});

test("UI-45: many tabs listen once", async () => {
  const own = await session(browser, server, "mai");
  // The first tab listens; only then the others are counted.
  await own.page.waitForFunction(() => /\bLive\b/.test(document.querySelector("header")?.innerText ?? ""));
  let streams = 0;
  own.context.on("request", (request) => {
    if (request.url().includes("/api/v1/stream")) streams += 1;
  });
  for (let tab = 0; tab < 6; tab += 1) await go(await own.context.newPage(), "/runs");
  assert.ok(streams === 0, `${streams} more streams beside the first`);
  await own.context.close();
});

test("UI-46: the palette goes everywhere", async () => {
  const { page } = admin;
  await go(page, "/");
  for (const [word, address] of [["auto", /\/automation$/], ["sale", /\/assets\/gold\.sales$/], ["nigh", /\/plan\?job=nightly$/]]) {
    await page.keyboard.press("Control+k");
    await page.waitForSelector("dialog[open] input:focus");
    await page.keyboard.type(word);
    await page.waitForFunction((text) => document.querySelector("dialog[open] [role=option]")?.innerText.toLowerCase().includes(text), word);
    await page.keyboard.press("Enter");
    await page.waitForURL(address);
  }
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.waitForURL(/\/runs$/);
  await page.keyboard.press("?");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog[open]"));
});

test("UI-47: automation says what the command says", async () => {
  const { page } = admin;
  await go(page, "/automation");
  const row = await page.locator("tbody tr").first().innerText();
  assert.ok(row.includes("yearly") && row.includes("0 0 1 1 * in UTC"), row);
  await page.getByRole("button", { name: "Switch off" }).click();
  await page.waitForFunction(() => document.querySelector("tbody tr").innerText.includes("Switch on"));
  assert.match(server.run(["automation", "list", "--output", "csv"]).out, /yearly,schedule,.*,off/);
  await page.getByRole("button", { name: "Switch on" }).click();
  await page.waitForFunction(() => document.querySelector("tbody tr").innerText.includes("Switch off"));
});

test("a question is answered, and the run goes on", async () => {
  const { page, api } = admin;
  await go(page, `/runs/${asking}`);
  await page.getByRole("button", { name: "Approve" }).click();
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("succeeded"));
  assert.equal((await api(`/api/v1/runs/${asking}`)).run.status, "succeeded");
});

test("somebody is added, makes a token, and is removed", async () => {
  const { page } = admin;
  await go(page, "/admin/users");
  await page.getByRole("button", { name: "Add somebody" }).click();
  const dialog = page.locator("dialog[open]");
  await dialog.locator("input[name=name]").fill("ketut");
  await dialog.locator("select[name=role]").selectOption("operator");
  await dialog.locator("input[name=password]").fill(PASSWORD);
  await dialog.getByRole("button", { name: "Add" }).click();
  await page.locator("tr", { hasText: "ketut" }).waitFor();
  const own = await session(browser, server, "ketut");
  await go(own.page, "/admin/tokens");
  await own.page.getByRole("button", { name: "Make a token" }).first().click();
  await own.page.locator("dialog[open] input[name=name]").fill("robot");
  await own.page.locator("dialog[open]").getByRole("button", { name: "Make it" }).click();
  await own.page.waitForSelector(".code");
  assert.match(await own.page.innerText(".code"), /^sbk_pat_[0-9a-f]{64}/);
  await page.locator("tr", { hasText: "ketut" }).getByRole("button", { name: /What to do/ }).click();
  await page.getByRole("button", { name: "Remove…" }).click();
  const remove = page.locator("dialog[open]").getByRole("button", { name: "Remove" });
  assert.ok(await remove.isDisabled());
  await page.locator("dialog[open] input").fill("ketut");
  await remove.click();
  await page.waitForFunction(() => ![...document.querySelectorAll("tr")].some((row) => row.innerText.includes("ketut")));
  await own.context.close();
});

test("UI-29: a broken project is told, with the place, and everything else stays", async () => {
  const { page } = admin;
  await go(page, "/assets");
  server.write("assets/gold/wrong.sql", "select * from gold.nothing\n");
  await page.goto(`${server.base}/assets`);
  await page.waitForFunction(() => document.body.innerText.includes("The files have"), undefined, { timeout: 40_000 });
  const count = Number(/(\d+) errors?/.exec(server.run(["validate"]).out + server.run(["validate"]).err)[1]);
  await page.getByRole("button", { name: /Show \d+ problem/ }).click();
  await page.waitForSelector("dialog[open] .code");
  assert.equal(await page.locator("dialog[open] .code").count(), count);
  assert.match(await page.innerText("dialog[open]"), /assets\/gold\/wrong\.sql:1/);
  await page.keyboard.press("Escape");
  assert.ok((await page.locator(".vbody [role=row]").count()) >= 5);
  server.write("assets/gold/wrong.sql", "select 1 as id\n");
});

test("UI-11: a server that is gone is told, and found again", async () => {
  const own = await session(browser, server, "mai");
  await go(own.page, "/runs");
  await server.kill();
  await own.page.waitForFunction(() => document.body.innerText.includes("The server does not answer"), undefined, { timeout: 8_000 });
  await server.start();
  await own.page.waitForFunction(() => !document.body.innerText.includes("The server does not answer"), undefined, { timeout: 15_000 });
  await own.context.close();
});

test("the first admin is made by the link that the server said", async () => {
  const empty = new Server({ "subak.yml": "project: empty\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n" });
  await empty.start();
  const context = await browser.newContext();
  const page = await context.newPage();
  const link = /http:\/\/\S+\/setup#[0-9a-f]{64}/.exec(empty.said())[0];
  await page.goto(link);
  await page.fill("input[name=name]", "first");
  await page.fill("input[name=password]", PASSWORD);
  await page.click("button[type=submit]");
  await page.waitForSelector("nav.rail");
  // UI-30: a page without anything says what to do.
  for (const address of ["/assets", "/runs", "/backfills", "/automation"]) {
    await page.goto(empty.base + address);
    await page.waitForSelector(".empty");
    assert.ok((await page.locator(".empty .button").count()) >= 1, address);
  }
  await page.goto(link);
  await context.close();
  await empty.end();
});
