//! Our mark in JFrog's description of each chain's token: by it an orphan is known as ours, and as of this very token and chain.

use uuid::Uuid;

use super::Parts;
use crate::{
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

    /// What is asked of JFrog for this chain.
    pub(super) fn create_request(&self, view: &TokenView, letter: Letter) -> CreateRequest {
        let marker = self.chain_marker(view.id, letter);
        let room = DESCRIPTION_LIMIT - marker.len() - 1;
        let description: String = view.description.chars().filter(|c| !c.is_control()).take(room).collect();
        CreateRequest {
            description: format!("{marker} {description}").trim_end().to_owned(),
            scope: view.scope.clone(),
            audience: view.audience.clone(),
            expires_in: view.expires_in,
            project_key: view.project_key.clone(),
            include_reference_token: view.include_reference_token,
        }
    }
}

/// Whether a description carries exactly this chain's marker: `…:a` is not the beginning of `…:ab`.
pub(super) fn carries(description: &str, marker: &str) -> bool {
    description.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}
