//! The example project `library` over five days, against what the Airflow project that it follows makes of them, on DuckDB and on PostgreSQL.

use std::path::{Path, PathBuf};

use subak_testkit::{POSTGRES_PASSWORD, POSTGRES_USER, Postgres, Sandbox, Table};

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

/// The tables of the warehouse, with the files that say what is to be in them.
const TABLES: [(&str, &str, &str); 3] = [
    ("books", "id, title, author_name, genre, release_year, stock, created_at", "books"),
    ("member", "id, name, age, created_at", "member"),
    ("rent", "id, book_id, library_member_id, rent_date, return_date, created_at", "rent"),
];

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The example, with what runs it in this test.
struct Library {
    sandbox: Sandbox,
    server: Option<Postgres>,
}

impl Library {
    fn new(server: Option<Postgres>) -> Self {
        let sandbox = Sandbox::new(BINARY, &[]);
        sandbox.copy(&root("../../examples/library"), ".");
        Self { sandbox, server }
    }

    /// Statements on the application's database, as its own users make them.
    fn app(&self, sql: &str) {
        match &self.server {
            Some(server) => drop(server.sql(sql)),
            None => {
                let app = duckdb::Connection::open(self.sandbox.path().join("app.duckdb")).expect("open");
                app.execute_batch(sql).expect("statements");
            }
        }
    }

    /// A run of a job at a time, to its end. What it says, a line for each step.
    fn run(&self, job: &str, as_of: &str) -> String {
        let mut command = self.sandbox.command(&["run", "--job", job, "--as-of", as_of]);
        if let Some(server) = &self.server {
            command.args(["--profile", "postgres"]);
            command.env("APP_PORT", server.port().to_string()).env("APP_USER", POSTGRES_USER).env("APP_DATABASE", "subak");
            command.env("WAREHOUSE_DATABASE", "subak").env("SUBAK_SECRET_APP_PASSWORD", POSTGRES_PASSWORD);
        }
        self.sandbox.finish(&mut command).expect(0).err
    }

    fn read(&self, table: &str, columns: &str) -> Table {
        let header: Vec<String> = columns.split(", ").map(str::to_owned).collect();
        let texts: Vec<String> = header.iter().map(|column| format!("cast({column} as text)")).collect();
        let sql = format!("select {} from {table}", texts.join(", "));
        let rows = match &self.server {
            Some(server) => server.sql(&sql),
            None => {
                let warehouse = duckdb::Connection::open(self.sandbox.path().join("warehouse.duckdb")).expect("open");
                let mut statement = warehouse.prepare(&sql).expect("a query");
                let cell = |row: &duckdb::Row<'_>, at: usize| row.get::<_, Option<String>>(at);
                let rows = statement.query_map([], |row| (0..header.len()).map(|at| cell(row, at)).collect()).expect("rows");
                rows.collect::<Result<_, _>>().expect("texts")
            }
        };
        Table { header, rows }
    }

    #[track_caller]
    fn assert_table(&self, table: &str, columns: &str, expected: &str) {
        let expected = Table::read(&root("tests/parity/s004_library/expected").join(expected));
        if let Err(difference) = self.read(table, columns).compare(&expected) {
            panic!("{table} after {difference}");
        }
    }
}

/// S4-9 to S4-19: nine runs over five days give the tables of the original; the same window again changes nothing; a day without rows skips the
/// staging and the merge.
fn follows_the_original(library: &Library) {
    let plan = std::fs::read(root("tests/parity/s004_library/input/plan.json")).expect("the plan");
    let plan: serde_json::Value = serde_json::from_slice(&plan).expect("JSON");
    let mut number = 0;
    for step in plan["steps"].as_array().expect("steps") {
        if let Some(file) = step["sql"].as_str() {
            let path = root("tests/parity/s004_library/input").join(file);
            library.app(&std::fs::read_to_string(path).expect("statements"));
            continue;
        }
        number += 1;
        let said = library.run("library_to_warehouse", step["run"].as_str().expect("a time"));
        // S4-10, S4-11: the schema is made once, and what stands behind the skipped task runs all the same.
        let skipped = said.contains("skipped task:create_dataset");
        assert_eq!(skipped, number > 1, "run {number}: {said}");
        assert!(said.contains("done bronze.books"), "run {number}: {said}");
        // S4-12: a skipped staging skips the merge, by the usual rule.
        let is_empty = said.contains("skipped staging.books") && said.contains("skipped library.books");
        assert_eq!(is_empty, number == 9, "run {number}: {said}");
        // Even runs change nothing.
        let same = if number % 2 == 0 { number - 1 } else { number };
        for (table, columns, file) in TABLES {
            library.assert_table(&format!("staging.{table}"), columns, &format!("run{same}_stg_{file}.csv"));
            library.assert_table(&format!("library.{table}"), columns, &format!("run{same}_{file}.csv"));
        }
    }
    assert_eq!(number, 9);
}

/// S4-3 to S4-7: ids go on from the highest one, whatever was deleted; no rent names what is not there.
fn makes_rows(library: &Library) {
    library.run("generate", "2025-02-01 09:15:38");
    library.app("delete from books_table where id < 20; delete from library_member where id = 20");
    library.run("generate", "2025-02-02 10:15:38");
    library.run("library_to_warehouse", "2025-02-02 00:15:00");
    let said = library.run("library_to_warehouse", "2025-02-03 00:15:00");
    assert!(said.contains("done library.rent"), "{said}");
    let count = |sql: &str| library.read(&format!("({sql}) as found"), "n").rows[0][0].clone().unwrap_or_default();
    assert_eq!(count("select max(id) as n from library.books"), "50");
    assert_eq!(count("select count(*) as n from library.rent"), "20");
    let dangling = "select count(*) as n from library.rent r where r.id > 10 and not exists (select 1 from bronze.books b where b.id = r.book_id)";
    assert_eq!(count(dangling), "0");
}

#[test]
fn s4_the_library_on_duckdb() {
    follows_the_original(&Library::new(None));
    makes_rows(&Library::new(None));
}

#[test]
fn s4_the_library_on_postgres() {
    follows_the_original(&Library::new(Some(Postgres::start())));
    makes_rows(&Library::new(Some(Postgres::start())));
}
