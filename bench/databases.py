"""Moving 5 million rows out of PostgreSQL and MariaDB, on a server of the run's own. What servers cost is not counted; what the client process costs is."""
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

@contextlib.contextmanager
def mariadb_server():
    """A server with the table `tx`; its port and a command that runs SQL."""
    if not pathlib.Path("/usr/sbin/mariadbd").exists():
        sys.exit("bench: MariaDB is not installed; `make setup` does it")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store, temporary, user = pathlib.Path(folder) / "data", pathlib.Path(folder) / "tmp", []
        for each in (store, temporary):
            each.mkdir()
            if os.getuid() == 0:
                os.chown(each, pwd.getpwnam("mysql").pw_uid, -1)
        if os.getuid() == 0:
            user = ["--user=mysql"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={store}", f"--tmpdir={temporary}", "--auth-root-authentication-method=normal", *user], check=True, **quiet)
        settings = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={store}/s", f"--datadir={store}", f"--tmpdir={temporary}", "--innodb-buffer-pool-size=1G",
                    "--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF", "--local-infile=1", "--innodb-log-file-size=1G"]
        process = subprocess.Popen(["/usr/sbin/mariadbd", "--no-defaults", *settings, *user], **quiet)
        sql = ["mariadb", "--no-defaults", "-u", "root", f"--socket={store}/s", "-N", "-B", "--local-infile=1"]
        try:
            while subprocess.run([*sql, "-e", "select 1"], **quiet).returncode != 0:
                time.sleep(0.1)
            columns = "id bigint primary key, account_id int, merchant_id int, amount decimal(18,2), status varchar(10), created_at datetime(6), payload longtext, note text"
            read = f"load data local infile '{data() / 'base.csv'}' into table shop.tx fields terminated by ',' optionally enclosed by '\"' escaped by '' ignore 1 lines " \
                   "(id, account_id, merchant_id, amount, status, created_at, payload, @note) set note = nullif(@note, '')"
            subprocess.run([*sql, "-e", f"create database shop character set utf8mb4; create user subak@localhost identified by 'subak'; grant all on shop.* to subak@localhost; "
                                        f"create table shop.tx ({columns}); set unique_checks = 0; {read}; analyze table shop.tx"], check=True, stdout=subprocess.DEVNULL)
            yield port, sql
        finally:
            process.terminate()
            process.wait()

def mariadb():
    with mariadb_server() as (port, sql):
        connection = f"  shop: {{ type: mysql, host: 127.0.0.1, port: {port}, database: shop, user: subak, password: subak, sslmode: disable }}\n"
        def moved(name, to):
            folder = project(name, f"ingest:\n  from: shop\n  to: {to}\n  streams:\n    moved: {{ stream: tx, mode: replace }}\n")
            with open(folder / "subak.yml", "a") as file:
                file.write(connection)
            return folder
        facts = "select count(*), sum(id), sum(amount), count(note), sum(char_length(note)), sum(char_length(payload)), date_format(max(created_at), '%Y-%m-%d %H:%i:%s.%f') from shop.tx"
        expected = subprocess.run([*sql, "-e", facts], check=True, text=True, stdout=subprocess.PIPE).stdout.strip().split("\t")
        def proved(path):
            found = json.loads(cost([peer("mariadb"), ROOT / "bench/peers/mariadb.py", "facts", port, path])["out"])
            if [str(value) for value in found] != expected:
                sys.exit(f"bench: {found} was moved instead of {expected}")
        tool = lambda what, out: cost([peer("mariadb"), ROOT / "bench/peers/mariadb.py", what, port, out])
        floor = lambda: cost(["sh", "-c", 'exec "$@" > /dev/null', "sh", *sql, "--quick", "-e", "select * from shop.tx"])
        table, parquet = moved("shop-table", "warehouse"), moved("shop-parquet", "lake")
        def to_table():
            cold(table, "warehouse.duckdb", "warehouse.duckdb.wal")
            return run(table, "run")
        paired("MariaDB to DuckDB", {"subak": to_table, "ConnectorX, whole": lambda: tool("table", table / "peer.duckdb"),
                                     "ConnectorX, stream": lambda: tool("stream", table / "peer.duckdb"), "floor: mariadb --quick": floor})
        proved(table / "warehouse.duckdb")
        def to_parquet():
            cold(parquet, "lake")
            return run(parquet, "run")
        paired("MariaDB to Parquet (zstd)", {"subak": to_parquet, "ConnectorX, stream": lambda: tool("parquet", parquet / "peer.parquet")})
        proved(parquet / "lake/moved.parquet")
