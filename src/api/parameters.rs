//! What no operation knows in a query string is refused, as in a body: a misspelt `dry_run` must not do the real thing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use utoipa::openapi::{OpenApi, RefOr, path::ParameterIn};

use super::problem::{FieldError, Problem};

/// So much of a name is said back, in characters.
const SHOWN: usize = 64;

/// The parameters of each operation, by its method and route, as they are documented.
#[derive(Clone, Debug)]
pub(super) struct Known(Arc<HashMap<Method, HashMap<String, HashSet<String>>>>);

impl Known {
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut known: HashMap<Method, HashMap<String, HashSet<String>>> = HashMap::new();
        for (route, item) in &document.paths.paths {
            let operations = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                let names = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                    RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
                    _ => None,
                });
                let names = names.collect();
                known.entry(method).or_default().insert(route.clone(), names);
            }
        }
        Self(Arc::new(known))
    }
}

/// Answers a request with a parameter that its operation does not know.
pub(super) async fn refuse_unknown(State(known): State<Known>, route: MatchedPath, request: Request, next: Next) -> Response {
    // A probe that varies its address asks the same.
    let any = route.as_str().starts_with("/health/");
    let names = known.0.get(request.method()).and_then(|routes| routes.get(route.as_str())).filter(|_| !any);
    let query = request.uri().query().unwrap_or_default();
    let unknown = names.and_then(|names| {
        form_urlencoded::parse(query.as_bytes()).find(|(name, _)| !names.contains(name.as_ref())).map(|(name, _)| name)
    });
    match unknown {
        None => next.run(request).await,
        Some(name) => {
            let field = name.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            Problem::invalid(vec![FieldError { field, message: "is no parameter of this call".to_owned() }]).into_response()
        }
    }
}
