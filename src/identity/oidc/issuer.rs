//! One issuer and its keys: fetched when first needed, renewed ahead of time, kept for a day when the issuer is down.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    fetch,
    keys::{KeySet, NoKey},
    refusal::JwtError,
    schedule::{Schedule, jittered},
    settings::IssuerSettings,
};

/// The longest a caller may wait for keys: a fetch is bounded itself.
pub(super) const CLIENT_TIMEOUT: Duration = fetch::TIMEOUT;

/// An issuer on the list.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) settings: IssuerSettings,
    client: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    schedule: Schedule,
    keys: KeySet,
    /// The set before that one: a key that is only there was taken back.
    before: KeySet,
    /// Open while a fetch runs; everybody who needs it waits for its end.
    running: Option<watch::Receiver<()>>,
    /// Why the last fetch failed; `None` when it did not.
    failure: Option<String>,
}

impl Issuer {
    pub(super) fn new(settings: IssuerSettings, client: reqwest::Client) -> Self {
        Self { settings, client, state: Mutex::default() }
    }

    /// The key that a token with this header must be signed with, fetched if need be and allowed.
    pub(super) async fn key(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, JwtError> {
        match self.look(kid, algorithm, Instant::now()) {
            Err(JwtError::UnknownKey { .. } | JwtError::KeysUnavailable { .. }) => {}
            found => return found,
        }
        let fetch = self.lock().fetch_for_a_stranger(self, Instant::now());
        match fetch {
            Ok(fetch) => {
                ended(fetch).await;
                self.look(kid, algorithm, Instant::now())
            }
            Err(wait) => self.look(kid, algorithm, Instant::now()).map_err(|why| self.unasked(why, algorithm, wait)),
        }
    }

    /// While the issuer may not be asked, nobody knows of a key that it has just begun to use; of one that it took back, everybody.
    fn unasked(&self, why: JwtError, algorithm: Algorithm, wait: Duration) -> JwtError {
        match why {
            JwtError::UnknownKey { issuer, kid }
                if self.lock().before.find(kid.as_deref(), algorithm).err() == Some(NoKey::Unknown) =>
            {
                JwtError::UnaskedKey { issuer, kid, wait }
            }
            why => why,
        }
    }

    fn look(&self, kid: Option<&str>, algorithm: Algorithm, now: Instant) -> Result<DecodingKey, JwtError> {
        let state = self.lock();
        let issuer = || self.settings.url.clone();
        let found = if state.schedule.usable(now) { state.keys.find(kid, algorithm) } else { Err(NoKey::Unknown) };
        found.map_err(|why| match (why, &state.failure) {
            (NoKey::OtherAlgorithm, _) => JwtError::Algorithm(format!("{algorithm:?}")),
            (NoKey::Ambiguous, _) => JwtError::AmbiguousKey { issuer: issuer(), kid: kid.map(str::to_owned) },
            (NoKey::Unknown, Some(why)) => JwtError::KeysUnavailable { issuer: issuer(), why: why.clone() },
            (NoKey::Unknown, None) => JwtError::UnknownKey { issuer: issuer(), kid: kid.map(str::to_owned) },
        })
    }

    /// Renews the keys again and again until told to stop.
    pub(super) async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let renewing = async {
            loop {
                let fetch = self.lock().fetch(&self, Instant::now());
                ended(fetch).await;
                let wait = self.lock().schedule.until_renewal();
                tokio::time::sleep(jittered(wait)).await;
            }
        };
        stop.run_until_cancelled(renewing).await;
    }

    /// A task of its own: who asked may go away meanwhile. Not waited for at shutdown, it saves nothing.
    fn spawn_fetch(self: &Arc<Self>) -> watch::Receiver<()> {
        let (running, end) = watch::channel(());
        let issuer = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = fetch::fetch(&issuer.client, &issuer.settings).await;
            issuer.store(fetched, Instant::now());
            // Dropped on a panic too, so that nobody waits for ever.
            drop(running);
        });
        end
    }

    fn store(&self, fetched: Result<KeySet, String>, now: Instant) {
        let (url, outcome) = (&self.settings.url, if fetched.is_ok() { "ok" } else { "failed" });
        metrics::counter!("token_broker_issuer_fetches_total", "issuer" => url.clone(), "outcome" => outcome).increment(1);
        let mut state = self.lock();
        match fetched {
            Ok(keys) => {
                if !keys.skipped.is_empty() && keys.skipped != state.keys.skipped {
                    tracing::warn!(issuer = url, skipped = ?keys.skipped, "some of an issuer's keys are not used");
                }
                if state.failure.take().is_some() {
                    tracing::warn!(issuer = url, "the issuer's keys can be had again");
                }
                state.schedule.succeeded(now);
                state.before = std::mem::replace(&mut state.keys, keys);
            }
            Err(why) => {
                if state.failure.is_none() {
                    tracing::warn!(
                        issuer = url,
                        error = why,
                        "an issuer's keys cannot be had: the last good ones serve for a day"
                    );
                }
                state.schedule.failed();
                state.failure = Some(why);
            }
        }
    }

    /// A state is consistent whenever the lock is free, also when somebody panicked with it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The fetch that runs, or a new one if a token with an unknown key may cause one now; else how long until it may.
    fn fetch_for_a_stranger(&mut self, issuer: &Arc<Issuer>, now: Instant) -> Result<watch::Receiver<()>, Duration> {
        if self.still_running().is_none() {
            self.schedule.stranger_may_fetch(now)?;
        }
        Ok(self.fetch(issuer, now))
    }

    fn fetch(&mut self, issuer: &Arc<Issuer>, now: Instant) -> watch::Receiver<()> {
        if let Some(running) = self.still_running() {
            return running;
        }
        self.schedule.begun(now);
        self.running.insert(issuer.spawn_fetch()).clone()
    }

    fn still_running(&self) -> Option<watch::Receiver<()>> {
        // An error says that the sender is gone: the fetch has ended.
        self.running.clone().filter(|running| running.has_changed().is_ok())
    }
}

async fn ended(mut fetch: watch::Receiver<()>) {
    while fetch.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::{Route, client};

    const JWKS: &[u8] =
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;

    fn keys() -> Result<KeySet, String> {
        KeySet::parse(JWKS)
    }

    #[test]
    fn the_last_good_keys_serve_for_a_day_and_no_longer() {
        let client = client(&Route::default(), CLIENT_TIMEOUT).expect("a client");
        let issuer = Issuer::new("https://idp".parse().expect("an issuer"), client);
        let start = Instant::now();
        let look = |kid, hours: u64, second| {
            issuer.look(Some(kid), Algorithm::EdDSA, start + Duration::from_secs(hours * 3600 + second)).map(|_| ())
        };
        let (url, kid) = ("https://idp".to_owned(), Some("k".to_owned()));
        assert_eq!(look("k", 0, 0), Err(JwtError::UnknownKey { issuer: url.clone(), kid }), "nothing was fetched yet");
        issuer.store(keys(), start);
        assert_eq!(look("k", 0, 0), Ok(()));
        issuer.store(Err("down".to_owned()), start);
        let gone = Err(JwtError::KeysUnavailable { issuer: url, why: "down".to_owned() });
        assert_eq!((look("k", 24, 0), look("other", 24, 0)), (Ok(()), gone.clone()));
        assert_eq!(look("k", 24, 1), gone);
        issuer.store(keys(), start + Duration::from_secs(24 * 3600));
        assert_eq!(look("k", 24, 1), Ok(()), "it is up again");
        issuer.store(KeySet::parse(br#"{"keys":[]}"#), start + Duration::from_secs(24 * 3600));
        assert!(look("k", 24, 1).is_err(), "an empty set takes every key back");
    }
}
