//! How much one credential and one address may ask, in token buckets of bounded number.
//!
//! A wrong credential is refused after it was checked, never before: who holds the right one is let in however many guess at it.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// Buckets kept at once, of each sort; who floods with ever new addresses pushes the idlest out.
const BUCKETS: u64 = 50_000;
/// A bucket that was left alone for so long is full: it may be forgotten.
const FILLED: Duration = Duration::from_secs(60);
/// Requests under way with one credential, of the ten thousand that there are places for: one that floods leaves some to the others.
const AT_ONCE: usize = 6_000;
/// Audit rows a minute for refusals of nobody in particular: a flood of bad credentials must not fill the table.
const AUDITED_STRANGERS: u32 = 600;
/// Of these, from one address.
const AUDITED_FROM_ONE_ADDRESS: u32 = 60;
/// Audit rows a minute for refusals of one verified identity: all jobs of a matrix are one, and each should have its row.
const AUDITED_OF_ONE_IDENTITY: u32 = 300;
/// Of all identities that one team's rules are about.
const AUDITED_IN_ONE_TEAM: u32 = 1_200;
/// Of all that no team's rules are about: anybody has one who has a repository at an issuer that serves everybody.
const AUDITED_OUTSIDERS: u32 = 600;

/// Requests a minute; as many may come at once.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// With one credential.
    pub per_credential: NonZeroU32,
    /// From one address (IPv6: from one /64).
    pub per_address: NonZeroU32,
    /// With wrong credentials from one address, or for one key.
    pub failures: NonZeroU32,
}

impl Default for Rates {
    fn default() -> Self {
        let fixed = |rate| NonZeroU32::new(rate).expect("it is not zero");
        Self { per_credential: fixed(10_000), per_address: fixed(30_000), failures: fixed(300) }
    }
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Limits {
    credentials: Buckets<[u8; 32]>,
    addresses: Buckets<IpAddr>,
    failing_addresses: Buckets<IpAddr>,
    failing_keys: Buckets<String>,
    strangers: Buckets<IpAddr>,
    all_strangers: Arc<DefaultDirectRateLimiter>,
    identities: Buckets<[u8; 32]>,
    teams: Buckets<Uuid>,
    all_outsiders: Arc<DefaultDirectRateLimiter>,
    places: Cache<[u8; 32], Arc<Semaphore>>,
}

/// When asking again may help.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooMany(pub Duration);

impl Limits {
    pub(super) fn new(rates: Rates) -> Self {
        let fixed = |rate| NonZeroU32::new(rate).expect("it is not zero");
        Self {
            credentials: Buckets::new(rates.per_credential),
            addresses: Buckets::new(rates.per_address),
            failing_addresses: Buckets::new(rates.failures),
            failing_keys: Buckets::new(rates.failures),
            strangers: Buckets::new(fixed(AUDITED_FROM_ONE_ADDRESS)),
            all_strangers: Arc::new(RateLimiter::direct(Quota::per_minute(fixed(AUDITED_STRANGERS)))),
            identities: Buckets::new(fixed(AUDITED_OF_ONE_IDENTITY)),
            teams: Buckets::new(fixed(AUDITED_IN_ONE_TEAM)),
            all_outsiders: Arc::new(RateLimiter::direct(Quota::per_minute(fixed(AUDITED_OUTSIDERS)))),
            places: Cache::builder().max_capacity(BUCKETS).time_to_idle(FILLED).build(),
        }
    }

    /// A request from this address.
    pub(super) async fn request(&self, address: Option<IpAddr>) -> Result<(), TooMany> {
        match address {
            Some(address) => self.addresses.take(network(address)).await,
            None => Ok(()),
        }
    }

    /// A request with this credential, which is good: its place, until it has ended.
    pub(super) async fn credential(&self, sha256: [u8; 32]) -> Result<OwnedSemaphorePermit, TooMany> {
        self.credentials.take(sha256).await?;
        let places = self.places.get_with(sha256, async { Arc::new(Semaphore::new(AT_ONCE)) }).await;
        places.try_acquire_owned().map_err(|_| TooMany(Duration::from_secs(1)))
    }

    /// A request with a wrong credential, which may have named a key.
    pub(super) async fn failure(&self, address: Option<IpAddr>, key: Option<&str>) -> Result<(), TooMany> {
        let by_address = match address {
            Some(address) => self.failing_addresses.take(network(address)).await,
            None => Ok(()),
        };
        let by_key = match key {
            Some(key) => self.failing_keys.take(key.to_owned()).await,
            None => Ok(()),
        };
        by_address.and(by_key)
    }

    /// Whether another refusal of somebody unknown may be audited.
    pub(super) async fn audited(&self, address: Option<IpAddr>) -> bool {
        let here = match address {
            Some(address) => self.strangers.take(network(address)).await.is_ok(),
            None => true,
        };
        here && self.all_strangers.check().is_ok()
    }

    /// Whether another refusal of this verified identity may be audited, which rules of `team` are about. Apart from strangers', or
    /// whoever sends garbage would hide why a job was refused.
    pub(super) async fn audited_identity(&self, identity: [u8; 32], team: Option<Uuid>) -> bool {
        let own = self.audited_caller(identity).await;
        own && match team {
            Some(team) => self.teams.take(team).await.is_ok(),
            None => self.all_outsiders.check().is_ok(),
        }
    }

    /// Whether another refusal may be audited of a caller that asks too much.
    pub(super) async fn audited_caller(&self, counted_as: [u8; 32]) -> bool {
        self.identities.take(counted_as).await.is_ok()
    }
}

/// One bucket for each key.
#[derive(Debug)]
struct Buckets<K: Hash + Eq + Send + Sync + 'static> {
    quota: Quota,
    by_key: Cache<K, Arc<DefaultDirectRateLimiter>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    fn new(per_minute: NonZeroU32) -> Self {
        Self { quota: Quota::per_minute(per_minute), by_key: Cache::builder().max_capacity(BUCKETS).time_to_idle(FILLED).build() }
    }

    async fn take(&self, key: K) -> Result<(), TooMany> {
        let bucket = self.by_key.get_with(key, async { Arc::new(RateLimiter::direct(self.quota)) }).await;
        bucket.check().map_err(|until| TooMany(until.wait_time_from(DefaultClock::default().now())))
    }
}

/// Who has one IPv6 address has all of its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn few() -> Limits {
        let three = NonZeroU32::new(3).expect("three");
        Limits::new(Rates { per_credential: three, per_address: three, failures: three })
    }

    #[tokio::test]
    async fn a_bucket_is_empty_after_its_rate_and_says_when_it_is_not_any_more() {
        let limits = few();
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        for _ in 0..3 {
            limits.request(address).await.expect("there is room");
        }
        let TooMany(wait) = limits.request(address).await.expect_err("it is empty");
        assert!(wait > Duration::from_secs(10) && wait <= Duration::from_secs(20), "{wait:?}");
        limits.request(Some(IpAddr::from([10, 0, 0, 2]))).await.expect("another's is its own");
        limits.failure(address, None).await.expect("of another sort");
    }

    #[tokio::test]
    async fn one_credential_has_not_all_the_places() {
        let limits = Limits::new(Rates::default());
        let mut held = Vec::new();
        while let Ok(place) = limits.credential([1; 32]).await {
            held.push(place);
        }
        assert_eq!(held.len(), AT_ONCE);
        drop(limits.credential([2; 32]).await.expect("another's are its own"));
        held.pop();
        drop(limits.credential([1; 32]).await.expect("one has ended"));
    }

    #[tokio::test]
    async fn an_ipv6_network_is_one_address_and_a_mapped_ipv4_address_is_that_address() {
        let limits = few();
        for host in 1..=3u16 {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host);
            limits.request(Some(address.into())).await.expect("there is room");
        }
        let other_host = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 9, 9, 9, 9);
        assert!(limits.request(Some(other_host.into())).await.is_err());
        let other_network = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
        assert!(limits.request(Some(other_network.into())).await.is_ok());
        assert_eq!(network("::ffff:10.0.0.1".parse().expect("an address")), IpAddr::from([10, 0, 0, 1]));
    }

    /// How many of 1,500 refusals are audited, each of the identity with the next number of so many; and whether these are all that
    /// may be at this rate, with what came back meanwhile.
    async fn audited(limits: &Limits, identities: u32, team: Option<Uuid>, rate: u32) -> (u32, bool) {
        let (begun, mut rows) = (std::time::Instant::now(), 0);
        for number in 0..1_500u32 {
            let identity = crate::crypto::sha256(&(number % identities).to_be_bytes());
            rows += u32::from(limits.audited_identity(identity, team).await);
        }
        let back = f64::from(rate) * begun.elapsed().as_secs_f64() / 60.0;
        (rows, rows >= rate && f64::from(rows) <= f64::from(rate) + back + 1.0)
    }

    #[tokio::test]
    async fn refusals_of_verified_identities_are_bounded_each_teams_apart_and_apart_from_strangers() {
        let (team, other) = (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        let limits = Limits::new(Rates::default());
        for _ in 0..1_000 {
            limits.audited(None).await;
        }
        let one = audited(&limits, 1, other, AUDITED_OF_ONE_IDENTITY).await;
        assert!(one.1, "one that floods, after strangers: {one:?}");
        let outsiders = audited(&limits, 1_500, None, AUDITED_OUTSIDERS).await;
        assert!(outsiders.1, "ever new outsiders: {outsiders:?}");
        let jobs = audited(&limits, 1_500, team, AUDITED_IN_ONE_TEAM).await;
        assert!(jobs.1, "ever new jobs of a team, after outsiders: {jobs:?}");
        let theirs = limits.audited_identity([7; 32], other).await;
        assert!(theirs, "another team's are its own");
    }

    #[tokio::test]
    async fn ever_new_addresses_take_no_more_memory_than_the_bound() {
        let buckets = Buckets::new(NonZeroU32::MIN);
        for number in 0..(BUCKETS + 20_000) {
            buckets.take(number).await.expect("a new one has room");
        }
        buckets.by_key.run_pending_tasks().await;
        assert!(buckets.by_key.entry_count() <= BUCKETS, "{}", buckets.by_key.entry_count());
    }
}
