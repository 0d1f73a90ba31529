//! The OpenAPI document and its page.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::app::TestApp;

fn document() -> Value {
    serde_json::from_str(&token_broker::api::openapi_json().expect("a document")).expect("JSON")
}

/// Method and path, and the operation.
fn operations(document: &Value) -> Vec<(String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("an item");
        item.iter().filter_map(move |(method, it)| Some((format!("{method} {path}"), it.as_object()?)))
    });
    operations.collect()
}

fn is_open(operation: &Map<String, Value>) -> bool {
    operation["security"].as_array().is_some_and(|needs| needs.iter().all(|need| need.as_object().is_some_and(Map::is_empty)))
}

/// A `$ref` followed, if it is one.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => schema,
    }
}

#[test]
fn every_operation_has_an_id_of_its_own_a_summary_and_a_tag() {
    let document = document();
    let mut ids = HashSet::new();
    for (name, operation) in operations(&document) {
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty() && text.len() < 60), "{name}");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name}");
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{name}: its id is another's too");
    }
    assert!(ids.len() >= 21);
}

#[test]
fn every_operation_says_what_it_answers() {
    let document = document();
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().expect("responses");
        let good: Vec<&String> = responses.keys().filter(|status| status.starts_with('2')).collect();
        assert!(!good.is_empty(), "{name}");
        for status in good.iter().filter(|status| status.as_str() != "204") {
            let types = responses[*status]["content"].as_object();
            assert!(types.is_some_and(|types| types.values().all(|it| it["schema"].is_object())), "{name} {status}");
        }
        let mut expected = vec!["500"];
        if !is_open(operation) {
            expected.extend(["400", "401", "403", "404", "422", "429", "503"]);
        }
        if operation.contains_key("requestBody") {
            expected.extend(["408", "413", "415"]);
        }
        for status in expected {
            let schema = &responses.get(status).unwrap_or_else(|| panic!("{name} has no {status}"))["content"]["application/problem+json"]
                ["schema"];
            assert!(resolved(&document, schema)["properties"]["request_id"].is_object(), "{name} {status}: {schema}");
        }
        assert!(responses.values().all(|response| response["description"].as_str().is_some_and(|text| text.len() > 4)), "{name}");
    }
}

#[test]
fn headers_that_tell_how_to_go_on_are_documented() {
    let document = document();
    let mut seen = std::collections::BTreeSet::new();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let header = match status.as_str() {
                "401" => "WWW-Authenticate",
                "429" | "503" => "Retry-After",
                "201" if !["session", "lockdown"].iter().any(|word| name.contains(word)) => "Location",
                _ => continue,
            };
            assert!(response["headers"][header].is_object(), "{name} {status}");
            seen.insert(header);
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn no_field_of_a_good_answer_is_ever_absent() {
    let document = document();
    let mut seen = 0;
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let mut open = vec![&response["content"]["application/json"]["schema"]];
            while let Some(schema) = open.pop() {
                let schema = resolved(&document, schema);
                open.extend(["allOf", "oneOf", "anyOf"].iter().flat_map(|word| schema[*word].as_array().into_iter().flatten()));
                open.extend(schema.get("items"));
                for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                    let required = schema["required"].as_array().is_some_and(|all| all.iter().any(|it| it == field));
                    assert!(required, "{name} {status}: {field}");
                    open.push(property);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn every_operation_but_health_needs_a_bearer() {
    let document = document();
    for (name, operation) in operations(&document) {
        assert_eq!(is_open(operation), name.contains("/health/"), "{name}");
    }
    let bearer = &document["components"]["securitySchemes"]["bearer"];
    assert_eq!((&bearer["type"], &bearer["scheme"]), (&"http".into(), &"bearer".into()));
}

#[test]
fn every_request_has_an_example_of_each_field() {
    let document = document();
    for (name, operation) in operations(&document) {
        let Some(body) = operation.get("requestBody") else { continue };
        let schema = &body["content"]["application/json"]["schema"];
        let mut open = vec![schema];
        let mut fields = 0;
        while let Some(schema) = open.pop() {
            let schema = resolved(&document, schema);
            for word in ["allOf", "oneOf", "anyOf"] {
                open.extend(schema[word].as_array().into_iter().flatten());
            }
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                fields += 1;
                let property = resolved(&document, property);
                let has = ["example", "examples", "enum"].iter().any(|word| !property[*word].is_null());
                assert!(has, "{name}: {field} has no example: {property}");
            }
        }
        assert!(fields > 0 || name == "post /sessions", "{name}: {schema}");
    }
}

#[test]
fn the_document_says_which_fields_a_registration_needs_and_no_part_of_it_forbids_the_rest() {
    let document = document();
    let schema =
        resolved(&document, &document["paths"]["/tokens"]["post"]["requestBody"]["content"]["application/json"]["schema"]);
    let parts: Vec<&Value> =
        schema["allOf"].as_array().map_or(vec![schema], |parts| parts.iter().map(|part| resolved(&document, part)).collect());
    let needed: HashSet<&str> =
        parts.iter().flat_map(|part| part["required"].as_array().into_iter().flatten()).filter_map(Value::as_str).collect();
    assert_eq!(needed, HashSet::from(["name", "identity_token"]));
    assert!(parts.len() == 1 || parts.iter().all(|part| part["additionalProperties"].is_null()), "{parts:?}");
}

#[tokio::test]
async fn the_service_serves_its_document_and_the_page_without_a_key() {
    let app = TestApp::start().await;
    let nobody = app.ci.nobody();
    assert_eq!(nobody.get("/openapi.json").await.expect(200).json, document());
    let page = nobody.get("/docs/").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html") && page.text.contains("swagger-ui"), "{}", page.text);
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        let file = nobody.get(&format!("/docs/{file}")).await.expect(200);
        assert!(!file.text.contains("cdn.jsdelivr") && !file.text.contains("unpkg.com"), "no CDN");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    nobody.get("/docs/absent.js").await.refused(404, "not-found");
    nobody.get("/docs/..%2f..%2fCargo.toml").await.refused(404, "not-found");
}
