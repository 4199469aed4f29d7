//! PostgreSQL: source by binary `COPY`, sink by binary `COPY` into stage tables, and SQL backend.

mod copy;
mod decode;
mod encode;
mod error;
mod load;
mod materialized;
mod read;
mod read_as;
mod session;
mod sink;
mod types;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use subak_connect::types::{Fate, ReadAs, Stored};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Dialect, Field, FieldKind, OpenRequest,
    Quarantine, Sink, Source, SqlBackend, Statements, blocking, convert,
};
use subak_domain::{DataType, StoredAs};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::session::PostgresSession;
use crate::{sslmode, tls};

/// How PostgreSQL writes SQL.
pub static DIALECT: Dialect = Dialect {
    name: "postgres",
    family: subak_connect::Family::Standard,
    quote: '"',
    null_safe_equal: "is not distinct from",
    escapes: subak_connect::Escapes::Nowhere,
    text: "cast({value} as varchar)",
    correlates: true,
    exact_order: "",
    row_ids: &["ctid"],
    // A copy fills free space wherever it is, and an update moves a row.
    row_column: Some(("__subak_row", "bigint generated always as identity")),
    matches: "({value} ~ ('^(?:' || {pattern} || ')$'))",
    position: "strpos",
    has_schemas: true,
    schema_default: "public",
    stores_as: &[StoredAs::View, StoredAs::Table, StoredAs::MaterializedView, StoredAs::Incremental, StoredAs::Snapshot],
};

/// How long a server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every session is told, so that values look the same whatever the server's settings are.
///
/// A server whose client is gone without a word finds it out within two minutes, and lets go of the locks of a transaction in which nothing
/// happens any more within one: ours never pause.
const SESSION: &str = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1 -c bytea_output=hex \
                       -c standard_conforming_strings=on -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 \
                       -c tcp_keepalives_count=6 -c idle_in_transaction_session_timeout=60s";

/// What sessions are told in which nothing will be written.
const READ_ONLY: &str = "-c default_transaction_read_only=on";

/// The connector.
#[derive(Debug)]
pub struct Postgres;

#[async_trait]
impl Connector for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn summary(&self) -> &'static str {
        "PostgreSQL 13 and newer: tables are read and written by binary COPY; SQL assets are built in it"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[
            Field::new(
                "host",
                FieldKind::Text,
                false,
                "Name or address of the server, or the folder of its socket. By default `localhost`.",
            ),
            Field::new("port", FieldKind::Integer, false, "Its port. By default `5432`."),
            Field::new("database", FieldKind::Text, true, "The database."),
            Field::new("user", FieldKind::Text, true, "Who connects."),
            Field::new("password", FieldKind::Secret, false, "The password, where the server asks for one."),
            sslmode::FIELDS[0],
            sslmode::FIELDS[1],
            Field {
                name: "queries",
                kind: FieldKind::Boolean,
                is_required: false,
                doc: "Whether people who may see rows may ask queries here in the web app. By default `false`; give the connection a user who may do no more than they may.",
            },
        ];
        ConfigSchema { connection: CONNECTION, stream: subak_connect::source::RANGED_OPTIONS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { looks: true, ..Abilities::of_database(&DIALECT) }
    }

    fn reads(&self) -> &'static [ReadAs] {
        read_as::TYPES
    }

    fn stores(&self, data_type: DataType) -> Option<Stored> {
        let word = types::sql_type(&convert::arrow_type(data_type))?;
        let fate = match data_type {
            DataType::UnsignedBigInt | DataType::Json | DataType::Uuid => Fate::Widened,
            _ => Fate::Exact,
        };
        Some(Stored { word, fate })
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        let database = Database::new(&request)?;
        database.client().await?;
        Ok(Arc::new(database))
    }
}

/// A connection and the task that moves its bytes. Dropping it ends the session, and with it whatever it was doing.
pub(crate) struct Link {
    client: Client,
    tls: MakeRustlsConnect,
    /// Held so that the task ends with it.
    _task: JoinSet<()>,
    end: AbortHandle,
}

impl Link {
    /// Ends the connection here, whatever it waits for: whoever waits gets an error.
    fn end(&self) {
        self.end.abort();
    }

    /// Asks the server to end what this connection is doing.
    async fn cancel(&self) {
        drop(self.client.cancel_token().cancel_query(self.tls.clone()).await);
    }
}

impl Deref for Link {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// One configured database. Each operation connects anew; a load keeps its connection from begin to end.
#[derive(Clone)]
pub(crate) struct Database {
    config: Arc<Config>,
    tls: MakeRustlsConnect,
    /// The same, for connections on which rows are read.
    encryption: Arc<ClientConfig>,
    name: Arc<str>,
    /// Whether its sessions only read.
    is_read_only: bool,
    /// Whether people may be given queries.
    has_queries: bool,
}

impl Database {
    fn new(request: &OpenRequest) -> Result<Self, ConnectError> {
        let values = &request.config;
        let text = |key: &str| values.get(key).filter(|text| !text.is_empty());
        let word = text("sslmode").unwrap_or("prefer");
        let encryption = tls::config(&request.name, word, text("sslrootcert"))?;
        let tls = MakeRustlsConnect::new((*encryption).clone());
        let mode = match word {
            "disable" => SslMode::Disable,
            "require" | "verify-full" => SslMode::Require,
            _ => SslMode::Prefer,
        };
        let mut config = Config::new();
        let port = text("port").unwrap_or("5432").parse::<u16>().map_err(|error| {
            let message = format!("connection `{}`: `port` must be a number up to 65535", request.name);
            ConnectError::new(ConnectErrorKind::Config, message).because(error)
        })?;
        config
            .host(text("host").unwrap_or("localhost"))
            .port(port)
            .dbname(text("database").unwrap_or_default())
            .user(text("user").unwrap_or_default())
            .application_name("subak")
            .ssl_mode(mode)
            .options(if request.is_read_only { format!("{SESSION} {READ_ONLY}") } else { SESSION.to_owned() })
            .keepalives_idle(Duration::from_mins(1))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(6)
            .connect_timeout(CONNECT_TIMEOUT);
        if let Some(password) = values.secrets.get("password") {
            config.password(password.expose());
        } else if let Some(password) = text("password") {
            config.password(password);
        }
        let (is_read_only, has_queries) = (request.is_read_only, text("queries") == Some("true"));
        Ok(Self { config: Arc::new(config), tls, encryption, name: request.name.as_str().into(), is_read_only, has_queries })
    }

    /// Where it connects to, for people.
    fn place(&self) -> String {
        let host = self.config.get_hosts().first().map_or_else(String::new, |host| match host {
            tokio_postgres::config::Host::Tcp(name) => name.clone(),
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        });
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("`{}` on {host}:{port}", self.config.get_dbname().unwrap_or_default())
    }

    /// A connection of its own. It ends when the client is dropped.
    async fn client(&self) -> Result<Link, ConnectError> {
        let (client, connection) =
            self.config.connect(self.tls.clone()).await.map_err(|error| error::opening(&self.name, &self.place(), &error))?;
        let mut task = JoinSet::new();
        let end = task.spawn(async move {
            // What goes wrong is told to whoever waits for an answer.
            drop(connection.await);
        });
        Ok(Link { client, tls: self.tls.clone(), _task: task, end })
    }

    /// Runs blocking work on a connection of its own.
    async fn with<T, F>(&self, message: String, work: F) -> Result<T, ConnectError>
    where
        T: Send + 'static,
        F: FnOnce(&PostgresSession<'_>) -> Result<T, ConnectError> + Send + 'static,
    {
        let client = Arc::new(self.client().await?);
        with_client(&client, message, work).await
    }
}

/// Ends a connection when it is dropped, unless disarmed.
struct EndIfDropped(Option<Arc<Link>>);

impl EndIfDropped {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndIfDropped {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.end();
        }
    }
}

/// Cancels what a connection does when it is dropped, unless disarmed.
struct CancelIfDropped(Option<Arc<Link>>);

impl CancelIfDropped {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelIfDropped {
    fn drop(&mut self) {
        if let (Some(link), Ok(handle)) = (self.0.take(), Handle::try_current()) {
            handle.spawn(async move { link.cancel().await });
        }
    }
}

/// Runs blocking work on a connection. When the result is dropped before, the connection ends.
async fn with_client<T, F>(client: &Arc<Link>, message: String, work: F) -> Result<T, ConnectError>
where
    T: Send + 'static,
    F: FnOnce(&PostgresSession<'_>) -> Result<T, ConnectError> + Send + 'static,
{
    // Work that nobody waits for any more must not wait itself, for an answer that may never come.
    let given_up = EndIfDropped(Some(Arc::clone(client)));
    let (client, handle) = (Arc::clone(client), Handle::current());
    let result = blocking::run(move || work(&PostgresSession::new(&client, &handle, message))).await;
    given_up.disarm();
    result
}

impl Connection for Database {
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
impl Statements for Database {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn execute(&self, sql: &str) -> Result<(), ConnectError> {
        let client = Arc::new(self.client().await?);
        let given_up = CancelIfDropped(Some(Arc::clone(&client)));
        let result = client.batch_execute(sql).await.map_err(|error| error::failed("the statement failed", &error));
        given_up.disarm();
        result
    }
}
