//! Files on a local disk: CSV, JSON, NDJSON and Parquet, plain or compressed, one or many per stream.

mod csv;
mod debezium;
mod input;
mod json;
mod options;
mod parquet;
mod sheet;
mod store;
#[cfg(feature = "duckdb")]
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType as ArrowType, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use futures::stream::BoxStream;
use subak_connect::blocking::{Producer, Stopped};
use subak_connect::cursor::Tracker;
use subak_connect::types::{Fate, Stored};
use subak_connect::{
    Abilities, Batch, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Field, FieldKind, FileMark, FileStore,
    OpenRequest, Origin, ReadRequest, Reject, Source, SourceItem, StreamInfo, TableName, blocking, convert,
};
use subak_domain::sensor::FoundFile;
use subak_domain::{Column, DataType, Writes};

use self::input::Input;
use self::options::{Format, Options};
use self::store::{Object, Store};

/// Files of loads that are under way begin with this.
const STAGE_PREFIX: &str = ".__subak_stage_";

/// The folder, below that of the connection, with what is known of loads.
const LEDGER: &str = ".subak_tables";

/// The connector.
#[derive(Debug)]
pub struct Files;

#[async_trait]
impl Connector for Files {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn summary(&self) -> &'static str {
        "Files on a local disk or in an object store: reads CSV, JSON, NDJSON, Parquet, spreadsheets and Debezium events, plain, gzip, zstd or zip; writes tables as Parquet"
    }

    fn config(&self) -> ConfigSchema {
        const PATH: Field = Field {
            name: "path",
            kind: FieldKind::Path,
            is_required: false,
            doc: "The folder in which stream patterns start, and in which tables are written: `b.t` as `b/t.parquet`. By default the project's folder.",
        };
        const STORE: [Field; 6] = store::FIELDS;
        const CONNECTION: &[Field] = &[PATH, STORE[0], STORE[1], STORE[2], STORE[3], STORE[4], STORE[5]];
        ConfigSchema { connection: CONNECTION, stream: options::FIELDS }
    }

    fn abilities(&self) -> Abilities {
        // Checks on tables are evaluated by DuckDB.
        let writes = if cfg!(feature = "duckdb") { Writes::WholeTables } else { Writes::Nothing };
        Abilities { source: true, writes, schemas: true, files: true, ..Abilities::default() }
    }

    fn stores(&self, data_type: DataType) -> Option<Stored> {
        let word = match data_type {
            DataType::Boolean => "BOOLEAN".to_owned(),
            DataType::SmallInt => "INT(16)".to_owned(),
            DataType::Integer => "INT32".to_owned(),
            DataType::BigInt => "INT64".to_owned(),
            DataType::UnsignedBigInt => "UINT(64)".to_owned(),
            DataType::Real => "FLOAT".to_owned(),
            DataType::Double => "DOUBLE".to_owned(),
            DataType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            DataType::Text | DataType::Json | DataType::Uuid => "STRING".to_owned(),
            DataType::Bytes => "BYTE_ARRAY".to_owned(),
            DataType::Date => "DATE".to_owned(),
            DataType::Time => "TIME(MICROS)".to_owned(),
            DataType::DateTime => "TIMESTAMP(MICROS)".to_owned(),
            DataType::Timestamp => "TIMESTAMP(MICROS, UTC)".to_owned(),
        };
        let fate = if matches!(data_type, DataType::Json | DataType::Uuid) { Fate::Widened } else { Fate::Exact };
        (self.abilities().writes != Writes::Nothing).then_some(Stored { word, fate })
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        let store = Store::open(&request)?;
        let root = store.as_ref().map_or_else(|| request.config.get("path").unwrap_or("."), |store| &store.url);
        Ok(Arc::new(Folder {
            root: PathBuf::from(root),
            store,
            name: request.name.as_str().into(),
            temporary: request.temporary.into(),
        }))
    }
}

#[derive(Debug, Clone)]
struct Folder {
    /// The folder, or the address of the store.
    root: PathBuf,
    /// Where the files are, when that is no folder.
    store: Option<Store>,
    name: Arc<str>,
    /// Where temporary files go.
    temporary: Arc<Path>,
}

impl Connection for Folder {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn FileStore> {
        Some(self)
    }

    #[cfg(feature = "duckdb")]
    fn sink(&self) -> Option<&dyn subak_connect::Sink> {
        Some(self)
    }
}

#[async_trait]
impl FileStore for Folder {
    async fn list(&self, pattern: &str, count_max: usize) -> Result<Vec<FoundFile>, ConnectError> {
        let (folder, pattern) = (self.clone(), pattern.to_owned());
        blocking::run(move || {
            folder.exists()?;
            let found = find(&folder, &pattern)?;
            if found.len() > count_max {
                let message = format!("{} files match `{pattern}`, and {count_max} are the most", found.len());
                return Err(ConnectError::new(ConnectErrorKind::Resource, message)
                    .help("move files that are done into another folder, or write a pattern that names fewer"));
            }
            // One that has gone since is none.
            let found = found.iter().map(|file| file.found(&folder.root)).filter_map(Result::transpose);
            found.collect()
        })
        .await
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
            if let Some(store) = &folder.store {
                // What the columns are would need the objects themselves.
                let known = store.find("**/*")?.into_iter().filter(|object| Format::of(Path::new(&object.key)).is_some());
                let stream = |object: Object| StreamInfo { name: object.key, columns: Vec::new(), primary_key: Vec::new() };
                return Ok(known.map(stream).collect());
            }
            for path in input::find(&folder.root, "**/*")? {
                if Format::of(&path).is_none() || !path.is_file() {
                    continue;
                }
                let name = path.strip_prefix(&folder.root).unwrap_or(&path).display().to_string();
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

    fn stream_of(&self, table: &TableName) -> String {
        let parts: Vec<&str> = table.schema.as_deref().into_iter().chain([table.name.as_str()]).collect();
        format!("{}.parquet", parts.join("/"))
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        let folder = self.clone();
        blocking::run(move || folder.store.as_ref().map_or_else(|| folder.exists(), Store::probe)).await
    }
}

impl Folder {
    fn exists(&self) -> Result<(), ConnectError> {
        if self.store.is_some() || self.root.is_dir() {
            return Ok(());
        }
        let message = format!("connection `{}`: the folder `{}` does not exist", self.name, self.root.display());
        Err(ConnectError::new(ConnectErrorKind::NotFound, message))
    }
}

fn columns_of(path: &Path) -> Result<Vec<Column>, ConnectError> {
    let options = Options::of(path.to_path_buf());
    let text = |name: String| Column { name, data_type: DataType::Text };
    Ok(match options.format(path) {
        Some(Format::Csv) => csv::header(&Input::open(path)?, &options)?.names.into_iter().map(text).collect(),
        Some(Format::Sheet) => sheet::header(&Input::open(path)?, &options)?.into_iter().map(text).collect(),
        Some(Format::Parquet) => convert::columns_of(parquet::schema(path)?.as_ref()),
        _ => Vec::new(),
    })
}

/// Rejects that wait to be sent.
const REJECT_COUNT_MAX: usize = 1000;

/// Takes batches of one format and sends them on, bounded by the cursor.
pub(crate) struct Output<'a> {
    request: &'a ReadRequest,
    producer: &'a Producer<SourceItem>,
    folder: &'a Path,
    options: &'a Options,
    tracker: Option<Tracker>,
    rejects: Vec<Reject>,
    /// Marks of the files that are read, where the reader of the stream wants them.
    marks: Vec<FileMark>,
    is_empty: bool,
}

impl Output<'_> {
    /// The path of a file below the folder of the connection.
    fn relative(&self, file: Option<&Arc<str>>) -> Option<Arc<str>> {
        let file = Path::new(file?.as_ref());
        Some(file.strip_prefix(self.folder).unwrap_or(file).display().to_string().into())
    }

    fn send(&mut self, mut batch: Batch) -> Result<(), Stopped> {
        self.flush_rejects()?;
        batch.origin.path = self.relative(batch.origin.file.as_ref());
        batch.records = self.with_origin(batch.records, &batch.origin)?;
        if let Some(tracker) = &mut self.tracker {
            tracker.keep(&mut batch, &self.request.columns)?;
        }
        self.is_empty = false;
        Ok(self.producer.send(SourceItem::Batch(batch))?)
    }

    /// The rows with the columns that say where they came from, where those are wanted.
    fn with_origin(&self, records: RecordBatch, origin: &Origin) -> Result<RecordBatch, ConnectError> {
        let (line, file) = (&self.options.line_column, &self.options.file_column);
        if line.is_none() && file.is_none() {
            return Ok(records);
        }
        let schema = records.schema();
        let mut fields: Vec<arrow::datatypes::FieldRef> = schema.fields().iter().cloned().collect();
        let mut arrays = records.columns().to_vec();
        let row_count = records.num_rows();
        if let Some(name) = line {
            let lines =
                (0..row_count).map(|row| origin.lines.as_ref().and_then(|lines| lines.get(row)).map(|line| line.cast_signed()));
            fields.push(Arc::new(arrow::datatypes::Field::new(name, ArrowType::Int64, true)));
            arrays.push(Arc::new(lines.collect::<Int64Array>()));
        }
        if let Some(name) = file {
            let path = origin.path.as_deref();
            fields.push(Arc::new(arrow::datatypes::Field::new(name, ArrowType::Utf8, true)));
            arrays.push(Arc::new(StringArray::from(vec![path; row_count])));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
        RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "rows and their places do not fit together").because(error)
        })
    }

    fn refuse(&mut self, mut reject: Reject) -> Result<(), Stopped> {
        reject.path = self.relative(reject.file.as_ref());
        self.rejects.push(reject);
        if self.rejects.len() >= REJECT_COUNT_MAX { self.flush_rejects() } else { Ok(()) }
    }

    fn flush_rejects(&mut self) -> Result<(), Stopped> {
        if self.rejects.is_empty() {
            return Ok(());
        }
        Ok(self.producer.send(SourceItem::Rejected(std::mem::take(&mut self.rejects)))?)
    }

    fn warn(&self, warning: String) -> Result<(), Stopped> {
        Ok(self.producer.send(SourceItem::Warning(warning))?)
    }

    /// A file was read to its end.
    fn end_file(&mut self, input: &Input) -> Result<(), Stopped> {
        self.flush_rejects()?;
        input.refuse_if_changed()?;
        if let Some(at) = self.marks.iter().position(|mark| mark.path == input.relative(self.folder)) {
            let mark = self.marks.swap_remove(at);
            // Its bytes are those that were hashed before it was read.
            self.producer.send(SourceItem::File(mark))?;
        }
        Ok(())
    }
}

/// A file that a stream names: on the disk, or in a store.
enum Named {
    File(PathBuf),
    Object(Object),
}

impl Named {
    /// Its path, which says its format.
    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Object(object) => Path::new(&object.key),
        }
    }

    /// What can be seen of it from outside; `None` when it is gone.
    fn found(&self, root: &Path) -> Result<Option<FoundFile>, ConnectError> {
        let path = match self {
            Self::File(path) => path,
            Self::Object(object) => return Ok(Some(object.found())),
        };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("cannot look at `{}`", path.display());
                return Err(ConnectError::io(ConnectErrorKind::Read, message, error));
            }
        };
        let modified_at = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        Ok(Some(FoundFile {
            path: path.strip_prefix(root).unwrap_or(path).display().to_string(),
            bytes: metadata.len(),
            modified_at: modified_at.map_or(0, jiff::Timestamp::as_microsecond),
        }))
    }
}

/// The files that a pattern names.
fn find(folder: &Folder, pattern: &str) -> Result<Vec<Named>, ConnectError> {
    if let Some(store) = &folder.store {
        return Ok(store.find(pattern)?.into_iter().map(Named::Object).collect());
    }
    let mut paths = input::find(&folder.root, pattern)?;
    paths.retain(|path| path.is_file());
    Ok(paths.into_iter().map(Named::File).collect())
}

/// What is to be read of a stream.
struct Wanted {
    inputs: Vec<Input>,
    /// The marks of the inputs, where marks are wanted.
    marks: Vec<FileMark>,
    /// Holds copies of objects as long as they are read.
    _copies: Option<tempfile::TempDir>,
}

/// The files of a stream that are to be read.
fn wanted(folder: &Folder, files: &[Named], request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<Wanted, Stopped> {
    let (mut inputs, mut marks) = (Vec::new(), Vec::new());
    let failed = |error| ConnectError::io(ConnectErrorKind::Resource, "there is no temporary folder for objects", error);
    let copies = folder
        .store
        .as_ref()
        .map(|_| tempfile::Builder::new().prefix("objects_").tempdir_in(&folder.temporary).map_err(failed))
        .transpose()?;
    for file in files {
        let (mut input, object) = match (file, &folder.store) {
            (Named::Object(object), Some(store)) => (object.input(store), Some((object, store))),
            (file, _) => (Input::open(file.path())?, None),
        };
        let known = request.known_files.as_ref();
        if known.is_some_and(|known| known.files.iter().any(|mark| input.is_marked(mark, &folder.root))) {
            continue;
        }
        if let (Some((object, store)), Some(copies)) = (object, &copies) {
            input.path = store.fetch(object, copies.path())?;
        }
        let Some(known) = known else {
            inputs.push(input);
            continue;
        };
        let mark = input.mark(&folder.root)?;
        input.refuse_if_changed()?;
        let twin = known.files.iter().chain(&marks).find(|other| other.hash == mark.hash);
        if let Some(twin) = twin {
            if twin.path != mark.path {
                let warning = format!("`{}` has the content of `{}`, which is loaded; it is left out", mark.path, twin.path);
                producer.send(SourceItem::Warning(warning))?;
            }
            producer.send(SourceItem::File(mark))?;
            continue;
        }
        if known.refuses_changed && known.files.iter().any(|other| other.path == mark.path) {
            let message = format!("`{}` was loaded before, and its content is another one now", input.name);
            let help = "give a changed delivery a name of its own, use `mode: merge` with a `primary_key:`, or rebuild the table with `--full-refresh`";
            return Err(ConnectError::new(ConnectErrorKind::Malformed, message).help(help).into());
        }
        marks.push(mark);
        inputs.push(input);
    }
    Ok(Wanted { inputs, marks, _copies: copies })
}

fn read_stream(folder: &Folder, request: &ReadRequest, producer: &Producer<SourceItem>) -> Result<(), Stopped> {
    folder.exists()?;
    let options = Options::parse(&request.stream, &request.options)?;
    let files = find(folder, &options.pattern)?;
    if files.is_empty() && !options.may_be_empty {
        let message = format!("no file matches `{}` in `{}`", options.pattern, folder.root.display());
        let error = ConnectError::new(ConnectErrorKind::NoFiles, message);
        return Err(error.help("correct `path:`, deliver the file, or set `if_no_files: skip`").into());
    }
    if files.is_empty() {
        return Ok(());
    }
    let format = format_of(&files, &options)?;
    let Wanted { inputs, marks, _copies } = wanted(folder, &files, request, producer)?;
    let tracker = request.cursor.clone().map(Tracker::new);
    let mut output = Output {
        request,
        producer,
        folder: &folder.root,
        options: &options,
        tracker,
        rejects: Vec::new(),
        marks,
        is_empty: true,
    };
    match format.filter(|_| !inputs.is_empty()) {
        None => {}
        Some(Format::Csv) => csv::read(&inputs, &options, &mut output)?,
        Some(Format::Json | Format::Ndjson) => json::read(&inputs, &options, request, &mut output)?,
        Some(Format::Sheet) => sheet::read(&inputs, &options, request, &mut output)?,
        Some(Format::Parquet) => parquet::read(&inputs, &mut output)?,
    }
    output.flush_rejects()?;
    let is_known = request.known_files.as_ref().is_some_and(|known| !known.files.is_empty());
    if output.is_empty && is_known && inputs.is_empty() {
        // Every file was loaded before: what their columns are is known to whoever has the table.
        return Ok(());
    }
    if output.is_empty {
        let fields = request
            .columns
            .iter()
            .map(|(name, data_type)| arrow::datatypes::Field::new(name, convert::arrow_type(*data_type), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        output.tracker = None;
        output.send(Batch::new(RecordBatch::new_empty(Arc::new(schema))))?;
    } else {
        for item in output.tracker.take().into_iter().flat_map(Tracker::items) {
            producer.send(item)?;
        }
    }
    Ok(())
}

/// The one format of the files of a stream; `None` when there are no files.
fn format_of(files: &[Named], options: &Options) -> Result<Option<Format>, ConnectError> {
    let mut found: Option<(Format, &Path)> = None;
    for path in files.iter().map(Named::path) {
        let unclear = || {
            let message = format!("the format of `{}` is not clear from its name", path.display());
            ConnectError::new(ConnectErrorKind::Config, message).help("set `format: csv`, `json`, `ndjson`, `parquet` or `xlsx`")
        };
        let format = options.format(path).ok_or_else(unclear)?;
        // Lines and documents are told apart file by file.
        let same = |a: Format, b: Format| {
            a == b || (matches!(a, Format::Json | Format::Ndjson) && matches!(b, Format::Json | Format::Ndjson))
        };
        match found {
            Some((other, first)) if !same(other, format) => {
                let message = format!("`{}` and `{}` have different formats", first.display(), path.display());
                let help = "load them as two streams, or correct `path:`";
                return Err(ConnectError::new(ConnectErrorKind::Config, message).help(help));
            }
            Some(_) => {}
            None => found = Some((format, path)),
        }
    }
    Ok(found.map(|(format, _)| format))
}

#[cfg(test)]
mod suites;
#[cfg(test)]
mod tests;
