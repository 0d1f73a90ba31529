//! Our mark in JFrog's description of each chain's token: by it an orphan is known as ours, and as of this very token and chain.

use uuid::Uuid;

use super::Parts;
use crate::{
    actor::Actor,
    jfrog::CreateRequest,
    store::{Letter, TokenView},
};

/// JFrog's limit for a description.
const DESCRIPTION_LIMIT: usize = 1024;

impl Parts {
    /// Begins the description of every pair made for this token.
    pub(super) fn token_marker(&self, token: Uuid) -> String {
        format!("tb:{}:{token}:", self.recognised.installation)
    }

    /// Begins the description of every pair made for this chain.
    pub(super) fn chain_marker(&self, token: Uuid, letter: Letter) -> String {
        format!("{}{}", self.token_marker(token), letter.as_str())
    }

    /// Begins the description of a child token. No chain's marker begins like it.
    pub(super) fn child_marker(&self, token: Uuid, child: Uuid) -> String {
        format!("{}child:{child}", self.token_marker(token))
    }

    /// A child token's description: its marker, which job it is for, and what the job says of it.
    pub(super) fn child_description(&self, token: Uuid, child: Uuid, description: Option<&str>, actor: &Actor) -> String {
        let recognised = &actor.recognised_by;
        let claims = [&recognised["claims"], &recognised["begun_by"]["claims"]].into_iter().find_map(|claims| claims.as_object());
        let claims = claims.into_iter().flatten().filter(|(name, _)| !["iss", "sub", "jti"].contains(&name.as_str()));
        let request = actor.request_id.iter().map(|id| format!("request={id}"));
        let job = claims.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)));
        let words: Vec<String> = std::iter::once(actor.name.clone()).chain(request).chain(job).collect();
        described(&self.child_marker(token, child), &format!("{} {}", words.join(" "), description.unwrap_or_default()))
    }

    /// What is asked of JFrog for this chain.
    pub(super) fn create_request(&self, view: &TokenView, letter: Letter) -> CreateRequest {
        let marker = self.chain_marker(view.id, letter);
        CreateRequest {
            description: described(&marker, &view.description),
            scope: view.scope.clone(),
            audience: view.audience.clone(),
            expires_in: view.expires_in,
            project_key: view.project_key.clone(),
            include_reference_token: view.include_reference_token,
        }
    }
}

/// A marker, and as much of a text as JFrog takes.
fn described(marker: &str, text: &str) -> String {
    let room = DESCRIPTION_LIMIT - marker.len() - 1;
    let text: String = text.chars().filter(|c| !c.is_control()).take(room).collect();
    format!("{marker} {text}").trim_end().to_owned()
}

/// Whether a description carries exactly this chain's marker: `…:a` is not the beginning of `…:ab`.
pub(super) fn carries(description: &str, marker: &str) -> bool {
    description.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}
