//! A wrapper that fails on purpose, driven by a seed, around any connection that reads and writes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use subak_domain::{Column, DataType, LoadId};

use crate::{
    Audit, AuditResult, Batch, Commit, Committed, ConnectError, ConnectErrorKind, Connection, Load, LoadRequest, ReadRequest,
    Reject, Sink, Source, SourceItem, Staged, StagedRows, StreamInfo, TableInfo, TableName,
};

/// Decides which operation fails. The same seed and the same operations give the same faults.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<Dice>>);

#[derive(Debug)]
struct Dice {
    state: u64,
    per_mille: u64,
}

impl Faults {
    /// Fails each operation with a probability of `per_mille` in a thousand.
    pub fn new(seed: u64, per_mille: u64) -> Self {
        Self(Arc::new(Mutex::new(Dice { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, per_mille })))
    }

    /// Stops all faults from now on.
    pub fn stop(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).per_mille = 0;
    }

    /// A number below `bound`, by xorshift64*.
    pub fn below(&self, bound: u64) -> u64 {
        let mut dice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dice.state ^= dice.state >> 12;
        dice.state ^= dice.state << 25;
        dice.state ^= dice.state >> 27;
        (dice.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }

    fn strike(&self, what: &str) -> Result<(), ConnectError> {
        let roll = self.below(1000);
        let per_mille = self.0.lock().unwrap_or_else(PoisonError::into_inner).per_mille;
        if roll >= per_mille {
            return Ok(());
        }
        Err(ConnectError::new(ConnectErrorKind::Unavailable, format!("injected fault: {what}")))
    }
}

/// The wrapper. The inner connection must have a source and a sink.
#[derive(Debug, Clone)]
pub struct Faulty<C> {
    inner: C,
    faults: Faults,
}

impl<C> Faulty<C> {
    /// Wraps a connection.
    pub fn new(inner: C, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl<C: Connection + Source + Sink> Connection for Faulty<C> {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
    fn sink(&self) -> Option<&dyn Sink> {
        Some(self)
    }
}

#[async_trait]
impl<C: Source> Source for Faulty<C> {
    async fn discover(&self) -> Result<Vec<StreamInfo>, ConnectError> {
        self.faults.strike("discover")?;
        self.inner.discover().await
    }

    fn read(&self, request: ReadRequest) -> BoxStream<'static, Result<SourceItem, ConnectError>> {
        let faults = self.faults.clone();
        let mut is_over = false;
        self.inner
            .read(request)
            .map(move |item| faults.strike("read").and(item))
            .take_while(move |item| {
                let is_wanted = !is_over;
                is_over |= item.is_err();
                std::future::ready(is_wanted)
            })
            .boxed()
    }
}

#[async_trait]
impl<C: Sink> Sink for Faulty<C> {
    async fn describe(&self, table: &TableName) -> Result<Option<TableInfo>, ConnectError> {
        self.faults.strike("describe")?;
        self.inner.describe(table).await
    }

    async fn existing(&self, tables: &[TableName]) -> Result<BTreeSet<TableName>, ConnectError> {
        self.faults.strike("existing")?;
        self.inner.existing(tables).await
    }

    async fn committed(&self, load: &LoadId) -> Result<Option<Committed>, ConnectError> {
        self.faults.strike("committed")?;
        self.inner.committed(load).await
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn Load>, ConnectError> {
        self.faults.strike("begin")?;
        let inner = self.inner.begin(request).await?;
        Ok(Box::new(FaultyLoad { inner, faults: self.faults.clone() }))
    }

    async fn clean_up(&self) -> Result<u64, ConnectError> {
        self.faults.strike("clean up")?;
        self.inner.clean_up().await
    }

    fn alike(&self) -> &'static [(DataType, DataType)] {
        self.inner.alike()
    }

    fn can_widen(&self) -> bool {
        self.inner.can_widen()
    }
}

struct FaultyLoad {
    inner: Box<dyn Load>,
    faults: Faults,
}

#[async_trait]
impl Load for FaultyLoad {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectError> {
        self.faults.strike("write")?;
        self.inner.write(batch).await
    }

    async fn write_child(&mut self, child: usize, batch: Batch) -> Result<(), ConnectError> {
        self.faults.strike("write a nested list")?;
        self.inner.write_child(child, batch).await
    }

    async fn reject(&mut self, rejects: Vec<Reject>) -> Result<(), ConnectError> {
        self.faults.strike("reject")?;
        self.inner.reject(rejects).await
    }

    async fn stage(self: Box<Self>) -> Result<Box<dyn Staged>, ConnectError> {
        self.faults.strike("stage")?;
        let inner = self.inner.stage().await?;
        Ok(Box::new(FaultyStaged { inner, faults: self.faults }))
    }
}

struct FaultyStaged {
    inner: Box<dyn Staged>,
    faults: Faults,
}

#[async_trait]
impl Staged for FaultyStaged {
    fn rows(&self) -> StagedRows {
        self.inner.rows()
    }

    async fn columns(&mut self) -> Result<Vec<Column>, ConnectError> {
        self.faults.strike("columns")?;
        self.inner.columns().await
    }

    async fn audit(&mut self, audit: &Audit) -> Result<AuditResult, ConnectError> {
        self.faults.strike("audit")?;
        self.inner.audit(audit).await
    }

    /// Fails before the commit, or after it: the reply to a commit can be lost.
    async fn publish(self: Box<Self>, commit: Commit) -> Result<Committed, ConnectError> {
        self.faults.strike("publish")?;
        let committed = self.inner.publish(commit).await?;
        self.faults.strike("the reply to publish")?;
        Ok(committed)
    }
}
