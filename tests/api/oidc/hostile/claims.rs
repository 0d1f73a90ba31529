//! Well-signed claims that are no identity for this broker, now.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Case, Stage};

const DAY: i64 = 86_400;

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Claims just inside the limits.
pub(super) fn harmless(stage: &Stage) -> Vec<String> {
    [
        json!({"aud": ["https://github.com/acme", "token-broker"]}),
        json!({"exp": now() + DAY, "iat": now()}),
        json!({"exp": now() - 30, "iat": now() - 600}),
        json!({"iat": now() as f64 + 0.5, "nbf": now() as f64 - 0.25, "exp": now() as f64 + 300.75}),
        json!({"iat": now() + 30, "nbf": now() + 30}),
        json!({"sub": "s".repeat(1024), "jti": "j".repeat(256)}),
        json!({"big": 9_007_199_254_740_993_u64, "zero": -0.0, "text": "\u{202e}ä"}),
    ]
    .into_iter()
    .map(|changes| stage.rsa.sign(&stage.claims(changes)))
    .collect()
}

pub(super) fn cases(stage: &Stage) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |class, claims: Value, expected| cases.push(Case { class, token: stage.rsa.sign(&claims), expected });
    let with = |name: &str, value: Value| stage.claims(json!({ name: value }));
    let now = now();

    for (claim, expected) in [
        ("iss", "Claim iss Missing"),
        ("aud", "Claim aud Missing"),
        ("sub", "Claim sub Missing"),
        ("exp", "Claim exp Missing"),
        ("iat", "Claim iat Missing"),
    ] {
        let mut claims = stage.issuer.claims();
        claims.as_object_mut().expect("an object").remove(claim);
        add("claim missing", claims, expected);
    }
    add("claim missing", json!({}), "Claim iss Missing");

    for (claim, wrong_type, out_of_range) in [
        ("exp", "Claim exp WrongType", "Claim exp OutOfRange"),
        ("iat", "Claim iat WrongType", "Claim iat OutOfRange"),
        ("nbf", "Claim nbf WrongType", "Claim nbf OutOfRange"),
    ] {
        let texts = [json!((now + 300).to_string()), json!(""), json!("never"), json!("2099-01-01T00:00:00Z")];
        let others = [json!(true), json!(false), json!(null), json!([]), json!([now]), json!({}), json!({"$gt": 0})];
        for value in texts.into_iter().chain(others) {
            add("time of the wrong type", with(claim, value), wrong_type);
        }
        for value in [
            json!(-1),
            json!(-0.5),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(i64::MAX),
            json!(1e300),
            json!(-1e300),
            json!(253_402_300_800_u64),
        ] {
            add("time out of range", with(claim, value), out_of_range);
        }
    }
    for ago in [61, 62, 3600, 10 * DAY] {
        add("expired", stage.claims(json!({"iat": now - ago - 600, "nbf": now - ago - 600, "exp": now - ago})), "Expired");
    }
    for long_ago in [json!(0), json!(-0.0), json!(0.5), json!(1)] {
        add("expired", stage.claims(json!({"iat": 0, "exp": long_ago})), "Expired");
    }
    for ahead in [120, 3600, DAY, 365 * DAY] {
        add("issued in the future", stage.claims(json!({"iat": now + ahead, "exp": now + ahead + 300})), "NotYet iat");
        add("not yet good", stage.claims(json!({"nbf": now + ahead})), "NotYet nbf");
    }
    for (iat, exp) in [
        (now, now + DAY + 1),
        (now, now + 365 * DAY),
        (now - 2 * DAY, now + 300),
        (0, now + 300),
        (now, now),
        (now + 30, now + 10),
        (now, now - 30),
        (now, 253_402_300_799),
    ] {
        add("lifetime", stage.claims(json!({"iat": iat, "nbf": now, "exp": exp})), "Lifetime");
    }

    for (claim, wrong_type, out_of_range, longest) in [
        ("sub", "Claim sub WrongType", "Claim sub OutOfRange", 1024),
        ("jti", "Claim jti WrongType", "Claim jti OutOfRange", 256),
    ] {
        for value in [json!(null), json!(7), json!(true), json!([]), json!(["job:1"]), json!({})] {
            add("text of the wrong type", with(claim, value), wrong_type);
        }
        for value in [json!(""), json!("x".repeat(longest + 1)), json!("ä".repeat(longest / 2 + 1))] {
            add("text out of range", with(claim, value), out_of_range);
        }
    }
    audiences(stage, &mut add);
    issuers(stage, &mut add);
    cases
}

fn audiences(stage: &Stage, add: &mut impl FnMut(&'static str, Value, &'static str)) {
    for aud in [
        json!(""),
        json!("Token-Broker"),
        json!("token-broker "),
        json!(" token-broker"),
        json!("token-broker/"),
        json!("token-broker,other"),
        json!("token-broke"),
        json!("token-broker2"),
        json!("t\u{43e}ken-broker"),
        json!("https://github.com/acme"),
        json!("sts.amazonaws.com"),
        json!("*"),
        json!([]),
        json!([""]),
        json!(["https://github.com/acme", "sts.amazonaws.com"]),
        json!(["Token-Broker"]),
    ] {
        add("audience", stage.claims(json!({"aud": aud})), "Audience");
    }
    for aud in [
        json!(null),
        json!(1),
        json!(true),
        json!({"token-broker": true}),
        json!(["token-broker", 1]),
        json!(["token-broker", null]),
        json!([["token-broker"]]),
    ] {
        add("audience of the wrong type", stage.claims(json!({"aud": aud})), "Claim aud WrongType");
    }
}

fn issuers(stage: &Stage, add: &mut impl FnMut(&'static str, Value, &'static str)) {
    let url = stage.issuer.url();
    let port = url.rsplit(':').next().expect("a port");
    for iss in [
        format!("{url}/"),
        format!("{url}/acme"),
        format!("{url}/../"),
        format!("{url}?"),
        format!("{url}#"),
        format!("{url} "),
        format!(" {url}"),
        format!("{url}\n"),
        format!("{url}.evil.example"),
        format!("{url}@evil.example"),
        format!("{url}\u{200b}"),
        format!("{url}0"),
        url[..url.len() - 1].to_owned(),
        url.to_uppercase(),
        url.replace("http:", "https:"),
        url.replace("http://", "http:"),
        url.replace("http://", ""),
        url.replace("http://", "http://user@"),
        url.replace("127.0.0.1", "localhost"),
        url.replace("127.0.0.1", "2130706433"),
        url.replace("127.0.0.1", "127.1"),
        url.replace("127.0.0.1", "127.0.0.1."),
        url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        url.replace('.', "\u{3002}"),
        url.replace(':', "%3A"),
        format!("http://evil.example/{url}"),
        format!("http://169.254.169.254:{port}"),
        "file:///etc/passwd".to_owned(),
        "*".to_owned(),
        "x".repeat(8000),
    ] {
        add("issuer that resembles ours", stage.claims(json!({"iss": iss})), "UnknownIssuer");
    }
    add("issuer with a NUL", stage.claims(json!({"iss": format!("{url}\0")})), "Malformed payload Nul");
    add("issuer empty", stage.claims(json!({"iss": ""})), "Claim iss OutOfRange");
    for iss in [json!(null), json!(1), json!(true), json!([url]), json!([url, "https://evil.example"]), json!({"iss": url})] {
        add("issuer of the wrong type", stage.claims(json!({"iss": iss})), "Claim iss WrongType");
    }
    // Trusted as well, but these are not its keys.
    add("issuer of another key", stage.claims(json!({"iss": stage.other.url()})), "UnknownKey");
}
