//! The verification itself, top to bottom: nothing is fetched for a stranger, and nothing is believed before the signature.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use jsonwebtoken::{DecodingKey, Validation, errors::ErrorKind};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    claims::{self, LEEWAY},
    issuer::{CLIENT_TIMEOUT, Issuer},
    refusal::{JwtError, quoted},
    settings::IssuerSettings,
    token::UnverifiedToken,
};
use crate::{identity::IssuerKind, outbound, secret::PresentedCredential};

/// Who an issuer says is calling. Made only by [`Issuers::verify`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// Of the list, byte for byte.
    pub issuer: String,
    /// What its claims mean.
    pub kind: IssuerKind,
    /// All of them.
    pub claims: Map<String, Value>,
    /// `sub`, never empty.
    pub subject: String,
    /// The token's own id, where the issuer gave one: unique together with the issuer.
    pub jti: Option<String>,
    /// `exp`; the token is taken until 60 s after it.
    pub expires_at: OffsetDateTime,
}

impl Identity {
    /// Whether the token is taken no more.
    pub fn has_ended(&self) -> bool {
        OffsetDateTime::now_utc() > self.expires_at + Duration::from_secs(u64::from(LEEWAY))
    }
}

/// The issuers whose tokens are believed, with their keys.
#[derive(Clone, Debug)]
pub struct Issuers {
    list: Arc<[Arc<Issuer>]>,
    audience: Arc<str>,
}

impl Issuers {
    /// Over this list; with an empty one every JWT is of an unknown issuer. Nothing is fetched yet.
    ///
    /// # Errors
    /// An issuer is listed twice, the audience is empty, or the route's CA or proxy cannot be read.
    pub fn new(list: Vec<IssuerSettings>, audience: String, route: &outbound::Route) -> anyhow::Result<Self> {
        ensure!(!audience.is_empty(), "the audience of CI identities must not be empty");
        for (at, issuer) in list.iter().enumerate() {
            ensure!(list[..at].iter().all(|earlier| earlier.url != issuer.url), "issuer {} is listed twice", issuer.url);
        }
        // Where nobody is to be asked, the system's certificates are not read for it.
        let client = (!list.is_empty()).then(|| outbound::client(route, CLIENT_TIMEOUT)).transpose()?;
        let each = list.into_iter().zip(client.into_iter().cycle());
        let list = each.map(|(settings, client)| Arc::new(Issuer::new(settings, client))).collect();
        Ok(Self { list, audience: audience.into() })
    }

    /// Who this is.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub async fn verify(&self, credential: &PresentedCredential) -> Result<Identity, JwtError> {
        let token = UnverifiedToken::parse(credential)?;
        let unverified_issuer = claims::text(&token.unverified_claims, "iss", usize::MAX)?;
        let issuer = self.of(unverified_issuer).ok_or_else(|| JwtError::UnknownIssuer(quoted(unverified_issuer)))?;
        let algorithm = token.unverified_algorithm;
        if !issuer.settings.algorithms.contains(&algorithm) {
            return Err(JwtError::Algorithm(format!("{algorithm:?}")));
        }
        let key = issuer.key(token.unverified_kid.as_deref(), algorithm).await?;
        self.check(token, &issuer.settings, &key)
    }

    /// What a token says, read as strictly as for [`Issuers::verify`], and believed by nobody.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn unverified_claims(credential: &PresentedCredential) -> Result<Map<String, Value>, JwtError> {
        UnverifiedToken::parse(credential).map(|token| token.unverified_claims)
    }

    /// What the claims of this issuer mean, if it is on the list.
    pub fn kind_of(&self, issuer: &str) -> Option<IssuerKind> {
        self.of(issuer).map(|issuer| issuer.settings.kind)
    }

    /// Renews all keys ahead of time until told to stop.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let mut tasks: JoinSet<()> = self.list.iter().map(|issuer| Arc::clone(issuer).keep_fresh(stop.clone())).collect();
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the renewal of an issuer's keys broke off");
            }
        }
    }

    /// Byte for byte: a prefix or a look-alike would be somebody else.
    fn of(&self, issuer: &str) -> Option<&Arc<Issuer>> {
        self.list.iter().find(|known| known.settings.url == issuer)
    }

    /// The signature first, then each claim. The library checks the claims as well; ours says which is wrong, and is stricter.
    fn check(&self, token: UnverifiedToken<'_>, issuer: &IssuerSettings, key: &DecodingKey) -> Result<Identity, JwtError> {
        let mut validation = Validation::new(token.unverified_algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&issuer.url]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = u64::from(LEEWAY);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token.text, key, &validation).map_err(|error| error.into_kind());
        if matches!(decoded, Err(ErrorKind::InvalidSignature)) {
            return Err(JwtError::Signature);
        }
        let checked = claims::check(&token.unverified_claims, &self.audience, OffsetDateTime::now_utc());
        let (checked, claims) = match (checked, decoded) {
            (Ok(checked), Ok(decoded)) => (checked, decoded.claims),
            (Err(error), _) => return Err(error),
            (Ok(_), Err(other)) => return Err(JwtError::Unverifiable(format!("{other:?}"))),
        };
        Ok(Identity {
            issuer: issuer.url.clone(),
            kind: issuer.kind,
            claims,
            subject: checked.subject,
            jti: checked.jti,
            expires_at: checked.expires_at,
        })
    }
}
