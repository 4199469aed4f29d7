#!/usr/bin/env python3
"""postgres.py WHAT PORT OUT [TABLE]: DuckDB with its PostgreSQL extension moving the table `tx`, or TABLE,, as its users would write it; `facts` reads a result."""
import json, pathlib, sys
import duckdb, duckdb_extension_postgres_scanner

what, port, out, table = [*sys.argv[1:5], "tx"][:4]
if what == "facts":
    connection = duckdb.connect(out, read_only=True) if out.endswith(".duckdb") else duckdb.connect()
    source = "moved" if out.endswith(".duckdb") else f"read_parquet('{out}')"
    facts = "count(*), sum(id), sum(amount), count(note), sum(length(note)), sum(length(payload::varchar)), max(created_at)"
    if table == "wide":
        facts = "count(*), sum(id), " + ", ".join(f"sum(i{n}), sum(d{n}), sum(length(s{n})), count(n{n}), max(t{n})" for n in range(1, 12))
    values = connection.execute(f"select {facts} from {source}").fetchone()
    print(json.dumps([str(value) for value in values]))
    sys.exit()
extension = next(pathlib.Path(duckdb_extension_postgres_scanner.__file__).parent.rglob("*.duckdb_extension"))
if what == "table":
    pathlib.Path(out).unlink(missing_ok=True)
connection = duckdb.connect(out if what == "table" else ":memory:", config={"allow_unsigned_extensions": "true"})
connection.execute(f"load '{extension}'")
connection.execute(f"attach 'host=127.0.0.1 port={port} dbname=postgres user=postgres' as pg (type postgres)")
if what == "table":
    connection.execute(f"create table moved as from pg.public.{table}")
elif what == "parquet":
    connection.execute(f"copy (from pg.public.{table}) to '{out}' (format parquet, compression zstd)")
else:
    connection.execute(f"drop table if exists pg.public.{out}")
    connection.execute(f"create table pg.public.{out} as from pg.public.{table}")
