//! MySQL and MariaDB as source, on a server of each test's own. Results are read back with DuckDB's own library, not through Subak.

#[path = "support/secret.rs"]
mod secret;
#[path = "support/warehouse.rs"]
mod warehouse;

use secret::set_secret;
use subak_testkit::{MARIADB_PASSWORD, MARIADB_USER, MariaDb, Sandbox};
use warehouse::{project, read};

/// A project with a DuckDB warehouse and the server as `shop`.
fn with_server(server: &MariaDb, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = project(files);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let connection = format!(
        "  shop: {{ type: mysql, host: 127.0.0.1, port: {}, database: subak, user: {MARIADB_USER}, password: \"${{secret:shop_password}}\" }}\n",
        server.port()
    );
    sandbox.write("subak.yml", &format!("{config}{connection}"));
    set_secret(&sandbox, "shop_password", MARIADB_PASSWORD);
    sandbox
}

/// A type, values as SQL and as DuckDB holds them afterwards, and the type there.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Each type with its edges.
const VALUES: &[Case] = &[
    // M7
    ("tinyint(1)", &[("0", "0"), ("1", "1"), ("2", "2"), ("-1", "-1")], "TINYINT"),
    ("tinyint unsigned", &[("255", "255")], "UTINYINT"),
    ("smallint", &[("-32768", "-32768"), ("32767", "32767")], "SMALLINT"),
    ("smallint unsigned", &[("65535", "65535")], "USMALLINT"),
    ("mediumint", &[("-8388608", "-8388608"), ("8388607", "8388607")], "INTEGER"),
    ("mediumint unsigned", &[("16777215", "16777215")], "UINTEGER"),
    ("int", &[("-2147483648", "-2147483648")], "INTEGER"),
    ("int unsigned", &[("4294967295", "4294967295")], "UINTEGER"),
    ("bigint", &[("-9223372036854775808", "-9223372036854775808")], "BIGINT"),
    // M1
    (
        "bigint unsigned",
        &[("18446744073709551615", "18446744073709551615"), ("9223372036854775808", "9223372036854775808")],
        "UBIGINT",
    ),
    // M2, M3
    (
        "decimal(65,30)",
        &[(
            "-12345678901234567890123456789012345.123456789012345678901234567891",
            "-12345678901234567890123456789012345.123456789012345678901234567891",
        )],
        "VARCHAR",
    ),
    (
        "decimal(38,10)",
        &[("9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999")],
        "DECIMAL(38,10)",
    ),
    ("decimal(10,0)", &[("-9999999999", "-9999999999")], "DECIMAL(10,0)"),
    ("decimal(30,30)", &[("0.000000000000000000000000000001", ".000000000000000000000000000001")], "DECIMAL(30,30)"),
    ("decimal(18,2) unsigned", &[("0.01", "0.01"), ("9999999999999999.99", "9999999999999999.99")], "DECIMAL(18,2)"),
    ("decimal(4,2)", &[("-0.00", "0.00"), ("-99.99", "-99.99")], "DECIMAL(4,2)"),
    // M4
    (
        "date",
        &[
            ("'1000-01-01'", "1000-01-01"),
            ("'9999-12-31'", "9999-12-31"),
            ("'0000-00-00'", "NULL"),
            ("'2024-00-10'", "NULL"),
            ("'2024-02-00'", "NULL"),
        ],
        "DATE",
    ),
    // M19, M20
    ("datetime", &[("'2024-03-31 02:30:00'", "2024-03-31 02:30:00"), ("'0000-00-00 00:00:00'", "NULL")], "TIMESTAMP"),
    (
        "datetime(6)",
        &[
            ("'1000-01-01 00:00:00.000001'", "1000-01-01 00:00:00.000001"),
            ("'9999-12-31 23:59:59.999999'", "9999-12-31 23:59:59.999999"),
        ],
        "TIMESTAMP",
    ),
    (
        "timestamp(3) null",
        &[("'1970-01-01 00:00:01.5'", "1970-01-01 00:00:01.5+00"), ("'2038-01-19 03:14:07.999'", "2038-01-19 03:14:07.999+00")],
        "TIMESTAMP WITH TIME ZONE",
    ),
    // M6
    ("time", &[("'-838:59:59'", "-838:59:59"), ("'00:00:00'", "00:00:00")], "VARCHAR"),
    ("time(6)", &[("'838:59:58.999999'", "838:59:58.999999"), ("'-00:00:00.000001'", "-00:00:00.000001")], "VARCHAR"),
    // M8
    ("bit(1)", &[("b'1'", "1"), ("b'0'", "0")], "UBIGINT"),
    ("bit(8)", &[("b'11111111'", "255")], "UBIGINT"),
    ("bit(64)", &[("~0", "18446744073709551615")], "UBIGINT"),
    // M9
    ("year", &[("0", "0"), ("1901", "1901"), ("2155", "2155")], "SMALLINT"),
    // M10
    ("float", &[("16777216", "16777216.0"), ("0.1", "0.1"), ("3.4e38", "3.4e+38")], "FLOAT"),
    ("double", &[("1e308", "1e+308"), ("0.1", "0.1"), ("-5e-324", "-5e-324")], "DOUBLE"),
    // M11, M12
    ("varchar(20) character set latin1", &[("'€uro é'", "€uro é")], "VARCHAR"),
    ("varchar(20) character set ucs2", &[("'Grüße'", "Grüße")], "VARCHAR"),
    ("text character set sjis", &[("'テスト'", "テスト")], "VARCHAR"),
    ("text character set gbk", &[("'测试'", "测试")], "VARCHAR"),
    (
        "varchar(40) character set utf8mb4",
        &[("'\u{1F600}e\u{301}\u{200d}'", "\u{1F600}e\u{301}\u{200d}"), ("''", ""), ("' x '", " x "), ("'a\\0b'", "a\0b")],
        "VARCHAR",
    ),
    ("char(5)", &[("'ab   '", "ab")], "VARCHAR"),
    // M13, M14
    ("binary(4)", &[("x'ff00'", "\\xff000000")], "BLOB"),
    ("varbinary(8)", &[("x'00ff10'", "\\x00ff10"), ("''", "\\x")], "BLOB"),
    ("blob", &[("x'80'", "\\x80")], "BLOB"),
    // M15, M16
    ("enum('a','b,c','it''s')", &[("'b,c'", "b,c"), ("'it''s'", "it's"), ("'no such label'", "")], "VARCHAR"),
    ("set('x','y','z')", &[("'x,z'", "x,z"), ("''", "")], "VARCHAR"),
    // M17
    (
        "json",
        &[(
            "'{\"b\": 9223372036854775809, \"a\": 1e400, \"z\": -0.0}'",
            "{\"b\": 9223372036854775809, \"a\": 1e400, \"z\": -0.0}",
        )],
        "VARCHAR",
    ),
    // M21
    (
        "point",
        &[
            ("st_geomfromtext('point(1 2)')", "\\x0101000000000000000000f03f0000000000000040"),
            ("st_geomfromtext('point(1 2)', 4326)", "\\x0101000020e6100000000000000000f03f0000000000000040"),
        ],
        "BLOB",
    ),
];

#[test]
fn every_type_arrives_exactly() {
    let server = MariaDb::start();
    let mut streams = String::new();
    let mut sql = String::from("set sql_mode = '';\n");
    for (at, (kind, values, _)) in VALUES.iter().enumerate() {
        sql.push_str(&format!("create table t{at} (n int primary key, v {kind}, w {kind});\n"));
        for (n, (value, _)) in values.iter().enumerate() {
            sql.push_str(&format!("insert into t{at} values ({n}, {value}, null);\n"));
        }
        streams.push_str(&format!("    t{at}: {{ stream: t{at}, mode: replace }}\n"));
    }
    server.sql(&sql);
    let sandbox = with_server(&server, &[("assets/bronze/all.yml", &format!("ingest:\n  from: shop\n  streams:\n{streams}"))]);
    let ran = sandbox.run(&["run"]).expect(0);
    for (at, (kind, values, moved_kind)) in VALUES.iter().enumerate() {
        let value = if *moved_kind == "BLOB" { "'\\x' || lower(hex(v))" } else { "v" };
        let moved = read(&sandbox, &format!("select n, {value} as v, w from bronze.t{at} order by n"));
        let expect: Vec<String> = values.iter().enumerate().map(|(n, (_, text))| format!("{n},{text},NULL")).collect();
        assert_eq!(moved, expect, "{kind}");
        let found = read(&sandbox, &format!("select typeof(v) from bronze.t{at} limit 1"));
        assert_eq!(found, [*moved_kind], "{kind}");
    }
    // What became NULL is counted, by column.
    assert_eq!(ran.err.matches("not a date, became NULL").count(), 2, "{}", ran.err);
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.out.contains("0 rows written"), "{}", again.out);
    sandbox.run(&["verify"]).expect(0);
}

#[test]
fn zero_dates_follow_the_policy_and_never_make_keys_equal() {
    let server = MariaDb::start();
    server.sql(
        "set sql_mode = ''; create table days (id int primary key, on_day date not null, at datetime(6));
         insert into days values (1, '2024-01-02', '2024-01-02 03:04:05.678901'), (2, '0000-00-00', '2024-00-10 01:02:03.5'), (3, '2024-02-00', null);
         create table keyed (on_day date primary key, note text); insert into keyed values ('0000-00-00', 'zero'), ('2024-00-00', 'year'), ('2024-01-01', 'day')",
    );
    let stream = |how: &str| format!("ingest:\n  from: shop\n  streams:\n    days: {{ stream: days, mode: replace, {how} }}\n");
    let sandbox = with_server(&server, &[]);
    for (how, expect) in [
        ("on_reject: 'null'", vec!["1,2024-01-02,2024-01-02 03:04:05.678901", "2,NULL,NULL", "3,NULL,NULL"]),
        (
            "on_reject: text",
            vec![
                "1,2024-01-02,NULL,2024-01-02 03:04:05.678901,NULL",
                "2,NULL,0000-00-00,NULL,2024-00-10 01:02:03.500000",
                "3,NULL,2024-02-00,NULL,NULL",
            ],
        ),
        ("on_reject: quarantine", vec!["1,2024-01-02,2024-01-02 03:04:05.678901"]),
        (
            "columns: { on_day: text, at: text }",
            vec!["1,2024-01-02,2024-01-02 03:04:05.678901", "2,0000-00-00,2024-00-10 01:02:03.500000", "3,2024-02-00,NULL"],
        ),
    ] {
        sandbox.write("assets/bronze/days.yml", &stream(how));
        sandbox.run(&["run", "--full-refresh"]).expect(0);
        assert_eq!(read(&sandbox, "select * from bronze.days order by id"), expect, "{how}");
    }
    sandbox.write("assets/bronze/days.yml", &stream("on_reject: error"));
    let refused = sandbox.run(&["run", "--full-refresh"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("column `on_day`: `0000-00-00` is not a date"), "{}", refused.err);
    // M5: a key that is no date has no value by which its row could be found.
    let keyed =
        |how: &str| format!("ingest:\n  from: shop\n  streams:\n    keyed: {{ stream: keyed, primary_key: on_day{how} }}\n");
    sandbox.write("assets/bronze/days.yml", &keyed(""));
    let refused = sandbox.run(&["run"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("column `on_day` identifies a row and is empty"), "{}", refused.err);
    sandbox.write("assets/bronze/days.yml", &keyed(", columns: { on_day: text }"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select * from bronze.keyed order by 1"), ["0000-00-00,zero", "2024-00-00,year", "2024-01-01,day"]);
}

#[test]
fn every_column_arrives_by_its_name() {
    let server = MariaDb::start();
    server.sql(
        "create table `Odd Name` (`id` int primary key, `select` int, `a``b` text, `Ünï` text, hidden int invisible default 7,
           twice int as (`select` * 2) virtual, stored int as (`select` * 3) stored);
         insert into `Odd Name` (`id`, `select`, `a``b`, `Ünï`) values (1, 2, 'x', 'y');
         create view seen as select id, `select` from `Odd Name`;
         create table `dotted.name` (id int); insert into `dotted.name` values (5)",
    );
    let columns = (0..1100).fold(String::new(), |text, at| text + &format!(", c{at} int default {at}"));
    server.sql(&format!("create table wide (id int primary key{columns}) engine=aria; insert into wide (id) values (1)"));
    let streams = "ingest:\n  from: shop\n  streams:\n    odd: { stream: Odd Name, mode: replace }\n    seen: { stream: subak.seen, mode: replace }\n    wide: { stream: wide, mode: replace }\n    \
                   joined: { sql: 'select a.id, b.`select` as s from `Odd Name` a join seen b on b.id = a.id', mode: replace }\n    part: { stream: Odd Name, where: '`select` = 2', primary_key: id, cursor: id }\n";
    let sandbox = with_server(&server, &[("assets/bronze/all.yml", streams)]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        read(&sandbox, "select id, \"select\", \"a`b\", \"Ünï\", hidden, twice, stored from bronze.odd"),
        ["1,2,x,y,7,4,6"]
    );
    assert_eq!(read(&sandbox, "select * from bronze.seen"), ["1,2"]);
    assert_eq!(read(&sandbox, "select c0, c1099 from bronze.wide"), ["0,1099"]);
    assert_eq!(read(&sandbox, "select * from bronze.joined"), ["1,2"]);
    assert_eq!(read(&sandbox, "select id, hidden from bronze.part"), ["1,7"]);
    let found = sandbox.run(&["connection", "discover", "shop"]);
    assert!(found.code != Some(0) || found.out.contains("subak.seen"), "{}", found.out);
}

#[test]
fn cursors_of_every_type_find_what_is_new() {
    let server = MariaDb::start();
    server.sql(
        "set sql_mode = ''; create table events (id bigint unsigned primary key, at timestamp(6) null, seen datetime(3), price decimal(20,4), tag varchar(5));
         insert into events values (1, '2024-01-01 00:00:00.000001', '2024-01-01 00:00:00.001', 1.0001, 'a'), (2, '2024-06-01 00:00:00', '0000-00-00', 99, 'b'),
           (18446744073709551614, '2024-03-31 02:30:00', '2024-03-31 02:30:00', 100.5, 'c'), (4, null, null, null, null)",
    );
    for (cursor, next) in [
        ("id", "(18446744073709551615, '2025-01-01', '2025-01-01', 101, 'd')"),
        ("at", "(5, '2024-06-01 00:00:00.000001', '2025-01-01', 101, 'd')"),
        ("seen", "(5, '2025-01-01', '2024-03-31 02:30:00.001', 101, 'd')"),
        ("price", "(5, '2025-01-01', '2025-01-01', 100.5001, 'd')"),
    ] {
        let stream =
            format!("ingest:\n  from: shop\n  streams:\n    events: {{ stream: events, primary_key: id, cursor: {cursor} }}\n");
        let sandbox = with_server(&server, &[("assets/bronze/all.yml", &stream)]);
        sandbox.run(&["run"]).expect(0);
        let again = sandbox.run(&["run"]).expect(0);
        assert!(
            again.err.contains("every row was there already") || again.err.contains("no new rows"),
            "{cursor}: {}",
            again.err
        );
        server.sql(&format!("insert into events values {next}"));
        let found = sandbox.run(&["run"]).expect(0);
        assert!(found.out.contains("1 rows written") || found.out.contains("1 row written"), "{cursor}: {}", found.out);
        assert_eq!(read(&sandbox, "select count(*) from bronze.events"), ["5"], "{cursor}");
        server.sql("delete from events where tag = 'd'");
    }
}

#[test]
fn errors_say_what_to_do() {
    let mut server = MariaDb::start();
    server.sql(
        "create table t (id int primary key); insert into t values (1); create table secret (id int, salary int);
         create user clerk@'%' identified by 'clerk'; grant select on subak.t to clerk@'%'; grant select (id) on subak.secret to clerk@'%'",
    );
    let stream = |name: &str| format!("ingest:\n  from: shop\n  streams:\n    t: {{ stream: {name}, mode: replace }}\n");
    let sandbox = with_server(&server, &[("assets/bronze/t.yml", &stream("nowhere"))]);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let fails = |words: &[&str]| {
        let failed = sandbox.run(&["run"]);
        assert_ne!(failed.code, Some(0), "{words:?}");
        for word in words {
            assert!(failed.err.contains(word), "{word}: {}", failed.err);
        }
        assert!(!failed.err.contains(MARIADB_PASSWORD), "{}", failed.err);
    };
    fails(&["there is no stream `nowhere`"]);
    set_secret(&sandbox, "shop_password", "wrong");
    fails(&["Access denied for user 'subak'", "correct `user:` and `password:`"]);
    set_secret(&sandbox, "shop_password", MARIADB_PASSWORD);
    sandbox.write("subak.yml", &config.replace("database: subak", "database: nothing"));
    fails(&["Unknown database 'nothing'", "correct `database:`"]);
    sandbox.write("subak.yml", &config.replace("host: 127.0.0.1", "host: no.such.host.invalid"));
    fails(&["cannot connect to `subak` on no.such.host.invalid", "are `host:` and `port:` right?"]);
    sandbox.write("subak.yml", &config.replace(&format!("user: {MARIADB_USER}"), "user: clerk"));
    set_secret(&sandbox, "shop_password", "clerk");
    sandbox.write("assets/bronze/t.yml", &stream("t"));
    sandbox.run(&["run"]).expect(0);
    // A column that may not be seen is an error, and no table with a column less.
    sandbox.write("assets/bronze/t.yml", &stream("secret"));
    fails(&["SELECT command denied"]);
    sandbox.write("assets/bronze/t.yml", &stream("t"));
    server.kill();
    fails(&["cannot connect to `subak` on 127.0.0.1", "is the server running"]);
    assert_eq!(read(&sandbox, "select * from bronze.t"), ["1"]);
    server.resume();
}

#[test]
fn connections_are_encrypted_as_asked() {
    let mut server = MariaDb::start();
    server.sql("create table t (id int); insert into t values (1)");
    let sandbox = with_server(
        &server,
        &[("assets/bronze/t.yml", "ingest:\n  from: shop\n  streams:\n    t: { stream: t, mode: replace }\n")],
    );
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    let ask = |mode: &str| {
        sandbox.write("subak.yml", &config.replace("type: mysql,", &format!("type: mysql, {mode},")));
        sandbox.run(&["run"])
    };
    ask("sslmode: disable").expect(0);
    ask("sslmode: prefer").expect(0);
    let refused = ask("sslmode: require");
    assert!(refused.code != Some(0) && refused.err.contains("refuses an encrypted connection"), "{}", refused.err);
    let root = server.make_certificate();
    server.kill();
    server.resume();
    ask("sslmode: prefer").expect(0);
    server.sql("alter user subak@'%' require ssl");
    let refused = ask("sslmode: disable");
    assert_ne!(refused.code, Some(0), "the server wants encryption");
    ask("sslmode: prefer").expect(0);
    ask("sslmode: require").expect(0);
    let refused = ask("sslmode: verify-full");
    assert!(refused.code != Some(0) && refused.err.contains("refuses an encrypted connection"), "{}", refused.err);
    ask(&format!("sslmode: verify-full, sslrootcert: {}", root.display())).expect(0);
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_the_table_as_it_was() {
    let mut server = MariaDb::start();
    server.sql("create table big (id int primary key, note varchar(200)); insert into big select seq, repeat('x', 150) from seq_1_to_300000");
    let sandbox = with_server(
        &server,
        &[("assets/bronze/t.yml", "ingest:\n  from: shop\n  streams:\n    big: { stream: big, mode: replace }\n")],
    );
    let mut run = sandbox.command(&["run", "--quiet"]).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    for _ in 0..1000 {
        let is_reading = server.sql(
            "select count(*) from information_schema.processlist where info like '%`big`%' and info not like '%processlist%'",
        );
        if is_reading != [[Some("0".to_owned())]] {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server.kill();
    drop(run.wait());
    server.resume();
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        read(&sandbox, "select count(*), count(distinct id), sum(length(note)) from bronze.big"),
        ["300000,300000,45000000"]
    );
}

#[test]
fn ranges_of_a_table_are_of_one_state() {
    let server = MariaDb::start();
    server.sql(
        "create table accounts (id bigint not null, part int not null, amount int, note text, primary key (id, part)); \
         insert into accounts select cast(seq as signed) * 3 - 30000, seq % 5, 100, repeat('x', 200) from seq_1_to_20000; \
         create table named (name varchar(20) primary key); create table none (id int unsigned primary key); \
         create user few identified by 'few'; grant select on subak.* to few",
    );
    let ingest = "ingest:\n  from: shop\n  defaults: { ranges: 4, mode: replace }\n  streams:\n    accounts: {}\n    none: {}\n    picked: { stream: accounts, select: [amount, id] }\n    \
                  ones: { stream: accounts, where: 'part = 2', primary_key: [id, part], cursor: id, mode: merge }\n";
    let sandbox = with_server(&server, &[("assets/raw.yml", ingest)]);
    // Every state of the table has the same sum.
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                at = (at * 7919 + 13) % 20_000;
                let (one, other) = ((at + 1) * 3 - 30_000, (20_000 - at) * 3 - 30_000);
                server.sql(&format!("begin; update accounts set amount = amount - 5 where id = {one}; update accounts set amount = amount + 5 where id = {other}; commit"));
            }
        });
        for _ in 0..4 {
            sandbox.run(&["run"]).expect(0);
            assert_eq!(read(&sandbox, "select count(*), count(distinct id), sum(amount) from accounts"), ["20000,20000,2000000"]);
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(read(&sandbox, "select count(*), max(id) from ones"), ["4000,29991"]);
    assert_eq!(read(&sandbox, "select count(*), sum(amount), max(id) from picked"), ["20000,2000000,30000"]);
    let columns = "select string_agg(column_name, ' ' order by ordinal_position) from information_schema.columns where table_name = 'picked'";
    assert_eq!(read(&sandbox, columns), ["amount id"]);
    assert_eq!(read(&sandbox, "select count(*) from none"), ["0"]);
    server.sql("insert into accounts values (99999, 2, 1, null), (-99999, 2, 1, null)");
    let again = sandbox.run(&["run", "ones"]).expect(0);
    assert!(again.err.contains("written 1"), "the bound of the cursor holds in every range: {}", again.err);

    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    for (stream, user, words) in [
        ("named", MARIADB_USER, "a primary key that begins with a whole number, and this is none"),
        ("accounts", "few", "`ranges` needs the right `lock tables`"),
    ] {
        set_secret(&sandbox, "shop_password", if user == "few" { "few" } else { MARIADB_PASSWORD });
        sandbox.write("subak.yml", &config.replace(&format!("user: {MARIADB_USER}"), &format!("user: {user}")));
        sandbox.write(
            "assets/raw.yml",
            &format!("ingest:\n  from: shop\n  streams:\n    {stream}: {{ ranges: 4, mode: replace }}\n"),
        );
        let refused = sandbox.run(&["run"]);
        assert!(refused.code != Some(0) && refused.err.contains(words), "{words}: {}", refused.err);
    }
}
