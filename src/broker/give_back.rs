//! Pairs that came too late: given back to JFrog, when it is certain that nobody needs them.

use super::Broker;
use crate::{
    jfrog::{Bearer, Pair, Vitality},
    store::{ChainRow, TokenView},
};

impl Broker {
    /// Gives back a pair that came too late: only when the chain that is there now is alive at JFrog, or nobody needs it.
    pub(super) async fn give_back(&self, view: &TokenView, pair: &Pair) {
        let there = self.store.token_by_id(view.team_id, view.id).await;
        let alive = match &there {
            Ok(None) => true,
            // It was committed, handed out, and made anew before its owner could note that: the sweep revokes it in its time.
            Ok(Some(now)) if self.is_in_use(now, pair).await => false,
            Ok(Some(now)) => match now.younger() {
                Some(chain) => self.vitality(now, chain).await == Vitality::Alive,
                None => false,
            },
            Err(_) => false,
        };
        if alive {
            self.revoke_with_itself(view, pair).await;
        }
    }

    pub(super) async fn revoke_with_itself(&self, view: &TokenView, pair: &Pair) {
        let Some((instance, id)) = self.jfrog.instance(Some(&view.instance)).zip(pair.token_id.as_deref()) else { return };
        let revoked = self.jfrog.revoke(instance, &Bearer::Access(pair.access_token.clone()), id).await;
        tracing::info!(?revoked, jfrog_token_id = id, "gave back a pair that is not needed");
    }

    /// Whether somebody may hold the pair: it was in the place of what is there. Of a chain that was made anew twice, not every pair is
    /// remembered; but what is handed out stands in the audit.
    async fn is_in_use(&self, now: &TokenView, pair: &Pair) -> bool {
        let Some(id) = &pair.token_id else { return false };
        let mut replaced = now.chains.iter().filter_map(|chain| chain.replaced.as_ref());
        if replaced.any(|replaced| replaced.jfrog_token_id == *id) {
            return true;
        }
        if now.chains.iter().all(|chain| chain.sweep_after <= now.now) {
            return false;
        }
        self.store.handed_out_ids(now.team_id, now.id).await.map_or(true, |handed_out| handed_out.contains(id))
    }

    /// Whether JFrog answers at all.
    pub(super) async fn answers(&self, view: &TokenView) -> bool {
        match self.jfrog.instance(Some(&view.instance)) {
            Some(instance) => self.jfrog.answers(instance).await,
            None => false,
        }
    }

    /// Whether JFrog knows the chain's access token.
    pub(super) async fn vitality(&self, view: &TokenView, chain: &ChainRow) -> Vitality {
        let Some(instance) = self.jfrog.instance(Some(&view.instance)) else { return Vitality::Unknown };
        match self.open_access(view, chain).await {
            Ok(token) => self.jfrog.me(instance, &Bearer::Access(token)).await,
            Err(_) => Vitality::Unknown,
        }
    }
}
