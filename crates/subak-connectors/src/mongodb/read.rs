//! Reading a collection.
//!
//! The types of columns follow from all documents, so a read goes through them twice. They are asked for once: what comes is kept as it is, in
//! memory while it is little and in a temporary file when it is more, and then taken apart.

use std::borrow::Cow;

use async_trait::async_trait;
use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{Document, doc};
use futures::stream::BoxStream;
use mongodb::options::{Collation, ReadConcern as Level};
use subak_connect::{ConnectError, ConnectErrorKind, Field, FieldKind, ReadRequest, Source, SourceItem, StreamInfo, blocking};

use super::error::failed;
use super::{ReadConcern, Server, filter, values};
use crate::records::Record;
use crate::spool::{Refused, Spool};

/// The keys that a stream knows.
pub(super) const FIELDS: &[Field] = &[
    Field::new(
        "where",
        FieldKind::Text,
        false,
        "A filter as MongoDB's Extended JSON, which the server evaluates: `{\"status\": \"PAID\", \"at\": {\"$gte\": {\"$date\": \"2025-01-01T00:00:00Z\"}}}`.",
    ),
    Field::new(
        "limit",
        FieldKind::Integer,
        false,
        "How many documents are read at most, whichever they are: for trying things out. Not with a cursor.",
    ),
];

/// Takes notice of a document and keeps it.
fn take(spool: &mut Spool, document: &RawDocument) -> Result<(), ConnectError> {
    spool.shapes.begin_record();
    for (at, element) in document.iter_elements().enumerate() {
        // What is broken is refused when it is taken apart.
        let Ok(element) = element else { break };
        let Ok((kind, is_misfit)) = element.value().map_err(|_| String::new()).and_then(|value| values::kind_of(&value)) else {
            break;
        };
        spool.shapes.note(at, element.key().as_str(), kind, is_misfit);
    }
    spool.keep(document.as_bytes())
}

/// A document as a record.
fn record_of(document: &RawDocument) -> Result<Record<'_>, String> {
    let mut record = Record::new();
    for element in document.iter_elements() {
        let element = element.map_err(|error| values::broken(&error))?;
        let name = element.key().as_str();
        let value = element.value().map_err(|error| values::broken(&error)).and_then(values::value_of);
        record.push((Cow::Borrowed(name), value.map_err(|what| format!("the value of `{name}` {what}"))?));
    }
    Ok(record)
}

/// The record of what was kept; else what is wrong with it, and how it can be shown.
fn decode(bytes: &[u8]) -> Result<Record<'_>, Refused> {
    let document = RawDocument::from_bytes(bytes).map_err(|error| values::broken(&error));
    document.and_then(record_of).map_err(|reason| {
        let shown = RawDocument::from_bytes(bytes).map_or_else(|_| String::new(), |document| format!("{document:?}"));
        Refused { reason, row: serde_json::Value::from(shown).to_string() }
    })
}

/// The stream's own options.
fn options_of(request: &ReadRequest) -> Result<(Option<Document>, Option<i64>), ConnectError> {
    let option = |name: &str| request.options.get(name).map(String::as_str).filter(|text| !text.trim().is_empty());
    let wrong = |what: &str| ConnectError::new(ConnectErrorKind::Config, format!("stream `{}`: {what}", request.stream));
    let filter = option("where").map(|text| {
        let what = "`where` must be a filter of MongoDB as a JSON object";
        let json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|error| wrong(what).because(error))?;
        Document::try_from(json).map_err(|error| wrong(what).because(error.to_string()))
    });
    let limit = option("limit").map(|text| {
        let limit = text.parse::<i64>().ok().filter(|limit| *limit > 0);
        limit.ok_or_else(|| wrong("`limit` must be a number of documents above 0"))
    });
    let limit = limit.transpose()?;
    if limit.is_some() && request.cursor.is_some() {
        return Err(
            wrong("it has a cursor, and `limit` would leave out documents that it passes").help("remove `limit:`, or the cursor")
        );
    }
    Ok((filter.transpose()?, limit))
}

/// Asks for the documents and keeps them.
async fn fetch(server: &Server, request: &ReadRequest) -> Result<Spool, ConnectError> {
    let message = format!("cannot read `{}`", request.stream);
    let (condition, limit) = options_of(request)?;
    let can_snapshot = server.ping().await?;
    let database = server.database();
    let named = database.list_collections().filter(doc! { "name": &request.stream }).authorized_collections(true);
    let mut named = named.await.map_err(|error| failed(&message, &error))?;
    if !named.advance().await.map_err(|error| failed(&message, &error))? {
        // The server takes a collection that is not there for an empty one.
        let error = ConnectError::new(ConnectErrorKind::NotFound, format!("there is no stream `{}`", request.stream));
        return Err(error.help(format!("`subak discover {}` lists the collections of {}", server.name, server.place)));
    }
    let is_snapshot = match server.read_concern {
        ReadConcern::Snapshot => true,
        ReadConcern::Unsaid => can_snapshot,
        ReadConcern::Majority | ReadConcern::Local => false,
    };
    let mut session = server.client.start_session().snapshot(is_snapshot).await.map_err(|error| failed(&message, &error))?;
    let compares_bytes = condition.is_none();
    let bounds = request.cursor.as_ref().and_then(|bound| filter::filter(bound, compares_bytes));
    let whole = match (condition, bounds) {
        (Some(condition), Some(bounds)) => doc! { "$and": [condition, bounds] },
        (one, other) => one.or(other).unwrap_or_default(),
    };
    let collection = database.collection::<RawDocumentBuf>(&request.stream);
    let mut find = collection.find(whole).no_cursor_timeout(false);
    if compares_bytes && request.cursor.is_some() {
        find = find.collation(Collation::builder().locale("simple".to_owned()).build());
    }
    if let Some(limit) = limit {
        find = find.limit(limit);
    }
    if server.read_concern == ReadConcern::Majority {
        find = find.read_concern(Level::majority());
    }
    let mut cursor = find.session(&mut session).await.map_err(|error| failed(&message, &error))?;
    let mut spool = Spool::new(&server.temporary);
    while cursor.advance(&mut session).await.map_err(|error| failed(&message, &error))? {
        take(&mut spool, cursor.current())?;
    }
    Ok(spool)
}

#[async_trait]
impl Source for Server {
    /// Lists the collections and views of the database. Documents have no declared columns, so none are named.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let names = self.database().list_collection_names().await.map_err(|error| failed("cannot list collections", &error))?;
        let mut streams: Vec<StreamInfo> = names
            .into_iter()
            .filter(|name| !name.starts_with("system."))
            .map(|name| StreamInfo { name, columns: Vec::new(), primary_key: vec!["_id".to_owned()] })
            .collect();
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(streams)
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let server = self.clone();
        blocking::produce_async(move |producer| async move {
            let spool = fetch(&server, &request).await?;
            spool.send(&request, &producer, decode).await
        })
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        self.ping().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use bson::{Bson, DateTime};
    use futures::StreamExt;
    use subak_connect::{ConnectionConfig, CursorBound, OpenRequest, conformance, convert};
    use subak_domain::{Cursor, DataType};
    use subak_testkit::MongoDouble;

    use super::*;

    async fn server(double: &MongoDouble, temporary: &std::path::Path) -> Server {
        let mut config = ConnectionConfig::default();
        config.values.insert("uri".to_owned(), double.uri());
        config.values.insert("database".to_owned(), "shop".to_owned());
        let request =
            OpenRequest { name: "shop".to_owned(), config, temporary: temporary.to_path_buf(), ..OpenRequest::default() };
        Server::new(&request).await.expect("a configuration")
    }

    fn cursor(value: &str, data_type: DataType) -> Cursor {
        Cursor { column: "v".into(), value: value.into(), data_type }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        let double = MongoDouble::start();
        let folder = tempfile::tempdir().expect("a folder");
        let documents = (0..50_000_i64).map(|id| doc! { "_id": id, "id": id, "note": "x" });
        double.insert("shop", "src", documents.chain([doc! { "_id": 50_000_i64, "id": 49_999_i64, "note": "tie" }]));
        double.insert("shop", "system.views", [doc! { "_id": 1 }]);
        double.insert("shop", "a", [doc! { "_id": 1 }]);
        let server = server(&double, folder.path()).await;
        let highest = Cursor { column: "id".into(), value: "49999".into(), data_type: DataType::BigInt };
        let request = ReadRequest { stream: "src".into(), ..ReadRequest::default() };
        conformance::source(&server, request, &highest, 2).await;
        let names: Vec<String> = server.discover().await.expect("streams").into_iter().map(|stream| stream.name).collect();
        assert_eq!(names, ["a", "src"]);
    }

    /// The `_id`s that arrive, and how many documents the server sent for them.
    async fn ids(server: &Server, double: &MongoDouble, bound: CursorBound, declared: Option<DataType>) -> (Vec<String>, usize) {
        let columns = declared.map(|declared| (bound.column.clone(), declared)).into_iter().collect();
        let request = ReadRequest { stream: "mixed".into(), columns, cursor: Some(bound), ..ReadRequest::default() };
        double.commands();
        let filter = |command: &Document| command.get_document("filter").ok().filter(|_| command.contains_key("find")).cloned();
        let mut items = server.read(request);
        let mut ids = Vec::new();
        while let Some(item) = items.next().await {
            if let SourceItem::Batch(batch) = item.expect("an item") {
                let column = batch.records.column_by_name("_id").cloned();
                ids.extend(column.iter().flat_map(|array| (0..array.len()).map(|row| convert::text_at(array, row))));
            }
        }
        ids.sort();
        let filters: Vec<Document> = double.commands().iter().filter_map(filter).collect();
        let collection = server.database().collection::<Document>("mixed");
        let mut sent = collection.find(filters[0].clone()).await.expect("documents");
        let mut count = 0;
        while sent.advance().await.expect("documents") {
            count += 1;
        }
        (ids, count)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bounds_are_tested_by_the_server_and_lose_no_other_type() {
        let double = MongoDouble::start();
        let folder = tempfile::tempdir().expect("a folder");
        let day = |day: i64| Bson::DateTime(DateTime::from_millis(day * 86_400_000));
        double.insert("shop", "mixed", (0..100_i64).map(|n| doc! { "_id": format!("a{n:02}"), "v": day(n) }));
        double.insert("shop", "mixed", [doc! { "_id": "null", "v": Bson::Null }, doc! { "_id": "missing" }]);
        let server = server(&double, folder.path()).await;
        let from = |value: &str, data_type| CursorBound::new("v", Some(cursor(value, data_type)));
        let (found, sent) = ids(&server, &double, from("1970-04-09T00:00:00Z", DataType::Timestamp), None).await;
        assert_eq!((found.join(" "), sent), ("a98 a99 missing null".to_owned(), 5), "the server sends one day more");
        let closed = CursorBound {
            to: Some(cursor("1970-01-02T00:00:00Z", DataType::Timestamp)),
            without_nulls: true,
            ..from("1970-01-01T00:00:00Z", DataType::Timestamp)
        };
        let (found, sent) = ids(&server, &double, closed, None).await;
        assert_eq!((found.join(" "), sent), ("a00".to_owned(), 6));
        // Texts of dates stand in the order of time only when they are written so.
        double.insert(
            "shop",
            "mixed",
            [doc! { "_id": "b1", "v": "1970-04-09 10:00:00" }, doc! { "_id": "b2", "v": "1970-01-01 10:00:00" }],
        );
        let (found, sent) =
            ids(&server, &double, from("1970-04-09T00:00:00", DataType::DateTime), Some(DataType::DateTime)).await;
        assert_eq!((found.join(" "), sent), ("a98 a99 b1 missing null".to_owned(), 6));
        double.insert("shop", "mixed", [doc! { "_id": "c1", "v": "09/04/1970" }, doc! { "_id": "c2", "v": 5 }]);
        let (found, sent) =
            ids(&server, &double, from("1970-04-09T00:00:00", DataType::DateTime), Some(DataType::DateTime)).await;
        assert_eq!((found.join(" "), sent), ("a98 a99 b1 c1 c2 missing null".to_owned(), 8), "what is no time is looked at here");
        // Identifiers.
        let ids_from = CursorBound::new("_id", Some(Cursor { column: "_id".into(), ..cursor("b2", DataType::Text) }));
        let (found, sent) = ids(&server, &double, ids_from, None).await;
        assert_eq!((found.join(" "), sent), ("b2 c1 c2 missing null".to_owned(), 5));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn numbers_of_every_kind_are_bounded() {
        let double = MongoDouble::start();
        let folder = tempfile::tempdir().expect("a folder");
        double.insert(
            "shop",
            "mixed",
            [
                doc! { "_id": "a", "v": 1_i32 },
                doc! { "_id": "b", "v": 9_007_199_254_740_993_i64 },
                doc! { "_id": "c", "v": 2_i32 },
            ],
        );
        let server = server(&double, folder.path()).await;
        let from = |value: &str, data_type| CursorBound::new("v", Some(cursor(value, data_type)));
        assert_eq!(ids(&server, &double, from("9007199254740993", DataType::BigInt), None).await, (vec!["b".to_owned()], 1));
        double.insert("shop", "mixed", [doc! { "_id": "d", "v": f64::NAN }, doc! { "_id": "e", "v": 0.5 }]);
        let (found, sent) = ids(&server, &double, from("2", DataType::Double), Some(DataType::Double)).await;
        assert_eq!((found.join(" "), sent), ("b c d".to_owned(), 3), "what is no number is above every number");
    }
}
