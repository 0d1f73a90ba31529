//! Trust rules: judged when they are written, explained to admins.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Broker, BrokerError,
    page::visible,
    platform::{hands_on, may_hand_on, taken},
};
use crate::{
    actor::Actor,
    identity::{Action, Caller, Conditions, Grant, IssuerKind, Issuers, Mismatch, Role, Unauthenticated},
    names::{Name, TokenPattern},
    secret::PresentedCredential,
    store::{NewTrustRule, TrustRuleRow},
};

/// A rule to be written.
#[derive(Clone, Debug)]
pub struct TrustRule {
    /// Unique in its team.
    pub name: Name,
    /// The `iss` claim.
    pub issuer: String,
    /// Claim to pattern.
    pub claims: BTreeMap<String, String>,
    /// Meant for every repository or project of an owner.
    pub whole_organisation: bool,
    /// Its role.
    pub role: Role,
    /// Which tokens.
    pub tokens: Vec<TokenPattern>,
    /// Seconds; 0: no sessions.
    pub session_max: i32,
    /// Each JWT is good for one call.
    pub single_use: bool,
}

/// What one rule says of an identity.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The rule's name.
    pub rule: String,
    /// `None`: it matches.
    pub why_not: Option<Mismatch>,
}

/// What a team's rules say of an identity.
#[derive(Debug)]
pub struct Explanation {
    /// Of a JWT: why it is not accepted whatever the rules say. `None`: it is, or it was a claim set.
    pub jwt_refused: Option<String>,
    /// Rule by rule.
    pub rules: Vec<Explained>,
}

/// Rules of one team: every job of their issuer is compared with them, also other teams' and strangers'. One explanation looks at all.
const MOST_RULES: i64 = 1_000;

/// Values of one list that are compared with a thousand rules: whoever asks has written them.
const LONGEST_LIST: usize = 200;

impl Broker {
    /// Writes a new rule.
    ///
    /// # Errors
    /// The caller may not, the rule is refused or gives more than the caller has, its name is taken, or Postgres.
    pub async fn create_trust_rule(
        &self,
        caller: &Caller,
        team: &Name,
        rule: TrustRule,
        actor: &Actor,
    ) -> Result<TrustRuleRow, BrokerError> {
        let team = self.team(caller, team, Action::ManageKeys).await?;
        let (name, rule) = (rule.name.clone(), self.judged(caller, rule)?);
        let made = self.store.create_trust_rule(team.id, &rule, MOST_RULES, actor).await.map_err(|error| taken(error, &name))?;
        let message = || format!("is one too many: a team has at most {MOST_RULES} rules, and a pattern can stand for many jobs");
        made.ok_or_else(|| BrokerError::Invalid { field: "name", message: message() })
    }

    /// Puts another rule in the place of the one of its name; sessions that came from it end.
    ///
    /// # Errors
    /// As for a new one, or there is none.
    pub async fn replace_trust_rule(
        &self,
        caller: &Caller,
        team: &Name,
        rule: TrustRule,
        actor: &Actor,
    ) -> Result<TrustRuleRow, BrokerError> {
        let (team, _) = self.visible_rule(caller, team, &rule.name).await?;
        let (name, rule) = (rule.name.clone(), self.judged(caller, rule)?);
        let replaced = self.store.replace_trust_rule(team, &rule, actor).await?;
        replaced.ok_or_else(|| BrokerError::NotFound(format!("trust rule {name}")))
    }

    /// Deletes a rule; sessions that came from it end.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn delete_trust_rule(&self, caller: &Caller, team: &Name, name: &Name, actor: &Actor) -> Result<(), BrokerError> {
        let (team, _) = self.visible_rule(caller, team, name).await?;
        match self.store.delete_trust_rule(team, name.as_str(), actor).await? {
            true => Ok(()),
            false => Err(BrokerError::NotFound(format!("trust rule {name}"))),
        }
    }

    /// One rule.
    ///
    /// # Errors
    /// The caller may not, there is none, or Postgres.
    pub async fn trust_rule(&self, caller: &Caller, team: &Name, name: &Name) -> Result<TrustRuleRow, BrokerError> {
        Ok(self.visible_rule(caller, team, name).await?.1)
    }

    /// A page of a team's rules.
    ///
    /// # Errors
    /// The caller may not, there is no such team, or Postgres.
    pub async fn list_trust_rules(
        &self,
        caller: &Caller,
        team: &Name,
        after: &str,
        limit: i64,
    ) -> Result<Vec<TrustRuleRow>, BrokerError> {
        let team = self.team(caller, team, Action::ManageKeys).await?.id;
        let page = |after: String, size| async move { self.store.list_trust_rules(team, &after, size).await };
        visible(limit, after, page, |rule| &rule.name, |rule| may_manage(caller, rule)).await
    }

    /// What each rule of the team says of these claims, or of this JWT. Nothing is learnt, remembered or used up.
    ///
    /// # Errors
    /// The caller may not, the JWT cannot be read, or Postgres.
    pub async fn explain(&self, caller: &Caller, team: &Name, of: ExplainOf) -> Result<Explanation, BrokerError> {
        let rules = self.list_trust_rules(caller, team, "", MOST_RULES).await?;
        let field = if matches!(of, ExplainOf::Jwt(_)) { "jwt" } else { "claims" };
        let (claims, jwt_refused) = match of {
            ExplainOf::Claims(claims) => (claims, None),
            ExplainOf::Jwt(jwt) => match self.authentication.identity(&jwt).await {
                Ok(identity) => (identity.claims, None),
                Err(Unauthenticated::Jwt(refused)) => {
                    let invalid = |why| BrokerError::Invalid { field: "jwt", message: format!("cannot be read: {why}") };
                    (Issuers::unverified_claims(&jwt).map_err(invalid)?, Some(refused.to_string()))
                }
                Err(Unauthenticated::Store(error)) => return Err(error.into()),
                Err(other) => (Map::new(), Some(other.to_string())),
            },
        };
        if claims.values().any(has_long_list) {
            let message = format!("has a list of more than {LONGEST_LIST} values");
            return Err(BrokerError::Invalid { field, message });
        }
        let explained = rules.into_iter().map(|rule| Explained { why_not: self.why_not(&rule, &claims), rule: rule.name });
        Ok(Explanation { jwt_refused, rules: explained.collect() })
    }

    fn why_not(&self, rule: &TrustRuleRow, claims: &Map<String, Value>) -> Option<Mismatch> {
        let issuer = claims.get("iss").and_then(Value::as_str);
        if issuer != Some(rule.issuer.as_str()) {
            return Some(Mismatch {
                claim: "iss".to_owned(),
                expected: rule.issuer.clone(),
                got: issuer.map(|issuer| issuer.chars().take(256).collect()),
                fulfilled: 0,
            });
        }
        match self.conditions(&rule.issuer, &rule.claims, rule.whole_organisation) {
            Ok(conditions) => conditions.check(claims, &rule.pins).err(),
            Err(_) => Some(Mismatch {
                claim: "iss".to_owned(),
                expected: "an issuer that is still configured as it was when the rule was written".to_owned(),
                got: issuer.map(str::to_owned),
                fulfilled: 0,
            }),
        }
    }

    fn conditions(
        &self,
        issuer: &str,
        claims: &BTreeMap<String, String>,
        whole_organisation: bool,
    ) -> Result<Conditions, Vec<(String, String)>> {
        let unknown =
            || vec![("issuer".to_owned(), "is none that this service trusts: see TOKEN_BROKER_OIDC_ISSUERS".to_owned())];
        let kind: IssuerKind = self.authentication.kind_of(issuer).ok_or_else(unknown)?;
        Conditions::judge(kind, claims, whole_organisation)
    }

    fn judged(&self, caller: &Caller, rule: TrustRule) -> Result<NewTrustRule, BrokerError> {
        hands_on(caller, &Grant { role: rule.role, tokens: rule.tokens.clone() })?;
        self.conditions(&rule.issuer, &rule.claims, rule.whole_organisation).map_err(BrokerError::InvalidFields)?;
        Ok(NewTrustRule {
            name: rule.name.to_string(),
            issuer: rule.issuer,
            claims: rule.claims,
            whole_organisation: rule.whole_organisation,
            role: rule.role.as_str().to_owned(),
            token_patterns: rule.tokens.into_iter().map(String::from).collect(),
            session_max: rule.session_max,
            single_use: rule.single_use,
        })
    }

    async fn visible_rule(&self, caller: &Caller, team: &Name, name: &Name) -> Result<(uuid::Uuid, TrustRuleRow), BrokerError> {
        let team = self.team(caller, team, Action::ManageKeys).await?;
        let rule = self.store.trust_rule(team.id, name.as_str()).await?.filter(|rule| may_manage(caller, rule));
        let rule =
            rule.ok_or_else(|| BrokerError::NotFound(format!("trust rule {name}, or it has more than {}", caller.name())))?;
        Ok((team.id, rule))
    }
}

/// What an admin wants explained.
#[derive(Debug)]
pub enum ExplainOf {
    /// Claims as they stand in a JWT.
    Claims(Map<String, Value>),
    /// A JWT itself: verified as if it had been presented.
    Jwt(PresentedCredential),
}

/// An admin of some tokens sees and changes only rules that give no more than it has itself.
fn may_manage(caller: &Caller, rule: &TrustRuleRow) -> bool {
    may_hand_on(caller, &Grant::stored(&rule.role, rule.token_patterns.clone()))
}

fn has_long_list(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.len() > LONGEST_LIST || values.iter().any(has_long_list),
        Value::Object(fields) => fields.values().any(has_long_list),
        _ => false,
    }
}
