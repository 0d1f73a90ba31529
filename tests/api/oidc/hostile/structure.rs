//! Tokens that cannot be read, or could be read in two ways.

use serde_json::json;

use super::{Case, Stage};
use crate::app::issuer::signing::encode;

/// As long and as deep as a token may be.
pub(super) fn harmless(stage: &Stage) -> Vec<String> {
    let filled = |filler: usize| stage.rsa.sign(&stage.claims(json!({"filler": "x".repeat(filler)})));
    // Four characters carry three bytes.
    let mut filler = (16 * 1024 - filled(0).len()) * 3 / 4;
    while filled(filler).len() > 16 * 1024 {
        filler -= 1;
    }
    let longest = filled(filler);
    assert!(longest.len() > 16 * 1024 - 4, "{}", longest.len());
    vec![longest, stage.rsa.sign(&stage.claims(json!({"deep": [[[[[[[]]]]]]]})))]
}

pub(super) fn cases(stage: &Stage) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |class, token: String, expected| cases.push(Case { class, token, expected });
    let good = stage.rsa.sign(&stage.issuer.claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };

    for token in ["", ".", "x", header, &format!("{header}.{payload}"), &format!("{good}."), &format!(".{good}")] {
        add("parts", token.to_owned(), "NotThreeParts");
    }
    add("parts", format!("{good}.{signature}"), "NotThreeParts");
    add("parts", format!("{header}..{payload}.{signature}"), "NotThreeParts");
    add("encrypted, five parts", format!("{header}.{payload}.{signature}.{signature}.{signature}"), "NotThreeParts");
    add("parts", "..".to_owned(), "Malformed header Json");
    add("parts", format!(".{payload}.{signature}"), "Malformed header Json");
    add("parts", format!("{header}..{signature}"), "Malformed payload Json");
    let nested = stage.rsa.sign_raw(stage.header(json!({"cty": "JWT"})).to_string().as_bytes(), good.as_bytes());
    add("nested token", nested, "Malformed payload Json");

    for stray in [" ", "\n", "\t", "=", "==", "%3D", "+", "/", "\0", "é", "\u{feff}"] {
        add("stray characters", format!("{stray}{good}"), "Malformed header Base64");
        add("stray characters", format!("{header}{stray}.{payload}.{signature}"), "Malformed header Base64");
        add("stray characters", format!("{header}.{payload}{stray}.{signature}"), "Malformed payload Base64");
        add("stray characters", format!("{good}{stray}"), "Malformed signature Base64");
    }
    // A byte more than a multiple of three leaves four bits that must be zero.
    let pad = |mut text: String| {
        while text.len() % 3 != 1 {
            text.insert(1, ' ');
        }
        encode(text.as_bytes())
    };
    let header = pad(stage.header(json!({})).to_string());
    let payload = pad(stage.issuer.claims().to_string());
    for (part, expected) in [(0, "Malformed header Base64"), (1, "Malformed payload Base64"), (2, "Malformed signature Base64")] {
        for bits in 1..16_u8 {
            let stray = |text: &str| {
                let (rest, last) = text.split_at(text.len() - 1);
                const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let at = ALPHABET.iter().position(|c| *c == last.as_bytes()[0]).expect("base64url");
                assert_eq!(at % 16, 0, "canonical");
                format!("{rest}{}", char::from(ALPHABET[at + usize::from(bits)]))
            };
            let token = match part {
                0 => stage.rsa.sign_parts(&stray(&header), &payload),
                1 => stage.rsa.sign_parts(&header, &stray(&payload)),
                _ => stray(&stage.rsa.sign_parts(&header, &payload)),
            };
            add("stray bits", token, expected);
        }
    }

    let too_much = json!({"filler": "x".repeat(16 * 1024)});
    add("too long", stage.rsa.sign(&stage.claims(too_much)), "TooLong");
    add(
        "too long",
        stage.rsa.sign_with_header(&stage.header(json!({"kid": "k".repeat(1 << 20)})), &stage.issuer.claims()),
        "TooLong",
    );
    add("too long", ".".repeat(1 << 20), "TooLong");
    add("too long", format!("{good}{}", "A".repeat(16 * 1024)), "TooLong");

    let honest_header = stage.header(json!({})).to_string();
    let honest = stage.issuer.claims().to_string();
    let broken: Vec<(Vec<u8>, [&'static str; 2])> = [
        (&b""[..], "Json"),
        (b" ", "Json"),
        (b"null", "NotAnObject"),
        (b"[]", "NotAnObject"),
        (b"1", "NotAnObject"),
        (b"\"x\"", "NotAnObject"),
        (b"true", "NotAnObject"),
        (b"{", "Json"),
        (b"{}}", "Json"),
        (b"{}{}", "Json"),
        (b"{'a':1}", "Json"),
        (b"{\"a\":1,}", "Json"),
        (b"{\"a\":1}//", "Json"),
        (b"{\"a\":NaN}", "Json"),
        (b"{\"a\":1e400}", "Json"),
        (b"{\"a\":-1e400}", "Json"),
        (b"{\"a\":01}", "Json"),
        (b"{\"a\":\"\n\"}", "Json"),
        (b"{\"a\":\"\\ud800\"}", "Json"),
        (b"{\"a\":\"\xff\"}", "Json"),
        (b"{\"a\":\"\xc0\x80\"}", "Json"),
        (b"\xef\xbb\xbf{}", "Json"),
        (b"{\0}\0", "Json"),
        (b"<html></html>", "Json"),
        (b"{\"a\":\"\\u0000\"}", "Nul"),
        (b"{\"a\\u0000\":1}", "Nul"),
    ]
    .into_iter()
    .map(|(bytes, flaw)| (bytes.to_vec(), expectations(flaw)))
    .collect();
    for (bytes, [in_header, in_payload]) in broken {
        add("not JSON", stage.rsa.sign_raw(&bytes, honest.as_bytes()), in_header);
        add("not JSON", stage.rsa.sign_raw(honest_header.as_bytes(), &bytes), in_payload);
    }

    let [twice_header, twice_payload] = expectations("DuplicateMember");
    for member in ["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "repository"] {
        for value in ["\"token-broker\"", "null", "4000000000"] {
            let (first, last) =
                (format!("{{\"{member}\":{value},\"{member}\":1,"), format!(",\"{member}\":1,\"{member}\":{value}}}"));
            add(
                "members twice",
                stage.rsa.sign_raw(honest_header.as_bytes(), honest.replacen('{', &first, 1).as_bytes()),
                twice_payload,
            );
            let at_the_end = format!("{}{last}", &honest[..honest.len() - 1]);
            add("members twice", stage.rsa.sign_raw(honest_header.as_bytes(), at_the_end.as_bytes()), twice_payload);
        }
    }
    for extra in [r#""\u0069ss":"x""#, r#""x":{"a":1,"a":1}"#, r#""x":[{"a":{"b":1,"b":1}}]"#] {
        let payload = honest.replacen('{', &format!("{{{extra},"), 1);
        add("members twice", stage.rsa.sign_raw(honest_header.as_bytes(), payload.as_bytes()), twice_payload);
    }
    for extra in [r#""alg":"none""#, r#""kid":"x""#, r#""typ":"JWT""#, r#""\u0061lg":"RS256""#, r#""x":{"a":1,"a":1}"#] {
        let header = honest_header.replacen('{', &format!("{{{extra},"), 1);
        add("members twice", stage.rsa.sign_raw(header.as_bytes(), honest.as_bytes()), twice_header);
    }

    let [deep_header, deep_payload] = expectations("TooDeep");
    for levels in [8, 9, 100, 127, 128, 5000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            // The object itself is the first level. Of 5,000 objects only the opening half fits into 16 KiB.
            let levels = if levels == 5000 && open != "[" { 1500 } else { levels };
            let extra = format!("{{\"x\":{}1{},", open.repeat(levels), close.repeat(levels));
            let payload = honest.replacen('{', &extra, 1);
            add("nesting", stage.rsa.sign_raw(honest_header.as_bytes(), payload.as_bytes()), deep_payload);
            let header = honest_header.replacen('{', &extra, 1);
            add("nesting", stage.rsa.sign_raw(header.as_bytes(), honest.as_bytes()), deep_header);
        }
    }
    let nested = honest.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(10_000), "]".repeat(10_000)), 1);
    add("nesting", stage.rsa.sign_raw(honest_header.as_bytes(), nested.as_bytes()), "TooLong");
    cases
}

/// What is expected of a flaw in the header, and in the payload.
fn expectations(flaw: &str) -> [&'static str; 2] {
    match flaw {
        "Json" => ["Malformed header Json", "Malformed payload Json"],
        "NotAnObject" => ["Malformed header NotAnObject", "Malformed payload NotAnObject"],
        "Nul" => ["Malformed header Nul", "Malformed payload Nul"],
        "DuplicateMember" => ["Malformed header DuplicateMember", "Malformed payload DuplicateMember"],
        "TooDeep" => ["Malformed header TooDeep", "Malformed payload TooDeep"],
        other => panic!("no flaw {other}"),
    }
}
