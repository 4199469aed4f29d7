//! The data of the e-wallet example. Every value is a hash of what it belongs to, so each machine makes the same data.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use jiff::ToSpan;
use jiff::civil::{DateTime, date};
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

/// Why data cannot be written.
#[derive(Debug)]
pub(super) enum GenerateError {
    Io(std::io::Error),
    Sqlite(rusqlite::Error),
}

impl std::fmt::Display for GenerateError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(formatter),
            Self::Sqlite(error) => error.fmt(formatter),
        }
    }
}

impl From<std::io::Error> for GenerateError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rusqlite::Error> for GenerateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

const SCHEMA: &str = "
    create table users (user_id integer primary key, full_name varchar(100) not null, email varchar(100) not null,
        phone varchar(20), created_at datetime not null);
    create table merchants (merchant_id integer primary key, merchant_name varchar(100) not null, category varchar(50) not null,
        is_active boolean not null, updated_at datetime not null);
    create table transactions (transaction_id varchar(36) primary key, user_id integer not null, merchant_id integer not null,
        amount decimal(18,2) not null, status varchar(10) not null, transaction_time datetime not null, updated_at datetime not null);
    create index transactions_by_change on transactions (updated_at);";

const FIRST_NAMES: &[&str] =
    &["Ayu", "Budi", "Citra", "Dewi", "Eka", "Farah", "Gede", "Hana", "Indra", "Joko", "Komang", "Lestari"];
const LAST_NAMES: &[&str] = &["Wijaya", "Santoso", "Putri", "Pratama", "Sari", "Nugroho", "Saputra", "Utami", "Halim", "Kusuma"];
const CATEGORIES: &[&str] = &["Food", "Transport", "Groceries", "Electronics", "Fashion", "Bills"];
const DEVICES: &[&str] = &["Android", "iOS", "Web"];
const PROMOS: &[&str] = &["HEMAT10", "GAJIAN", "ONGKIR0"];

/// SplitMix64 of what a value belongs to.
fn hash(what: u64, number: u64) -> u64 {
    let mut state = (what << 48) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

fn pick<'a>(list: &[&'a str], random: u64) -> &'a str {
    list[usize::try_from(random % list.len() as u64).unwrap_or(0)]
}

fn text(time: DateTime) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

const START: DateTime = date(2025, 1, 1).at(0, 0, 0, 0);

fn later(seconds: u64) -> DateTime {
    START.saturating_add(i64::try_from(seconds).unwrap_or(0).seconds())
}

struct Transaction {
    id: String,
    user: u64,
    merchant: u64,
    amount: String,
    status: &'static str,
    at: DateTime,
    changed_at: DateTime,
}

fn user_count(transactions: u64) -> u64 {
    (transactions / 50).max(10)
}

fn merchant_count(transactions: u64) -> u64 {
    (transactions / 500).max(5)
}

fn transaction(number: u64, total: u64) -> Transaction {
    let random = |what: u64| hash(what, number);
    // From a few thousand to a few million rupiah; small amounts are the most common.
    let size =
        [5_000_u64, 20_000, 50_000, 150_000, 400_000, 2_500_000][usize::try_from(random(1) % 100 / 17).unwrap_or(0).min(5)];
    let cents = size * 100 + random(2) % (size * 100);
    let status = match random(3) % 20 {
        0 => "PENDING",
        1 | 2 => "FAILED",
        _ => "SUCCESS",
    };
    // Half a year, in order; several transactions share a second.
    let at = later(number * 15_552_000 / total.max(1));
    Transaction {
        id: format!("TX{number:010}"),
        user: 1 + random(4) % user_count(total),
        merchant: 1 + random(5) % merchant_count(total),
        amount: format!("{}.{:02}", cents / 100, cents % 100),
        status,
        at,
        changed_at: at,
    }
}

/// Not every document has a device, a promotion, or any metadata at all.
fn document(number: u64, transaction: &Transaction) -> Value {
    let random = |what: u64| hash(what, number);
    let mut metadata = Map::new();
    if random(10) % 10 > 0 {
        let version = format!("{}.{}", 1 + random(11) % 4, random(12) % 10);
        metadata.insert("device".into(), json!({ "type": pick(DEVICES, random(13)), "app": { "version": version } }));
    }
    match random(14) % 4 {
        0 => drop(metadata.insert("promo".into(), json!(pick(PROMOS, random(15))))),
        1 => drop(metadata.insert("promo".into(), Value::Null)),
        _ => {}
    }
    let mut document =
        Map::from_iter([("_id".to_owned(), json!(transaction.id)), ("recorded_at".to_owned(), json!(text(transaction.at)))]);
    if random(16) % 20 > 0 {
        document.insert("metadata".into(), Value::Object(metadata));
    }
    Value::Object(document)
}

fn insert_users(database: &Connection, numbers: std::ops::RangeInclusive<u64>) -> rusqlite::Result<()> {
    let mut statement = database.prepare("insert into users values (?, ?, ?, ?, ?)")?;
    for number in numbers {
        let name = format!("{} {}", pick(FIRST_NAMES, hash(20, number)), pick(LAST_NAMES, hash(21, number)));
        let email = format!("{}.{number}@mail.example", name.to_lowercase().replace(' ', "."));
        let phone = format!("08{:010}", hash(22, number) % 10_000_000_000);
        statement.execute(params![number.cast_signed(), name, email, phone, text(later(hash(23, number) % 86_400))])?;
    }
    Ok(())
}

fn write_transactions(
    data: &Path,
    database: &Connection,
    numbers: std::ops::Range<u64>,
    total: u64,
    file: &str,
) -> Result<(), GenerateError> {
    let folder = data.join("documents");
    std::fs::create_dir_all(&folder)?;
    // Written under another name first: a reader never sees half a file.
    let (temporary, path) = (folder.join(format!("{file}.tmp")), folder.join(file));
    let mut documents = BufWriter::new(File::create(&temporary)?);
    let mut statement = database.prepare("insert into transactions values (?, ?, ?, ?, ?, ?, ?)")?;
    for number in numbers {
        let row = transaction(number, total);
        let (user, merchant) = (row.user.cast_signed(), row.merchant.cast_signed());
        statement.execute(params![row.id, user, merchant, row.amount, row.status, text(row.at), text(row.changed_at)])?;
        writeln!(documents, "{}", document(number, &row))?;
    }
    documents.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(temporary, path)?;
    Ok(())
}

/// A file that somebody exports from a spreadsheet: most rows are right.
fn write_payouts(data: &Path, file: &str, from: u64) -> Result<(), GenerateError> {
    let folder = data.join("payouts");
    std::fs::create_dir_all(&folder)?;
    let mut lines = vec!["Payout Id;Merchant;Amount;Paid At;Status".to_owned()];
    for number in from..from + 200 {
        let at = later(15_552_000 + number * 3600);
        let amount = format!("{}.{:02}", 100_000 + hash(40, number) % 9_000_000, hash(41, number) % 100);
        let status = if hash(42, number).is_multiple_of(20) { "returned" } else { "paid" };
        lines.push(match number {
            // An amount with a comma for its point, a day that does not exist, a row that was cut, an id that is missing.
            17 => format!("P{number:05};{};1.250,00;{};{status}", 1 + number % 5, text(at)),
            42 => format!("P{number:05};{};{amount};2025-06-31 10:00:00;{status}", 1 + number % 5),
            99 => format!("P{number:05};{}", 1 + number % 5),
            123 => format!(";{};{amount};{};{status}", 1 + number % 5, text(at)),
            _ => format!("P{number:05};{};{amount};{};{status}", 1 + number % 5, text(at)),
        });
    }
    Ok(std::fs::write(folder.join(file), lines.join("\n") + "\n")?)
}

/// Writes everything that the first run reads.
pub(super) fn full(data: &Path, transactions: u32) -> Result<(), GenerateError> {
    let total = u64::from(transactions);
    std::fs::create_dir_all(data)?;
    let mut database = Connection::open(data.join("app.db"))?;
    let transaction = database.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    insert_users(&transaction, 1..=user_count(total))?;
    {
        let mut statement = transaction.prepare("insert into merchants values (?, ?, ?, ?, ?)")?;
        for number in 1..=merchant_count(total) {
            let category = pick(CATEGORIES, hash(30, number));
            let name = format!("{} {category} {number}", pick(LAST_NAMES, hash(31, number)));
            statement.execute(params![
                number.cast_signed(),
                name,
                category,
                !hash(32, number).is_multiple_of(10),
                text(later(hash(33, number) % 86_400))
            ])?;
        }
    }
    write_transactions(data, &transaction, 0..total, total, "part-0001.ndjson")?;
    write_payouts(data, "payouts_2025_06.csv", 0)?;
    Ok(transaction.commit()?)
}

/// Writes what happened since: new users and transactions, pending ones that were settled, one merchant with a new name. Returns
/// this in words.
pub(super) fn increment(data: &Path, transactions: u32) -> Result<String, GenerateError> {
    let total = u64::from(transactions);
    let (added, users) = ((total / 50).max(1), user_count(total));
    let mut database = Connection::open(data.join("app.db"))?;
    let transaction = database.transaction()?;
    insert_users(&transaction, users + 1..=users + 20)?;
    write_transactions(data, &transaction, total..total + added, total, "part-0002.ndjson")?;
    let now = text(self::transaction(total + added, total).at);
    // The database committed this late: its time of change is one that the first run has read already.
    let late = transaction.execute(
        "insert into transactions select transaction_id || '-L', user_id, merchant_id, amount, 'SUCCESS', transaction_time, updated_at \
         from transactions where transaction_id in (select transaction_id from transactions where transaction_id < ?1 \
         order by updated_at desc limit 1)",
        params![format!("TX{:010}", total)],
    )?;
    write_payouts(data, "payouts_2025_07.csv", 200)?;
    let settled = transaction.execute(
        "update transactions set status = 'SUCCESS', updated_at = ?1 where status = 'PENDING' and transaction_id < ?2",
        params![now, format!("TX{:010}", total / 5)],
    )?;
    transaction.execute(
        "update merchants set merchant_name = merchant_name || ' (new owner)', updated_at = ? where merchant_id = 1",
        [now],
    )?;
    transaction.commit()?;
    let count = crate::printer::count;
    Ok(format!(
        "20 users and {} transactions are new, {} came late, {} pending ones were settled, a merchant has a new name, a file of payouts arrived",
        count(added),
        count(late as u64),
        count(settled as u64)
    ))
}
