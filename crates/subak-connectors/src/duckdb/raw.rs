//! What the driver does not offer: inserting a stream of Arrow batches by a query, which reads texts where they stand and compresses on
//! every core. The driver's appender copies each text twice and works on one core.
//!
//! This is the only place with `unsafe` code: calls of DuckDB's C interface, each with the reason why it may be made.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::ffi_stream::FFI_ArrowArrayStream;
use arrow::record_batch::RecordBatchReader;
use duckdb::{Error, ffi};

/// An open database. Connections keep what they need of it and may live longer.
pub(super) struct Instance {
    database: ffi::duckdb_database,
    /// Set when it is closed, for whoever wants to open its file again.
    is_closed: Arc<AtomicBool>,
}

// SAFETY: DuckDB's handle of a database may be used from any thread; after `open` it is only read, until `drop` has it alone.
unsafe impl Send for Instance {}
// SAFETY: as above; connecting locks inside DuckDB.
unsafe impl Sync for Instance {}

fn failure(message: impl Into<String>) -> Error {
    Error::DuckDBFailure(ffi::Error::new(ffi::DuckDBError), Some(message.into()))
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| failure("Invalid Input Error: a text has a NUL in it"))
}

/// A message that DuckDB made for us.
fn owned(message: *mut std::os::raw::c_char) -> String {
    if message.is_null() {
        return "Unknown Error".to_owned();
    }
    // SAFETY: it is a C string that DuckDB made and gave to us; it is copied before it is freed, once.
    unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ffi::duckdb_free(message.cast());
        text
    }
}

/// Settings that a database is opened with.
struct Settings(ffi::duckdb_config);

impl Drop for Settings {
    fn drop(&mut self) {
        // SAFETY: made by `duckdb_create_config` and destroyed once.
        unsafe { ffi::duckdb_destroy_config(&raw mut self.0) }
    }
}

impl Instance {
    /// Opens a database with these settings.
    pub(super) fn open(path: &Path, settings: &[(String, String)]) -> Result<Arc<Self>, Error> {
        let mut config = Settings(ptr::null_mut());
        // SAFETY: the pointer is valid for the call, which fills it.
        if unsafe { ffi::duckdb_create_config(&raw mut config.0) } != ffi::DuckDBSuccess {
            return Err(failure("Out of Memory Error: no settings could be made"));
        }
        for (name, value) in settings {
            let (name, value) = (c_string(name)?, c_string(value)?);
            // SAFETY: the settings are live, and both texts outlive the call.
            if unsafe { ffi::duckdb_set_config(config.0, name.as_ptr(), value.as_ptr()) } != ffi::DuckDBSuccess {
                let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
                return Err(failure(format!("Invalid Input Error: `{value}` cannot be the setting `{name}`")));
            }
        }
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| failure("IO Error: the path has a NUL in it"))?;
        let (mut database, mut message) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: every pointer is valid for the call; the message is ours afterwards.
        let state = unsafe { ffi::duckdb_open_ext(path.as_ptr(), &raw mut database, config.0, &raw mut message) };
        if state != ffi::DuckDBSuccess {
            return Err(failure(owned(message)));
        }
        Ok(Arc::new(Self { database, is_closed: Arc::default() }))
    }

    /// Becomes true when it is closed.
    pub(super) fn is_closed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_closed)
    }

    /// A connection of the driver's.
    pub(super) fn connect(&self) -> Result<duckdb::Connection, Error> {
        // SAFETY: the database is open, and whoever holds connections holds the instance.
        unsafe { duckdb::Connection::open_from_raw(self.database) }
    }

    /// A connection for streams.
    pub(super) fn streaming(self: &Arc<Self>) -> Result<Streaming, Error> {
        let mut connection = ptr::null_mut();
        // SAFETY: the database is open, and the pointer is valid for the call.
        if unsafe { ffi::duckdb_connect(self.database, &raw mut connection) } != ffi::DuckDBSuccess {
            return Err(failure("Connection Error: no connection could be made"));
        }
        Ok(Streaming { connection, _instance: Arc::clone(self) })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: opened by `open` and closed once.
        unsafe { ffi::duckdb_close(&raw mut self.database) }
        self.is_closed.store(true, Ordering::Release);
    }
}

/// A connection that inserts streams. Statements run one at a time; [`Self::interrupt`] may come from any thread.
pub(super) struct Streaming {
    connection: ffi::duckdb_connection,
    _instance: Arc<Instance>,
}

// SAFETY: DuckDB locks a connection for each statement; it belongs to no thread.
unsafe impl Send for Streaming {}
// SAFETY: as above; `duckdb_interrupt` is made for other threads.
unsafe impl Sync for Streaming {}

impl Streaming {
    /// Runs one statement.
    pub(super) fn execute(&self, sql: &str) -> Result<(), Error> {
        let sql = c_string(sql)?;
        // SAFETY: an all-zero result is what `duckdb_query` expects to fill; the connection is open.
        let mut result: ffi::duckdb_result = unsafe { std::mem::zeroed() };
        // SAFETY: connection, text and result are valid for the call.
        let state = unsafe { ffi::duckdb_query(self.connection, sql.as_ptr(), &raw mut result) };
        let outcome = if state == ffi::DuckDBSuccess {
            Ok(())
        } else {
            // SAFETY: the result was filled; its message lives until it is destroyed and is copied before.
            let message = unsafe {
                let text = ffi::duckdb_result_error(&raw mut result);
                if text.is_null() { "Unknown Error".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            };
            Err(failure(message))
        };
        // SAFETY: filled above and destroyed once.
        unsafe { ffi::duckdb_destroy_result(&raw mut result) };
        outcome
    }

    /// Whether a text is one statement, and that one only asks for rows or for how they would be found. DuckDB reads it, and not we.
    pub(super) fn is_single_query(&self, sql: &str) -> Result<bool, Error> {
        let sql = c_string(sql)?;
        let mut extracted = ptr::null_mut();
        // SAFETY: connection and text are valid for the call, and the pointer is filled by it, also when it fails.
        let count = unsafe { ffi::duckdb_extract_statements(self.connection, sql.as_ptr(), &raw mut extracted) };
        let outcome = if count == 1 {
            let mut statement = ptr::null_mut();
            // SAFETY: there is a first statement; the pointer is filled by the call, also when it fails.
            let state = unsafe { ffi::duckdb_prepare_extracted_statement(self.connection, extracted, 0, &raw mut statement) };
            let outcome = if state == ffi::DuckDBSuccess {
                // SAFETY: the statement was prepared.
                let kind = unsafe { ffi::duckdb_prepared_statement_type(statement) };
                Ok(matches!(
                    kind,
                    ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SELECT
                        | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPLAIN
                ))
            } else {
                // SAFETY: the message lives until the statement is destroyed, and is copied before.
                let message = unsafe {
                    let text = ffi::duckdb_prepare_error(statement);
                    if text.is_null() { "Unknown Error".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
                };
                Err(failure(message))
            };
            // SAFETY: filled above and destroyed once.
            unsafe { ffi::duckdb_destroy_prepare(&raw mut statement) };
            outcome
        } else if count == 0 {
            // SAFETY: the message lives until the statements are destroyed, and is copied before.
            let message = unsafe {
                let text = ffi::duckdb_extract_statements_error(extracted);
                if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            };
            if message.is_empty() { Ok(false) } else { Err(failure(message)) }
        } else {
            Ok(false)
        };
        // SAFETY: filled above and destroyed once.
        unsafe { ffi::duckdb_destroy_extracted(&raw mut extracted) };
        outcome
    }

    /// Makes `view`, which reads `batches` once, in the schema that is current, and runs `work` while they can be read.
    pub(super) fn with_stream<T>(
        &self,
        view: &str,
        batches: Box<dyn RecordBatchReader + Send>,
        work: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let view = c_string(view)?;
        let mut stream = Box::new(FFI_ArrowArrayStream::new(batches));
        let pointer: *mut FFI_ArrowArrayStream = &raw mut *stream;
        // SAFETY: the handle that DuckDB expects is a pointer to a stream of the Arrow C interface, which this is. It stays where it is until
        // `work` is done; afterwards nothing reads the view, which names it.
        let state = unsafe { ffi::duckdb_arrow_scan(self.connection, view.as_ptr(), pointer.cast()) };
        if state != ffi::DuckDBSuccess {
            return Err(failure("Invalid Input Error: the columns of the rows cannot be read"));
        }
        let outcome = work(self);
        drop(stream);
        outcome
    }

    /// Ends the statement that runs.
    pub(super) fn interrupt(&self) {
        // SAFETY: the connection is open, and this may be called from any thread.
        unsafe { ffi::duckdb_interrupt(self.connection) }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // SAFETY: connected by `streaming` and disconnected once.
        unsafe { ffi::duckdb_disconnect(&raw mut self.connection) }
    }
}
