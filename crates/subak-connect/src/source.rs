//! Reading: what a source can do, and nothing about runs.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::stream::BoxStream;
use subak_domain::{Column, Cursor, DataType};

use crate::{Batch, ConnectError};

/// One external system, open for reading. Holds a connection and no run state.
#[async_trait]
pub trait Source: Send + Sync {
    /// Lists the streams that can be read, in a stable order.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError>;
    /// Reads one stream from where `request` says. Dropping the result cancels the read.
    ///
    /// All batches have the same schema, and there is at least one batch, which may be empty, so that a reader learns the schema.
    /// What is read is one consistent state of the stream. When the request has a cursor, a [`SourceItem::Cursor`] comes last,
    /// unless no row has a value in its column.
    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>>;
    /// Proves that the connection works. Override where listing streams is expensive.
    async fn probe(&self) -> Result<(), ConnectError> {
        self.discover().await.map(drop)
    }
}

/// One readable collection of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its columns, where the source knows them without reading everything.
    pub columns: Vec<Column>,
    /// Columns that identify a row; empty where the source names none.
    pub primary_key: Vec<String>,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// The stream.
    pub stream: String,
    /// The connector's own options for this stream.
    pub options: BTreeMap<String, String>,
    /// Declared types. A source may use them to decode values exactly; whoever reads converts what it did not.
    pub columns: BTreeMap<String, DataType>,
    /// Reads only rows whose value in this column is at or above the bound.
    pub cursor: Option<CursorBound>,
}

/// The part of a stream that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorBound {
    /// The cursor column.
    pub column: String,
    /// The lowest wanted value, inclusive; `None` reads everything, rows without a value included.
    pub from: Option<Cursor>,
}

/// What a read yields. A cursor covers every batch before it and none after it.
#[derive(Debug, Clone)]
pub enum SourceItem {
    /// Rows.
    Batch(Batch),
    /// The highest value of the cursor column so far.
    Cursor(Cursor),
}
