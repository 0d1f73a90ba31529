//! When an issuer is asked for its keys. Times are given, so that a test need not wait for a day.

use std::time::{Duration, Instant};

use rand::RngExt;

/// How long the last good keys serve while the issuer is down.
const SERVES_FOR: Duration = Duration::from_secs(24 * 3600);

/// Tokens with unknown keys cause at most one fetch in this time: anybody can make such tokens.
const STRANGERS: Duration = Duration::from_secs(30);

/// The same while there are no keys at all, so that a broker started before its issuer soon works.
const EMPTY_HANDED: Duration = Duration::from_secs(5);

/// Between renewals.
const RENEWAL: Duration = Duration::from_secs(600);

/// What was asked when.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    fetched: Option<Instant>,
    begun: Option<Instant>,
    for_a_stranger: Option<Instant>,
    failures: u32,
}

impl Schedule {
    /// Whether the keys at hand may still be used.
    pub(super) fn usable(&self, now: Instant) -> bool {
        self.fetched.is_some_and(|fetched| now.saturating_duration_since(fetched) <= SERVES_FOR)
    }

    /// Whether a token with a key that is not at hand may cause a fetch; if not, how long until it may. Yes counts as having caused it.
    pub(super) fn stranger_may_fetch(&mut self, now: Instant) -> Result<(), Duration> {
        let usable = self.usable(now);
        let (since, gap) = if usable { (self.for_a_stranger, STRANGERS) } else { (self.begun, EMPTY_HANDED) };
        let wait = since.map_or(Duration::ZERO, |since| gap.saturating_sub(now.saturating_duration_since(since)));
        if !wait.is_zero() {
            return Err(wait);
        }
        if usable {
            self.for_a_stranger = Some(now);
        }
        Ok(())
    }

    pub(super) fn begun(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    pub(super) fn succeeded(&mut self, now: Instant) {
        self.fetched = Some(now);
        self.failures = 0;
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// How long until the next renewal, at most: soon after a failure, then less and less often.
    pub(super) fn until_renewal(&self) -> Duration {
        match self.failures {
            0 => RENEWAL,
            failures => EMPTY_HANDED.saturating_mul(1 << failures.min(7)).min(RENEWAL),
        }
    }
}

/// Between half of it and all of it: replicas that started together do not ask together.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_keys_serve_for_a_day() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert!(!schedule.usable(start));
        schedule.succeeded(start);
        schedule.failed();
        assert!(schedule.usable(start + SERVES_FOR));
        assert!(!schedule.usable(start + SERVES_FOR + Duration::from_secs(1)));
    }

    #[test]
    fn strangers_cause_one_fetch_in_half_a_minute() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.begun(start);
        schedule.succeeded(start);
        let caused = (0..=89).filter(|second| schedule.stranger_may_fetch(start + Duration::from_secs(*second)).is_ok()).count();
        assert_eq!(caused, 3, "in 90 seconds");
        let (late, left) = (start + Duration::from_millis(89_300), Duration::from_millis(700));
        assert_eq!(schedule.stranger_may_fetch(late), Err(left), "who must wait is told how long");
        assert_eq!(schedule.stranger_may_fetch(late + left), Ok(()));
    }

    #[test]
    fn without_keys_it_is_tried_again_soon_but_not_at_once() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert!(schedule.stranger_may_fetch(start).is_ok());
        schedule.begun(start);
        schedule.failed();
        assert_eq!(schedule.stranger_may_fetch(start + Duration::from_millis(4_999)), Err(Duration::from_millis(1)));
        assert!(schedule.stranger_may_fetch(start + EMPTY_HANDED).is_ok());
        // The same with keys that are too old to be used.
        schedule.succeeded(start);
        let stale = start + SERVES_FOR + Duration::from_secs(1);
        schedule.begun(stale);
        assert!(schedule.stranger_may_fetch(stale + Duration::from_secs(1)).is_err());
        assert!(schedule.stranger_may_fetch(stale + EMPTY_HANDED).is_ok());
    }

    #[test]
    fn renewals_back_off_and_recover() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.until_renewal(), RENEWAL);
        let mut waits = Vec::new();
        for _ in 0..40 {
            schedule.failed();
            waits.push(schedule.until_renewal().as_secs());
        }
        assert_eq!(waits[..8], [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(waits[39], 600);
        schedule.succeeded(Instant::now());
        assert_eq!(schedule.until_renewal(), RENEWAL);
        assert!((0..100).map(|_| jittered(RENEWAL)).all(|wait| (RENEWAL / 2..=RENEWAL).contains(&wait)));
    }
}
