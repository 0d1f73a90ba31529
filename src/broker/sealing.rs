//! Where a pair's secrets are sealed for: a chain's row and generation, a journal entry.

use uuid::Uuid;

use super::{BrokerError, Parts};
use crate::{
    crypto::{self, Key, Place},
    jfrog::Pair,
    secret::{AccessToken, RefreshToken},
    store::{Attempt, ChainRow, NewPair, Replaced, TokenView},
};

/// Where one of a chain's secrets is sealed for.
pub(super) fn chain_place(chain: Uuid, column: &'static str, generation: i64) -> Place<'static> {
    Place { table: "chains", row: chain, column, generation }
}

impl Parts {
    /// The chain's access token, opened.
    pub(super) async fn open_access(&self, view: &TokenView, chain: &ChainRow) -> Result<AccessToken, BrokerError> {
        let sealed = chain.access_token.as_ref().ok_or_else(|| BrokerError::NotFound("access token".into()))?;
        let place = chain_place(chain.id, "access_token", chain.generation);
        let open = self.keys.open_sealed(&self.store, view.team_id, place, sealed).await?;
        Ok(AccessToken::new(open.as_str()))
    }

    /// The access token of the pair that was in the chain's place before, opened.
    pub(super) async fn open_replaced(
        &self,
        view: &TokenView,
        chain: &ChainRow,
        replaced: &Replaced,
    ) -> Result<AccessToken, BrokerError> {
        let place = chain_place(chain.id, "access_token", replaced.generation);
        let open = self.keys.open_sealed(&self.store, view.team_id, place, &replaced.access_token).await?;
        Ok(AccessToken::new(open.as_str()))
    }

    /// The chain's refresh token, opened.
    pub(super) async fn open_refresh(&self, view: &TokenView, chain: &ChainRow) -> Result<RefreshToken, BrokerError> {
        let sealed = chain.refresh_token.as_ref().ok_or_else(|| BrokerError::NotFound("refresh token".into()))?;
        let place = chain_place(chain.id, "refresh_token", chain.generation);
        let open = self.keys.open_sealed(&self.store, view.team_id, place, sealed).await?;
        Ok(RefreshToken::new(open.as_str()))
    }
}

/// Seals a pair for the generation it will be committed as.
pub(super) fn seal_pair(attempt: &Attempt, pair: &Pair, key: &Key) -> Result<NewPair, BrokerError> {
    let generation = attempt.spent_generation + 1;
    let seal = |column, text: &str| key.seal(chain_place(attempt.chain_id, column, generation), text.as_bytes());
    let refresh_token = pair.refresh_token.as_ref().ok_or_else(|| BrokerError::NotFound("refresh token".into()))?;
    Ok(NewPair {
        access_token: seal("access_token", pair.access_token.expose()),
        refresh_token: seal("refresh_token", refresh_token.expose()),
        reference_token: pair.reference_token.as_ref().map(|token| seal("reference_token", token.expose())),
        jfrog_token_id: pair.token_id.clone(),
        fingerprint: crypto::fingerprint(pair.access_token.expose()),
        scope: pair.scope.clone(),
        subject: pair.subject.clone(),
        expires_in: pair.expires_in,
    })
}

/// The place of a journal entry's body: with everything of its clear header that decides where the pair goes.
pub(super) fn entry_place<'a>(attempt: &Attempt, column: &'a str) -> Place<'a> {
    Place { table: "journal", row: attempt.id, column, generation: attempt.spent_generation }
}

/// The column of [`entry_place`].
pub(super) fn entry_column(attempt: &Attempt) -> String {
    format!("{}:{}:{}:{}", attempt.team_id, attempt.token_id, attempt.chain_id, attempt.kind)
}
