//! A double of a MongoDB server: it speaks the wire protocol (`OP_MSG`, and `OP_QUERY` for the first greeting) to unmodified drivers, says that it is
//! a replica set of one, and holds its documents in memory. It knows the commands and operators that reading needs, and refuses every other one,
//! so that a test never passes on something that was overlooked.

use std::cmp::Ordering as Order;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use bson::{Bson, Document, Timestamp, doc};
use regex::Regex;

#[derive(Debug, Default)]
struct State {
    collections: BTreeMap<(String, String), Vec<Document>>,
    cursors: HashMap<i64, Vec<Document>>,
    next: i64,
    /// The commands that came, but for greetings.
    commands: Vec<Document>,
    /// How many more batches it gives before it cuts every connection.
    batches_left: Option<usize>,
    has_snapshots: bool,
}

/// A running double. Its threads end with the process.
#[derive(Debug)]
pub struct MongoDouble {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl MongoDouble {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State { next: 1, has_snapshots: true, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || drop(serve(stream, port, &state)));
            }
        });
        Self { port, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }

    /// Its address for drivers.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
    }

    /// Puts documents into a collection, which begins to exist.
    ///
    /// # Panics
    /// When a document has no `_id`.
    pub fn insert(&self, database: &str, collection: &str, documents: impl IntoIterator<Item = Document>) {
        let mut state = self.state();
        let held = state.collections.entry((database.to_owned(), collection.to_owned())).or_default();
        for document in documents {
            assert!(document.contains_key("_id"), "{document}");
            held.push(document);
        }
    }

    /// Puts a document into a collection, in the place of the one with its `_id` if there is one.
    pub fn put(&self, database: &str, collection: &str, document: Document) {
        let mut state = self.state();
        let held = state.collections.entry((database.to_owned(), collection.to_owned())).or_default();
        match held.iter_mut().find(|held| held.get("_id") == document.get("_id")) {
            Some(place) => *place = document,
            None => held.push(document),
        }
    }

    /// The commands that came since the last look, but for greetings.
    pub fn commands(&self) -> Vec<Document> {
        std::mem::take(&mut self.state().commands)
    }

    /// Cuts the connection after this many batches of documents, and from then on.
    pub fn cut_after(&self, batch_count: usize) {
        self.state().batches_left = Some(batch_count);
    }

    /// Serves again after [`MongoDouble::cut_after`].
    pub fn resume(&self) {
        self.state().batches_left = None;
    }

    /// Answers snapshots as a server that no longer has the moment.
    pub fn refuse_snapshots(&self) {
        self.state().has_snapshots = false;
    }
}

fn read_exact(stream: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn decode(mut bytes: &[u8]) -> io::Result<Document> {
    Document::from_reader(&mut bytes).map_err(invalid)
}

fn encode(document: &Document) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    document.to_writer(&mut bytes).map_err(invalid)?;
    Ok(bytes)
}

/// Answers one connection. After the MongoDB documentation, "MongoDB Wire Protocol".
fn serve(mut stream: TcpStream, port: u16, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let header = read_exact(&mut stream, 16)?;
        let (length, id, code) = (number(&header, 0), number(&header, 4), number(&header, 12));
        let body = read_exact(&mut stream, usize::try_from(length).unwrap_or(16).saturating_sub(16))?;
        let (reply_code, reply) = if code == 2004 {
            // OP_QUERY: flags, the name of a collection, two numbers, the command.
            let end = body.iter().skip(4).position(|byte| *byte == 0).unwrap_or(0) + 5;
            let command = decode(&body[end + 8..])?;
            let Some(answer) = answer(&command, port, state) else { return Ok(()) };
            let mut reply = Vec::from([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
            reply.extend(encode(&answer)?);
            (1, reply)
        } else {
            // OP_MSG: flags, then one section with the command.
            if body.get(4) != Some(&0) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "sections other than a command are not known"));
            }
            let command = decode(&body[5..])?;
            let Some(answer) = answer(&command, port, state) else { return Ok(()) };
            let mut reply = vec![0; 5];
            reply.extend(encode(&answer)?);
            (2013, reply)
        };
        let whole = i32::try_from(16 + reply.len()).map_err(invalid)?;
        let mut out = Vec::with_capacity(16 + reply.len());
        for part in [whole, 1, id, reply_code] {
            out.extend(part.to_le_bytes());
        }
        out.extend(reply);
        stream.write_all(&out)?;
    }
}

fn refusal(code: i32, name: &str, message: &str) -> Document {
    doc! { "ok": 0.0, "errmsg": message, "code": code, "codeName": name }
}

/// The answer to a command; `None` cuts the connection.
fn answer(command: &Document, port: u16, state: &Mutex<State>) -> Option<Document> {
    let name = command.keys().next().map_or("", String::as_str);
    let database = command.get_str("$db").unwrap_or("admin").to_owned();
    match name {
        "hello" | "ismaster" | "isMaster" => {
            let me = format!("127.0.0.1:{port}");
            return Some(doc! {
                "helloOk": true, "ismaster": true, "isWritablePrimary": true, "setName": "rs0", "setVersion": 1,
                "hosts": [&me], "me": &me, "primary": &me, "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000, "logicalSessionTimeoutMinutes": 30, "connectionId": 1, "minWireVersion": 0,
                "maxWireVersion": 21, "readOnly": false, "saslSupportedMechs": ["SCRAM-SHA-256"], "ok": 1.0,
            });
        }
        "ping" | "endSessions" => return Some(doc! { "ok": 1.0 }),
        "saslStart" => return Some(refusal(18, "AuthenticationFailed", "Authentication failed.")),
        _ => {}
    }
    let mut state = state.lock().expect("no test panicked with it");
    state.commands.push(command.clone());
    match name {
        "killCursors" => Some(doc! { "ok": 1.0 }),
        "listCollections" => {
            let wanted = command.get_document("filter").cloned().unwrap_or_default();
            let named = state.collections.keys().filter(|(of, _)| *of == database);
            let mut found = Vec::new();
            for (_, name) in named {
                let entry = doc! { "name": name, "type": "collection" };
                match matches(&entry, &wanted) {
                    Ok(true) => found.push(Bson::Document(entry)),
                    Ok(false) => {}
                    Err(what) => return Some(refusal(2, "BadValue", &what)),
                }
            }
            Some(
                doc! { "cursor": { "firstBatch": found, "id": 0_i64, "ns": format!("{database}.$cmd.listCollections") }, "ok": 1.0 },
            )
        }
        "find" => find(&mut state, command, &database),
        "getMore" => {
            let id = command.get_i64("getMore").unwrap_or(0);
            let Some(rest) = state.cursors.remove(&id) else {
                return Some(refusal(43, "CursorNotFound", "cursor id not found"));
            };
            let size = command.get("batchSize").and_then(as_integer).unwrap_or(1000);
            let namespace = format!("{database}.{}", command.get_str("collection").unwrap_or_default());
            batch(&mut state, rest, size, "nextBatch", &namespace)
        }
        other => Some(refusal(59, "CommandNotFound", &format!("no such command: {other}"))),
    }
}

fn find(state: &mut State, command: &Document, database: &str) -> Option<Document> {
    let is_snapshot =
        command.get_document("readConcern").is_ok_and(|level| level.get_str("level").is_ok_and(|l| l == "snapshot"));
    if is_snapshot && !state.has_snapshots {
        return Some(refusal(239, "SnapshotTooOld", "the snapshot is no longer available"));
    }
    let collection = command.get_str("find").unwrap_or_default();
    let wanted = command.get_document("filter").cloned().unwrap_or_default();
    let held = state.collections.get(&(database.to_owned(), collection.to_owned())).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for document in held {
        match matches(&document, &wanted) {
            Ok(true) => found.push(document),
            Ok(false) => {}
            Err(what) => return Some(refusal(2, "BadValue", &what)),
        }
    }
    if let Some(limit) = command.get("limit").and_then(as_integer).filter(|limit| *limit > 0) {
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let size = command.get("batchSize").and_then(as_integer).unwrap_or(101);
    let namespace = format!("{database}.{collection}");
    let mut reply = batch(state, found, size, "firstBatch", &namespace)?;
    if let Ok(cursor) = reply.get_document_mut("cursor") {
        cursor.insert("atClusterTime", Timestamp { time: 1, increment: 1 });
    }
    Some(reply)
}

fn batch(state: &mut State, mut documents: Vec<Document>, size: i64, key: &str, namespace: &str) -> Option<Document> {
    if let Some(left) = &mut state.batches_left {
        *left = left.checked_sub(1)?;
    }
    let size = usize::try_from(size).unwrap_or(0);
    let rest = documents.split_off(size.min(documents.len()));
    let mut id = 0;
    if !rest.is_empty() {
        id = state.next;
        state.next += 1;
        state.cursors.insert(id, rest);
    }
    Some(doc! { "cursor": { key: documents, "id": id, "ns": namespace }, "ok": 1.0 })
}

fn as_integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

/// The names of the types as `$type` knows them.
fn type_of(value: &Bson) -> &'static str {
    match value {
        Bson::Double(_) => "double",
        Bson::String(_) => "string",
        Bson::Array(_) => "array",
        Bson::Document(_) => "object",
        Bson::Boolean(_) => "bool",
        Bson::Null => "null",
        Bson::RegularExpression(_) => "regex",
        Bson::JavaScriptCode(_) => "javascript",
        Bson::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        Bson::Int32(_) => "int",
        Bson::Int64(_) => "long",
        Bson::Timestamp(_) => "timestamp",
        Bson::Binary(_) => "binData",
        Bson::ObjectId(_) => "objectId",
        Bson::DateTime(_) => "date",
        Bson::Symbol(_) => "symbol",
        Bson::Decimal128(_) => "decimal",
        Bson::Undefined => "undefined",
        Bson::MaxKey => "maxKey",
        Bson::MinKey => "minKey",
        Bson::DbPointer(_) => "dbPointer",
    }
}

/// Compares within a type, numbers of any kind with each other; `None` across types.
fn compare(a: &Bson, b: &Bson) -> Option<Order> {
    #[expect(clippy::cast_precision_loss, reason = "as the server compares whole numbers with doubles, near enough for tests")]
    let double = |value: &Bson| match value {
        Bson::Double(number) => Some(*number),
        Bson::Decimal128(number) => number.to_string().parse().ok(),
        value => as_integer(value).map(|number| number as f64),
    };
    match (a, b) {
        (Bson::String(a), Bson::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Bson::ObjectId(a), Bson::ObjectId(b)) => Some(a.bytes().cmp(&b.bytes())),
        (Bson::DateTime(a), Bson::DateTime(b)) => Some(a.cmp(b)),
        (Bson::Boolean(a), Bson::Boolean(b)) => Some(a.cmp(b)),
        (Bson::Null | Bson::Undefined, Bson::Null | Bson::Undefined) => Some(Order::Equal),
        _ => match (as_integer(a), as_integer(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => {
                let (a, b) = (double(a)?, double(b)?);
                if a.is_nan() && b.is_nan() { Some(Order::Equal) } else { a.partial_cmp(&b) }
            }
        },
    }
}

/// Whether a document is one that the filter wants; `Err` names what is not known here.
fn matches(document: &Document, filter: &Document) -> Result<bool, String> {
    for (key, wanted) in filter {
        let lists = || -> Result<Vec<bool>, String> {
            let parts = wanted.as_array().ok_or_else(|| format!("{key} needs an array"))?;
            parts.iter().map(|part| matches(document, part.as_document().ok_or("an object is needed")?)).collect()
        };
        let is_match = match key.as_str() {
            "$and" => lists()?.into_iter().all(|is_match| is_match),
            "$or" => lists()?.into_iter().any(|is_match| is_match),
            "$nor" => !lists()?.into_iter().any(|is_match| is_match),
            operator if operator.starts_with('$') => return Err(format!("unknown top level operator: {operator}")),
            field => {
                let mut value = Some(document);
                let mut parts = field.split('.').peekable();
                let mut found = None;
                while let (Some(part), Some(inside)) = (parts.next(), value) {
                    found = inside.get(part);
                    value = found.and_then(Bson::as_document);
                    if parts.peek().is_some() && value.is_none() {
                        found = None;
                    }
                }
                field_matches(found, wanted)?
            }
        };
        if !is_match {
            return Ok(false);
        }
    }
    Ok(true)
}

fn field_matches(value: Option<&Bson>, wanted: &Bson) -> Result<bool, String> {
    let operators = match wanted {
        Bson::Document(operators) if operators.keys().any(|key| key.starts_with('$')) => operators,
        wanted => return Ok(compare(value.unwrap_or(&Bson::Null), wanted) == Some(Order::Equal) || value == Some(wanted)),
    };
    for (operator, wanted) in operators {
        let order = || value.and_then(|value| compare(value, wanted));
        let is_match = match operator.as_str() {
            "$eq" => order() == Some(Order::Equal),
            "$gte" => order().is_some_and(Order::is_ge),
            "$gt" => order().is_some_and(Order::is_gt),
            "$lte" => order().is_some_and(Order::is_le),
            "$lt" => order().is_some_and(Order::is_lt),
            "$in" => {
                let all = wanted.as_array().ok_or("$in needs an array")?;
                all.iter().any(|wanted| value.is_some_and(|value| compare(value, wanted) == Some(Order::Equal)))
            }
            "$exists" => value.is_some() == wanted.as_bool().unwrap_or(true),
            "$type" => {
                let names = match wanted {
                    Bson::Array(names) => names.iter().filter_map(Bson::as_str).collect(),
                    name => vec![name.as_str().unwrap_or_default()],
                };
                value.is_some_and(|value| names.contains(&type_of(value)))
            }
            "$regex" => {
                let pattern = Regex::new(wanted.as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
                value.and_then(Bson::as_str).is_some_and(|text| pattern.is_match(text))
            }
            "$not" => !field_matches(value, wanted)?,
            other => return Err(format!("unknown operator: {other}")),
        };
        if !is_match {
            return Ok(false);
        }
    }
    Ok(true)
}
