#!/usr/bin/env python3
"""digest.py DATABASE QUERIES: what queries give, as digests, read with DuckDB's own library. QUERIES is a JSON object of names.

`lines`: the number of rows, and the sum modulo 2^64 of the first 16 hexadecimal digits of the MD5 of each row as one line of texts between
commas, NULL as nothing; the order does not matter. `csv`: the number of rows, and the SHA-256 of the sorted rows as CSV with a header: NULL as
nothing, an empty text as two quotes.
"""
import datetime, decimal, hashlib, json, sys
import duckdb

def cell(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S") + (f".{value.microsecond:06d}" if value.microsecond else "")
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if text == "" or any(character in text for character in ',"\n\r') else text

def order(row):
    return tuple((False, 0) if value is None else (True, value.encode() if isinstance(value, str) else value) for value in row)

def as_csv(connection, sql):
    found = connection.execute(sql)
    names, rows = [column[0] for column in found.description], sorted(found.fetchall(), key=order)
    text = "\n".join([",".join(names)] + [",".join(map(cell, row)) for row in rows]) + "\n"
    return {"rows": len(rows), "sha256_csv": hashlib.sha256(text.encode()).hexdigest()}

def as_lines(connection, sql):
    names = [column[0] for column in connection.execute(f"select * from ({sql}) limit 0").description]
    line = "concat_ws(',', " + ", ".join(f'coalesce("{name}"::varchar, \'\')' for name in names) + ")"
    count, total = connection.execute(f"select count(*), sum(('0x' || substr(md5({line}), 1, 16))::ubigint::hugeint) from ({sql})").fetchone()
    return {"rows": count, "digest": f"{int(total or 0) % 2**64:016x}"}

connection = duckdb.connect(sys.argv[1], read_only=True)
# Assets without a folder stand in the default schema, others in theirs.
kinds = {"csv": as_csv, "lines": as_lines}
print(json.dumps({name: kinds[kind](connection, sql) for name, query in json.loads(sys.argv[2]).items() for kind, sql in query.items()}))
