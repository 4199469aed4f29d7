//! MySQL and MariaDB as destination and warehouse, on a server of each test's own. Results are read back with the server's own client.

#[path = "support/destination.rs"]
mod destination;
#[path = "support/late.rs"]
mod late;
#[path = "support/network.rs"]
mod network;
#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use destination::{Destination, lines, with_server};
use subak_testkit::{MARIADB_PASSWORD, MARIADB_USER, MariaDb, Proxy};
use warehouse::read;

const STAGES: &str = "from information_schema.tables where table_name like '\\_\\_subak%'";

impl Destination for MariaDb {
    const NAME: &str = "my";
    const POINTS: &[&str] = &["table_renamed"];

    fn connection(&self) -> String {
        format!(
            "{{ type: mysql, host: 127.0.0.1, port: {}, database: subak, user: {MARIADB_USER}, password: \"${{secret:my_password}}\" }}",
            self.port()
        )
    }

    fn password(&self) -> &str {
        MARIADB_PASSWORD
    }

    fn listens_at(&self) -> u16 {
        self.port()
    }

    fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let mut rows = self.sql(sql);
        for cell in rows.iter_mut().flatten().flatten() {
            *cell = cell.trim_end_matches(".000000").to_owned();
        }
        rows
    }

    fn forget(&self) {
        self.sql("drop database if exists loads; drop database if exists _subak");
    }

    fn stages(&self) -> String {
        lines(self.sql(&format!("select count(*) {STAGES}"))).concat()
    }

    fn has_staged_rows(&self) -> bool {
        lines(self.sql(&format!("select count(*) {STAGES} and table_rows > 0"))) != ["0"]
    }

    fn kill_it(&mut self) {
        self.kill();
    }

    fn resume_it(&mut self) {
        self.resume();
    }
}

#[test]
fn sql_assets_checks_and_keys() {
    let server = MariaDb::start();
    let sandbox = destination::builds_a_shop(&server);
    let wrong = sandbox.run(&["query", "--on", "my", "select nonsense from bronze.orders"]).expect(1);
    assert!(wrong.err.contains("Unknown column 'nonsense'"), "{}", wrong.err);
    let refused = sandbox.run(&["query", "--on", "my", "delete from bronze.orders"]).expect(1);
    assert!(!refused.err.is_empty());
    assert_eq!(lines(server.rows("select count(*) from bronze.orders")), ["3"]);
}

#[test]
fn kills_and_cuts_lose_and_double_nothing() {
    destination::survives_kills(&mut MariaDb::start());
}

#[test]
fn days_are_replaced_by_themselves() {
    destination::replaces_days(&MariaDb::start());
}

#[test]
fn a_column_that_comes_late_doubles_no_rows() {
    let server = MariaDb::start();
    for point in ["columns_added", "inside_publish"] {
        server.forget();
        let sandbox = with_server(&server, &[("assets/loads/all.yml", &late::asset("my"))]);
        late::doubles_no_rows(&sandbox, point, || lines(server.rows("select * from loads.events")));
    }
}

#[test]
fn answers_that_are_lost_lose_and_double_nothing() {
    destination::survives(&MariaDb::start(), 13, "{ retry: { delay_first: 10ms } }", Proxy::cut_after);
}

#[test]
fn a_network_that_goes_silent_loses_and_doubles_nothing() {
    destination::survives(
        &MariaDb::start(),
        101,
        "{ timeout: 3s, retry: { attempts_max: 3, delay_first: 10ms } }",
        Proxy::hold_after,
    );
}

/// Values that a server with other settings would change without a word.
const EDGES: &str = "create table edges (id bigint, flag boolean, small smallint, big bigint, wide ubigint, ratio real, precise double, \
                     exact decimal(38,10), note varchar, raw blob, day date, clock time, wall timestamp, instant timestamptz, doc json, uid uuid); \
                     insert into edges values \
                     (1, true, -32768, -9223372036854775808, 18446744073709551615, 0.1, 1.7976931348623157e308, 9999999999999999999999999999.9999999999, \
                      'Ünï \u{1f980} ''\" \\ %_', '\\x00\\xFF\\x27'::blob, '0001-01-01', '23:59:59.999999', '9999-12-31 23:59:59.999999', \
                      '2024-03-31 01:30:00.5+00', '{\"b\": 1, \"a\": 1.50, \"a\": 2}', '00010203-0405-0607-0809-0a0b0c0d0e0f'), \
                     (2, false, 32767, 9223372036854775807, 0, -3.4028235e38, -5e-324, -0.0000000001, 'a ', ''::blob, '9999-12-31', '00:00:00', \
                      '0001-01-01 00:00:00', '1500-01-01 00:00:00+00', 'null', '00000000-0000-0000-0000-000000000000'), \
                     (3, null, null, null, null, null, null, null, 'A', null, null, null, null, null, null, null), \
                     (4, null, null, null, null, null, null, null, 'a', null, null, null, null, null, null, null), \
                     (5, null, null, null, null, null, null, null, repeat('x', 3000) || 'a', null, null, null, null, null, null, null), \
                     (6, null, null, null, null, null, null, null, repeat('x', 3000) || 'b', null, null, null, null, null, null, null)";

#[test]
fn values_arrive_exactly_and_again_change_nothing() {
    let server = MariaDb::start();
    server.sql("alter database subak character set latin1 collate latin1_german1_ci");
    let stream =
        |mode: &str| format!("ingest:\n  from: warehouse\n  to: my\n  streams:\n    edges: {{ stream: main.edges, {mode} }}\n");
    let sandbox = with_server(
        &server,
        &[("assets/merged/t.yml", &stream("primary_key: note")), ("assets/replaced/t.yml", &stream("mode: replace"))],
    );
    let local = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    local.execute_batch(EDGES).expect("rows");
    drop(local);
    sandbox.run(&["run"]).expect(0);
    for table in ["merged.edges", "replaced.edges"] {
        // Keys that differ in case, in a space at their end or behind 3,000 characters are others.
        assert_eq!(lines(server.rows(&format!("select count(*) from {table}"))), ["6"]);
        let texts = "id, flag, small, big, wide, exact, note, hex(raw), day, clock, wall, instant, doc, uid";
        let found = lines(server.rows(&format!("select {texts} from {table} where id < 3 order by id")));
        let first = "1,1,-32768,-9223372036854775808,18446744073709551615,9999999999999999999999999999.9999999999,\
                     Ünï \u{1f980} '\" \\ %_,00FF27,0001-01-01,23:59:59.999999,9999-12-31 23:59:59.999999,2024-03-31 01:30:00.500000,\
                     {\"b\": 1, \"a\": 1.50, \"a\": 2},00010203-0405-0607-0809-0a0b0c0d0e0f";
        let second = "2,0,32767,9223372036854775807,0,-0.0000000001,a ,,9999-12-31,00:00:00,0001-01-01 00:00:00,1500-01-01 00:00:00,null,\
                      00000000-0000-0000-0000-000000000000";
        assert_eq!(found, [first, second], "{table}");
        // As bits: what the server shows of them is rounded.
        let floats = format!(
            "select id, ratio = cast(0.1 as float), precise = 1.7976931348623157e308 from {table} where id = 1 union all \
                              select id, abs(ratio + 3.4028234663852886e38) < 1e30, precise = -5e-324 from {table} where id = 2"
        );
        assert_eq!(lines(server.rows(&floats)), ["1,1,1", "2,1,1"], "{table}");
    }
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.out.contains("0 rows written"), "{} {}", again.out, again.err);
    let verified = sandbox.run(&["verify"]).expect(0);
    assert!(verified.out.contains("edges") || verified.err.contains("edges"), "{} {}", verified.out, verified.err);
    // A text one character longer is another row, though windows compare the first 1,024 bytes only.
    let local = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
    local.execute_batch("update edges set id = 50 where id = 5; delete from edges where id = 2").expect("rows");
    drop(local);
    assert_eq!(read(&sandbox, "select count(*) from edges"), ["5"]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.rows("select id from merged.edges order by id")), ["1", "2", "3", "4", "6", "50"]);
    assert_eq!(lines(server.rows("select id from replaced.edges order by id")), ["1", "3", "4", "6", "50"]);
}

/// Texts that say instants, twice; a table without a schema; deletions that are kept.
#[test]
fn a_second_load_finds_what_the_first_has_made() {
    let server = MariaDb::start();
    let stream = "ingest:\n  from: files\n  to: my\n  streams:\n    plain: { path: plain.csv, primary_key: id, columns: { id: bigint, at: timestamp } }\n    \
                  kept:\n      path: kept.csv\n      primary_key: id\n      columns: { id: bigint, v: bigint }\n      \
                  changes: { operation: op, version: v, delete_when: [d], deletes: tombstone }\n";
    let sandbox = with_server(&server, &[("assets/t.yml", stream)]);
    sandbox.write("input/kept.csv", "id,v,op\n1,1,c\n2,1,c\n");
    sandbox.write("input/plain.csv", "id,at\n1,2024-03-31T01:30:00Z\n");
    sandbox.run(&["run"]).expect(0);
    sandbox.write("input/plain.csv", "id,at\n1,2024-03-31T01:30:00Z\n2,2024-03-31T03:30:00+02:00\n");
    sandbox.write("input/kept.csv", "id,v,op\n2,2,d\n3,1,c\n");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        lines(server.rows("select id, at from subak.plain order by id")),
        ["1,2024-03-31 01:30:00", "2,2024-03-31 01:30:00"]
    );
    assert_eq!(lines(server.rows("select id from subak.kept__live order by id")), ["1", "3"]);
    // Another database of the same server has its own cursors and its own tables.
    server.sql("create database other");
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("database: subak", "database: other"));
    std::fs::remove_dir_all(sandbox.path().join(".subak/tmp")).expect("removed");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.rows("select count(*) from other.plain")), ["2"]);
    assert_eq!(lines(server.rows("select count(*) from subak.plain")), ["2"]);
    // A view of theirs that is gone is made again, though nothing has changed.
    server.sql("drop view other.kept__live");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.rows("select id from other.kept__live")), ["3"]);
}

#[test]
fn values_that_the_server_has_not_are_told() {
    let server = MariaDb::start();
    let sandbox = with_server(
        &server,
        &[("assets/t.yml", "ingest:\n  from: warehouse\n  to: my\n  streams:\n    t: { stream: main.t, mode: replace }\n")],
    );
    for (value, said) in [
        ("'nan'::double", "MySQL holds no NaN and no infinity"),
        ("'-infinity'::float", "MySQL holds no NaN and no infinity"),
        ("1::decimal(38,35)", "has no exact type for column `v`"),
        ("interval '1 month'", "column `v`"),
    ] {
        let local = duckdb::Connection::open(sandbox.path().join("warehouse.duckdb")).expect("open");
        local.execute_batch(&format!("create or replace table t as select 1 as id, {value} as v")).expect("rows");
        drop(local);
        let failed = sandbox.run(&["run"]).expect(1);
        assert!(failed.err.contains(said), "{value}: {}", failed.err);
        assert_eq!(lines(server.rows("select count(*) from information_schema.tables where table_name = 't'")), ["0"], "{value}");
    }
    assert_eq!(server.stages(), "0");
}

const PEOPLE: &str = "ingest:\n  from: my\n  to: my\n  streams:\n    people: { stream: people, mode: replace }\n";

#[test]
fn what_hangs_on_a_table_survives_its_replacement() {
    let server = MariaDb::start();
    server.sql(
        "create table people (id integer, name text, age integer); insert into people values (1, 'Ayu', 30), (2, 'Budi', 40)",
    );
    let sandbox = with_server(&server, &[("assets/copy/people.yml", PEOPLE)]);
    sandbox.run(&["run"]).expect(0);
    // Indexes and keys move to the table that takes the place; views see it by its name.
    server.sql(
        "alter table copy.people add primary key (id), add unique key people_name (name(20)), add key people_age (age desc); \
         create view adults as select id, name from copy.people where age >= 18; update people set age = 31 where id = 1",
    );
    let number = "select table_id from information_schema.innodb_sys_tables where name = 'copy/people'";
    let before = server.sql(number);
    sandbox.run(&["run"]).expect(0);
    assert_ne!(server.sql(number), before, "it is another table");
    let indexes = "select group_concat(distinct index_name order by binary index_name) from information_schema.statistics where table_schema = 'copy'";
    assert_eq!(lines(server.rows(indexes)), ["PRIMARY,people_age,people_name"]);
    assert_eq!(lines(server.rows("select * from copy.people order by id")), ["1,Ayu,31", "2,Budi,40"]);
    // A trigger is the table's: its rows are exchanged.
    server.sql(
        "create table seen (id integer); create trigger copy.note after insert on copy.people for each row insert into subak.seen values (new.id); \
         insert into people values (3, 'Citra', 20)",
    );
    let before = server.sql(number);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(server.sql(number), before, "the table stays");
    assert_eq!(lines(server.rows("select name from adults order by id")), ["Ayu", "Budi", "Citra"]);
    assert_eq!(lines(server.rows("select count(*) from seen")), ["3"]);
    // A column more and one less, while the table stays.
    server.sql("alter table people add column town text; update people set town = 'Bogor'; alter table people drop column age; drop view adults; alter table copy.people drop key people_age");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.rows("select * from copy.people order by id")), ["1,Ayu,Bogor", "2,Budi,Bogor", "3,Citra,Bogor"]);
    server.sql("alter table people modify column id bigint");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("drop what hangs on the table"), "{}", failed.err);
    server.sql("drop trigger copy.note; create table orders (person int, foreign key (person) references copy.people (id))");
    let failed = sandbox.run(&["run"]).expect(1);
    assert!(failed.err.contains("the foreign key `orders_ibfk_1` of `subak.orders` refers to them"), "{}", failed.err);
    server.sql("drop table orders");
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.rows("select id from copy.people order by id")), ["1", "2", "3"]);
    assert_eq!(server.stages(), "0");
}

#[test]
fn the_types_of_a_build_do_not_hang_on_its_rows() {
    let server = MariaDb::start();
    server.sql("create table words (id int not null default 7 comment 'x', word varchar(10) not null, kind enum('a', 'b')); insert into words values (1, 'a', 'a')");
    let build = "/* subak\non: my\nstored_as: incremental\nunique_key: id\n*/\n\
                 select id, word, kind, 'x' as made, length(word) as n, null as nothing, 1.5 as half, now(6) > '2000-01-01' as is_new from copy.words\n";
    let words = "ingest:\n  from: my\n  to: my\n  streams:\n    words: { stream: words, mode: replace }\n";
    let sandbox = with_server(&server, &[("assets/gold/words.sql", build), ("assets/copy/words.yml", words)]);
    sandbox.run(&["run"]).expect(0);
    server.sql("insert into words values (2, 'longer one', 'b')");
    sandbox.write("assets/gold/words.sql", &build.replace("'x' as made", "'longer' as made"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        lines(server.rows("select id, word, kind, made, n, nothing, half from gold.words order by id")),
        ["1,a,a,longer,1,NULL,1.5", "2,longer one,b,longer,10,NULL,1.5"]
    );
    // Rights that are missing are named.
    server.sql("create user clerk identified by 'clerk'; grant select on subak.* to clerk");
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let clerk =
        config.replace(&format!("user: {MARIADB_USER}, password: \"${{secret:my_password}}\""), "user: clerk, password: clerk");
    sandbox.write("subak.yml", &clerk);
    let failed = sandbox.run(&["run"]).expect(4);
    assert!(failed.err.contains("create the database `_subak` and grant"), "{}", failed.err);
}
