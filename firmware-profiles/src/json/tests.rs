#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn read(text: &str) -> (String, Vec<&'static str>) {
    let (value, repairs) = parse(text.as_bytes()).unwrap();
    (value.to_string(), repairs.sentences().collect())
}

#[test]
fn repairs() {
    let table = [
        (r#"{"a":[{"b":1}{"c":2}]}"#, r#"{"a":[{"b":1},{"c":2}]}"#, "a comma was missing"),
        (r#"{"a":1,}"#, r#"{"a":1}"#, "a comma stood where none belongs"),
        (r#"[,{"a":1}]"#, r#"[{"a":1}]"#, "a comma stood where none belongs"),
        (r#"{"a":nan,"b":-inf}"#, r#"{"a":null,"b":null}"#, "a number was nan or inf"),
        (r#"{"a":1,""temp0":45}"#, r#"{"a":1,"temp0":45}"#, "a key was quoted twice"),
        (r#"{"a":1 "b":2}"#, r#"{"a":1,"b":2}"#, "a comma was missing"),
        (r#"{"a":12,"b":345"#, r#"{"a":12,"b":null}"#, "the reply was cut short"),
        (r#"{"a":{"b":"cut he"#, r#"{"a":{"b":null}}"#, "the reply was cut short"),
        (r#"{"a":[1,2}"#, r#"{"a":[1,2]}"#, "brackets did not match"),
        (r#"{"a":1}}"#, r#"{"a":1}"#, "bytes followed the end of the reply"),
        (r#"{a:1}"#, r#"{"a":1}"#, "a word or key had no quotes"),
        (r#"{'a':'b'}"#, r#"{"a":"b"}"#, ""),
    ];
    for (given, expected, repair) in table {
        let (value, repairs) = read(given);
        assert_eq!(value, expected, "{given}");
        assert!(repair.is_empty() || repairs.contains(&repair), "{given}: {repairs:?}");
    }
}

#[test]
fn numbers_at_the_head_of_a_text() {
    assert_eq!(leading_number("3250 W"), Some(3250.0));
    assert_eq!(leading_number("'-12.5'"), Some(-12.5));
    assert_eq!(leading_number("1e3x"), Some(1000.0));
    assert_eq!(leading_number("12e"), Some(12.0));
    assert_eq!(leading_number("W 3"), None);
    assert_eq!(leading_number(""), None);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e12..1e12_f64).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn valid_json_is_read_as_a_strict_reader_does(value in json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let strict: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (read, repairs) = parse(text.as_bytes()).unwrap();
        prop_assert_eq!(read, strict);
        prop_assert!(repairs.is_empty(), "{:?}", repairs);
    }

    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_json_like_bytes_end(text in "[\\[\\]{}\",:'a1 \\\\.-]{0,400}") {
        let _ = parse(text.as_bytes());
    }
}
