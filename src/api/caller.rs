//! The extractor that authenticates.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
};

use super::{ApiState, problem::Problem, request::Context};
use crate::{
    actor::Actor,
    broker::BrokerError,
    identity::{Caller, Unauthenticated},
    secret::PresentedCredential,
};

/// A verified caller, and how the audit writes it.
#[derive(Clone, Debug)]
pub(super) struct Authenticated {
    pub caller: Arc<Caller>,
    pub actor: Actor,
}

impl FromRequestParts<ApiState> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let credential = bearer(parts)?;
        let caller = state.broker.authentication().authenticate(&credential).await.map_err(refused)?;
        let context = parts.extensions.get::<Context>().ok_or_else(|| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
        // Set once a request; a second extraction of the same request finds the same caller.
        drop(context.caller.set(Arc::clone(&caller)));
        let actor = caller.actor(Some(context.request_id.clone()), context.address.map(|address| address.to_string()));
        Ok(Self { caller, actor })
    }
}

fn bearer(parts: &Parts) -> Result<PresentedCredential, Problem> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::unauthenticated("there is not exactly one Authorization header"));
    };
    let text = value.to_str().map_err(|_| Problem::unauthenticated("the Authorization header is not ASCII"))?;
    let (scheme, credential) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") || credential.trim().is_empty() {
        return Err(Problem::unauthenticated("the Authorization header is not Bearer <credential>"));
    }
    Ok(PresentedCredential::new(credential.trim()))
}

fn refused(error: Unauthenticated) -> Problem {
    match error {
        Unauthenticated::Store(error) => BrokerError::Store(error).into(),
        other => Problem::unauthenticated(other),
    }
}
