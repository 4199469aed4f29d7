#!/usr/bin/env python3
"""clickhouse.py SOURCE PORT FOLDER: the newest ClickHouse engine in process, reading the table `tx` of a server by its own table function into a MergeTree."""
import shutil, sys
import chdb

source, port, folder = sys.argv[1:4]
shutil.rmtree(folder, ignore_errors=True)
connection = chdb.connect(folder)
connection.query("create table moved (id Int64, account_id Nullable(Int32), merchant_id Nullable(Int32), amount Nullable(Decimal(18, 2)), status Nullable(String), created_at Nullable(DateTime64(6)), "
                 "payload Nullable(String), note Nullable(String)) engine = MergeTree order by id")
table = f"postgresql('127.0.0.1:{port}', 'postgres', 'tx', 'postgres', '')" if source == "postgres" else f"mysql('127.0.0.1:{port}', 'shop', 'tx', 'subak', 'subak')"
connection.query(f"insert into moved select * from {table}")
print(connection.query("select count(), sum(id), sum(amount), count(note) from moved", "CSV").bytes().decode().strip())
