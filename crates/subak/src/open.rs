//! Opening connections: references are resolved here and nowhere else, and secrets go straight to the connector.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use subak_connect::connector::find;
use subak_connect::{
    ConnectError, ConnectErrorKind, Connection, ConnectionConfig, FieldKind, OpenRequest, RowPrograms, blocking,
};
use subak_connectors::{CONNECTORS, DuckDbPrograms};
use subak_domain::config::find_field;
use subak_domain::notification::{EXPORT_KINDS, RECEIVER_KINDS, ReceiverKind};
use subak_domain::{ConnectionName, Secret};
use subak_engine::{Connections, Outbound, Place};
use subak_notify::Receiver;
use subak_project::{Config, PROJECT_FILES, Part, ReceiverDeclaration, Template, Unresolved};
use tokio::sync::{Mutex, RwLock};

use crate::project::{Opened, STATE_FOLDER};
use crate::redact::Redactor;
use crate::settings::Settings;

/// How often a connection that is to be lent is looked at.
const LEND_INTERVAL: Duration = Duration::from_millis(20);

/// The connections of one project, opened on first use.
pub(crate) struct ProjectConnections {
    root: PathBuf,
    config: Config,
    settings: Arc<Settings>,
    is_read_only: bool,
    /// Whether whoever opens one to write holds the project, so that stages which are there belong to loads that died.
    sweeps: bool,
    redactor: Redactor,
    open: Mutex<BTreeMap<ConnectionName, Arc<dyn Connection>>>,
    /// Whoever opens one reads its gate; whoever it is lent to writes it.
    gates: Mutex<BTreeMap<ConnectionName, Arc<RwLock<()>>>>,
}

impl ProjectConnections {
    /// Takes the secrets that were resolved so far out of texts.
    pub(crate) fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }

    pub(crate) fn new(root: &Path, config: &Config, settings: &Arc<Settings>, is_read_only: bool) -> Self {
        Self {
            root: root.to_path_buf(),
            config: config.clone(),
            settings: Arc::clone(settings),
            is_read_only,
            sweeps: !is_read_only,
            redactor: Redactor::default(),
            open: Mutex::default(),
            gates: Mutex::default(),
        }
    }

    /// The same, for somebody who writes beside runs that go on: what they stage stays.
    pub(crate) fn beside_runs(self) -> Self {
        Self { sweeps: false, ..self }
    }

    /// Whether nothing is written through them, as where somebody only looks.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    async fn gate(&self, name: &ConnectionName) -> Arc<RwLock<()>> {
        Arc::clone(self.gates.lock().await.entry(name.clone()).or_default())
    }

    /// Whether the process that has it open keeps others out.
    pub(crate) fn holds_file(&self, name: &ConnectionName) -> bool {
        let kind = self.config.connections.get(name).map(|declaration| declaration.kind.as_str());
        kind.and_then(|kind| find(CONNECTORS, kind)).is_some_and(|connector| connector.abilities().holds_file)
    }

    fn request(&self, name: &ConnectionName) -> Result<(&'static str, OpenRequest), ConnectError> {
        let wrong = |message: String| ConnectError::new(ConnectErrorKind::Config, message);
        let temporary = self.root.join(STATE_FOLDER).join("tmp");
        let state = self.root.join(STATE_FOLDER).join("connections");
        let mut config = ConnectionConfig::default();
        if name.as_str() == PROJECT_FILES {
            config.values.insert("path".into(), self.root.display().to_string());
            return Ok((
                "files",
                OpenRequest { name: "the project's files".into(), config, temporary, state, is_read_only: true },
            ));
        }
        let declaration = self.config.connections.get(name).ok_or_else(|| wrong(format!("there is no connection `{name}`")))?;
        let connector =
            find(CONNECTORS, &declaration.kind).ok_or_else(|| wrong(format!("there is no connector `{}`", declaration.kind)))?;
        let fields = connector.config().connection;
        for (key, template) in &declaration.values {
            let Some(field) = find_field(fields, key) else { continue };
            let value = self
                .value(template, field.kind == FieldKind::Secret)
                .map_err(|error| unresolved(&format!("connection `{name}`, `{key}`"), &error))?;
            if field.kind == FieldKind::Secret {
                config.secrets.insert(key.clone(), Secret::new(value));
            } else if field.kind == FieldKind::Path {
                config.values.insert(key.clone(), self.root.join(value).display().to_string());
            } else {
                config.values.insert(key.clone(), value);
            }
        }
        if connector.kind() == "files" && config.get("path").is_none() {
            config.values.insert("path".into(), self.root.display().to_string());
        }
        Ok((connector.kind(), OpenRequest { name: name.to_string(), config, temporary, state, is_read_only: self.is_read_only }))
    }

    /// A receiver of notifications with its references resolved.
    pub(crate) fn receiver(&self, name: &str) -> Result<Receiver, ConnectError> {
        self.resolved_receiver(name, &self.config.receivers, RECEIVER_KINDS)
    }

    /// A system that is told everything, with its references resolved.
    pub(crate) fn export(&self, name: &str) -> Result<Receiver, ConnectError> {
        self.resolved_receiver(name, &self.config.exports, EXPORT_KINDS)
    }

    fn resolved_receiver(
        &self,
        name: &str,
        declared: &BTreeMap<String, ReceiverDeclaration>,
        kinds: &[ReceiverKind],
    ) -> Result<Receiver, ConnectError> {
        let missing = || ConnectError::new(ConnectErrorKind::Config, format!("there is no receiver `{name}`"));
        let declaration = declared.get(name).ok_or_else(missing)?;
        let kind = kinds.iter().find(|kind| kind.kind == declaration.kind).ok_or_else(missing)?;
        let mut values = BTreeMap::new();
        for (key, template) in &declaration.values {
            let is_secret = find_field(kind.fields, key).is_some_and(|field| field.kind == FieldKind::Secret);
            let value =
                self.value(template, is_secret).map_err(|error| unresolved(&format!("receiver `{name}`, `{key}`"), &error))?;
            values.insert(key.clone(), Secret::new(value));
        }
        Ok(Receiver { kind: declaration.kind.to_owned(), values })
    }

    /// A value with its references resolved; what is secret of it will not show.
    fn value(&self, template: &Template, is_secret: bool) -> Result<String, Unresolved> {
        let variable = |name: &str| self.settings.variables.get(name).cloned();
        // Each part of its own: an answer or an address may show it without what stands around it.
        let secret = |name: &str| {
            let secret = self.secret(name)?;
            self.redactor.add(secret.expose());
            Some(secret)
        };
        let value = template.resolve(variable, secret)?;
        if template.has_secret() || is_secret {
            self.redactor.add(&value);
        }
        Ok(value)
    }

    /// The environment first, then a file below `.subak/secrets/` that only its owner can read.
    fn secret(&self, name: &str) -> Option<Secret> {
        self.settings.secret(name).or_else(|| {
            let path = self.root.join(STATE_FOLDER).join("secrets").join(name);
            let is_private = std::fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode().trailing_zeros() >= 6);
            let text = is_private.then(|| std::fs::read_to_string(&path).ok()).flatten()?;
            Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
        })
    }
}

/// The files of a folder on this machine, which are read and not written.
pub(crate) async fn folder(root: &Path, path: &Path) -> Result<Arc<dyn Connection>, ConnectError> {
    let missing = || ConnectError::new(ConnectErrorKind::Config, "there is no connector `files`");
    let mut config = ConnectionConfig::default();
    config.values.insert("path".into(), path.display().to_string());
    let state = root.join(STATE_FOLDER);
    let (temporary, state) = (state.join("tmp"), state.join("connections"));
    let request = OpenRequest { name: path.display().to_string(), config, temporary, state, is_read_only: true };
    find(CONNECTORS, "files").ok_or_else(missing)?.open(request).await
}

fn unresolved(place: &str, error: &Unresolved) -> ConnectError {
    let help = match error {
        Unresolved::Variable(name) => format!("set `{name}` in the environment, or give a default: `${{{name}:-default}}`"),
        Unresolved::Secret(name) => {
            let variable = name.to_ascii_uppercase();
            format!(
                "set `SUBAK_SECRET_{variable}` in the environment, or write the value to `.subak/secrets/{name}` with mode 0600"
            )
        }
    };
    ConnectError::new(ConnectErrorKind::Config, format!("{place}: {error}")).help(help)
}

#[async_trait]
impl Connections for ProjectConnections {
    async fn open(&self, name: &ConnectionName) -> Result<Arc<dyn Connection>, ConnectError> {
        let gate = self.gate(name).await;
        let _entered = gate.read().await;
        let mut open = self.open.lock().await;
        if let Some(connection) = open.get(name) {
            return Ok(Arc::clone(connection));
        }
        let (kind, request) = self.request(name)?;
        std::fs::create_dir_all(&request.temporary).map_err(|error| {
            ConnectError::io(ConnectErrorKind::Config, format!("cannot make the folder `{}`", request.temporary.display()), error)
        })?;
        let unknown = || ConnectError::new(ConnectErrorKind::Config, format!("there is no connector `{kind}`"));
        let connection = find(CONNECTORS, kind).ok_or_else(unknown)?.open(request).await?;
        if let Some(sink) = connection.sink().filter(|_| self.sweeps) {
            sink.clean_up().await?;
        }
        open.insert(name.clone(), Arc::clone(&connection));
        Ok(connection)
    }

    async fn lend(&self, name: &ConnectionName) -> Result<Box<dyn Send + Sync>, ConnectError> {
        if !self.holds_file(name) {
            return Ok(Box::new(()));
        }
        let gate = self.gate(name).await;
        loop {
            let mut open = self.open.lock().await;
            let is_unused = open.get(name).is_none_or(|connection| Arc::strong_count(connection) == 1);
            if let (true, Ok(lent)) = (is_unused, Arc::clone(&gate).try_write_owned()) {
                let connection = open.remove(name);
                drop(open);
                // Closing a database writes what is still to be written.
                blocking::run(move || {
                    drop(connection);
                    Ok(())
                })
                .await?;
                return Ok(Box::new(lent));
            }
            drop(open);
            tokio::time::sleep(LEND_INTERVAL).await;
        }
    }

    async fn folder(&self, path: &Path) -> Result<Arc<dyn Connection>, ConnectError> {
        folder(&self.root, path).await
    }

    fn programs(&self) -> Arc<dyn RowPrograms> {
        Arc::new(DuckDbPrograms)
    }

    fn resolve(&self, text: &str, literal: &mut dyn FnMut(&str) -> String) -> Result<String, ConnectError> {
        let wrong = |message: String| ConnectError::new(ConnectErrorKind::Config, message);
        let template = Template::parse(text).map_err(|error| wrong(error.to_string()))?;
        let mut value = String::new();
        for part in template.parts() {
            match part {
                Part::Literal(text) => value.push_str(&literal(text)),
                Part::Variable { name, default } => {
                    let found = self.settings.variables.get(name).filter(|value| !value.is_empty()).or(default.as_ref());
                    value.push_str(found.ok_or_else(|| wrong(Unresolved::Variable(name.clone()).to_string()))?);
                }
                Part::Secret { name } => {
                    let secret = self.secret(name).ok_or_else(|| wrong(Unresolved::Secret(name.clone()).to_string()))?;
                    self.redactor.add(secret.expose());
                    value.push_str(secret.expose());
                }
            }
        }
        if template.has_secret() {
            self.redactor.add(&value);
        }
        Ok(value)
    }
}

/// Where the programs of a project run.
pub(crate) fn place(opened: &Opened, settings: &Settings, redactor: Redactor, outbound: Arc<dyn Outbound>) -> Place {
    let (root, state) = (&opened.root, opened.state_folder());
    let python = match settings.program("uv") {
        Some(uv) => vec![uv.display().to_string(), "run".to_owned(), "--quiet".to_owned(), "--script".to_owned()],
        None => vec!["python3".to_owned()],
    };
    Place {
        root: root.clone(),
        logs: state.join("logs"),
        temporary: state.join("tmp"),
        python,
        hidden: settings.secret_variables(),
        waits_for_room: false,
        mask: Box::new(move |line| redactor.redact(line)),
        outbound,
    }
}
