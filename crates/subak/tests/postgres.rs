//! PostgreSQL as source, destination and warehouse, on a server of each test's own. Results are read back with `psql` and DuckDB's own
//! library, not through Subak.

#[path = "support/destination.rs"]
mod destination;
#[path = "support/late.rs"]
mod late;
#[path = "support/network.rs"]
mod network;
#[path = "support/secret.rs"]
mod secret;
#[path = "support/table.rs"]
mod table;
#[path = "support/warehouse.rs"]
mod warehouse;

use std::path::Path;

use destination::{Destination, lines, with_server};
use secret::set_secret;
use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres, Proxy, Table};
use table::read_table;
use warehouse::read;

impl Destination for Postgres {
    const NAME: &str = "pg";

    fn connection(&self) -> String {
        format!(
            "{{ type: postgres, host: 127.0.0.1, port: {}, database: subak, user: {POSTGRES_USER}, password: \"${{secret:pg_password}}\" }}",
            self.port()
        )
    }

    fn password(&self) -> &str {
        POSTGRES_PASSWORD
    }

    fn listens_at(&self) -> u16 {
        self.port()
    }

    fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.sql(sql)
    }

    fn forget(&self) {
        self.sql("drop schema if exists loads cascade; drop schema if exists _subak cascade");
    }

    fn stages(&self) -> String {
        lines(self.sql("select count(*) from pg_class where relname like '\\_\\_subak%'")).concat()
    }

    fn has_staged_rows(&self) -> bool {
        lines(self.sql("select count(*) from pg_class where relname like '\\_\\_subak%' and relpages > 0")) != ["0"]
    }

    fn kill_it(&mut self) {
        self.kill();
    }

    fn resume_it(&mut self) {
        self.resume();
    }
}

/// Each type with its edges: as text of the server, and as DuckDB's text after the move.
const VALUES: &[(&str, &[&str], &str)] = &[
    ("boolean", &["true", "false"], ""),
    ("smallint", &["-32768", "32767"], ""),
    ("integer", &["-2147483648", "2147483647"], ""),
    ("bigint", &["-9223372036854775808", "9223372036854775807"], ""),
    ("numeric(38,10)", &["9999999999999999999999999999.9999999999", "-0.0000000001", "0"], ""),
    ("numeric(6,5)", &["0.00001", "-0.99999"], ""),
    ("numeric(18,0)", &["100000000", "-10000", "999999999999999999"], ""),
    ("numeric(4,-2)", &["123400"], ""),
    ("numeric", &["123456789012345678901234567890123456789012345.6789", "NaN", "Infinity", "0.0"], ""),
    ("text", &["", " x ", "\u{1F600}e\u{301}", "NULL", "a\nb\t\\"], ""),
    ("varchar(5)", &["abcde"], ""),
    ("char(5)", &["ab   "], "padded"),
    ("bytea", &["\\x00ff10"], "bytes"),
    ("date", &["0001-01-01", "1969-12-31", "2024-02-29", "9999-12-31"], ""),
    ("time", &["00:00:00", "23:59:59.999999", "12:34:56.7"], ""),
    ("timestamp", &["1969-12-31 23:59:59.999999", "2024-02-29 12:00:00", "9999-12-31 23:59:59.999999"], ""),
    ("timestamptz", &["1970-01-01 00:00:00+00", "2024-03-31 01:30:00.5+00"], ""),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"], ""),
    ("json", &["{\"b\": 1e400, \"a\": 1, \"a\": 2}"], ""),
    ("jsonb", &["{\"a\": 12345678901234567890.123}", "[]"], ""),
    ("interval", &["1 mon 1 day 00:00:00.000001", "-1 years +2 days"], ""),
    ("inet", &["10.0.0.1/8", "::1"], ""),
    ("bit(4)", &["0010"], ""),
    ("int4range", &["[1,10)", "empty", "(,5)"], ""),
    ("mood", &["so so", "happy"], ""),
    ("price", &["12.34"], ""),
    ("oid", &["4294967295"], ""),
    ("money", &["$1,234.56"], "money"),
    ("int[]", &["{1,NULL,3}", "{}", "{{1,2},{3,4}}"], "array"),
];

#[test]
fn every_type_travels_exactly_there_and_back() {
    let server = Postgres::start();
    server.sql("create type mood as enum ('so so', 'happy'); create domain price as numeric(10,2) check (value > 0)");
    let mut streams = String::new();
    let mut back = String::new();
    for (at, (kind, values, _)) in VALUES.iter().enumerate() {
        server.sql(&format!("create table t{at} (n integer primary key, v {kind}, w {kind})"));
        for (n, value) in values.iter().enumerate() {
            let literal = value.replace('\'', "''");
            server.sql(&format!("insert into t{at} values ({n}, '{literal}', null)"));
        }
        streams.push_str(&format!("    t{at}: {{ stream: public.t{at}, mode: replace }}\n"));
        back.push_str(&format!("    t{at}: {{ stream: bronze.t{at}, mode: replace }}\n"));
    }
    let sandbox = with_server(&server, &[("assets/bronze/all.yml", &format!("ingest:\n  from: pg\n  streams:\n{streams}"))]);
    sandbox.run(&["run"]).expect(0);
    sandbox.write("assets/returned/all.yml", &format!("ingest:\n  from: warehouse\n  to: pg\n  streams:\n{back}"));
    sandbox.run(&["run", "returned.*"]).expect(0);
    for (at, (kind, values, how)) in VALUES.iter().enumerate() {
        let column = match *how {
            "money" => "v::numeric(20,2)::text",
            "array" => "array_to_json(v)::text",
            // A cast takes the blanks away that belong to the value.
            "padded" => "rpad(v::text, 5)",
            _ => "v::text",
        };
        let expect = lines(server.sql(&format!("select n, {column}, w::text from t{at} order by n")));
        assert_eq!(expect.len(), values.len(), "{kind}");
        let returned = lines(server.sql(&format!("select n, v::text, w::text from returned.t{at} order by n")));
        assert_eq!(returned, expect, "{kind} there and back");
        let moved = match *how {
            "bytes" => format!("select n, '\\x' || lower(hex(v)) as v, w from bronze.t{at} order by n"),
            _ => format!("select n, v, w from bronze.t{at} order by n"),
        };
        let moved = read(&sandbox, &moved);
        assert_eq!(moved, expect, "{kind} in DuckDB");
    }
    // The same rows once more change nothing.
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.out.contains("0 rows written"), "{}", again.out);
    let verified = sandbox.run(&["verify"]).expect(0);
    assert!(!verified.out.contains("different"), "{}", verified.out);
}

#[test]
fn values_that_are_none_elsewhere_are_told() {
    let server = Postgres::start();
    server.sql(
        "create table nan (id integer, v numeric(10,2)); insert into nan values (1, 1.5), (2, 'NaN'); \
         create table forever (id integer, v date); insert into forever values (1, 'infinity'); \
         create table later (id integer, v timestamptz); insert into later values (1, '-infinity')",
    );
    let stream =
        |table: &str, rest: &str| format!("ingest:\n  from: pg\n  streams:\n    t: {{ stream: {table}, mode: replace{rest} }}\n");
    let sandbox = with_server(&server, &[("assets/t.yml", &stream("nan", ""))]);
    for (table, text, problem) in
        [("nan", "NaN", "not a decimal"), ("forever", "infinity", "not a date"), ("later", "-infinity", "not a time")]
    {
        // NULL and a counter by default, and whatever the policy says.
        sandbox.write("assets/t.yml", &stream(table, ""));
        let ran = sandbox.run(&["run", "--full-refresh"]).expect(0);
        assert!(ran.err.contains(&format!("1 values of v: {problem}, became NULL")), "{}", ran.err);
        assert_eq!(read(&sandbox, "select count(*) from t where v is null"), ["1"], "{table}");
        sandbox.run(&["verify"]).expect(0);
        sandbox.write("assets/t.yml", &stream(table, ", on_reject: error"));
        let failed = sandbox.run(&["run"]).expect(1);
        let words = format!("column `v`: `{text}` is {problem}");
        assert!(failed.err.contains(&words) && failed.err.contains("declare `v` as `text`"), "{words}: {}", failed.err);
        sandbox.write("assets/t.yml", &stream(table, ", columns: { v: text }"));
        sandbox.run(&["run", "--full-refresh"]).expect(0);
    }
    assert_eq!(read(&sandbox, "select v from t"), ["-infinity"]);
    // Text with a zero character in it is none for PostgreSQL.
    sandbox.write("input/zero.ndjson", "{\"id\": 1, \"v\": \"a\\u0000b\"}\n");
    sandbox.write("assets/t.yml", "ingest:\n  from: files\n  to: pg\n  streams:\n    z: { path: zero.ndjson, mode: replace }\n");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("column `v`: PostgreSQL holds no text with a zero character"), "{}", failed.err);
}

#[test]
fn what_hangs_on_a_table_survives_its_replacement() {
    let server = Postgres::start();
    server.sql("create table people (id integer, name text, age integer); insert into people values (1, 'Ayu', 30), (2, 'Budi', 40); create role reader");
    let sandbox = with_server(
        &server,
        &[(
            "assets/copy/people.yml",
            "ingest:\n  from: pg\n  to: pg\n  streams:\n    people: { stream: people, mode: replace }\n",
        )],
    );
    sandbox.run(&["run"]).expect(0);
    // Nothing refers to the table itself: it is exchanged, and gets back what it had.
    server.sql(
        "comment on table copy.people is 'Who''s who'; comment on column copy.people.name is 'First'; \
         create index people_name on copy.people (lower(name)); alter table copy.people add constraint people_key unique (id); \
         grant select on copy.people to reader with grant option; grant insert on copy.people to public; update people set age = 31 where id = 1",
    );
    let facts = "select obj_description('copy.people'::regclass), col_description('copy.people'::regclass, 2), \
                 (select string_agg(indexname, ' ' order by indexname) from pg_indexes where schemaname = 'copy'), \
                 has_table_privilege('reader', 'copy.people', 'select with grant option'), \
                 (select count(*) from pg_constraint where conname = 'people_key')";
    let before = (server.sql(facts), server.sql("select 'copy.people'::regclass::oid"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(server.sql(facts), before.0);
    assert_ne!(server.sql("select 'copy.people'::regclass::oid"), before.1, "it is another table");
    assert_eq!(lines(server.sql("select * from copy.people order by id")), ["1,Ayu,31", "2,Budi,40"]);
    // A view refers to the table: its rows are exchanged, and the view sees them.
    server.sql(
        "create view adults as select id, name from copy.people where age >= 18; insert into people values (3, 'Citra', 20)",
    );
    let before = server.sql("select 'copy.people'::regclass::oid");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(server.sql("select 'copy.people'::regclass::oid"), before, "the table stays");
    assert_eq!(lines(server.sql("select name from adults order by id")), ["Ayu", "Budi", "Citra"]);
    // A column more, and one less that the view does not read.
    server.sql("alter table people add column town text; update people set town = 'Bogor'; alter table people drop column age");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("other objects depend on it") || failed.err.contains("cannot drop column"), "{}", failed.err);
    assert_eq!(
        lines(server.sql("select name from adults order by id")),
        ["Ayu", "Budi", "Citra"],
        "readers see the table as it was"
    );
    server.sql("drop view adults");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.sql("select * from copy.people order by id")), ["1,Ayu,Bogor", "2,Budi,Bogor", "3,Citra,Bogor"]);
    let left = server.sql("select count(*) from pg_class where relname like '\\_\\_subak%'");
    assert_eq!(lines(left), ["0"], "stages are left");
}

/// A library, night by night: the case `s004_library`.
#[test]
fn a_library_night_by_night() {
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/s004_library");
    let server = Postgres::start();
    let stream = |name: &str, table: &str| {
        format!("    {name}: {{ stream: {table}, primary_key: id, cursor: {{ column: created_at, until: run }} }}\n")
    };
    let streams: String = [("books", "books_table"), ("member", "library_member"), ("rent", "rent_table")]
        .into_iter()
        .fold(String::new(), |text, (name, table)| text + &stream(name, table));
    let sandbox = with_server(&server, &[("assets/library/all.yml", &format!("ingest:\n  from: pg\n  streams:\n{streams}"))]);
    sandbox.write("assets/copy/all.yml", &format!("ingest:\n  from: pg\n  to: pg\n  streams:\n{streams}"));
    let expect = |name: &str, file: &str| {
        let wanted = Table::read(&parity.join(format!("expected/{file}.csv")));
        let columns = wanted.header.join(", ");
        for mut found in [
            Table { header: wanted.header.clone(), rows: server.sql(&format!("select {columns} from copy.{name}")) },
            Table {
                header: wanted.header.clone(),
                rows: read_table(&sandbox, &format!("select {columns} from library.{name}")).rows,
            },
        ] {
            found.header.clone_from(&wanted.header);
            if let Err(difference) = found.compare(&wanted) {
                panic!("{name} is not {file}: {difference}");
            }
        }
    };
    let plan: serde_json::Value =
        serde_json::from_slice(&std::fs::read(parity.join("input/plan.json")).expect("the plan")).expect("JSON");
    for step in plan["steps"].as_array().expect("steps") {
        if let Some(file) = step["sql"].as_str() {
            server.sql(&std::fs::read_to_string(parity.join("input").join(file)).expect(file));
        }
        if let Some(now) = step["run"].as_str() {
            sandbox.run(&["run", "--as-of", now]).expect(0);
            if now == "2025-01-02 00:15:00" {
                expect("books", "run1_books");
            }
        }
    }
    expect("member", "final_half_open_member");
    expect("rent", "final_half_open_rent");
    // One book was changed without a word about when: no cursor finds that, and a full read does.
    expect("books", "run9_books");
    let differs = sandbox.run(&["verify", "library.books", "copy.books"]).expect(1);
    assert!(differs.err.contains("id=5"), "{}", differs.err);
    sandbox.run(&["run", "library.books", "copy.books", "--full-refresh", "--as-of", "2025-01-06 00:15:00"]).expect(0);
    expect("books", "final_half_open_books");
}

#[test]
fn sql_assets_checks_and_keys_in_postgres() {
    let server = Postgres::start();
    let sandbox = destination::builds_a_shop(&server);
    let wrong = sandbox.run(&["query", "--on", "pg", "select nonsense from bronze.orders"]).expect(1);
    assert!(wrong.err.contains("column \"nonsense\" does not exist"), "{}", wrong.err);
    let changing = "with gone as (delete from bronze.orders returning id) select * from gone";
    let refused = sandbox.run(&["query", "--on", "pg", changing]).expect(1);
    assert!(refused.err.contains("SQLSTATE"), "{}", refused.err);
    assert_eq!(lines(server.sql("select count(*) from bronze.orders")), ["3"]);
}

#[test]
fn what_a_server_refuses_is_told() {
    let server = Postgres::start();
    server.sql(
        "create table secrets (id integer); create table own (id integer, who text); insert into own values (1, 'a'), (2, 'b'); \
         create role clerk login password 'clerk'; grant usage on schema public to clerk; grant select on own to clerk; \
         alter table own enable row level security; create policy mine on own using (who = 'a')",
    );
    let stream = |table: &str| format!("ingest:\n  from: pg\n  streams:\n    t: {{ stream: {table}, mode: replace }}\n");
    let sandbox = with_server(&server, &[("assets/t.yml", &stream("nowhere"))]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let fails = |words: &[&str]| {
        let failed = sandbox.run(&["run"]);
        assert_ne!(failed.code, Some(0), "{words:?}");
        for word in words {
            assert!(failed.err.contains(word), "{word}: {}", failed.err);
        }
        assert!(!failed.err.contains(POSTGRES_PASSWORD), "{}", failed.err);
    };
    fails(&["there is no stream `nowhere`"]);
    set_secret(&sandbox, "pg_password", "wrong");
    fails(&["password authentication failed", "correct `user:` and `password:`"]);
    set_secret(&sandbox, "pg_password", POSTGRES_PASSWORD);
    sandbox.write("subak.yml", &config.replace("database: subak", "database: nothing"));
    fails(&["database \"nothing\" does not exist", "correct `database:`"]);
    sandbox.write("subak.yml", &config.replace("host: 127.0.0.1", "host: no.such.host.invalid"));
    fails(&["cannot connect to `subak` on no.such.host.invalid", "are `host:` and `port:` right?"]);
    // A reader who may not see every row is told so, instead of getting some.
    sandbox.write("subak.yml", &config.replace(&format!("user: {POSTGRES_USER}"), "user: clerk"));
    set_secret(&sandbox, "pg_password", "clerk");
    sandbox.write("assets/t.yml", &stream("secrets"));
    fails(&["permission denied for table secrets"]);
    sandbox.write("assets/t.yml", &stream("own"));
    fails(&["query would be affected by row-level security policy"]);
    sandbox.write("assets/t.yml", "ingest:\n  from: files\n  to: pg\n  streams:\n    t: { path: t.csv }\n");
    sandbox.write("input/t.csv", "id\n1\n");
    fails(&["permission denied for database subak"]);
    // With schemas of its own it needs nothing else.
    server.sql("create schema _subak authorization clerk; grant create, usage on schema public to clerk");
    sandbox.run(&["run"]).expect(0);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.sql("select * from public.t")), ["1"]);
}

#[test]
fn kills_and_cuts_lose_and_double_nothing() {
    destination::survives_kills(&mut Postgres::start());
}

#[test]
fn days_are_replaced_by_themselves() {
    destination::replaces_days(&Postgres::start());
}

#[test]
fn a_column_that_comes_late_doubles_no_rows() {
    let server = Postgres::start();
    let sandbox = with_server(&server, &[("assets/loads/all.yml", &late::asset("pg"))]);
    late::doubles_no_rows(&sandbox, "inside_publish", || lines(server.rows("select * from loads.events")));
}

#[test]
fn answers_that_are_lost_lose_and_double_nothing() {
    // Every fifth message; which ones they are moves with whatever a run sends.
    destination::survives(&Postgres::start(), 5, "{ retry: { delay_first: 10ms } }", Proxy::cut_after);
}

#[test]
fn a_network_that_goes_silent_loses_and_doubles_nothing() {
    // A step that hears nothing ends with its time, and so does whatever it held at the server.
    destination::survives(
        &Postgres::start(),
        43,
        "{ timeout: 3s, retry: { attempts_max: 3, delay_first: 10ms } }",
        Proxy::hold_after,
    );
}

#[test]
fn connections_are_encrypted_as_asked() {
    let server = Postgres::start();
    let is_encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let sandbox = with_server(&server, &[]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let ask = |mode: &str| {
        sandbox.write("subak.yml", &config.replace("type: postgres,", &format!("type: postgres, {mode},")));
        sandbox.run(&["query", "--on", "pg", is_encrypted, "-o", "csv"])
    };
    assert!(ask("sslmode: prefer").expect(0).out.contains("false"), "the server has no encryption");
    let refused = ask("sslmode: require").expect(4);
    assert!(refused.err.contains("refuses an encrypted connection"), "{}", refused.err);
    let root = server.enable_tls();
    // Whoever asks first may meet a server that has not read its settings again.
    for _ in 0..100 {
        if ask("sslmode: prefer").out.contains("true") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for (mode, answer) in [
        ("sslmode: disable".to_owned(), "false"),
        ("sslmode: prefer".to_owned(), "true"),
        ("sslmode: require".to_owned(), "true"),
        (format!("sslmode: verify-full, sslrootcert: '{}'", root.display()), "true"),
    ] {
        let ran = ask(&mode).expect(0);
        assert!(ran.out.contains(answer), "{mode}: {}", ran.out);
    }
    let unknown = ask("sslmode: verify-full").expect(4);
    assert!(unknown.err.contains("refuses an encrypted connection") && unknown.err.contains("sslrootcert"), "{}", unknown.err);
    let idle = ask(&format!("sslmode: require, sslrootcert: '{}'", root.display()));
    assert!(idle.err.contains("verifies nothing"), "{}", idle.err);
}

/// Rows of all sizes, many of one key: the last to arrive stays, wherever the server put it.
#[test]
fn the_order_of_arrival_is_kept() {
    let server = Postgres::start();
    let sandbox = with_server(
        &server,
        &[(
            "assets/t.yml",
            "ingest:\n  from: files\n  to: pg\n  streams:\n    t: { path: t.csv, primary_key: id, deduplicate: version, columns: { id: bigint, version: bigint, n: bigint } }\n",
        )],
    );
    let mut text = "id,version,n,filler\n".to_owned();
    for n in 0..100_000_u64 {
        let filler = "x".repeat(usize::try_from(n * 7919 % 1900).expect("a length"));
        text.push_str(&format!("{},1,{n},{filler}\n", n % 100));
    }
    sandbox.write("input/t.csv", &text);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.sql("select count(*), min(n), max(n) from public.t")), ["100,99900,99999"]);
}

#[test]
fn cursors_compare_as_they_are_declared() {
    let server = Postgres::start();
    server.sql(
        "create table words (id text, n text); insert into words values ('1', '9'), ('2', '99'); \
         create table wide (id integer, v numeric); insert into wide values (1, 5), (2, 12345678901234567890.5)",
    );
    let words = "    words: { stream: words, mode: append, cursor: n, columns: { n: bigint } }\n";
    let names = "    names: { stream: words, mode: append, cursor: id, columns: { id: text } }\n";
    let sandbox = with_server(&server, &[("assets/t.yml", &format!("ingest:\n  from: pg\n  streams:\n{words}{names}"))]);
    sandbox.run(&["run"]).expect(0);
    server.sql("insert into words values ('Zz', '100'), ('aB', '101')");
    sandbox.run(&["run"]).expect(0);
    server.sql("insert into words values ('b', '1000')");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select n from words order by n"), ["9", "99", "100", "101", "1000"]);
    assert_eq!(read(&sandbox, "select id from names order by id"), ["1", "2", "Zz", "aB", "b"]);
    sandbox.write(
        "assets/t.yml",
        "ingest:\n  from: pg\n  streams:\n    wide: { stream: wide, mode: append, cursor: v, columns: { v: text } }\n",
    );
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("travel as texts") && refused.err.contains("decimal(38,10)"), "{}", refused.err);
    sandbox.write("assets/t.yml", "ingest:\n  from: pg\n  streams:\n    wide: { stream: wide, mode: append, cursor: v, columns: { v: 'decimal(38,10)' } }\n");
    sandbox.run(&["run"]).expect(0);
}

#[test]
fn tables_that_foreign_keys_refer_to_are_left_alone() {
    let server = Postgres::start();
    let sandbox = with_server(
        &server,
        &[
            (
                "assets/shop/all.yml",
                "ingest:\n  from: files\n  to: pg\n  streams:\n    people: { path: people.csv, primary_key: id, columns: { id: bigint } }\n",
            ),
            ("input/people.csv", "id,name\n1,Ayu\n"),
        ],
    );
    sandbox.run(&["run"]).expect(0);
    server.sql(
        "alter table shop.people add constraint people_key unique (id); \
         create table shop.orders (id integer, person bigint references shop.people (id) on delete cascade); insert into shop.orders values (1, 1)",
    );
    sandbox.write("input/people.csv", "id,name\n1,Budi\n");
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("the foreign key `orders_person_fkey` of `shop.orders` refers to them"), "{}", refused.err);
    assert_eq!(lines(server.sql("select count(*) from shop.orders")), ["1"]);
    sandbox.write(
        "assets/shop/all.yml",
        &format!("ingest:\n  from: files\n  to: pg\n  streams:\n    {}: {{ path: people.csv, mode: replace }}\n", "a".repeat(52)),
    );
    let refused = sandbox.run(&["run"]).expect(1);
    assert!(refused.err.contains("has 52 bytes, and 51 are the most here"), "{}", refused.err);
}

const STATS: &str = "/* subak
on: pg
stored_as: materialized_view
checks: [{ unique: grp }, { range: { column: total, min: 0 } }]
*/
select grp, sum(v) as total from public.facts group by grp
";

/// How the view came to its rows: its number changes when it is made anew.
fn number_of(server: &Postgres) -> String {
    lines(server.sql("select oid from pg_class where relname = 'stats'")).concat()
}

#[test]
fn materialized_views_are_refreshed_in_place() {
    let server = Postgres::start();
    server.sql("create table facts (grp int, v int); insert into facts values (1, 10), (1, 5), (2, 7)");
    let sandbox = with_server(&server, &[("assets/gold/stats.sql", STATS)]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &format!("{config}warehouse: pg\nexternal: [public.facts]\n"));
    let rows = || lines(server.sql("select grp, total from gold.stats order by 1"));

    sandbox.run(&["run"]).expect(0);
    assert_eq!(rows(), ["1,15", "2,7"]);
    let first = number_of(&server);
    server.sql(
        "create unique index stats_grp on gold.stats (grp); comment on materialized view gold.stats is 'mine'; \
                create view gold.reader as select * from gold.stats; insert into facts values (3, 1)",
    );
    sandbox.run(&["run"]).expect(0);
    assert_eq!((rows(), number_of(&server)), (vec!["1,15".to_owned(), "2,7".to_owned(), "3,1".to_owned()], first.clone()));

    // A check sees the rows before readers do, and what it refuses is not there.
    server.sql("insert into facts values (4, -5)");
    let refused = sandbox.run(&["run"]);
    assert!(refused.code == Some(1) && refused.err.contains("readers see it as it was"), "{}", refused.err);
    assert_eq!(rows(), ["1,15", "2,7", "3,1"]);
    server.sql("delete from facts where grp = 4");
    sandbox.run(&["run"]).expect(0);

    // Another query makes it anew; what reads it is in the way, and is not dropped along.
    sandbox.write(
        "assets/gold/stats.sql",
        &STATS.replace("select grp, sum(v) as total", "select grp, sum(v) as total, count(*) as n"),
    );
    let blocked = sandbox.run(&["run"]);
    assert!(blocked.code == Some(1) && blocked.err.contains("drop what depends on it first"), "{}", blocked.err);
    assert_eq!(rows(), ["1,15", "2,7", "3,1"]);
    server.sql("drop view gold.reader");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.sql("select grp, total, n from gold.stats order by 1")), ["1,15,2", "2,7,1", "3,1,1"]);
    assert_ne!(number_of(&server), first);
    assert_eq!(
        lines(server.sql("select indexname from pg_indexes where tablename = 'stats'")),
        ["stats_grp"],
        "its index came along"
    );
    assert_eq!(lines(server.sql("select obj_description('gold.stats'::regclass)")), ["mine"]);

    // A view becomes a table and comes back.
    for kind in ["table", "materialized_view", "view", "materialized_view"] {
        sandbox.write("assets/gold/stats.sql", &STATS.replace("materialized_view", kind));
        sandbox.run(&["run"]).expect(0);
        assert_eq!(rows(), ["1,15", "2,7", "3,1"], "{kind}");
    }
    let leftovers = "select count(*) from pg_class where relname like '\\_\\_subak%'";
    assert_eq!(lines(server.sql(leftovers)), ["0"]);

    sandbox.write("assets/gold/stats.sql", &STATS.replace("on: pg", "on: warehouse"));
    let lacking = sandbox.run(&["validate"]);
    assert!(lacking.code == Some(2) && lacking.err.contains("does not keep results as `materialized_view`"), "{}", lacking.err);
}

#[test]
fn ranges_of_a_table_are_of_one_state() {
    let server = Postgres::start();
    server.sql(
        "create table big as select n as id, repeat(md5(n::text), 8) as note, n % 7 as grp from generate_series(1, 60000) as n; delete from big where id % 3 = 0; \
         create table parts (id int, at date) partition by range (at); create table parts_a partition of parts for values from ('2024-01-01') to ('2025-01-01'); \
         create table parts_b partition of parts for values from ('2025-01-01') to ('2026-01-01'); \
         insert into parts select n, date '2024-01-01' + n % 700 from generate_series(1, 30000) as n; create table parent (id int); create table child () inherits (parent); \
         insert into parent values (1), (2); insert into child select n from generate_series(3, 20000) as n; create view seen as select * from big; create table none (id int)",
    );
    let ingest = "ingest:\n  from: pg\n  defaults: { ranges: 4, mode: replace }\n  streams:\n    big: { stream: public.big }\n    parts: { stream: public.parts }\n    \
                  parent: { stream: public.parent }\n    seen: { stream: public.seen }\n    none: { stream: public.none }\n    \
                  ones: { stream: public.big, where: grp = 1, primary_key: id, cursor: id, mode: merge }\n";
    let sandbox = with_server(&server, &[("assets/raw.yml", ingest)]);
    sandbox.run(&["run"]).expect(0);
    let digest = "count(*), count(distinct id), sum(id)";
    for (table, from) in [("big", "big"), ("parts", "parts"), ("parent", "parent"), ("seen", "big"), ("none", "none")] {
        assert_eq!(
            read(&sandbox, &format!("select {digest} from {table}")),
            lines(server.sql(&format!("select {digest} from {from}"))),
            "{table}"
        );
    }
    assert_eq!(read(&sandbox, "select max(length(note)), count(distinct note) from big"), ["256,40000"]);
    server.sql("insert into big values (70000, 'late', 1), (3, 'early', 1)");
    let again = sandbox.run(&["run", "ones"]).expect(0);
    assert!(again.err.contains("read 2, written 1"), "the bound of the cursor holds in every range: {}", again.err);
    assert_eq!(read(&sandbox, "select max(id) from ones"), ["70000"]);

    for (options, words) in [
        ("{ sql: 'select 1 as id' }", "`ranges` are parts of a table, and `sql` reads none"),
        ("{ stream: public.big, limit: 5 }", "`limit` would hold for each of the `ranges`"),
        ("{ stream: public.big, ranges: 0 }", "`ranges` must be a number from 1 to 64"),
    ] {
        sandbox.write(
            "assets/raw.yml",
            &format!("ingest:\n  from: pg\n  defaults: {{ ranges: 4, mode: replace }}\n  streams:\n    wrong: {options}\n"),
        );
        let refused = sandbox.run(&["run"]);
        assert!(refused.code == Some(1) && refused.err.contains(words), "{words}: {}", refused.err);
    }
}

/// A table to which one transaction after the other moves amounts from row to row: every state of it has the same sum.
#[test]
fn ranges_see_no_half_of_a_transaction() {
    let server = Postgres::start();
    server.sql(
        "create table accounts as select n as id, 100 as amount, repeat('x', 200) as note from generate_series(1, 20000) as n",
    );
    let ingest = "ingest:\n  from: pg\n  streams:\n    accounts: { stream: public.accounts, ranges: 5, mode: replace }\n";
    let sandbox = with_server(&server, &[("assets/raw.yml", ingest)]);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                at = (at * 7919 + 13) % 20_000;
                let other = 20_000 - at;
                server.sql(&format!("begin; update accounts set amount = amount - 5 where id = {}; update accounts set amount = amount + 5 where id = {other}; commit", at + 1));
            }
        });
        for _ in 0..4 {
            sandbox.run(&["run"]).expect(0);
            assert_eq!(read(&sandbox, "select count(*), count(distinct id), sum(amount) from accounts"), ["20000,20000,2000000"]);
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn only_what_is_selected_is_read() {
    let server = Postgres::start();
    server.sql(
        "create table people (id int primary key, name text, \"secret note\" text, at timestamp); insert into people values (1, 'A', 'x', '2025-01-01'), (2, 'B', 'y', '2025-01-02'); \
         create role reader login password 'reader'; grant select (id, name, at) on people to reader",
    );
    let ingest = "ingest:\n  from: pg\n  streams:\n    people: { stream: public.people, select: [name, id, at], primary_key: id, cursor: at }\n    \
                  renamed: { stream: public.people, select: [who], columns: { who: { from: name } }, mode: replace }\n";
    let sandbox = with_server(&server, &[("assets/raw.yml", ingest)]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    // A role that may not read the rest proves that nobody does.
    sandbox.write("subak.yml", &config.replace(&format!("user: {POSTGRES_USER}"), "user: reader"));
    set_secret(&sandbox, "pg_password", "reader");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select * from people order by id"), ["A,1,2025-01-01 00:00:00", "B,2,2025-01-02 00:00:00"]);
    assert_eq!(read(&sandbox, "select * from renamed order by 1"), ["A", "B"]);
    sandbox.run(&["verify", "people"]).expect(0);
    server.sql("insert into people values (3, 'C', 'z', '2025-01-03')");
    sandbox.run(&["run", "people"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*), max(name) from people"), ["3,C"]);

    sandbox.write("assets/raw.yml", &ingest.replace("select: [name, id, at]", "select: [name, id, nome]"));
    let wrong = sandbox.run(&["run", "people"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("nome"), "{}", wrong.err);
    // An expression may need any column.
    sandbox.write(
        "assets/raw.yml",
        &ingest.replace("select: [name, id, at]", "select: [name, id, at], derive: { twice: name || name }"),
    );
    let refused = sandbox.run(&["run", "people"]);
    assert!(refused.code != Some(0) && refused.err.contains("permission denied"), "{}", refused.err);
}
