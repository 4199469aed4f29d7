"""Moving, checking, merging and comparing 5 and 6.3 million rows. Each result is proved equal before its cost counts."""
import json, pathlib, shutil, subprocess, sys

from common import ROOT, SUBAK, cost, made, paired, peer

COLUMNS = "{id: bigint, account_id: integer, merchant_id: integer, amount: 'decimal(18,2)', status: text, created_at: datetime, payload: text, note: text}"
REQUIRED = "[id, account_id, merchant_id, amount, status, created_at, payload]"

def tool(*arguments):
    return cost([peer("files"), ROOT / "bench/peers/files.py", *arguments])

def data():
    return made("transactions", lambda folder: tool("generate", folder))

def project(name, asset):
    folder = made("projects", lambda folder: None) / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "assets").mkdir(parents=True)
    (folder / "subak.yml").write_text(
        f"project: {name}\nconnections:\n  warehouse: {{ type: duckdb, path: warehouse.duckdb }}\n  files: {{ type: files, path: '{data()}' }}\n"
        "  lake: { type: files, path: lake }\n")
    (folder / "assets/raw.yml").write_text(asset)
    return folder

def run(folder, *arguments, **environment):
    import os
    return cost([SUBAK, "-C", folder, *arguments, "--quiet"], env={**os.environ, **environment})

def cold(folder, *left):
    for name in [".subak", *left]:
        path = folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)

def same(kind, path):
    """The facts of a result; they must be those of the generated rows."""
    facts, expected = (json.loads(tool("facts", what, where)["out"]) for what, where in [(kind, path), ("csv", data() / "transactions.csv")])
    if facts["values"] != expected["values"]:
        sys.exit(f"bench: {path} is not what was read: {facts} instead of {expected}")
    return facts["types"]

def files():
    source = data() / "transactions.csv"
    stream = f"ingest:\n  from: files\n  to: %s\n  streams:\n    tx: {{ path: transactions.csv, mode: replace, columns: {COLUMNS}%s }}\n"
    checks = f", checks: [ {{ not_null: {REQUIRED} }}, {{ unique: {REQUIRED} }} ]"
    for case, mode, asset in [("CSV to Parquet (zstd)", "parquet", stream % ("lake", "")),
                              ("the same, nulls and duplicates", "checked", stream % ("lake", checks))]:
        folder = project(mode, asset)
        out = folder.parent / f"{mode}.parquet"
        def own():
            cold(folder, "lake")
            return run(folder, "run")
        runs = {"subak": own, "DuckDB COPY": lambda: tool(mode, "duckdb", source, out), "pandas + pyarrow": lambda: tool(mode, "pandas", source, out)}
        paired(case, runs)
        types = same("parquet", folder / "lake/tx.parquet")
        print(f"{'':<34} types as declared: {types}")
    folder = project("table", stream % ("warehouse", ""))
    def own():
        cold(folder, "warehouse.duckdb", "warehouse.duckdb.wal")
        return run(folder, "run")
    paired("CSV to a DuckDB table", {"subak": own, "DuckDB COPY": lambda: tool("table", "duckdb", source, folder / "peer.duckdb")})
    same("duckdb", folder / "warehouse.duckdb")

def merged_project():
    folder = project("merge", "ingest:\n  from: files\n  streams:\n    tx:\n      path: ${SUBAK_BENCH_FILE:-base.csv}\n      mode: merge\n      primary_key: id\n"
                              f"      columns: {COLUMNS}\n")
    run(folder, "run")
    shutil.copy(folder / "warehouse.duckdb", folder / "base.duckdb")
    return folder

def merge():
    folder = merged_project()
    for case, name in [("merge 50,000 into 5,000,000", "changes.csv"), ("merge 5,000 into 5,000,000", "few.csv")]:
        def own():
            shutil.copy(folder / "base.duckdb", folder / "warehouse.duckdb")
            return run(folder, "run", SUBAK_BENCH_FILE=name)
        def script():
            shutil.copy(folder / "base.duckdb", folder / "peer.duckdb")
            return tool("merge", "duckdb", data() / name, folder / "peer.duckdb")
        paired(case, {"subak": own, "DuckDB delete and insert": script})
        facts = [json.loads(tool("facts", "duckdb", folder / f"{database}.duckdb")["out"]) for database in ("warehouse", "peer")]
        if facts[0]["values"] != facts[1]["values"]:
            sys.exit(f"bench: the merges differ: {facts}")

def verify():
    folder = merged_project()
    table = folder / "warehouse.duckdb"
    paired("verify 5,000,000 rows", {
        "subak": lambda: run(folder, "verify"),
        "floor: DuckDB scans both once": lambda: tool("scan", "duckdb", data() / "base.csv", table),
    })
