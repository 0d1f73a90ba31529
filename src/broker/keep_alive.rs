//! Keeping alive what nobody asks for: the older chain is rotated at half of its life, the two chains half a period apart, so that a
//! token survives a long holiday; and once a day JFrog is asked whether it still knows the user.

use std::time::Duration;

use rand::RngExt;

use super::{
    Broker, BrokerError,
    join::{AFTER_UNAUTHENTICATED, Advance, Start},
    settle::Settled,
};
use crate::{
    actor::Actor,
    jfrog::Vitality,
    store::{ChainRow, JobKind, TokenState, TokenView},
};

/// A disabled user must not go unnoticed for months.
const PROBE: Duration = Duration::from_secs(86_400);
/// After something went wrong, or while JFrog is away.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Over so long what is due at once is spread: it would otherwise come in waves, and hand-outs have to get past each of them.
const SPREAD: Duration = Duration::from_millis(30);
/// What is left of a chain's life when its turn comes, where `reuse_for` lets it, or a tenth of a short one; seconds.
const BEFORE_THE_END: i64 = 120;

impl Broker {
    /// Rotates the token if it is time, else asks JFrog whether it lives; says when to look again.
    pub(super) async fn keep_alive(&self, view: TokenView) -> Result<Settled, BrokerError> {
        if view.state != TokenState::Registered {
            return Ok(Settled::Later(TRY_AGAIN));
        }
        if view.has_children {
            self.store.forget_expired_children(view.team_id, view.id).await?;
            if self.store.children_are_open(view.team_id, view.id).await? {
                self.store.schedule(JobKind::Revoke, view.id, self.timing.lease).await?;
            }
        }
        if close_to_deadline(&view) {
            self.store.note_deadline(view.team_id, view.id).await?;
        }
        if view.rejections > 0 {
            return self.doubt(&view).await;
        }
        let due = view.older().map(|older| until_half_life(&view, older));
        if due != Some(Duration::ZERO) && view.missing().is_none() {
            let refused = match view.younger() {
                Some(chain) => self.vitality(&view, chain).await == Vitality::Dead,
                None => false,
            };
            if refused {
                self.store.note_probe(view.team_id, view.id, true).await?;
                return Ok(Settled::Later(AFTER_UNAUTHENTICATED));
            }
            return Ok(Settled::Later(due.unwrap_or(PROBE).min(jittered(PROBE))));
        }
        let wave_break = SPREAD.mul_f64(rand::rng().random());
        tokio::time::sleep(wave_break).await;
        let Some((place, view)) = self.place(view).await? else { return Ok(Settled::Done) };
        let start = || Start { view: Some(view.clone()), wanted: None, place: Some(place) };
        let (advance, _) = self.advance_for((view.team_id, view.name.clone(), false), &Actor::system(), start).await;
        Ok(Settled::Later(match advance {
            Advance::Changed => self.until_next(&view).await?,
            Advance::NotDue { .. } => until(&view, view.rotatable_at).max(Duration::from_secs(1)),
            Advance::Unavailable { retry_after, .. } => jittered(retry_after.max(TRY_AGAIN)),
            _ => jittered(TRY_AGAIN),
        }))
    }

    /// After a rotation the other chain is the older one: its own half life says when. That JFrog knows the user has just been seen.
    async fn until_next(&self, view: &TokenView) -> Result<Duration, BrokerError> {
        let now = self.background.token_by_id(view.team_id, view.id).await?.filter(|now| now.missing().is_none());
        let next = now.as_ref().and_then(|now| Some(until_half_life(now, now.older()?)));
        Ok(next.unwrap_or_default().min(jittered(PROBE)).max(Duration::from_secs(1)))
    }
}

/// Whether even the younger chain has less than a fifth of its life left: it was due at the half, so whatever rotates it does not
/// get there by itself.
fn close_to_deadline(view: &TokenView) -> bool {
    let span = view.younger().and_then(|chain| chain.refreshed_at.zip(chain.expires_at));
    span.is_some_and(|(from, to)| to - view.now < (to - from) / 5)
}

/// Until the chain has lived half of its life, give or take a tenth that is the same each time it is asked for one pair: many
/// tokens registered together are not rotated together.
fn until_half_life(view: &TokenView, chain: &ChainRow) -> Duration {
    let Some((from, to)) = chain.refreshed_at.zip(chain.expires_at) else { return PROBE };
    let spread = f64::from(chain.id.as_u128().wrapping_add(chain.generation.unsigned_abs().into()) as u8) / 255.0;
    let half = (to - from) * (0.45 + 0.1 * spread);
    // So early that the other one's turn comes before it expires; and not before what was handed out may be cut off.
    let other = view.younger().filter(|other| other.id != chain.id).and_then(|other| {
        let (from, to) = other.refreshed_at.zip(other.expires_at)?;
        let life = (to - from).whole_seconds();
        let kept = i64::from(view.reuse_for).min((life - 60) / 2).max(0);
        Some(to - time::Duration::seconds(kept + (life / 10).min(BEFORE_THE_END)))
    });
    until(view, other.map_or(from + half, |other| other.min(from + half)).max(view.rotatable_at))
}

fn until(view: &TokenView, at: time::OffsetDateTime) -> Duration {
    Duration::try_from(at - view.now).unwrap_or(Duration::ZERO)
}

fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.9..1.1))
}
