//! The ledger: what was loaded, how far streams are read, and how to finish a load that a crash cut off.
//!
//! One row of one insert is atomic here, so everything that belongs to a load is one row. A load has two: `prepared` before anything is
//! visible, `committed` when everything is done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subak_connect::source::FileMark;
use subak_connect::{Committed, ConnectError, ConnectErrorKind, TableName};
use subak_domain::{Cursor, Layout, LoadId, RowAccount};

use super::publish::{Action, Plan};
use super::tables::{Layout as TableLayout, Name, OWN_DATABASE, rows_of};
use super::{DIALECT, Server};

/// The version of [`Entry`] that this build writes and reads.
pub(super) const ENTRY_VERSION: u32 = 1;

/// A load in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) version: u32,
    pub(super) load: String,
    pub(super) table: Name,
    /// Its number: higher is later.
    pub(super) number: u64,
    pub(super) written: u64,
    pub(super) row_count: u64,
    pub(super) overlap_count: u64,
    pub(super) changed: bool,
    pub(super) cursor: Option<Cursor>,
    pub(super) account: Option<RowAccount>,
    pub(super) files: Vec<FileMark>,
    /// Whether the table was made anew: what was known of its stream is gone.
    pub(super) is_rebuilt: bool,
    /// How the table was laid out when it was made.
    pub(super) layout: Layout,
    /// Who makes the load: the host, and the process there.
    pub(super) owner: String,
    /// Columns that came as bytes or as true and false, which the server may keep as texts and numbers.
    pub(super) kinds: BTreeMap<String, String>,
    pub(super) plan: Plan,
}

impl Entry {
    /// The table with the rows.
    pub(super) fn rows(&self) -> Name {
        if self.plan.layout == TableLayout::Keyed { rows_of(&self.table) } else { self.table.clone() }
    }

    /// The load as its caller sees it.
    pub(super) fn committed(self) -> Committed {
        Committed {
            written: self.written,
            row_count: self.row_count,
            overlap_count: self.overlap_count,
            changed: self.changed,
            cursor: self.cursor,
            account: self.account,
        }
    }
}

/// What is known of the stream of a table.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    pub(super) cursor: Option<Cursor>,
    pub(super) row_count: Option<u64>,
    pub(super) files: Vec<FileMark>,
    /// How the table was laid out when it was made.
    pub(super) layout: Layout,
    /// Columns that came as bytes or as true and false.
    pub(super) kinds: BTreeMap<String, String>,
}

fn ledger() -> String {
    Name::new(OWN_DATABASE, "loads").quoted()
}

fn key_of(table: &Name) -> String {
    format!("{}.{}", table.database, table.name)
}

fn parsed(text: &str) -> Result<Entry, ConnectError> {
    let entry: Entry = serde_json::from_str(text)
        .map_err(|error| ConnectError::new(ConnectErrorKind::Internal, "the ledger of loads cannot be read").because(error))?;
    if entry.version > ENTRY_VERSION {
        let message = "the ledger of loads was written by a newer version of Subak";
        return Err(ConnectError::new(ConnectErrorKind::Config, message).help("update Subak"));
    }
    Ok(entry)
}

impl Server {
    /// Whether there is any state.
    async fn has_state(&self) -> Result<bool, ConnectError> {
        self.exists(&Name::new(OWN_DATABASE, "loads")).await
    }

    /// Makes the ledger unless it is there.
    pub(super) async fn ensure_state(&self) -> Result<(), ConnectError> {
        if self.has_state().await? {
            return Ok(());
        }
        self.ensure_database(OWN_DATABASE).await?;
        self.client
            .execute(&format!(
                "create table if not exists {} (table_key String, number UInt64, load_id String, state String, \
                 written_at DateTime default now(), entry String) engine = MergeTree order by (table_key, number)",
                ledger()
            ))
            .await
    }

    /// Makes a database unless it is there: whoever may not make any may still use one that is.
    pub(super) async fn ensure_database(&self, name: &str) -> Result<(), ConnectError> {
        let known = format!("select count() from system.databases where name = {}", DIALECT.literal(name));
        if self.client.count(&known).await? > 0 {
            return Ok(());
        }
        self.client.execute(&format!("create database if not exists {}", DIALECT.identifier(name))).await
    }

    /// The number of the next load.
    pub(super) async fn next_number(&self) -> Result<u64, ConnectError> {
        Ok(self.client.count(&format!("select max(number) from {}", ledger())).await? + 1)
    }

    /// Writes one row of a load.
    pub(super) async fn note(&self, entry: &Entry, state: &str) -> Result<(), ConnectError> {
        let text = serde_json::to_string(entry).map_err(|error| {
            ConnectError::new(ConnectErrorKind::Internal, "what is known of a load cannot be written").because(error)
        })?;
        self.client
            .execute(&format!(
                "insert into {} (table_key, number, load_id, state, entry) values ({}, {}, {}, {}, {})",
                ledger(),
                DIALECT.literal(&key_of(&entry.table)),
                entry.number,
                DIALECT.literal(&entry.load),
                DIALECT.literal(state),
                DIALECT.literal(&text)
            ))
            .await
    }

    async fn entries(&self, condition: &str) -> Result<Vec<Entry>, ConnectError> {
        if !self.has_state().await? {
            return Ok(Vec::new());
        }
        let rows = self.client.rows(&format!("select entry from {} where {condition} order by number", ledger())).await?;
        rows.iter().filter_map(|row| row.first()?.as_deref()).map(parsed).collect()
    }

    /// Loads of a table (of all tables without one) that were prepared and not committed, by processes that are gone.
    pub(super) async fn unfinished(&self, table: Option<&Name>) -> Result<Vec<Entry>, ConnectError> {
        let of = table.map_or_else(String::new, |table| format!("table_key = {} and ", DIALECT.literal(&key_of(table))));
        let open = format!(
            "{of}state = 'prepared' and (load_id, number) not in (select load_id, number from {} where state in ('committed', 'forgotten'))",
            ledger()
        );
        let mut entries = self.entries(&open).await?;
        if entries.is_empty() {
            return Ok(entries);
        }
        // What another host does cannot be seen; after an hour it is done.
        let old = self.entries(&format!("{open} and written_at < now() - 3600")).await?;
        entries.retain(|entry| match is_alive(&entry.owner) {
            Some(is_alive) => !is_alive,
            None => old.iter().any(|old| old.load == entry.load),
        });
        Ok(entries)
    }

    /// Fails where another load of the table got in between.
    pub(super) async fn refuse_another(&self, entry: &Entry) -> Result<(), ConnectError> {
        let sql = format!(
            "select count() from {} where table_key = {} and number >= {} and load_id != {} and state in ('prepared', 'committed')",
            ledger(),
            DIALECT.literal(&key_of(&entry.table)),
            entry.number,
            DIALECT.literal(&entry.load)
        );
        if self.client.count(&sql).await? == 0 {
            return Ok(());
        }
        let message = format!("another load of `{}` came in between", key_of(&entry.table));
        Err(ConnectError::new(ConnectErrorKind::Unavailable, message).help("run again; load a table from one place only"))
    }

    /// What is known of the stream of a table.
    pub(super) async fn stream_state(&self, table: &Name) -> Result<StreamState, ConnectError> {
        let mut state = StreamState::default();
        for entry in self.entries(&format!("table_key = {} and state = 'committed'", DIALECT.literal(&key_of(table)))).await? {
            if entry.is_rebuilt {
                state = StreamState { layout: state.layout, ..StreamState::default() };
            }
            state.kinds.extend(entry.kinds);
            if entry.plan.action == Action::Swap {
                state.layout = entry.layout;
            }
            state.cursor = entry.cursor.or(state.cursor);
            state.row_count = Some(entry.row_count);
            for mark in entry.files {
                state.files.retain(|known| known.path != mark.path);
                state.files.push(mark);
            }
        }
        state.files.sort();
        Ok(state)
    }

    /// Columns that were added to a table, also by loads that were cut off, and what the cursor column held at most before.
    pub(super) async fn late_columns(&self, table: &Name) -> Result<BTreeMap<String, String>, ConnectError> {
        let key = DIALECT.literal(&key_of(table));
        let mut late = BTreeMap::new();
        for entry in self.entries(&format!("table_key = {key} and state in ('prepared', 'committed')")).await? {
            if entry.is_rebuilt && entry.plan.action == Action::Swap {
                late.clear();
            }
            if let Some(highest) = &entry.plan.added_after {
                late.extend(entry.plan.added.iter().map(|(column, _)| (column.clone(), highest.clone())));
            }
        }
        Ok(late)
    }

    /// The ledger's entry of a load, which is finished first if a crash cut it off.
    pub(super) async fn entry_of(&self, load: &LoadId) -> Result<Option<Entry>, ConnectError> {
        let is_load = format!("load_id = {}", DIALECT.literal(load.as_str()));
        if let Some(entry) = self.entries(&format!("{is_load} and state = 'committed'")).await?.pop() {
            return Ok(Some(entry));
        }
        for entry in self.entries(&format!("{is_load} and state = 'prepared'")).await? {
            if self.is_visible(&entry).await? {
                return self.finish(entry).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Finishes what crashes cut off after it was visible, and forgets what was not. One that cannot be finished does not keep others from it.
    pub(super) async fn recover(&self, table: Option<&TableName>) -> Result<(), ConnectError> {
        if self.client.is_read_only() {
            return Ok(());
        }
        let name = table.map(|table| self.name_of(table));
        let mut failed = None;
        for entry in self.unfinished(name.as_ref()).await? {
            let result = match self.is_visible(&entry).await {
                Ok(true) => self.finish(entry).await.map(drop),
                Ok(false) => self.note(&entry, "forgotten").await,
                Err(error) => Err(error),
            };
            failed = result.err().or(failed);
        }
        // Whoever wants this table must know; whoever only cleans up goes on.
        match failed {
            Some(error) if table.is_some() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a process is alive; `None` for one of another host.
fn is_alive(owner: &str) -> Option<bool> {
    let own = super::load::owner();
    let ((host, process), (own_host, _)) = (owner.split_once('_')?, own.split_once('_')?);
    (host == own_host).then(|| std::path::Path::new("/proc").join(process).exists())
}
