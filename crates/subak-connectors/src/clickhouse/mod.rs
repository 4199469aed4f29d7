//! ClickHouse over HTTP: source and sink by blocks of the `Native` format, and SQL backend.
//!
//! There are no transactions. A load is prepared in tables of its own, then written into the ledger with everything that is needed to
//! finish it, then made visible by one atomic step (tables exchanged, or parts attached), then finished. What is visible names its load,
//! so whoever comes after a crash knows whether to finish or to forget.

mod client;
mod error;
mod history;
mod load;
mod native;
mod prepare;
mod publish;
mod read;
mod read_as;
mod rejects;
mod script;
mod sink;
mod state;
mod tables;
mod types;

use std::sync::Arc;

use async_trait::async_trait;
use subak_connect::types::{Fate, ReadAs, Stored};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, Connection, Connector, Dialect, Field, FieldKind, OpenRequest, Quarantine, Sink,
    Source, SqlBackend, Statements, convert,
};
use subak_domain::DataType;

use self::client::Client;

/// How ClickHouse writes SQL.
pub static DIALECT: Dialect = Dialect {
    name: "clickhouse",
    family: subak_connect::Family::Standard,
    quote: '"',
    null_safe_equal: "",
    escapes: subak_connect::Escapes::Everywhere,
    text: "toString({value})",
    correlates: false,
    exact_order: "",
    row_ids: &["__subak_row"],
    row_column: None,
    matches: "match({value}, concat('^(?:', {pattern}, ')$'))",
    position: "position",
    has_schemas: true,
    schema_default: "",
    stores_as: subak_domain::StoredAs::USUAL,
};

/// The connector.
#[derive(Debug)]
pub struct ClickHouse;

#[async_trait]
impl Connector for ClickHouse {
    fn kind(&self) -> &'static str {
        "clickhouse"
    }

    fn summary(&self) -> &'static str {
        "ClickHouse over HTTP: tables are read and written by columns; SQL assets are built in it"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[
            Field::new(
                "url",
                FieldKind::Text,
                true,
                "The HTTP interface of the server, for example `http://localhost:8123` or `https://ch.internal:8443`.",
            ),
            Field::new("database", FieldKind::Text, false, "The database of tables that name none. By default `default`."),
            Field::new("user", FieldKind::Text, false, "Who connects. By default `default`."),
            Field::new("password", FieldKind::Secret, false, "The password, where the server asks for one."),
            Field::new(
                "sslrootcert",
                FieldKind::Path,
                false,
                "For `https`: the certificates that are trusted, in PEM. By default those of the system.",
            ),
            Field::new(
                "compression",
                FieldKind::Word(&["none", "gzip", "zstd"]),
                false,
                "How rows are compressed on their way to the server: `none` (the default), `zstd` for slow networks, `gzip` for servers before 23.3.",
            ),
        ];
        ConfigSchema { connection: CONNECTION, stream: subak_connect::source::SQL_OPTIONS }
    }

    fn abilities(&self) -> Abilities {
        Abilities::of_database(&DIALECT)
    }

    fn reads(&self) -> &'static [ReadAs] {
        read_as::TYPES
    }

    fn stores(&self, data_type: DataType) -> Option<Stored> {
        const YEARS: &str = "the years 1900 to 2299";
        let Some(form) = types::form_of(&convert::arrow_type(data_type), true) else {
            return Some(Stored { word: String::new(), fate: Fate::Refused });
        };
        let fate = match data_type {
            DataType::Date | DataType::DateTime | DataType::Timestamp => Fate::Policy(YEARS),
            DataType::Bytes | DataType::Json | DataType::Uuid => Fate::Widened,
            _ => Fate::Exact,
        };
        Some(Stored { word: types::word(form, false), fate })
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        Ok(Arc::new(Server::connect(&request).await?))
    }
}

/// One configured server.
#[derive(Clone)]
pub(crate) struct Server {
    client: Client,
}

impl Server {
    async fn connect(request: &OpenRequest) -> Result<Self, ConnectError> {
        let values = &request.config;
        let text = |key: &str| values.get(key).filter(|text| !text.is_empty());
        let password = values.secrets.get("password").cloned().or_else(|| text("password").map(subak_domain::Secret::new));
        let client = Client::connect(client::Settings {
            name: &request.name,
            url: text("url").unwrap_or_default(),
            user: text("user").unwrap_or("default"),
            password,
            database: text("database").unwrap_or("default"),
            root_file: text("sslrootcert"),
            is_read_only: request.is_read_only,
            compression: client::Compression::of(text("compression")),
        })
        .await?;
        Ok(Self { client })
    }
}

impl Connection for Server {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
    fn sink(&self) -> Option<&dyn Sink> {
        Some(self)
    }
    fn quarantine(&self) -> Option<&dyn Quarantine> {
        Some(self)
    }
    fn sql(&self) -> Option<&dyn SqlBackend> {
        Some(self)
    }
    fn statements(&self) -> Option<&dyn Statements> {
        Some(self)
    }
}

#[async_trait]
impl Statements for Server {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn execute(&self, sql: &str) -> Result<(), ConnectError> {
        self.client.execute(sql).await
    }
}
