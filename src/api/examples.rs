//! Examples of errors for the documentation: real problems, so that what it shows is what is answered.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Response, example::ExampleBuilder};

use super::{
    caller::too_many,
    extract::{late, too_large, unsupported},
    health::master_key_unusable,
    limits::TooMany,
    problem::{FieldError, Problem},
};
use crate::{
    broker::{BrokerError, IssueError, RefreshError, RegisterError},
    identity::Refusal,
};

/// Adds one example for each slug that the response's description names in backquotes.
pub(super) fn add(status: &str, response: &mut Response) {
    let Some(RefOr::T(content)) = response.content.get_mut("application/problem+json") else { return };
    let samples = samples();
    for slug in response.description.split('`').skip(1).step_by(2) {
        let meant = |sample: &&Problem| sample.slug == slug && sample.status.as_str() == status;
        if let Some(sample) = samples.iter().find(meant) {
            let example = ExampleBuilder::new().value(Some(shown(sample))).build();
            content.examples.insert(slug.to_owned(), example.into());
        }
    }
}

/// A journal's id.
const JOURNAL: &str = "6f0f7a3e-6a4c-4d2e-9a55-0d9a1b2c3d4e";

fn shown(problem: &Problem) -> Value {
    json!(problem.body("01a209f3-519d-704a-a19d-b2f8dd4b3844"))
}

fn samples() -> Vec<Problem> {
    let seconds = "must be a number of seconds from 0 to 315360000";
    let field = FieldError { field: "expires_in".to_owned(), message: seconds.to_owned() };
    let later = Duration::from_secs(5);
    vec![
        Problem::malformed("The body is not JSON: expected value."),
        BrokerError::Refused(Refusal::TeamRequired).into(),
        Problem::unauthenticated(""),
        BrokerError::Refused(Refusal::Forbidden(String::new())).into(),
        Problem::not_found(""),
        late(),
        BrokerError::NameTaken("deploy".to_owned()).into(),
        BrokerError::Busy.into(),
        BrokerError::TeamInUse.into(),
        BrokerError::LockedDown.into(),
        BrokerError::KeyInUse { id: "k1".to_owned(), needs: vec!["12 rows of data_keys".to_owned()] }.into(),
        BrokerError::KeyNotEverywhere { id: "k2".to_owned(), replicas: vec![JOURNAL.to_owned()] }.into(),
        BrokerError::KeyNotFirst { id: "k1".to_owned(), first: "k2".to_owned() }.into(),
        BrokerError::JournalAlive(JOURNAL.parse().unwrap_or_default()).into(),
        RefreshError::Lost(String::new()).into(),
        too_large(),
        unsupported("send the body as Content-Type: application/json"),
        Problem::invalid(vec![field]),
        RegisterError::BearerRejected("Token failed verification: expired".to_owned()).into(),
        RegisterError::NotRefreshable.into(),
        RegisterError::ScopeRefused("Insufficient permissions".to_owned()).into(),
        IssueError::Wider(String::new()).into(),
        too_many(TooMany(later)),
        Problem::ours(),
        RefreshError::DatabaseUnavailable.into(),
        RefreshError::JfrogUnavailable { detail: String::new(), retry_after: later }.into(),
        RefreshError::Uncertain.into(),
        RefreshError::Pending.into(),
        master_key_unusable(),
        Problem::key_service_unavailable(""),
        Problem::issuer_unavailable("", later),
        BrokerError::Journal(std::io::ErrorKind::StorageFull.into()).into(),
        BrokerError::Frozen(String::new()).into(),
        Problem::of_status(StatusCode::SERVICE_UNAVAILABLE),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn every_error_has_an_example_of_its_own_status() {
        let document: Value = serde_json::from_str(&super::super::openapi_json().expect("a document")).expect("JSON");
        let operations =
            document["paths"].as_object().expect("paths").values().flat_map(|item| item.as_object().expect("a path"));
        for (method, operation) in operations {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let Some(content) = response["content"].get("application/problem+json") else { continue };
                let examples = content["examples"].as_object();
                let examples = examples.unwrap_or_else(|| panic!("{method} {}: {status}", operation["operationId"]));
                assert!(examples.values().all(|example| example["value"]["status"] == status.parse::<u16>().expect("a number")));
            }
        }
    }
}
