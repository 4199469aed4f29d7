//! Shaping without expressions: those are tested where they are evaluated.

use std::collections::HashMap;

use arrow::array::Int64Array;
use expect_test::{Expect, expect};
use subak_connect::batch::MAY_MISFIT;
use subak_connect::memory::rows;
use subak_domain::shape::{Child, ColumnRule, Naming, ValuePath};

use super::*;

/// No expressions.
struct NoPrograms;

impl RowPrograms for NoPrograms {
    fn compile(&self, _: &SchemaRef, _: &[(String, String)], _: Option<&str>) -> Result<Box<dyn RowProgram>, ConnectError> {
        Err(ConnectError::new(ConnectErrorKind::Internal, "no expressions here"))
    }
}

fn rule(name: &str, from: &[&str], data_type: Option<&str>) -> ColumnRule {
    ColumnRule {
        name: name.to_owned(),
        from: from.iter().filter_map(|path| ValuePath::parse(path)).collect(),
        data_type: data_type.map(|text| text.parse().expect("type")),
        default: None,
        on_reject: None,
        format: None,
    }
}

/// Shapes one batch and compares the rows, the rejects and the counters, or the error.
fn assert_shaped(shape: &Shape, held: Option<SchemaRef>, batch: RecordBatch, expect: Expect) {
    assert_batch_shaped(shape, held, Batch::new(batch), &|shown| expect.assert_eq(shown));
}

fn assert_batch_shaped(shape: &Shape, held: Option<SchemaRef>, mut batch: Batch, expect: &dyn Fn(&str)) {
    let setting = Setting {
        shape,
        primary_key: &["id".to_owned()],
        needs_key: true,
        held,
        can_widen: true,
        alike: &[],
        on_error: OnReject::Error,
        bounds: &|data_type| match data_type {
            ArrowType::Date32 | ArrowType::Date64 => Some((0, 40_000)),
            ArrowType::Timestamp(..) => Some((0, 4_102_444_800_000_000)),
            _ => None,
        },
        deletes_on_exit: false,
        run_values: &BTreeMap::new(),
        programs: &NoPrograms,
    };
    let lines = (2..2 + batch.row_count() as u64).collect();
    batch.origin = subak_connect::Origin { file: Some("in.csv".into()), lines: Some(lines), ..subak_connect::Origin::default() };
    let shown = Shaper::new(&setting, &batch.records.schema())
        .and_then(|mut shaper| {
            let shaped = shaper.run(batch)?;
            let mut text = table(&shaped.batch.records);
            for child in &shaped.children {
                text.push_str(&format!("child {}", table(child)));
            }
            for reject in shaped.rejects {
                text.push_str(&format!("reject {} key {:?}: {} <- {}\n", reject.place(), reject.key, reject.reason, reject.row));
            }
            for change in shaper.value_changes() {
                text.push_str(&format!("{} x {}: {} (first {})\n", change.count, change.column, change.what, change.first));
            }
            if !shaper.widened().is_empty() {
                text.push_str(&format!("widened {:?}\n", shaper.widened()));
            }
            Ok(text)
        })
        .unwrap_or_else(|error| format!("{:?}: {error}", error.kind));
    expect(&shown);
}

fn table(records: &RecordBatch) -> String {
    let types = records
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{}:{}", field.name(), convert::logical_type(field.data_type())))
        .collect::<Vec<_>>();
    let mut text = format!("{}\n", types.join(" "));
    for row in 0..records.num_rows() {
        let value =
            |array: &ArrayRef| if array.is_null(row) { "-".to_owned() } else { format!("{:?}", convert::text_at(array, row)) };
        text.push_str(&format!("  {}\n", records.columns().iter().map(value).collect::<Vec<_>>().join(" ")));
    }
    text
}

#[test]
fn values_come_out_of_json_with_defaults() {
    let metadata = [
        Some(r#"{"device": "POS", "promo": null}"#),
        Some(r#"{"device_type": "Web", "promo": "X"}"#),
        Some("\"a text\""),
        Some("no json"),
        None,
        Some("{}"),
    ];
    let ids = [Some("1"), Some("2"), Some("3"), Some("4"), Some("5"), Some("6")];
    let device = ColumnRule {
        default: Some("Unknown".to_owned()),
        ..rule("device_type", &["metadata.device", "metadata.device_type"], Some("text"))
    };
    let promo = ColumnRule { default: Some(String::new()), ..rule("promo_code", &["metadata.promo"], Some("text")) };
    let shape = Shape {
        columns: vec![rule("id", &["_id"], Some("bigint")), device, promo],
        dropped: vec!["metadata".to_owned()],
        ..Shape::default()
    };
    assert_shaped(
        &shape,
        None,
        rows(&[("_id", &ids), ("metadata", &metadata)]),
        expect![[r#"
            id:bigint device_type:text promo_code:text
              "1" "POS" ""
              "2" "Web" "X"
              "3" "Unknown" ""
              "4" "Unknown" ""
              "5" "Unknown" ""
              "6" "Unknown" ""
        "#]],
    );
}

#[test]
fn bounds_hold_whatever_the_unit_of_a_time_is() {
    use arrow::array::{Date64Array, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray};
    let columns: [ArrayRef; 4] = [
        Arc::new(TimestampNanosecondArray::from(vec![1_704_067_200_000_000_000, -1_000_000_000])),
        Arc::new(TimestampMillisecondArray::from(vec![1_704_067_200_000, -1])),
        Arc::new(TimestampSecondArray::from(vec![1_704_067_200, -1])),
        Arc::new(Date64Array::from(vec![1_704_067_200_000, -86_400_000])),
    ];
    for column in columns {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
        let records = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("at", column, true)]).expect("a batch");
        assert_batch_shaped(&Shape::default(), None, Batch::new(records), &|shown| {
            assert!(shown.contains("\"2024-01-01") && shown.contains("\"2\" -"), "{shown}");
        });
    }
}

#[test]
fn values_beyond_what_the_table_holds_follow_the_policy() {
    for (policy, expect) in [
        (
            None,
            "id:text on_day:date\n  \"1\" \"1970-01-02\"\n  \"2\" -\n1 x on_day: beyond what the table holds, became NULL (first in.csv:3)\n",
        ),
        (Some(OnReject::Error), "ValueMisfit: column `on_day`: `1066-10-14` is beyond what the table holds (in.csv:3)"),
        (
            Some(OnReject::Text),
            "id:text on_day:date on_day__text:text\n  \"1\" \"1970-01-02\" -\n  \"2\" - \"1066-10-14\"\n1 x on_day: beyond what the table holds, kept as text (first in.csv:3)\n",
        ),
        (
            Some(OnReject::Quarantine),
            "id:text on_day:date\n  \"1\" \"1970-01-02\"\nreject in.csv:3 key Some(\"id=2\"): column `on_day`: `1066-10-14` is beyond what the table holds <- \
             {\"id\":\"2\",\"on_day\":\"1066-10-14\"}\n",
        ),
    ] {
        let columns = vec![rule("on_day", &[], Some("date"))];
        let shape = Shape { on_reject: policy, columns, ..Shape::default() };
        let batch = rows(&[("id", &[Some("1"), Some("2")]), ("on_day", &[Some("1970-01-02"), Some("1066-10-14")])]);
        assert_batch_shaped(&shape, None, Batch::new(batch), &|shown| assert_eq!(shown, expect, "{policy:?}"));
    }
}

#[test]
fn every_policy_for_a_value_that_the_source_cannot_express() {
    for (policy, expect) in [
        (None, "id:text on_day:date\n  \"1\" -\n1 x on_day: not a date, became NULL (first in.csv:2)\n"),
        (Some(OnReject::Null), "id:text on_day:date\n  \"1\" -\n1 x on_day: not a date, became NULL (first in.csv:2)\n"),
        (Some(OnReject::Error), "ValueMisfit: column `on_day`: `0000-00-00` is not a date (in.csv:2)"),
        (
            Some(OnReject::Text),
            "id:text on_day:date on_day__text:text\n  \"1\" - \"0000-00-00\"\n1 x on_day: not a date, kept as text (first in.csv:2)\n",
        ),
        (
            Some(OnReject::Quarantine),
            "id:text on_day:date\nreject in.csv:2 key Some(\"id=1\"): column `on_day`: `0000-00-00` is not a date <- \
             {\"id\":\"1\",\"on_day\":\"0000-00-00\"}\n",
        ),
    ] {
        let days = Field::new("on_day", ArrowType::Date32, true);
        let days = days.with_metadata(HashMap::from([(MAY_MISFIT.to_owned(), "true".to_owned())]));
        let schema = Arc::new(Schema::new(vec![Field::new("id", ArrowType::Utf8, true), days]));
        let arrays: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["1"])), arrow::array::new_null_array(&ArrowType::Date32, 1)];
        let mut batch = Batch::new(RecordBatch::try_new(schema, arrays).expect("a batch"));
        batch.misfits = vec![subak_connect::Misfit { column: 1, row: 0, text: "0000-00-00".to_owned(), problem: "not a date" }];
        let shape = Shape { on_reject: policy, ..Shape::default() };
        assert_batch_shaped(&shape, None, batch, &|shown| assert_eq!(shown, expect, "{policy:?}"));
    }
}

#[test]
fn every_policy_for_a_value_that_does_not_fit() {
    let batch = || rows(&[("id", &[Some("1"), Some("2"), None]), ("amount", &[Some("1.50"), Some("1,5"), Some("2")])]);
    let shape = |on_reject| Shape {
        columns: vec![rule("id", &[], Some("bigint")), rule("amount", &[], Some("decimal(10,2)"))],
        on_reject: Some(on_reject),
        ..Shape::default()
    };
    assert_shaped(
        &shape(OnReject::Error),
        None,
        batch(),
        expect!["ValueMisfit: column `amount`: `1,5` is not decimal(10,2) (in.csv:3)"],
    );
    assert_shaped(
        &shape(OnReject::Quarantine),
        None,
        batch(),
        expect![[r#"
            id:bigint amount:decimal(10,2)
              "1" "1.50"
            reject in.csv:3 key Some("id=2"): column `amount`: `1,5` is not decimal(10,2) <- {"id":"2","amount":"1,5"}
            reject in.csv:4 key None: column `id` identifies a row and is empty <- {"id":null,"amount":"2"}
        "#]],
    );
    let with_keys = || rows(&[("id", &[Some("1"), Some("2")]), ("amount", &[Some("1.50"), Some("1,5")])]);
    assert_shaped(
        &shape(OnReject::Null),
        None,
        with_keys(),
        expect![[r#"
            id:bigint amount:decimal(10,2)
              "1" "1.50"
              "2" -
            1 x amount: not decimal(10,2), became NULL (first in.csv:3)
        "#]],
    );
    assert_shaped(
        &shape(OnReject::Text),
        None,
        with_keys(),
        expect![[r#"
            id:bigint id__text:text amount:decimal(10,2) amount__text:text
              "1" - "1.50" -
              "2" - - "1,5"
            1 x amount: not decimal(10,2), kept as text (first in.csv:3)
        "#]],
    );
    assert_shaped(
        &shape(OnReject::Null),
        None,
        batch(),
        expect!["KeyNull: column `id` identifies a row and is empty (in.csv:4)"],
    );
}

#[test]
fn names_that_collide_are_refused() {
    let shape = Shape { naming: Naming::Snake, ..Shape::default() };
    assert_shaped(
        &shape,
        None,
        rows(&[("id", &[Some("1")]), ("First Name", &[Some("a")]), ("first-name", &[Some("b")])]),
        expect!["Config: columns `First Name` and `first-name` would both be called `first_name`"],
    );
    assert_shaped(
        &Shape::default(),
        None,
        rows(&[("id", &[Some("1")]), ("A", &[Some("a")]), ("a", &[Some("b")])]),
        expect!["Config: columns `A` and `a` would both be called `a`"],
    );
}

#[test]
fn every_contract_for_a_column_that_is_new() {
    let held = || -> Option<SchemaRef> { Some(Arc::new(Schema::new(vec![Field::new("id", ArrowType::Utf8, true)]))) };
    let batch = || rows(&[("id", &[Some("1"), Some("2")]), ("extra", &[None, Some("x")])]);
    let shape = |contract| Shape { contract, ..Shape::default() };
    assert_shaped(
        &shape(Contract::Evolve),
        held(),
        batch(),
        expect![[r#"
            id:text extra:text
              "1" -
              "2" "x"
        "#]],
    );
    assert_shaped(
        &shape(Contract::Freeze),
        held(),
        batch(),
        expect!["SchemaChanged: column `extra` arrives, and the table does not have it"],
    );
    assert_shaped(
        &shape(Contract::DiscardRow),
        held(),
        batch(),
        expect![[r#"
            id:text
              "1"
            reject in.csv:3 key Some("id=2"): column `extra` is not in the table, and the contract is `discard_row` <- {"id":"2","extra":"x"}
        "#]],
    );
    assert_shaped(
        &shape(Contract::DiscardValue),
        held(),
        batch(),
        expect![[r#"
            id:text
              "1"
              "2"
            1 x extra: not in the table, left out (first in.csv:3)
        "#]],
    );
}

#[test]
fn types_follow_the_table_or_make_it_wider() {
    let held: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("id", ArrowType::Int32, true), Field::new("n", ArrowType::Int64, true)]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 5_000_000_000]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["7", "x"]));
    let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("n", texts, true)]).expect("rows");
    let shape = Shape { on_reject: Some(OnReject::Quarantine), ..Shape::default() };
    assert_shaped(
        &shape,
        Some(held),
        batch,
        expect![[r#"
            id:bigint n:bigint
              "1" "7"
            reject in.csv:3 key Some("id=5000000000"): column `n`: `x` is not bigint <- {"id":"5000000000","n":"x"}
            widened ["id"]
        "#]],
    );
}

#[test]
fn nested_lists_become_rows() {
    let items = [Some(r#"[{"sku": "a", "n": 1}, {"sku": "b"}]"#), Some("[]"), None, Some(r#"{"sku": "c", "n": "x"}"#)];
    let child = Child {
        name: "items".to_owned(),
        from: ValuePath::parse("items").expect("path"),
        columns: vec![rule("sku", &[], None), rule("quantity", &["n"], None)],
    };
    let shape = Shape { columns: vec![rule("id", &[], Some("bigint"))], children: vec![child], ..Shape::default() };
    assert_shaped(
        &shape,
        None,
        rows(&[("id", &[Some("1"), Some("2"), Some("3"), Some("4")]), ("items", &items)]),
        expect![[r#"
            id:bigint
              "1"
              "2"
              "3"
              "4"
            child parent_id:bigint position:bigint sku:text quantity:text
              "1" "0" "a" "1"
              "1" "1" "b" -
              "4" "0" "c" "x"
        "#]],
    );
}

#[test]
fn expressions_see_the_run() {
    let values = BTreeMap::from([("run.id".to_owned(), "'R'".to_owned()), ("as_of".to_owned(), "timestamp 'T'".to_owned())]);
    assert_eq!(with_run_values("run.id || rerun.id || run.ids || as_of", &values), "'R' || rerun.id || run.ids || timestamp 'T'");
}
