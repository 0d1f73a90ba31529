//! Registrations and their chains, read: one statement gives a token, its chains and what is under way, as of one moment.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
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
    /// Adopted from a pasted pair.
    pub imported: bool,
    /// 1 or 2.
    pub chain_count: i16,
    /// JFrog's `sub`.
    pub subject: Option<String>,
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

/// The join as it comes: one row a chain, the token's columns repeated.
struct Row {
    id: Uuid,
    team_id: Uuid,
    name: String,
    description: String,
    instance: String,
    scope: Option<String>,
    audience: Option<String>,
    project_key: Option<String>,
    expires_in: Option<i64>,
    include_reference_token: bool,
    reuse_for: i32,
    imported: bool,
    chain_count: i16,
    subject: Option<String>,
    state: TokenState,
    generation: i64,
    rotatable: bool,
    rotatable_at: OffsetDateTime,
    heal_refused: bool,
    identity_token: Option<Vec<u8>>,
    request_sha256: Option<Vec<u8>>,
    last_error_at: Option<OffsetDateTime>,
    last_error_kind: Option<String>,
    last_error_detail: Option<String>,
    created_at: OffsetDateTime,
    created_by: String,
    now: OffsetDateTime,
    chain_id: Uuid,
    letter: Letter,
    chain_state: ChainState,
    chain_generation: i64,
    resent: bool,
    access_token: Option<Vec<u8>>,
    refresh_token: Option<Vec<u8>>,
    jfrog_token_id: Option<String>,
    fingerprint: Option<String>,
    chain_scope: Option<String>,
    refreshed_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    replaced_access_token: Option<Vec<u8>>,
    replaced_generation: Option<i64>,
    replaced_jfrog_token_id: Option<String>,
    attempt_id: Option<Uuid>,
    attempt_chain_id: Option<Uuid>,
    attempt_begun_at: Option<OffsetDateTime>,
    attempt_live: Option<bool>,
    attempt_lease_until: Option<OffsetDateTime>,
}

impl Store {
    /// The token of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn token(&self, team: Uuid, name: &str) -> Result<Option<TokenView>> {
        Ok(self.token_views(team, &[name.to_owned()], &[]).await?.pop())
    }

    /// The token of this id.
    ///
    /// # Errors
    /// Postgres.
    pub async fn token_by_id(&self, team: Uuid, id: Uuid) -> Result<Option<TokenView>> {
        Ok(self.token_views(team, &[], &[id]).await?.pop())
    }

    /// A page of tokens by name, of those that one of the `like` patterns covers.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_tokens(&self, team: Uuid, patterns: &[String], after: &str, limit: i64) -> Result<Vec<TokenView>> {
        let names = sqlx::query_scalar!(
            "select name from tokens where (select in_team($1)) and team_id = $1 and name like any($2) and name > $3 order by name limit $4",
            team,
            patterns,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        self.token_views(team, &names, &[]).await
    }

    /// What was replaced is revoked at JFrog, and forgotten here.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_replaced(&self, team: Uuid, chain: Uuid, replaced: &Replaced) -> Result<()> {
        sqlx::query!(
            "update chains set replaced_access_token = null, replaced_generation = null, replaced_jfrog_token_id = null
             where (select in_team($1)) and id = $2 and replaced_generation = $3",
            team,
            chain,
            replaced.generation
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn token_views(&self, team: Uuid, names: &[String], ids: &[Uuid]) -> Result<Vec<TokenView>> {
        let rows = sqlx::query_as!(
            Row,
            r#"select t.id, t.team_id, t.name, t.description, t.instance, t.scope, t.audience, t.project_key, t.expires_in,
                      t.include_reference_token, t.reuse_for, t.imported, t.chain_count, t.subject, t.state as "state: TokenState",
                      t.generation, t.rotatable_at <= now() as "rotatable!", t.rotatable_at, t.heal_after > now() as "heal_refused!",
                      case when t.identity_token_until > now() then t.identity_token end as identity_token, t.request_sha256,
                      t.last_error_at, t.last_error_kind, t.last_error_detail, t.created_at, t.created_by, now() as "now!",
                      c.id as chain_id, c.letter as "letter: Letter", c.state as "chain_state: ChainState",
                      c.generation as chain_generation, c.resent, c.access_token, c.refresh_token, c.jfrog_token_id,
                      c.fingerprint, c.scope as chain_scope, c.refreshed_at, c.expires_at,
                      c.replaced_access_token, c.replaced_generation, c.replaced_jfrog_token_id,
                      a.id as "attempt_id?", a.chain_id as attempt_chain_id, a.begun_at as "attempt_begun_at?",
                      a.lease_until > now() as attempt_live, a.lease_until as "attempt_lease_until?"
               from tokens t join chains c on c.token_id = t.id left join attempts a on a.token_id = t.id
               where (select in_team($1)) and t.team_id = $1 and (t.name = any($2) or t.id = any($3))
               order by t.name, c.letter"#,
            team,
            names,
            ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().fold(Vec::new(), |mut views: Vec<TokenView>, row| {
            let chain = row.chain();
            match views.last_mut().filter(|view| view.id == row.id) {
                Some(view) => view.chains.push(chain),
                None => views.push(row.view(chain)),
            }
            views
        }))
    }
}

impl Row {
    fn chain(&self) -> ChainRow {
        let replaced = self.replaced_access_token.clone().zip(self.replaced_generation).zip(self.replaced_jfrog_token_id.clone());
        ChainRow {
            id: self.chain_id,
            letter: self.letter,
            state: self.chain_state,
            generation: self.chain_generation,
            resent: self.resent,
            access_token: self.access_token.clone().map(Sealed::from_bytes),
            refresh_token: self.refresh_token.clone().map(Sealed::from_bytes),
            jfrog_token_id: self.jfrog_token_id.clone(),
            fingerprint: self.fingerprint.clone(),
            scope: self.chain_scope.clone(),
            refreshed_at: self.refreshed_at,
            expires_at: self.expires_at,
            replaced: replaced.map(|((access_token, generation), jfrog_token_id)| Replaced {
                access_token: Sealed::from_bytes(access_token),
                generation,
                jfrog_token_id,
            }),
        }
    }

    fn view(self, chain: ChainRow) -> TokenView {
        let attempt = self.attempt_id.zip(self.attempt_begun_at).zip(self.attempt_lease_until);
        let error = self.last_error_at.zip(self.last_error_kind).zip(self.last_error_detail);
        TokenView {
            id: self.id,
            team_id: self.team_id,
            name: self.name,
            description: self.description,
            instance: self.instance,
            scope: self.scope,
            audience: self.audience,
            project_key: self.project_key,
            expires_in: self.expires_in,
            include_reference_token: self.include_reference_token,
            reuse_for: self.reuse_for,
            imported: self.imported,
            chain_count: self.chain_count,
            subject: self.subject,
            state: self.state,
            generation: self.generation,
            rotatable: self.rotatable,
            rotatable_at: self.rotatable_at,
            heal_refused: self.heal_refused,
            identity_token: self.identity_token.map(Sealed::from_bytes),
            request_sha256: self.request_sha256,
            last_error: error.map(|((at, kind), detail)| (at, kind, detail)),
            created_at: self.created_at,
            created_by: self.created_by,
            chains: vec![chain],
            attempt: attempt.map(|((id, begun_at), lease_until)| AttemptRow {
                id,
                chain_id: self.attempt_chain_id,
                begun_at,
                live: self.attempt_live.unwrap_or(false),
                lease_until,
            }),
            now: self.now,
        }
    }
}
