// Compresses each part of the app beside itself, and holds the budgets: 250 KB for the first page, 2 MB for everything.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";

const FIRST_BYTES_MAX = 250 * 1024;
const ALL_BYTES_MAX = 2 * 1024 * 1024;

const folder = new URL("../dist/", import.meta.url).pathname;
const page = readFileSync(join(folder, "index.html"), "utf8");
let first = 0;
let all = 0;
for (const name of readdirSync(join(folder, "static"))) {
  if (name.endsWith(".br")) continue;
  const bytes = readFileSync(join(folder, "static", name));
  const options = { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } };
  const compressed = brotliCompressSync(bytes, options);
  writeFileSync(join(folder, "static", `${name}.br`), compressed);
  all += bytes.length + compressed.length;
  if (page.includes(name)) first += compressed.length;
}
const kib = (bytes) => `${Math.round(bytes / 1024)} KiB`;
console.log(`web app: first page ${kib(first)} of ${kib(FIRST_BYTES_MAX)}, all ${kib(all)} of ${kib(ALL_BYTES_MAX)}`);
if (first > FIRST_BYTES_MAX || all > ALL_BYTES_MAX) {
  console.error("web app: over its budget");
  process.exit(1);
}
