//! What a sink that stages with SQL must do beyond replace, append and merge: latest rows, deletions, histories, nested lists, the
//! quarantine, the ledger of files.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use subak_domain::partition::{Partition, Window};
use subak_domain::write::{Latest, OrderBy, Tie};
use subak_domain::{Cursor, DataType, History, LoadId, RowAccount, RunId, StepId, WriteMode};

use super::{Reader, Rows};
use crate::memory::rows;
use crate::reject::{self, RejectStatus};
use crate::sink::{self, ChildRequest, DELETE_MARK, UNCHANGED};
use crate::{
    Batch, Commit, Committed, ConnectError, ConnectErrorKind, Connection, FileMark, LoadRequest, Reject, Slice, TableName,
};

/// One row of texts.
type Row<'a> = &'a [Option<&'a str>];

/// Runs every case.
pub async fn writes(connection: &dyn Connection, read: Reader<'_>) {
    let suite = Suite { connection, read };
    suite.the_latest_row_wins().await;
    suite.marked_rows_delete().await;
    suite.a_deletion_is_remembered().await;
    suite.delete_and_insert_replaces_groups().await;
    suite.histories_have_one_open_version().await;
    suite.histories_close_what_is_gone().await;
    suite.refused_rows_are_kept_once().await;
    suite.files_are_remembered().await;
    suite.nested_lists_follow_their_rows().await;
    suite.volatile_columns_make_no_difference().await;
    suite.columns_become_wider().await;
    suite.late_columns_double_no_rows().await;
    suite.slices_take_the_place_of_their_rows().await;
}

/// Runs the case for sinks that take events which leave out values.
pub async fn partial_events(connection: &dyn Connection, read: Reader<'_>) {
    Suite { connection, read }.values_that_are_not_said_stay().await;
}

struct Suite<'a> {
    connection: &'a dyn Connection,
    read: Reader<'a>,
}

fn table(name: &str) -> TableName {
    TableName { schema: Some("writes".to_owned()), name: name.to_owned() }
}

fn load_id(name: &str) -> LoadId {
    LoadId::new(RunId::from_parts(2, 2), &StepId::check(name), "1")
}

/// Columns by name from rows.
fn batch(names: &[&str], lines: &[Row<'_>]) -> RecordBatch {
    let columns: Vec<Vec<Option<&str>>> = (0..names.len()).map(|at| lines.iter().map(|line| line[at]).collect()).collect();
    let named: Vec<(&str, &[Option<&str>])> = names.iter().copied().zip(columns.iter().map(Vec::as_slice)).collect();
    rows(&named)
}

fn texts(lines: &[Row<'_>]) -> Rows {
    let mut rows: Rows = lines.iter().map(|line| line.iter().map(|value| value.map(str::to_owned)).collect()).collect();
    rows.sort();
    rows
}

/// The rows with a column that marks deletions.
fn marked(records: &RecordBatch, marks: &[bool]) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef, bool)> = records
        .schema()
        .fields()
        .iter()
        .zip(records.columns())
        .map(|(field, array)| (field.name().clone(), Arc::clone(array), true))
        .collect();
    columns.push((DELETE_MARK.to_owned(), Arc::new(BooleanArray::from(marks.to_vec())), true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("marked rows")
}

fn by_version(is_against_table: bool) -> Latest {
    let order = vec![OrderBy { column: "version".to_owned(), is_descending: true, nulls_first: false }];
    Latest { order, tie: Tie::Last, is_against_table }
}

impl Suite<'_> {
    fn request(case: &str, mode: WriteMode, records: &RecordBatch) -> LoadRequest {
        let table = table(case.split('/').next().unwrap_or(case));
        LoadRequest { primary_key: vec!["id".to_owned()], ..LoadRequest::new(load_id(case), table, records.schema(), mode) }
    }

    async fn load(&self, request: LoadRequest, records: RecordBatch) -> Result<Committed, ConnectError> {
        let mut load = self.connection.sink().expect("a sink").begin(request).await?;
        load.write(Batch::new(records)).await?;
        let staged = load.stage().await?;
        let rows = staged.rows();
        let account =
            RowAccount { read: rows.written + rows.overlap + rows.superseded, written: rows.written, ..RowAccount::default() };
        let account = RowAccount {
            filtered: rows.overlap + rows.superseded,
            superseded: rows.superseded,
            deleted: rows.deleted,
            ..account
        };
        staged.publish(Commit { account: Some(account), ..Commit::default() }).await
    }

    #[track_caller]
    fn assert_rows(&self, name: &str, expect: &[Row<'_>]) {
        assert_eq!((self.read)(&table(name)), Some(texts(expect)), "rows of `{name}`");
    }

    async fn the_latest_row_wins(&self) {
        let case = "latest";
        let names = ["id", "version", "note"];
        let first = batch(
            &names,
            &[
                &[Some("1"), Some("2"), Some("newest")],
                &[Some("1"), Some("1"), Some("older")],
                &[Some("2"), None, Some("no version")],
                &[Some("2"), Some("0"), Some("a version")],
                &[Some("3"), Some("5"), Some("tie, first")],
                &[Some("3"), Some("5"), Some("tie, last")],
            ],
        );
        let request = LoadRequest { latest: Some(by_version(true)), ..Self::request(case, WriteMode::Merge, &first) };
        let committed = self.load(request, first).await.expect(case);
        assert_eq!(committed.account.map(|account| (account.written, account.superseded)), Some((3, 3)), "{case}");
        let expect: &[Row<'_>] = &[
            &[Some("1"), Some("2"), Some("newest")],
            &[Some("2"), Some("0"), Some("a version")],
            &[Some("3"), Some("5"), Some("tie, last")],
        ];
        self.assert_rows(case, expect);
        // Older than the table: left out. As old: the later arrival wins. Without a version: older than any.
        let second = batch(
            &names,
            &[&[Some("1"), Some("1"), Some("late")], &[Some("2"), None, Some("late")], &[Some("3"), Some("5"), Some("again")]],
        );
        let request = LoadRequest { latest: Some(by_version(true)), ..Self::request("latest/2", WriteMode::Merge, &second) };
        let committed = self.load(request, second).await.expect(case);
        assert_eq!(committed.account.map(|account| (account.written, account.superseded)), Some((1, 2)), "{case}");
        self.assert_rows(
            case,
            &[
                &[Some("1"), Some("2"), Some("newest")],
                &[Some("2"), Some("0"), Some("a version")],
                &[Some("3"), Some("5"), Some("again")],
            ],
        );
        let found = self.connection.sink().expect(case).committed(&load_id("latest/2")).await.expect(case);
        assert_eq!(found, Some(committed), "the ledger has the account");
    }

    async fn marked_rows_delete(&self) {
        let case = "marked";
        let names = ["id", "note"];
        let first = batch(&names, &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]]);
        self.load(Self::request(case, WriteMode::Merge, &first), first).await.expect(case);
        let second = batch(&names, &[&[Some("1"), None], &[Some("9"), None], &[Some("3"), Some("c")]]);
        let second = marked(&second, &[true, true, false]);
        let committed = self.load(Self::request("marked/2", WriteMode::Merge, &second), second).await.expect(case);
        assert_eq!((committed.written, committed.overlap_count), (2, 1), "a deletion of a key that is not there does nothing");
        self.assert_rows(case, &[&[Some("2"), Some("b")], &[Some("3"), Some("c")]]);
        // A first load has nothing to delete from.
        let new = marked(&batch(&names, &[&[Some("1"), Some("a")], &[Some("2"), None]]), &[false, true]);
        self.load(Self::request("marked_first", WriteMode::Merge, &new), new).await.expect(case);
        self.assert_rows("marked_first", &[&[Some("1"), Some("a")]]);
    }

    async fn a_deletion_is_remembered(&self) {
        let case = "tombstones";
        let names = ["id", "version", "note"];
        let mut number = 0;
        for (line, is_deletion, expect) in [
            ([Some("1"), Some("1"), Some("a")], false, vec![["1", "1", "a"]]),
            ([Some("1"), Some("5"), None], true, vec![]),
            // Late: it was deleted afterwards.
            ([Some("1"), Some("3"), Some("late")], false, vec![]),
            // The deletion of a key that was never seen, then its late insert.
            ([Some("2"), Some("7"), None], true, vec![]),
            ([Some("2"), Some("6"), Some("late")], false, vec![]),
            ([Some("1"), Some("8"), Some("back")], false, vec![["1", "8", "back"]]),
        ] {
            number += 1;
            let records = marked(&batch(&names, &[&line]), &[is_deletion]);
            let request = Self::request(&format!("{case}/{number}"), WriteMode::Merge, &records);
            let request = LoadRequest { latest: Some(by_version(true)), keeps_tombstones: true, ..request };
            self.load(request, records).await.expect(case);
            let lines: Vec<Vec<Option<&str>>> = expect.iter().map(|line| line.iter().map(|text| Some(*text)).collect()).collect();
            let lines: Vec<Row<'_>> = lines.iter().map(Vec::as_slice).collect();
            self.assert_rows(case, &lines);
        }
    }

    async fn delete_and_insert_replaces_groups(&self) {
        let case = "groups";
        let names = ["id", "note"];
        let first = batch(&names, &[&[Some("1"), Some("a")], &[Some("1"), Some("b")], &[Some("2"), Some("c")]]);
        self.load(Self::request(case, WriteMode::DeleteInsert, &first), first).await.expect(case);
        let second = batch(&names, &[&[Some("1"), Some("x")], &[Some("3"), Some("y")], &[Some("3"), Some("y")]]);
        let committed = self.load(Self::request("groups/2", WriteMode::DeleteInsert, &second), second.clone()).await.expect(case);
        assert!(committed.changed);
        let expect: &[Row<'_>] =
            &[&[Some("1"), Some("x")], &[Some("2"), Some("c")], &[Some("3"), Some("y")], &[Some("3"), Some("y")]];
        self.assert_rows(case, expect);
        let again = self.load(Self::request("groups/3", WriteMode::DeleteInsert, &second), second).await.expect(case);
        assert_eq!((again.changed, again.written, again.overlap_count), (false, 0, 3), "the same groups again");
        self.assert_rows(case, expect);
    }

    async fn history(&self, case: &str, at: &str, lines: &[Row<'_>], history: History) -> Result<Committed, ConnectError> {
        let records = batch(&["id", "note"], lines);
        let request =
            LoadRequest { history, at: at.to_owned(), is_complete: true, ..Self::request(case, WriteMode::Snapshot, &records) };
        self.load(request, records).await
    }

    async fn histories_have_one_open_version(&self) {
        let case = "history";
        let keep = History::default;
        self.history(case, "2025-01-01 00:00:00", &[&[Some("1"), Some("a")], &[Some("2"), None]], keep()).await.expect(case);
        let same = self
            .history("history/2", "2025-01-02 00:00:00", &[&[Some("1"), Some("a")], &[Some("2"), None]], keep())
            .await
            .expect(case);
        assert!(!same.changed, "equal rows, NULLs among them, make no version");
        self.history("history/3", "2025-01-03 00:00:00", &[&[Some("1"), Some("b")], &[Some("2"), Some("x")]], keep())
            .await
            .expect(case);
        self.history("history/4", "2025-01-04 00:00:00", &[&[Some("1"), None]], keep()).await.expect(case);
        let on = |day: &'static str| Some(day);
        let found = (self.read)(&table(case)).expect(case);
        let words: Vec<&str> = found.iter().filter_map(|row| row[4].as_deref()).collect();
        let is = |is_current: bool| words.iter().copied().find(|word| matches!(*word, "true" | "t" | "1") == is_current);
        self.assert_rows(
            case,
            &[
                &[Some("1"), Some("a"), on("2025-01-01 00:00:00"), on("2025-01-03 00:00:00"), is(false)],
                &[Some("1"), Some("b"), on("2025-01-03 00:00:00"), on("2025-01-04 00:00:00"), is(false)],
                &[Some("1"), None, on("2025-01-04 00:00:00"), None, is(true)],
                &[Some("2"), None, on("2025-01-01 00:00:00"), on("2025-01-03 00:00:00"), is(false)],
                &[Some("2"), Some("x"), on("2025-01-03 00:00:00"), None, is(true)],
            ],
        );
        let twice =
            self.history("history/5", "2025-01-05 00:00:00", &[&[Some("1"), Some("c")], &[Some("1"), Some("d")]], keep()).await;
        assert_eq!(twice.map_err(|error| error.kind).map(drop), Err(ConnectErrorKind::KeyTwice), "two rows of one key");
    }

    async fn histories_close_what_is_gone(&self) {
        let case = "closing";
        let close = || History { closes_missing: true, ..History::default() };
        self.history(case, "2025-01-01 00:00:00", &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]], close())
            .await
            .expect(case);
        let gone = self.history("closing/2", "2025-01-02 00:00:00", &[&[Some("2"), Some("b")]], close()).await.expect(case);
        assert!(gone.changed, "a key that is gone closes its version");
        let still = self.history("closing/3", "2025-01-03 00:00:00", &[&[Some("2"), Some("b")]], close()).await.expect(case);
        assert!(!still.changed, "it is gone only once");
        self.history("closing/4", "2025-01-04 00:00:00", &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]], close())
            .await
            .expect(case);
        let found = (self.read)(&table(case)).expect(case);
        let versions: Vec<(Option<&str>, Option<&str>)> =
            found.iter().filter(|row| row[0].as_deref() == Some("1")).map(|row| (row[2].as_deref(), row[3].as_deref())).collect();
        assert_eq!(
            versions,
            [(Some("2025-01-01 00:00:00"), Some("2025-01-02 00:00:00")), (Some("2025-01-04 00:00:00"), None)],
            "gone, and back as a new version"
        );
    }

    async fn refused(&self, case: &str, mode: WriteMode, rejects: Vec<Reject>, replayed: Vec<String>) {
        let records = batch(&["id", "note"], &[&[Some("1"), Some("a")]]);
        let mut load = self.connection.sink().expect(case).begin(Self::request(case, mode, &records)).await.expect(case);
        load.reject(rejects).await.expect(case);
        load.write(Batch::new(records)).await.expect(case);
        load.stage().await.expect(case).publish(Commit { replayed, ..Commit::default() }).await.expect(case);
    }

    async fn refused_rows_are_kept_once(&self) {
        let case = "refused";
        let reject = |line: u64, row: &str| Reject {
            reason: "column `id`: `x` is not bigint".to_owned(),
            column: Some("id".to_owned()),
            value: Some("x".to_owned()),
            file: Some("in.csv".into()),
            path: None,
            line: Some(line),
            key: None,
            row: row.to_owned(),
        };
        let quarantine = self.connection.quarantine().expect("a quarantine");
        let records = batch(&["id", "note"], &[&[Some("1"), Some("a")]]);
        let mut abandoned =
            self.connection.sink().expect(case).begin(Self::request(case, WriteMode::Merge, &records)).await.expect(case);
        abandoned.reject(vec![reject(2, "{}")]).await.expect(case);
        drop(abandoned);
        assert_eq!(quarantine.count(&table(case)).await.expect(case), [0, 0, 0], "an abandoned load refuses nothing");
        let both = || vec![reject(2, "{\"id\":\"x\"}"), reject(3, "{\"id\":\"x\"}")];
        self.refused("refused/1", WriteMode::Merge, both(), Vec::new()).await;
        self.refused("refused/2", WriteMode::Merge, both(), Vec::new()).await;
        assert_eq!(quarantine.count(&table(case)).await.expect(case), [2, 0, 0], "the same rows again are not entered again");
        let open = quarantine.rejects(&table(case), RejectStatus::Open, 10).await.expect(case);
        assert_eq!(open[0].reject, reject(2, "{\"id\":\"x\"}"), "nothing of a reject is lost");
        assert_eq!(quarantine.discard(&table(case), &[open[0].id.clone()], "2026-01-02T00:00:00Z").await.expect(case), 1);
        self.refused("refused/3", WriteMode::Merge, both(), vec![open[1].id.clone()]).await;
        assert_eq!(quarantine.count(&table(case)).await.expect(case), [0, 1, 1], "what was decided stays decided");
        // Everything was read again, and one of two is mended.
        self.refused("refused/4", WriteMode::Merge, vec![reject(7, "{}"), reject(8, "{}")], Vec::new()).await;
        self.refused("refused/5", WriteMode::Replace, vec![reject(8, "{}")], Vec::new()).await;
        assert_eq!(quarantine.count(&table(case)).await.expect(case), [1, 1, 1], "a full read drops what is mended");
        assert_eq!((self.read)(&reject::table_of(&table(case))).expect(case).len(), 3);
    }

    async fn files_are_remembered(&self) {
        let case = "files";
        let records = batch(&["id", "note"], &[&[Some("1"), Some("a")]]);
        let mark = |path: &str, hash: &str| FileMark { path: path.to_owned(), bytes: 10, modified_at: 5, hash: hash.to_owned() };
        let sink = self.connection.sink().expect(case);
        for (number, files, expect) in [(1, vec![mark("a.csv", "1"), mark("it's.csv", "2")], 2), (2, vec![mark("a.csv", "3")], 2)]
        {
            let request = Self::request(&format!("{case}/{number}"), WriteMode::Append, &records);
            let mut load = sink.begin(request).await.expect(case);
            load.write(Batch::new(records.clone())).await.expect(case);
            load.stage().await.expect(case).publish(Commit { files, ..Commit::default() }).await.expect(case);
            let info = sink.describe(&table(case)).await.expect(case).expect(case);
            assert_eq!(info.files.len(), expect, "{case}");
            assert_eq!(info.row_count_committed, Some(info.row_count), "{case}");
        }
        let info = sink.describe(&table(case)).await.expect(case).expect(case);
        assert_eq!(info.files, [mark("a.csv", "3"), mark("it's.csv", "2")], "a file that came again has its new mark");
        let request = Self::request("files/3", WriteMode::Replace, &records);
        self.load(request, records).await.expect(case);
        assert!(
            sink.describe(&table(case)).await.expect(case).expect(case).files.is_empty(),
            "a table made anew has read nothing"
        );
    }

    async fn nested_lists_follow_their_rows(&self) {
        let case = "orders";
        let parents = |lines: &[Row<'_>]| batch(&["id", "note"], lines);
        let items = |lines: &[Row<'_>]| batch(&["parent_id", "position", "sku"], lines);
        let mut number = 0;
        for (parent, child, expect) in [
            (
                parents(&[&[Some("1"), Some("a")], &[Some("2"), Some("b")]]),
                items(&[
                    &[Some("1"), Some("0"), Some("x")],
                    &[Some("1"), Some("1"), Some("y")],
                    &[Some("2"), Some("0"), Some("z")],
                ]),
                vec![["1", "0", "x"], ["1", "1", "y"], ["2", "0", "z"]],
            ),
            // The row comes again with a shorter list: the old list goes.
            (
                parents(&[&[Some("1"), Some("a")]]),
                items(&[&[Some("1"), Some("0"), Some("w")]]),
                vec![["1", "0", "w"], ["2", "0", "z"]],
            ),
            // And with none.
            (parents(&[&[Some("2"), Some("B")]]), items(&[]), vec![["1", "0", "w"]]),
        ] {
            number += 1;
            let list = sink::child_table(&table(case), "items");
            let children = vec![ChildRequest { table: list.clone(), schema: child.schema() }];
            let request = LoadRequest { children, ..Self::request(&format!("{case}/{number}"), WriteMode::Merge, &parent) };
            let mut load = self.connection.sink().expect(case).begin(request).await.expect(case);
            load.write(Batch::new(parent)).await.expect(case);
            load.write_child(0, Batch::new(child)).await.expect(case);
            load.stage().await.expect(case).publish(Commit::default()).await.expect(case);
            let expect: Rows = expect.iter().map(|line| line.iter().map(|text| Some((*text).to_owned())).collect()).collect();
            assert_eq!((self.read)(&list), Some(expect), "{case}/{number}");
        }
    }

    async fn volatile_columns_make_no_difference(&self) {
        let case = "volatile";
        let lines = |loaded_at| batch(&["id", "loaded_at"], &[&[Some("1"), Some(loaded_at)]]);
        for (number, mode) in [(1, WriteMode::Merge), (2, WriteMode::Merge), (3, WriteMode::Replace)] {
            let time = ["", "10:00", "11:00", "12:00"][number];
            let records = lines(time);
            let request = Self::request(&format!("{case}/{number}"), mode, &records);
            let request = LoadRequest { volatile: vec!["loaded_at".to_owned()], ..request };
            let committed = self.load(request, records).await.expect(case);
            assert_eq!(committed.changed, number == 1, "{case}/{number}");
        }
        self.assert_rows(case, &[&[Some("1"), Some("10:00")]]);
    }

    async fn slices_take_the_place_of_their_rows(&self) {
        let case = "slices";
        // Days from the first of January 2024.
        let records = |lines: &[(i32, &str)]| {
            let days: ArrayRef = Arc::new(Date32Array::from_iter_values(lines.iter().map(|(day, _)| 19_723 + day)));
            let moments = lines.iter().map(|(day, _)| i64::from(19_723 + day) * 86_400_000_000 - 1_000_000);
            let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(moments).with_timezone("UTC"));
            let notes: ArrayRef = Arc::new(StringArray::from_iter_values(lines.iter().map(|(_, note)| *note)));
            RecordBatch::try_from_iter_with_nullable([("day", days, true), ("note", notes, true), ("moment", moments, true)])
                .expect(case)
        };
        let slice = |column: &str, start: &str, end: &str| {
            let [start, end] = [start, end].map(str::to_owned);
            let window = Window { start: start.clone(), end: end.clone(), start_utc: start.clone(), end_utc: end };
            Some(Slice::of_column(column, Partition { window: Some(window), ..Partition::of_key(&start) }))
        };
        let load = |number: u32, slice: Option<Slice>, lines: &[(i32, &str)]| {
            let records = records(lines);
            let request = Self::request(&format!("{case}/{number}"), WriteMode::DeleteInsert, &records);
            let request = LoadRequest { primary_key: Vec::new(), slice, ..request };
            self.load(request, records)
        };
        let notes = || {
            let rows = (self.read)(&table(case)).expect(case);
            let notes: std::collections::BTreeSet<String> = rows.iter().filter_map(|row| row[1].clone()).collect();
            notes.into_iter().collect::<Vec<_>>().join(" ")
        };
        let first = records(&[(0, "a"), (0, "b"), (1, "c"), (2, "d")]);
        let request = LoadRequest { primary_key: Vec::new(), ..Self::request(case, WriteMode::Replace, &first) };
        self.load(request, first).await.expect(case);
        // One day is written anew, and made empty; the others stay.
        let day = slice("day", "2024-01-01", "2024-01-02");
        assert!(load(1, day.clone(), &[(0, "b"), (0, "x")]).await.expect(case).changed, "{case}");
        assert_eq!(notes(), "b c d x", "{case}");
        assert!(!load(2, day.clone(), &[(0, "x"), (0, "b")]).await.expect(case).changed, "{case}: the same again");
        assert!(load(3, day.clone(), &[]).await.expect(case).changed, "{case}: nothing left");
        assert_eq!(notes(), "c d", "{case}");
        // By moments: those of the second row lie on the day before.
        let moment = slice("moment", "2024-01-01", "2024-01-02");
        assert!(load(4, moment, &[(1, "y")]).await.expect(case).changed, "{case}");
        assert_eq!(notes(), "d y", "{case}");
        // A day of another clock begins in the middle of one here.
        let jakarta = slice("moment", "2024-01-01 17:00:00", "2024-01-02 17:00:00");
        let refused = load(6, jakarta.clone(), &[(2, "late")]).await.expect_err(case);
        assert_eq!(refused.kind, ConnectErrorKind::ValueMisfit, "{case}");
        assert!(load(7, jakarta, &[(1, "in time")]).await.expect(case).changed, "{case}");
        assert_eq!(notes(), "d in time", "{case}");
        // Rows of another day are refused, and nothing happens.
        let refused = load(5, day, &[(0, "z"), (1, "stray")]).await.expect_err(case);
        assert_eq!(refused.kind, ConnectErrorKind::ValueMisfit, "{case}");
        assert!(refused.message.contains("1 rows do not belong to partition `2024-01-01`"), "{}", refused.message);
        assert_eq!(notes(), "d in time", "{case}");
    }

    async fn late_columns_double_no_rows(&self) {
        let case = "late";
        let bound = || Some(Cursor { column: "at".to_owned(), value: "2".to_owned(), data_type: DataType::Text });
        let first = batch(&["at", "id"], &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]]);
        self.load(Self::request(case, WriteMode::Replace, &first), first).await.expect(case);
        // A column comes, with a value for every row; then rows at the same bound, and above it.
        let b: Row<'_> = &[Some("2"), Some("b"), Some("7")];
        let c: Row<'_> = &[Some("2"), Some("c"), Some("8")];
        let [d, above, other]: [Row<'_>; 3] =
            [&[Some("2"), Some("d"), Some("9")], &[Some("3"), Some("e"), Some("1")], &[Some("3"), Some("e"), Some("2")]];
        let reads: [&[Row<'_>]; 4] = [&[b, c], &[c, b], &[b, d, above, c], &[other, b, c, d, above]];
        for (read, added) in reads.iter().zip([1, 0, 2, 1]) {
            let records = batch(&["at", "id", "size"], read);
            let request = LoadRequest {
                overlap: bound(),
                ..Self::request(&format!("{case}/{}", read.len() * 10 + added), WriteMode::Append, &records)
            };
            let committed = self.load(request, records).await.expect(case);
            assert_eq!(committed.written, added as u64, "{case}: {read:?}");
        }
        let rows: [Row<'_>; 6] = [&[Some("1"), Some("a"), None], &[Some("2"), Some("b"), None], c, d, above, other];
        self.assert_rows(case, &rows);
        // Made anew, it has the column from the beginning.
        let again = batch(&["at", "id", "size"], &[b]);
        self.load(Self::request("late/anew", WriteMode::Replace, &again), again).await.expect(case);
        let records = batch(&["at", "id", "size"], &[b, &[Some("2"), Some("b"), Some("8")]]);
        let request = LoadRequest { overlap: bound(), ..Self::request("late/after", WriteMode::Append, &records) };
        assert_eq!(self.load(request, records).await.expect(case).written, 1, "{case}");
    }

    async fn columns_become_wider(&self) {
        let case = "wider";
        let sink = self.connection.sink().expect(case);
        if !sink.can_widen() {
            return;
        }
        let narrow: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![5_000_000_000]));
        let records = |id: ArrayRef| RecordBatch::try_from_iter_with_nullable([("id", id, true)]).expect(case);
        let first = records(narrow);
        self.load(Self::request(case, WriteMode::Append, &first), first).await.expect(case);
        let second = records(wide);
        let request = LoadRequest { widened: vec!["id".to_owned()], ..Self::request("wider/2", WriteMode::Append, &second) };
        self.load(request, second.clone()).await.expect(case);
        self.assert_rows(case, &[&[Some("1")], &[Some("5000000000")]]);
        let info = sink.describe(&table(case)).await.expect(case).expect(case);
        assert_eq!(info.schema, second.schema(), "{case}");
    }

    async fn values_that_are_not_said_stay(&self) {
        let case = "unchanged";
        let names = ["id", "version", "note", "big", UNCHANGED];
        let latest = || Some(by_version(true));
        let load = |name: &'static str, lines: &[Row<'_>]| {
            let records = batch(&names, lines);
            let request = LoadRequest { latest: latest(), ..Self::request(name, WriteMode::Merge, &records) };
            self.load(request, records)
        };
        load(
            "unchanged/1",
            &[&[Some("1"), Some("1"), Some("a"), Some("BIG"), None], &[Some("2"), Some("1"), Some("b"), None, None]],
        )
        .await
        .expect(case);
        load(
            "unchanged/2",
            &[
                // What the table has, twice in one load; and what an earlier row of the load says.
                &[Some("1"), Some("2"), Some("a2"), None, Some(",big,")],
                &[Some("1"), Some("3"), Some("a3"), None, Some(",big,")],
                &[Some("3"), Some("1"), Some("c"), Some("NEW"), None],
                &[Some("3"), Some("2"), Some("c2"), None, Some(",big,")],
                &[Some("2"), Some("2"), Some("b2"), Some("X"), None],
                &[Some("2"), Some("3"), Some("b3"), None, None],
            ],
        )
        .await
        .expect(case);
        self.assert_rows(
            case,
            &[
                &[Some("1"), Some("3"), Some("a3"), Some("BIG")],
                &[Some("2"), Some("3"), Some("b3"), None],
                &[Some("3"), Some("2"), Some("c2"), Some("NEW")],
            ],
        );
    }
}
