//! What every implementation of a seam must do. A suite panics with the name of the case that fails.
//!
//! A sink's tests pass a reader that does not go through the sink, so that a sink cannot vouch for itself.

mod types;
mod writes;

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use subak_domain::{CheckRule, Cursor, DataType, LoadId, RunId, StepId, StoredAs, WriteMode};

use crate::source::CursorBound;
use crate::{
    Audit, Batch, BuildRequest, Commit, Committed, ConnectError, ConnectErrorKind, Connection, LoadRequest, ReadRequest, Source,
    SourceItem, Staged, TableName,
};

pub use types::{source_types, types};
pub use writes::{partial_events, writes};

/// The rows of a table as texts, NULL as `None`, sorted.
pub type Rows = Vec<Vec<Option<String>>>;

/// Reads a table by another way than the sink under test. An absent table has no rows and is `None`.
pub type Reader<'a> = &'a (dyn Fn(&TableName) -> Option<Rows> + Sync);

/// Runs every case for sinks.
pub async fn sink(connection: &dyn Connection, read: Reader<'_>) {
    let suite = SinkSuite { connection, read };
    suite.an_abandoned_load_leaves_nothing().await;
    suite.replace_is_all_or_nothing().await;
    suite.rows_and_cursor_commit_together().await;
    suite.append_adds_and_knows_its_overlap().await;
    suite.merge_replaces_by_key().await;
    suite.merge_refuses_bad_keys().await;
    suite.new_columns_are_added().await;
    suite.equal_rows_change_nothing().await;
    suite.a_column_that_went_doubles_nothing().await;
    suite.a_rebuilt_merge_has_its_keys_checked().await;
    suite.checks_see_the_table_as_it_will_be().await;
    suite.an_empty_load_changes_nothing().await;
    suite.odd_names_are_exact().await;
}

/// Runs the cases for sinks that write whole tables only.
pub async fn whole_tables(connection: &dyn Connection, read: Reader<'_>) {
    let suite = SinkSuite { connection, read };
    suite.an_abandoned_load_leaves_nothing().await;
    suite.replace_is_all_or_nothing().await;
    suite.a_whole_table_knows_its_load().await;
    suite.checks_see_the_whole_table_as_it_will_be().await;
    suite.rows_are_refused_where_tables_are_whole().await;
    suite.odd_names_are_exact().await;
}

struct SinkSuite<'a> {
    connection: &'a dyn Connection,
    read: Reader<'a>,
}

/// One to four columns of test rows: id, amount, time, note.
fn batch(rows: &[(Option<i64>, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| *id).collect::<Int64Array>());
    let notes: ArrayRef = Arc::new(rows.iter().map(|(_, note)| *note).collect::<StringArray>());
    let amounts: ArrayRef = Arc::new(
        rows.iter()
            .map(|(id, _)| id.map(|id| i128::from(id) * 100 + 25))
            .collect::<Decimal128Array>()
            .with_precision_and_scale(18, 2)
            .expect("valid decimal"),
    );
    let times: ArrayRef = Arc::new(rows.iter().map(|(id, _)| id.map(|id| id * 1_000_000)).collect::<TimestampMicrosecondArray>());
    let schema = Schema::new(vec![
        Field::new("id", ArrowType::Int64, true),
        Field::new("note", ArrowType::Utf8, true),
        Field::new("amount", ArrowType::Decimal128(18, 2), true),
        Field::new("at", ArrowType::Timestamp(TimeUnit::Microsecond, None), true),
    ]);
    RecordBatch::try_new(Arc::new(schema), vec![ids, notes, amounts, times]).expect("valid batch")
}

fn texts(rows: &[(i64, &str)]) -> Rows {
    let row = |(id, note): &(i64, &str)| {
        vec![Some(id.to_string()), Some((*note).to_owned()), Some(format!("{id}.25")), Some(format!("1970-01-01 00:00:{id:02}"))]
    };
    let mut rows: Rows = rows.iter().map(row).collect();
    rows.sort();
    rows
}

fn cursor(value: i64) -> Cursor {
    Cursor { column: "id".to_owned(), value: value.to_string(), data_type: DataType::BigInt }
}

fn load_id(name: &str) -> LoadId {
    LoadId::new(RunId::from_parts(1, 1), &StepId::check(name), "1")
}

fn table(name: &str) -> TableName {
    TableName { schema: Some("conformance".to_owned()), name: name.to_owned() }
}

impl SinkSuite<'_> {
    fn request(case: &str, mode: WriteMode, rows: &RecordBatch) -> LoadRequest {
        let table = table(case.split('/').next().unwrap_or(case));
        LoadRequest { primary_key: vec!["id".to_owned()], ..LoadRequest::new(load_id(case), table, rows.schema(), mode) }
    }

    async fn staged(&self, request: LoadRequest, rows: RecordBatch) -> Result<Box<dyn Staged>, ConnectError> {
        let sink = self.connection.sink().expect("the connection has a sink");
        let mut load = sink.begin(request).await?;
        let middle = rows.num_rows() / 2;
        load.write(Batch::new(rows.slice(0, middle))).await?;
        load.write(Batch::new(rows.slice(middle, rows.num_rows() - middle))).await?;
        load.stage().await
    }

    async fn publish(&self, case: &str, mode: WriteMode, rows: &[(i64, &str)], cursor: Option<Cursor>) -> Committed {
        let rows = batch(&rows.iter().map(|(id, note)| (Some(*id), Some(*note))).collect::<Vec<_>>());
        let staged = self.staged(Self::request(case, mode, &rows), rows).await.expect(case);
        staged.publish(cursor.into()).await.expect(case)
    }

    fn assert_rows(&self, case: &str, expect: &[(i64, &str)]) {
        assert_eq!((self.read)(&table(case)), Some(texts(expect)), "rows of `{case}`");
    }

    async fn an_abandoned_load_leaves_nothing(&self) {
        let case = "abandoned";
        let rows = batch(&[(Some(1), Some("a"))]);
        let sink = self.connection.sink().expect("the connection has a sink");
        let mut load = sink.begin(Self::request(case, WriteMode::Replace, &rows)).await.expect(case);
        load.write(Batch::new(rows.clone())).await.expect(case);
        drop(load);
        drop(self.staged(Self::request(case, WriteMode::Replace, &rows), rows).await.expect(case));
        assert_eq!((self.read)(&table(case)), None, "an abandoned load made a table");
        assert_eq!(sink.committed(&load_id(case)).await.expect(case), None);
        sink.clean_up().await.expect(case);
        assert_eq!(sink.clean_up().await.expect(case), 0, "clean_up left something behind");
    }

    async fn replace_is_all_or_nothing(&self) {
        let case = "replaced";
        self.publish(case, WriteMode::Replace, &[(1, "a"), (2, "b")], None).await;
        let rows = batch(&[(Some(3), Some("c"))]);
        let staged = self.staged(Self::request("replaced/2", WriteMode::Replace, &rows), rows.clone()).await.expect(case);
        self.assert_rows(case, &[(1, "a"), (2, "b")]);
        drop(staged);
        self.assert_rows(case, &[(1, "a"), (2, "b")]);
        self.publish("replaced/3", WriteMode::Replace, &[(3, "c")], None).await;
        self.assert_rows(case, &[(3, "c")]);
    }

    async fn rows_and_cursor_commit_together(&self) {
        let case = "cursors";
        let sink = self.connection.sink().expect("the connection has a sink");
        let first = self.publish(case, WriteMode::Merge, &[(1, "a")], Some(cursor(1))).await;
        assert_eq!(sink.committed(&load_id(case)).await.expect(case), Some(first), "the ledger knows the load");
        let info = sink.describe(&table(case)).await.expect(case).expect(case);
        assert_eq!((info.cursor, info.row_count), (Some(cursor(1)), 1));
        // A load without a cursor of its own keeps the one that is there.
        self.publish("cursors/2", WriteMode::Merge, &[(2, "b")], None).await;
        let info = sink.describe(&table(case)).await.expect(case).expect(case);
        assert_eq!((info.cursor, info.row_count), (Some(cursor(1)), 2));
        assert!(sink.describe(&table("absent")).await.expect(case).is_none());
        let existing = sink.existing(&[table(case), table("absent")]).await.expect(case);
        assert_eq!(existing.into_iter().collect::<Vec<_>>(), [table(case)]);
    }

    async fn append_adds_and_knows_its_overlap(&self) {
        let case = "appended";
        self.publish(case, WriteMode::Append, &[(1, "a"), (2, "b"), (2, "b")], Some(cursor(2))).await;
        // Read again from the bound, inclusive: three rows tie at 2 now, two of which are there already.
        let rows = batch(&[(Some(2), Some("b")), (Some(2), Some("b")), (Some(2), Some("new")), (Some(3), Some("c"))]);
        let request = LoadRequest { overlap: Some(cursor(2)), ..Self::request("appended/2", WriteMode::Append, &rows) };
        let committed = self.staged(request, rows).await.expect(case).publish(Some(cursor(3)).into()).await.expect(case);
        assert_eq!((committed.written, committed.overlap_count, committed.row_count), (2, 2, 5));
        self.assert_rows(case, &[(1, "a"), (2, "b"), (2, "b"), (2, "new"), (3, "c")]);
        // Without an overlap every row counts, equal ones too.
        self.publish("appended/3", WriteMode::Append, &[(3, "c")], None).await;
        self.assert_rows(case, &[(1, "a"), (2, "b"), (2, "b"), (2, "new"), (3, "c"), (3, "c")]);
    }

    async fn merge_replaces_by_key(&self) {
        let case = "merged";
        self.publish(case, WriteMode::Merge, &[(1, "a"), (2, "b")], None).await;
        let committed = self.publish("merged/2", WriteMode::Merge, &[(2, "B"), (3, "c")], None).await;
        assert_eq!((committed.written, committed.row_count, committed.changed), (2, 3, true));
        self.assert_rows(case, &[(1, "a"), (2, "B"), (3, "c")]);
    }

    async fn merge_refuses_bad_keys(&self) {
        for (case, rows, kind) in [
            ("twice", batch(&[(Some(1), Some("a")), (Some(1), Some("b"))]), ConnectErrorKind::KeyTwice),
            ("nulls", batch(&[(None, Some("a"))]), ConnectErrorKind::KeyNull),
        ] {
            let staged = self.staged(Self::request(case, WriteMode::Merge, &rows), rows).await;
            let result = match staged {
                Ok(staged) => staged.publish(Commit::default()).await.map(drop),
                Err(error) => Err(error),
            };
            assert_eq!(result.map_err(|error| error.kind), Err(kind), "{case}");
            assert_eq!((self.read)(&table(case)), None, "{case}");
        }
    }

    async fn equal_rows_change_nothing(&self) {
        for (case, mode) in [("equal_merge", WriteMode::Merge), ("equal_replace", WriteMode::Replace)] {
            self.publish(case, mode, &[(1, "a"), (2, "b")], None).await;
            let again = self.publish(&format!("{case}/2"), mode, &[(2, "b"), (1, "a")], None).await;
            assert_eq!((again.written, again.overlap_count, again.changed), (0, 2, false), "{case}");
            self.assert_rows(case, &[(1, "a"), (2, "b")]);
        }
    }

    async fn a_column_that_went_doubles_nothing(&self) {
        let case = "narrowed";
        self.publish(case, WriteMode::Append, &[(1, "a"), (2, "b")], Some(cursor(2))).await;
        let rows = batch(&[(Some(2), Some("b")), (Some(3), Some("c"))]).project(&[0, 1]).expect(case);
        let request = LoadRequest { overlap: Some(cursor(2)), ..Self::request("narrowed/2", WriteMode::Append, &rows) };
        let committed = self.staged(request, rows).await.expect(case).publish(Some(cursor(3)).into()).await.expect(case);
        assert_eq!((committed.written, committed.overlap_count, committed.row_count), (1, 1, 3), "{case}");
    }

    async fn a_rebuilt_merge_has_its_keys_checked(&self) {
        let case = "rebuilt";
        let rows = batch(&[(Some(1), Some("a")), (Some(1), Some("b"))]);
        let request = LoadRequest { has_unique_key: true, ..Self::request(case, WriteMode::Replace, &rows) };
        let result = match self.staged(request, rows).await {
            Ok(staged) => staged.publish(Commit::default()).await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(result.map_err(|error| error.kind), Err(ConnectErrorKind::KeyTwice), "{case}");
    }

    async fn new_columns_are_added(&self) {
        let case = "evolved";
        self.publish(case, WriteMode::Append, &[(1, "a")], None).await;
        let extra: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let id: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let schema = Schema::new(vec![Field::new("id", ArrowType::Int64, true), Field::new("extra", ArrowType::Utf8, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![id, extra]).expect(case);
        let staged = self.staged(Self::request("evolved/2", WriteMode::Append, &rows), rows).await;
        match staged {
            Ok(staged) => staged.publish(Commit::default()).await.expect(case),
            Err(error) => panic!("{case}: {error} {:?}", error.causes()),
        };
        let info = self.connection.sink().expect(case).describe(&table(case)).await.expect(case).expect(case);
        let names: Vec<&str> = info.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert!(names.contains(&"extra") && info.row_count == 2, "{names:?} {}", info.row_count);
    }

    async fn checks_see_the_table_as_it_will_be(&self) {
        let case = "audited";
        self.publish(case, WriteMode::Append, &[(1, "a")], None).await;
        let rows = batch(&[(Some(1), None)]);
        let mut staged = self.staged(Self::request("audited/2", WriteMode::Append, &rows), rows).await.expect(case);
        let unique = staged.audit(&Audit::of(CheckRule::Unique { columns: vec!["id".to_owned()] })).await.expect(case);
        let not_null = staged.audit(&Audit::of(CheckRule::NotNull { columns: vec!["note".to_owned()] })).await.expect(case);
        assert_eq!((unique.bad_row_count, unique.row_count), (1, Some(2)), "unique");
        assert_eq!((not_null.bad_row_count, not_null.row_count), (1, Some(2)), "not_null");
        drop(staged);
        self.assert_rows(case, &[(1, "a")]);
    }

    async fn an_empty_load_changes_nothing(&self) {
        let case = "empty";
        self.publish(case, WriteMode::Merge, &[(1, "a")], Some(cursor(1))).await;
        let committed = self.publish("empty/2", WriteMode::Merge, &[], None).await;
        assert_eq!((committed.written, committed.changed), (0, false));
        self.assert_rows(case, &[(1, "a")]);
    }

    async fn a_whole_table_knows_its_load(&self) {
        let case = "known";
        let sink = self.connection.sink().expect(case);
        let first = self.publish(case, WriteMode::Replace, &[(1, "a"), (2, "b")], None).await;
        assert_eq!((first.written, first.row_count, first.changed), (2, 2, true));
        assert_eq!(sink.committed(&load_id(case)).await.expect(case), Some(first), "the ledger knows the load");
        let again = self.publish("known/2", WriteMode::Replace, &[(1, "a"), (2, "b")], None).await;
        assert_eq!((again.written, again.overlap_count, again.row_count, again.changed), (0, 2, 2, false), "equal rows");
        assert_eq!(sink.committed(&load_id("known/2")).await.expect(case), Some(again), "a load that changed nothing is one");
        let third = self.publish("known/3", WriteMode::Replace, &[(3, "c")], None).await;
        assert_eq!((third.written, third.row_count, third.changed), (1, 1, true));
        assert_eq!(sink.committed(&load_id("known/2")).await.expect(case), None, "its rows are gone");
        self.assert_rows(case, &[(3, "c")]);
        let info = sink.describe(&table(case)).await.expect(case).expect(case);
        let names: Vec<&str> = info.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!((names.as_slice(), info.row_count), (&["id", "note", "amount", "at"][..], 1));
        assert!(sink.describe(&table("absent")).await.expect(case).is_none());
        let existing = sink.existing(&[table(case), table("absent")]).await.expect(case);
        assert_eq!(existing.into_iter().collect::<Vec<_>>(), [table(case)]);
        assert_eq!(sink.clean_up().await.expect(case), 0, "published loads leave nothing behind");
    }

    async fn checks_see_the_whole_table_as_it_will_be(&self) {
        let case = "audited";
        self.publish("parents", WriteMode::Replace, &[(1, "p")], None).await;
        self.publish(case, WriteMode::Replace, &[(1, "a")], None).await;
        let rows = batch(&[(Some(1), None), (Some(1), Some("b")), (Some(2), Some("c"))]);
        let mut staged = self.staged(Self::request("audited/2", WriteMode::Replace, &rows), rows).await.expect(case);
        let unique = staged.audit(&Audit::of(CheckRule::Unique { columns: vec!["id".to_owned()] })).await.expect(case);
        let not_null = staged.audit(&Audit::of(CheckRule::NotNull { columns: vec!["note".to_owned()] })).await.expect(case);
        let to = "conformance.parents".parse().expect("a key");
        let id = || vec!["id".to_owned()];
        let related = CheckRule::Relationships { columns: id(), to, to_columns: id() };
        let orphans = staged.audit(&Audit::of(related)).await.expect(case);
        assert_eq!((unique.bad_row_count, unique.row_count), (1, Some(3)), "unique");
        assert_eq!((not_null.bad_row_count, not_null.row_count), (1, Some(3)), "not_null");
        assert_eq!((orphans.bad_row_count, orphans.sample.len()), (1, 1), "relationships");
        assert!(staged.audit(&Audit::of(CheckRule::Sql { sql: "select * from nowhere".to_owned() })).await.is_err(), "bad SQL");
        drop(staged);
        self.assert_rows(case, &[(1, "a")]);
    }

    async fn rows_are_refused_where_tables_are_whole(&self) {
        let case = "refused";
        self.publish(case, WriteMode::Replace, &[(1, "a")], None).await;
        for mode in [WriteMode::Append, WriteMode::Merge, WriteMode::DeleteInsert, WriteMode::Snapshot] {
            let rows = batch(&[(Some(2), Some("b"))]);
            let error = self.staged(Self::request("refused/2", mode, &rows), rows).await.map(drop).expect_err(mode.as_str());
            assert_eq!(error.kind, ConnectErrorKind::Config, "{}", mode.as_str());
        }
        self.assert_rows(case, &[(1, "a")]);
        // Nothing was read and nothing is to be made of it.
        let committed = self.publish("refused/3", WriteMode::Append, &[], None).await;
        assert_eq!((committed.row_count, committed.changed), (1, false));
        self.assert_rows(case, &[(1, "a")]);
    }

    async fn odd_names_are_exact(&self) {
        let name = "odd\"; drop table \"x\"; -- é '";
        let schema = Schema::new(vec![Field::new(name, ArrowType::Utf8, true), Field::new("select", ArrowType::Utf8, true)]);
        let column: ArrayRef = Arc::new(StringArray::from(vec!["v'\"\u{1F600}"]));
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(&column), column]).expect("odd");
        let request = LoadRequest { table: table(name), ..Self::request("odd", WriteMode::Replace, &rows) };
        self.staged(request, rows).await.expect("odd").publish(Commit::default()).await.expect("odd");
        let value = Some("v'\"\u{1F600}".to_owned());
        assert_eq!((self.read)(&table(name)), Some(vec![vec![value.clone(), value]]));
    }
}

/// Runs every case for SQL backends.
pub async fn sql(connection: &dyn Connection, read: Reader<'_>) {
    let backend = connection.sql().expect("the connection runs SQL");
    let build = |case: &str, sql: &str, stored_as| BuildRequest {
        load: load_id(&format!("{case}/{stored_as:?}/{sql}")),
        table: table(case),
        sql: sql.to_owned(),
        stored_as,
        incremental: None,
        surrogate_key: None,
        layout: subak_domain::Layout::default(),
        at: "1970-01-01 00:00:00".to_owned(),
    };

    let query = &format!("select 1 as id, {} as note", backend.dialect().text_of("'a'"));
    let columns = backend.describe_query(query).await.expect("describe");
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "note"]);
    assert!(backend.describe_query("select * from no_such_table").await.is_err());

    for (case, stored_as) in [("built_table", StoredAs::Table), ("built_view", StoredAs::View)] {
        let mut staged = backend.build(build(case, query, stored_as)).await.expect(case);
        let found = staged
            .audit(&Audit::of(CheckRule::Sql { sql: "select * from {{ this }} where id = 1".to_owned() }))
            .await
            .expect(case);
        assert_eq!((found.bad_row_count, found.sample.as_slice()), (1, &["id=1, note=a".to_owned()][..]), "{case}");
        drop(staged);
        assert_eq!((read)(&table(case)), None, "{case}: dropping published");
        let staged = backend.build(build(case, query, stored_as)).await.expect(case);
        staged.publish(Commit::default()).await.expect(case);
        assert_eq!((read)(&table(case)), Some(vec![vec![Some("1".to_owned()), Some("a".to_owned())]]), "{case}");
    }
    // A table becomes a view and a view a table, and a failed build leaves what was there.
    for (case, stored_as) in [("built_table", StoredAs::View), ("built_view", StoredAs::Table)] {
        let staged = backend.build(build(case, "select 2 as id", stored_as)).await.expect(case);
        staged.publish(Commit::default()).await.expect(case);
        assert_eq!((read)(&table(case)), Some(vec![vec![Some("2".to_owned())]]), "{case}");
        assert!(backend.build(build(case, "select * from no_such_table", stored_as)).await.is_err(), "{case}");
        assert_eq!((read)(&table(case)), Some(vec![vec![Some("2".to_owned())]]), "{case}");
    }
    let batches: Vec<_> = backend.query("select * from (select 1 as n) as t where n > 5").collect().await;
    assert!(matches!(batches.as_slice(), [Ok(batch)] if batch.num_rows() == 0), "an empty result still has its schema");
}

/// Reads a stream to its end and converts it to the declared types. The first reject is an error.
pub async fn read_all(source: &dyn Source, request: ReadRequest) -> Result<(Vec<Batch>, Option<Cursor>), ConnectError> {
    let (mut batches, mut cursor) = (Vec::new(), None);
    let columns = request.columns.clone();
    let mut items = source.read(request);
    while let Some(item) = items.next().await {
        match item? {
            SourceItem::Batch(batch) => {
                assert!(cursor.is_none(), "a batch after the cursor that covers it");
                batches.push(crate::convert::to_declared(batch, &columns)?);
            }
            SourceItem::Rejected(rejects) => {
                if let Some(reject) = rejects.first() {
                    return Err(reject.to_error());
                }
            }
            SourceItem::File(_) | SourceItem::Warning(_) => {}
            SourceItem::Cursor(value) => cursor = Some(value),
        }
    }
    Ok((batches, cursor))
}

/// Runs every case for sources, on a stream that has rows and a cursor column without NULLs whose highest value is `highest`,
/// shared by `tie_count` rows.
pub async fn source(source: &dyn Source, request: ReadRequest, highest: &Cursor, tie_count: usize) {
    let streams = source.discover().await.expect("discover");
    assert!(streams.windows(2).all(|pair| pair[0].name < pair[1].name), "streams are sorted");
    source.probe().await.expect("probe");

    let all = ReadRequest { cursor: Some(CursorBound::new(&highest.column, None)), ..request.clone() };
    let (batches, cursor) = read_all(source, all).await.expect("read");
    assert_eq!(cursor.as_ref(), Some(highest), "the cursor is the highest value");
    assert!(batches.windows(2).all(|pair| pair[0].records.schema() == pair[1].records.schema()), "one schema");
    let total: usize = batches.iter().map(Batch::row_count).sum();
    assert!(total > tie_count, "the stream has rows below its highest value");

    let bound = CursorBound::new(&highest.column, Some(highest.clone()));
    let (batches, cursor) = read_all(source, ReadRequest { cursor: Some(bound), ..request.clone() }).await.expect("read");
    assert_eq!(batches.iter().map(Batch::row_count).sum::<usize>(), tie_count, "the bound is inclusive");
    assert_eq!(cursor.as_ref(), Some(highest));

    let missing = ReadRequest { cursor: Some(CursorBound::new("no_such_column", None)), ..request.clone() };
    assert_eq!(read_all(source, missing).await.map(drop).map_err(|error| error.kind), Err(ConnectErrorKind::ColumnMissing));

    let mut abandoned = source.read(request);
    assert!(abandoned.next().await.is_some(), "a read yields at least one batch");
    drop(abandoned);
}
