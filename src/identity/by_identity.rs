//! CI identities: a JWT of a trusted issuer, and the trust rules of all teams that let it in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Authentication, Conditions, Identity, Mismatch, Unauthenticated,
    authenticate::{HALF, Lasting},
    caller::{Caller, FirstUse, Held, MatchedRule, Membership, Team},
    grant::{Grant, Grants},
    identifying,
    unauthenticated::{NoRule, Tried},
};
use crate::{
    actor::Actor,
    crypto,
    secret::PresentedCredential,
    store::{Claims, IssuerRuleRow, Store, StoreError},
};

/// How long after its end a used JWT is remembered: twice the leeway with which times are read.
const REMEMBERED_AFTER_END: time::Duration = time::Duration::seconds(120);

/// Who of an issuer is a platform admin; from the configuration, so nothing is ever learnt for it.
#[derive(Clone, Debug)]
pub struct PlatformRule {
    /// The `iss` claim.
    pub issuer: String,
    /// What its claims must be.
    pub conditions: Conditions,
}

/// A team's rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    team: Team,
    name: MatchedRule,
    grant: Grant,
    conditions: Arc<Conditions>,
    pins: Claims,
}

impl Authentication {
    /// The holder of a JWT, not yet admitted.
    pub(super) async fn by_jwt(&self, credential: &PresentedCredential, sha256: [u8; 32]) -> Result<Lasting, Unauthenticated> {
        let identity = Arc::new(self.identity(credential).await?);
        self.by_identity(&identity, sha256).await.map(|caller| (HALF, caller))
    }

    /// What a call comes to in its team: rules learn, a JWT is used up, a use is noted. Nothing of the kind in other teams, or another
    /// team's admin could learn of the job by a rule that fits it, and hold it up; and nothing while it is not said which team is
    /// meant, as nothing can be done then.
    pub(super) async fn admitted(
        &self,
        caller: Arc<Caller>,
        team: Option<&str>,
        stranger: &Actor,
    ) -> Result<Arc<Caller>, Unauthenticated> {
        let Held::Identity(identity) = &caller.held else { return Ok(caller) };
        if let Some(team) = team.filter(|team| !caller.may_be_about(team)) {
            return Err(self.of_others(team, identity, &caller).await?);
        }
        if caller.membership().is_none() {
            return Ok(caller);
        }
        let caller = self.learn(identity, Arc::clone(&caller), stranger).await?;
        let caller = self.once(caller).await?;
        if let Some(membership) = caller.membership() {
            self.touch(membership).await?;
        }
        Ok(caller)
    }

    /// The identity's caller by the rules as they are now.
    pub(super) async fn by_identity(&self, identity: &Arc<Identity>, sha256: [u8; 32]) -> Result<Caller, Unauthenticated> {
        // Of a caller that has waited, the signature is known to be good; the time may be over.
        if identity.has_ended() {
            return Err(Unauthenticated::Expired("the JWT".to_owned()));
        }
        let who = stranger(identity, sha256);
        let mut platform = self.platform_rules.iter().filter(|rule| rule.issuer == identity.issuer);
        if platform.any(|rule| rule.conditions.check(&identity.claims, &BTreeMap::new()).is_ok()) {
            return Ok(Caller { platform_admin: true, ..who });
        }
        let (mut memberships, mut tried): (Vec<Membership>, Vec<Tried>) = Default::default();
        for rule in self.rules_of(&identity.issuer).await?.iter() {
            match rule.why_not(identity) {
                Some(why_not) => tried.push(why_not),
                None => add(&mut memberships, rule, &identity.claims),
            }
        }
        Caller { memberships, ..who }.or_no_rule(tried)
    }

    /// Of one that only others let in, why this team's rules do not.
    async fn of_others(&self, team: &str, identity: &Identity, caller: &Caller) -> Result<Unauthenticated, StoreError> {
        let rules = self.rules_of(&identity.issuer).await?;
        let tried = rules.iter().filter(|rule| rule.team.name == team).filter_map(|rule| rule.why_not(identity)).collect();
        let who = Arc::new(Caller { memberships: Vec::new(), ..caller.clone() });
        Ok(Unauthenticated::OfOthers(Box::new(NoRule { who, tried })))
    }

    /// The last use is kept to the minute: thousands of jobs with a JWT each are no reason to write more often.
    async fn touch(&self, membership: &Membership) -> Result<(), StoreError> {
        let mut rules: Vec<Uuid> = membership.rules.iter().map(|rule| rule.id).collect();
        rules.retain(|rule| !self.touched.contains_key(rule));
        if rules.is_empty() {
            return Ok(());
        }
        for rule in &rules {
            self.touched.insert(*rule, ()).await;
        }
        let team = membership.team.id;
        self.store.promptly(move |store| async move { store.touch_trust_rules(team, &rules).await }).await
    }

    async fn rules_of(&self, issuer: &str) -> Result<Arc<[Rule]>, StoreError> {
        let (store, asked, begun) = (self.store.clone(), issuer.to_owned(), Instant::now());
        if let Some((read, rules)) = self.rules.get(issuer).await {
            if self.store.assurance().holds(read, HALF) {
                return Ok(rules);
            }
            self.rules.invalidate(issuer).await;
        }
        let read = async move {
            let rows = store.promptly(|store| async move { store.trust_rules_of(&asked).await }).await?;
            Ok((begun, rows.into_iter().filter_map(|row| self.compiled(issuer, row)).collect()))
        };
        let read = self.rules.try_get_with(issuer.to_owned(), read).await;
        read.map(|(_, rules)| rules).map_err(|error: Arc<StoreError>| error.told_again())
    }

    /// `None`: what was accepted once is no rule any more (the issuer became one of another kind): it lets nobody in.
    fn compiled(&self, issuer: &str, row: IssuerRuleRow) -> Option<Rule> {
        let conditions = Conditions::judge(self.kind_of(issuer)?, &row.claims, row.whole_organisation);
        let conditions = conditions
            .inspect_err(|errors| tracing::warn!(team = row.team_name, rule = row.name, ?errors, "a trust rule is not usable"));
        Some(Rule {
            team: Team { id: row.team_id, name: row.team_name },
            name: MatchedRule {
                id: row.id,
                name: row.name,
                session_max: row.session_max,
                single_use: row.single_use,
                first_use: None,
            },
            grant: Grant::stored(&row.role, row.token_patterns),
            conditions: Arc::new(conditions.ok()?),
            pins: row.pins.0,
        })
    }

    /// Rules that name a repository or project only by its name learn its id at their first use. Another job may be first, with
    /// another repository's id: what Postgres says then counts, not what was read before.
    async fn learn(&self, identity: &Identity, caller: Arc<Caller>, stranger: &Actor) -> Result<Arc<Caller>, Unauthenticated> {
        let mut refused = HashMap::new();
        for Membership { team, rules, .. } in caller.memberships() {
            for (id, first) in rules.iter().filter_map(|rule| Some((rule.id, rule.first_use.clone()?))) {
                let (team, pins) = (team.id, first.to_pin);
                let actor = Actor { name: caller.name.clone(), recognised_by: caller.recognised_by.clone(), ..stranger.clone() };
                let pin = move |store: Store| async move { store.pin_trust_rule(team, id, &pins, &actor).await };
                let pinned = async {
                    let pinned = self.store.promptly(pin).await;
                    self.rules.invalidate(&identity.issuer).await;
                    pinned
                };
                let pinned = self.learnt.try_get_with(id, pinned).await;
                let pinned = pinned.map_err(|error: Arc<StoreError>| error.told_again())?;
                let checked = pinned.map(|pins| first.conditions.check(&identity.claims, &pins));
                if let Err(why) = checked.unwrap_or_else(|| Err(mismatch("iss", "the issuer of a rule that still stands"))) {
                    refused.insert(id, why);
                }
            }
        }
        if refused.is_empty() {
            return Ok(caller);
        }
        let mut rest = Caller::clone(&caller);
        let tried = rest.without(&refused);
        rest.or_no_rule(tried).map(Arc::new)
    }

    /// Rules that let each JWT in once fall away for one that was used before.
    async fn once(&self, caller: Arc<Caller>) -> Result<Arc<Caller>, Unauthenticated> {
        let Held::Identity(identity) = &caller.held else { return Ok(caller) };
        let single_use = caller.memberships.iter().flat_map(|membership| &membership.rules).filter(|rule| rule.single_use);
        let single_use: Vec<Uuid> = single_use.map(|rule| rule.id).collect();
        if single_use.is_empty() {
            return Ok(caller);
        }
        let first = match &identity.jti {
            None => false,
            Some(jti) => {
                let (issuer, jti) = (identity.issuer.clone(), crypto::sha256(jti.as_bytes()));
                let until = identity.expires_at + REMEMBERED_AFTER_END;
                self.store.promptly(move |store| async move { store.use_jti(&issuer, &jti, until).await }).await?
            }
        };
        if first {
            return Ok(caller);
        }
        let why = mismatch("jti", "there, and of a JWT that was not used before: the rule lets each in once");
        let mut rest = Caller::clone(&caller);
        let tried = rest.without(&single_use.into_iter().map(|rule| (rule, why.clone())).collect());
        rest.or_no_rule(tried).map(Arc::new)
    }
}

/// Of a rule that all but fits.
fn mismatch(claim: &str, expected: &str) -> Mismatch {
    Mismatch { claim: claim.to_owned(), expected: expected.to_owned(), got: None, fulfilled: usize::MAX }
}

impl Rule {
    /// `None`: it lets this identity in.
    fn why_not(&self, identity: &Identity) -> Option<Tried> {
        self.conditions.check(&identity.claims, &self.pins).err().map(|why| {
            let meant = self.conditions.is_about(why.fulfilled);
            Tried { team: self.team.clone(), rule: self.name.name.clone(), why, meant }
        })
    }
}

impl Caller {
    pub(super) fn has_rule(&self, id: Uuid) -> bool {
        self.memberships.iter().flat_map(|membership| &membership.rules).any(|rule| rule.id == id)
    }

    /// The rules that it acts by.
    pub(super) fn rules_of_one_team(&self) -> impl Iterator<Item = Uuid> {
        self.membership().into_iter().flat_map(|membership| &membership.rules).map(|rule| rule.id)
    }

    /// Takes away what these rules give.
    fn without(&mut self, refused: &HashMap<Uuid, Mismatch>) -> Vec<Tried> {
        let mut tried = Vec::new();
        for membership in &mut self.memberships {
            let (rules, grants) = (std::mem::take(&mut membership.rules), std::mem::take(&mut membership.grants.0));
            for (rule, grant) in rules.into_iter().zip(grants) {
                match refused.get(&rule.id) {
                    Some(why) => {
                        tried.push(Tried { team: membership.team.clone(), rule: rule.name, why: why.clone(), meant: true })
                    }
                    None => {
                        membership.rules.push(rule);
                        membership.grants.0.push(grant);
                    }
                }
            }
        }
        self.memberships.retain(|membership| !membership.rules.is_empty());
        tried
    }

    /// Whoever is left without a team is nobody here; a platform admin needs none.
    fn or_no_rule(self, tried: Vec<Tried>) -> Result<Self, Unauthenticated> {
        if self.memberships.is_empty() && !self.platform_admin {
            return Err(Unauthenticated::NoRule(Box::new(NoRule { who: Arc::new(self), tried })));
        }
        Ok(self)
    }
}

/// One grant for each rule, in the same order.
fn add(memberships: &mut Vec<Membership>, rule: &Rule, claims: &Map<String, Value>) {
    let at = memberships.iter().position(|known| known.team == rule.team).unwrap_or_else(|| {
        memberships.push(Membership { team: rule.team.clone(), grants: Grants::default(), rules: Vec::new() });
        memberships.len() - 1
    });
    memberships[at].grants.0.push(rule.grant.clone());
    let to_pin = rule.conditions.to_pin(claims, &rule.pins);
    let first_use = (!to_pin.is_empty()).then(|| FirstUse { conditions: Arc::clone(&rule.conditions), to_pin });
    memberships[at].rules.push(MatchedRule { first_use, ..rule.name.clone() });
}

/// A verified identity that is nothing here yet.
fn stranger(identity: &Arc<Identity>, sha256: [u8; 32]) -> Caller {
    Caller {
        name: format!("{}:{}", identity.kind.as_str(), identity.subject).chars().filter(|c| !c.is_control()).take(300).collect(),
        recognised_by: json!({"type": "ci-identity", "issuer": identity.issuer, "claims": identifying(identity.kind, &identity.claims)}),
        memberships: Vec::new(),
        platform_admin: false,
        expires_at: Some(identity.expires_at),
        held: Held::Identity(Arc::clone(identity)),
        sha256,
    }
}
