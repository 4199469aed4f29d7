//! What a destination says of the types is what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use subak_domain::{DataType, WriteMode};

use super::{load_id, read_all, table};
use crate::types::{EVERY, Fate, ReadAs};
use crate::{Batch, ConnectError, ConnectErrorKind, Connection, Connector, LoadRequest, ReadRequest, Source, TableName, convert};

/// Values of a type with its edges, as its texts.
fn edges(data_type: DataType) -> &'static [&'static str] {
    match data_type {
        DataType::Boolean => &["true", "false"],
        DataType::SmallInt => &["-32768", "32767"],
        DataType::Integer => &["-2147483648", "2147483647"],
        DataType::BigInt => &["-9223372036854775808", "9223372036854775807"],
        DataType::UnsignedBigInt => &["0", "18446744073709551615"],
        DataType::Real => &["0.1", "-3.4028235e38"],
        DataType::Double => &["0.1", "-1.7976931348623157e308"],
        DataType::Decimal { .. } => &["9999999999999999999999999999.9999999999", "-0.0000000001"],
        DataType::Text => &["", "Ünï \u{1f980} '\"\\\n\t"],
        DataType::Bytes => &["", "ab"],
        DataType::Date => &["1900-01-01", "2299-12-31"],
        DataType::Time => &["00:00:00", "23:59:59.999999"],
        DataType::DateTime => &["1900-01-01T00:00:00", "2299-12-31T23:59:59.999999"],
        DataType::Timestamp => &["1900-01-01T00:00:00Z", "2299-12-31T23:59:59.999999Z"],
        DataType::Json => &["{\"a\":[1,2.50,null]}", "\"x\""],
        DataType::Uuid => &["00010203-0405-0607-0809-0a0b0c0d0e0f"],
    }
}

/// Loads every type with its edges, and reads them back through the connection's own source.
pub async fn types(connection: &dyn Connection, connector: &dyn Connector) {
    for data_type in EVERY {
        let stored = connector.stores(data_type).unwrap_or_else(|| panic!("nothing says what becomes of {data_type}"));
        let texts: StringArray = edges(data_type).iter().map(|text| Some(*text)).chain([None]).collect();
        let values = convert::parse_texts(&texts, data_type, None).expect("values of the type");
        assert!(values.misfits.is_empty(), "{data_type}");
        let ids: ArrayRef = Arc::new((0..texts.len() as i64).map(Some).collect::<Int64Array>());
        let fields =
            vec![Field::new("id", ids.data_type().clone(), true), Field::new("v", values.array.data_type().clone(), true)];
        let records = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![ids, Arc::clone(&values.array)]).expect("rows");
        let name: String = data_type.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        let case = format!("type_{name}");
        let result = store(connection, &case, records).await;
        if stored.fate == Fate::Refused {
            assert!(result.is_err(), "{data_type} is to be refused");
            continue;
        }
        result.unwrap_or_else(|error| panic!("{data_type}: {error}"));
        let source = connection.source().expect("the connection has a source");
        let stream = source.stream_of(&table(&case));
        let declared =
            |columns: BTreeMap<String, DataType>| ReadRequest { stream: stream.clone(), columns, ..ReadRequest::default() };
        let (batches, _) =
            read_all(source, declared(BTreeMap::new())).await.unwrap_or_else(|error| panic!("{data_type}: {error}"));
        let schema = batches[0].records.schema();
        let own = convert::logical_type(schema.field_with_name("v").expect("the column").data_type());
        let is_same = own == data_type;
        assert_eq!(
            is_same,
            stored.fate != Fate::Widened,
            "{data_type} comes back as {own}, and is said to be {}",
            stored.fate.word()
        );
        let columns = BTreeMap::from([("v".to_owned(), data_type)]);
        let (batches, _) = read_all(source, declared(columns)).await.unwrap_or_else(|error| panic!("{data_type}: {error}"));
        let mut found: Vec<(String, Option<String>)> = Vec::new();
        for batch in &batches {
            let column = |name: &str| batch.records.column_by_name(name).expect("the column");
            let text = |array: &ArrayRef, row| (!array.is_null(row)).then(|| convert::text_at(array, row));
            found.extend((0..batch.row_count()).map(|row| (text(column("id"), row).unwrap_or_default(), text(column("v"), row))));
        }
        found.sort();
        let shown = |row: usize| (!values.array.is_null(row)).then(|| convert::text_at(&values.array, row));
        let expect: Vec<(String, Option<String>)> = (0..values.array.len()).map(|row| (row.to_string(), shown(row))).collect();
        assert_eq!(found, expect, "{data_type}");
    }
}

async fn store(connection: &dyn Connection, case: &str, records: RecordBatch) -> Result<(), ConnectError> {
    let sink = connection.sink().expect("the connection has a sink");
    let mut load = sink.begin(LoadRequest::new(load_id(case), table(case), records.schema(), WriteMode::Replace)).await?;
    load.write(Batch::new(records)).await?;
    load.stage().await?.publish(None.into()).await.map(drop)
}

/// Makes a table of each type that a source is said to read, and reads its edges: one that is kept, and one beyond the bounds where there are
/// some. `layout` is what a definition ends with.
pub async fn source_types(connection: &dyn Connection, connector: &dyn Connector, layout: &str) {
    assert!(!connector.reads().is_empty(), "nothing says what its types are read as");
    let mut differences = Vec::new();
    for (at, read_as) in connector.reads().iter().enumerate() {
        let mut expect = vec![format!("1 {} {:?}", read_as.edge.1, Some(read_as.data_type))];
        expect.extend(read_as.beyond.map(|_| format!("2 misfit {:?}", Some(read_as.data_type))));
        match edges_of(connection, &format!("source_type_{at}"), read_as, layout).await {
            Ok(found) if found == expect => {}
            Ok(found) => differences.push(format!("{}: {found:?} instead of {expect:?}", read_as.word)),
            Err(error) => differences.push(format!("{}: {error:?}", read_as.word)),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is read of the edges of a type, each in a table of its own: number, text and logical type.
async fn edges_of(connection: &dyn Connection, case: &str, read_as: &ReadAs, layout: &str) -> Result<Vec<String>, ConnectError> {
    let statements = connection.statements().expect("statements");
    let source = connection.source().expect("the connection has a source");
    let mut found = Vec::new();
    for (at, value) in [Some(read_as.edge.0), read_as.beyond].into_iter().flatten().enumerate() {
        let (id, table) = (at + 1, table(&format!("{case}_{at}")));
        let name = statements.dialect().table(&table);
        statements.execute(&format!("create table {name} (id integer, v {}) {layout}", read_as.word)).await?;
        statements.execute(&format!("insert into {name} values ({id}, {value})")).await?;
        // Nested values are compared in the form in which they are loaded.
        let columns = match read_as.data_type {
            DataType::Json => BTreeMap::from([("v".to_owned(), DataType::Json)]),
            _ => BTreeMap::new(),
        };
        let own = logical_type_of(source, &table).await?;
        let wanted = Some(BTreeSet::from(["v".to_owned()]));
        let request = ReadRequest { stream: source.stream_of(&table), columns, wanted, ..ReadRequest::default() };
        match read_all(source, request).await {
            // Where rows have no types of their own, the row is refused.
            Err(error) if id == 2 && error.kind == ConnectErrorKind::ValueMisfit => found.push(format!("2 misfit {own:?}")),
            Err(error) => return Err(error),
            Ok((batches, _)) => {
                for batch in batches.iter().filter(|batch| batch.row_count() == 1) {
                    let values = batch.records.column_by_name("v").expect("the column");
                    assert_eq!(batch.records.num_columns(), 1, "columns that nobody needs are not read");
                    let read = convert::logical_type(values.data_type());
                    assert!(
                        read_as.data_type == DataType::Json || Some(read) == own,
                        "{}: read as {read}, shown as {own:?}",
                        read_as.word
                    );
                    let is_misfit = values.is_null(0) && !batch.misfits_of(0).is_empty();
                    let text = if is_misfit { "misfit".to_owned() } else { convert::text_at(values, 0) };
                    found.push(format!("{id} {text} {own:?}"));
                }
            }
        }
    }
    Ok(found)
}

/// What the source says that the column is.
async fn logical_type_of(source: &dyn Source, table: &TableName) -> Result<Option<DataType>, ConnectError> {
    let stream = source.stream_of(table);
    let streams = source.discover().await?;
    let found = streams.into_iter().find(|found| found.name == stream);
    Ok(found.and_then(|found| found.columns.into_iter().find(|column| column.name == "v")).map(|column| column.data_type))
}
