//! A registration, its chains and what is under way, as the flows see them.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::secret::Sealed;

/// Where a registration stands, as stored; `active`, `uncertain` and `lost` follow from its chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum TokenState {
    /// Its chains are being made.
    Creating,
    /// In use.
    Registered,
    /// A delete that could not reach JFrog yet.
    Revoked,
}

/// Where a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum ChainState {
    /// Its pair is the newest JFrog gave.
    Active,
    /// A refresh was sent and its outcome is not known.
    Uncertain,
    /// There is no pair that works, or none yet.
    Lost,
}

/// Which of the two chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Letter {
    /// The first.
    A,
    /// The second.
    B,
}

impl Letter {
    /// As it stands in the marker and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A registration with its chains and what is under way, as of `now`.
#[derive(Clone, Debug)]
pub struct TokenView {
    /// Stands in the marker at JFrog.
    pub id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Which JFrog.
    pub instance: String,
    /// Asked of JFrog.
    pub scope: Option<String>,
    /// Asked of JFrog.
    pub audience: Option<String>,
    /// Asked of JFrog.
    pub project_key: Option<String>,
    /// Asked of JFrog, seconds.
    pub expires_in: Option<i64>,
    /// Asked of JFrog.
    pub include_reference_token: bool,
    /// Seconds, as configured.
    pub reuse_for: i32,
    /// Longest life of a child token, seconds.
    pub issue_max_expires_in: i32,
    /// What a child token may be given; `None`: what is asked of JFrog for the token itself.
    pub issue_scopes: Option<Vec<String>>,
    /// Adopted from a pasted pair.
    pub imported: bool,
    /// 1 or 2.
    pub chain_count: i16,
    /// JFrog's `sub`.
    pub subject: Option<String>,
    /// By an admin: handed out to nobody.
    pub locked_down: bool,
    /// Whether anything is known of child tokens.
    pub has_children: bool,
    /// Where it stands.
    pub state: TokenState,
    /// Pairs handed out under this name.
    pub generation: i64,
    /// Whether `rotatable_at` has passed.
    pub rotatable: bool,
    /// When it passes.
    pub rotatable_at: OffsetDateTime,
    /// JFrog refused to make the missing chain, not long ago.
    pub heal_refused: bool,
    /// Sealed, while the chains are being made and it is not past its time.
    pub identity_token: Option<Sealed>,
    /// Digest of the request that registered it.
    pub request_sha256: Option<Vec<u8>>,
    /// How often JFrog answered 401 in a row.
    pub rejections: i32,
    /// Since when.
    pub rejected_since: Option<OffsetDateTime>,
    /// When JFrog last answered 401 for this user, be it for another token.
    pub user_refused_at: Option<OffsetDateTime>,
    /// `(at, kind, detail)`.
    pub last_error: Option<(OffsetDateTime, String, String)>,
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: String,
    /// a, then b.
    pub chains: Vec<ChainRow>,
    /// What is under way, or was when its owner died.
    pub attempt: Option<AttemptRow>,
    /// Postgres' clock at the read.
    pub now: OffsetDateTime,
}

/// A chain.
#[derive(Clone, Debug)]
pub struct ChainRow {
    /// Row id.
    pub id: Uuid,
    /// a or b.
    pub letter: Letter,
    /// Where it stands.
    pub state: ChainState,
    /// Its pairs so far.
    pub generation: i64,
    /// Uncertain, and its refresh token was sent once more already.
    pub resent: bool,
    /// Sealed.
    pub access_token: Option<Sealed>,
    /// Sealed.
    pub refresh_token: Option<Sealed>,
    /// JFrog's id of the pair.
    pub jfrog_token_id: Option<String>,
    /// Of the access token.
    pub fingerprint: Option<String>,
    /// Granted by JFrog.
    pub scope: Option<String>,
    /// When the pair was obtained.
    pub refreshed_at: Option<OffsetDateTime>,
    /// `None` with a pair: never.
    pub expires_at: Option<OffsetDateTime>,
    /// Until then nothing with this chain's marker is revoked: it may be in use.
    pub sweep_after: OffsetDateTime,
    /// The pair that a heal or a recreate replaced, until it is revoked.
    pub replaced: Option<Replaced>,
}

/// A pair that was replaced by a new chain in its place.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// Sealed for the generation it was.
    pub access_token: Sealed,
    /// Which that was.
    pub generation: i64,
    /// JFrog's id of it.
    pub jfrog_token_id: String,
}

/// An attempt as others see it.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    /// Its id.
    pub id: Uuid,
    /// Which chain.
    pub chain_id: Option<Uuid>,
    /// When it began.
    pub begun_at: OffsetDateTime,
    /// Whether its lease still runs.
    pub live: bool,
    /// When its lease ends.
    pub lease_until: OffsetDateTime,
}

impl TokenView {
    /// The chain whose pair is the newest among the active ones: the one that is handed out.
    pub fn younger(&self) -> Option<&ChainRow> {
        self.active().max_by_key(|chain| chain.refreshed_at)
    }

    /// The active chain that is rotated next.
    pub fn older(&self) -> Option<&ChainRow> {
        self.active().min_by_key(|chain| chain.refreshed_at)
    }

    /// Chains that work.
    pub fn active(&self) -> impl Iterator<Item = &ChainRow> {
        self.chains.iter().filter(|chain| chain.state == ChainState::Active)
    }

    /// The first chain that does not work.
    pub fn missing(&self) -> Option<&ChainRow> {
        self.chains.iter().find(|chain| chain.state != ChainState::Active)
    }

    /// Whether the chain's access token still has `seconds` to live.
    pub fn alive(&self, chain: &ChainRow, seconds: i64) -> bool {
        chain.expires_at.is_none_or(|at| at - self.now >= time::Duration::seconds(seconds))
    }
}
