//! Master keys wrap data keys. Each has an id, and lives in this process or in a key service; the first of the list wraps, all
//! unwrap.

mod aws_kms;
mod credential;
mod error;
mod transit;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use uuid::Uuid;
use zeroize::Zeroizing;

pub use aws_kms::AwsKms;
pub use credential::Credential;
pub use error::MasterKeyError;
pub use transit::{SERVICE_ACCOUNT_TOKEN, TransitLogin};

use self::{aws_kms::KmsKey, transit::Transit};
use super::seal::{Key, OpenError, Place};
use crate::{
    names::Name,
    outbound::Route,
    secret::{Sealed, Wrapped},
};

/// The canary's text. Sealed by a master key at its first use; a key that does not open it is the wrong one.
const CANARY: &[u8] = b"token-broker canary";

/// The master keys of this process, the wrapping one first.
#[derive(Debug)]
pub struct MasterKeys(Vec<MasterKey>);

#[derive(Debug)]
struct MasterKey {
    id: String,
    provider: Provider,
}

/// Where a master key is.
#[derive(Debug)]
enum Provider {
    /// In this process, from the environment or a file.
    Local(Key),
    /// In the transit engine of OpenBao or Vault.
    Transit(Box<Transit>),
    /// In AWS KMS.
    AwsKms(Box<KmsKey>),
}

/// How key services are called.
#[derive(Clone, Debug, Default)]
pub struct KeyServices {
    /// How a transit engine is shown who asks.
    pub transit: Option<TransitLogin>,
    /// The way there.
    pub transit_route: Route,
    /// How KMS is called.
    pub aws: Option<AwsKms>,
}

/// Why a call to a key service brought nothing.
#[derive(Clone, Debug)]
enum CallError {
    /// It judged what was sent.
    Refused(String),
    /// It does not let this process in.
    Forbidden(String),
    /// It could not be reached, or does not work.
    Unavailable(String),
}

/// Bytes of a wrapped key at the least: the key, a nonce and a tag.
const SHORTEST: usize = 32 + 12 + 16;

/// Total time of one call to a key service.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The same with the login that may go before it, another's login that is waited for, and the second try.
const ALL_IN_ALL: Duration = Duration::from_secs(6);

impl MasterKeys {
    /// Reads `id:base64-of-32-bytes[,id:…]`: keys of this process alone.
    ///
    /// # Errors
    /// See [`MasterKeyError`]; the message names the id, never the key.
    pub fn parse(list: &str) -> Result<Self, MasterKeyError> {
        Self::parse_with(list, &KeyServices::default())
    }

    /// The same, where an entry may be `id:transit:URL` or `id:awskms:ARN` too; without an id its id is `transit` or `awskms`.
    ///
    /// # Errors
    /// See [`MasterKeyError`]; the message names the id, never the key.
    pub fn parse_with(list: &str, services: &KeyServices) -> Result<Self, MasterKeyError> {
        let mut keys: Vec<MasterKey> = Vec::new();
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (number, entry) in entries.enumerate() {
            let (id, value) = match entry.split_once(':').ok_or(MasterKeyError::Form(number + 1))? {
                (kind @ ("transit" | "awskms"), _) => (kind, entry),
                with_id => with_id,
            };
            let id: Name = id.trim().parse().map_err(|_| MasterKeyError::Form(number + 1))?;
            if keys.iter().any(|key| key.id == id.as_str()) {
                return Err(MasterKeyError::Twice(id.to_string()));
            }
            let provider = match value.split_once(':') {
                Some(("transit", url)) => Provider::Transit(Box::new(transit(&id, url, services)?)),
                Some(("awskms", arn)) => Provider::AwsKms(Box::new(aws_kms(&id, arn, services)?)),
                _ => Provider::Local(local(&id, value)?),
            };
            keys.push(MasterKey { id: id.to_string(), provider });
        }
        if keys.is_empty() { Err(MasterKeyError::None) } else { Ok(Self(keys)) }
    }

    /// The ids, the wrapping one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }

    /// The key that wraps: the first of the list.
    pub fn first(&self) -> &str {
        &self.0[0].id
    }

    /// Whether the key `id` is in the list.
    pub fn has(&self, id: &str) -> bool {
        self.ids().any(|given| given == id)
    }

    /// Whether the key `id` is in this process: then using it costs nothing.
    pub fn is_local(&self, id: &str) -> bool {
        self.key(id).is_ok_and(|key| matches!(key.provider, Provider::Local(_)))
    }

    /// A new canary of key `id`.
    ///
    /// # Errors
    /// `Missing`.
    pub async fn canary(&self, id: &str) -> Result<Sealed, MasterKeyError> {
        self.key(id)?.seal(canary_place(), CANARY).await
    }

    /// Whether key `id` is the one that sealed this canary.
    ///
    /// # Errors
    /// `Missing` or `Wrong`.
    pub async fn check_canary(&self, id: &str, canary: &Sealed) -> Result<(), MasterKeyError> {
        let text = self.key(id)?.open(canary_place(), canary).await?;
        if text.as_slice() == CANARY { Ok(()) } else { Err(MasterKeyError::Wrong(id.to_owned(), OpenError::Tampered)) }
    }

    /// Wraps a key by the master key `by`. `owner` is the team, or nil for a journal's.
    ///
    /// # Errors
    /// `Missing`.
    pub async fn wrap(&self, by: &str, owner: Uuid, key: &Key) -> Result<Wrapped, MasterKeyError> {
        let sealed = self.key(by)?.seal(wrap_place(owner, key.id()), key.bytes()).await?;
        Ok(Wrapped { master_key_id: by.to_owned(), sealed })
    }

    /// Unwraps the data key `id` of `owner`.
    ///
    /// # Errors
    /// `Missing` or `Damaged`.
    pub async fn unwrap(&self, owner: Uuid, id: &str, wrapped: &Wrapped) -> Result<Key, MasterKeyError> {
        let master = &wrapped.master_key_id;
        let damaged = |error| MasterKeyError::Damaged { id: id.to_owned(), master: master.clone(), error };
        let bytes = self.key(master)?.open(wrap_place(owner, id), &wrapped.sealed).await.map_err(|error| match error {
            // The canary tells whether it is the key: here it is what was wrapped.
            MasterKeyError::Wrong(_, error) => damaged(error),
            other => other,
        })?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged(OpenError::Format))?;
        Ok(Key::new(id, Zeroizing::new(bytes)))
    }

    /// Whether this can be the data key `id`, wrapped, as far as that is seen without asking a key service: one that was truncated
    /// cannot.
    ///
    /// # Errors
    /// `Missing` or `Damaged`.
    pub fn check_form(&self, id: &str, wrapped: &Wrapped) -> Result<(), MasterKeyError> {
        let (master, sealed) = (wrapped.master_key_id.clone(), wrapped.sealed.as_bytes());
        let good = match &self.key(&master)?.provider {
            Provider::Transit(_) => transit::is_wrapped(sealed),
            Provider::Local(_) | Provider::AwsKms(_) => sealed.len() >= SHORTEST,
        };
        let damaged = || MasterKeyError::Damaged { id: id.to_owned(), master, error: OpenError::Format };
        good.then_some(()).ok_or_else(damaged)
    }

    fn key(&self, id: &str) -> Result<&MasterKey, MasterKeyError> {
        self.0.iter().find(|key| key.id == id).ok_or_else(|| MasterKeyError::Missing(id.to_owned()))
    }
}

impl MasterKey {
    async fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Sealed, MasterKeyError> {
        let sealed = match &self.provider {
            Provider::Local(key) => return Ok(key.seal(place, plain)),
            Provider::Transit(transit) => in_time(transit.seal(place, plain)).await,
            Provider::AwsKms(kms) => in_time(kms.seal(place, plain)).await,
        };
        let sealed = sealed.map_err(|error| self.failed(error))?;
        // It may take the place of the only copy: an answer to somebody else's question must not.
        match self.open(place, &sealed).await {
            Ok(opened) if opened.as_slice() == plain => Ok(sealed),
            Ok(_) | Err(MasterKeyError::Wrong(..)) => {
                Err(self.failed(CallError::Unavailable("what it wrapped does not open again".to_owned())))
            }
            Err(error) => Err(error),
        }
    }

    async fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let called = match &self.provider {
            Provider::Local(key) => {
                return key.open(place, sealed).map_err(|error| MasterKeyError::Wrong(self.id.clone(), error));
            }
            Provider::Transit(transit) => in_time(transit.open(place, sealed)).await,
            Provider::AwsKms(kms) => in_time(kms.open(place, sealed)).await,
        };
        called.map_err(|error| match error {
            CallError::Refused(why) => MasterKeyError::Wrong(self.id.clone(), OpenError::Refused(why)),
            other => self.failed(other),
        })
    }

    fn failed(&self, error: CallError) -> MasterKeyError {
        let why = match error {
            CallError::Refused(why) => format!("the key service refused: {why}"),
            CallError::Forbidden(why) => format!("the key service lets this service not in: {why}"),
            CallError::Unavailable(why) => format!("the key service: {why}"),
        };
        MasterKeyError::Unavailable(self.id.clone(), why)
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let late = |_| Err(CallError::Unavailable("it did not answer in time".to_owned()));
    tokio::time::timeout(ALL_IN_ALL, call).await.unwrap_or_else(late)
}

/// Whether what is sent there stays unread on its way.
fn is_private(url: &reqwest::Url) -> bool {
    let loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    url.scheme() == "https" || url.scheme() == "http" && loopback
}

fn transit(id: &Name, url: &str, services: &KeyServices) -> Result<Transit, MasterKeyError> {
    let unusable = |why| MasterKeyError::Service(id.to_string(), why);
    let login = services.transit.clone().ok_or_else(|| {
        unusable("is in a transit engine: set TOKEN_BROKER_TRANSIT_TOKEN or TOKEN_BROKER_TRANSIT_KUBERNETES_ROLE".to_owned())
    })?;
    Transit::new(url.trim(), login, &services.transit_route).map_err(unusable)
}

fn aws_kms(id: &Name, arn: &str, services: &KeyServices) -> Result<KmsKey, MasterKeyError> {
    let unusable = |why| MasterKeyError::Service(id.to_string(), why);
    let aws = services
        .aws
        .clone()
        .ok_or_else(|| unusable("is in AWS KMS: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()))?;
    KmsKey::new(arn.trim(), aws).map_err(unusable)
}

fn local(id: &Name, encoded: &str) -> Result<Key, MasterKeyError> {
    let wrong = || MasterKeyError::Length(id.to_string());
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).map_err(|_| wrong())?);
    let bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| wrong())?;
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(MasterKeyError::Constant(id.to_string()));
    }
    Ok(Key::new(id.to_string(), Zeroizing::new(bytes)))
}

fn canary_place() -> Place<'static> {
    Place { table: "master_keys", row: Uuid::nil(), column: "canary", generation: 0 }
}

fn wrap_place(owner: Uuid, key_id: &str) -> Place<'_> {
    Place { table: "data_keys", row: owner, column: key_id, generation: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_key() -> String {
        STANDARD.encode(super::super::random_bytes::<32>())
    }

    #[test]
    fn bad_lists_are_refused_without_quoting_the_key() {
        let key = some_key();
        let cases = [
            ("".to_owned(), MasterKeyError::None),
            (key.clone(), MasterKeyError::Form(1)),
            (format!("A B:{key}"), MasterKeyError::Form(1)),
            ("k1:AAAA".to_owned(), MasterKeyError::Length("k1".into())),
            (format!("k1:{}", STANDARD.encode([0; 32])), MasterKeyError::Constant("k1".into())),
            (format!("k1:{key},k1:{key}"), MasterKeyError::Twice("k1".into())),
        ];
        for (list, expected) in cases {
            let error = MasterKeys::parse(&list).expect_err("refused");
            assert!(!error.to_string().contains(&key));
            assert_eq!(error, expected);
        }
    }

    #[tokio::test]
    async fn any_key_of_the_list_wraps_and_unwraps_for_its_owner_alone() {
        let (one, two) = (some_key(), some_key());
        let old = MasterKeys::parse(&format!("one:{one}")).expect("parses");
        let both = MasterKeys::parse(&format!("two:{two},one:{one}")).expect("parses");
        let owner = Uuid::new_v4();
        let data = Key::generate();
        let wrapped = old.wrap(old.first(), owner, &data).await.expect("wraps");
        assert_eq!(both.unwrap(owner, data.id(), &wrapped).await.expect("unwraps").bytes(), data.bytes());
        assert_eq!(both.wrap(both.first(), owner, &data).await.expect("wraps").master_key_id, "two");
        assert!(both.unwrap(Uuid::new_v4(), data.id(), &wrapped).await.is_err(), "another team's row");
        assert_eq!(old.wrap("two", owner, &data).await.expect_err("refused"), MasterKeyError::Missing("two".into()));
    }

    #[tokio::test]
    async fn a_wrong_key_fails_its_canary() {
        let keys = MasterKeys::parse(&format!("k:{}", some_key())).expect("parses");
        let canary = keys.canary("k").await.expect("k is there");
        let other = MasterKeys::parse(&format!("k:{}", some_key())).expect("parses");
        assert_eq!(other.check_canary("k", &canary).await, Err(MasterKeyError::Wrong("k".into(), OpenError::WrongKey)));
        assert_eq!(keys.check_canary("k", &canary).await, Ok(()));
    }

    #[tokio::test]
    async fn a_truncated_or_flipped_wrapped_key_is_named_by_its_id() {
        let keys = MasterKeys::parse(&format!("k:{}", some_key())).expect("parses");
        let (owner, data) = (Uuid::new_v4(), Key::generate());
        let wrapped = keys.wrap("k", owner, &data).await.expect("wraps");
        for at in 0..wrapped.sealed.as_bytes().len() {
            let mut flipped = wrapped.sealed.as_bytes().to_vec();
            flipped[at] ^= 1;
            for bytes in [flipped, wrapped.sealed.as_bytes()[..at].to_vec()] {
                let damaged = Wrapped { sealed: Sealed::from_bytes(bytes), ..wrapped.clone() };
                let error = keys.unwrap(owner, data.id(), &damaged).await.expect_err("refused");
                assert!(matches!(&error, MasterKeyError::Damaged { id, master, .. } if id == data.id() && master == "k"), "{at}");
            }
        }
    }
}
