//! Named crash points, in debug builds only: at exactly this line a test's replica dies, panics or stalls. One of them is armed
//! with `TOKEN_BROKER_FAULT=<point>:<kill|panic|stall>[:<nth>]`; a release build has neither the points nor the variable.

/// Where a replica may be made to fail: the gaps between the lines of DESIGN.md's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Nothing is on disk.
    BeforeBegin,
    /// The attempt is committed.
    Begun,
    /// The empty journal entry is on disk too; JFrog is called next.
    Prepared,
    /// JFrog's answer is in memory only.
    Answered,
    /// It is on its way to the journal, whose disk may hang: to be stalled in.
    Saving,
    /// The pair is in the journal, and not in Postgres.
    Journaled,
    /// The pair is in Postgres; its entry still says pending, nobody was answered.
    Committed,
    /// The entry is to say committed, and may not yet; nobody was answered.
    Marked,
    /// A dead owner's attempt was ended; nothing is mended yet.
    Recovered,
    /// A delete has told JFrog, and Postgres still has the token.
    Revoked,
}

impl Point {
    /// All in which a replica dies, panics or stalls in every flow.
    pub const ALL: [Self; 9] = [
        Self::BeforeBegin,
        Self::Begun,
        Self::Prepared,
        Self::Answered,
        Self::Journaled,
        Self::Committed,
        Self::Marked,
        Self::Recovered,
        Self::Revoked,
    ];

    /// As in the variable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeBegin => "before-begin",
            Self::Begun => "begun",
            Self::Prepared => "prepared",
            Self::Answered => "answered",
            Self::Saving => "saving",
            Self::Journaled => "journaled",
            Self::Committed => "committed",
            Self::Marked => "marked",
            Self::Recovered => "recovered",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        env,
        sync::{
            OnceLock,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use super::Point;

    /// Longer than two of the tests' leases.
    const STALL: Duration = Duration::from_secs(8);

    struct Armed {
        point: String,
        action: String,
        /// Passes that are left before it goes off, once.
        left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    fn armed() -> &'static Option<Armed> {
        ARMED.get_or_init(|| {
            let spec = env::var("TOKEN_BROKER_FAULT").ok()?;
            let mut words = spec.split(':').map(str::to_owned);
            let (point, action) = words.next().zip(words.next())?;
            let left = AtomicU32::new(words.next().map_or(1, |nth| nth.parse().expect("TOKEN_BROKER_FAULT: a number")));
            assert!(
                Point::ALL.iter().chain([&Point::Saving]).any(|known| known.as_str() == point),
                "TOKEN_BROKER_FAULT: no point {point}"
            );
            Some(Armed { point, action, left })
        })
    }

    /// Fails here, if it is armed for here.
    pub(crate) async fn point(here: Point) {
        let Some(armed) = armed().as_ref().filter(|armed| armed.point == here.as_str()) else { return };
        let last = armed.left.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if last != Ok(1) {
            return;
        }
        // A test must know when it happened, and that it did.
        tracing::warn!(point = armed.point, action = armed.action, "a fault goes off");
        match armed.action.as_str() {
            // Not an exit: no destructor and no handler runs, as when the kernel or the power does it.
            "kill" => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)),
            "panic" => panic!("a fault was asked for at {}", armed.point),
            "stall" => {
                tokio::time::sleep(STALL).await;
                tracing::warn!("the stall is over");
            }
            other => panic!("TOKEN_BROKER_FAULT: no action {other}"),
        }
    }
}

#[cfg(debug_assertions)]
pub(crate) use armed::point;

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub(crate) async fn point(_: Point) {}
