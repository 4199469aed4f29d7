//! MongoDB as source, through a double that speaks its wire protocol to the official driver: no real server can be installed from the
//! registries that the tests use. Results are read back with DuckDB's own library, not through Subak.

#[path = "support/expected.rs"]
mod expected;
#[path = "support/table.rs"]
mod table;
#[path = "support/warehouse.rs"]
mod warehouse;

use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, oid::ObjectId, spec::BinarySubtype};
use expected::{assert_equals, parity};
use subak_testkit::{MongoDouble, Sandbox};
use warehouse::{project, read};

/// A project with a DuckDB warehouse and the double as `app`.
fn with_server(server: &MongoDouble, files: &[(&str, &str)]) -> Sandbox {
    let sandbox = project(files);
    let config = "project: documents\nconnections:\n  warehouse: { type: duckdb, path: warehouse.duckdb }\n  files: { type: files, path: input }\n";
    sandbox.write("subak.yml", &format!("{config}  app: {{ type: mongodb, uri: \"{}\", database: shop }}\n", server.uri()));
    sandbox
}

/// A document of a file as a driver would have written it: whole numbers and doubles.
fn document(json: &serde_json::Value) -> Document {
    let map = json.as_object().expect("an object").clone();
    Document::try_from(map).expect("a document")
}

fn facts(how: &str) -> String {
    format!(
        "ingest:
  from: app
  streams:
    fact_transactions:
      stream: transactions
      {how}
      columns:
        transaction_mongo_id: {{ from: _id }}
        amount: decimal(18,2)
        transaction_time: datetime
        metadata:
          flatten:
            device_type: {{ from: device, default: Unknown }}
            promo_code: {{ from: promo, default: '' }}
      derive:
        amount_category: {{ categorize: amount, bands: {{ High Value: 1000000, Medium Value: 100000 }}, else: Low Value }}
      select: [transaction_mongo_id, user_id, merchant_id, amount, currency, status, device_type, promo_code, amount_category, transaction_time]
"
    )
}

#[test]
fn documents_arrive_in_increments() {
    let variants = [
        ("seed", "mode: append\n      cursor: { column: transaction_time, lower: open }"),
        ("every_document_once", "primary_key: transaction_mongo_id\n      deduplicate: transaction_time"),
    ];
    for (variant, how) in variants {
        let server = MongoDouble::start();
        let sandbox = with_server(&server, &[("assets/bronze/mongo.yml", &facts(how))]);
        let give = |file: &str| {
            let text = std::fs::read_to_string(parity(&format!("s000_mongo_dagster/input/{file}"))).expect(file);
            for line in text.lines() {
                server.put("shop", "transactions", document(&serde_json::from_str(line).expect("JSON")));
            }
        };
        for (run, file) in
            [(1, Some("transactions_1.jsonl")), (2, Some("transactions_2.jsonl")), (3, None), (4, Some("transactions_3.jsonl"))]
        {
            file.into_iter().for_each(give);
            server.commands();
            sandbox.run(&["run"]).expect(0);
            assert_equals(
                &sandbox,
                "bronze.fact_transactions",
                &format!("s000_mongo_dagster/expected/after_run{run}_{variant}.csv"),
            );
            let finds: Vec<Document> = server.commands().into_iter().filter(|command| command.contains_key("find")).collect();
            assert_eq!(finds.len(), 1, "one read: {finds:?}");
            let level = finds[0].get_document("readConcern").expect("a level").get_str("level").expect("a level");
            assert_eq!(level, "snapshot");
            let is_bounded = finds[0].get_document("filter").is_ok_and(|filter| filter.contains_key("$or"));
            assert_eq!(is_bounded, variant == "seed" && run > 1, "the server tests the bound: {finds:?}");
        }
    }
}

#[test]
fn the_three_documents_of_the_mock() {
    let server = MongoDouble::start();
    let sandbox = with_server(
        &server,
        &[("assets/bronze/mongo.yml", &facts("primary_key: transaction_mongo_id\n      cursor: transaction_time"))],
    );
    let text = std::fs::read_to_string(parity("s000_mock/transactions.json")).expect("the file");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    server.insert("shop", "transactions", json["transactions"].as_array().expect("a list").iter().map(document));
    for _ in 0..2 {
        sandbox.run(&["run"]).expect(0);
        assert_equals(&sandbox, "bronze.fact_transactions", "s000_mock/expected_fact_transactions.csv");
    }
}

fn all(stream: &str) -> String {
    format!("ingest:\n  from: app\n  streams:\n    {stream}\n")
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"))
}

#[test]
fn every_type_arrives_exactly() {
    let server = MongoDouble::start();
    let uuid = |subtype| Bson::Binary(Binary { subtype, bytes: (0..16).collect() });
    let id = ObjectId::parse_str("64f1a2b3c4d5e6f708091a2b").expect("an id");
    server.insert("shop", "things", [
        doc! {
            "_id": id, "int": 1_i32, "long": i64::MIN, "double": -0.1, "mixed_numbers": 1_i32, "money": decimal("1234567890123456789012345678.90"),
            "wide": decimal("0.0000000000001"), "huge": decimal("1E+6144"), "text": "Ünï \u{1f980} 'q\"\\", "at": DateTime::from_millis(1_735_689_600_123),
            "old": DateTime::from_millis(-62_135_596_800_000), "is": true, "uuid": uuid(BinarySubtype::Uuid), "legacy": uuid(BinarySubtype::UuidOld),
            "bytes": Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 255] }), "tags": ["a", 1, Bson::Null],
            "nested": { "b": 1.0, "a": 9_007_199_254_740_993_i64, "": Bson::Null, "at": DateTime::from_millis(0) },
            "pattern": Bson::RegularExpression(Regex { pattern: "^a".try_into().expect("text"), options: "i".try_into().expect("text") }),
            "stamp": Bson::Timestamp(Timestamp { time: 1, increment: 2 }), "low": Bson::MinKey, "high": Bson::MaxKey, "empty": "", "nothing": Bson::Null,
            "dotted.key": 1, "$dollar": 2,
        },
        doc! { "_id": 2, "mixed_numbers": 0.5, "money": decimal("-0.01"), "wide": decimal("1"), "double": 1e300, "variant": "x", "int": -5_i32 },
        doc! { "_id": "three", "variant": { "k": 1 }, "extra": [] },
        doc! { "_id": doc! { "a": 1 }, "variant": 3 },
    ]);
    let sandbox = with_server(&server, &[("assets/bronze/things.yml", &all("things: { primary_key: _id }"))]);
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(
        ran.err.contains("`variant` has values of several types (number ×1, text ×1, list or object ×1); all are kept as text"),
        "{}",
        ran.err
    );
    for (column, data_type, texts) in [
        ("_id", "VARCHAR", ["64f1a2b3c4d5e6f708091a2b", "2", "three", "{\"a\":1}"]),
        ("int", "BIGINT", ["1", "-5", "NULL", "NULL"]),
        ("long", "BIGINT", ["-9223372036854775808", "NULL", "NULL", "NULL"]),
        ("double", "DOUBLE", ["-0.1", "1e+300", "NULL", "NULL"]),
        ("mixed_numbers", "DOUBLE", ["1.0", "0.5", "NULL", "NULL"]),
        ("money", "DECIMAL(38,9)", ["1234567890123456789012345678.900000000", "-0.010000000", "NULL", "NULL"]),
        ("wide", "DECIMAL(38,13)", ["0.0000000000001", "1.0000000000000", "NULL", "NULL"]),
        ("huge", "VARCHAR", ["1.000000000000000000000000000000000E+6144", "NULL", "NULL", "NULL"]),
        ("text", "VARCHAR", ["Ünï \u{1f980} 'q\"\\", "NULL", "NULL", "NULL"]),
        ("old", "TIMESTAMP WITH TIME ZONE", ["0001-01-01 00:00:00+00", "NULL", "NULL", "NULL"]),
        ("at", "TIMESTAMP WITH TIME ZONE", ["2025-01-01 00:00:00.123+00", "NULL", "NULL", "NULL"]),
        ("is", "BOOLEAN", ["true", "NULL", "NULL", "NULL"]),
        ("uuid", "VARCHAR", ["00010203-0405-0607-0809-0a0b0c0d0e0f", "NULL", "NULL", "NULL"]),
        ("hex(legacy)", "VARCHAR", ["000102030405060708090A0B0C0D0E0F", "NULL", "NULL", "NULL"]),
        ("hex(bytes)", "VARCHAR", ["00FF", "NULL", "NULL", "NULL"]),
        ("tags", "VARCHAR", ["[\"a\",1,null]", "NULL", "NULL", "NULL"]),
        (
            "nested",
            "VARCHAR",
            ["{\"b\":1.0,\"a\":9007199254740993,\"\":null,\"at\":\"1970-01-01T00:00:00Z\"}", "NULL", "NULL", "NULL"],
        ),
        ("pattern", "VARCHAR", ["{\"$regularExpression\":{\"pattern\":\"^a\",\"options\":\"i\"}}", "NULL", "NULL", "NULL"]),
        ("stamp", "VARCHAR", ["{\"$timestamp\":{\"t\":1,\"i\":2}}", "NULL", "NULL", "NULL"]),
        ("low", "VARCHAR", ["{\"$minKey\":1}", "NULL", "NULL", "NULL"]),
        ("high", "VARCHAR", ["{\"$maxKey\":1}", "NULL", "NULL", "NULL"]),
        ("empty", "VARCHAR", ["", "NULL", "NULL", "NULL"]),
        ("nothing", "VARCHAR", ["NULL", "NULL", "NULL", "NULL"]),
        ("\"dotted.key\"", "BIGINT", ["1", "NULL", "NULL", "NULL"]),
        ("\"$dollar\"", "BIGINT", ["2", "NULL", "NULL", "NULL"]),
        ("variant", "VARCHAR", ["NULL", "x", "{\"k\":1}", "3"]),
        ("extra", "VARCHAR", ["NULL", "NULL", "[]", "NULL"]),
    ] {
        let order = "order by case _id when '64f1a2b3c4d5e6f708091a2b' then 0 when '2' then 1 when 'three' then 2 else 3 end";
        let column = if column.contains(['(', '"']) { column.to_owned() } else { format!("\"{column}\"") };
        let found = read(&sandbox, &format!("select {column} from bronze.things {order}"));
        assert_eq!(found, texts, "{column}");
        let types = read(&sandbox, &format!("select typeof({column}) from bronze.things limit 1"));
        assert_eq!(types, [data_type], "{column}");
    }
}

#[test]
fn values_beyond_every_type_are_counted() {
    let server = MongoDouble::start();
    server.insert(
        "shop",
        "things",
        [
            doc! { "_id": 1, "at": DateTime::from_millis(i64::MAX), "money": decimal("NaN") },
            doc! { "_id": 2, "at": DateTime::from_millis(0), "money": decimal("1.5") },
        ],
    );
    let sandbox = with_server(&server, &[("assets/bronze/things.yml", &all("things: { primary_key: _id }"))]);
    let ran = sandbox.run(&["run"]).expect(0);
    assert!(ran.err.contains("changed 1 values of at: beyond the years 1 to 9999, became NULL"), "{}", ran.err);
    assert_eq!(
        read(&sandbox, "select _id, \"at\", money from bronze.things order by _id"),
        ["1,NULL,NULL", "2,1970-01-01 00:00:00+00,1.500000000"]
    );
    sandbox.write("assets/bronze/things.yml", &all("things: { primary_key: _id, on_reject: quarantine }"));
    sandbox.run(&["run", "--full-refresh"]).expect(0);
    assert_eq!(read(&sandbox, "select _id from bronze.things"), ["2"]);
}

#[test]
fn dates_become_what_is_declared_and_numbers_become_no_times() {
    let server = MongoDouble::start();
    server.insert(
        "shop",
        "things",
        [doc! { "_id": 1, "at": DateTime::from_millis(86_400_000), "on": DateTime::from_millis(0), "raw": "ab" }],
    );
    let stream = "things: { primary_key: _id, columns: { at: datetime, \"on\": date, raw: bytes } }";
    let sandbox = with_server(&server, &[("assets/bronze/things.yml", &all(stream))]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select \"at\", \"on\", hex(raw) from bronze.things"), ["1970-01-02 00:00:00,1970-01-01,6162"]);
    // Milliseconds as the shell writes them: a double.
    server.put("shop", "things", doc! { "_id": 2, "at": 1.7e12, "on": Bson::Null, "raw": "c" });
    let ran = fails(&sandbox);
    assert!(ran.err.contains("column `at`: `1700000000000.0` is not datetime"), "{}", ran.err);
    server.put("shop", "things", doc! { "_id": 1, "at": 5.0, "on": Bson::Null, "raw": "c" });
    assert!(fails(&sandbox).err.contains("is not datetime"));
}

#[test]
fn nested_documents_become_columns_and_tables() {
    let server = MongoDouble::start();
    let order = |id: i32, lines: Vec<Document>| doc! { "_id": id, "customer": { "name": "A", "address": { "city": "Ubud" } }, "lines": lines };
    server.insert(
        "shop",
        "orders",
        [order(1, vec![doc! { "sku": "a", "price": 1.5 }, doc! { "sku": "b", "price": 2 }]), order(2, vec![])],
    );
    let stream = all("orders:
      primary_key: _id
      columns: { customer: { flatten: { name: text, city: { from: address.city } } } }
      children: { order_lines: { from: lines, columns: { sku: text, price: \"decimal(10,2)\" } } }");
    let sandbox = with_server(&server, &[("assets/bronze/orders.yml", &stream)]);
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select _id, name, city from bronze.orders order by _id"), ["1,A,Ubud", "2,A,Ubud"]);
    let lines = "select sku, price from bronze.orders__order_lines order by sku";
    assert_eq!(read(&sandbox, lines), ["a,1.50", "b,2.00"]);
    // Lists are replaced with their document.
    server.put("shop", "orders", order(1, vec![doc! { "sku": "c", "price": 3 }]));
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, lines), ["c,3.00"]);
}

#[test]
fn filters_and_limits_are_the_servers() {
    let server = MongoDouble::start();
    server.insert("shop", "orders", (0..10).map(|id| doc! { "_id": id, "status": if id % 2 == 0 { "PAID" } else { "OPEN" } }));
    let sandbox = with_server(
        &server,
        &[(
            "assets/bronze/orders.yml",
            &all(
                "paid: { stream: orders, where: '{\"status\": \"PAID\"}', mode: replace }\n    some: { stream: orders, limit: 3, mode: replace }",
            ),
        )],
    );
    sandbox.run(&["run"]).expect(0);
    assert_eq!(read(&sandbox, "select count(*), min(status), max(status) from bronze.paid"), ["5,PAID,PAID"]);
    assert_eq!(read(&sandbox, "select count(*) from bronze.some"), ["3"]);
    sandbox.write("assets/bronze/orders.yml", &all("paid: { stream: orders, where: 'status = 1', mode: replace }"));
    let ran = sandbox.run(&["run"]);
    assert!(ran.code == Some(1) && ran.err.contains("`where` must be a filter of MongoDB as a JSON object"), "{}", ran.err);
}

#[track_caller]
fn fails(sandbox: &Sandbox) -> subak_testkit::Ran {
    let ran = sandbox.run(&["run"]);
    assert_ne!(ran.code, Some(0), "{}", ran.out);
    ran
}

#[test]
fn errors_say_what_to_do() {
    let server = MongoDouble::start();
    server.insert("shop", "orders", (0..5000).map(|id| doc! { "_id": id, "n": 1 }));
    let sandbox = with_server(&server, &[("assets/bronze/orders.yml", &all("orders: { primary_key: _id }"))]);
    sandbox.run(&["run"]).expect(0);
    let count = || read(&sandbox, "select count(*), sum(n) from bronze.orders");
    assert_eq!(count(), ["5000,5000"]);

    // The connection is cut between batches: the table stays as it was.
    server.put("shop", "orders", doc! { "_id": 1, "n": 100 });
    server.cut_after(2);
    let ran = fails(&sandbox);
    assert!(ran.err.contains("cannot read `orders`"), "{}", ran.err);
    assert_eq!(count(), ["5000,5000"]);
    server.resume();
    sandbox.run(&["run"]).expect(0);
    assert_eq!(count(), ["5000,5099"]);

    server.refuse_snapshots();
    let ran = fails(&sandbox);
    assert!(ran.err.contains("minSnapshotHistoryWindowInSeconds"), "{}", ran.err);
    let config = std::fs::read_to_string(sandbox.path().join("subak.yml")).expect("the project");
    sandbox.write("subak.yml", &config.replace("database: shop", "database: shop, read_concern: majority"));
    sandbox.run(&["run"]).expect(0);

    sandbox.write("assets/bronze/orders.yml", &all("nothing: { primary_key: _id }"));
    let ran = fails(&sandbox);
    assert!(ran.err.contains("there is no stream `nothing`"), "{}", ran.err);

    sandbox.write("subak.yml", &config.replace("database: shop", "database: shop, user: me, password: \"${PATH}\""));
    let ran = fails(&sandbox);
    assert!(ran.err.contains("correct `user:`, `password:` and `auth_database:`"), "{}", ran.err);

    sandbox.write("subak.yml", &config.replace("mongodb://", "mongodb://me:hidden@"));
    let ran = fails(&sandbox);
    assert!(ran.err.contains("`uri` has a password in it") && !ran.err.contains("hidden"), "{}", ran.err);

    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300";
    sandbox.write("subak.yml", &config.replace(&server.uri(), nobody));
    let ran = fails(&sandbox);
    assert!(ran.err.contains("is the server running, is `uri:` right"), "{}", ran.err);
}
