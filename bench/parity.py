"""The large cases whose results other tools made: each run must give exactly their digests. See parity/ for those, make/ for the input."""
import json, os, pathlib, shutil, sys

from common import ROOT, SUBAK, cost, made, peer

def digests():
    """Reads the warehouse with DuckDB's own library, in a process of its own."""
    return [peer("files"), ROOT / "bench/peers/digest.py"]

def generated(name, *arguments):
    script = ROOT / "bench/make" / arguments[0]
    return made(f"parity-{name}", lambda folder: cost([peer("files"), script, *[folder if part == "FOLDER" else part for part in arguments[1:]]]))

def project(name, config, assets):
    folder = made("projects", lambda folder: None) / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "assets").mkdir(parents=True)
    (folder / "subak.yml").write_text(config)
    for path, text in assets.items():
        (folder / "assets" / path).write_text(text)
    return folder

def run(folder, *arguments, **environment):
    return cost([SUBAK, "-C", folder, "run", "--quiet", *arguments], env={**os.environ, **environment})

def check(case, folder, queries, expected, costs):
    """Compares each query with its expected rows and digest."""
    found = json.loads(cost([*digests(), folder / "warehouse.duckdb", json.dumps(queries)])["out"])
    wrong = []
    for name, wanted in expected.items():
        own = {key: found[name][key] for key in wanted if key in found[name]}
        wanted = {key: wanted[key] for key in own}
        if own != wanted:
            wrong.append(f"`{name}` is {own} instead of {wanted}")
    if wrong:
        sys.exit(f"bench: {case}:\n  " + "\n  ".join(wrong))
    cpu, wall = sum(found["cpu_s"] for found in costs), sum(found["wall_s"] for found in costs)
    peak = max(found["peak_rss_mib"] for found in costs)
    print(f"{case:<34} {len(expected)} results as expected {cpu:8.2f} s CPU {wall:8.2f} s wall {peak:6} MiB", flush=True)

def config(name, data):
    return f"project: {name}\nconnections:\n  warehouse: {{ type: duckdb, path: warehouse.duckdb }}\n  files: {{ type: files, path: '{data}' }}\n"

FACT_COLUMNS = ["transaction_id", "user_id", "merchant_id", "amount", "amount_category", "status", "transaction_time", "transaction_date"]

def tables():
    data = generated("tables", "ewallet.py", "tables", "FOLDER")
    names = ["transaction_id", "user_id", "merchant_id", "amount", "status", "transaction_time", "created_at", "updated_at"]
    types = ["text", "integer", "integer", "decimal(12,2)", "text", "datetime", "datetime", "datetime"]
    columns = lambda pairs: "".join(f"        {name}: {{ from: column_{at + 1}, type: '{kind}' }}\n" for at, (name, kind) in enumerate(pairs))
    merchants = [(name, "text") for name in ["merchant_id", "name", "category", "status", "created_at", "updated_at"]]
    merchants[0] = ("merchant_id", "integer")
    asset = (
        "ingest:\n  from: files\n  defaults: { header: false, delimiter: tab }\n  streams:\n    fact_sales:\n      path: transactions.csv\n      mode: append\n"
        "      cursor: { column: column_6, lower: open, until: run, upper: closed }\n"
        f"      columns:\n{columns(zip(names, types))}"
        "      derive:\n        amount_category: { categorize: amount, bands: { High Value: 100000, Medium Value: 50000 }, else: Low Value }\n"
        "        transaction_date: cast(transaction_time as date)\n      filter: status = 'SUCCESS'\n"
        f"    dim_merchants:\n      path: merchants.csv\n      primary_key: merchant_id\n      columns:\n{columns(merchants)}")
    folder = project("tables", config("tables", data), {"raw.yml": asset})
    expected = json.loads((ROOT / "bench/parity/tables.json").read_text())
    fact = "select transaction_id, user_id, merchant_id, amount, amount_category, status, transaction_time, transaction_date from fact_sales"
    costs = [run(folder, "--as-of", "2025-02-15 00:00:00")]
    check("1,000,000 rows, first window", folder, {"f": {"lines": fact}}, {"f": expected["fact_sales_run1_up_to_2025-02-15 00:00:00"]}, costs)
    costs.append(run(folder, "--as-of", "2025-04-30 00:00:00"))
    queries = {
        "fact_sales_full": {"lines": fact},
        "fact_sales_run2_after": {"lines": fact + " where transaction_time > timestamp '2025-02-15 00:00:00'"},
        "by_category": {"csv": "select amount_category, count(*) n, sum(amount) total from fact_sales group by 1"},
        "by_day": {"csv": "select transaction_date, count(*) n, sum(amount) total from fact_sales group by 1"},
        "query2_merchant_count": {"csv": "select m.name merchant_name, m.category, count(*) total_transaction_count from fact_sales f join dim_merchants m using (merchant_id) group by 1, 2"},
    }
    check("1,000,000 rows, both windows", folder, queries, {name: expected[name] for name in queries}, costs)

def documents():
    data = generated("documents", "ewallet.py", "documents", "FOLDER")
    asset = """ingest:
  from: files
  streams:
    fact_transactions:
      path: transactions.jsonl
      primary_key: transaction_mongo_id
      columns:
        transaction_mongo_id: { from: _id }
        amount: decimal(18,2)
        transaction_time: datetime
        metadata:
          flatten:
            device_type: { from: device, default: Unknown }
            promo_code: { from: promo, default: '' }
      derive:
        amount_category: { categorize: amount, bands: { High Value: 1000000, Medium Value: 100000 }, else: Low Value }
"""
    folder = project("documents", config("documents", data), {"raw.yml": asset})
    expected = json.loads((ROOT / "bench/parity/documents.json").read_text())
    columns = ", ".join(expected["fact_transactions"]["columns"])
    queries = {
        "fact_transactions": {"lines": f"select {columns} from fact_transactions"},
        "by_device_promo": {"csv": "select device_type, promo_code, count(*) n, sum(amount) total from fact_transactions group by 1, 2"},
        "by_category": {"csv": "select amount_category, count(*) n from fact_transactions group by 1"},
    }
    check("1,000,000 documents", folder, queries, {name: expected[name] for name in queries}, [run(folder)])

def events():
    data = generated("events", "ewallet.py", "events", "FOLDER")
    asset = """ingest:
  from: files
  streams:
    cdc_transactions:
      path: cdc_events.jsonl
      mode: merge
      primary_key: transaction_id
      changes: {}
      columns: { amount: 'decimal(18,2)', transaction_time: datetime }
"""
    folder = project("events", config("events", data), {"raw.yml": asset})
    expected = json.loads((ROOT / "bench/parity/events.json").read_text())
    columns = ", ".join(expected["live"]["columns"])
    queries = {
        "latest_with_tombstones": {"lines": f"select {columns} from cdc_transactions"},
        "live": {"lines": f"select {columns} from cdc_transactions__live"},
        "by_op": {"csv": "select op, count(*) n, sum(amount) total from cdc_transactions group by 1"},
    }
    check("1,009,845 change events", folder, queries, {name: expected[name] for name in queries}, [run(folder)])

def sales():
    example = ROOT / "examples/medallion"
    data = generated("sales", "sales.py", example / "input", "FOLDER", "20")
    folder = project("sales", "", {})
    shutil.rmtree(folder)
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns(".subak", "*.duckdb*", "input"))
    cost_of_run = run(folder, "--as-of", "2026-11-21", MEDALLION_INPUT=str(data))
    queries = json.loads((ROOT / "crates/subak/tests/parity/medallion_exports.json").read_text())
    expected = json.loads((ROOT / "bench/parity/sales.json").read_text())
    def canonical(name, sql):
        # The expected tables carry the id of the batch that loaded them, and sort customers by the text of their id.
        batch = ", 'BATCH000014' as dwh_batch_id" if name.startswith(("silver_", "gold_")) else ""
        text = " replace (customer_id::varchar as customer_id)" if "customer_id" in sql else ""
        return {"csv": f"select *{text}{batch} from ({sql})"}
    queries = {name: canonical(name, sql) for name, sql in queries.items()}
    check("CRM and ERP sales, 20 times", folder, queries, expected, [cost_of_run])

def parity():
    tables()
    documents()
    events()
    sales()
