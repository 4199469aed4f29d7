//! What sensors take for new, look by look.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn file(path: &str, bytes: u64) -> FoundFile {
    FoundFile { path: path.into(), bytes, modified_at: 1_000_000 }
}

/// The keys of the runs of a look.
fn keys(look: &Look) -> Vec<&str> {
    look.requests.iter().map(|request| request.key.as_str()).collect()
}

fn items(look: &Look, name: &str) -> Vec<Value> {
    look.requests.iter().flat_map(|request| &request.items).map(|item| item[name].clone()).collect()
}

#[test]
fn a_file_counts_once_it_has_stopped_growing_and_again_with_other_content() {
    let settle = Duration::from_secs(5);
    let see = |cursor: &Value, found: &[FoundFile], seconds| files(cursor, found, settle, true, at(seconds));
    let first = see(&Value::Null, &[file("in/a.csv", 10), file("in/.a.csv.tmp", 3)], 100);
    assert!(first.requests.is_empty() && first.again_after == Some(settle), "{first:?}");
    let grown = see(&first.cursor, &[file("in/a.csv", 20)], 104);
    assert!(grown.requests.is_empty(), "it has grown, so its time begins anew: {grown:?}");
    let early = see(&grown.cursor, &[file("in/a.csv", 20)], 106);
    assert!(early.requests.is_empty() && early.again_after == Some(Duration::from_secs(3)), "{early:?}");
    let done = see(&early.cursor, &[file("in/a.csv", 20)], 109);
    assert_eq!(keys(&done), ["in/a.csv 20-1000000"]);
    assert_eq!(done.requests[0].items[0]["stem"], "a");
    assert!(see(&done.cursor, &[file("in/a.csv", 20)], 200).requests.is_empty());
    let other = see(&done.cursor, &[file("in/a.csv", 30)], 300);
    assert!(other.requests.is_empty());
    assert_eq!(keys(&see(&other.cursor, &[file("in/a.csv", 30)], 305)), ["in/a.csv 30-1000000"]);
    // A clock that was put back makes it wait again, and does not fire early.
    assert!(see(&other.cursor, &[file("in/a.csv", 30)], 10).requests.is_empty());
    // One that went and comes again as it was has the same key, which has had its run.
    let gone = see(&done.cursor, &[], 400);
    let back = see(&see(&gone.cursor, &[file("in/a.csv", 20)], 500).cursor, &[file("in/a.csv", 20)], 505);
    assert_eq!(keys(&back), keys(&done));
}

#[test]
fn what_is_too_much_for_one_look_comes_with_the_next() {
    let found: Vec<FoundFile> = (0..250).map(|number| file(&format!("f{number:03}.csv"), 1)).collect();
    let (mut cursor, mut seen) = (Value::Null, Vec::new());
    for _ in 0..3 {
        let look = files(&cursor, &found, Duration::ZERO, true, at(1));
        seen.extend(keys(&look).into_iter().map(str::to_owned));
        cursor = look.cursor;
    }
    assert_eq!(seen.len(), 250);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 250);
    let all = files(&Value::Null, &found, Duration::ZERO, false, at(1));
    assert_eq!((all.requests.len(), all.requests[0].items.len()), (1, 250));
}

#[test]
fn rows_with_one_value_are_neither_lost_nor_doubled() {
    let rule = WatchCursor { column: "id".into(), from: json!(0) };
    let row = |id: u64, name: &str| json!({ "id": id, "name": name });
    let first = rows(&Value::Null, vec![row(1, "a"), row(2, "b")], &rule, true).expect("rows");
    assert_eq!(items(&first, "name"), ["a", "b"]);
    assert_eq!(cursor_value(&first.cursor, &rule), json!(2));
    // A query with `>=` sees the last row again, and one beside it.
    let tie = rows(&first.cursor, vec![row(2, "b"), row(2, "late")], &rule, true).expect("rows");
    assert_eq!(items(&tie, "name"), ["late"]);
    let same = rows(&tie.cursor, vec![row(2, "b"), row(2, "late")], &rule, true).expect("rows");
    assert!(same.requests.is_empty(), "{same:?}");
    assert_eq!(same.cursor, tie.cursor);
    assert!(matches!(rows(&Value::Null, vec![json!({ "id": null })], &rule, true), Err(SensorError::NoCursor(_))));
    // Numbers that come as texts, and moments with fractions.
    for (low, high) in [
        ("9", "10"),
        ("-2", "1"),
        ("9.50", "10.1"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"),
        ("2026-01-01T00:00:00.12Z", "2026-01-01T00:00:00.123Z"),
    ] {
        assert_eq!(compare(&json!(low), &json!(high)), Ordering::Less, "{low} {high}");
    }
    // 10 is above 9 as a number, whatever their texts.
    let high = rows(&Value::Null, vec![row(10, "x"), row(9, "y")], &rule, true).expect("rows");
    assert_eq!(cursor_value(&high.cursor, &rule), json!(10));
}

#[test]
fn rows_that_share_a_value_come_in_one_look() {
    let rule = WatchCursor { column: "day".into(), from: json!("2026-01-01") };
    let row = |number: usize| json!({ "day": if number < 90 { "2026-01-02" } else { "2026-01-03" }, "number": number });
    let all: Vec<Value> = (0..120).map(row).collect();
    let first = rows(&Value::Null, all.clone(), &rule, true).expect("rows");
    assert_eq!(first.requests.len(), 90);
    assert_eq!(first.again_after, Some(Duration::ZERO));
    let second = rows(&first.cursor, all, &rule, true).expect("rows");
    assert_eq!(second.requests.len(), 30);
    let many: Vec<Value> = (0..150).map(|number| json!({ "day": "2026-02-01", "number": number })).collect();
    assert_eq!(rows(&Value::Null, many, &rule, true).expect("rows").requests.len(), 150);
}

#[test]
fn an_answer_is_new_when_it_is_another_one() {
    let first = answer(&Value::Null, &json!({ "version": 1 }), true, at(7));
    assert!(first.requests.is_empty());
    assert!(answer(&first.cursor, &json!({ "version": 1 }), true, at(7)).requests.is_empty());
    let second = answer(&first.cursor, &json!({ "version": 2 }), true, at(7));
    assert_eq!(items(&second, "version"), [json!(2)]);
    let back = answer(&second.cursor, &json!({ "version": 1 }), true, at(7));
    let again = answer(&back.cursor, &json!({ "version": 2 }), true, at(7));
    assert_ne!(keys(&second), keys(&again), "the same answer at another time is another run");
    let list = answer(&Value::Null, &json!(["a", "b"]), true, at(7));
    let more = answer(&list.cursor, &json!(["c", "b", "a"]), true, at(7));
    assert_eq!(more.requests.iter().map(|request| request.items[0].clone()).collect::<Vec<_>>(), [json!("c")]);
}

fn happened(position: u64, name: &str) -> LogItem {
    LogItem { position, name: name.into(), value: json!({ "asset": name, "position": position }) }
}

/// T-91: what happened before a sensor was there does not count. T-93: all of what happened for `all`, each for itself or all at once otherwise.
#[test]
fn t_91_t_93_sensors_of_the_log() {
    let start = log_start(7);
    assert_eq!(log_position(&start.cursor), Some(7));
    let found = || vec![happened(8, "a"), happened(9, "a"), happened(10, "b")];
    let each = log(&start.cursor, found(), 12, None, true);
    assert_eq!(keys(&each), ["8", "9", "10"]);
    assert_eq!(log_position(&each.cursor), Some(12));
    assert_eq!(log(&start.cursor, found(), 12, None, false).requests[0].items.len(), 3);
    let names = ["a".to_owned(), "b".to_owned()];
    let half = log(&start.cursor, vec![happened(8, "a"), happened(9, "a")], 9, Some(&names), false);
    assert_eq!((half.requests.len(), half.note.as_deref()), (0, Some("waits for b")));
    let whole = log(&half.cursor, vec![happened(10, "b")], 10, Some(&names), false);
    assert_eq!(keys(&whole), ["9 10"], "the latest of each");
    assert!(log(&whole.cursor, vec![happened(11, "b")], 11, Some(&names), false).requests.is_empty(), "it begins anew");
}

#[test]
fn what_a_program_says_is_taken_or_refused_as_a_whole() {
    let cursor = json!("old");
    let said = json!({ "cursor": "new", "runs": [{ "key": 7, "set": { "day": "2026-01-01" }, "partition": "x" }], "partitions": { "clients": ["x"] } });
    let look = program(&cursor, &said).expect("a look");
    assert_eq!((keys(&look), &look.cursor), (vec!["7"], &json!("new")));
    assert_eq!(look.partitions, [("clients".to_owned(), "x".to_owned())]);
    assert_eq!(program(&cursor, &json!({ "skip": "closed" })).expect("a look").note.as_deref(), Some("closed"));
    assert_eq!(program(&cursor, &Value::Null).expect("a look").cursor, cursor);
    for wrong in [json!([]), json!({ "runs": 3 }), json!({ "run": [] }), json!({ "runs": [{}] })] {
        assert!(program(&cursor, &wrong).is_err(), "{wrong}");
    }
}
