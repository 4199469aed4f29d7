//! Tables as Parquet files: `b.t` is `b/t.parquet` below the folder of the connection, replaced as a whole.
//!
//! A load writes a file beside the table's and puts it in its place by renaming, so readers see the one or the other, and a reader that has
//! the old one open keeps it. The footer names the load; `.subak_tables/` holds what is known of the last load of each table, written before the
//! renaming and believed only when the footer agrees.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use subak_connect::sink::SAMPLE_ROW_COUNT_MAX;
use subak_connect::{
    Audit, AuditResult, Batch, Commit, Committed, ConnectError, ConnectErrorKind, Load, LoadRequest, Reject, Sink, Staged,
    StagedRows, TableInfo, TableName, blocking, convert, crash,
};
use subak_domain::{Column, LoadId, RowAccount, WriteMode};

use super::{Folder, LEDGER, STAGE_PREFIX};
use crate::FileAudits;
use crate::plain::{plain, plain_schema};

/// Keys in the footer of a table: the load that wrote it, and the hash of its data.
const LOAD_KEY: &str = "subak.load";
const CONTENT_KEY: &str = "subak.content";

/// Rows in a row group at most, and bytes of it in memory at most before it is written.
const ROW_GROUP_ROW_COUNT_MAX: usize = 512 * 1024;
const ROW_GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is known of the last load of a table.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// The version of this form.
    version: u32,
    load: String,
    schema: Option<String>,
    name: String,
    /// The load that the footer of the table names if this one was committed: another one where nothing changed.
    footer: String,
    written: u64,
    row_count: u64,
    overlap_count: u64,
    changed: bool,
    account: Option<RowAccount>,
}

/// The version of [`Entry`].
const ENTRY_VERSION: u32 = 1;

/// What the footer of a table says.
struct Footer {
    schema: Schema,
    row_count: u64,
    load: Option<String>,
    content: Option<String>,
}

fn read_failed(path: &Path, error: io::Error) -> ConnectError {
    ConnectError::io(ConnectErrorKind::Read, format!("cannot read `{}`", path.display()), error)
}

fn write_failed(path: &Path, error: io::Error) -> ConnectError {
    ConnectError::io(ConnectErrorKind::Write, format!("cannot write `{}`", path.display()), error)
}

fn encode_failed(path: &Path, error: parquet::errors::ParquetError) -> ConnectError {
    match error {
        parquet::errors::ParquetError::External(inner) if inner.is::<io::Error>() => match inner.downcast::<io::Error>() {
            Ok(inner) => write_failed(path, *inner),
            Err(inner) => ConnectError::new(ConnectErrorKind::Write, inner.to_string()),
        },
        error => ConnectError::new(ConnectErrorKind::Write, format!("cannot write `{}`", path.display())).because(error),
    }
}

/// The footer of a table; `None` when there is no file.
fn footer(path: &Path) -> Result<Option<Footer>, ConnectError> {
    if !path.try_exists().map_err(|error| read_failed(path, error))? {
        return Ok(None);
    }
    let reader = super::parquet::builder(path).map_err(|error| match error.kind {
        ConnectErrorKind::Malformed => error.help("move it away; the next run makes it anew"),
        _ => error,
    })?;
    let metadata = reader.metadata().file_metadata();
    let value = |key: &str| {
        let pairs = metadata.key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
    };
    Ok(Some(Footer {
        schema: Schema::new(reader.schema().fields().clone()),
        row_count: u64::try_from(metadata.num_rows()).unwrap_or(0),
        load: value(LOAD_KEY),
        content: value(CONTENT_KEY),
    }))
}

/// Makes what a folder holds durable.
fn sync_folder(path: &Path) -> Result<(), ConnectError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| write_failed(path, error))
}

/// Makes a folder, and those above it, durable.
fn make_folder(path: &Path) -> Result<(), ConnectError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(write_failed(path, error)),
        _ => sync_folder(parent),
    }
}

impl Folder {
    /// The file of a table.
    fn path_of(&self, table: &TableName) -> Result<PathBuf, ConnectError> {
        let mut path = self.root.clone();
        for part in table.schema.iter().chain([&table.name]) {
            if part.is_empty() || part.starts_with('.') || part.contains(['/', '\\', '\0']) {
                let message = format!("`{table}` cannot be the name of a file");
                return Err(ConnectError::new(ConnectErrorKind::Config, message));
            }
            path.push(part);
        }
        path.add_extension("parquet");
        Ok(path)
    }

    fn ledger(&self) -> PathBuf {
        self.root.join(LEDGER)
    }

    fn entries(&self) -> Result<Vec<Entry>, ConnectError> {
        let folder = self.ledger();
        let files = match fs::read_dir(&folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read_failed(&folder, error)),
        };
        let mut entries = Vec::new();
        for file in files {
            let path = file.map_err(|error| read_failed(&folder, error))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read(&path).map_err(|error| read_failed(&path, error))?;
                // One that cannot be read is believed no more: then its load is made again.
                entries.extend(serde_json::from_slice::<Entry>(&text).ok().filter(|entry| entry.version == ENTRY_VERSION));
            }
        }
        entries.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(entries)
    }

    /// The tables that were written here and are there.
    fn tables(&self) -> Result<Vec<(TableName, PathBuf)>, ConnectError> {
        let mut tables = Vec::new();
        for entry in self.entries()? {
            let table = TableName { schema: entry.schema, name: entry.name };
            let path = self.path_of(&table)?;
            if path.is_file() {
                tables.push((table, path));
            }
        }
        Ok(tables)
    }

    fn write_entry(&self, entry: &Entry) -> Result<(), ConnectError> {
        let folder = self.ledger();
        make_folder(&folder)?;
        let name = match &entry.schema {
            Some(schema) => format!("{schema}.{}", entry.name),
            None => entry.name.clone(),
        };
        let (path, stage) = (folder.join(format!("{name}.json")), folder.join(format!("{STAGE_PREFIX}{name}")));
        let text = serde_json::to_vec(entry).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "what is known of a load cannot be written").because(error)
        })?;
        let write = || {
            let mut file = File::create(&stage)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&stage, &path)
        };
        write().map_err(|error| write_failed(&path, error))?;
        sync_folder(&folder)
    }
}

#[async_trait]
impl Sink for Folder {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        let path = self.path_of(table)?;
        let footer = blocking::run(move || footer(&path)).await?;
        Ok(footer.map(|footer| TableInfo {
            schema: Arc::new(footer.schema),
            cursor: None,
            row_count: footer.row_count,
            row_count_committed: footer.load.map(|_| footer.row_count),
            files: Vec::new(),
        }))
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        let (folder, tables) = (self.clone(), tables.to_vec());
        blocking::run(move || {
            let mut existing = BTreeSet::new();
            for table in tables {
                if folder.path_of(&table)?.is_file() {
                    existing.insert(table);
                }
            }
            Ok(existing)
        })
        .await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        let (folder, load) = (self.clone(), load.clone());
        blocking::run(move || {
            let Some(entry) = folder.entries()?.into_iter().find(|entry| entry.load == load.as_str()) else { return Ok(None) };
            let path = folder.path_of(&TableName { schema: entry.schema, name: entry.name })?;
            let named = footer(&path)?.and_then(|footer| footer.load);
            if named.as_deref() != Some(entry.footer.as_str()) {
                return Ok(None);
            }
            // Whoever asks may have seen the publication fail after the renaming.
            sync_folder(path.parent().unwrap_or(&folder.root))?;
            Ok(Some(Committed {
                written: entry.written,
                row_count: entry.row_count,
                overlap_count: entry.overlap_count,
                changed: entry.changed,
                cursor: None,
                account: entry.account,
            }))
        })
        .await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        let folder = self.clone();
        blocking::run(move || FileLoad::begin(folder, request).map(|load| Box::new(load) as Box<dyn Load>)).await
    }

    async fn clean_up(&self) -> Result<u64, ConnectError> {
        let folder = self.clone();
        blocking::run(move || {
            let mut count = 0;
            let below = fs::read_dir(&folder.root).into_iter().flatten().flatten().map(|entry| entry.path());
            let folders: Vec<PathBuf> = below.filter(|path| path.is_dir()).chain([folder.root.clone()]).collect();
            for entry in folders.iter().flat_map(fs::read_dir).flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(STAGE_PREFIX) && remove_abandoned(&entry.path())? {
                    count += 1;
                }
            }
            Ok(count)
        })
        .await
    }
}

/// A file that hashes what is written to it.
struct Hashing {
    file: File,
    hasher: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file on its way, locked as long as somebody works on it; removed with the value unless it took its place.
struct StageFile {
    path: PathBuf,
    lock: File,
    is_kept: bool,
}

impl StageFile {
    /// Makes a file of its own: an attempt that was given up may still be writing to its one.
    fn create(folder: &Path, load: &LoadId) -> Result<(Self, File), ConnectError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{STAGE_PREFIX}{}_{}_{number}.parquet", load.tag(), std::process::id()));
            let create = || -> io::Result<Option<(File, File)>> {
                let file = File::options().write(true).create_new(true).open(&path)?;
                let lock = file.try_clone()?;
                match lock.lock() {
                    // Some network file systems know no locks; nothing is removed there.
                    Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
                    _ => {}
                }
                // Before it was locked, it looked abandoned.
                Ok(path.exists().then_some((file, lock)))
            };
            match create() {
                Ok(Some((file, lock))) => return Ok((Self { path, lock, is_kept: false }, file)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(write_failed(&path, error)),
            }
        }
    }

    /// Puts the file in the place of another one.
    fn rename(mut self, target: &Path) -> Result<(), ConnectError> {
        fs::rename(&self.path, target).map_err(|error| write_failed(target, error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for StageFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Best effort: what stays behind is found by `clean_up`.
            drop(fs::remove_file(&self.path));
        }
        drop(self.lock.unlock());
    }
}

/// Removes a stage file that nobody works on. `false` when somebody does, or it is gone.
fn remove_abandoned(path: &Path) -> Result<bool, ConnectError> {
    let remove = || -> io::Result<bool> {
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) => fs::remove_file(path).map(|()| true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map_err(|error| write_failed(path, error)),
    }
}

struct FileLoad {
    folder: Folder,
    request: LoadRequest,
    target: PathBuf,
    stage: StageFile,
    /// Taken while rows are encoded.
    writer: Option<ArrowWriter<Hashing>>,
    row_count: u64,
}

impl FileLoad {
    fn begin(folder: Folder, request: LoadRequest) -> Result<Self, ConnectError> {
        let needs_rows = request.mode != WriteMode::Replace && request.mode != WriteMode::Append;
        if needs_rows || request.latest.is_some() || !request.children.is_empty() || request.has_marks() || request.has_unique_key
        {
            let message = format!("`{}` is a Parquet file, and those are replaced as a whole", request.table);
            let help = "use `mode: replace`, or load into a database";
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help(help));
        }
        if folder.store.is_some() {
            let message = format!("`{}` cannot be written: tables are written to folders, not to object stores", request.table);
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help("use a connection with `path:`, or a database"));
        }
        let target = folder.path_of(&request.table)?;
        if footer(&target)?.is_some_and(|footer| footer.load.is_none()) {
            let message = format!("`{}` is there and was not written by Subak", target.display());
            let help = "move it away, or let the asset have another name; a load would replace it";
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help(help));
        }
        let parent = target.parent().unwrap_or(&folder.root).to_path_buf();
        make_folder(&parent)?;
        let (stage, file) = StageFile::create(&parent, &request.load)?;
        let out = Hashing { file, hasher: blake3::Hasher::new() };
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROW_COUNT_MAX))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
            .set_created_by(format!("subak {}", env!("CARGO_PKG_VERSION")))
            .build();
        let schema = Arc::new(plain_schema(&request.schema));
        let writer = ArrowWriter::try_new(out, schema, Some(properties)).map_err(|error| encode_failed(&stage.path, error))?;
        crash::point("load_begun");
        Ok(Self { folder, request, target, stage, writer: Some(writer), row_count: 0 })
    }
}

#[async_trait]
impl Load for FileLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        let gone = || ConnectError::new(ConnectErrorKind::Internal, "rows came after a row that could not be written");
        let mut writer = self.writer.take().ok_or_else(gone)?;
        let path = self.stage.path.clone();
        self.row_count += batch.row_count() as u64;
        let encode = move |records: RecordBatch| {
            writer.write(&plain(&records)?).map_err(|error| encode_failed(&path, error))?;
            crash::point("batch_staged");
            Ok(writer)
        };
        self.writer = Some(blocking::run(move || encode(batch.records)).await?);
        Ok(())
    }

    async fn write_child(&mut self, _: usize, _: Batch) -> Result<(), ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Internal, "a load without nested lists got one"))
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        match rejects.first() {
            None => Ok(()),
            Some(first) => Err(first.to_error().help("files have no quarantine: load into a database to keep such rows apart")),
        }
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        let staged = blocking::run(move || FileStaged::of(*self)).await?;
        crash::point("rows_staged");
        Ok(Box::new(staged))
    }
}

struct FileStaged {
    folder: Folder,
    request: LoadRequest,
    target: PathBuf,
    stage: StageFile,
    rows: StagedRows,
    /// The load that wrote the table, if the table holds these rows already.
    held_by: Option<String>,
    audits: Option<FileAudits>,
}

impl FileStaged {
    fn of(load: FileLoad) -> Result<Self, ConnectError> {
        let FileLoad { folder, request, target, stage, writer, row_count } = load;
        let gone = || ConnectError::new(ConnectErrorKind::Internal, "a load ended after a row that could not be written");
        let mut writer = writer.ok_or_else(gone)?;
        let failed = |error| encode_failed(&stage.path, error);
        writer.flush().map_err(failed)?;
        writer.sync().map_err(|error| write_failed(&stage.path, error))?;
        if writer.inner().hasher.count() != writer.bytes_written() as u64 {
            return Err(ConnectError::new(ConnectErrorKind::Internal, "bytes of a Parquet file were not hashed"));
        }
        // The footer comes after what is hashed: it names the load, and equal rows have other loads.
        let content = writer.inner().hasher.finalize().to_hex().to_string();
        writer.append_key_value_metadata(KeyValue::new(LOAD_KEY.to_owned(), request.load.to_string()));
        writer.append_key_value_metadata(KeyValue::new(CONTENT_KEY.to_owned(), content));
        let out = writer.into_inner().map_err(failed)?;
        out.file.sync_all().map_err(|error| write_failed(&stage.path, error))?;
        let mut staged = Self { folder, request, target, stage, rows: StagedRows::default(), held_by: None, audits: None };
        staged.held_by = staged.find_held(row_count)?;
        match &staged.held_by {
            Some(_) => staged.rows.overlap = row_count,
            None => staged.rows.written = row_count,
        }
        Ok(staged)
    }

    /// The load that wrote the table, if the table holds these rows already.
    fn find_held(&mut self, row_count: u64) -> Result<Option<String>, ConnectError> {
        let held = footer(&self.target)?;
        if self.request.mode == WriteMode::Append {
            // Nothing was read, and nothing is to be made of it: the table stays.
            return match held {
                Some(held) if row_count == 0 => Ok(Some(held.load.unwrap_or_default())),
                _ => {
                    let message = format!("`{}` is a Parquet file, and rows cannot be added to it", self.request.table);
                    Err(ConnectError::new(ConnectErrorKind::Config, message).help("use `mode: replace`"))
                }
            };
        }
        let (Some(held), Some(own)) = (held, footer(&self.stage.path)?) else { return Ok(None) };
        if held.schema != own.schema || held.row_count != own.row_count {
            return Ok(None);
        }
        let is_volatile = |name: &String| self.request.volatile.contains(name);
        let columns: Vec<String> =
            own.schema.fields().iter().map(|field| field.name().clone()).filter(|name| !is_volatile(name)).collect();
        let target = self.target.clone();
        let is_same = held.content == own.content
            || (!self.request.volatile.is_empty() && self.audits()?.has_rows_of(&target, &columns)?);
        Ok(is_same.then(|| held.load.unwrap_or_default()))
    }

    fn audits(&mut self) -> Result<&FileAudits, ConnectError> {
        // The rows as readers would see them.
        let preview = if self.request.mode == WriteMode::Append { &self.target } else { &self.stage.path };
        let audits = match self.audits.take() {
            Some(audits) => audits,
            None => FileAudits::open(&self.folder.temporary, preview)?,
        };
        Ok(self.audits.insert(audits))
    }
}

#[async_trait]
impl Staged for FileStaged {
    fn rows(&self) -> StagedRows {
        self.rows
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        Ok(convert::columns_of(&self.request.schema))
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        self.audits()?;
        let Some(audits) = self.audits.take() else { return Ok(AuditResult::default()) };
        let (folder, audit) = (self.folder.clone(), audit.clone());
        let (audits, result) = blocking::run(move || {
            let result = folder.tables().and_then(|tables| audits.audit(&audit, &tables, SAMPLE_ROW_COUNT_MAX));
            Ok((audits, result))
        })
        .await?;
        self.audits = Some(audits);
        result
    }

    async fn publish(self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        crash::point("before_publish");
        let Self { folder, request, target, stage, rows, held_by, audits, .. } = *self;
        blocking::run(move || {
            drop(audits);
            let changed = held_by.is_none();
            let row_count = if changed { rows.written } else { footer(&target)?.map_or(0, |footer| footer.row_count) };
            let committed = Committed {
                written: rows.written,
                row_count,
                overlap_count: rows.overlap,
                changed,
                cursor: commit.cursor,
                account: commit.account,
            };
            folder.write_entry(&Entry {
                version: ENTRY_VERSION,
                load: request.load.to_string(),
                schema: request.table.schema.clone(),
                name: request.table.name.clone(),
                footer: held_by.unwrap_or_else(|| request.load.to_string()),
                written: committed.written,
                row_count,
                overlap_count: committed.overlap_count,
                changed,
                account: committed.account,
            })?;
            crash::point("inside_publish");
            if changed {
                stage.rename(&target)?;
                sync_folder(target.parent().unwrap_or(&folder.root))?;
            }
            crash::point("after_publish");
            Ok(committed)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use subak_connect::conformance::{self, Rows};

    use super::*;

    #[tokio::test]
    async fn conforms() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder { root: root.path().join("lake"), store: None, name: "lake".into(), temporary: root.path().into() };
        fs::create_dir(&folder.root).expect("a folder");
        let reader = folder.clone();
        // By DuckDB's own reader of Parquet, not by ours.
        let read = move |table: &TableName| -> Option<Rows> {
            let path = reader.path_of(table).ok().filter(|path| path.exists())?;
            crate::read_parquet(&path)
        };
        conformance::whole_tables(&folder, &read).await;
        conformance::types(&folder, &super::super::Files).await;
        let staged = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(STAGE_PREFIX));
        let left: Vec<_> = fs::read_dir(folder.root.join("conformance")).expect("a folder").flatten().map(|e| e.path()).collect();
        assert!(!left.iter().any(|path| staged(path)), "{left:?}");
    }

    #[tokio::test]
    async fn a_load_whose_file_did_not_take_its_place_is_none() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder { root: root.path().into(), store: None, name: "lake".into(), temporary: root.path().into() };
        let entry = |load: &str| Entry {
            version: ENTRY_VERSION,
            load: load.to_owned(),
            schema: None,
            name: "t".to_owned(),
            footer: load.to_owned(),
            written: 1,
            row_count: 1,
            overlap_count: 0,
            changed: true,
            account: None,
        };
        // Killed between the ledger and the renaming.
        let load = LoadId::new(subak_domain::RunId::from_parts(1, 1), &subak_domain::StepId::check("t"), "1");
        folder.write_entry(&entry(load.as_str())).expect("an entry");
        assert_eq!(folder.committed(&load).await.expect("a look"), None);
        // Somebody removed the folder of the table.
        let gone = Entry { schema: Some("gone".to_owned()), ..entry(load.as_str()) };
        folder.write_entry(&gone).expect("an entry");
        fs::remove_file(folder.ledger().join("t.json")).expect("one entry is left");
        assert_eq!(folder.committed(&load).await.expect("a look"), None);
        // Killed while it wrote the ledger.
        fs::write(folder.ledger().join("u.json"), "{\"load\":").expect("half an entry");
        assert_eq!(folder.committed(&load).await.expect("a look"), None);
        for name in ["../t", "a/b", ".hidden", ""] {
            let table = TableName { schema: None, name: name.to_owned() };
            assert!(folder.path_of(&table).is_err(), "{name}");
        }
    }
}
