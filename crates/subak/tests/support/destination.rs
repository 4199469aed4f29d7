//! What every database must do as the destination of loads and as a warehouse. Results are read back with the server's own client.

use subak_testkit::{Proxy, Sandbox};

use crate::network;
use crate::secret::set_secret;
use crate::warehouse::project;

/// A server under test.
pub(crate) trait Destination {
    /// The connection's name.
    const NAME: &str;
    /// Points at which only this kind of server can be left.
    const POINTS: &[&str] = &[];

    /// The connection as YAML, with the password as the secret `NAME_password`.
    fn connection(&self) -> String;
    fn password(&self) -> &str;
    fn listens_at(&self) -> u16;
    /// What the server's own client reads.
    fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>>;
    /// Drops what loads have left.
    fn forget(&self);
    /// How many stages there are.
    fn stages(&self) -> String;
    fn has_staged_rows(&self) -> bool;
    fn kill_it(&mut self);
    fn resume_it(&mut self);
}

/// A project with a DuckDB warehouse and the server.
pub(crate) fn with_server<D: Destination>(server: &D, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = project(files);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &format!("{config}  {}: {}\n", D::NAME, server.connection()));
    set_secret(&sandbox, &format!("{}_password", D::NAME), server.password());
    sandbox
}

/// The rows as lines with commas, NULL as `NULL`.
pub(crate) fn lines(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let line = |row: Vec<Option<String>>| {
        row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>().join(",")
    };
    rows.into_iter().map(line).collect()
}

/// Orders, and what is made of them at the server.
const SHOP: &[(&str, &str)] = &[
    (
        "assets/bronze/files.yml",
        "ingest:\n  from: files\n  to: SERVER\n  defaults: { on_reject: quarantine }\n  streams:\n    orders:\n      path: orders.csv\n      primary_key: id\n      \
                 columns: { id: bigint, amount: 'decimal(18,2)', at: datetime, email: text }\n      checks:\n        - unique: id\n        - not_null: [amount]\n        \
                 - accepted_values: { column: country, values: [id, sg] }\n        - range: { column: amount, min: 0, max: 1000 }\n        \
                 - pattern: { column: email, matches: '[a-z]+@[a-z.]+' }\n        - relationships: { column: country, to: bronze.countries.code }\n        \
                 - row_count: { min: 1 }\n        - freshness: { column: at, max_age: 40000d }\n    countries: { path: countries.csv, mode: replace }\n",
    ),
    ("input/countries.csv", "code,name\nid,Indonesia\nsg,Singapore\n"),
    (
        "input/orders.csv",
        "id,amount,at,country,email\n1,10.50,2025-01-01 10:00:00,id,a@b.c\n2,20.00,2025-01-01 11:00:00,sg,d@e.f\nx,1,2025-01-01 11:00:00,sg,g@h.i\n",
    ),
    (
        "assets/gold/per_day.sql",
        "/* subak\non: SERVER\nstored_as: incremental\nmode: merge\nunique_key: day\nchecks: [ { unique: day }, { not_null: day } ]\n*/\n\
                 select cast(o.at as date) as day, count(*) as n, sum(o.amount) as amount from bronze.orders as o group by 1\n",
    ),
    (
        "assets/gold/countries.sql",
        "/* subak\non: SERVER\nstored_as: table\nsurrogate_key: { column: country_key, of: code }\n*/\nselect code, name from bronze.countries\n",
    ),
    (
        "assets/gold/orders.sql",
        "/* subak\non: SERVER\n*/\nselect o.id, c.country_key from bronze.orders as o join gold.countries as c on c.code = o.country\n",
    ),
    (
        "assets/gold/history.sql",
        "/* subak\non: SERVER\nstored_as: snapshot\nunique_key: id\nhistory: { updated_at: at }\n*/\nselect id, amount, at from bronze.orders\n",
    ),
];

/// Builds a shop out of files, with checks and keys, twice and with changes. Returns its project.
pub(crate) fn builds_a_shop<D: Destination>(server: &D) -> Sandbox {
    let files: Vec<(&str, String)> = SHOP.iter().map(|(path, text)| (*path, text.replace("SERVER", D::NAME))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let sandbox = with_server(server, &files);
    let first = sandbox.run(&["run"]).expect(0);
    assert!(first.err.contains("read 3, written 2, rejected 1"), "{}", first.err);
    assert_eq!(lines(server.rows("select * from gold.per_day")), ["2025-01-01,2,30.50"]);
    assert_eq!(lines(server.rows("select code, country_key from gold.countries order by 2")), ["NULL,-1", "id,1", "sg,2"]);
    assert_eq!(lines(server.rows("select * from gold.orders order by id")), ["1,1", "2,2"]);
    assert_eq!(lines(server.rows("select line, status from bronze.orders__rejects")), ["4,open"]);
    let again = sandbox.run(&["run"]).expect(0);
    assert!(again.out.contains("0 rows written"), "{}", again.out);
    sandbox.write(
        "input/orders.csv",
        "id,amount,at,country,email\n1,11.50,2025-01-02 10:00:00,id,a@b.c\n3,5,2025-01-03 00:00:00,id,a@b.c\n",
    );
    sandbox.run(&["run"]).expect(0);
    assert_eq!(
        lines(server.rows("select day, n, amount from gold.per_day order by day")),
        ["2025-01-01,1,20.00", "2025-01-02,1,11.50", "2025-01-03,1,5.00"]
    );
    assert_eq!(
        lines(server.rows("select id, amount, valid_from, valid_to, case when is_current then 't' else 'f' end from gold.history order by id, valid_from")),
        [
            "1,10.50,2025-01-01 10:00:00,2025-01-02 10:00:00,f",
            "1,11.50,2025-01-02 10:00:00,NULL,t",
            "2,20.00,2025-01-01 11:00:00,NULL,t",
            "3,5.00,2025-01-03 00:00:00,NULL,t"
        ]
    );
    // Each check finds what breaks it, and readers keep what they have.
    for (row, check) in [
        ("9,5000,2025-01-04 00:00:00,id,a@b.c", "range(amount)"),
        ("9,5,2025-01-04 00:00:00,my,a@b.c", "accepted_values(country)"),
        ("9,5,2025-01-04 00:00:00,id,A@b.c", "pattern(email)"),
        ("9,,2025-01-04 00:00:00,id,a@b.c", "not_null(amount)"),
    ] {
        sandbox.write("input/orders.csv", &format!("id,amount,at,country,email\n{row}\n"));
        let failed = sandbox.run(&["run", "bronze.orders"]).expect(1);
        assert!(failed.err.contains(check) && failed.err.contains("id=9"), "{check}: {}", failed.err);
        assert_eq!(lines(server.rows("select count(*) from bronze.orders where id = 9")), ["0"], "{check}");
    }
    let asked =
        sandbox.run(&["query", "--on", D::NAME, "select id, amount from bronze.orders order by id", "-o", "csv"]).expect(0);
    assert_eq!(asked.out.trim(), "id,amount\n1,11.50\n2,20.00\n3,5.00");
    sandbox
}

const LOADS: &str = "ingest:\n  from: files\n  to: SERVER\n  streams:\n    merged: { path: rows.csv, primary_key: id, columns: { id: bigint } }\n    \
                     replaced: { path: rows.csv, mode: replace, columns: { id: bigint } }\n    added: { path: 'rows*.csv', mode: append, columns: { id: bigint }, on_reject: quarantine }\n";

fn loaded(server: &impl Destination) -> Vec<String> {
    let tables = ["loads.merged", "loads.replaced", "loads.added"];
    let mut all: Vec<String> =
        tables.iter().flat_map(|table| lines(server.rows(&format!("select * from {table} order by id")))).collect();
    all.extend(lines(server.rows("select reason, line from loads.added__rejects order by 1, 2")));
    all
}

/// Loads survive kills at every point of a run, and a server that dies in the middle of one.
pub(crate) fn survives_kills<D: Destination>(server: &mut D) {
    let all = LOADS.replace("SERVER", D::NAME);
    let (first, second) = ("id,note\n1,a\n2,b\n", "id,note\n1,A\n3,c\n");
    let mut expected: Option<[Vec<String>; 2]> = None;
    for point in [""].iter().chain(subak_connect::crash::POINTS).chain(D::POINTS) {
        server.forget();
        let sandbox = with_server(server, &[("assets/loads/all.yml", &all)]);
        let mut found: Vec<Vec<String>> = Vec::new();
        for (text, extra) in [(first, "rows1.csv"), (second, "rows2.csv")] {
            sandbox.write("input/rows.csv", text);
            sandbox.write(&format!("input/{extra}"), &format!("id,note\n{},{extra}\nx,bad\n", extra.len()));
            std::fs::remove_file(sandbox.path().join("input/rows.csv")).expect("gone");
            sandbox.write("input/rows.csv", text);
            if !point.is_empty() {
                for _ in 0..2 {
                    drop(sandbox.command(&["run"]).env("SUBAK_CRASH_AT", point).output().expect("starts"));
                }
            }
            let ran = sandbox.run(&["run"]);
            // A known file with other content is refused by `append`; the others are loaded.
            assert!(ran.code == Some(0) || ran.err.contains("was loaded before"), "{}", ran.err);
            found.push(loaded(server));
        }
        let found: [Vec<String>; 2] = found.try_into().expect("two parts");
        match &expected {
            None => expected = Some(found),
            Some(expected) => assert_eq!(&found, expected, "after kills at `{point}`"),
        }
        assert_eq!(server.stages(), "0", "stages after `{point}`");
    }
    // The server goes away in the middle of a load, and comes back.
    let sandbox = with_server(
        server,
        &[(
            "assets/loads/big.yml",
            &format!("ingest:\n  from: files\n  to: {}\n  streams:\n    big: {{ path: big.csv, mode: replace }}\n", D::NAME),
        )],
    );
    let rows = (0..400_000).fold("id,note\n".to_owned(), |text, id| text + &format!("{id},a note that takes up some room\n"));
    sandbox.write("input/big.csv", &rows);
    let mut run = sandbox.command(&["run", "--quiet"]).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    for _ in 0..500 {
        if server.has_staged_rows() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    server.kill_it();
    drop(run.wait());
    server.resume_it();
    sandbox.run(&["run"]).expect(0);
    assert_eq!(lines(server.rows("select count(*), count(distinct id) from loads.big")), ["400000,400000"]);
    assert_eq!(server.stages(), "0");
}

/// Loads something, then more of it over a network to which something happens behind the n-th message, for every `step`th n: what the server did
/// is done, and nobody hears of it.
pub(crate) fn survives<D: Destination>(server: &D, step: usize, defaults: &str, happen: impl Fn(&Proxy, usize)) {
    let all = LOADS.replace("SERVER", D::NAME);
    let proxy = Proxy::start(server.listens_at());
    let prepare = |_| {
        server.forget();
        let sandbox = with_server(server, &[("assets/loads/all.yml", &all)]);
        let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
        let through = config.replace(&format!("port: {}", server.listens_at()), &format!("port: {}", proxy.port()));
        sandbox.write("subak.yml", &format!("{through}defaults: {defaults}\n"));
        sandbox.write("input/rows.csv", "id,note\n1,a\n2,b\n");
        sandbox.run(&["run"]).expect(0);
        sandbox.write("input/rows.csv", "id,note\n1,A\n3,c\n");
        std::fs::rename(sandbox.path().join("input/rows.csv"), sandbox.path().join("input/rows1.csv")).expect("renamed");
        sandbox.write("input/rows2.csv", "id,note\n9,z\nx,bad\n");
        sandbox.write("assets/loads/all.yml", &all.replace("path: rows.csv", "path: rows1.csv"));
        sandbox
    };
    let found = |sandbox: &Sandbox, piece| {
        if server.stages() != "0" {
            // What the server still did for a connection that was cut goes with the next run.
            sandbox.run(&["run"]).expect(0);
        }
        assert_eq!(server.stages(), "0", "stages, behind message {piece}");
        loaded(server)
    };
    let count = network::survives(&proxy, step, happen, prepare, found);
    assert!(count > 30, "a run has many messages: {count}");
}

/// A query by days of its own: each is replaced by itself, in the types of the server.
pub(crate) fn replaces_days<D: Destination>(server: &D) {
    let raw = format!(
        "ingest:\n  from: files\n  to: {}\n  streams:\n    raw: {{ path: raw.csv, mode: replace, columns: {{ at: datetime, amount: bigint }} }}\n",
        D::NAME
    );
    let daily = format!(
        "/* subak\non: {}\npartition: {{ daily: day_at, start: 2024-01-01 }}\n*/\nselect r.at as day_at, sum(r.amount) as amount from loads.raw as r \
         where r.at >= {{{{ partition.start }}}} and r.at < {{{{ partition.end }}}} group by r.at\n",
        D::NAME
    );
    let sandbox = with_server(server, &[("assets/loads/raw.yml", &raw), ("assets/loads/daily.sql", &daily)]);
    sandbox.write("input/raw.csv", "at,amount\n2024-01-01 00:00:00,1\n2024-01-01 23:59:59,2\n2024-01-02 00:00:00,4\n");
    sandbox.run(&["run", "--as-of", "2024-01-03"]).expect(0);
    let days = || lines(server.rows("select day_at, amount from loads.daily order by 1"));
    let [first, last, next] = days().try_into().expect("three rows");
    assert!(
        first.contains("2024-01-01 00:00:00") && last.contains("2024-01-01 23:59:59") && next.contains("2024-01-02 00:00:00")
    );
    sandbox.write("input/raw.csv", "at,amount\n2024-01-01 23:59:59,2\n2024-01-02 00:00:00,9\n");
    sandbox.run(&["run", "loads.raw", "--as-of", "2024-01-03"]).expect(0);
    sandbox.run(&["run", "loads.daily", "--partition", "2024-01-01", "--as-of", "2024-01-03"]).expect(0);
    assert_eq!(days(), [last, next]);
}
