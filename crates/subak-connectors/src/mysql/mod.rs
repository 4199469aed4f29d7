//! MySQL and MariaDB: source by the binary protocol, sink by stage tables, and SQL backend.

mod decode;
mod encode;
mod error;
mod load;
mod publish;
mod read;
mod read_as;
mod session;
mod sink;
mod types;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use rustls::ClientConfig;
use subak_connect::types::{Fate, ReadAs, Stored};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Dialect, Field, FieldKind, OpenRequest,
    Quarantine, Sink, Source, SqlBackend, Statements, TableName, convert,
};
use subak_domain::{DataType, StoredAs};

use self::load::Link;
use self::wire::{Target, Wire};
use crate::{sslmode, tls};

/// How MySQL writes SQL.
pub static DIALECT: Dialect = Dialect {
    name: "mysql",
    family: subak_connect::Family::MySql,
    quote: '`',
    null_safe_equal: "<=>",
    escapes: subak_connect::Escapes::Literals,
    text: "cast({value} as char)",
    correlates: true,
    exact_order: "",
    row_ids: &["__subak_row"],
    row_column: Some(("__subak_row", "bigint not null auto_increment primary key")),
    matches: r"({value} regexp concat('\\A(?:', {pattern}, ')\\z'))",
    position: "instr",
    has_schemas: true,
    schema_default: "",
    stores_as: StoredAs::USUAL,
};

/// How long a server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows of a query when nobody limits them.
const NO_LIMIT: u64 = u64::MAX;

/// What sessions are told in which loads and builds run: values that do not fit are errors, and what is derived is computed first, so that a
/// statement may change what it was derived from.
const SESSION: &str = "set session autocommit = 1, wait_timeout = 28800, \
                       sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY', \
                       default_storage_engine = InnoDB, optimizer_switch = 'derived_merge=off', lock_wait_timeout = 60";

/// How long a session that loads may be silent, because its source is slow.
const IDLE_SECONDS: u32 = 28_800;

/// How texts compare that have no collation of their own, and how tables without indexes are joined.
fn query_setup(is_maria: bool) -> Vec<String> {
    let mut setup = vec![format!("set names utf8mb4 collate {}", types::COLLATIONS[usize::from(!is_maria)])];
    setup.push(if is_maria {
        "set session join_cache_level = 8".to_owned()
    } else {
        // MySQL 9.7 forgets how texts compare when it moves a `regexp` into a union, and finds nothing.
        "set session optimizer_switch = 'derived_condition_pushdown=off'".to_owned()
    });
    setup
}

/// How long the server waits for a reader that is busy.
const SLOW_READER_SECONDS: u32 = 3600;

/// The connector.
#[derive(Debug)]
pub struct MySql;

#[async_trait]
impl Connector for MySql {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn summary(&self) -> &'static str {
        "MySQL 8 and newer, MariaDB 10.6 and newer: tables are read by the binary protocol; SQL assets are built in it"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[
            Field::new(
                "host",
                FieldKind::Text,
                false,
                "Name or address of the server, or the path of its socket. By default `localhost`.",
            ),
            Field::new("port", FieldKind::Integer, false, "Its port. By default `3306`."),
            Field::new("database", FieldKind::Text, true, "The database."),
            Field::new("user", FieldKind::Text, true, "Who connects."),
            Field::new("password", FieldKind::Secret, false, "The password, where the server asks for one."),
            sslmode::FIELDS[0],
            sslmode::FIELDS[1],
        ];
        ConfigSchema { connection: CONNECTION, stream: subak_connect::source::RANGED_OPTIONS }
    }

    fn abilities(&self) -> Abilities {
        Abilities::of_database(&DIALECT)
    }

    fn reads(&self) -> &'static [ReadAs] {
        read_as::TYPES
    }

    fn stores(&self, data_type: DataType) -> Option<Stored> {
        let word = types::sql_type(&convert::arrow_type(data_type), "");
        let fate = match data_type {
            _ if word.is_none() => Fate::Refused,
            DataType::Boolean | DataType::Time | DataType::Timestamp | DataType::Json | DataType::Uuid => Fate::Widened,
            _ => Fate::Exact,
        };
        Some(Stored { word: word.unwrap_or_default(), fate })
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        let database = Database::new(&request)?;
        database.client().await?;
        Ok(Arc::new(database))
    }
}

/// One configured database. Each operation connects anew.
#[derive(Clone)]
pub(crate) struct Database {
    options: Opts,
    /// How it connects where encryption is only preferred and the server has none.
    plain: Option<Opts>,
    /// What encrypts the connections that rows are read on; `None` where encryption is not wanted.
    tls: Option<Arc<ClientConfig>>,
    setup: Arc<[String]>,
    is_read_only: bool,
    name: Arc<str>,
}

impl Database {
    fn new(request: &OpenRequest) -> Result<Self, ConnectError> {
        let values = &request.config;
        let text = |key: &str| values.get(key).filter(|text| !text.is_empty());
        let word = text("sslmode").unwrap_or("prefer");
        let root = text("sslrootcert");
        sslmode::refuse_unused_root(&request.name, word, root)?;
        let port = text("port").unwrap_or("3306").parse::<u16>().map_err(|error| {
            let message = format!("connection `{}`: `port` must be a number up to 65535", request.name);
            ConnectError::new(ConnectErrorKind::Config, message).because(error)
        })?;
        let host = text("host").unwrap_or("localhost");
        let password = values.secrets.get("password").map(subak_domain::Secret::expose).or_else(|| text("password"));
        let mut options = OptsBuilder::default()
            .tcp_port(port)
            .db_name(text("database"))
            .user(text("user"))
            .pass(password)
            .prefer_socket(false)
            .stmt_cache_size(0)
            .tcp_keepalive(Some(Duration::from_mins(1)));
        options = if host.starts_with('/') { options.socket(Some(host)) } else { options.ip_or_hostname(host) };
        let encryption = (word != "disable" && !host.starts_with('/')).then(|| encryption(word, root));
        let tls = encryption.is_some().then(|| tls::config(&request.name, word, root)).transpose()?;
        let plain = (word == "prefer" && encryption.is_some()).then(|| Opts::from(options.clone()));
        let mut setup = vec![format!(
            "set session time_zone = '+00:00', net_write_timeout = {SLOW_READER_SECONDS}, net_read_timeout = {SLOW_READER_SECONDS}, \
             sql_select_limit = {NO_LIMIT}"
        )];
        // Whatever the server would take for its own.
        setup.push("set names utf8mb4".to_owned());
        if request.is_read_only {
            setup.push("set session transaction read only".to_owned());
        }
        let options = Opts::from(options.ssl_opts(encryption));
        Ok(Self {
            options,
            plain,
            tls,
            setup: setup.into(),
            is_read_only: request.is_read_only,
            name: request.name.as_str().into(),
        })
    }

    /// A table with the database in which it stands.
    fn placed(&self, table: &TableName) -> TableName {
        let schema = table.schema.clone().or_else(|| self.options.db_name().map(str::to_owned));
        TableName { schema, name: table.name.clone() }
    }

    /// Where it connects to, for people.
    fn place(&self) -> String {
        let database = self.options.db_name().unwrap_or_default();
        match self.options.socket() {
            Some(socket) => format!("`{database}` at {socket}"),
            None => format!("`{database}` on {}:{}", self.options.ip_or_hostname(), self.options.tcp_port()),
        }
    }

    /// A connection of its own. It ends when it is dropped.
    async fn client(&self) -> Result<Conn, ConnectError> {
        let mut client = match (self.connect(&self.options).await?, &self.plain) {
            (Err(error), Some(plain)) if error::is_plain_only(&error) => self.connect(plain).await?,
            (result, _) => result,
        }
        .map_err(|error| error::opening(&self.name, &self.place(), &error))?;
        for sql in &*self.setup {
            client.query_drop(sql).await.map_err(|error| error::opening(&self.name, &self.place(), &error))?;
        }
        Ok(client)
    }

    /// A connection of its own that runs the SQL of loads and builds.
    async fn writer(&self) -> Result<Arc<Link>, ConnectError> {
        let mut client = self.client().await?;
        let failed = |error: mysql_async::Error| error::opening(&self.name, &self.place(), &error);
        client.query_drop(SESSION).await.map_err(failed)?;
        let version: Option<String> = client.query_first("select version()").await.map_err(failed)?;
        let is_maria = version.is_some_and(|version| version.contains("MariaDB"));
        let collation = types::COLLATIONS[usize::from(!is_maria)];
        for sql in query_setup(is_maria) {
            client.query_drop(sql).await.map_err(failed)?;
        }
        Ok(Arc::new(Link::new(self.clone(), client, collation)))
    }

    /// A connection of its own on which rows are read.
    async fn wire(&self) -> Result<Wire, ConnectError> {
        let target = Target { options: &self.options, tls: self.tls.as_ref(), may_be_plain: self.plain.is_some() };
        let opening = |error: mysql_async::Error| error::opening(&self.name, &self.place(), &error);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Wire::connect(&target)).await.map_err(|_| self.silent())?;
        let mut wire = connected.map_err(opening)?;
        for sql in &*self.setup {
            wire.execute(sql).await.map_err(opening)?;
        }
        Ok(wire)
    }

    /// A connection of its own on which the rows of a query are read as builds see them.
    async fn querier(&self) -> Result<Wire, ConnectError> {
        let collation = self.writer().await?.collation;
        let mut wire = self.wire().await?;
        let is_maria = collation == types::COLLATIONS[0];
        for sql in std::iter::once(SESSION.to_owned()).chain(query_setup(is_maria)) {
            wire.execute(&sql).await.map_err(|error| error::opening(&self.name, &self.place(), &error))?;
        }
        Ok(wire)
    }

    fn silent(&self) -> ConnectError {
        let message = format!("connection `{}`: {} does not answer", self.name, self.place());
        ConnectError::new(ConnectErrorKind::Unavailable, message)
            .help("is the server running, and are `host:` and `port:` right?")
    }

    async fn connect(&self, options: &Opts) -> Result<Result<Conn, mysql_async::Error>, ConnectError> {
        tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(options.clone())).await.map_err(|_| self.silent())
    }
}

fn encryption(word: &str, root: Option<&str>) -> SslOpts {
    let options = SslOpts::default();
    match (word, root) {
        ("verify-full", Some(root)) => {
            options.with_root_certs(vec![PathBuf::from(root).into()]).with_disable_built_in_roots(true)
        }
        ("verify-full", None) => {
            let known = rustls_native_certs::load_native_certs().certs;
            let roots = known.into_iter().map(|certificate| certificate.to_vec().into()).collect();
            options.with_root_certs(roots).with_disable_built_in_roots(true)
        }
        _ => options.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true),
    }
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
        let mut client = self.client().await?;
        client.query_drop(sql).await.map_err(|error| error::failed("the statement failed", &error))
    }
}
