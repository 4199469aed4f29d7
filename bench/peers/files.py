#!/usr/bin/env python3
"""DuckDB and pandas doing what the cases do, each as its users would write it; also generates the rows and states the facts of a result."""
import json, pathlib, sys

REQUIRED = ["id", "account_id", "merchant_id", "amount", "status", "created_at", "payload"]
TYPES = {"id": "bigint", "account_id": "integer", "merchant_id": "integer", "amount": "decimal(18,2)", "status": "varchar", "created_at": "timestamp",
         "payload": "varchar", "note": "varchar"}

def generate(folder):
    """6.3 million rows of mixed types, quoted, 1.1 GB; 5 million of them; and changes of which half are new."""
    import duckdb
    folder, rows = pathlib.Path(folder), """
        select i as id, (hash(i * 7 + 1) % 100000)::int as account_id, (hash(i * 7 + 2) % 5000)::int as merchant_id,
          cast(cast((hash(i * 7 + 3) % 10000000) as decimal(18,0)) / 100 as decimal(18,2)) as amount,
          ['SUCCESS', 'FAILED', 'PENDING', 'REFUNDED'][1 + (hash(i * 7 + 4) % 4)::int] as status,
          timestamp '2023-01-01' + interval (i * 5) second + interval ((hash(i) % 1000000)::int) microsecond as created_at,
          '{"device":"' || ['ios', 'android', 'web'][1 + (hash(i * 7 + 5) % 3)::int] || '","ip":"10.' || (hash(i * 7 + 6) % 256) || '.'
            || (hash(i * 7 + 7) % 256) || '.7","session":"' || md5(i::varchar) || '"}' as payload,
          case when hash(i * 7 + 8) % 4 = 0 then null else 'order "' || (hash(i * 7 + 9) % 1000000) || '", thanks' end as note
        from range(ROW_COUNT) t(i)"""
    connection = duckdb.connect()
    write = lambda query, name: connection.execute(f"copy ({query}) to '{folder / name}' (format csv, header)")
    base = rows.replace("ROW_COUNT", "5000000")
    write(rows.replace("ROW_COUNT", "6300000"), "transactions.csv")
    write(base, "base.csv")
    for name, step in [("changes.csv", 100), ("few.csv", 1000)]:
        new_id = f"case when id % {2 * step} = 0 then id else id + 5000000 end"
        write(f"select * replace (amount + 1 as amount, {new_id} as id) from ({base}) where id % {step} = 0", name)

def typed(source):
    return f"read_csv('{source}', columns = {TYPES})"

def scan(connection, source):
    connection.execute(f"select max(columns(*)) from {source}").fetchall()

def facts(kind, path):
    """What would show a fast but lossy copy."""
    import duckdb
    if kind == "duckdb":
        connection = duckdb.connect(str(path), read_only=True)
        source = connection.execute("select table_schema || '.' || table_name from information_schema.tables where table_name = 'tx'").fetchone()[0]
    else:
        connection, source = duckdb.connect(), typed(path) if kind == "csv" else f"read_parquet('{path}')"
    values = connection.execute(
        f"select count(*), sum(id), sum(amount)::varchar, count(note), sum(length(note)), sum(length(payload)), max(created_at)::varchar, "
        f"bit_xor(hash(id, account_id, merchant_id, amount::decimal(18,2), status, created_at, payload, note))::varchar from {source}").fetchone()
    types = [row[1] for row in connection.execute(f"describe select * from {source}").fetchall()]
    print(json.dumps({"values": [str(value) for value in values], "types": types}))

def with_duckdb(mode, source, target):
    import duckdb
    target = pathlib.Path(target)
    if mode in ("parquet", "checked"):
        connection = duckdb.connect()
        if mode == "parquet":
            connection.execute(f"copy (from {typed(source)}) to '{target}' (format parquet, compression zstd)")
            return
        connection.execute(f"create table t as from {typed(source)}")
        nulls = connection.execute("select " + " + ".join(f"count(*) filter (where {column} is null)" for column in REQUIRED) + " from t").fetchone()
        twice = connection.execute(f"select count(*) from (select 1 from t group by {', '.join(REQUIRED)} having count(*) > 1)").fetchone()
        assert nulls == (0,) and twice == (0,)
        connection.execute(f"copy t to '{target}' (format parquet, compression zstd)")
    elif mode == "table":
        target.unlink(missing_ok=True)
        connection = duckdb.connect(str(target))
        connection.execute("create table tx (" + ", ".join(f"{name} {kind}" for name, kind in TYPES.items()) + ")")
        connection.execute(f"copy tx from '{source}' (header)")
    elif mode == "merge":
        connection = duckdb.connect(str(target))
        table = connection.execute("select table_schema || '.' || table_name from information_schema.tables where table_name = 'tx'").fetchone()[0]
        connection.execute("begin")
        connection.execute(f"create temp table stage as from {typed(source)}")
        connection.execute(f"delete from {table} where id in (select id from stage)")
        connection.execute(f"insert into {table} select * from stage")
        connection.execute("commit")
    elif mode == "scan":
        connection = duckdb.connect(str(target), read_only=True)
        table = connection.execute("select table_schema || '.' || table_name from information_schema.tables where table_name = 'tx'").fetchone()[0]
        scan(connection, typed(source))
        scan(connection, table)

def with_pandas(mode, source, target):
    import pandas
    frame = pandas.read_csv(source, engine="pyarrow", dtype_backend="pyarrow")
    if mode == "checked":
        assert frame[REQUIRED].isnull().sum().sum() == 0 and frame.duplicated(subset=REQUIRED).sum() == 0
    frame.to_parquet(target, compression="zstd")

if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "generate":
        generate(*arguments)
    elif command == "facts":
        facts(*arguments)
    else:
        {"duckdb": with_duckdb, "pandas": with_pandas}[arguments[0]](command, *arguments[1:])
