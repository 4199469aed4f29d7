"""Moving 5 million rows out of PostgreSQL and MariaDB, on a server of the run's own. What servers cost is not counted; what the client process costs is."""
import contextlib, json, os, pathlib, pwd, socket, subprocess, sys, tempfile, time, urllib.request

from common import CACHE, ROOT, cost, paired, peer
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

WIDE = ["id bigint primary key", *[f"{column}" for n in range(1, 12) for column in (f"i{n} int", f"d{n} decimal(14,3)", f"s{n} varchar(60)", f"n{n} varchar(40)", f"t{n} TIME")], "f1 double precision", "f2 double precision", "b1 date", "b2 smallint"]

def wide_rows(number, text, time, value):
    """A query for the 500,000 rows of `wide` in the words of a server."""
    columns = [number]
    for n in range(1, 12):
        columns += [f"({number} * {n + 3}) % 100003", f"({number} * {n}) % 1000000007 / 1000.0", text(f"({number} * {n}) % 5000"), f"case when {number} % {n + 1} > 0 then {text(number)} end", time(n)]
    return ", ".join([*columns, f"{number} / 7.0", f"{number} * 0.5", value, f"{number} % 300"])

def wide_facts(length):
    return "count(*), sum(id), " + ", ".join(f"sum(i{n}), sum(d{n}), sum({length}(s{n})), count(n{n}), max(t{n})" for n in range(1, 12))

def plain(values):
    """Times are written with and without digits of a second."""
    return [str(value).removesuffix(".000000") for value in values]

def wide():
    """60 columns of mixed types, 500,000 rows, out of both servers."""
    columns = ", ".join(WIDE)
    with server() as port:
        rows = wide_rows("n", lambda number: f"'text ' || ({number})", lambda n: f"timestamp '2024-01-01' + ((n * {n}) % 900000) * interval '1 second'", "date '2024-01-01' + (n % 700)::int")
        subprocess.run([*psql(port), "-c", f"create table wide ({columns.replace('TIME', 'timestamp')})", "-c", f"insert into wide select {rows} from generate_series(1::bigint, 500000) as n", "-c", "vacuum analyze wide"], check=True, stdout=subprocess.DEVNULL)
        expected = plain(subprocess.run([*psql(port), "-c", f"select {wide_facts('length')} from wide"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip().split("|"))
        connection = f"  far: {{ type: postgres, host: 127.0.0.1, port: {port}, database: postgres, user: postgres, sslmode: disable }}\n"
        floor = {"floor: COPY to nowhere": lambda: cost([*psql(port), "-c", "\\copy wide to '/dev/null' (format binary)"])}
        wide_cases("PostgreSQL", "postgres", "public.wide", connection, expected, port, {"DuckDB's own extension": "table"}, {"DuckDB's own extension": "parquet"}, floor)
    with mariadb_server() as (port, sql):
        rows = wide_rows("cast(seq as signed)", lambda number: f"concat('text ', {number})", lambda n: f"timestamp'2024-01-01 00:00:00' + interval ((seq * {n}) % 900000) second", "date'2024-01-01' + interval (seq % 700) day")
        subprocess.run([*sql, "-e", f"create table shop.wide ({columns.replace('TIME', 'datetime(6)').replace('double precision', 'double')}); insert into shop.wide select {rows} from shop.seq_1_to_500000; analyze table shop.wide"], check=True, stdout=subprocess.DEVNULL)
        expected = plain(subprocess.run([*sql, "-e", f"select {wide_facts('char_length')} from shop.wide"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip().split("\t"))
        connection = f"  far: {{ type: mysql, host: 127.0.0.1, port: {port}, database: shop, user: subak, password: subak, sslmode: disable }}\n"
        floor = {"floor: mariadb --quick": lambda: cost(["sh", "-c", 'exec "$@" > /dev/null', "sh", *sql, "--quick", "-e", "select * from shop.wide"])}
        wide_cases("MariaDB", "mariadb", "wide", connection, expected, port, {"ConnectorX, stream": "stream"}, {"ConnectorX, stream": "parquet"}, floor)

def wide_cases(title, kind, stream, connection, expected, port, tables, files, floor):
    def moved(name, to):
        folder = project(name, f"ingest:\n  from: far\n  to: {to}\n  streams:\n    moved: {{ stream: {stream}, mode: replace }}\n")
        with open(folder / "subak.yml", "a") as file:
            file.write(connection)
        return folder
    tool = lambda what, out: cost([peer(kind), ROOT / f"bench/peers/{kind}.py", what, port, out, "wide"])
    def proved(path):
        found = plain(json.loads(tool("facts", path)["out"]))
        if found != expected:
            sys.exit(f"bench: {found} was moved instead of {expected}")
    table, parquet = moved(f"wide-{kind}-table", "warehouse"), moved(f"wide-{kind}-parquet", "lake")
    def to_table():
        cold(table, "warehouse.duckdb", "warehouse.duckdb.wal")
        return run(table, "run")
    def to_parquet():
        cold(parquet, "lake")
        return run(parquet, "run")
    paired(f"{title}, 60 columns, to DuckDB", {"subak": to_table, **{name: (lambda what=what: tool(what, table / "peer.duckdb")) for name, what in tables.items()}, **floor})
    proved(table / "warehouse.duckdb")
    paired(f"{title}, 60 columns, to Parquet", {"subak": to_parquet, **{name: (lambda what=what: tool(what, parquet / "peer.parquet")) for name, what in files.items()}})
    proved(parquet / "lake/moved.parquet")

@contextlib.contextmanager
def clickhouse_server():
    """The newest engine behind its HTTP interface; its port and its process."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = subprocess.Popen([newest_engine(), ROOT / "crates/subak-testkit/servers/clickhouse_http.py", f"{folder}/data", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while clickhouse_sql(port, "select 1") != "1":
                time.sleep(0.1)
            yield port, process
        finally:
            process.terminate()
            process.wait()

def newest_engine():
    found = sorted(CACHE.glob("chdb-*/bin/python"))
    if not found:
        sys.exit("bench: the ClickHouse engine is not installed; `make setup` does it")
    return found[-1]

def clickhouse_sql(port, sql):
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=sql.encode()).read().decode().strip()

def cpu_of(process):
    """CPU seconds of a process so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

def clickhouse():
    """Into a MergeTree. The peer is the engine itself, in process: its figure has the engine's work in it, so ours is given with that of the server as well."""
    facts = "select count(), sum(id), sum(amount), count(note) from bench.moved format CSV"
    with clickhouse_server() as (http, process):
        clickhouse_sql(http, "create database bench engine = Atomic")
        for title, kind, opened in [("PostgreSQL", "postgres", server), ("MariaDB", "mariadb", mariadb_server)]:
            with opened() as found:
                port = found if kind == "postgres" else found[0]
                where = {"postgres": "database: postgres, user: postgres", "mariadb": "database: shop, user: subak, password: subak"}[kind]
                stream = {"postgres": "public.tx", "mariadb": "tx"}[kind]
                folder = project(f"{kind}-clickhouse", f"ingest:\n  from: far\n  to: ch\n  streams:\n    moved: {{ stream: {stream}, mode: replace, primary_key: id }}\n")
                with open(folder / "subak.yml", "a") as file:
                    file.write(f"  far: {{ type: {'postgres' if kind == 'postgres' else 'mysql'}, host: 127.0.0.1, port: {port}, {where}, sslmode: disable }}\n  ch: {{ type: clickhouse, url: 'http://127.0.0.1:{http}', database: bench }}\n")
                whole = []
                def moved():
                    for table in clickhouse_sql(http, "select database || '.' || name from system.tables where database in ('bench', '_subak') and engine not like '%View%'").split():
                        clickhouse_sql(http, f"drop table {table} sync")
                    cold(folder)
                    before = cpu_of(process)
                    found = run(folder, "run")
                    whole.append({**found, "cpu_s": found["cpu_s"] + cpu_of(process) - before})
                    return found
                peers = {"its own table function": lambda: cost([newest_engine(), ROOT / "bench/peers/clickhouse.py", kind, port, folder / "peer"])}
                best = paired(f"{title} to ClickHouse", {"subak": moved, **peers})
                cheapest = min(whole, key=lambda found: found["cpu_s"])
                print(f"{title + ' to ClickHouse':<34} {'subak and the server':<28} {cheapest['cpu_s']:8.2f} s CPU", flush=True)
                own, theirs = clickhouse_sql(http, facts), best["its own table function"]["out"].strip()
                if own != theirs:
                    sys.exit(f"bench: {own} was moved instead of {theirs}")
