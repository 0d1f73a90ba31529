//! Registrations and their chains, read: one statement gives a token, its chains and what is under way, as of one moment.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{AttemptRow, ChainRow, ChainState, Letter, Replaced, Result, Store, TokenState, TokenView};
use crate::secret::Sealed;

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
    issue_max_expires_in: i32,
    issue_scopes: Option<Vec<String>>,
    imported: bool,
    chain_count: i16,
    subject: Option<String>,
    locked_down: bool,
    has_children: bool,
    state: TokenState,
    generation: i64,
    rotatable: bool,
    rotatable_at: OffsetDateTime,
    heal_refused: bool,
    identity_token: Option<Vec<u8>>,
    request_sha256: Option<Vec<u8>>,
    rejections: i32,
    rejected_since: Option<OffsetDateTime>,
    user_refused_at: Option<OffsetDateTime>,
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
    sweep_after: OffsetDateTime,
    attempt_id: Option<Uuid>,
    attempt_chain_id: Option<Uuid>,
    attempt_begun_at: Option<OffsetDateTime>,
    attempt_live: Option<bool>,
    attempt_lease_until: Option<OffsetDateTime>,
}

impl Store {
    /// The token of this name. Together with those of the team's that are looked at meanwhile.
    ///
    /// # Errors
    /// Postgres.
    pub async fn token(&self, team: Uuid, name: &str) -> Result<Option<TokenView>> {
        let store = self.clone();
        let all = move |names: Vec<String>| {
            let store = store.clone();
            async move {
                // Each once: who is asked for twice would have its chains twice.
                let mut wanted = names.clone();
                wanted.sort_unstable();
                wanted.dedup();
                let views = store.token_views(team, &wanted, &[]).await?;
                Ok(names.iter().map(|name| views.iter().find(|view| view.name == *name).cloned()).collect())
            }
        };
        self.looked_at.ask(team, name.to_owned(), all).await
    }

    /// The token of this id; where nobody waits for it, together with those of the team's that are looked up meanwhile.
    ///
    /// # Errors
    /// Postgres.
    pub async fn token_by_id(&self, team: Uuid, id: Uuid) -> Result<Option<TokenView>> {
        if !self.looked_up.lingers() {
            return Ok(self.token_views(team, &[], &[id]).await?.pop());
        }
        let store = self.clone();
        let all = move |ids: Vec<Uuid>| {
            let store = store.clone();
            async move {
                let mut wanted = ids.clone();
                wanted.sort_unstable();
                wanted.dedup();
                let views = store.token_views(team, &[], &wanted).await?;
                Ok(ids.iter().map(|id| views.iter().find(|view| view.id == *id).cloned()).collect())
            }
        };
        self.looked_up.ask(team, id, all).await
    }

    /// The tokens of these ids, those that there are.
    ///
    /// # Errors
    /// Postgres.
    pub async fn tokens_by_ids(&self, team: Uuid, ids: &[Uuid]) -> Result<Vec<TokenView>> {
        self.token_views(team, &[], ids).await
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
                      t.include_reference_token, t.reuse_for, t.issue_max_expires_in, t.issue_scopes, t.imported, t.chain_count, t.subject,
                      exists (select 1 from lockdowns l where l.team_id = t.team_id and coalesce(l.token_id, t.id) = t.id) as "locked_down!",
                      exists (select 1 from children k where k.token_id = t.id) as "has_children!", t.state as "state: TokenState",
                      t.generation, t.rotatable_at <= now() as "rotatable!", t.rotatable_at, t.heal_after > now() as "heal_refused!",
                      case when t.identity_token_until > now() then t.identity_token end as identity_token, t.request_sha256,
                      t.rejections, t.rejected_since, user_refused_at(t.instance, t.subject) as user_refused_at, t.last_error_at, t.last_error_kind, t.last_error_detail, t.created_at, t.created_by, now() as "now!",
                      c.id as chain_id, c.letter as "letter: Letter", c.state as "chain_state: ChainState",
                      c.generation as chain_generation, c.resent, c.access_token, c.refresh_token, c.jfrog_token_id,
                      c.fingerprint, c.scope as chain_scope, c.refreshed_at, c.expires_at,
                      c.replaced_access_token, c.replaced_generation, c.replaced_jfrog_token_id, c.sweep_after,
                      a.id as "attempt_id?", a.chain_id as attempt_chain_id, a.begun_at as "attempt_begun_at?",
                      a.lease_until > now() as attempt_live, a.lease_until as "attempt_lease_until?"
               -- One by one (each `offset 0` keeps it so): a statement may be planned before its team has thousands of tokens.
               from (select id from unnest($2::text[]) asked (name),
                                    lateral (select n.id from tokens n where n.team_id = $1 and n.name = asked.name offset 0) named
                     where (select in_team($1))
                     union all select * from unnest($3::uuid[])) wanted (id)
                    cross join lateral (select * from tokens k where k.id = wanted.id offset 0) t
                    cross join lateral (select * from chains k where k.token_id = t.id offset 0) c
                    left join attempts a on a.token_id = t.id
               where (select in_team($1))
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
            sweep_after: self.sweep_after,
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
            issue_max_expires_in: self.issue_max_expires_in,
            issue_scopes: self.issue_scopes,
            imported: self.imported,
            chain_count: self.chain_count,
            subject: self.subject,
            locked_down: self.locked_down,
            has_children: self.has_children,
            state: self.state,
            generation: self.generation,
            rotatable: self.rotatable,
            rotatable_at: self.rotatable_at,
            heal_refused: self.heal_refused,
            identity_token: self.identity_token.map(Sealed::from_bytes),
            request_sha256: self.request_sha256,
            rejections: self.rejections,
            rejected_since: self.rejected_since,
            user_refused_at: self.user_refused_at,
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
