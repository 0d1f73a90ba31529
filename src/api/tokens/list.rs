//! `GET /tokens`.

use axum::{Json as Answer, extract::State};

use super::Token;
use crate::api::{
    ApiState,
    caller::Authenticated,
    docs,
    extract::{Parameters, TeamParameter},
    page::{Page, PageParameters},
    problem::Problem,
};

/// List tokens
///
/// Those that the credential's grant covers, by name. Never a secret.
#[utoipa::path(get, path = "/tokens", tag = docs::TOKENS, security(("bearer" = [])), params(TeamParameter, PageParameters),
    responses((status = 200, description = "A page of tokens.", body = Page<Token>)))]
pub(in crate::api) async fn list_tokens(
    State(state): State<ApiState>,
    who: Authenticated,
    Parameters(TeamParameter { team }): Parameters<TeamParameter>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Page<Token>>, Problem> {
    let team = state.broker.team_for(&who.caller, team.as_deref()).await?;
    let (after, limit) = page.read()?;
    let views = state.broker.list_tokens(&who.caller, &team, &after, limit).await?;
    let tokens = views.into_iter().map(|view| Token::new(view, &team.name, &who.caller)).collect();
    Ok(Answer(Page::new(tokens, limit, |token| &token.name)))
}
