# /// script
# requires-python = ">=3.9"
# ///
# /// subak
# description: How recently, how often and how much each customer has bought, and the segment that follows.
# inputs: seeds.orders
# input_format: csv          # parquet, the default, keeps the types; CSV needs no library
# columns: { last_day: date, orders: integer, total: "decimal(18,2)" }
# checks:
#   - unique: customer
#   - accepted_values: { column: segment, values: [champion, regular, sleeping] }
# ///
import csv
import os
import pathlib
from datetime import date, timedelta
from decimal import Decimal

today = date.fromisoformat(os.environ["SUBAK_AS_OF"][:10])
customers = {}
with open(pathlib.Path(os.environ["SUBAK_INPUTS"]) / "seeds.orders.csv", newline="") as file:
    for order in csv.DictReader(file):
        last, count, total = customers.get(order["customer"], (date.min, 0, Decimal(0)))
        day = date.fromisoformat(order["day"])
        customers[order["customer"]] = (max(last, day), count + 1, total + Decimal(order["amount"]))


def segment(last, count, total):
    if last < today - timedelta(days=90):
        return "sleeping"
    return "champion" if count >= 3 or total >= 500 else "regular"


with open(pathlib.Path(os.environ["SUBAK_OUTPUT"]) / "segments.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["customer", "last_day", "orders", "total", "segment"])
    for name, (last, count, total) in sorted(customers.items()):
        writer.writerow([name, last, count, total, segment(last, count, total)])
print(len(customers), "customers")
