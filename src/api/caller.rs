//! The extractor that authenticates.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, header, request::Parts},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    ApiState,
    extract::TeamParameter,
    limits::TooMany,
    problem::Problem,
    request::{Context, Stranger},
};
use crate::{
    actor::Actor,
    broker::BrokerError,
    identity::{Caller, JwtError, Unauthenticated},
    secret::PresentedCredential,
};

/// After which an issuer that did not answer may have been asked once more.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A verified caller, and how the audit writes it.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub caller: Arc<Caller>,
    pub actor: Actor,
    /// Its place among those of the same credential.
    _place: OwnedSemaphorePermit,
}

impl FromRequestParts<ApiState> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let context = parts.extensions.get::<Context>().ok_or_else(|| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
        let credential = bearer(parts)?;
        let team = team_named(parts);
        let found = state.broker.authentication().authenticate(&credential, team.as_deref(), &context.nobody()).await;
        let caller = match found {
            Ok(caller) => caller,
            Err(error) => return Err(refused(error, state, context, team.as_deref()).await),
        };
        // Set once a request; a second extraction of the same request finds the same caller.
        drop(context.caller.set(Arc::clone(&caller)));
        let place = state.limits.credential(caller.counted_as()).await.map_err(too_many)?;
        let actor = caller.actor(Some(context.request_id.clone()), context.address.map(|address| address.to_string()));
        Ok(Self { caller, actor, _place: place })
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

/// The team that the request is about: a CI identity may be let in by several.
fn team_named(parts: &Parts) -> Option<Cow<'_, str>> {
    if let Some(rest) = parts.uri.path().strip_prefix("/teams/") {
        return rest.split('/').next().map(Cow::Borrowed);
    }
    Query::<TeamParameter>::try_from_uri(&parts.uri).ok()?.0.team.map(Cow::Owned)
}

async fn refused(error: Unauthenticated, state: &ApiState, context: &Context, team: Option<&str>) -> Problem {
    let key = match error {
        Unauthenticated::Store(error) => return BrokerError::Store(error).into(),
        Unauthenticated::WrongSecret(ref id) => Some(id.as_str()),
        _ => None,
    };
    // Noted whatever is answered: of a job that is told to wait, too, the audit says who it is and why it is refused.
    let reason = noted(&error, context, team);
    if let Err(too_often) = state.limits.failure(context.address, key).await {
        return too_many(too_often).because(reason);
    }
    match error {
        Unauthenticated::Jwt(JwtError::KeysUnavailable { .. }) => Problem::issuer_unavailable(reason, ASK_AGAIN),
        // Whole seconds, none too few: who comes back finds that the issuer may be asked.
        Unauthenticated::Jwt(JwtError::UnaskedKey { wait, .. }) => {
            Problem::issuer_unavailable(reason, wait + Duration::from_secs(1))
        }
        // A team where it has no business is none, as for everybody else who is let in somewhere.
        Unauthenticated::OfOthers(_) => Problem::not_found(reason),
        _ => Problem::unauthenticated(reason),
    }
}

/// Precisely why; and who a verified identity is that no rule lets in.
fn noted(error: &Unauthenticated, context: &Context, team: Option<&str>) -> String {
    let (Unauthenticated::NoRule(refused) | Unauthenticated::OfOthers(refused)) = error else { return error.to_string() };
    let concerned = refused.concerns(team);
    let reason = concerned.as_ref().map_or_else(|| error.to_string(), |concerned| format!("{error}: {}", concerned.why));
    let meant = concerned.as_ref().is_some_and(|concerned| concerned.meant);
    let team = concerned.map(|concerned| concerned.team);
    drop(context.stranger.set(Stranger { who: Arc::clone(&refused.who), team, meant }));
    reason
}

pub(super) fn too_many(TooMany(wait): TooMany) -> Problem {
    let detail = "Too many requests with this credential or from this address: wait as Retry-After says.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Rate limited", detail).retry_after(wait)
}
