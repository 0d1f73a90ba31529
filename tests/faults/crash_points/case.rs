//! The table: what is crashed where, how, among how many, and under which JFrog.

use std::fmt;

use token_broker::{dev::simulator::OldAccessToken, fault::Point};

/// How the process fails at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Kill,
    Panic,
    Stall,
}

/// The call that passes the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// A refresh that rotates.
    Rotate,
    /// A lost answer is found out: its chain is made anew, by the worker.
    Heal,
    /// The same, at the moment when the dead attempt was ended.
    Recover,
    /// A registration, at its first chain and at its second.
    Create,
    CreateSecond,
    /// A recreate, at its first chain and at its second.
    Recreate,
    RecreateSecond,
    Delete,
}

/// Who serves while the replica is dead or stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replicas {
    One,
    Two,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) flow: Flow,
    pub(super) point: Point,
    pub(super) action: Action,
    pub(super) replicas: Replicas,
    pub(super) old: OldAccessToken,
}

/// The three ways in which JFrog may treat the access token of a rotated chain.
const WAYS: [OldAccessToken; 3] = [OldAccessToken::Revoked, OldAccessToken::CachedSeconds(2), OldAccessToken::Valid];

impl Flow {
    const ALL: [Self; 8] = [
        Self::Rotate,
        Self::Heal,
        Self::Recover,
        Self::Create,
        Self::CreateSecond,
        Self::Recreate,
        Self::RecreateSecond,
        Self::Delete,
    ];

    /// At which of the flow's own passes of the point the replica fails; `None`: this flow is not crashed there.
    pub(super) fn pass(self, point: Point) -> Option<u32> {
        match point {
            Point::BeforeBegin
            | Point::Begun
            | Point::Prepared
            | Point::Answered
            | Point::Journaled
            | Point::Committed
            | Point::Marked => match self {
                Self::Rotate | Self::Heal | Self::Create | Self::Recreate => Some(1),
                Self::CreateSecond | Self::RecreateSecond => Some(2),
                Self::Recover | Self::Delete => None,
            },
            Point::Recovered => (self == Self::Recover).then_some(1),
            Point::Revoked => (self == Self::Delete).then_some(1),
            Point::Saving => None,
        }
    }

    /// How often the replica passes the point before: it registers the token, and loses an answer.
    fn passes_before(self, point: Point) -> u32 {
        let registration = if self.has_token() { 2 } else { 0 };
        let lost = u32::from(self.is_in_background());
        match point {
            Point::BeforeBegin | Point::Begun | Point::Prepared | Point::Answered => registration + lost,
            Point::Journaled | Point::Committed | Point::Marked => registration,
            Point::Recovered | Point::Revoked | Point::Saving => 0,
        }
    }

    /// Among whom it is crashed so. What rotates, recovers and deletes: among one and two. The others meet a kill among two, where the
    /// other replica comes first, and a stall alone, where the same process does. A panic is to them what a kill is.
    fn among(self, action: Action) -> &'static [Replicas] {
        match (self, action) {
            (Self::Rotate | Self::Recover | Self::Delete, _) => &[Replicas::One, Replicas::Two],
            (Self::Heal | Self::Create | Self::Recreate, Action::Kill) => &[Replicas::Two],
            (Self::CreateSecond | Self::RecreateSecond, Action::Kill) | (_, Action::Panic) => &[],
            (_, Action::Stall) => &[Replicas::One],
        }
    }

    /// Under which JFrogs. The flows that make a chain anew leave no rotated access token behind: they meet the harshest.
    fn under(self) -> &'static [OldAccessToken] {
        match self {
            Self::Rotate | Self::Recover | Self::Delete => &WAYS,
            Self::Heal | Self::Create | Self::CreateSecond | Self::Recreate | Self::RecreateSecond => &WAYS[..1],
        }
    }

    /// Whether the token is registered before anything fails.
    pub(super) fn has_token(self) -> bool {
        !matches!(self, Self::Create | Self::CreateSecond)
    }

    /// Whether callers must be served whatever happens: there is something to hand out.
    pub(super) fn serves(self) -> bool {
        self.has_token() && self != Self::Delete
    }

    /// Whether it is the worker that passes the point, and no caller.
    pub(super) fn is_in_background(self) -> bool {
        matches!(self, Self::Heal | Self::Recover)
    }
}

impl Case {
    /// All cases of one action.
    pub(super) fn all(action: Action) -> Vec<Self> {
        let mut cases = Vec::new();
        for point in Point::ALL {
            let before = cases.len();
            for flow in Flow::ALL.into_iter().filter(|flow| flow.pass(point).is_some()) {
                for &replicas in flow.among(action) {
                    cases.extend(flow.under().iter().map(|&old| Self { flow, point, action, replicas, old }));
                }
            }
            assert!(cases.len() >= before + 6, "{} has its place in the matrix", point.as_str());
        }
        cases
    }

    /// As in `TOKEN_BROKER_FAULT`.
    pub(super) fn fault(&self) -> String {
        let action = match self.action {
            Action::Kill => "kill",
            Action::Panic => "panic",
            Action::Stall => "stall",
        };
        let nth = self.flow.pass(self.point).expect("only such cases are in the table");
        format!("{}:{action}:{}", self.point.as_str(), self.flow.passes_before(self.point) + nth)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {}, {:?}, {:?}", self.flow, self.fault(), self.replicas, self.old)
    }
}
