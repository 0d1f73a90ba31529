//! Which job it was.

use serde_json::{Map, Value};

use super::{claim, tokens};
use crate::identity::IssuerKind;

/// The claims that tell an admin which job it was, for the audit: `iss`, `sub`, `jti`, and what the kind has besides, as text of at
/// most 256 characters each. What a token does not have, or has as a list or an object, is left out.
pub fn identifying(kind: IssuerKind, claims: &Map<String, Value>) -> Value {
    let always = [("iss", "iss"), ("sub", "sub"), ("jti", "jti")];
    let told = always.iter().chain(tokens::of(kind).told);
    let texts =
        told.filter_map(|(key, name)| Some(((*key).to_owned(), claim::short(&claim::text(claim::find(claims, name)?)?).into())));
    Value::Object(texts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(kind: IssuerKind, claims: Value) -> Value {
        identifying(kind, claims.as_object().expect("an object"))
    }

    #[test]
    fn the_audit_is_told_which_job_it_was() {
        let github = json!({"iss": "i", "sub": "s", "jti": "j", "repository": "org/name", "run_id": "7", "actor": "me", "exp": 1, "enterprise": "e"});
        let expected = json!({"iss": "i", "sub": "s", "jti": "j", "repository": "org/name", "run_id": "7", "actor": "me"});
        assert_eq!(told(IssuerKind::Github, github), expected);
        let gitlab =
            json!({"sub": "s", "project_path": "g/p", "job_id": 302, "user_login": "me", "user_email": "me@example.com"});
        let expected = json!({"sub": "s", "project_path": "g/p", "job_id": "302", "user_login": "me"});
        assert_eq!(told(IssuerKind::Gitlab, gitlab), expected);
        let pod = json!({"iss": "i", "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "a"}, "pod": {"name": "p"}}});
        let expected = json!({"iss": "i", "namespace": "n", "serviceaccount": "a", "pod": "p"});
        assert_eq!(told(IssuerKind::Kubernetes, pod), expected);
        assert_eq!(told(IssuerKind::Plain, json!({"sub": "s", "email": "e", "groups": []})), json!({"sub": "s"}));
    }

    #[test]
    fn what_is_long_or_unprintable_or_no_text_stays_out_of_the_audit() {
        let claims = json!({"sub": "x".repeat(20_000), "jti": ["a"], "iss": {"a": 1}, "ref": "a\r\nb\u{1b}", "actor": null});
        assert_eq!(told(IssuerKind::Github, claims), json!({"sub": "x".repeat(256), "ref": "ab"}));
    }
}
