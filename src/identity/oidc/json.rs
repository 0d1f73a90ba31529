//! JSON of which there is one reading: no member twice (two parsers would believe different ones), no deep nesting, and no NUL,
//! which Postgres cannot store.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep objects and arrays may lie in one another, the outermost counted.
const DEEPEST: u8 = 8;

/// What is wrong with a part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Not base64url without padding, as its only encoder would have written it.
    Base64,
    /// Not JSON in UTF-8, or a number that no machine can hold.
    Json,
    /// JSON, but no object.
    NotAnObject,
    /// An object names a member twice.
    DuplicateMember,
    /// More than eight levels.
    TooDeep,
    /// A string with a NUL.
    Nul,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "is not canonical base64url",
            Self::Json => "is not JSON",
            Self::NotAnObject => "is not a JSON object",
            Self::DuplicateMember => "names a member twice",
            Self::TooDeep => "is nested too deep",
            Self::Nul => "contains a NUL",
        })
    }
}

/// The object that these bytes are.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Flaw> {
    // serde's errors are texts: what we refused ourselves is remembered beside them.
    let refused = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0, refused: &refused }.deserialize(&mut reader);
    match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Flaw::NotAnObject),
        Err(_) => Err(refused.get().unwrap_or(Flaw::Json)),
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: u8,
    refused: &'a Cell<Option<Flaw>>,
}

impl Strict<'_> {
    fn refuse<E: Error>(self, flaw: Flaw) -> E {
        self.refused.set(Some(flaw));
        E::custom(flaw)
    }

    fn text<E: Error>(self, text: &str) -> Result<String, E> {
        if text.contains('\0') { Err(self.refuse(Flaw::Nul)) } else { Ok(text.to_owned()) }
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        let deeper = Self { depth: self.depth + 1, ..self };
        if deeper.depth > DEEPEST { Err(self.refuse(Flaw::TooDeep)) } else { Ok(deeper) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| self.refuse(Flaw::Json))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.text(text).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (inner, mut list) = (self.deeper()?, Vec::new());
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let (inner, mut object) = (self.deeper()?, Map::new());
        while let Some(name) = members.next_key::<String>()? {
            let name = self.text(&name)?;
            if object.contains_key(&name) {
                return Err(self.refuse(Flaw::DuplicateMember));
            }
            object.insert(name, members.next_value_seed(inner)?);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_reading_or_none() {
        let good = r#" {"a":{"a":[1,-2,3.5,true,null,"ä"]},"b":{}} "#;
        assert_eq!(Value::Object(object(good.as_bytes()).expect("good")), serde_json::from_str::<Value>(good).expect("JSON"));
        for (bad, flaw) in [
            (r#"{"a":1,"a":1}"#, Flaw::DuplicateMember),
            (r#"{"a":1,"\u0061":1}"#, Flaw::DuplicateMember),
            (r#"{"x":[{"a":1,"a":2}]}"#, Flaw::DuplicateMember),
            (r#"{"a":"\u0000"}"#, Flaw::Nul),
            (r#"{"a\u0000":1}"#, Flaw::Nul),
            (r#"{"a":1e400}"#, Flaw::Json),
            (r#"{"a":"\ud800"}"#, Flaw::Json),
            (r#"{"a":01}"#, Flaw::Json),
            (r#"{"a":NaN}"#, Flaw::Json),
            (r#"{"a":1} x"#, Flaw::Json),
            (r#"{"a":1}{}"#, Flaw::Json),
            (r#"{"a":1,}"#, Flaw::Json),
            ("", Flaw::Json),
            ("[]", Flaw::NotAnObject),
            ("\"a\"", Flaw::NotAnObject),
            ("null", Flaw::NotAnObject),
        ] {
            assert_eq!(object(bad.as_bytes()), Err(flaw), "{bad}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(Flaw::Json));
    }

    #[test]
    fn eight_levels_are_enough() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(object(nested(8).as_bytes()).is_ok());
        for levels in [9, 10_000] {
            assert_eq!(object(nested(levels).as_bytes()), Err(Flaw::TooDeep));
        }
    }
}
