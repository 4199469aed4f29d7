#!/usr/bin/env python3
"""sales.py INPUT FOLDER COPIES: the six CRM/ERP files COPIES times, with customers and orders of their own over the same products.

Copy 0 is the input; copy k adds k * 100000 to customer ids and `-k` to order numbers. INPUT holds the files compressed by gzip.
"""
import gzip, pathlib, sys

source, target, copies = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
target.mkdir(parents=True, exist_ok=True)

def lines(name):
    text = gzip.open(source / f"{name}.csv.gz", "rt", encoding="utf-8-sig", newline="").read()
    return [line.rstrip("\r") for line in text.split("\n") if line.rstrip("\r")]

def write(name, header, rows):
    with gzip.open(target / f"{name}.csv.gz", "wt", encoding="utf-8", newline="", compresslevel=1) as file:
        file.write(header + "\n")
        file.writelines(row + "\n" for row in rows)

def shifted_key(text, k):
    """AW00011000, NASAW00011000 or AW-00011000 with another number in the same shape."""
    if not k or "AW" not in text:
        return text if not k else f"{text}#{k}"
    stem = text.rstrip()
    head, number, tail = stem[:-8], stem[-8:], text[len(stem):]
    return head + (f"{int(number) + k * 100000:08d}" if number.isdigit() else f"{number}#{k}") + tail

def shifted_id(text, k):
    return str(int(text) + k * 100000) if text else ""

def customer(line, k):
    parts = line.split(",")
    return ",".join([shifted_id(parts[0], k), shifted_key(parts[1], k), *parts[2:]])

def sale(line, k):
    parts = line.split(",")
    return ",".join([parts[0] + (f"-{k}" if k else ""), parts[1], shifted_id(parts[2], k), *parts[3:]])

def erp(line, k):
    parts = line.split(",")
    return ",".join([shifted_key(parts[0], k), *parts[1:]])

for name in ("prd_info", "PX_CAT_G1V2"):
    header, *rows = lines(name)
    write(name, header, rows)
for name, copy in [("cust_info", customer), ("sales_details", sale), ("CUST_AZ12", erp), ("LOC_A101", erp)]:
    header, *rows = lines(name)
    write(name, header, (copy(row, k) for k in range(copies) for row in rows))
