//! ADBC: any system that has a driver library with the Arrow database interface, for example Snowflake or Flight SQL. Source only; the
//! driver is the user's, and what it returns is taken as it is.

mod error;
mod read;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use adbc_core::options::{AdbcVersion, OptionDatabase, OptionValue};
use adbc_core::{Connection as _, Database as _, Driver as _, LOAD_FLAG_ALLOW_RELATIVE_PATHS, LOAD_FLAG_DEFAULT, Statement as _};
use adbc_driver_manager::{ManagedConnection, ManagedDriver};
use async_trait::async_trait;
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Dialect, Escapes, Field, FieldKind,
    OpenRequest, Source, Statements, blocking,
};

/// How systems write SQL, as far as reading goes.
const fn dialect(quote: char) -> Dialect {
    Dialect {
        quote,
        name: "ansi",
        family: subak_connect::Family::Standard,
        null_safe_equal: "",
        escapes: Escapes::Nowhere,
        text: "cast({value} as varchar)",
        correlates: true,
        exact_order: "",
        row_ids: &[],
        row_column: None,
        matches: "",
        position: "",
        has_schemas: true,
        schema_default: "",
        stores_as: &[],
    }
}

static QUOTES: Dialect = dialect('"');

static BACKTICKS: Dialect = dialect('`');

/// The connector.
#[derive(Debug)]
pub struct Adbc;

const CONNECTION: &[Field] = &[
    Field::new(
        "driver",
        FieldKind::Text,
        true,
        "The driver: the whole path of its library (`/opt/adbc/libadbc_driver_snowflake.so`), or a name that the system or an ADBC manifest knows.",
    ),
    Field::new(
        "entrypoint",
        FieldKind::Text,
        false,
        "The function that makes the driver, where the library has another one than its name says (`duckdb_adbc_init`).",
    ),
    Field::new("uri", FieldKind::Secret, false, "Where the system is, in the driver's words. It may have a password in it."),
    Field::new("user", FieldKind::Text, false, "Who connects, where the driver does not take it from `uri`."),
    Field::new("password", FieldKind::Secret, false, "The password, where the driver does not take it from `uri`."),
    Field::new(
        "options",
        FieldKind::Texts,
        false,
        "Other options of the driver by their whole names, for example `adbc.snowflake.sql.warehouse: small`.",
    ),
    Field::new(
        "quote",
        FieldKind::Word(&["double", "backtick"]),
        false,
        "What stands around names: `double` quotes (the default), or a `backtick`.",
    ),
];

#[async_trait]
impl Connector for Adbc {
    fn kind(&self) -> &'static str {
        "adbc"
    }

    fn summary(&self) -> &'static str {
        "Any system with an ADBC driver library (Snowflake, Flight SQL, BigQuery, SQLite, …): tables and queries are read as the driver returns them"
    }

    fn config(&self) -> ConfigSchema {
        ConfigSchema { connection: CONNECTION, stream: subak_connect::source::SQL_OPTIONS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { source: true, schemas: true, statements: true, ..Abilities::default() }
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        blocking::run(move || {
            let system = System::new(&request)?;
            system.connect()?;
            Ok(Arc::new(system) as Arc<dyn Connection>)
        })
        .await
    }
}

/// One configured system. Each operation connects anew.
#[derive(Clone)]
pub(crate) struct System {
    driver: ManagedDriver,
    options: Arc<[(OptionDatabase, OptionValue)]>,
    dialect: &'static Dialect,
    name: Arc<str>,
}

impl System {
    fn new(request: &OpenRequest) -> Result<Self, ConnectError> {
        let values = &request.config;
        let text = |key: &str| values.get(key).filter(|text| !text.is_empty());
        let secret = |key: &str| values.secrets.get(key).map(subak_domain::Secret::expose).or_else(|| text(key));
        let driver = text("driver").unwrap_or_default();
        if driver.contains('/') && !Path::new(driver).is_absolute() {
            let message = format!("connection `{}`: `driver` is a path that begins nowhere", request.name);
            let help = "write the whole path of the library, or the name under which the system knows it";
            return Err(ConnectError::new(ConnectErrorKind::Config, message).help(help));
        }
        let mut options: Vec<(OptionDatabase, OptionValue)> = Vec::new();
        for (key, option) in
            [("uri", OptionDatabase::Uri), ("user", OptionDatabase::Username), ("password", OptionDatabase::Password)]
        {
            options.extend(secret(key).map(|value| (option, OptionValue::String(value.to_owned()))));
        }
        options.extend(named(&values.values).map(|(key, value)| (OptionDatabase::Other(key), OptionValue::String(value))));
        let dialect = if text("quote") == Some("backtick") { &BACKTICKS } else { &QUOTES };
        let driver = load(&request.name, driver, text("entrypoint"))?;
        Ok(Self { driver, options: options.into(), dialect, name: request.name.as_str().into() })
    }

    /// A connection of its own. It ends when it is dropped.
    fn connect(&self) -> Result<ManagedConnection, ConnectError> {
        let connect = || {
            let mut driver = self.driver.clone();
            driver.new_database_with_opts(self.options.iter().cloned())?.new_connection()
        };
        connect().map_err(|error| error::opening(&self.name, &error))
    }
}

/// The options of the driver, which the project gives as `options.<name>`.
fn named(values: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    values.iter().filter_map(|(key, value)| Some((key.strip_prefix("options.")?.to_owned(), value.clone())))
}

/// Loads the library. Drivers that know only the first version of the interface are taken too.
fn load(name: &str, driver: &str, entrypoint: Option<&str>) -> Result<ManagedDriver, ConnectError> {
    let entrypoint = entrypoint.map(str::as_bytes);
    let flags = LOAD_FLAG_DEFAULT & !LOAD_FLAG_ALLOW_RELATIVE_PATHS;
    let loaded = [AdbcVersion::V110, AdbcVersion::V100]
        .map(|version| ManagedDriver::load_from_name(driver, entrypoint, version, flags, None));
    let [newest, first] = loaded;
    newest.or_else(|error| first.map_err(|_| error)).map_err(|error| {
        let message = format!("connection `{name}`: the driver `{driver}` cannot be loaded");
        ConnectError::new(ConnectErrorKind::NotFound, message)
            .because(error.message)
            .help("install the library, and name its whole path; `entrypoint:` says which function makes the driver where it is not the usual one")
    })
}

impl Connection for System {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
    fn statements(&self) -> Option<&dyn Statements> {
        Some(self)
    }
}

#[async_trait]
impl Statements for System {
    fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    async fn execute(&self, sql: &str) -> Result<(), ConnectError> {
        let (system, sql) = (self.clone(), sql.to_owned());
        blocking::run(move || {
            let mut connection = system.connect()?;
            let execute = || {
                let mut statement = connection.new_statement()?;
                statement.set_sql_query(sql)?;
                statement.execute_update()
            };
            execute().map(drop).map_err(|error| error::failed("the statement failed", &error))
        })
        .await
    }
}
