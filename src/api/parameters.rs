//! What no operation knows in a query string is refused, as in a body: a misspelt `dry_run` must not do the real thing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::http::Method;
use utoipa::openapi::{OpenApi, RefOr, path::ParameterIn};

use super::problem::{FieldError, Problem};

/// So much of a name is said back, in characters.
const SHOWN: usize = 64;

/// The parameters of each operation, by its method and route, as they are documented.
#[derive(Clone, Debug, Default)]
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

    /// The refusal of a query string that holds something else; `None`: it does not.
    pub(super) fn refuses(&self, method: &Method, route: &str, query: &str) -> Option<Problem> {
        // A probe that varies its address asks the same.
        let names = self.0.get(method)?.get(route).filter(|_| !route.starts_with("/health/"))?;
        let (unknown, _) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| !names.contains(name.as_ref()))?;
        let field = unknown.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        Some(Problem::invalid(vec![FieldError { field, message: "is no parameter of this call".to_owned() }]))
    }
}
