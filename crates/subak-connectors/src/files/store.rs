//! Object stores: what S3, Google Cloud Storage, Azure Blob Storage and web servers hold, read like files of a folder.
//!
//! Objects that are wanted come into a temporary folder first. There they are read as often as their format needs, and an object that is
//! replaced meanwhile is one state or the other, never both.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use subak_connect::{ConnectError, ConnectErrorKind, Field, FieldKind, OpenRequest};
use subak_domain::Secret;
use subak_domain::sensor::FoundFile;
use tokio::runtime::Handle;

use super::input::Input;

/// The keys of a connection to a store.
pub(super) const FIELDS: [Field; 6] = [
    Field::optional(
        "url",
        FieldKind::Text,
        "Instead of `path`, where objects are: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `https://host/folder` of a web server. Objects are read; tables are not written there.",
    ),
    Field::optional("region", FieldKind::Text, "S3: the region of the bucket."),
    Field::optional("endpoint", FieldKind::Text, "S3 and Azure: the address of a server of one's own, such as MinIO."),
    Field::optional(
        "key_id",
        FieldKind::Text,
        "S3: the access key's id. Azure: the name of the account. Without, what the machine's own role may do counts.",
    ),
    Field::optional(
        "secret_key",
        FieldKind::Secret,
        "S3: the secret access key. Azure: the account's key. Google: the key of a service account, as its JSON.",
    ),
    Field::optional(
        "options",
        FieldKind::Texts,
        "More settings by their usual names: `aws_session_token`, `aws_skip_signature: true` for public buckets, `azure_storage_sas_key`, `google_skip_signature` and so on.",
    ),
];

/// Tries after the first one, and how long all may take.
const RETRY_COUNT: usize = 4;
const RETRY_TIME: Duration = Duration::from_secs(60);

/// How long a store may be silent while an object comes.
const SILENCE: Duration = Duration::from_secs(60);

/// An open store.
#[derive(Debug, Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// What stands before the keys of the connection.
    prefix: object_store::path::Path,
    /// The address, for people and before the keys.
    pub(super) url: Arc<str>,
    name: Arc<str>,
}

/// An object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    meta: ObjectMeta,
    /// Its key below the connection's address.
    pub(super) key: String,
}

impl Object {
    /// What can be seen of it from outside.
    pub(super) fn found(&self) -> FoundFile {
        FoundFile { path: self.key.clone(), bytes: self.meta.size, modified_at: self.meta.last_modified.timestamp_micros() }
    }
}

impl Store {
    /// The store of a connection; `None` when it is a folder.
    pub(super) fn open(request: &OpenRequest) -> Result<Option<Self>, ConnectError> {
        let config = &request.config;
        let Some(text) = config.get("url").filter(|url| !url.is_empty()) else { return Ok(None) };
        let refused =
            |what: String| ConnectError::new(ConnectErrorKind::Config, format!("connection `{}`: {what}", request.name));
        let url = reqwest::Url::parse(text).map_err(|error| {
            refused(format!("`url` is no address: `{text}`")).because(error).help("write `s3://bucket/prefix`")
        })?;
        if url.password().is_some() || url.query().is_some() {
            return Err(refused("`url` has a password or parameters in it".to_owned())
                .help("give them under `key_id:`, `secret_key:` and `options:`"));
        }
        let (scheme, prefix) = ObjectStoreScheme::parse(&url)
            .map_err(|error| refused(format!("`{text}` is no address of an object store")).because(error.to_string()))?;
        // The first one stays; every connection of ours asks for the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let store = build(request, &scheme, &url)
            .map_err(|error| refused("the object store cannot be set up".to_owned()).because(error))?;
        Ok(Some(Self { objects: store, prefix, url: text.trim_end_matches('/').into(), name: request.name.as_str().into() }))
    }

    /// The objects whose keys match a pattern, in the order of their keys.
    pub(super) fn find(&self, pattern: &str) -> Result<Vec<Object>, ConnectError> {
        let has_wildcards = pattern.contains(['*', '?', '[']);
        if !has_wildcards {
            let location = self.location(pattern)?;
            return match Handle::current().block_on(self.objects.head(&location)) {
                Ok(meta) => Ok(vec![Object { meta, key: pattern.to_owned() }]),
                Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
                Err(error) => Err(self.failed(&format!("cannot look at `{}/{pattern}`", self.url), error)),
            };
        }
        let wrong = |error: glob::PatternError| {
            ConnectError::new(ConnectErrorKind::Config, format!("`{pattern}` is not a file pattern")).because(error)
        };
        let matcher = glob::Pattern::new(pattern).map_err(wrong)?;
        let options =
            glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
        // Only what can match is listed: the folders before the first wildcard.
        let fixed = pattern.split(['*', '?', '[']).next().unwrap_or_default();
        let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut objects = Vec::new();
        let location = self.location(folder)?;
        let found: Result<Vec<ObjectMeta>, _> = Handle::current().block_on(self.objects.list(Some(&location)).try_collect());
        for meta in found.map_err(|error| self.failed(&format!("cannot list `{}`", self.url), error))? {
            let parts: Option<Vec<String>> =
                meta.location.prefix_match(&self.prefix).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
            let Some(key) = parts.map(|parts| parts.join("/")) else { continue };
            if matcher.matches_with(&key, options) {
                objects.push(Object { meta, key });
            }
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The whole key of an object, as it stands there.
    fn location(&self, key: &str) -> Result<object_store::path::Path, ConnectError> {
        let whole = format!("{}/{key}", self.prefix);
        object_store::path::Path::parse(whole.trim_matches('/')).map_err(|error| {
            let message = format!("connection `{}`: `{key}` cannot be the key of an object", self.name);
            ConnectError::new(ConnectErrorKind::Config, message).because(error.to_string())
        })
    }

    /// Brings an object into a folder, all of it.
    pub(super) fn fetch(&self, object: &Object, folder: &Path) -> Result<PathBuf, ConnectError> {
        let message = format!("cannot read `{}/{}`", self.url, object.key);
        // Its own folder, so that its name stays what it is: the name says the format.
        let folder = tempfile::Builder::new().prefix("object").tempdir_in(folder).map(tempfile::TempDir::keep);
        let kept = |error| ConnectError::io(ConnectErrorKind::Resource, format!("{message} into a temporary file"), error);
        let path = folder.map_err(kept)?.join(object.key.rsplit('/').next().unwrap_or("object"));
        let mut file = std::fs::File::create(&path).map_err(kept)?;
        // A weak tag never matches.
        let tag = object.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = object_store::GetOptions { if_match: tag, ..object_store::GetOptions::default() };
        Handle::current().block_on(async {
            let answer =
                self.objects.get_opts(&object.meta.location, options).await.map_err(|error| self.failed(&message, error))?;
            let (listed, now) = (&object.meta, &answer.meta);
            if (listed.size, listed.last_modified, &listed.e_tag) != (now.size, now.last_modified, &now.e_tag) {
                let error = ConnectError::new(ConnectErrorKind::Unavailable, message.as_str());
                return Err(error.because("the object was replaced after it was listed").help("run again"));
            }
            let expected = answer.meta.size;
            let mut length = 0;
            let mut parts = answer.into_stream();
            loop {
                let silent = |_| {
                    let error = ConnectError::new(ConnectErrorKind::Unavailable, message.as_str());
                    error.because(format!("nothing came for {} seconds", SILENCE.as_secs()))
                };
                let Some(part) = tokio::time::timeout(SILENCE, parts.next()).await.map_err(silent)? else { break };
                let part = part.map_err(|error| self.failed(&message, error))?;
                length += part.len() as u64;
                file.write_all(&part).map_err(kept)?;
            }
            if length != expected {
                let error = ConnectError::new(ConnectErrorKind::Unavailable, message.as_str());
                return Err(error.because(format!("{length} of {expected} bytes came")));
            }
            Ok(())
        })?;
        Ok(path)
    }

    /// Proves that the store answers and lets us in.
    pub(super) fn probe(&self) -> Result<(), ConnectError> {
        let first = Handle::current().block_on(self.objects.list(Some(&self.prefix)).next());
        match first {
            Some(Err(error)) => Err(self.failed(&format!("cannot list `{}`", self.url), error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, message: &str, error: object_store::Error) -> ConnectError {
        use object_store::Error;
        let message = format!("connection `{}`: {message}", self.name);
        let (kind, help) = match &error {
            Error::NotFound { .. } => {
                (ConnectErrorKind::NotFound, "is the bucket right? it is not there, or not shown to whoever asks")
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                (ConnectErrorKind::Permission, "correct `key_id:` and `secret_key:`, or let that key read the bucket")
            }
            Error::Precondition { .. } => {
                (ConnectErrorKind::Unavailable, "the object was replaced after it was listed; run again")
            }
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                (ConnectErrorKind::Config, "the server cannot do that; without listing, only paths without wildcards can be read")
            }
            _ => (ConnectErrorKind::Unavailable, "are `url:`, `region:` and `endpoint:` right, and can this machine reach it?"),
        };
        ConnectError::new(kind, message).because(error.to_string()).help(help)
    }
}

fn build(request: &OpenRequest, scheme: &ObjectStoreScheme, url: &reqwest::Url) -> Result<Arc<dyn ObjectStore>, String> {
    let config = &request.config;
    let text = |key: &str| config.get(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let secret = config.secrets.get("secret_key").map(Secret::expose).map(str::to_owned).filter(|secret| !secret.is_empty());
    let retry = RetryConfig { max_retries: RETRY_COUNT, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
    let is_plain = text("endpoint").is_some_and(|endpoint| endpoint.starts_with("http://"));
    // A large object takes its time; what must not happen is silence.
    let client = ClientOptions::new().with_timeout_disabled().with_allow_http(is_plain);
    let extra = config.values.iter().filter_map(|(key, value)| Some((key.strip_prefix("options.")?, value.clone())));
    let said = |error: object_store::Error| error.to_string();
    let named = |names: [(&'static str, Option<String>); 4]| names.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let plain = is_plain.then(|| "true".to_owned());
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let own = named([
                ("aws_region", text("region")),
                ("aws_endpoint", text("endpoint")),
                ("aws_access_key_id", text("key_id")),
                ("aws_secret_access_key", secret),
            ]);
            let mut builder = AmazonS3Builder::new().with_url(url.as_str()).with_retry(retry).with_client_options(client);
            for (key, value) in own.chain(extra) {
                builder = builder.with_config(key.parse::<AmazonS3ConfigKey>().map_err(said)?, value);
            }
            Arc::new(builder.build().map_err(said)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let own =
                named([("google_service_account_key", secret), ("google_base_url", text("endpoint")), ("", None), ("", None)]);
            let mut builder =
                GoogleCloudStorageBuilder::new().with_url(url.as_str()).with_retry(retry).with_client_options(client);
            for (key, value) in own.chain(extra) {
                builder = builder.with_config(key.parse::<GoogleConfigKey>().map_err(said)?, value);
            }
            Arc::new(builder.build().map_err(said)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let own = named([
                ("azure_storage_account_name", text("key_id")),
                ("azure_storage_account_key", secret),
                ("azure_storage_endpoint", text("endpoint")),
                ("azure_allow_http", plain),
            ]);
            let mut builder = MicrosoftAzureBuilder::new().with_url(url.as_str()).with_retry(retry).with_client_options(client);
            for (key, value) in own.chain(extra) {
                builder = builder.with_config(key.parse::<AzureConfigKey>().map_err(said)?, value);
            }
            Arc::new(builder.build().map_err(said)?)
        }
        ObjectStoreScheme::Http => {
            let mut base = url.clone();
            base.set_path("");
            let options = client.with_allow_http(true);
            Arc::new(
                HttpBuilder::new()
                    .with_url(base.as_str())
                    .with_retry(retry)
                    .with_client_options(options)
                    .build()
                    .map_err(said)?,
            )
        }
        _ => return Err("it is none of `s3:`, `gs:`, `az:` and `https:`".to_owned()),
    })
}

impl Object {
    /// The object as a file to be read, which has not come yet.
    pub(super) fn input(&self, store: &Store) -> Input {
        let name = format!("{}/{}", store.url, self.key);
        Input::of_object(&self.key, name.into(), self.meta.size, self.meta.last_modified.timestamp_micros())
    }
}
