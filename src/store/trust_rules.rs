//! Trust rules, and JWTs that may be used once.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store};
use crate::actor::Actor;

/// Names and what they must be: claims and patterns, or pinned ids.
pub type Claims = std::collections::BTreeMap<String, String>;

/// A rule to be kept.
#[derive(Clone, Debug)]
pub struct NewTrustRule {
    /// Unique in its team.
    pub name: String,
    /// The `iss` claim.
    pub issuer: String,
    /// Claim to pattern.
    pub claims: Claims,
    /// Meant for every repository or project of an owner.
    pub whole_organisation: bool,
    /// `ci`, `viewer` or `admin`.
    pub role: String,
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// Seconds; 0: no sessions.
    pub session_max: i32,
    /// Each JWT is good for one call.
    pub single_use: bool,
}

/// A rule as it is listed.
#[derive(Clone, Debug)]
pub struct TrustRuleRow {
    /// Its name.
    pub name: String,
    /// The `iss` claim.
    pub issuer: String,
    /// Claim to pattern.
    pub claims: Json<Claims>,
    /// Meant for every repository or project of an owner.
    pub whole_organisation: bool,
    /// Its role.
    pub role: String,
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// Seconds; 0: no sessions.
    pub session_max: i32,
    /// Each JWT is good for one call.
    pub single_use: bool,
    /// Ids learnt at the first use.
    pub pins: Json<Claims>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// By whom it was made or changed last.
    pub created_by: String,
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
}

/// A rule as identities are compared with it.
#[derive(Clone, Debug)]
pub struct IssuerRuleRow {
    /// Another one after each change.
    pub id: Uuid,
    /// Whose.
    pub team_id: Uuid,
    /// Its team's name.
    pub team_name: String,
    /// Its name.
    pub name: String,
    /// Claim to pattern.
    pub claims: Json<Claims>,
    /// Meant for every repository or project of an owner.
    pub whole_organisation: bool,
    /// Its role.
    pub role: String,
    /// Which tokens.
    pub token_patterns: Vec<String>,
    /// Seconds; 0: no sessions.
    pub session_max: i32,
    /// Each JWT is good for one call.
    pub single_use: bool,
    /// Ids learnt at the first use.
    pub pins: Json<Claims>,
}

impl Store {
    /// Keeps a rule. `None`: the team has `most` already.
    ///
    /// # Errors
    /// `Taken("trust_rules_name_key")`, or Postgres.
    pub async fn create_trust_rule(
        &self,
        team: Uuid,
        rule: &NewTrustRule,
        most: i64,
        actor: &Actor,
    ) -> Result<Option<TrustRuleRow>> {
        Ok(sqlx::query_as!(
            TrustRuleRow,
            r#"with made as (
                   insert into trust_rules (id, team_id, name, issuer, claims, whole_organisation, role, token_patterns, session_max,
                                            single_use, created_by)
                   select gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb->>'name'
                   where (select in_team($1)) and (select count(*) from trust_rules where (select in_team($1))) < $11
                   returning *),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select made.team_id, $10->>'name', $10->'recognised_by', 'rule.create', 'done', $10->>'request_id', $10->>'address',
                          to_jsonb(made) - 'id' - 'team_id'
                   from made)
               select name, issuer, claims as "claims: Json<Claims>", whole_organisation, role, token_patterns, session_max, single_use,
                      pins as "pins: Json<Claims>", created_at, created_by, last_used_at from made"#,
            team,
            rule.name,
            rule.issuer,
            Json(&rule.claims) as _,
            rule.whole_organisation,
            rule.role,
            &rule.token_patterns,
            rule.session_max,
            rule.single_use,
            Json(actor) as _,
            most
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Puts another rule in the place of the one of its name. What it learnt stays where it asks for the same claims. `None`: there
    /// is none of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn replace_trust_rule(&self, team: Uuid, rule: &NewTrustRule, actor: &Actor) -> Result<Option<TrustRuleRow>> {
        let replaced = sqlx::query_as!(
            TrustRuleRow,
            r#"with made as (
                   update trust_rules
                   set id = gen_random_uuid(), issuer = $3, claims = $4, whole_organisation = $5, role = $6, token_patterns = $7,
                       session_max = $8, single_use = $9, created_by = $10::jsonb->>'name',
                       pins = case when issuer = $3 and claims = $4 then pins else '{}' end
                   where (select in_team($1)) and name = $2
                   returning *),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select made.team_id, $10->>'name', $10->'recognised_by', 'rule.replace', 'done', $10->>'request_id', $10->>'address',
                          to_jsonb(made) - 'id' - 'team_id'
                   from made)
               select name, issuer, claims as "claims: Json<Claims>", whole_organisation, role, token_patterns, session_max, single_use,
                      pins as "pins: Json<Claims>", created_at, created_by, last_used_at from made"#,
            team,
            rule.name,
            rule.issuer,
            Json(&rule.claims) as _,
            rule.whole_organisation,
            rule.role,
            &rule.token_patterns,
            rule.session_max,
            rule.single_use,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        self.assurance.changed_here();
        Ok(replaced)
    }

    /// The rule of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn trust_rule(&self, team: Uuid, name: &str) -> Result<Option<TrustRuleRow>> {
        Ok(sqlx::query_as!(
            TrustRuleRow,
            r#"select name, issuer, claims as "claims: Json<Claims>", whole_organisation, role, token_patterns, session_max, single_use,
                      pins as "pins: Json<Claims>", created_at, created_by, last_used_at
               from trust_rules where (select in_team($1)) and name = $2"#,
            team,
            name
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// A page of rules by name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list_trust_rules(&self, team: Uuid, after: &str, limit: i64) -> Result<Vec<TrustRuleRow>> {
        Ok(sqlx::query_as!(
            TrustRuleRow,
            r#"select name, issuer, claims as "claims: Json<Claims>", whole_organisation, role, token_patterns, session_max, single_use,
                      pins as "pins: Json<Claims>", created_at, created_by, last_used_at
               from trust_rules where (select in_team($1)) and name > $2 order by name limit $3"#,
            team,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Deletes a rule; the sessions that came from it have ended. `false`: there is none of this name.
    ///
    /// # Errors
    /// Postgres.
    pub async fn delete_trust_rule(&self, team: Uuid, name: &str, actor: &Actor) -> Result<bool> {
        let deleted = sqlx::query_scalar!(
            r#"with gone as (
                   delete from trust_rules where (select in_team($1)) and name = $2 returning id, team_id, name),
               ended as (
                   delete from sessions where (select in_team($1)) and rule_ids && (select array_agg(gone.id) from gone)
                   returning sessions.id),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select gone.team_id, $3::jsonb->>'name', $3->'recognised_by', 'rule.delete', 'done', $3->>'request_id',
                          $3->>'address', jsonb_build_object('rule', gone.name, 'sessions', (select count(*) from ended))
                   from gone)
               select id from gone"#,
            team,
            name,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        self.assurance.changed_here();
        Ok(deleted.is_some())
    }

    /// All teams' rules for an issuer.
    ///
    /// # Errors
    /// Postgres.
    pub async fn trust_rules_of(&self, issuer: &str) -> Result<Vec<IssuerRuleRow>> {
        Ok(sqlx::query_as!(
            IssuerRuleRow,
            r#"select id as "id!", team_id as "team_id!", team_name as "team_name!", name as "name!", claims as "claims!: Json<Claims>",
                      whole_organisation as "whole_organisation!", role as "role!", token_patterns as "token_patterns!",
                      session_max as "session_max!", single_use as "single_use!", pins as "pins!: Json<Claims>"
               from trust_rules_of($1)"#,
            issuer
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Records a use of rules, at most once a minute.
    ///
    /// # Errors
    /// Postgres.
    pub async fn touch_trust_rules(&self, team: Uuid, rules: &[Uuid]) -> Result<()> {
        sqlx::query!(
            "update trust_rules set last_used_at = now() where (select in_team($1)) and id = any ($2)
             and (last_used_at is null or last_used_at < now() - interval '1 minute')",
            team,
            rules
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Learns ids at a rule's first use; what was learnt before stays. Returns all of the rule's, `None`: it is gone or was changed.
    ///
    /// # Errors
    /// Postgres.
    pub async fn pin_trust_rule(&self, team: Uuid, rule: Uuid, pins: &Claims, actor: &Actor) -> Result<Option<Claims>> {
        let pinned = sqlx::query_scalar!(
            r#"with pinned as (
                   update trust_rules set pins = $3::jsonb || pins where (select in_team($1)) and id = $2 returning team_id, name, pins),
               audited as (
                   insert into audit_events (team_id, actor, recognised_by, action, outcome, request_id, address, detail)
                   select pinned.team_id, $4::jsonb->>'name', $4->'recognised_by', 'rule.pin', 'done', $4->>'request_id',
                          $4->>'address', jsonb_build_object('rule', pinned.name, 'pins', pinned.pins)
                   from pinned where pinned.pins @> $3)
               select pins as "pins: Json<Claims>" from pinned"#,
            team,
            rule,
            Json(pins) as _,
            Json(actor) as _
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(pinned.map(|Json(pins)| pins))
    }

    /// Notes that a JWT was used, and forgets those that have ended. `false`: it was used before.
    ///
    /// # Errors
    /// Postgres.
    pub async fn use_jti(&self, issuer: &str, jti_sha256: &[u8; 32], until: OffsetDateTime) -> Result<bool> {
        let first = sqlx::query_scalar!(
            r#"with ended as (
                   delete from used_jtis where (issuer, jti_sha256) in (
                       select issuer, jti_sha256 from used_jtis where until < now() limit 100 for update skip locked))
               insert into used_jtis (issuer, jti_sha256, until) values ($1, $2, $3)
               on conflict on constraint used_jtis_pkey do nothing returning true as "first!""#,
            issuer,
            jti_sha256,
            until
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(first.is_some())
    }
}
