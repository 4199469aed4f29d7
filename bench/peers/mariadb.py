#!/usr/bin/env python3
"""mariadb.py WHAT PORT OUT [TABLE]: ConnectorX moving the table `tx`, or TABLE, of the database `shop`, as its users would write it; `facts` reads a result."""
import json, pathlib, sys

what, port, out, table = [*sys.argv[1:5], "tx"][:4]
if what == "facts":
    import duckdb
    connection = duckdb.connect(out, read_only=True) if out.endswith(".duckdb") else duckdb.connect()
    source = "moved" if out.endswith(".duckdb") else f"read_parquet('{out}')"
    facts = "count(*), sum(id), sum(amount), count(note), sum(length(note)), sum(length(payload::varchar)), max(created_at)"
    if table == "wide":
        facts = "count(*), sum(id), " + ", ".join(f"sum(i{n}), sum(d{n}), sum(length(s{n})), count(n{n}), max(t{n})" for n in range(1, 12))
    print(json.dumps([str(value) for value in connection.execute(f"select {facts} from {source}").fetchone()]))
    sys.exit()
import connectorx, pyarrow
url, query = f"mysql://subak:subak@127.0.0.1:{port}/shop", f"select * from {table}"
pathlib.Path(out).unlink(missing_ok=True)
if what == "parquet":
    import pyarrow.parquet
    reader = connectorx.read_sql(url, query, return_type="arrow_stream", batch_size=100_000)
    with pyarrow.parquet.ParquetWriter(out, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
else:
    import duckdb
    connection = duckdb.connect(out)
    if what == "table":
        rows = connectorx.read_sql(url, query, return_type="arrow", partition_on="id", partition_num=2)
    else:
        rows = connectorx.read_sql(url, query, return_type="arrow_stream", batch_size=100_000)
    connection.execute("create table moved as from rows")
