//! Which value a claim's name means, and how a value is compared and shown.

use serde_json::{Map, Value};

/// How much of a value is shown, in characters.
const SHOWN: usize = 256;

/// The value of a claim: by its exact name; else a name with `/` is a path through objects (`kubernetes.io/namespace`).
pub(super) fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('/')?;
        rest.split('/').try_fold(claims.get(first)?, |value, step| value.as_object()?.get(step))
    })
}

/// A string as it is, a number or a boolean by its JSON text; nothing else is one text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether the value, or any element of an array, is as `wanted`. Objects and null never are.
pub(super) fn any(value: &Value, wanted: impl Fn(&str) -> bool) -> bool {
    match value {
        Value::Array(elements) => elements.iter().filter_map(text).any(|text| wanted(&text)),
        value => text(value).is_some_and(|text| wanted(&text)),
    }
}

/// The claim as one number: what an immutable id is, as a string or as a number.
pub(super) fn id(claims: &Map<String, Value>, name: &str) -> Option<String> {
    find(claims, name).and_then(text).filter(|text| is_number(text))
}

/// Whether the text is an id.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

/// A value for people: text or JSON, short, without control characters.
pub(super) fn shown(value: &Value) -> String {
    short(&text(value).unwrap_or_else(|| value.to_string()))
}

/// The text for people: short, without control characters.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn a_claim_is_found_by_its_exact_name_and_else_by_a_path() {
        let claims = claims(json!({
            "sub": "s", "https://idp.example/team": "top", "kubernetes.io": {"namespace": "n", "pod": {"name": "p"}}, "a": {"b": 1}, "a/b": 2,
        }));
        for (name, value) in [
            ("sub", json!("s")),
            ("https://idp.example/team", json!("top")),
            ("kubernetes.io/namespace", json!("n")),
            ("kubernetes.io/pod/name", json!("p")),
            ("a/b", json!(2)),
        ] {
            assert_eq!(find(&claims, name), Some(&value), "{name}");
        }
        for name in [
            "",
            "/",
            "Sub",
            "sub/",
            "sub/x",
            "kubernetes.io/",
            "kubernetes.io//namespace",
            "kubernetes",
            "kubernetes.io/pod/name/x",
        ] {
            assert_eq!(find(&claims, name), None, "{name}");
        }
    }

    #[test]
    fn scalars_match_by_their_text_and_arrays_by_any_element() {
        let one = |text: &str| text == "1" || text == "true";
        for matching in [json!("1"), json!(1), json!(true), json!([null, "x", 1]), json!([true])] {
            assert!(any(&matching, one), "{matching}");
        }
        for other in [
            json!(null),
            json!({}),
            json!({"1": "1"}),
            json!([]),
            json!([["1"]]),
            json!([{"a": 1}]),
            json!(1.0),
            json!("1 "),
            json!([2]),
        ] {
            assert!(!any(&other, one), "{other}");
        }
        assert!(!any(&Value::Null, |_| true) && !any(&json!({"a": "b"}), |_| true) && !any(&json!([null, {}]), |_| true));
    }

    #[test]
    fn an_id_is_digits() {
        let claims =
            claims(json!({"a": "12", "b": 12, "c": "", "d": "x1", "e": -1, "f": ["12"], "g": null, "h": true, "i": "1.5"}));
        assert_eq!((id(&claims, "a"), id(&claims, "b")), (Some("12".into()), Some("12".into())));
        for none in ["c", "d", "e", "f", "g", "h", "i", "z"] {
            assert_eq!(id(&claims, none), None, "{none}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        assert_eq!(shown(&json!("a\u{1b}[31m\r\nb\0")), "a[31mb");
        assert_eq!(shown(&json!("ü".repeat(1000))).chars().count(), 256);
        assert_eq!(shown(&json!(["a", 1])), r#"["a",1]"#);
    }
}
