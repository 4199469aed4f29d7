//! Files on a local disk: CSV, JSON, NDJSON and Parquet, plain or compressed, one or many per stream.

mod csv;
mod input;
mod json;
mod options;
mod parquet;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::cursor::Tracker;
use subak_connect::{
    Abilities, Batch, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Field, FieldKind, OpenRequest, Origin,
    ReadRequest, Source, SourceItem, StreamInfo, blocking, convert,
};
use subak_domain::{Column, DataType};

use self::input::Input;
use self::options::{Format, Options};

/// The connector.
#[derive(Debug)]
pub struct Files;

#[async_trait]
impl Connector for Files {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn summary(&self) -> &'static str {
        "Files on a local disk: CSV, JSON, NDJSON and Parquet, plain, gzip or zstd"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[Field {
            name: "path",
            kind: FieldKind::Path,
            is_required: false,
            doc: "The folder in which stream patterns start. By default the project's folder.",
        }];
        ConfigSchema { connection: CONNECTION, stream: options::FIELDS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { source: true, ..Abilities::default() }
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        let folder = PathBuf::from(request.config.get("path").unwrap_or("."));
        Ok(Arc::new(Folder { folder, name: request.name.as_str().into() }))
    }
}

#[derive(Debug, Clone)]
struct Folder {
    folder: PathBuf,
    name: Arc<str>,
}

impl Connection for Folder {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
}

#[async_trait]
impl Source for Folder {
    /// Lists the files of known formats directly in the folder and in the folders below it.
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        let folder = self.clone();
        blocking::run(move || {
            folder.exists()?;
            let mut streams = Vec::new();
            for path in input::find(&folder.folder, "**/*")? {
                if Format::of(&path).is_none() || !path.is_file() {
                    continue;
                }
                let name = path.strip_prefix(&folder.folder).unwrap_or(&path).display().to_string();
                let columns = columns_of(&path)?;
                streams.push(StreamInfo { name, columns, primary_key: Vec::new() });
            }
            streams.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(streams)
        })
        .await
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let folder = self.clone();
        blocking::produce(move |producer| read_stream(&folder, &request, producer))
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        self.exists()
    }
}

impl Folder {
    fn exists(&self) -> Result<(), ConnectError> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let message = format!("connection `{}`: the folder `{}` does not exist", self.name, self.folder.display());
        Err(ConnectError::new(ConnectErrorKind::NotFound, message))
    }
}

fn columns_of(path: &std::path::Path) -> Result<Vec<Column>, ConnectError> {
    let options = Options::of(path.to_path_buf());
    let text = |name: String| Column { name, data_type: DataType::Text };
    Ok(match options.format(path) {
        Some(Format::Csv) => csv::header(&Input::open(path)?, &options)?.into_iter().map(text).collect(),
        Some(Format::Parquet) => {
            let schema = parquet::schema(path)?;
            let column = |field: &arrow::datatypes::FieldRef| Column {
                name: field.name().clone(),
                data_type: convert::logical_type(field.data_type()),
            };
            schema.fields().iter().map(column).collect()
        }
        _ => Vec::new(),
    })
}

/// Takes batches of one format and sends them on: converted to the declared types, bounded by the cursor.
pub(crate) struct Output<'a> {
    request: &'a ReadRequest,
    producer: &'a Producer<SourceItem>,
    tracker: Option<Tracker>,
    is_empty: bool,
}

impl Output<'_> {
    fn send(&mut self, records: RecordBatch, origin: Origin) -> Result<(), Stopped> {
        let mut batch = convert::to_declared(Batch { records, origin }, &self.request.columns)?;
        if let Some(tracker) = &mut self.tracker {
            batch = Batch::new(tracker.take(&batch.records)?);
        }
        self.is_empty = false;
        Ok(self.producer.send(SourceItem::Batch(batch))?)
    }
}

fn read_stream(folder: &Folder, request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<(), Stopped> {
    folder.exists()?;
    let options = Options::parse(&request.stream, &request.options)?;
    let mut paths = input::find(&folder.folder, &options.pattern)?;
    paths.retain(|path| path.is_file());
    if paths.is_empty() && !options.may_be_empty {
        let message = format!("no file matches `{}` in `{}`", options.pattern, folder.folder.display());
        let error = ConnectError::new(ConnectErrorKind::NoFiles, message);
        return Err(error.help("correct `path:`, deliver the file, or set `if_no_files: skip`").into());
    }
    let mut inputs = Vec::new();
    for path in &paths {
        inputs.push(Input::open(path)?);
    }
    let tracker = request.cursor.clone().map(Tracker::new);
    let mut output = Output { request, producer, tracker, is_empty: true };
    match paths.first().map(|path| options.format(path)) {
        None => {}
        Some(None) => {
            let message = format!("the format of `{}` is not clear from its name", paths[0].display());
            return Err(ConnectError::new(ConnectErrorKind::Config, message)
                .help("set `format: csv`, `json`, `ndjson` or `parquet`")
                .into());
        }
        Some(Some(Format::Csv)) => csv::read(&inputs, &options, &mut output)?,
        Some(Some(Format::Json | Format::Ndjson)) => json::read(&inputs, &options, request, &mut output)?,
        Some(Some(Format::Parquet)) => parquet::read(&inputs, &mut output)?,
    }
    for input in &inputs {
        input.refuse_if_changed()?;
    }
    if output.is_empty {
        let fields = request
            .columns
            .iter()
            .map(|(name, data_type)| arrow::datatypes::Field::new(name, convert::arrow_type(*data_type), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        output.tracker = None;
        output.send(RecordBatch::new_empty(Arc::new(schema)), Origin::default())?;
    } else if let Some(cursor) = output.tracker.take().and_then(Tracker::highest) {
        producer.send(SourceItem::Cursor(cursor))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
