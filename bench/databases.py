"""Moving 5 million rows out of PostgreSQL, on a server of the run's own. What servers cost is not counted; what the client process costs is."""
import contextlib, json, os, pathlib, pwd, shutil, socket, subprocess, sys, tempfile, time

from common import ROOT, cost, paired, peer
from moving import cold, data, project, run

def programs():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        sys.exit("bench: PostgreSQL is not installed; `make setup` does it")
    return found[-1]

def as_postgres():
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []

@contextlib.contextmanager
def server():
    """A server with the table `tx`; its port."""
    with tempfile.TemporaryDirectory() as folder:
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        store = pathlib.Path(folder) / "data"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*as_postgres(), programs() / "initdb", "-D", store, "-U", "postgres", "-A", "trust", "--no-sync"], check=True, **quiet)
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_wal_size=4GB", "shared_buffers=512MB"]
        process = subprocess.Popen([*as_postgres(), programs() / "postgres", "-D", store, "-p", str(port), *[part for setting in settings for part in ("-c", setting)]], **quiet)
        try:
            while subprocess.run([programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode != 0:
                time.sleep(0.1)
            table = "create table tx (id bigint primary key, account_id int, merchant_id int, amount numeric(18,2), status varchar(10), created_at timestamp, payload json, note text)"
            subprocess.run([*psql(port), "-c", table, "-c", f"\\copy tx from '{data() / 'base.csv'}' csv header", "-c", "vacuum analyze tx"], check=True, **quiet)
            yield port
        finally:
            process.send_signal(2)
            process.wait()

def psql(port):
    return [programs() / "psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]

FACTS = "select count(*), sum(id), sum(amount), count(note), sum(length(note)), sum(length(payload::varchar)), max(created_at) from "

def same(port, found):
    expected = subprocess.run([*psql(port), "-c", FACTS + "tx"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip().split("|")
    if [str(value) for value in found] != expected:
        sys.exit(f"bench: {found} was moved instead of {expected}")

def postgres():
    with server() as port:
        connection = f"  pg: {{ type: postgres, host: 127.0.0.1, port: {port}, database: postgres, user: postgres, sslmode: disable }}\n"
        def moved(name, to):
            folder = project(name, f"ingest:\n  from: pg\n  to: {to}\n  streams:\n    moved: {{ stream: public.tx, mode: replace }}\n")
            with open(folder / "subak.yml", "a") as file:
                file.write(connection)
            return folder
        tool = lambda what, out: cost([peer("postgres"), ROOT / "bench/peers/postgres.py", what, port, out])
        facts = lambda source: json.loads(tool("facts", source)["out"])
        floor = lambda: cost([*psql(port), "-c", "\\copy tx to '/dev/null' (format binary)"])
        table, parquet, copy = moved("pg-table", "warehouse"), moved("pg-parquet", "lake"), moved("pg-copy", "pg")
        def to_table():
            cold(table, "warehouse.duckdb", "warehouse.duckdb.wal")
            return run(table, "run")
        paired("PostgreSQL to DuckDB", {"subak": to_table, "DuckDB's own extension": lambda: tool("table", table / "peer.duckdb"), "floor: COPY to nowhere": floor})
        same(port, facts(f"{table / 'warehouse.duckdb'}"))
        def to_parquet():
            cold(parquet, "lake")
            return run(parquet, "run")
        paired("PostgreSQL to Parquet (zstd)", {"subak": to_parquet, "DuckDB's own extension": lambda: tool("parquet", parquet / "peer.parquet")})
        same(port, facts(f"{parquet / 'lake/moved.parquet'}"))
        drop = lambda: subprocess.run([*psql(port), "-c", "drop table if exists moved; drop schema if exists _subak cascade; checkpoint"], check=True, stderr=subprocess.DEVNULL)
        def to_postgres():
            drop()
            cold(copy)
            return run(copy, "run")
        paired("PostgreSQL to PostgreSQL", {"subak": to_postgres, "DuckDB's own extension": lambda: tool("copy", "peer")})
        found = subprocess.run([*psql(port), "-c", FACTS + "moved"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip().split("|")
        same(port, found)
