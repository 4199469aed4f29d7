// More of the acceptance checks of the interface, on a server of their own: keyboard, senses, small screens, queues, first steps.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Server, launch, session } from "./server.mjs";

const server = new Server();
let browser;
let admin;
let failed;

before(async () => {
  server.write("jobs/more.yml", `job: pooled
tasks:
  hold: { pools: [api], run: [ sh, -c, "while [ ! -e free ]; do sleep 0.1; done" ] }
---
job: chatty
tasks:
  talk: { run: [ sh, -c, "i=0; while [ $i -lt 200 ]; do seq 1 5000; i=$((i+1)); done; echo the last line" ] }
`);
  server.write("assets/gold/fussy.sql", "/* subak\nstored_as: incremental\nunique_key: day\npartition: { daily: day, start: 2020-01-01, end: 2020-01-10 }\n*/\nselect cast({{ partition.start }} as date) as day, cast(case when {{ partition.start }} = '2020-01-03' then 'x' else '1' end as integer) as amount\n");
  server.user("mai", "admin");
  await server.start();
  browser = await launch();
  admin = await session(browser, server, "mai");
  await admin.start({ select: ["gold.sales", "+gold.sales"] });
  failed = await admin.start({ job: "nightly" });
});

after(async () => {
  await browser?.close();
  await server.end();
});

async function go(page, address) {
  await page.goto(server.base + address);
  await page.waitForSelector("h1");
  await page.waitForFunction(() => document.querySelectorAll(".skeleton").length === 0);
}

const ADDRESSES = ["/", "/assets", "/assets/gold.sales", "/runs", "/queue", "/plan", "/backfills", "/automation", "/quality", "/connections", "/sql", "/docs", "/admin/users", "/admin/tokens", "/admin/audit", "/admin/system"];

test("UI-03: the keyboard goes everywhere, is seen wherever it is, and comes back", async () => {
  const { page } = admin;
  for (const address of [...ADDRESSES, `/runs/${failed}`]) {
    await go(page, address);
    await page.evaluate(() => {
      document.activeElement?.blur();
      window.stops = [];
    });
    let count = 0;
    for (let step = 0; step < 80; step += 1) {
      await page.keyboard.press("Tab");
      const stop = await page.evaluate(() => {
        const element = document.activeElement;
        if (!element || element === document.body) return null;
        // From the end it goes on at the beginning.
        if (element === window.stops[0]) return null;
        const last = window.stops.at(-1);
        const style = getComputedStyle(element);
        const box = element.getBoundingClientRect();
        const isSeen = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
        const isBehind = !last?.isConnected || Boolean(last.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);
        const isNew = !window.stops.includes(element);
        window.stops.push(element);
        return { isSeen, isBehind, isNew, isThere: box.width > 0 && box.height > 0, html: element.outerHTML.slice(0, 120) };
      });
      if (!stop) break;
      count += 1;
      assert.ok(stop.isSeen, `${address}: nobody sees where the keyboard is: ${stop.html}`);
      assert.ok(stop.isThere, `${address}: it is nowhere: ${stop.html}`);
      assert.ok(stop.isNew && stop.isBehind, `${address}: not in the order in which it is read: ${stop.html}`);
    }
    assert.ok(count > 5, `${address}: ${count} stops`);
  }
  await go(page, "/backfills");
  await page.getByRole("button", { name: "Backfill…" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog[open]"));
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Backfill…");
});

test("UI-07: a backfill of an old partition that fails needs attention now", async () => {
  const { page, api } = admin;
  const headers = { "Content-Type": "application/json" };
  const begun = await api("/api/v1/backfills", { method: "POST", headers, body: JSON.stringify({ select: ["gold.fussy"], partition: ["2020-01-02..2020-01-04"] }) });
  for (let turn = 0; turn < 300; turn += 1) {
    if ((await api(`/api/v1/backfills/${begun.backfill}`)).status === "failed") break;
    await page.waitForTimeout(100);
  }
  await go(page, "/");
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("gold.fussy"));
});

test("UI-13: a log that grows fast is followed, and its last line is there", async () => {
  const { page, start } = admin;
  const run = await start({ job: "chatty" }, false);
  await go(page, `/runs/${run}?step=task%3Atalk`);
  await page.waitForSelector(".log .line");
  await page.evaluate(() => {
    window.slowest = 0;
    let before = performance.now();
    const frame = (now) => {
      window.slowest = Math.max(window.slowest, now - before);
      before = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("succeeded"), undefined, { timeout: 60_000 });
  await page.getByRole("button", { name: "End" }).click();
  await page.waitForFunction(() => [...document.querySelectorAll(".log .line")].some((line) => line.innerText.includes("the last line")));
  console.log(`# slowest frame ${Math.round(await page.evaluate(() => window.slowest))} ms`);
  assert.ok((await page.locator(".log .line").count()) < 200, "only what is seen is drawn");
});

test("UI-27: what throws away stands apart from what is usually done", async () => {
  const { page } = admin;
  for (const address of [...ADDRESSES, "/plan?select=gold.sales", `/runs/${failed}`]) {
    await go(page, address);
    const near = await page.evaluate(() => {
      const boxes = (selector) => [...document.querySelectorAll(selector)].map((one) => [one.innerText, one.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
      const distance = (one, other) => Math.hypot(Math.max(0, one.left - other.right, other.left - one.right), Math.max(0, one.top - other.bottom, other.top - one.bottom));
      return boxes(".button.danger").flatMap(([word, box]) => boxes(".button.primary").filter(([, other]) => distance(box, other) < 24).map(([other]) => `${word} beside ${other}`));
    });
    assert.deepEqual(near, [], address);
  }
});

test("UI-31: first steps are done wherever they are done", async () => {
  const own = new Server({ "subak.yml": "project: new\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n" });
  own.user("mai", "admin");
  await own.start();
  try {
    const here = await session(browser, own, "mai");
    const done = async () => (await here.api("/api/v1/home")).first_steps.filter((step) => step.is_done).map((step) => step.step);
    assert.deepEqual(await done(), ["connect"]);
    own.write("assets/gold/one.sql", "select 1 as id\n");
    assert.equal(own.run(["run"]).code, 0);
    for (let turn = 0; turn < 100 && (await done()).length < 3; turn += 1) await here.page.waitForTimeout(100);
    assert.deepEqual(await done(), ["connect", "declare", "run"]);
    own.write("jobs/a.yml", 'job: a\nselect: gold.one\nschedule: "@daily"\n');
    for (let turn = 0; turn < 100 && (await done()).length < 4; turn += 1) await here.page.waitForTimeout(100);
    assert.equal((await done()).length, 4);
  } finally {
    await own.end();
  }
});

test("UI-34: each status is told apart without colours", async () => {
  const { page } = admin;
  await go(page, "/runs");
  const glyphs = await page.evaluate(() => [...document.querySelectorAll(".chips .status")].map((one) => [one.innerText.trim(), one.querySelector("svg").innerHTML.replace(/var\(--[a-z]+\)/g, "")]));
  assert.ok(glyphs.length >= 6 && glyphs.every(([word]) => word.length > 2), JSON.stringify(glyphs));
  const shapes = new Map(glyphs.map(([word, shape]) => [shape, word]));
  assert.ok(shapes.size >= 5, `stopping goes on as running does; the others have shapes of their own: ${[...shapes.values()]}`);
});

test("UI-35: nothing moves for whoever wants it still, and forced colours hide no control", async () => {
  const { page } = admin;
  await page.emulateMedia({ reducedMotion: "reduce" });
  for (const address of ["/", "/runs", "/lineage"]) {
    await go(page, address);
    const moving = await page.evaluate(() => document.getAnimations().filter((one) => one.playState === "running" && one.effect.getComputedTiming().activeDuration > 200).length);
    assert.equal(moving, 0, address);
  }
  await page.emulateMedia({ reducedMotion: null, forcedColors: "active" });
  await go(page, "/runs");
  const lost = await page.evaluate(() => [...document.querySelectorAll("button, input, select")].filter((one) => one.getBoundingClientRect().width > 0 && getComputedStyle(one).borderStyle === "none" && !one.innerText && !one.labels?.length && !one.ariaLabel).length);
  assert.equal(lost, 0);
  await page.emulateMedia({ forcedColors: null });
});

test("UI-36: 320 pixels and twice the size lose nothing", async () => {
  const own = await session(browser, server, "mai", { width: 320 });
  for (const address of ["/", "/runs", `/runs/${failed}`, "/assets", "/quality", "/plan"]) {
    await go(own.page, address);
    const seen = await own.page.evaluate(() => ({
      wide: document.documentElement.scrollWidth - window.innerWidth,
      cut: [...document.querySelectorAll("main button, main a.button, main input")].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width > 0 && (box.left < -1 || box.right > window.innerWidth + 1) && !one.closest(".scroll, .log, .lines, .tabs");
      }).map((one) => one.outerHTML.slice(0, 80)),
    }));
    assert.ok(seen.wide <= 0, `${address} scrolls sideways by ${seen.wide}`);
    assert.deepEqual(seen.cut, [], address);
  }
  await own.context.close();
});

test("UI-37: one switch changes every time, and what is behind it says the zone", async () => {
  const { page } = admin;
  await go(page, `/runs/${failed}`);
  const titles = () => page.evaluate(() => [...document.querySelectorAll("main time")].map((one) => one.title || one.dateTime));
  const before = await titles();
  assert.ok(before.length > 0 && before.every((one) => /\d{4}-\d{2}-\d{2}T\d{2}:\d{2}/.test(one) && /(Z|[+-]\d{2}:\d{2})/.test(one)), JSON.stringify(before));
  await page.getByRole("button", { name: "Local time" }).click();
  await page.getByRole("button", { name: "UTC" }).waitFor();
  await page.getByRole("button", { name: "UTC" }).click();
});

test("UI-48: the queue names who has a pool, until it is free", async () => {
  const { page, start } = admin;
  const first = await start({ job: "pooled" }, false);
  await page.waitForTimeout(500);
  const second = await start({ job: "pooled" }, false);
  await go(page, "/queue");
  await page.waitForFunction((id) => document.querySelector("main").innerText.includes(id.slice(-8)) && document.querySelector("main").innerText.includes("api"), first);
  writeFileSync(join(server.folder, "free"), "");
  await page.waitForFunction(() => !/task:hold/.test(document.querySelector("main").innerText), undefined, { timeout: 30_000 });
  assert.notEqual(first, second);
});
