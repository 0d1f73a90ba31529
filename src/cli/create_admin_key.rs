//! `token-broker create-admin-key`: the first key of a new installation.

use clap::Args;
use uuid::Uuid;

use super::serve;
use crate::{
    actor::Actor,
    config::DatabaseOptions,
    identity::{Opaque, OpaqueKind, Role},
    names::{Name, TokenPattern},
    store::{NewApiKey, Store, StoreError},
};

#[derive(Args)]
pub(super) struct CreateAdminKeyOptions {
    /// The key's name.
    #[arg(long)]
    name: Name,
    /// Seconds until it expires; absent: never.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_153_600_000))]
    expires_in: Option<u32>,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Whoever can run this with the database's URL is the operator: the database is the permission.
pub(super) async fn run(options: &CreateAdminKeyOptions) -> anyhow::Result<()> {
    let (store, _) = serve::open(options.database.read()?).await?;
    match make(&store, &options.name, options.expires_in).await {
        Ok(key) => println!("{key}"),
        Err(StoreError::Taken(_)) => anyhow::bail!("there is a platform key named {} already", options.name),
        Err(error) => return Err(error.into()),
    }
    store.close().await;
    Ok(())
}

/// Makes a platform key straight in the database, and returns it.
///
/// # Errors
/// `Taken`, or Postgres.
pub async fn make(store: &Store, name: &Name, expires_in: Option<u32>) -> Result<String, StoreError> {
    let (text, key) = Opaque::generate(OpaqueKind::ApiKey);
    let new = NewApiKey {
        name: name.to_string(),
        role: Role::PlatformAdmin.as_str().to_owned(),
        token_patterns: vec![TokenPattern::all().into()],
        public_id: key.public_id,
        sha256: key.sha256,
        expires_in: expires_in.map(i64::from),
    };
    let actor = Actor { name: "command-line".to_owned(), ..Actor::system() };
    store.create_api_key(Uuid::nil(), &new, &actor).await?;
    Ok(text)
}
