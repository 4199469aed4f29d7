//! MongoDB: collections as streams. Documents travel as the bytes that the server sent, and their fields go straight into Arrow.

mod error;
mod filter;
mod read;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mongodb::Client;
use mongodb::options::{AuthMechanism, ClientOptions, Credential};
use subak_connect::{
    Abilities, ConfigSchema, ConnectError, ConnectErrorKind, Connection, Connector, Field, FieldKind, OpenRequest, Source,
};
use subak_domain::Secret;

/// How long it is waited for a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The connector.
#[derive(Debug)]
pub struct MongoDb;

#[async_trait]
impl Connector for MongoDb {
    fn kind(&self) -> &'static str {
        "mongodb"
    }

    fn summary(&self) -> &'static str {
        "MongoDB 5 and newer: collections are read, one consistent snapshot of each where the server can give one"
    }

    fn config(&self) -> ConfigSchema {
        const CONNECTION: &[Field] = &[
            Field::new(
                "uri",
                FieldKind::Text,
                true,
                "Where the servers are, without a password: `mongodb://host:27017/?replicaSet=rs0`, `mongodb+srv://cluster.example`. Options such as `tls=true` and `tlsCAFile` stand in it.",
            ),
            Field::new("database", FieldKind::Text, true, "The database."),
            Field::new("user", FieldKind::Text, false, "Who connects, where the server asks for it."),
            Field::new("password", FieldKind::Secret, false, "The password of the user."),
            Field::new("auth_database", FieldKind::Text, false, "The database that knows the user. By default `admin`."),
            Field::new(
                "read_concern",
                FieldKind::Word(&["snapshot", "majority", "local"]),
                false,
                "What a read sees. `snapshot`, the default on replica sets and sharded clusters, is one state of the collection; without, documents that change during a read come as they were or as they are.",
            ),
        ];
        ConfigSchema { connection: CONNECTION, stream: read::FIELDS }
    }

    fn abilities(&self) -> Abilities {
        Abilities { source: true, ..Abilities::default() }
    }

    async fn open(&self, request: OpenRequest) -> Result<Arc<dyn Connection>, ConnectError> {
        let server = Server::new(&request).await?;
        server.ping().await?;
        Ok(Arc::new(server))
    }
}

/// What a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadConcern {
    /// The best that the server has.
    Unsaid,
    Snapshot,
    Majority,
    Local,
}

/// One configured database.
#[derive(Clone)]
struct Server {
    client: Client,
    database: Arc<str>,
    name: Arc<str>,
    /// Where it connects to, for people.
    place: Arc<str>,
    read_concern: ReadConcern,
    /// Where temporary files go.
    temporary: Arc<Path>,
}

impl Server {
    async fn new(request: &OpenRequest) -> Result<Self, ConnectError> {
        let values = &request.config;
        let text = |key: &str| values.get(key).filter(|text| !text.is_empty());
        let refused = |what: &str| ConnectError::new(ConnectErrorKind::Config, format!("connection `{}`: {what}", request.name));
        let mut options = ClientOptions::parse(text("uri").unwrap_or_default())
            .await
            .map_err(|error| refused("`uri` is not the address of a MongoDB server").because(error::said(&error)))?;
        if options.credential.as_ref().is_some_and(|credential| credential.password.is_some()) {
            return Err(refused("`uri` has a password in it")
                .help("give it as `password: ${secret:name}`, and the user as `user:`: addresses are shown in messages"));
        }
        if let Some(user) = text("user") {
            let password = values.secrets.get("password").map(Secret::expose).or_else(|| text("password"));
            let known = options.credential.take();
            let mut credential = Credential::default();
            credential.username = Some(user.to_owned());
            credential.password = password.map(str::to_owned);
            credential.source = text("auth_database")
                .map(str::to_owned)
                .or_else(|| known.as_ref().and_then(|known| known.source.clone()))
                .or_else(|| Some("admin".to_owned()));
            credential.mechanism = known.and_then(|known| known.mechanism).filter(|known| *known != AuthMechanism::MongoDbX509);
            options.credential = Some(credential);
        }
        options.app_name = Some("subak".to_owned());
        options.server_selection_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        let hosts: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
        let database = text("database").unwrap_or_default();
        let place = format!("`{database}` on {}", hosts.join(", "));
        let client = Client::with_options(options)
            .map_err(|error| refused("`uri` has options that do not go together").because(error::said(&error)))?;
        Ok(Self {
            client,
            database: database.into(),
            name: request.name.as_str().into(),
            place: place.into(),
            read_concern: match text("read_concern") {
                Some("snapshot") => ReadConcern::Snapshot,
                Some("majority") => ReadConcern::Majority,
                Some("local") => ReadConcern::Local,
                _ => ReadConcern::Unsaid,
            },
            temporary: request.temporary.as_path().into(),
        })
    }

    fn database(&self) -> mongodb::Database {
        self.client.database(&self.database)
    }

    /// Proves that the server answers and lets us in; whether it can give snapshots.
    async fn ping(&self) -> Result<bool, ConnectError> {
        let failed = |error: &mongodb::error::Error| error::opening(&self.name, &self.place, error);
        let hello = self.database().run_command(bson::doc! { "hello": 1 }).await.map_err(|error| failed(&error))?;
        let version = hello.get_i32("maxWireVersion").unwrap_or(0);
        // Snapshots came with MongoDB 5.0; a router says `isdbgrid`, a member of a replica set its name.
        let is_many = hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|word| word == "isdbgrid");
        Ok(version >= 13 && is_many)
    }
}

impl Connection for Server {
    fn source(&self) -> Option<&dyn Source> {
        Some(self)
    }
}
