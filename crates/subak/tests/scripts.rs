//! Assets that programs make: rows out of files, several from one start, partitions, Pipes, crashes, tests.

use subak_testkit::Sandbox;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const PROJECT: &str = "project: scripts\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n";

const SALES: &str = "/* subak\nstored_as: table\n*/\nselect * from (values (1, 'Ana', 10.50), (2, 'Budi', 20.25), (3, 'Ana', 4.00)) as t (id, customer, amount)\n";

/// Reads CSV, writes CSV, knows nothing of Subak but two folders.
const TOTALS: &str = "#!/usr/bin/env python3
# /// subak
# inputs: silver.sales
# input_format: csv
# columns: { total: 'decimal(18,2)', sales: bigint }
# checks: [ { unique: customer }, { not_null: total } ]
# description: What each customer has bought.
# ///
import csv, os, pathlib
from decimal import Decimal

totals = {}
with open(pathlib.Path(os.environ['SUBAK_INPUTS']) / 'silver.sales.csv') as file:
    for row in csv.DictReader(file):
        total, count = totals.get(row['customer'], (Decimal(0), 0))
        totals[row['customer']] = (total + Decimal(row['amount']), count + 1)
with open(pathlib.Path(os.environ['SUBAK_OUTPUT']) / 'totals.csv', 'w') as file:
    writer = csv.writer(file)
    writer.writerow(['customer', 'total', 'sales'])
    writer.writerows([name, total, count] for name, (total, count) in sorted(totals.items()))
print('wrote', len(totals), 'customers')
";

fn sandbox(files: &[(&str, &str)]) -> Sandbox {
    Sandbox::new(BINARY, &[&[("subak.yml", PROJECT), ("assets/silver/sales.sql", SALES)], files].concat())
}

fn rows(sandbox: &Sandbox, sql: &str) -> String {
    sandbox.run(&["query", sql, "--output", "csv"]).expect(0).out.trim_end().to_owned()
}

fn started(sandbox: &Sandbox, file: &str) -> usize {
    std::fs::read_to_string(sandbox.path().join(file)).unwrap_or_default().lines().count()
}

/// Rows that a program writes are a table like any other: typed, checked, accounted for, fresh until something changes.
#[test]
fn a_program_makes_a_table() {
    let reads = "select customer, total * 2 as twice from gold.totals\n";
    let sandbox = sandbox(&[("assets/gold/totals.py", TOTALS), ("assets/gold/twice.sql", reads)]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(rows(&sandbox, "select * from gold.totals order by 1"), "customer,total,sales\nAna,14.50,2\nBudi,20.25,1");
    assert_eq!(rows(&sandbox, "select * from gold.twice order by 1"), "customer,twice\nAna,29.00\nBudi,40.50");
    assert!(sandbox.run(&["run"]).expect(0).err.contains("nothing to do"));
    let logs = sandbox.run(&["run", "logs"]).expect(0);
    assert!(logs.out.contains("wrote 2 customers"), "{}", logs.out);
    let shown = sandbox.run(&["show", "gold.totals"]).expect(0);
    assert!(shown.out.contains("the program `assets/gold/totals.py`") && shown.out.contains("silver.sales"), "{}", shown.out);
    // A change of the program, or of what it reads, makes it due.
    sandbox.write("assets/gold/totals.py", &TOTALS.replace("'wrote'", "'made'"));
    assert!(sandbox.run(&["plan"]).expect(0).out.contains("its definition changed"));
    sandbox.run(&["run"]).expect(0);
    sandbox.write("assets/silver/sales.sql", &SALES.replace("10.50", "11.50"));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(rows(&sandbox, "select total from gold.totals order by 1"), "total\n15.50\n20.25");
    let left: Vec<_> =
        sandbox.path().join(".subak/tmp").read_dir().expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["duckdb"], "what programs are given goes");
}

/// A failed check, a program that fails, one that writes nothing: readers see the table as it was.
#[test]
fn what_fails_is_not_published() {
    let sandbox = sandbox(&[("assets/gold/totals.py", TOTALS)]);
    sandbox.run(&["run"]).expect(0);
    let before = rows(&sandbox, "select * from gold.totals order by 1");
    let cases = [
        (TOTALS.replace("sorted(totals.items())", "sorted(totals.items()) * 2"), "`unique(customer)`"),
        (TOTALS.replace("print('wrote'", "raise ValueError('no luck')\nprint('wrote'"), "no luck"),
        (TOTALS.replace("'SUBAK_OUTPUT'", "'SUBAK_INPUTS'"), "$SUBAK_OUTPUT/totals.parquet"),
        (TOTALS.replace("[name, total,", "[name, 'much',"), "much"),
    ];
    for (text, expected) in cases {
        sandbox.write("assets/gold/totals.py", &text);
        let failed = sandbox.run(&["run", "gold.totals"]).expect(1);
        assert!(failed.err.contains(expected), "{expected}: {}", failed.err);
        assert_eq!(rows(&sandbox, "select * from gold.totals order by 1"), before);
    }
}

const SEVERAL: &str = "script:
  run: |
    echo \"$SUBAK_ASSETS\" >> starts
    for asset in $SUBAK_ASSETS; do printf 'id,name\\n1,%s\\n' $asset > $SUBAK_OUTPUT/$asset.csv; done
  inputs: silver.sales
  assets:
    one: { primary_key: id, mode: merge, columns: { id: integer } }
    two:
    three: { checks: [ { not_null: name } ] }
";

/// S3-5: several assets of one program: one start for those that are asked for, each a step and a table of its own.
#[test]
fn one_start_makes_several_assets() {
    let sandbox = sandbox(&[("assets/gold/several.yml", SEVERAL), ("assets/gold/after.sql", "select name from gold.two\n")]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(started(&sandbox, "starts"), 1);
    assert_eq!(
        rows(&sandbox, "select name from gold.one union all select name from gold.after order by 1"),
        "name\ngold.one\ngold.two"
    );
    // A part of them.
    sandbox.run(&["run", "gold.one", "gold.three"]).expect(0);
    let text = std::fs::read_to_string(sandbox.path().join("starts")).expect("starts");
    assert_eq!(text.lines().last(), Some("gold.one gold.three"));
    // With steps one after the other it is one start too.
    sandbox.run(&["run", "gold.one", "gold.two", "gold.three", "--parallel", "1"]).expect(0);
    assert_eq!(started(&sandbox, "starts"), 3);
    // What one of them did not get fails alone; a retry asks for what is left.
    sandbox.write(
        "assets/gold/several.yml",
        &SEVERAL.replace("$SUBAK_OUTPUT/$asset.csv; done", "$SUBAK_OUTPUT/$asset.csv; done; rm -f $SUBAK_OUTPUT/gold.two.csv"),
    );
    let failed = sandbox.run(&["run", "gold.one", "gold.two", "gold.three"]).expect(1);
    assert!(failed.err.contains("wrote no file for `gold.two`"), "{}", failed.err);
    assert!(failed.out.contains("2 steps done"), "{}", failed.out);
}

/// Partitions: the program is told which one, and its rows take the place of those of that partition.
#[test]
fn a_program_makes_partitions() {
    let daily = "# /// subak
# partition: { daily: day, start: 2025-01-01, end: 2025-01-04 }
# columns: { day: date, hours: integer }
# ///
echo \"$SUBAK_PARTITION $SUBAK_PARTITION_START $SUBAK_PARTITION_END\" >> starts
printf 'day,hours\\n%s,24\\n' $SUBAK_PARTITION > $SUBAK_OUTPUT/days.csv
";
    let sandbox = sandbox(&[("assets/gold/days.sh", daily)]);
    sandbox.run(&["run", "gold.days"]).expect(0);
    assert_eq!(rows(&sandbox, "select * from gold.days order by 1"), "day,hours\n2025-01-01,24\n2025-01-02,24\n2025-01-03,24");
    let text = std::fs::read_to_string(sandbox.path().join("starts")).expect("starts");
    assert!(text.contains("2025-01-02 2025-01-02 2025-01-03"), "{text}");
    sandbox.run(&["run", "gold.days", "--partition", "2025-01-02"]).expect(0);
    assert_eq!(rows(&sandbox, "select count(*) as days from gold.days"), "days\n3");
    sandbox.write("assets/gold/days.sh", &daily.replace("$SUBAK_PARTITION > ", "2025-02-01 > "));
    let failed = sandbox.run(&["run", "gold.days", "--partition", "2025-01-02"]).expect(1);
    assert!(failed.err.contains("1 rows do not belong to partition `2025-01-02`"), "{}", failed.err);
}

/// Keys as partitions.
#[test]
fn a_program_makes_partitions_of_keys() {
    let cities = "# /// subak
# partition: { static: [jkt, sby], column: city }
# ///
printf 'city,n\\n%s,1\\n' $SUBAK_PARTITION > $SUBAK_OUTPUT/cities.csv
";
    let sandbox = sandbox(&[("assets/gold/cities.sh", cities)]);
    sandbox.run(&["run", "gold.cities"]).expect(0);
    assert_eq!(rows(&sandbox, "select city from gold.cities order by 1"), "city\njkt\nsby");
}

/// A program that reports a check of an asset that failed, in the words of Pipes.
const REPORT: &str = "import base64, json, os, zlib
path = json.loads(zlib.decompress(base64.b64decode(os.environ['DAGSTER_PIPES_MESSAGES'])))['path']
params = {'asset_key': 'KEY', 'check_name': 'good', 'passed': False, 'severity': 'ERROR'}
message = {'__dagster_pipes_version': '0.1', 'method': 'report_asset_check', 'params': params}
open(path, 'a').write(json.dumps(message) + chr(10))
";

/// Two programs in one file are two declarations, each with one start; and what a program says of an asset that is not its own is refused.
#[test]
fn declarations_do_not_mix() {
    let two = "script:
  run: 'echo one $SUBAK_ASSETS >> starts'
  stored_as: outside
  assets: { a: , b: }
---
script:
  run: 'echo two $SUBAK_ASSETS >> starts'
  stored_as: outside
  assets: { c: , d: }
";
    let sandbox = sandbox(&[("assets/gold/two.yml", two)]);
    for _ in 0..5 {
        std::fs::remove_file(sandbox.path().join("starts")).unwrap_or_default();
        sandbox.run(&["run", "gold.a", "gold.b", "gold.c", "gold.d", "--parallel", "4"]).expect(0);
        let text = std::fs::read_to_string(sandbox.path().join("starts")).expect("starts");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["one gold.a gold.b", "two gold.c gold.d"]);
    }
    let python = subak_testkit::python();
    let declared =
        "script:\n  run: [PYTHON, report.py]\n  stored_as: outside\n  assets: { a: , b: }\n  retry: { attempts_max: 1 }\n";
    sandbox.write("assets/gold/two.yml", &declared.replace("PYTHON", python));
    sandbox.write("report.py", &REPORT.replace("KEY", "gold/other"));
    let failed = sandbox.run(&["run", "gold.a", "gold.b"]).expect(1);
    assert!(failed.err.contains("reports of `gold.other`, which it does not make"), "{}", failed.err);
    sandbox.write("report.py", &REPORT.replace("KEY", "gold/a"));
    let failed = sandbox.run(&["run", "gold.a", "gold.b"]).expect(1);
    assert!(failed.out.contains("1 step done, 1 failed"), "{}", failed.out);
}

/// An unmodified script of Dagster's: it keeps its data itself, and reports rows, checks and what it did.
#[test]
fn a_script_of_pipes_reports_for_its_asset() {
    let program = "from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    assert pipes.asset_keys == ['gold/model'], pipes.asset_keys
    pipes.log.info('training')
    pipes.report_asset_materialization(metadata={'row_count': 7, 'accuracy': {'raw_value': 0.93, 'type': 'float'}}, data_version='v7')
    pipes.report_asset_check('good_enough', passed=GOOD, asset_key='gold/model', metadata={'least': 0.9})
";
    let python = subak_testkit::python();
    let declared = format!("script:\n  run: [{python}, train.py]\n  stored_as: outside\n  depends_on: silver.sales\n");
    let sandbox = sandbox(&[("assets/gold/model.yml", &declared), ("train.py", &program.replace("GOOD", "True"))]);
    sandbox.run(&["run"]).expect(0);
    let shown = sandbox.run(&["run", "show", "--output", "json"]).expect(0);
    for expected in ["\"accuracy\"", "0.93", "\"good_enough\"", "\"data_version\""] {
        assert!(shown.out.contains(expected), "{expected}: {}", shown.out);
    }
    assert!(sandbox.run(&["run"]).expect(0).err.contains("nothing to do"));
    sandbox.write("train.py", &program.replace("GOOD", "False"));
    let failed = sandbox.run(&["run", "gold.model"]).expect(1);
    assert!(failed.err.contains("`good_enough`"), "{}", failed.err);
}

/// A crash behind the publication: the program is not asked again, and nothing is loaded twice.
#[test]
fn a_crash_does_not_ask_a_program_twice() {
    let appended = "# /// subak
# mode: append
# ///
echo started >> starts
printf 'id\\n1\\n2\\n' > $SUBAK_OUTPUT/rows.csv
";
    let sandbox = sandbox(&[("assets/gold/rows.sh", appended)]);
    let mut command = sandbox.command(&["run", "gold.rows"]);
    let crashed = sandbox.finish(command.env("SUBAK_CRASH_AT", "after_publish"));
    assert_ne!(crashed.code, Some(0), "{}", crashed.err);
    // What was published counts as done, so that there is nothing to resume.
    let resumed = sandbox.run(&["run", "resume"]).expect(2);
    assert!(resumed.err.contains("the process died after this was published"), "{}", resumed.err);
    assert_eq!(rows(&sandbox, "select count(*) as n from gold.rows"), "n\n2");
    assert_eq!(started(&sandbox, "starts"), 1);
    sandbox.run(&["run", "gold.rows"]).expect(0);
    assert_eq!(rows(&sandbox, "select count(*) as n from gold.rows"), "n\n4", "each start appends what it writes");
}

/// A test gives a program its inputs and looks at what it makes.
#[test]
fn programs_have_tests() {
    let tests = "test: totals_add_up
asset: gold.totals
given:
  silver.sales:
    - { id: 1, customer: Ana, amount: 1.25 }
    - { id: 2, customer: Ana, amount: 2.50 }
expect:
  - { customer: Ana, total: '3.75', sales: 2 }
";
    let sandbox = sandbox(&[("assets/gold/totals.py", TOTALS), ("tests/totals.yml", tests)]);
    let tested = sandbox.run(&["test"]).expect(0);
    assert!(tested.err.contains("1 tests passed"), "{}", tested.err);
    sandbox.write("tests/totals.yml", &tests.replace("3.75", "3.76"));
    sandbox.run(&["test"]).expect(1);
}

/// The example does what its README says.
#[test]
fn the_example_runs() {
    let sandbox = Sandbox::new(BINARY, &[]);
    sandbox.copy(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/programs"), ".");
    assert!(sandbox.run(&["test"]).expect(0).err.contains("1 tests passed"));
    sandbox.run(&["run", "--as-of", "2025-03-10"]).expect(0);
    let expected = "customer,last_day,orders,total,segment\nAna,2025-03-01,3,295.25,champion\nBudi,2025-03-03,2,25.40,regular\nCitra,2025-03-02,2,510.10,champion\nDewi,2024-11-30,1,20.00,sleeping";
    assert_eq!(rows(&sandbox, "select * from gold.segments order by customer"), expected);
    let report = std::fs::read_to_string(sandbox.path().join("report.txt")).expect("a report");
    assert_eq!(report, "Customers as of 2025-03-10\n  champion: 2, 805.35\n  regular: 1, 25.40\n  sleeping: 1, 20.00\n");
}
