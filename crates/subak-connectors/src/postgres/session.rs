//! PostgreSQL as staging sees it.

use arrow::datatypes::DataType as ArrowType;
use subak_connect::{ConnectError, ConnectErrorKind, Dialect, TableName};
use tokio::runtime::Handle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::failed;
use super::{DIALECT, types};
use crate::plain::plain_type;
use crate::staging::{Relation, RelationKind, Session, TextRow};

/// One connection, used from a thread that may block.
pub(super) struct PostgresSession<'a> {
    client: &'a Client,
    handle: Handle,
    message: String,
}

impl<'a> PostgresSession<'a> {
    pub(super) fn new(client: &'a Client, handle: &Handle, message: impl Into<String>) -> Self {
        Self { client, handle: handle.clone(), message: message.into() }
    }

    fn texts(&self, sql: &str) -> Result<Vec<TextRow>, ConnectError> {
        let messages = self.handle.block_on(self.client.simple_query(sql)).map_err(|error| failed(&self.message, &error))?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(
                row.columns()
                    .iter()
                    .enumerate()
                    .map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned)))
                    .collect(),
            ),
            _ => None,
        };
        Ok(messages.iter().filter_map(row).collect())
    }

    /// The rows of a statement about the catalog.
    fn catalog(&self, sql: &str) -> Result<Vec<Vec<String>>, ConnectError> {
        let rows = self.texts(sql)?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(|(_, value)| value.unwrap_or_default()).collect()).collect())
    }
}

/// The schema of a table, with PostgreSQL's default filled in.
pub(super) fn schema_of(table: &TableName) -> &str {
    table.schema.as_deref().unwrap_or(DIALECT.schema_default)
}

/// The condition that finds a table in `pg_class as c join pg_namespace as n`.
fn is_table(table: &TableName) -> String {
    format!("n.nspname = {} and c.relname = {}", DIALECT.literal(schema_of(table)), DIALECT.literal(&table.name))
}

impl Session for PostgresSession<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn execute(&self, sql: &str) -> Result<u64, ConnectError> {
        let messages = self.handle.block_on(self.client.simple_query(sql)).map_err(|error| failed(&self.message, &error))?;
        let count = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        };
        Ok(messages.iter().filter_map(count).next_back().unwrap_or(0))
    }

    fn rows(&self, sql: &str, count_max: usize) -> Result<Vec<TextRow>, ConnectError> {
        if count_max == usize::MAX {
            return self.texts(sql);
        }
        self.texts(&format!("select * from (\n{sql}\n) as __subak_limited limit {count_max}"))
    }

    fn relation(&self, table: &TableName) -> Result<Option<Relation>, ConnectError> {
        let columns = self.catalog(&format!(
            "select c.relkind, a.attname, format_type(a.atttypid, a.atttypmod) from pg_class as c \
             join pg_namespace as n on n.oid = c.relnamespace left join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             where {} and c.relkind in ('r', 'p', 'v', 'm', 'f') order by a.attnum",
            is_table(table)
        ))?;
        let Some(first) = columns.first() else { return Ok(None) };
        let kind = match first.first().map(String::as_str) {
            Some("v") => RelationKind::View,
            Some("m") => RelationKind::MaterializedView,
            _ => RelationKind::Table,
        };
        let column = |row: Vec<String>| match <[String; 3]>::try_from(row) {
            Ok([_, name, kind]) if !kind.is_empty() => Some((name, kind)),
            _ => None,
        };
        Ok(Some(Relation { kind, columns: columns.into_iter().filter_map(column).collect() }))
    }

    fn sql_type(&self, data_type: &ArrowType) -> Option<String> {
        types::sql_type(&plain_type(data_type))
    }

    /// Whoever may not make schemas may still use one that is there.
    fn ensure_schema(&self, name: &str) -> Result<(), ConnectError> {
        let known = format!("select count(*) from pg_namespace where nspname = {}", DIALECT.literal(name));
        if self.count(&known)? > 0 {
            return Ok(());
        }
        self.execute(&format!("create schema if not exists {}", DIALECT.identifier(name))).map(drop)
    }

    /// Owner's grants, comments and indexes, for a materialized view too. What else hangs on a table keeps it from being swapped: see [`Session::is_bound`].
    fn keepsakes(&self, table: &TableName) -> Result<Vec<String>, ConnectError> {
        let (name, own) = (DIALECT.table(table), is_table(table));
        let from = "from pg_class as c join pg_namespace as n on n.oid = c.relnamespace";
        let kind = self.relation(table)?.map_or("table", |held| held.kind.word());
        let mut statements = Vec::new();
        let grants = format!(
            "select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end, a.is_grantable \
             {from} cross join aclexplode(c.relacl) as a where {own} and a.grantee <> c.relowner"
        );
        for row in self.catalog(&grants)? {
            if let [privilege, grantee, is_grantable] = row.as_slice() {
                let option = if is_grantable == "t" { " with grant option" } else { "" };
                statements.push(format!("grant {privilege} on {name} to {grantee}{option}"));
            }
        }
        let comments = format!(
            "select coalesce(a.attname, ''), d.description {from} join pg_description as d on d.objoid = c.oid and d.classoid = 'pg_class'::regclass \
             left join pg_attribute as a on a.attrelid = c.oid and a.attnum = d.objsubid and d.objsubid > 0 where {own}"
        );
        for row in self.catalog(&comments)? {
            if let [column, text] = row.as_slice() {
                let of = if column.is_empty() {
                    format!("{kind} {name}")
                } else {
                    format!("column {name}.{}", DIALECT.identifier(column))
                };
                statements.push(format!("comment on {of} is {}", DIALECT.literal(text)));
            }
        }
        let indexes = format!(
            "select pg_get_indexdef(i.indexrelid), coalesce(k.conname, ''), coalesce(pg_get_constraintdef(k.oid), '') {from} \
             join pg_index as i on i.indrelid = c.oid left join pg_constraint as k on k.conindid = i.indexrelid and k.conrelid = c.oid where {own}"
        );
        for row in self.catalog(&indexes)? {
            match row.as_slice() {
                [_, constraint, definition] if !constraint.is_empty() => {
                    statements.push(format!("alter table {name} add constraint {} {definition}", DIALECT.identifier(constraint)));
                }
                [index, ..] => statements.push(index.clone()),
                [] => {}
            }
        }
        Ok(statements)
    }

    /// Rows are changed by deleting and inserting, and a foreign key would delete, empty or forbid what refers to them.
    fn refuse_referenced(&self, table: &TableName) -> Result<(), ConnectError> {
        let sql = format!(
            "select k.conname, k.conrelid::regclass from pg_constraint as k join pg_class as c on c.oid = k.confrelid \
             join pg_namespace as n on n.oid = c.relnamespace where k.contype = 'f' and k.conrelid <> c.oid and {}",
            is_table(table)
        );
        let Some(row) = self.catalog(&sql)?.into_iter().next() else { return Ok(()) };
        let message = format!("rows of `{table}` cannot be replaced: the foreign key `{}` refers to them", row.join("` of `"));
        let help = "drop the foreign key, or load into a table of its own; Subak replaces rows by deleting and inserting them";
        Err(ConnectError::new(ConnectErrorKind::SchemaChanged, message).help(help))
    }

    /// Views, foreign keys, policies, triggers, rules, partitions and publications refer to a table itself and not to its name.
    fn is_bound(&self, table: &TableName) -> Result<bool, ConnectError> {
        let sql = format!(
            "select count(*) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where {} and (c.relkind <> 'r' or c.relrowsecurity or c.relhasrules or c.relpersistence <> 'p' or c.reltablespace <> 0 or c.relreplident <> 'd' \
             or c.reloptions is not null or pg_get_userbyid(c.relowner) <> current_user or exists (select 1 from pg_default_acl) \
             or exists (select 1 from pg_publication where puballtables) \
             or exists (select 1 from pg_statistic_ext as s where s.stxrelid = c.oid) \
             or exists (select 1 from pg_depend as d join pg_rewrite as r on r.oid = d.objid where d.classid = 'pg_rewrite'::regclass and d.refobjid = c.oid and r.ev_class <> c.oid) \
             or exists (select 1 from pg_constraint as k where k.contype in ('f', 'c') and (k.confrelid = c.oid or k.conrelid = c.oid)) \
             or exists (select 1 from pg_trigger as g where g.tgrelid = c.oid and not g.tgisinternal) \
             or exists (select 1 from pg_policy as p where p.polrelid = c.oid) \
             or exists (select 1 from pg_publication_rel as p where p.prrelid = c.oid) \
             or exists (select 1 from pg_inherits as h where c.oid in (h.inhrelid, h.inhparent)) \
             or exists (select 1 from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
               and (a.attnotnull or a.atthasdef or a.attidentity <> '' or a.attacl is not null)))",
            is_table(table)
        );
        Ok(self.count(&sql)? > 0)
    }
}
